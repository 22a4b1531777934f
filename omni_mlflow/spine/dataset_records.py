"""Exported Qwen chat records, turned into neutral window records.

Such a record is made for one model: media clips, a chat and its answer. What a neutral record needs and an
exported one does not say (session, frame rate, stride, main task, the length of the episode) stays null.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from omni_mlflow.spine.rows import BadRowError
from omni_mlflow.spine.types import Labels, Row, SensorPointer, Skip, Span, Split

UNLABELLED = ("", "n/a", "unknown")
"""How an exported answer, and a caption, spell that nobody annotated something; in either case."""

MOST_FAULTS = 10_000
"""A file with more unusable records than this is no such dataset; it also bounds what is remembered."""

_GIVE_ANOTHER = "give the dataset.jsonl of a Qwen export"

LONGEST_LINE = 2**24  # bytes; what is longer is no record, but a whole data set in one line

MOST_TOLD, LONGEST_TOLD = 5, 150
"""So many faults of a record are told, and so many characters of each field and of what is wrong there."""

YesNo = Literal["yes", "no", "unknown"]

Frame = Annotated[int, Field(ge=0, lt=2**31)]
"""Three years at 20 frames per second: a larger number is no frame."""


class _Part(Row):
    """A part of an exported record; what a neutral record has no place for is not kept.

    It is strict: ``true`` and ``"3"`` are no numbers.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Boundaries(_Part):
    start_frame: Frame
    end_frame: Frame

    @model_validator(mode="after")
    def _holds_a_frame(self) -> Self:
        if self.end_frame < self.start_frame:
            raise ValueError(f"frames {self.start_frame} to {self.end_frame} are none")
        return self

    @property
    def span(self) -> Span:
        return Span(start=self.start_frame, stop=self.end_frame + 1)


class _Window(_Boundaries):
    num_frames: int | None = None

    @model_validator(mode="after")
    def _counts_its_frames(self) -> Self:
        if self.num_frames not in (None, len(self.span)):
            raise ValueError(f"frames {self.start_frame} to {self.end_frame} are not {self.num_frames}")
        return self


class _Video(_Part):
    name: str
    path: str


class _Media(_Part):
    video_paths: tuple[_Video, ...] = ()
    context_start_frame: Frame
    context_end_frame: Frame
    mosaic_video_path: str | None = None
    audio_path: str | None = None

    @model_validator(mode="after")
    def _shows_a_frame(self) -> Self:
        if self.context_end_frame < self.context_start_frame:
            raise ValueError(f"frames {self.context_start_frame} to {self.context_end_frame} are none")
        return self

    @property
    def context(self) -> Span:
        return Span(start=self.context_start_frame, stop=self.context_end_frame + 1)


class PublishedLabels(Labels):
    """Labels of an exported record. ``in_contact`` is None: a record does not say whether a hand touches.

    Attributes:
        published_contact: whether any contact probability is above 0, see
            :meth:`omni_mlflow.spine.episodes.EpisodeFile.published_contact`.
    """

    published_contact: bool | None = None


class _AnswerJson(_Part):
    action: str
    subtask: str
    objects: tuple[str, ...]
    contact: YesNo
    transition: YesNo
    next_action: str
    evidence_window: _Boundaries

    @property
    def labels(self) -> PublishedLabels:
        return PublishedLabels(
            action=_text(self.action),
            subtask=_text(self.subtask),
            objects=_texts(self.objects),
            published_contact=_flag(self.contact),
            transition=_flag(self.transition),
            next_action=_text(self.next_action),
        )


class QwenRecord(_Part):
    """One line of an exported ``dataset.jsonl``."""

    id: str = Field(min_length=1)
    episode_id: str = Field(min_length=1)
    split: Split
    center_window: _Window
    media: _Media
    question: str
    answer_json: _AnswerJson
    sensor_feature_path: str | None = None
    sensor_feature_index: int | None = Field(default=None, ge=0)
    sensor_feature_dim: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _answers_about_its_window(self) -> Self:
        answered, asked = self.answer_json.evidence_window.span, self.center_window.span
        if answered != asked:
            raise ValueError(f"its evidence_window {answered} is not its center_window {asked}")
        return self


class ConvertedWindow(Row):
    """A neutral record made of an exported one: the keys of ``Window``, null where nobody knows.

    Attributes:
        anchor: the first frame after the window.
        modalities: media paths as the record gives them, wherever they start. Its clips hold the views'
            ``clip_window``, and ``sees_past_anchor`` says whether that shows what is to be foretold.
        provenance: the line of the converted file, counted from 1, and by what rule contact was labelled.
    """

    id: str
    episode_id: str
    session_id: str | None = None
    split: Split
    span: Span = Field(alias="window")
    anchor: int
    scale: dict[str, int | None]
    fps: float | None = None
    anchor_s: float | None = None
    modalities: dict[str, Any]
    supervision: PublishedLabels
    adapter_views: dict[str, dict[str, Any]]
    provenance: dict[str, Any]


