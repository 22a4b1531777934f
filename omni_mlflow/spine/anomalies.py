"""What is unusual about an annotation: one sentence each, none for a flawless one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from omni_mlflow.spine import clock
from omni_mlflow.spine.annotation import AnnotationFile
from omni_mlflow.spine.episodes import NOMINAL_FPS, SIDES, EpisodeFile
from omni_mlflow.spine.layout import DATASETS, FRAME_ARRAYS, LARGEST, possible
from omni_mlflow.spine.lost_frames import lost_frames
from omni_mlflow.spine.poses import Bools
from omni_mlflow.spine.strict_json import NotAJsonObjectError
from omni_mlflow.spine.windows import DEGENERATE_SHARE

_FPS_TOLERANCE = 0.02
_LONG_GAP = 1.5  # frame periods between two frames, from where on one was dropped
_NAMED_PLACES = 4  # of these many a sentence names each, and then says how many more there are
# Not the hands, which leave the picture all the time, and not contact, which is known where the body is.
_INVALID_IS_UNUSUAL = {"camera_pose": "camera pose", "body_mocap": "body", "imu": "IMU", "depth": "depth"}
_LABELS = ("action", "subtask", "objects")
_KEYFRAMES = "imu/keyframe_indices"


def annotation_anomalies(source: EpisodeFile) -> Iterator[str]:
    yield from _short_arrays(source)
    yield from _layout(source.annotation)
    yield from _metadata(source.annotation)
    yield from _clock(source)
    yield from _absent(source)
    yield from _impossible(source.annotation)
    yield from _invalid(source)
    yield from _captions(source)
    yield from _contact(source)


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def listed(parts: list[str]) -> str:
    more = len(parts) - _NAMED_PLACES
    return ", ".join(parts[:_NAMED_PLACES]) + (f" and {more} more" if more > 0 else "")


def _short_arrays(source: EpisodeFile) -> Iterator[str]:
    if (lost := lost_frames(source)) is None:
        return
    (shortest, num_rows), *others = sorted(lost.short_arrays.items(), key=lambda array: array[1])
    yield (
        f"{shortest} has {num_rows} rows where others have up to {num_rows + lost.num_frames}: "
        f"only the first {num_rows} frames are used, and {lost.num_frames} are lost, "
        f"{lost.num_labelled} of them labelled with an action"
        + (f"; short are also {listed([name for name, _ in others])}" if others else "")
    )


def _layout(annotation: AnnotationFile) -> Iterator[str]:
    for name in DATASETS:
        if name in annotation and not annotation.has_known_shape(name):
            yield f"{name} has an unknown shape and cannot be read"
    if older := [name for name in FRAME_ARRAYS if name in annotation and annotation.has_sample_axis(name)]:
        yield f"an axis of length 1 in front, as in older exports, is left out: {', '.join(older)}"
    if "imu/device_timestamp_ns" in annotation:
        found = annotation.shape(_KEYFRAMES)[0] if _KEYFRAMES in annotation else 0
        if found < annotation.num_frames:
            yield f"{_KEYFRAMES} has {found} rows for {annotation.num_frames} frames: found by time instead"


def _metadata(annotation: AnnotationFile) -> Iterator[str]:
    for name in ("metadata/health_report", "metadata/other"):
        try:
            annotation.document(name)
        except NotAJsonObjectError as problem:
            yield f"{problem}: it is not used"


def _clock(source: EpisodeFile) -> Iterator[str]:
    stamps = source.device_timestamps_ns
    if stamps is None:
        yield f"no device clock: {NOMINAL_FPS:g} frames per second assumed, IMU not placed"
        return
    if not clock.is_recorded(source.annotation):
        yield "no device clock by frame: it is taken from the nearest inertial samples"
    gaps = np.diff(stamps)
    if (gaps <= 0).any():
        yield f"the device clock does not advance at {np.count_nonzero(gaps <= 0)} frames"
        return
    if (imu := source.imu()) is not None and imu.misplaced.any():
        count = f"{np.count_nonzero(imu.misplaced)} of {source.num_frames} frames"
        yield f"{_KEYFRAMES} does not fit the clock at {count}: the nearest sample by time is taken instead"
    lost = np.round(gaps / np.median(gaps) - 1).astype(int) if len(gaps) else gaps
    places = np.flatnonzero(gaps > _LONG_GAP * np.median(gaps)) if len(gaps) else gaps
    if len(places):
        named = [f"{lost[place]} before frame {place + 1}" for place in places.tolist()]
        yield (
            f"fps {source.fps:.1f}: dropped frames, about {lost[places].sum()} by the device clock: "
            f"{listed(named)}"
        )
    elif abs(source.fps / NOMINAL_FPS - 1) > _FPS_TOLERANCE:
        yield f"fps {source.fps:.1f}, not the nominal {NOMINAL_FPS:g}"


def _absent(source: EpisodeFile) -> Iterator[str]:
    missing = source.missing()
    if not any(name in source.annotation for name in ("slam/quat_wxyz", "slam/trans_xyz")):
        named = "counted from 0" if source.device_timestamps_ns is None else "named by device timestamp"
        yield f"no slam: poses are not available, frames {named}"
        missing.pop("camera_pose")
    if source.captions() is None:
        yield "no caption that can be read: there is nothing to train or to score on"
        missing = {name: reason for name, reason in missing.items() if name not in _LABELS}
    yield from (f"{name} not available: {reason}" for name, reason in missing.items())


def _impossible(annotation: AnnotationFile) -> Iterator[str]:
    """Depth is not looked at: reading all of it would take minutes."""
    for name, dataset in DATASETS.items():
        most = LARGEST.get(dataset.unit)
        if most is None or name not in annotation or dataset.shape[:1] not in (("N",), ("M",)):
            continue
        if "H" in dataset.shape or not annotation.has_known_shape(name):
            continue
        rows = annotation.numbers(name)
        beyond = (np.isfinite(rows) & ~possible(name, rows)).reshape(len(rows), -1).any(axis=1)
        if beyond.any():
            count = f"{np.count_nonzero(beyond)} of {len(rows)} rows"
            yield f"{name} is beyond {most:,g} {dataset.unit} in {count}, first {beyond.argmax()}: invalid"


def _invalid(source: EpisodeFile) -> Iterator[str]:
    for name, word in _INVALID_IS_UNUSUAL.items():
        valid = source.valid_frames[name]
        if 0 < valid.mean() < 1:
            looked_at = source.sampled().get(name)
            where = f"frames: {_runs(~valid)}" if looked_at is None else f"{looked_at} sampled frames"
            yield f"{word} invalid in {percent(1 - valid.mean())} of {where}"
    for side in SIDES:
        joints = f"hand_mocap/{side}_joints_3d"
        if joints in source.annotation:
            finite = np.isfinite(source.annotation.floats(joints))
            broken: Bools = np.logical_not(np.logical_and.reduce(finite, axis=(1, 2)))
            if broken.any():
                yield f"{side} hand is not finite in frames {_runs(broken)}; a hand out of sight is zeros"
    body, valid = source.body()
    if valid[:2].sum() == 2 and np.array_equal(body[0], body[1]):
        yield "body of frame 0 is a copy of frame 1"


def _captions(source: EpisodeFile) -> Iterator[str]:
    captions, older = source.captions(), source.captions(rule="old")
    if captions is None or older is None:
        return
    if "caption" not in source.caption_texts:
        yield f"the caption is not in the dataset 'caption' but in {', '.join(source.caption_texts)!r}"
    if any(isinstance(text, bytes) and not _is_utf8(text) for text in source.caption_texts.values()):
        yield "the caption holds bytes that are not UTF-8: they are read as \ufffd"
    if captions.dropped_segments:
        count = captions.dropped_segments + len(captions.segments)
        yield f"caption segments that name no frame of this episode: {captions.dropped_segments} of {count}"
    for name in _LABELS:
        if 0 < (share := float(source.valid_frames[name].mean())) < 1:
            yield f"{name} not annotated in {percent(1 - share)} of frames"
    labels = (zip(each.action, each.subtask, strict=True) for each in (captions, older))
    if differ := sum(new != old for new, old in zip(*labels, strict=True)):
        yield (
            f"the two published rules for captions disagree in {percent(differ / source.num_frames)} of "
            "frames: the new one is used"
        )


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _contact(source: EpisodeFile) -> Iterator[str]:
    in_contact, known = source.hand_contact()
    if known.any():
        yes = float(in_contact[known].mean())
        if max(yes, 1 - yes) > DEGENERATE_SHARE:
            word = "yes" if yes > 0.5 else "no"
            yield f"contact label is degenerate ({percent(max(yes, 1 - yes))} {word})"


def _runs(marked: Bools) -> str:
    """Name runs of frames, such as ``3, 20-24``."""
    edges = np.flatnonzero(np.diff(marked.astype(np.int8), prepend=0, append=0))
    return listed([_frames(first, stop - 1) for first, stop in edges.reshape(-1, 2).tolist()])


def _frames(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}-{last}"
