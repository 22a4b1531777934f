"""Windows, their labels, and the labels of the window after."""

from __future__ import annotations

import numpy as np
import pytest

from omni_mlflow.spine.captions import FrameCaptions
from omni_mlflow.spine.types import Labels, Scale, Span
from omni_mlflow.spine.windows import FrameLabels, cut_windows, degenerate_labels, window_id


def frames_of(
    actions: list[str | None],
    *,
    objects: list[tuple[str, ...] | None] | None = None,
    contact: str | None = None,
) -> FrameLabels:
    """Contact is one letter per frame: y, n, or ? where it is not known."""
    count = len(actions)
    letters = np.array(list(contact or "?" * count))
    captions = FrameCaptions(
        num_frames=count,
        action=tuple(actions),
        description=(None,) * count,
        subtask=tuple(actions),
        objects=tuple(objects or [None] * count),
        interaction=(None,) * count,
        segments=(),
        dropped_segments=0,
        main_task=None,
    )
    return FrameLabels(captions, letters == "y", letters != "?")


def labels_of(frames: FrameLabels, *, size: int, share: float = 0.6) -> list[Labels]:
    windows = cut_windows(frames, scale=Scale(frames=size, stride=size), min_label_share=share)
    return [labels for _, labels in windows]


def test_only_whole_windows_are_cut_one_every_stride():
    windows = cut_windows(frames_of([None] * 10), scale=Scale(frames=4, stride=3), min_label_share=0.6)
    assert [span for span, _ in windows] == [Span(start=start, stop=start + 4) for start in (0, 3, 6)]


def test_the_label_is_the_one_of_most_labelled_frames_if_they_are_enough():
    assert labels_of(frames_of(["a", "a", "a", "b", "b"]), size=5)[0].action == "a"  # 3 of 5 reach 0.6
    assert labels_of(frames_of(["a", "a", "b", "b", "c"]), size=5)[0].action is None
    assert labels_of(frames_of(["a", None, None, None, None]), size=5)[0].action == "a"
    assert labels_of(frames_of([None] * 5), size=5)[0] == Labels()


def test_a_transition_is_more_than_one_label_and_unknown_without_any():
    assert labels_of(frames_of(["a", "a", "a", None]), size=4)[0].transition is False
    assert labels_of(frames_of(["a", "a", "a", "b"]), size=4)[0].transition is True
    assert labels_of(frames_of([None] * 4), size=4)[0].transition is None


def test_objects_are_listed_by_how_many_frames_show_them():
    objects = [("cup",), ("kettle", "cup"), ("kettle",), ("kettle", "table")]
    assert labels_of(frames_of(["a"] * 4, objects=objects), size=4)[0].objects == ("kettle", "cup", "table")
    assert labels_of(frames_of(["a"] * 4), size=4)[0].objects is None


@pytest.mark.parametrize(
    ("contact", "expected"), [("yyn?", True), ("yn??", False), ("y???", True), ("????", None)]
)
def test_contact_is_what_most_of_the_frames_with_a_valid_body_say(contact, expected):
    assert labels_of(frames_of(["a"] * 4, contact=contact), size=4)[0].in_contact is expected


def test_the_future_is_the_window_of_equal_length_after_the_anchor():
    frames = frames_of(["a", "a", "b", "b", "c", "d", "e"], contact="nnyy???")
    first, second, third = labels_of(frames, size=2, share=0.6)
    assert (first.next_action, first.next_in_contact, first.next_transition) == ("b", True, False)
    assert (second.next_action, second.next_in_contact, second.next_transition) == (None, None, True)
    assert (third.next_action, third.next_in_contact, third.next_transition) == (
        None,
        None,
        None,
    )  # one frame left


def test_an_episode_without_captions_still_has_contacts():
    frames = FrameLabels(None, np.ones(4, dtype=bool), np.ones(4, dtype=bool))
    assert labels_of(frames, size=2)[0] == Labels(in_contact=True, next_in_contact=True)


def test_an_episode_shorter_than_a_window_has_none():
    assert labels_of(frames_of(["a"] * 3), size=4) == []


def test_a_window_is_named_by_episode_length_and_start():
    assert window_id("kitchen__ep1", Span(start=30, stop=50)) == "kitchen__ep1:20:30"


def test_a_yes_or_no_label_with_one_answer_in_more_than_95_of_100_windows_is_degenerate():
    quiet = [Labels(in_contact=place < 4, transition=place < 5) for place in range(100)]
    unknown = [Labels()] * 100
    assert degenerate_labels([*quiet, *unknown]) == {"in_contact": {"answer": False, "share": 0.96}}
    assert degenerate_labels(unknown) == {}
