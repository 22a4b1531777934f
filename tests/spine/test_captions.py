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

from omni_mlflow.spine.caption_references import CaptionRule
from omni_mlflow.spine.captions import CaptionSegment, FrameCaptions, map_captions
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


def test_the_description_goes_where_its_action_goes():
    actions = [
        {"label": "Lift", "description": "Up.", "start_frame": STAMPS_NS[0], "end_frame": STAMPS_NS[1]},
        {"label": "Pour", "description": "Out.", "start_frame": STAMPS_NS[4], "end_frame": STAMPS_NS[4]},
    ]
    found = mapped({**segment(STAMPS_NS[0], STAMPS_NS[5]), "Current Action": actions})
    assert found.description == ("Up.",) * 4 + ("Out.",) * 4


def test_segments_are_listed_as_they_lie_and_those_that_name_no_frame_are_counted():
    found = mapped(
        segment(STAMPS_NS[0], STAMPS_NS[2], ("Lift", STAMPS_NS[0], STAMPS_NS[4]), subtask="Start"),
        segment(STAMPS_NS[5], STAMPS_NS[3], ("Pour", STAMPS_NS[3], STAMPS_NS[3]), subtask="N/A"),
        segment(STAMPS_NS[6], STAMPS_NS[7]),
    )
    assert found.segments == (CaptionSegment(0, 2, "Start"), CaptionSegment(3, 5, None))
    assert found.dropped_segments == 1


@pytest.mark.parametrize("digits", ["9" * 5000, "frame_" + "9" * 5000])
@pytest.mark.parametrize("rule", ["new", "old"])
def test_a_number_of_thousands_of_digits_is_the_last_frame(digits, rule):
    document = segment(digits, digits, ("Lift", STAMPS_NS[0], STAMPS_NS[7]), objects={digits: ["cup"]})
    assert mapped(document, rule=rule).action == ("Lift",) * 8
    if rule == "new":
        assert mapped(document).objects == (*(None,) * 7, ("cup",))


def test_half_a_character_becomes_a_question_mark_and_can_be_written():
    text = caption(segment(STAMPS_NS[0], STAMPS_NS[7], ("Lift \ud83d", STAMPS_NS[0], STAMPS_NS[7])))
    found = map_captions(text, NAMES)
    assert found is not None
    assert found.action == ("Lift ?",) * 8


@pytest.mark.parametrize("wrapped", ["\ufeff{}", "{}\0\0\0", " \n{}\n"])
def test_what_editors_and_fixed_fields_put_around_a_text_does_no_harm(wrapped):
    text = caption(segment(STAMPS_NS[0], STAMPS_NS[7], ("Lift", STAMPS_NS[0], STAMPS_NS[7])))
    assert map_captions(wrapped.replace("{}", text), NAMES).action == ("Lift",) * 8


def test_text_after_the_document_makes_it_no_caption():
    assert map_captions(caption() + " and more", NAMES) is None


def test_names_win_over_the_frames_they_stand_beside():
    action = {
        "label": "Lift",
        "start_frame": STAMPS_NS[0],
        "end_frame": STAMPS_NS[7],
        "start_frame_name": NAMES[2],
        "end_frame_name": NAMES[3],
    }
    found = mapped({**segment(STAMPS_NS[2], STAMPS_NS[3]), "Current Action": [action]})
    assert found.action == (None, None, *("Lift",) * 6)


def test_a_segment_without_bounds_starts_and_ends_at_frame_0():
    document = segment(0, 0, ("Lift", STAMPS_NS[2], STAMPS_NS[3]), objects={str(STAMPS_NS[2]): ["cup"]})
    del document["start_frame"], document["end_frame"]
    assert mapped(document).segments == (CaptionSegment(0, 0, "Sort"),)
    assert mapped(document).objects == (None, None, ("cup",), *(None,) * 5)


def test_a_slice_of_the_whole_map_is_not_the_map_of_a_slice():
    """A timestamp outside a slice would snap to its edge: frame 3 would become the episode's last action."""
    actions = (("Lift", STAMPS_NS[0], STAMPS_NS[3]), ("Pour", STAMPS_NS[4], STAMPS_NS[7]))
    text = caption(segment(STAMPS_NS[0], STAMPS_NS[7], *actions))
    assert map_captions(text, NAMES).action[:4] == ("Lift",) * 4
    assert map_captions(text, NAMES[:4]).action == ("Lift",) * 3 + ("Pour",)


def test_the_real_sample_cut_to_8_frames_puts_the_last_action_of_the_recording_on_the_last_frame(
    real_sample: Path,
):
    with open_episode(real_sample) as episode:
        found = episode.captions()
    assert found.action == (*("Pick up kettle",) * 7, "Pour milk into coffee")
    assert found.description[0].startswith("The person reaches for and picks up")
    assert (len(found.segments), found.dropped_segments) == (18, 0)


def test_on_the_whole_real_sample_the_rules_differ_in_the_last_boundary_and_the_last_20_frames(
    real_sample: Path,
):
    new, old = (_captions_of_the_whole_sample(real_sample, rule) for rule in ("new", "old"))
    assert (new.action, new.subtask) == (old.action, old.subtask)
    assert all(new.action)
    assert (new.segments[-1].end, old.segments[-1].end) == (5820, 5800)
    assert new.segments[:-1] == old.segments[:-1]
    differ = [frame for frame in range(5821) if new.objects[frame] != old.objects[frame]]
    assert differ == list(range(5801, 5821))
    assert [frame for frame in range(5821) if new.interaction[frame] != old.interaction[frame]] == differ


@pytest.mark.parametrize("rule", ["new", "old"])
def test_the_published_window_counts_of_the_real_sample_are_reproduced(real_sample: Path, rule):
    """18 actions in 1,144 windows and 14 subtasks in 1,147 were published for windows of 20 every 5."""
    captions = _captions_of_the_whole_sample(real_sample, rule)
    nobody = np.zeros(5821, dtype=bool)
    windows = cut_windows(
        FrameLabels(captions, nobody, nobody), scale=Scale(frames=20, stride=5), min_label_share=0.6
    )
    actions = Counter(labels.action for _, labels in windows if labels.action)
    subtasks = Counter(labels.subtask for _, labels in windows if labels.subtask)
    assert (len(actions), actions.total()) == (18, 1144)
    assert (len(subtasks), subtasks.total()) == (14, 1147)
    assert subtasks["Position kettle to pour"] == 7


def _captions_of_the_whole_sample(folder: Path, rule: CaptionRule) -> FrameCaptions:
    with open_episode(folder) as episode:
        text = str(episode.annotation.text("caption"), "utf-8")
        known = {int(stamp) for stamp in re.findall(r"\b7\d{13}\b", text)}
        known |= set(episode.device_timestamps_ns.tolist())
    found = map_captions(text, _names_of_the_whole_sample(sorted(known)), rule=rule)
    assert found is not None
    return found


def _names_of_the_whole_sample(known_ns: list[int]) -> list[str]:
    """The sample has 5,821 frames, 50 ms apart but for the first gap of 47 ms; those named are known."""
    places = [round((stamp - known_ns[0]) / 50e6 + 0.0589) for stamp in known_ns]
    stamps = np.interp(np.arange(5821), places, known_ns).astype(np.int64)
    stamps[places] = known_ns
    return [f"{stamp}.jpg" for stamp in stamps]
