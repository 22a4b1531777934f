"""The tiny base: the hub's layout, loaded by the same calls, taught without the name of any action."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from omni_mlflow.backbones.qwen3_omni_lora import warm_base
from omni_mlflow.backbones.qwen3_omni_lora.captions import caption_facts, session_lessons
from omni_mlflow.backbones.qwen3_omni_lora.drills import corpus, drill
from omni_mlflow.backbones.qwen3_omni_lora.tiny_base import TEST_SIZE
from omni_mlflow.backbones.qwen3_omni_lora.warm_up import WarmUp
from omni_mlflow.spine.synthetic.vocabulary import COMMON_ACTIONS
from omni_mlflow.spine.synthetic.world import WARM_UP_SEEDS, make_session
from omni_mlflow.spine.types import Span

BRIEF = WarmUp(drills=1, captions=2, drill_every=2, sessions=1, frames=60, batch_size=2)


def test_the_folder_has_the_layout_of_the_hubs(qwen_nano):
    names = {path.name for path in qwen_nano.base.iterdir()}
    assert names >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "processor_config.json",
        "chat_template.jinja",
    }
    from safetensors import safe_open

    with safe_open(qwen_nano.base / "model.safetensors", "pt") as weights:
        keys = set(weights.keys())
    assert "thinker.model.layers.1.mlp.experts.1.down_proj.weight" in keys
    assert all(key.startswith("thinker.") for key in keys)


def test_a_caption_says_what_is_seen_and_heard_and_names_no_action():
    world = make_session(WARM_UP_SEEDS[0], frames=120)
    segment = world.segments[0]
    span = Span(start=segment.stop - 12, stop=segment.stop + 8)
    assert caption_facts(world, span) == {
        "seen": f"{segment.action.tool} {segment.action.colour}",
        "colours": list(dict.fromkeys(part.action.colour for part in world.segments[:2])),
        "sound": "yes" if segment.in_contact else "no",
        "change": "yes",
        "now": f"{world.segments[1].action.tool} {world.segments[1].action.colour}",
    }


def drills(count):
    rng = random.Random(0)
    return [drill(rng) for _ in range(count)]


def test_no_lesson_no_drill_and_no_text_of_the_tokenizer_holds_an_action_that_sessions_share(tmp_path):
    world = make_session(WARM_UP_SEEDS[0], frames=120)
    lessons = session_lessons(world, tmp_path / "session", random.Random(0))
    told = [lesson.reply for lesson in lessons]
    told += [json.dumps(lesson.talk) for lesson in lessons]
    told += corpus(seed=0)
    told += ["\n".join((*each.context, each.question, each.reply)) for each in drills(2000)]
    named = {action.label for action in COMMON_ACTIONS}
    assert not [label for label in named for text in told if label in text]


def test_lessons_see_the_last_eight_grid_frames_and_hear_the_window(tmp_path):
    lessons = session_lessons(make_session(WARM_UP_SEEDS[0], frames=60), tmp_path / "s", random.Random(0))
    first, second = lessons[0].inputs, lessons[1].inputs
    # anchors 32 and 42: grid frames 0 .. 28 and 12 .. 40
    assert first.video.positions == (0, 1, 2, 3, 4, 5, 6, 7)
    assert second.video.positions == (3, 4, 5, 6, 7, 8, 9, 10)
    assert (first.audio.start_s, first.audio.stop_s) == (0.6, 1.6)


def test_a_drill_already_holds_its_answer():
    lesson = drill(random.Random(3))
    given = json.loads(lesson.question.removeprefix("Repeat "))
    assert json.loads(lesson.reply) == given
    assert list(json.loads(lesson.reply)) == [
        "action",
        "subtask",
        "objects",
        "contact",
        "transition",
        "next_action",
        "evidence_window",
    ]


@pytest.mark.training
def test_two_that_ask_for_the_base_at_once_get_one_and_it_is_the_same_every_time(tmp_path, monkeypatch):
    monkeypatch.setattr(warm_base, "PLAN", BRIEF)
    monkeypatch.setattr(warm_base, "DEMO_SIZE", TEST_SIZE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    name = warm_base.base_digest()[:32]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: warm_base.warm_base(), range(2))
    assert first == second == tmp_path / "cache" / "omni-mlflow" / "bases" / name
    assert sorted(path.name for path in first.parent.iterdir()) == [name, f"{name}.lock"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "again"))
    again = warm_base.warm_base()
    weights = [folder / "model.safetensors" for folder in (first, again)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
