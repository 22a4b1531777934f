"""The shared vocabulary: one model for each kind of row that a file of this project holds.

Inside the code a span is half-open; in files it is written as ``start_frame`` and the inclusive
``end_frame`` of the specification. The conversion happens here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_serializer,
    model_validator,
)

SCHEMA_VERSION = 1
"""Written into every manifest; a reader refuses a newer one by name."""

SYNTHETIC_FRAMES = range(60, 6001)
"""So long a synthetic episode may be: with fewer frames no window has both a past and a future, 6000 are the
300 s of real episodes, and device clocks of sessions stay apart."""

CAMERAS = (
    "fisheye_cam0",
    "fisheye_cam1",
    "fisheye_cam2",
    "fisheye_cam3",
    "stereo_left",
    "stereo_right",
)
"""The six video streams, in the order of the mosaic's tiles: three per row, top row first."""


class Row(BaseModel):
    """A record of a file at the boundary: unknown keys are kept, missing ones are errors."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)


class Split(StrEnum):
    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class Span(Row):
    """Frames ``[start, stop)`` of one episode, counted from 0.

    In a file: ``{"start_frame": start, "end_frame": stop - 1}``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: int = Field(ge=0)
    stop: int

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, value: Any) -> Any:
        if isinstance(value, dict) and "start_frame" in value and "end_frame" in value:
            return {"start": value["start_frame"], "stop": value["end_frame"] + 1}
        return value

    @model_validator(mode="after")
    def _holds_a_frame(self) -> Self:
        if self.stop <= self.start:
            raise ValueError(f"a span holds at least one frame, not [{self.start}, {self.stop})")
        return self

    @model_serializer(mode="plain")
    def _to_file(self) -> dict[str, int]:
        return {"start_frame": self.start, "end_frame": self.stop - 1}

    def __len__(self) -> int:
        return self.stop - self.start


class Labels(Row):
    """Annotations of a window (describe) and of the window after it (foretell).

    ``None`` means nobody annotated it.
    """

    action: str | None = None
    subtask: str | None = None
    objects: tuple[str, ...] | None = None
    in_contact: bool | None = None
    transition: bool | None = None
    next_action: str | None = None
    next_in_contact: bool | None = None
    next_transition: bool | None = None


class Skip(Row):
    """Something that was left out, and why: never dropped in silence."""

    subject: str
    stage: str
    reason: str


class Check(Row):
    """One rule applied to one subject; passed ones are recorded too."""

    rule: str
    subject: str
    expected: str
    found: str
    ok: bool


def broken(checks: Iterable[Check]) -> list[Check]:
    return [check for check in checks if not check.ok]


class LostFrames(Row):
    """Frames behind the last one of an episode that is used, because an array has no row for them.

    Attributes:
        num_frames: how many the longest array has more.
        num_labelled: of them, those that the caption labels with an action.
        short_arrays: rows of each array that has fewer than the longest; the shortest sets the end.
    """

    num_frames: int = Field(ge=1)
    num_labelled: int = Field(ge=0)
    short_arrays: dict[str, int]


class Episode(Row):
    """One episode of the manifest.

    Attributes:
        path: the episode folder, relative to the data root.
        bytes_by_file: size of every file of the episode, in bytes.
        changed_ns_by_file: when each of them was last changed (epoch), as ``select`` found it.
        digest: sha256 over the sorted ``name:sha256`` lines of its files; ``None`` before ``guard``.
        missing_modalities: name of each absent modality and the reason.
        coverage: share of frames (0..1) for which each modality is present and valid, and that the file of
            each camera holds.
        coverage_sampled: each modality whose coverage is an estimate, with how many frames, spread evenly
            over the episode, were looked at; all frames were for the others.
        device_clock_ns: first and last frame on the recording device's own clock.
        lost_frames: those that some array is too short for; None where all arrays are equal.
        synthetic: written by this project's generator; the annotation itself says so.
    """

    episode_id: str
    session_id: str
    path: str
    split: Split | None = None
    num_frames: int = Field(ge=1)
    fps: float = Field(gt=0)
    bytes_by_file: dict[str, int]
    changed_ns_by_file: dict[str, int] = Field(default_factory=dict)
    digest: str | None = None
    main_task: str | None = None
    device_id: str | None = None
    device_clock_ns: tuple[int, int] | None = None
    missing_modalities: dict[str, str] = Field(default_factory=dict)
    coverage: dict[str, float] = Field(default_factory=dict)
    coverage_sampled: dict[str, int] = Field(default_factory=dict)
    lost_frames: LostFrames | None = None
    synthetic: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(self.bytes_by_file.values())


