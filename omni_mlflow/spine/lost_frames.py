"""Frames that were recorded and are not used, because some array has no row for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omni_mlflow.spine.layout import MOST_OF
from omni_mlflow.spine.types import LostFrames

if TYPE_CHECKING:
    from omni_mlflow.spine.annotation import AnnotationFile
    from omni_mlflow.spine.episodes import EpisodeFile


def num_recorded(annotation: AnnotationFile) -> int:
    """Return how many rows the longest frame array has, or the most that any recording can have."""
    return min(max(annotation.rows_by_array.values(), default=0), MOST_OF["N"])


def lost_frames(source: EpisodeFile) -> LostFrames | None:
    """Return what is lost of an episode behind the end of its shortest array; None where all are equal."""
    rows, used = source.annotation.rows_by_array, source.num_frames
    recorded = num_recorded(source.annotation)
    if recorded == used:
        return None
    captions = source.recorded_captions()
    after = () if captions is None else captions.action[used:]
    return LostFrames(
        num_frames=recorded - used,
        num_labelled=sum(action is not None for action in after),
        short_arrays={name: count for name, count in rows.items() if count < recorded},
    )
