"""How a caption becomes labels of frames."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import STAMPS_NS, caption, segment

from omni_mlflow.spine.captions import FrameCaptions, map_captions
from omni_mlflow.spine.episodes import open_episode
from omni_mlflow.spine.types import Scale
from omni_mlflow.spine.windows import FrameLabels, cut_windows

NAMES = [f"{stamp}.jpg" for stamp in STAMPS_NS]


def mapped(*segments: dict[str, Any], **options: Any) -> FrameCaptions:
    found = map_captions(caption(*segments), NAMES, **options)
    assert found is not None
    return found


def test_an_action_that_overruns_its_segment_keeps_its_label_and_subtask():
    first = segment(STAMPS_NS[0], STAMPS_NS[2], ("Lift", STAMPS_NS[0], STAMPS_NS[4]), subtask="Start")
    second = segment(STAMPS_NS[3], STAMPS_NS[7], subtask="End", objects={str(STAMPS_NS[3]): ["kettle"]})
    found = mapped(first, second)
    assert found.action == ("Lift",) * 8
    assert found.subtask == ("Start",) * 5 + ("End",) * 3


def test_a_later_action_overwrites_an_earlier_one():
    first = segment(STAMPS_NS[0], STAMPS_NS[7], ("Lift", STAMPS_NS[0], STAMPS_NS[7]))
    second = segment(STAMPS_NS[4], STAMPS_NS[7], ("Pour", STAMPS_NS[4], STAMPS_NS[7]))
    assert mapped(first, second).action == ("Lift",) * 4 + ("Pour",) * 4


def test_an_action_of_one_frame_labels_its_whole_segment():
    found = mapped(segment(STAMPS_NS[2], STAMPS_NS[5], ("Lift", STAMPS_NS[4], STAMPS_NS[4])))
    assert found.action == (None, None, "Lift", "Lift", "Lift", "Lift", "Lift", "Lift")


def test_between_two_actions_the_earlier_one_goes_on():
    actions = (("Lift", STAMPS_NS[0], STAMPS_NS[1]), ("Pour", STAMPS_NS[5], STAMPS_NS[7]))
    assert mapped(segment(STAMPS_NS[0], STAMPS_NS[7], *actions)).action == ("Lift",) * 5 + ("Pour",) * 3


def test_nothing_is_filled_in_before_the_first_labelled_frame():
    found = mapped(segment(STAMPS_NS[3], STAMPS_NS[7], ("Lift", STAMPS_NS[3], STAMPS_NS[7])))
    assert found.action == (None,) * 3 + ("Lift",) * 5


def test_a_segment_that_touches_no_frame_is_dropped():
    empty = segment(STAMPS_NS[0], STAMPS_NS[7], ("Lost", "no such frame", STAMPS_NS[1]))
    assert mapped(empty).subtask == (None,) * 8


def test_objects_and_interactions_last_until_their_segment_ends_each_on_its_own():
    first = segment(
        STAMPS_NS[0],
        STAMPS_NS[3],
        ("Lift", STAMPS_NS[0], STAMPS_NS[7]),
        objects={str(STAMPS_NS[1]): ["kettle", "cup"]},
        interaction={str(STAMPS_NS[2]): "Hand on handle"},
    )
    found = mapped(first)
    assert found.objects == (None, *[("kettle", "cup")] * 3, None, None, None, None)
    assert found.interaction == (None, None, "Hand on handle", "Hand on handle", None, None, None, None)


@pytest.mark.parametrize("label", ["N/A", "n/a", "", "  ", None])
def test_no_label_and_not_applicable_mean_that_nobody_annotated(label):
    found = mapped(segment(STAMPS_NS[0], STAMPS_NS[7], (label, STAMPS_NS[0], STAMPS_NS[7]), subtask="N/A"))
    assert found.action == (None,) * 8
    assert found.subtask == (None,) * 8


@pytest.mark.parametrize(
    ("reference", "frame"),
    [
        (STAMPS_NS[3], 3),
        (str(STAMPS_NS[3]), 3),
        (f" {STAMPS_NS[3]}.jpg ", 3),
        (STAMPS_NS[3] + 20_000_000, 3),
        (STAMPS_NS[3] + 30_000_000, 4),
        (10**30, 7),
        ("frame_0000004", 3),
        ("frame_0000009", 7),
        (4, 3),
        ("4", 3),
        (0, 0),
        (-5, 0),
    ],
)
def test_a_frame_is_named_by_timestamp_number_or_place_counted_from_one(reference, frame):
    found = mapped(segment(None, None, ("Lift", reference, reference)))
    assert found.action.index("Lift") == frame


def test_a_reversed_range_is_read_forwards():
    found = mapped(segment(STAMPS_NS[0], STAMPS_NS[3], ("Lift", STAMPS_NS[3], STAMPS_NS[1])))
    assert found.action[1:4] == ("Lift",) * 3


def test_the_old_rule_counts_segments_from_zero_and_takes_small_numbers_for_timestamps():
    document = segment(2, 5, ("Lift", 4, 4), objects={str(STAMPS_NS[0]): ["cup"]})
    assert mapped(document, rule="new").objects == (("cup",),) * 5 + (None,) * 3  # frames 2 to 5 from one
    assert mapped(document, rule="old").objects == (("cup",),) + (None,) * 1 + (("cup",),) * 4 + (None,) * 2
    assert mapped(document, rule="new").action.index("Lift") == 1
    assert mapped(document, rule="old").action.index("Lift") == 0


def test_the_old_rule_drops_an_action_that_starts_at_a_numbered_frame():
    document = segment(STAMPS_NS[0], STAMPS_NS[7], ("Lift", "frame_0000002", STAMPS_NS[3]))
    assert mapped(document, rule="old").action == (None,) * 8


@pytest.mark.parametrize("text", [None, "", "{broken", "null", b"\xff\xfe", "[" * 100_000])
def test_text_that_is_no_json_is_no_caption(text):
    assert map_captions(text, NAMES) is None


@pytest.mark.parametrize(
    "document", [{}, [], "text", 3, {"segments": None}, {"segments": {}}, {"segments": [None, 7]}]
)
def test_json_without_segments_leaves_every_frame_unlabelled(document):
    found = map_captions(json.dumps(document), NAMES)
    assert found is not None
    assert found.action == found.subtask == found.objects == found.interaction == (None,) * 8


def test_fields_that_are_null_or_of_another_type_count_as_empty():
    broken = {"Sub Task": None, "Current Action": None, "objects": ["cup"], "interaction": None}
    whole = segment(STAMPS_NS[0], STAMPS_NS[7], ("Lift", STAMPS_NS[0], STAMPS_NS[7]))
    assert mapped(broken, {**whole, "objects": {str(STAMPS_NS[0]): None}}).action == ("Lift",) * 8
    assert mapped(broken).subtask == (None,) * 8


def test_a_byte_that_is_not_utf8_spoils_only_its_own_letter():
    text = caption(segment(STAMPS_NS[0], STAMPS_NS[7], ("Lift cup", STAMPS_NS[0], STAMPS_NS[7]))).encode()
    found = map_captions(text.replace(b"cup", b"c\xffp"), NAMES)
    assert found is not None
    assert found.action == ("Lift c\ufffdp",) * 8


@pytest.mark.parametrize("task", ["N/A", "", None])
def test_a_main_task_that_says_nothing_is_none(task):
    found = map_captions(caption(main_task=task), NAMES)
    assert found is not None
    assert found.main_task is None


@pytest.mark.parametrize("rule", ["new", "old"])
def test_the_published_window_counts_of_the_real_sample_are_reproduced(real_sample: Path, rule):
    """18 actions in 1,144 windows and 14 subtasks in 1,147 were published for windows of 20 every 5."""
    with open_episode(real_sample) as episode:
        text = str(episode.annotation.text("caption"), "utf-8")
        known = {int(stamp) for stamp in re.findall(r"\b7\d{13}\b", text)}
        known |= set(episode.device_timestamps_ns.tolist())
    captions = map_captions(text, _names_of_the_whole_sample(sorted(known)), rule=rule)
    nobody = np.zeros(5821, dtype=bool)
    windows = cut_windows(
        FrameLabels(captions, nobody, nobody), scale=Scale(frames=20, stride=5), min_label_share=0.6
    )
    actions = Counter(labels.action for _, labels in windows if labels.action)
    subtasks = Counter(labels.subtask for _, labels in windows if labels.subtask)
    assert (len(actions), actions.total()) == (18, 1144)
    assert (len(subtasks), subtasks.total()) == (14, 1147)
    assert subtasks["Position kettle to pour"] == 7


def _names_of_the_whole_sample(known_ns: list[int]) -> list[str]:
    """The sample has 5,821 frames, 50 ms apart but for the first gap of 47 ms; those named are known."""
    places = [round((stamp - known_ns[0]) / 50e6 + 0.0589) for stamp in known_ns]
    stamps = np.interp(np.arange(5821), places, known_ns).astype(np.int64)
    stamps[places] = known_ns
    return [f"{stamp}.jpg" for stamp in stamps]
