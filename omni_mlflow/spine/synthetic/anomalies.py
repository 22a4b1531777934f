"""What can be wrong with a synthetic episode: its name, what it is, and the edit that makes it so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from omni_mlflow.spine.synthetic import caption_edits, copies, damage, sensor_edits, video_edits
from omni_mlflow.spine.synthetic.caption_edits import edited, stored, with_segment
from omni_mlflow.spine.synthetic.copies import Copy
from omni_mlflow.spine.synthetic.sensor_edits import removed
from omni_mlflow.spine.synthetic.video_edits import without_videos
from omni_mlflow.spine.types import CAMERAS

TINY_FRAMES = 20
STICKY = 0.9


class Anomaly(StrEnum):
    """What is wrong with an episode. The first three are those of the demo."""

    NO_CAPTION = "no_caption"
    CUT_SHORT = "cut_short"
    NO_SLAM = "no_slam"

    TINY = "tiny"
    INVALID_RUNS = "invalid_runs"
    BAD_SLAM = "bad_slam"
    SAMPLE_AXIS = "sample_axis"
    COMPRESSED = "compressed"
    DROPPED_FRAMES = "dropped_frames"
    NO_DEPTH = "no_depth"
    NO_IMU = "no_imu"
    NO_HANDS = "no_hands"
    NO_CALIBRATION = "no_calibration"

    INTEGER_REFERENCES = "integer_references"
    MIXED_REFERENCES = "mixed_references"
    CAPTION_IN_ARRAY = "caption_in_array"
    CAPTION_IN_FILE = "caption_in_file"
    CAPTION_WITH_NULLS = "caption_with_nulls"
    CAPTION_WITH_LISTS = "caption_with_lists"
    CAPTION_IS_A_LIST = "caption_is_a_list"
    CAPTION_SEGMENTS_NULL = "caption_segments_null"
    CAPTION_UNKNOWN_KEYS = "caption_unknown_keys"
    CAPTION_EMPTY = "caption_empty"
    CAPTION_EMPTY_OBJECT = "caption_empty_object"
    CAPTION_TRAILING_GARBAGE = "caption_trailing_garbage"
    CAPTION_NOT_UTF8 = "caption_not_utf8"
    ACTION_NOT_APPLICABLE = "action_not_applicable"

    ONE_CAMERA = "one_camera"
    NO_VIDEOS = "no_videos"
    SHORT_VIDEO = "short_video"
    EXACT_VIDEO = "exact_video"
    SWAPPED_FISHEYES = "swapped_fisheyes"
    SILENT = "silent"
    CUT_VIDEO = "cut_video"
    CUT_STREAM = "cut_stream"

    EMPTY_FILE = "empty_file"
    FLIPPED_BYTE = "flipped_byte"

    LABEL_DRIFT = "label_drift"
    STICKY = "sticky"

    SAME_DEVICE_TIME = "same_device_time"
    COPIED_ANNOTATION = "copied_annotation"
    COPIED_VIDEO = "copied_video"
    RECODED_COPY = "recoded_copy"
    TRIMMED_COPY = "trimmed_copy"
    TIME_SHIFTED_COPY = "time_shifted_copy"
    MIRRORED_COPY = "mirrored_copy"
    REPEATED_CAPTION = "repeated_caption"
    PARAPHRASED_CAPTION = "paraphrased_caption"


@dataclass(frozen=True)
class Planting:
    """How one anomaly comes about.

    Attributes:
        kind: the part of the set it belongs to.
        what: what is wrong, in a sentence for people.
        edit: changes a written episode.
        copy: gives a written episode something of another session.
        shows_source: the episode is written as that other session, before ``copy``.
        frames: annotated frames, where they are not those of the set.
        stickiness: of :func:`make_session`.
    """

    kind: str
    what: str
    edit: Callable[[Path], None] | None = None
    copy: Copy | None = None
    shows_source: bool = False
    frames: int | None = None
    stickiness: float = 0.0


def _near_duplicate(what: str, copy: Copy) -> Planting:
    return Planting("near duplicate", what, copy=copy, shows_source=True)


PLANTINGS: Mapping[Anomaly, Planting] = {
    Anomaly.NO_CAPTION: Planting("caption", "there is no caption", removed("caption")),
    Anomaly.CUT_SHORT: Planting("damage", "the annotation lacks its last 5000 bytes", damage.cut_short),
    Anomaly.NO_SLAM: Planting(
        "sensors",
        "SLAM and body groups are unlinked, in a file that is not smaller",
        removed("slam", "full_body_mocap"),
    ),
    Anomaly.TINY: Planting(
        "sensors",
        "20 frames, one caption segment, the caption header of tiny episodes",
        edited(caption_edits.as_of_a_tiny_episode),
        frames=TINY_FRAMES,
    ),
    Anomaly.INVALID_RUNS: Planting(
        "sensors",
        "runs of frames without body (NaN, one row of zeros), right hand (zeros), left hand (NaN)",
        sensor_edits.invalid_runs,
    ),
    Anomaly.BAD_SLAM: Planting(
        "sensors", "one camera pose is a quaternion of zeros, one of NaN", sensor_edits.bad_slam
    ),
    Anomaly.SAMPLE_AXIS: Planting(
        "sensors", "body arrays have an axis of length 1 in front", sensor_edits.sample_axis
    ),
    Anomaly.COMPRESSED: Planting("sensors", "every array is compressed with gzip", sensor_edits.compressed),
    Anomaly.DROPPED_FRAMES: Planting(
        "sensors",
        "one frame is lost at three places: gaps of 100 ms in the device clock, videos below 20 fps",
        sensor_edits.dropped_frames,
    ),
    Anomaly.NO_DEPTH: Planting("sensors", "there is no depth group", removed("depth")),
    Anomaly.NO_IMU: Planting("sensors", "there is no imu group", removed("imu")),
    Anomaly.NO_HANDS: Planting("sensors", "there is no hand_mocap group", removed("hand_mocap")),
    Anomaly.NO_CALIBRATION: Planting("sensors", "there is no calibration group", removed("calibration")),
    Anomaly.INTEGER_REFERENCES: Planting(
        "caption",
        "60 short segments name frames by number from 1: as number, text, frame_000021, or last frame first",
        caption_edits.integer_references,
    ),
    Anomaly.MIXED_REFERENCES: Planting(
        "caption",
        "an action starts at a timestamp and ends at a numbered frame",
        caption_edits.mixed_references,
    ),
    Anomaly.CAPTION_IN_ARRAY: Planting(
        "caption", "the caption is an array of one text called captions", caption_edits.in_an_array
    ),
    Anomaly.CAPTION_IN_FILE: Planting(
        "caption", "the caption names a JSON file beside the annotation", caption_edits.in_a_file
    ),
    Anomaly.CAPTION_WITH_NULLS: Planting(
        "caption",
        "a segment whose fields are null",
        with_segment(**{"Sub Task": None, "Current Action": None, "objects": None, "interaction": None}),
    ),
    Anomaly.CAPTION_WITH_LISTS: Planting(
        "caption",
        "a segment with lists where objects and interaction map frames",
        with_segment(**{"Sub Task": "Handle", "Current Action": [], "objects": [], "interaction": []}),
    ),
    Anomaly.CAPTION_IS_A_LIST: Planting(
        "caption", "the caption is a JSON list, not an object", edited(lambda document: [document])
    ),
    Anomaly.CAPTION_SEGMENTS_NULL: Planting(
        "caption", "the segments are null", edited(lambda document: {**document, "segments": None})
    ),
    Anomaly.CAPTION_UNKNOWN_KEYS: Planting(
        "caption", "the caption has keys nobody knows", edited(caption_edits.with_unknown_keys)
    ),
    Anomaly.CAPTION_EMPTY: Planting("caption", "the caption is an empty text", stored(lambda _: b"")),
    Anomaly.CAPTION_EMPTY_OBJECT: Planting(
        "caption", "the caption is an empty JSON object", stored(lambda _: b"{}")
    ),
    Anomaly.CAPTION_TRAILING_GARBAGE: Planting(
        "caption", "text follows the caption's JSON", stored(lambda text: text + b"} tail")
    ),
    Anomaly.CAPTION_NOT_UTF8: Planting(
        "caption",
        "a description holds a byte that is not UTF-8",
        stored(lambda text: text.replace(b"The person", b"The p\xffrson")),
    ),
    Anomaly.ACTION_NOT_APPLICABLE: Planting(
        "caption",
        "an action over the last third is labelled N/A",
        caption_edits.action_not_applicable,
    ),
    Anomaly.ONE_CAMERA: Planting(
        "videos", "only the video of fisheye_cam0 is there", without_videos(*CAMERAS[1:])
    ),
    Anomaly.NO_VIDEOS: Planting("videos", "there is no video at all", without_videos(*CAMERAS)),
    Anomaly.SHORT_VIDEO: Planting(
        "videos", "a video ends 5 frames before the annotation does", video_edits.short_video
    ),
    Anomaly.EXACT_VIDEO: Planting(
        "videos", "a video lacks the surplus last picture", video_edits.exact_video
    ),
    Anomaly.SWAPPED_FISHEYES: Planting(
        "videos", "the files of fisheye_cam0 and fisheye_cam2 are exchanged", video_edits.swapped_fisheyes
    ),
    Anomaly.SILENT: Planting("videos", "no video has a sound track", video_edits.silent),
    Anomaly.CUT_VIDEO: Planting("damage", "an MP4 ends halfway, before its index", damage.cut_video),
    Anomaly.CUT_STREAM: Planting(
        "damage", "an MP4 ends halfway, after its index, which promises the rest", damage.cut_stream
    ),
    Anomaly.EMPTY_FILE: Planting("damage", "the annotation is an empty file", damage.empty_file),
    Anomaly.FLIPPED_BYTE: Planting(
        "damage", "one byte in the index of the annotation's groups is wrong", damage.flipped_byte
    ),
    Anomaly.LABEL_DRIFT: Planting(
        "statistics", "the same actions under other labels", edited(caption_edits.renamed_labels)
    ),
    Anomaly.STICKY: Planting(
        "statistics", "one action and contact go on and on: frames resemble each other", stickiness=STICKY
    ),
    Anomaly.SAME_DEVICE_TIME: Planting(
        "identity",
        "recorded by the device of another session while that one was recorded",
        copy=copies.same_device_time,
    ),
    Anomaly.COPIED_ANNOTATION: Planting(
        "bytes", "the annotation of another session under another device", copy=copies.copied_annotation
    ),
    Anomaly.COPIED_VIDEO: Planting("bytes", "one MP4 of another session", copy=copies.copied_video),
    Anomaly.RECODED_COPY: _near_duplicate("another session, coded again", copies.recoded),
    Anomaly.TRIMMED_COPY: _near_duplicate("another session, cut at both ends", copies.trimmed),
    Anomaly.TIME_SHIFTED_COPY: _near_duplicate("another session, begun earlier", copies.time_shifted),
    Anomaly.MIRRORED_COPY: _near_duplicate("another session, left for right", copies.mirrored),
    Anomaly.REPEATED_CAPTION: Planting(
        "text", "the caption of another session at its own times", copy=copies.repeated_caption
    ),
    Anomaly.PARAPHRASED_CAPTION: Planting(
        "text", "the caption of another session in other words", copy=copies.paraphrased_caption
    ),
}
