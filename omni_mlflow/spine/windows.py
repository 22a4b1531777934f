"""Windows of an episode and what was annotated in them and in the window that follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from omni_mlflow.spine.captions import FrameCaptions
from omni_mlflow.spine.poses import Bools
from omni_mlflow.spine.types import Labels, Scale, Span

DEGENERATE_SHARE = 0.95
"""A yes/no label with more than this in one class tells a model nothing."""

_YES_NO = ("in_contact", "transition", "published_contact")  # the last one in converted records only


@dataclass(frozen=True)
class FrameLabels:
    """The annotations of every frame of an episode.

    Attributes:
        captions: None when the episode has none.
        in_contact: whether a hand touches something at each frame, shape (num_frames,).
        contact_known: at which frames that is known, shape (num_frames,).
    """

    captions: FrameCaptions | None
    in_contact: Bools
    contact_known: Bools

    @property
    def num_frames(self) -> int:
        return len(self.in_contact)


def cut_windows(frames: FrameLabels, *, scale: Scale, min_label_share: float) -> list[tuple[Span, Labels]]:
    """Cut all whole windows of one scale, in order, each with its labels.

    The window that a ``next_*`` label speaks of begins at the anchor, ``span.stop``, and is as long as this
    one; where it would leave the episode those labels are None.

    Args:
        min_label_share: share of the labelled frames that the most frequent label must reach to be the
            window's label.
    """
    windows = []
    for start in range(0, frames.num_frames - scale.frames + 1, scale.stride):
        span = Span(start=start, stop=start + scale.frames)
        after = Span(start=span.stop, stop=span.stop + scale.frames)
        labels = _labels_of(frames, span, min_label_share)
        if after.stop <= frames.num_frames:
            following = _labels_of(frames, after, min_label_share)
            labels = labels.model_copy(
                update={
                    "next_action": following.action,
                    "next_in_contact": following.in_contact,
                    "next_transition": following.transition,
                }
            )
        windows.append((span, labels))
    return windows


def cut_scales(
    frames: FrameLabels, scales: Iterable[Scale], *, min_label_share: float
) -> list[tuple[Scale, Span, Labels]]:
    """Cut the windows of one scale after the other; a span that two scales hold comes once."""
    windows: dict[tuple[int, int], tuple[Scale, Span, Labels]] = {}
    for scale in scales:
        for span, labels in cut_windows(frames, scale=scale, min_label_share=min_label_share):
            windows.setdefault((span.start, span.stop), (scale, span, labels))
    return list(windows.values())


def degenerate_labels(labels: Iterable[Labels]) -> dict[str, dict[str, bool | float]]:
    """Return each yes/no label that nearly always has one answer, with the answer and its share (0..1)."""
    counts: dict[str, Counter[bool]] = {name: Counter() for name in _YES_NO}
    for each in labels:
        for name, answers in counts.items():
            if (answer := getattr(each, name, None)) is not None:
                answers[answer] += 1
    found: dict[str, dict[str, bool | float]] = {}
    for name, answers in counts.items():
        for answer, count in answers.items():
            if (share := count / answers.total()) > DEGENERATE_SHARE:
                found[name] = {"answer": answer, "share": share}
    return found


def window_id(episode_id: str, span: Span) -> str:
    return f"{episode_id}:{len(span)}:{span.start}"


def _labels_of(frames: FrameLabels, span: Span, min_label_share: float) -> Labels:
    inside = slice(span.start, span.stop)
    in_contact = _majority_of_known(frames.in_contact[inside], frames.contact_known[inside])
    if frames.captions is None:
        return Labels(in_contact=in_contact)
    actions = [label for label in frames.captions.action[inside] if label is not None]
    subtasks = [label for label in frames.captions.subtask[inside] if label is not None]
    objects = Counter(name for names in frames.captions.objects[inside] for name in names or ())
    return Labels(
        action=_majority(actions, min_label_share),
        subtask=_majority(subtasks, min_label_share),
        objects=tuple(name for name, _ in objects.most_common()) or None,
        in_contact=in_contact,
        transition=len(set(actions)) > 1 if actions else None,
    )


def _majority(labels: Sequence[str], min_share: float) -> str | None:
    """The most frequent label; on a tie the one that came first."""
    if not labels:
        return None
    label, count = Counter(labels).most_common(1)[0]
    return label if count >= min_share * len(labels) else None


def _majority_of_known(values: Bools, known: Bools) -> bool | None:
    """True when more than half of the known values are; None when nothing is known."""
    num_known = int(np.count_nonzero(known))
    return None if num_known == 0 else 2 * int(np.count_nonzero(values & known)) > num_known
