"""The question and the strict JSON answer; a prompt lists what train knows and nothing else."""

from __future__ import annotations

import pytest

from omni_mlflow.backbones.label_answers import answer_of, compact
from omni_mlflow.backbones.qwen3_omni_lora.inference import answer_from
from omni_mlflow.backbones.qwen3_omni_lora.prompt import INSTRUCTION, label_options, messages
from omni_mlflow.backbones.qwen3_omni_lora.sample import AudioPointer, Inputs, VideoPointer
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.types import Labels, Outcome, Sample, Span, Split, Target

WINDOW = Span(start=60, stop=80)
STRICT = (
    '{"action":"Pour milk","subtask":"Make coffee","objects":["jug","cup"],"contact":"yes",'
    '"transition":"no","next_action":"Stir coffee","evidence_window":{"start_frame":60,"end_frame":79}}'
)
INPUTS = Inputs(
    video=VideoPointer(path="kitchen/mosaic.mp4", positions=(12, 13), frames_per_second=5.0),
    audio=AudioPointer(path="kitchen/audio.wav", start_s=3.0, stop_s=4.0),
    window=WINDOW,
    main_task="Making coffee",
    sensors="head 0.10m 3deg",
)


def priors(**actions: int) -> TrainPriors:
    return TrainPriors.fit(
        Target(
            id=f"{action}:{number}",
            episode_id="kitchen__ep1",
            anchor=20,
            window=Span(start=0, stop=20),
            labels=Labels(action=action),
        )
        for action, count in actions.items()
        for number in range(count)
    )


def question(inputs: Inputs, options: tuple[str, ...] = ()) -> str:
    """The text of the prompt; the media stand where it says so."""
    return "\n".join(part.get("text", f"<{part['type']}>") for part in blocks(inputs, options))


def blocks(inputs: Inputs, options: tuple[str, ...] = ()) -> list[dict[str, str]]:
    (turn,) = messages(inputs, options)
    assert turn["role"] == "user"
    return turn["content"]


def answered(text: str) -> Outcome:
    sample = Sample(
        id="a", episode_id="kitchen__ep1", split=Split.TEST, anchor=80, observed=WINDOW, inputs={}
    )
    answer = answer_from(sample, text)
    assert answer.raw == text
    return answer.outcome


def test_an_answer_is_compact_json_in_the_order_of_the_specification():
    labels = Labels(
        action="Pour milk",
        subtask="Make coffee",
        objects=("jug", "cup"),
        in_contact=True,
        transition=False,
        next_action="Stir coffee",
    )
    assert compact(answer_of(labels, WINDOW)) == STRICT


def test_what_nobody_annotated_is_unknown_and_an_empty_list_of_objects_is_not():
    nothing = answer_of(Labels(), WINDOW)
    assert [nothing[key] for key in ("action", "subtask", "contact", "transition", "next_action")] == [
        "unknown"
    ] * 5
    assert nothing["objects"] == ["unknown"]
    assert answer_of(Labels(objects=()), WINDOW)["objects"] == []


@pytest.mark.parametrize(
    "text",
    ["", "Pour milk", f"{STRICT}{STRICT}", STRICT[:-1], "{}", '["Pour milk"]', "null"],
)
def test_a_reply_in_which_no_answer_can_be_found_is_kept_as_it_is_and_is_the_models_mistake(text):
    assert answered(text) is Outcome.MODEL_INVALID


@pytest.mark.parametrize(
    "text",
    [
        STRICT,
        f" {STRICT}\n",
        f"```json\n{STRICT}\n```",
        f"{STRICT} I am sure.",
        f"[{STRICT}]",
        STRICT.replace('"action":"Pour milk",', ""),
        STRICT.replace('"action"', '"Action"'),
        STRICT.replace('{"action"', '{"why":"seen","action"'),
        STRICT.replace('"contact":"yes"', '"contact":"yes","contact":"no"'),
        STRICT.replace('"contact":"yes"', '"contact":true'),
        STRICT.replace('["jug","cup"]', '"jug, cup"'),
        STRICT.replace('["jug","cup"]', '["jug",1]'),
        STRICT.replace('"Pour milk"', "null"),
        STRICT.replace("79", "59"),
        STRICT.replace("60", "-60"),
        STRICT.replace("60", "60.0"),
        STRICT.replace("60", "NaN"),
        STRICT.replace('"end_frame":79', '"end_frame":79,"num_frames":20'),
    ],
)
def test_a_reply_that_is_graded_is_an_answer_however_it_has_to_be_rescued(text):
    assert answered(text) is Outcome.ANSWERED


def test_the_options_are_the_most_frequent_train_actions_in_alphabetical_order():
    fitted = priors(pour=3, stir=1, cut=2, fold=1)
    assert label_options(fitted, max_options=3) == ("cut", "fold", "pour")
    assert label_options(fitted, max_options=0) == ()


def test_a_label_that_only_test_has_is_in_no_prompt():
    options = label_options(priors(pour=3, cut=2), max_options=256)
    assert "Polish lamp" not in question(INPUTS, options)
    assert question(INPUTS, options).splitlines() == [
        INSTRUCTION,
        "Main task: Making coffee",
        "Sensors: head 0.10m 3deg",
        "Known actions: cut, pour",
        "<video>",
        "<audio>",
        'Label {"start_frame":60,"end_frame":79}',
    ]


def test_a_sample_without_sound_has_no_audio_block_and_text_alone_has_no_block_at_all():
    silent = INPUTS.model_copy(update={"audio": None})
    text_only = INPUTS.model_copy(update={"video": None, "audio": None, "sensors": None})
    assert [part["type"] for part in blocks(INPUTS)] == ["text", "video", "audio", "text"]
    assert [part["type"] for part in blocks(silent)] == ["text", "video", "text"]
    assert [part["type"] for part in blocks(text_only)] == ["text", "text"]
    assert "Sensors" not in question(text_only)


def test_what_stands_in_front_of_the_media_does_not_move_them_away_from_the_answer():
    bare = INPUTS.model_copy(update={"main_task": None, "sensors": None})
    assert blocks(bare)[1:] == blocks(INPUTS, ("cut", "pour"))[1:]