class Scale(Row):
    """Length and stride of a family of windows, in frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frames: int = Field(strict=True, ge=1, le=10**9)
    stride: int = Field(strict=True, ge=1, le=10**9)

    def holds(self, span: Span) -> bool:
        """Whether ``span`` is a window of this family; it may be one of another family, too."""
        return len(span) == self.frames and span.start % self.stride == 0


class Tile(Row):
    """Where one camera lies in the mosaic, in pixels of the proxy video; the image is letterboxed inside."""

    camera: str
    x: int
    y: int
    width: int
    height: int


class Media(Row):
    """The proxy media of one episode, shared by all of its windows.

    Attributes:
        proxy_video: mosaic MP4, relative to the ``index`` folder; its frame k shows source frame
            ``k * grid_stride``.
        shown_every: a backbone that asks for a coarser grid than the proxy has sees every n-th of its frames.
        frame_plan: JSON file that says which frames were taken from each camera's file, by which decoder, and
            where in its tile each picture lies.
        proxy_audio: 16 kHz mono WAV that starts at frame 0, or None where the episode has no audio.
    """

    proxy_video: str | None
    grid_stride: int = Field(default=1, ge=1)
    shown_every: int = Field(default=1, ge=1)
    num_proxy_frames: int = Field(default=0, ge=0)
    tiles: tuple[Tile, ...] = ()
    frame_plan: str | None = None
    proxy_audio: str | None = None
    audio_sample_rate: int = 16_000

    def proxy_frames(self, span: Span) -> range:
        """Return the proxy frames that show a source frame of ``span``: none before, none after it."""
        first = -(-span.start // self.shown_stride) * self.shown_every
        stop = -(-span.stop // self.grid_stride)
        return range(first, min(stop, self.num_proxy_frames), self.shown_every)

    @property
    def shown_stride(self) -> int:
        """Source frames from one frame that a backbone sees to the next one."""
        return self.grid_stride * self.shown_every


class SensorPointer(Row):
    """Row ``index`` of the array ``windows`` (num_windows, dim) in the ``.npz`` at ``path``."""

    path: str
    index: int
    dim: int


class Language(Row):
    """What may be told to a model: the episode's main task, never a label of the window."""

    main_task: str | None = None


class Modalities(Row):
    media: Media
    sensor_features: SensorPointer | None = None
    language: Language


class Window(Row):
    """A neutral record of the window index: same boundaries and split for every backbone.

    Attributes:
        anchor: the first frame after the window.
        anchor_s: time of the anchor in seconds after frame 0, by the device's clock, on which the proxy audio
            lies. What a model hears must end here; ``anchor / fps`` would be too late where the device
            dropped frames further on.
    """

    id: str
    episode_id: str
    session_id: str
    split: Split
    span: Span = Field(alias="window")
    anchor: int
    scale: Scale
    fps: float
    anchor_s: float = Field(default_factory=lambda window: window["anchor"] / window["fps"])
    modalities: Modalities
    supervision: Labels
    adapter_views: dict[str, dict[str, Any]]
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _anchor_follows_the_window(self) -> Self:
        if self.anchor != self.span.stop:
            raise ValueError(f"{self.id}: anchor {self.anchor} is not the first frame after {self.span}")
        return self


class Sample(Row):
    """What a model may see of one window. It cannot be built when it sees past its anchor.

    Attributes:
        observed: every frame the model may see.
        forecast_from: first frame it must foretell; None when it only describes.
        inputs: pointers and text in the backbone's own terms; never an answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    episode_id: str
    split: Split
    anchor: int
    observed: Span
    forecast_from: int | None = None
    inputs: dict[str, Any]

    @model_validator(mode="after")
    def _future_is_unseen(self) -> Self:
        now = self.anchor if self.forecast_from is None else min(self.anchor, self.forecast_from)
        if self.observed.stop > now:
            raise ValueError(f"{self.id} sees frames up to {self.observed.stop - 1}, but its now is {now}")
        return self


class Target(Row):
    """The answers that belong to a sample; for held-out samples they lie in a sealed file."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    id: str
    episode_id: str
    anchor: int
    span: Span = Field(alias="window")
    labels: Labels


class LabelledSample(Row):
    """A sample together with its target: what ``train`` reads, and never made of a test window."""

    sample: Sample
    target: Target

    @model_validator(mode="after")
    def _is_no_test_sample(self) -> Self:
        if self.sample.split is Split.TEST:
            raise ValueError(f"{self.sample.id} is held out: its target must stay sealed")
        if self.sample.id != self.target.id:
            raise ValueError(f"sample {self.sample.id} paired with target {self.target.id}")
        return self


class FittedOnTrain(Row):
    """What was learned from the train episodes beside the weights: label lists, normalisers, vocabularies.

    Attributes:
        episode_ids: the episodes it was fitted on, sorted.
        episodes_digest: sha256 of that list.
    """

    episode_ids: tuple[str, ...]
    episodes_digest: str


class Outcome(StrEnum):
    """What became of a sample that was asked.

    An answer can be read from what is ``ANSWERED``, however leniently. From what is ``MODEL_INVALID`` none
    can: it holds no answer and is wrong at everything that was asked.
    """

    ANSWERED = "answered"
    MODEL_INVALID = "model_invalid"
    INFRASTRUCTURE_FAILED = "infrastructure_failed"


class Answer(Row):
    """What a model said to one sample, before anyone compares it with the truth.

    Attributes:
        raw: the reply as text; empty for a model that does not speak.
        values: the reply as numbers, nested lists by name, e.g. the chunk of actions of a policy.
        reason: what kept the infrastructure from giving an answer; None where there is one.
    """

    id: str
    episode_id: str
    anchor: int
    outcome: Outcome
    raw: str = ""
    values: dict[str, Any] = Field(default_factory=dict)
    reason: str | None = None
