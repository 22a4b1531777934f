"""Exported Qwen records become neutral windows: nothing is made up, and no record vanishes."""

from __future__ import annotations

import json
import os
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from omni_mlflow.spine.dataset_records import ConvertedWindow, convert_records
from omni_mlflow.spine.rows import BadRowError
from omni_mlflow.spine.types import Skip, Span, Split

CHECKOUT = Path(__file__).parents[2]
REFERENCE = Path(os.environ.get("OMNI_REFERENCE_DIR", CHECKOUT.parent / "shared" / "reference"))


def record(**changes: Any) -> dict[str, Any]:
    """A record of frames 20 to 39 whose clip shows frames 0 to 79."""
    made = {
        "id": "kitchen__ep1:qa:1",
        "episode_id": "kitchen__ep1",
        "split": "val",
        "center_window": {"start_frame": 20, "end_frame": 39, "num_frames": 20},
        "media": {
            "video_paths": [{"name": "fisheye_cam0.mp4", "path": "/raw/fisheye_cam0.mp4"}],
            "context_start_frame": 0,
            "context_end_frame": 79,
            "mosaic_video_path": "/media/mosaic.mp4",
            "audio_path": "/media/audio.wav",
        },
        "sensor_feature_path": "/features.npz",
        "sensor_feature_index": 1,
        "sensor_feature_dim": 4262,
        "question": "What happens?",
        "answer_json": {
            "action": "Pour water",
            "subtask": "Make coffee",
            "objects": ["kettle", "cup"],
            "contact": "yes",
            "transition": "no",
            "next_action": "Close lid",
            "evidence_window": {"start_frame": 20, "end_frame": 39},
        },
        "action_options": ["Pour water", "Close lid"],
        "messages": [{"role": "assistant", "content": "Pour water"}],
    }
    for dotted, value in changes.items():
        *parents, key = dotted.split("__")
        holder: Any = made
        for parent in parents:
            holder = holder[parent]
        holder[key] = value
    return made


@pytest.fixture
def written(tmp_path):
    """Convert a file of these lines."""

    def convert(*lines: str) -> list[ConvertedWindow | Skip]:
        path = tmp_path / "dataset.jsonl"
        path.write_bytes("".join(line + "\n" for line in lines).encode(errors="surrogateescape"))
        return list(convert_records(path))

    return convert


@pytest.fixture
def converted(written):
    return lambda *records: written(*map(json.dumps, records))


def test_the_published_records_keep_split_boundaries_pointers_and_answers():
    path = REFERENCE / "dataset_rows3.jsonl"
    if not path.is_file():
        pytest.skip(f"no published records at {path}; set OMNI_REFERENCE_DIR")
    windows = list(convert_records(path))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [window.id for window in windows] == [line["id"] for line in lines]
    for window, line in zip(windows, lines, strict=True):
        row = json.loads(window.model_dump_json(by_alias=True))
        assert row["split"] == line["split"]
        assert row["window"] == {key: line["center_window"][key] for key in ("start_frame", "end_frame")}
        assert row["modalities"]["media"]["proxy_video"] == line["media"]["mosaic_video_path"]
        assert row["modalities"]["media"]["video_paths"] == line["media"]["video_paths"]
        assert row["modalities"]["sensor_features"]["index"] == line["sensor_feature_index"]
        assert row["modalities"]["language"]["question"] == line["question"]
        assert row["supervision"]["objects"] == line["answer_json"]["objects"]
        assert set(row["adapter_views"]) == {"qwen3_omni_lora", "cosmos_world_model", "policy_vla_branch"}


def test_a_record_becomes_a_window_with_its_answers_as_supervision(converted):
    [window] = converted(record())
    assert (window.split, window.span, window.anchor) == (Split.VAL, Span(start=20, stop=40), 40)
    assert window.scale == {"frames": 20, "stride": None}
    assert window.supervision.model_dump(exclude_none=True) == {
        "action": "Pour water",
        "subtask": "Make coffee",
        "objects": ("kettle", "cup"),
        "published_contact": True,
        "transition": False,
        "next_action": "Close lid",
    }
    assert window.provenance["line"] == 1


def test_the_published_contact_is_no_contact_of_a_hand_and_its_rule_is_told(converted):
    for said, flag in (("yes", True), ("no", False), ("unknown", None)):
        [window] = converted(record(answer_json__contact=said))
        assert (window.supervision.in_contact, window.supervision.published_contact) == (None, flag)
        assert window.provenance["contact_rule"] == {"any_probability_above": 0.0}