def convert_records(path: Path) -> Iterator[ConvertedWindow | Skip]:
    """Yield one neutral record, or the reason why there is none, per line of ``path``; in constant memory.

    A blank line is none at all.

    Raises:
        BadRowError: not one line is a record, or too many are unusable.
    """
    num_records, first_fault, num_faults = 0, "", 0
    with path.open("rb") as file:
        for number, line in _lines(file):
            if not line.strip():
                continue
            try:
                record = QwenRecord.model_validate_json(line)
            except ValidationError as error:
                too_long = f"longer than {LONGEST_LINE // 2**20} MiB, so one record it is not"
                reason = _reason(error) if len(line) <= LONGEST_LINE else too_long
            else:
                num_records += 1
                yield _converted(record, number)
                continue
            num_faults += 1
            first_fault = first_fault or f", line {number} because of {reason}"
            if num_faults > MOST_FAULTS:
                raise BadRowError(
                    f"{path}:{number}: more than {MOST_FAULTS} records are no exported Qwen records, this "
                    f"one because of {reason}; {_GIVE_ANOTHER}"
                )
            yield Skip(subject=f"{path.name}:{number}", stage="index", reason=reason)
    if not num_records:
        raise BadRowError(f"{path}: no line of it is an exported Qwen record{first_fault}; {_GIVE_ANOTHER}")


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number, without a byte order mark; of one that is too long, its beginning."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        while len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE + 1)


def _reason(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if not found[0]["loc"] and found[0]["type"] in ("json_invalid", "model_type"):
        return f"not a JSON object: {_shortened(found[0]['msg'])}"
    faults = [
        f"{_shortened('.'.join(map(str, each['loc'])) or 'record')}: {_shortened(each['msg'])}"
        for each in found
    ]
    more = f" and {len(faults) - MOST_TOLD} more" if len(faults) > MOST_TOLD else ""
    return "; ".join(faults[:MOST_TOLD]) + more


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TOLD else f"{text[:LONGEST_TOLD]} …"


def _converted(record: QwenRecord, line: int) -> ConvertedWindow:
    span = record.center_window.span
    features = _features(record)
    return ConvertedWindow(
        id=record.id,
        episode_id=record.episode_id,
        split=record.split,
        window=span,
        anchor=span.stop,
        scale={"frames": len(span), "stride": None},
        modalities={
            "media": {
                "proxy_video": record.media.mosaic_video_path,
                "proxy_audio": record.media.audio_path,
                "video_paths": [video.model_dump() for video in record.media.video_paths],
                "context_window": record.media.context.model_dump(),
                "sees_past_anchor": record.media.context.stop > span.stop,
            },
            "sensor_features": features,
            "language": {"main_task": None, "question": record.question},
        },
        supervision=record.answer_json.labels,
        adapter_views=_views(record, features),
        provenance={
            "converted_from": "exported Qwen record",
            "line": line,
            "contact_rule": {"any_probability_above": 0.0},
        },
    )


def _features(record: QwenRecord) -> dict[str, Any] | None:
    path, index, dim = record.sensor_feature_path, record.sensor_feature_index, record.sensor_feature_dim
    if path is None or index is None or dim is None:
        return None
    return SensorPointer(path=path, index=index, dim=dim).model_dump()


def _views(record: QwenRecord, features: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """What each family of models finds in the record.

    All share one clip, which as exported may pass the anchor; every view says which frames it holds, and
    whether it does. What a model is conditioned on must be cut to ``context_window``, what it foretells to
    ``target_window``. Qwen's published records show the clip whole.
    """
    video, audio, clip = record.media.mosaic_video_path, record.media.audio_path, record.media.context
    span, labels = record.center_window.span, record.answer_json.labels
    seen = Span(start=clip.start, stop=min(clip.stop, span.stop)) if clip.start < span.stop else None
    context = seen.model_dump() if seen else None
    after = Span(start=span.stop, stop=span.stop + len(span))
    shown = after.stop <= clip.stop  # the clip is the only witness that these frames exist
    known = {"action_class": labels.action, "next_action": labels.next_action}
    holds = {"clip_window": clip.model_dump(), "sees_past_anchor": clip.stop > span.stop}
    return {
        "qwen3_omni_lora": {
            "question": "json_episode_understanding",
            "context_window": clip.model_dump(),
            **holds,
            "video": video,
            "audio": audio,
        },
        "cosmos_world_model": {
            "context_window": context,
            "target_window": after.model_dump() if shown else None,
            **holds,
            "conditioning": {
                "video": video,
                "audio": audio,
                **dict.fromkeys(("pose", "depth", "mocap", "imu"), features),
                "language": None,
            },
            "target": {"future_video": video, "future_sensor_features": None, "transition": None}
            if shown
            else None,
        },
        "policy_vla_branch": {
            "observation": {
                "context_window": context,
                **holds,
                "video": video,
                "audio": audio,
                "sensor_features": features,
                "state": None,
            },
            "instruction": None,
            "target_kinds": [kind for kind, label in known.items() if label is not None],
            "target": None,
        },
    }


def _text(value: str) -> str | None:
    return None if value.strip().lower() in UNLABELLED else value


def _texts(values: tuple[str, ...]) -> tuple[str, ...] | None:
    """An empty list says that there is nothing, which somebody saw."""
    named = tuple(value for value in values if _text(value) is not None)
    return None if values and not named else named


def _flag(value: YesNo) -> bool | None:
    return None if value == "unknown" else value == "yes"
