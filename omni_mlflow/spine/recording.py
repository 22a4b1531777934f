"""What an annotation says about the recording it belongs to, whatever the episode is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from omni_mlflow.spine.caption_print import CaptionPrint, caption_print
from omni_mlflow.spine.contents import array_digests, row_sketches
from omni_mlflow.spine.identity import clock_doubt, frame_names_doubt
from omni_mlflow.spine.motion_trace import MotionTrace, motion_of
from omni_mlflow.spine.path_trace import PathTrace, path_of
from omni_mlflow.spine.strict_json import NotAJsonObjectError
from omni_mlflow.spine.types import Row

if TYPE_CHECKING:
    from omni_mlflow.spine.annotation import AnnotationFile
    from omni_mlflow.spine.episodes import EpisodeFile


class Recording(Row):
    """What identifies a recording.

    Attributes:
        datasets: sha256 of every array with content of its own, by its path: see
            :func:`omni_mlflow.spine.contents.array_digests`.
        rows: hashes of some rows of the wide ones: see :func:`omni_mlflow.spine.contents.row_sketches`.
        doubts: why the device clock or the frame names that are there identify no moment, by what they are.
        recorded_ns: when the recording around the episode began and ended, on the host's clock (epoch).
    """

    datasets: dict[str, str]
    rows: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    device_id: str | None
    device_clock_ns: tuple[int, int] | None
    doubts: dict[str, str] = Field(default_factory=dict)
    recorded_ns: tuple[int, int] | None = None
    motion: MotionTrace | None = None
    path: PathTrace | None = None
    caption: CaptionPrint | None = None


def recording_of(source: EpisodeFile) -> Recording:
    """Read everything of an open episode that the leak rules compare.

    Raises:
        UnreadableEpisodeError: some of it cannot be read.
    """
    captions = source.captions()
    return Recording(
        datasets=array_digests(source.annotation),
        rows=row_sketches(source.annotation),
        device_id=source.device_id,
        device_clock_ns=source.device_clock_ns,
        doubts=doubts_of(source),
        recorded_ns=_recorded_ns(source.annotation),
        motion=motion_of(source),
        path=path_of(source),
        caption=caption_print(captions, source.frame_clock.frames_s) if captions else None,
    )


def doubts_of(source: EpisodeFile) -> dict[str, str]:
    """Return why the device clock or the frame names that are there identify no moment, by what they are."""
    clock = source.device_timestamps_ns
    found = {
        "device clock": None if clock is None else clock_doubt(clock),
        "frame names": frame_names_doubt(source.frame_names),
    }
    return {what: doubt for what, doubt in found.items() if doubt}


def _recorded_ns(annotation: AnnotationFile) -> tuple[int, int] | None:
    """First and last host time that the health report names for its recordings; None where it names none."""
    try:
        recordings = annotation.document("metadata/health_report").get("recordings", [])
        ranges = [each["wav_mjpeg_overlap"]["mjpeg_time_range_host_ns"] for each in recordings]
        return (min(int(start) for start, _ in ranges), max(int(stop) for _, stop in ranges))
    except (NotAJsonObjectError, ValueError, TypeError, KeyError):
        return None