def test_what_a_record_does_not_say_stays_null(converted):
    [window] = converted(record(sensor_feature_path=None, media__audio_path=None))
    assert (window.session_id, window.fps, window.anchor_s) == (None, None, None)
    assert window.modalities["sensor_features"] is None
    assert window.modalities["media"]["proxy_audio"] is None
    assert window.modalities["language"]["main_task"] is None
    assert window.adapter_views["policy_vla_branch"]["instruction"] is None


def test_unknown_is_nobody_annotated_it_and_an_empty_list_is_an_annotation(converted):
    answers = dict.fromkeys(("action", "subtask", "contact", "transition", "next_action"), "unknown")
    unknown, empty = converted(
        record(
            **{f"answer_json__{key}": text for key, text in answers.items()}, answer_json__objects=["unknown"]
        ),
        record(answer_json__objects=[]),
    )
    assert unknown.supervision.model_dump(exclude_none=True) == {}
    assert empty.supervision.objects == ()


@pytest.mark.parametrize("spelt", ["", " ", "N/A", "n/a", "unknown", "Unknown"])
def test_an_empty_label_and_one_that_is_not_available_are_none(converted, spelt):
    answers = {f"answer_json__{key}": spelt for key in ("action", "subtask", "next_action")}
    (window,) = converted(record(**answers, answer_json__objects=[spelt]))
    labels = window.supervision
    assert labels.model_dump(exclude_none=True) == {"published_contact": True, "transition": False}
    (window,) = converted(record(answer_json__objects=["cup", spelt]))
    assert window.supervision.objects == ("cup",)


def test_no_answer_appears_outside_supervision(converted):
    [window] = converted(record())
    row = json.loads(window.model_dump_json(by_alias=True))
    row.pop("supervision")
    assert not any(answer in json.dumps(row) for answer in ("Pour", "coffee", "kettle", "Close"))


def test_a_clip_that_shows_the_future_says_so_and_the_other_views_stop_at_the_anchor(converted):
    [window] = converted(record())
    views = window.adapter_views
    assert views["qwen3_omni_lora"]["context_window"] == {"start_frame": 0, "end_frame": 79}
    assert views["qwen3_omni_lora"]["sees_past_anchor"] is True
    assert views["cosmos_world_model"]["context_window"] == {"start_frame": 0, "end_frame": 39}
    assert views["policy_vla_branch"]["observation"]["context_window"] == {"start_frame": 0, "end_frame": 39}
    [causal] = converted(record(media__context_end_frame=39))
    for each, passes, last in ((window, True, 79), (causal, False, 39)):
        views = each.adapter_views
        for view in (
            views["qwen3_omni_lora"],
            views["cosmos_world_model"],
            views["policy_vla_branch"]["observation"],
        ):
            assert view["sees_past_anchor"] is passes
            assert view["clip_window"] == {"start_frame": 0, "end_frame": last}


def test_a_future_that_is_foretold_lies_in_the_same_clip_and_no_frame_of_it_is_context(converted):
    [window] = converted(record())
    view = window.adapter_views["cosmos_world_model"]
    assert view["conditioning"]["video"] == view["target"]["future_video"]
    assert view["sees_past_anchor"] is True
    assert view["context_window"]["end_frame"] + 1 == window.anchor == view["target_window"]["start_frame"]


@pytest.mark.parametrize(("clip_end", "target"), [(59, {"start_frame": 40, "end_frame": 59}), (58, None)])
def test_a_future_is_offered_only_where_the_clip_shows_it_whole(converted, clip_end, target):
    [window] = converted(record(media__context_end_frame=clip_end))
    view = window.adapter_views["cosmos_world_model"]
    assert view["target_window"] == target
    assert (view["target"] is None) == (target is None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"split": "trian"}, "split: Input should be 'train', 'val' or 'test'"),
        ({"id": ""}, "id: String should have at least 1 character"),
        (
            {"center_window": {"start_frame": 20, "end_frame": 19}},
            "center_window: .* frames 20 to 19 are none",
        ),
        ({"center_window__num_frames": 19}, "center_window: .* frames 20 to 39 are not 19"),
        ({"answer_json__evidence_window__end_frame": 40}, "record: .* is not its center_window"),
        ({"answer_json__contact": "maybe"}, "answer_json.contact: "),
        ({"answer_json__objects": "kettle"}, "answer_json.objects: "),
        ({"media__context_start_frame": -1}, "media.context_start_frame: "),
        (
            {"media__context_start_frame": 9, "media__context_end_frame": 8},
            "media: .* frames 9 to 8 are none",
        ),
        ({"media__context_end_frame": 10**30}, "media.context_end_frame: .* less than 2147483648"),
        ({"sensor_feature_index": -5}, "sensor_feature_index: "),
        ({"sensor_feature_dim": 0}, "sensor_feature_dim: "),
        ({"sensor_feature_index": True}, "sensor_feature_index: Input should be a valid integer"),
        ({"sensor_feature_index": "3"}, "sensor_feature_index: Input should be a valid integer"),
        ({"center_window__start_frame": "20"}, "center_window.start_frame: Input should be a valid integer"),
        ({"question": 7}, "question: Input should be a valid string"),
        ({"answer_json__contact": True}, "answer_json.contact: "),
        ({"answer_json": "x"}, "answer_json: Input should be an object"),
        ({"answer_json": None}, "answer_json: Input should be an object"),
        ({"media": None}, "media: Input should be an object"),
    ],
)
def test_a_record_at_fault_is_skipped_with_its_line_and_reason(converted, changes, reason):
    before, skip, after = converted(record(), record(**changes), record())
    assert isinstance(before, ConvertedWindow)
    assert isinstance(after, ConvertedWindow)
    assert (skip.subject, skip.stage) == ("dataset.jsonl:2", "index")
    assert re.match(reason, skip.reason), skip.reason


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"answer_json__objects": [1] * 500}, r"(answer_json\.objects\.\d+: [^;]+(; )?){5} and 495 more"),
        ({"center_window": {"start_frame": "9" * 5000, "end_frame": 1}}, r"center_window\.start_frame: .+"),
        ({"center_window__num_frames": int("9" * 4000)}, r"center_window\.?\w*: .+"),
    ],
)
def test_a_reason_keeps_its_field_and_the_beginning_however_much_is_wrong(converted, changes, told):
    _, skip = converted(record(), record(**changes))
    assert re.fullmatch(told, skip.reason), skip.reason
    assert len(skip.reason) < 1000


@pytest.mark.parametrize("line", ["[1, 2]", '{"id": "kitchen__ep1:qa:2", "epis', "\udcff", "NaN"])
def test_a_line_that_is_no_object_is_skipped_with_its_number_and_those_around_it_are_kept(written, line):
    before, skip, after = written(json.dumps(record()), line, json.dumps(record()))
    assert isinstance(before, ConvertedWindow)
    assert isinstance(after, ConvertedWindow)
    assert after.provenance["line"] == 3
    assert (skip.subject, skip.stage) == ("dataset.jsonl:2", "index")
    assert skip.reason.startswith("not a JSON object: ")


def test_blank_lines_are_no_records_and_lines_are_counted_with_them(written):
    first, second = written("", json.dumps(record()), "  \t", json.dumps(record()), "\r", "")
    assert (first.provenance["line"], second.provenance["line"]) == (2, 4)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "; "),
        (["", " "], "; "),
        (["", "PK\x03", "{}"], ", line 2 because of not a JSON object: [^;]*; "),
        (['{"prompt": "hello"}'], ", line 1 because of id: Field required; .*; "),
    ],
)
def test_a_file_in_which_no_line_is_a_record_is_refused(written, lines, why):
    sentence = f"dataset.jsonl: no line of it is an exported Qwen record{why}give the dataset.jsonl of a Qwen"
    with pytest.raises(BadRowError, match=sentence):
        written(*lines)


def test_a_file_of_something_else_is_refused_and_not_skipped_record_by_record(converted, monkeypatch):
    monkeypatch.setattr("omni_mlflow.spine.dataset_records.MOST_FAULTS", 3)
    with pytest.raises(BadRowError, match=r"dataset\.jsonl:5: more than 3 records .* id: Field required"):
        converted(record(), *[{"prompt": "hello"}] * 9)


def test_memory_does_not_grow_with_the_records(tmp_path):
    path = tmp_path / "dataset.jsonl"
    path.write_text((json.dumps(record()) + "\n") * 4000)
    tracemalloc.start()
    count = sum(1 for _ in convert_records(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 4000
    assert peak < path.stat().st_size / 10


def test_a_line_that_holds_a_whole_data_set_is_skipped_by_its_number_and_never_held(tmp_path):
    path = tmp_path / "dataset.jsonl"
    with path.open("w") as out:
        out.write(json.dumps(record()) + "\n[")
        for _ in range(20):
            out.write("1," * 2**19)
        out.write("1]\n" + json.dumps(record()) + "\n")
    first, skipped, last = convert_records(path)
    assert (first.provenance["line"], last.provenance["line"]) == (1, 3)
    assert (skipped.subject, skipped.reason) == (
        "dataset.jsonl:2",
        "longer than 16 MiB, so one record it is not",
    )


def test_a_byte_order_mark_costs_no_record(tmp_path):
    path = tmp_path / "dataset.jsonl"
    path.write_text(json.dumps(record()) + "\n", encoding="utf-8-sig")
    [window] = convert_records(path)
    assert window.provenance["line"] == 1
