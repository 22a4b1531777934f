"""The index of one episode: proxy media, sensor features, trajectories and neutral windows.

Episodes are independent of each other, so each is one task for a pool of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine import episode_seal
from omni_mlflow.spine.adapter_views import View, adapter_views
from omni_mlflow.spine.caption_references import CaptionRule
from omni_mlflow.spine.changed_files import check_unchanged
from omni_mlflow.spine.episodes import EpisodeFile, UnreadableEpisodeError, open_episode
from omni_mlflow.spine.features import FEATURE_NAMES, window_features
from omni_mlflow.spine.poses import Bools
from omni_mlflow.spine.rows import appearing_at_once, digest_of, read_rows, write_rows, write_text
from omni_mlflow.spine.soundtrack import write_soundtrack
from omni_mlflow.spine.types import (
    Episode,
    Labels,
    Language,
    Media,
    Modalities,
    Scale,
    SensorPointer,
    Skip,
    Span,
    Window,
)
from omni_mlflow.spine.video import Proxy, UnreadableVideoError, write_proxy
from omni_mlflow.spine.windows import FrameLabels, cut_scales, window_id

CAPTION_RULE: CaptionRule = "new"

MOSAIC, FRAME_PLAN, AUDIO, FEATURES, TRAJECTORIES, WINDOWS = (
    "mosaic.mp4",
    "frame_plan.json",
    "audio.wav",
    "features.npz",
    "trajectories.npz",
    "windows.jsonl",
)


@dataclass(frozen=True)
class IndexPlan:
    """What an index holds.

    Attributes:
        scales: the families of windows.
        frame_grid: every n-th source frame is kept in the proxy video.
        context_frames: how many grid frames before the anchor a model may see.
        tile: width and height of one camera in the mosaic, in pixels.
        min_label_share: share of a window's labelled frames that its majority label must reach.
        swap_fisheye_cam0_cam2: take each of the two cameras from the other one's file.
    """

    scales: tuple[Scale, ...]
    frame_grid: int
    context_frames: int
    tile: tuple[int, int]
    min_label_share: float
    swap_fisheye_cam0_cam2: bool = False

    @property
    def digest(self) -> str:
        return digest_of({**asdict(self), "scales": [scale.model_dump() for scale in self.scales]})


@dataclass(frozen=True)
class EpisodeIndex:
    """What :func:`index_episode` made, or read back.

    Attributes:
        skips: the episode itself, when it is shorter than every scale or cannot be read to its end.
        counts: windows; those with an action, with a contact and with a following window; frames of the
            proxy video; frames of it that repeat the last frame of a video that is too short; milliseconds of
            silence where the track of the sound holds nothing.
    """

    windows: tuple[Window, ...]
    skips: tuple[Skip, ...]
    counts: dict[str, int]


class UnsplitEpisodeError(Exception):
    """An episode belongs to no split, so its windows cannot."""


def index_episode(episode: Episode, *, data_root: Path, out: Path, plan: IndexPlan) -> EpisodeIndex:
    """Write ``out/<episode_id>/`` and return its windows; pointers in them start at ``out``.

    Its seal is written last. What was made from the same episode and plan and is whole is read back, and
    nothing is decoded again. An episode that cannot be read to its end is a skip: only decoding it all finds
    damage in the middle of a video.

    Raises:
        UnsplitEpisodeError: ``split`` has not been run.
        ChangedEpisodeError: its files were written again while they were read.
    """
    if episode.split is None:
        raise UnsplitEpisodeError(f"{episode.episode_id} is in no split; run 'split' before 'index'")
    folder = out / episode.episode_id
    known = episode.model_dump(mode="json", exclude={"changed_ns_by_file"})  # a copy makes the same index
    made_from = digest_of([known, plan.digest])
    if episode_seal.is_whole(folder, made_from=made_from):
        return _indexed(tuple(read_rows(folder / WINDOWS, Window)))
    try:
        with open_episode(data_root / episode.path) as source:
            shortest = min(scale.frames for scale in plan.scales)
            if source.num_frames < shortest:
                return _skipped(episode, f"{source.num_frames} frames, the shortest window has {shortest}")
            windows = _Task(episode, source, out, plan, made_from).windows()
    except (UnreadableEpisodeError, UnreadableVideoError) as problem:
        return _skipped(episode, str(problem).replace(f"{data_root}/", ""))
    check_unchanged(data_root / episode.path, episode)
    write_rows(folder / WINDOWS, windows)
    episode_seal.seal(folder, made_from=made_from)
    return _indexed(windows)


class _Cut(NamedTuple):
    row: int
    scale: Scale
    span: Span
    labels: Labels


@dataclass(frozen=True)
class _Task:
    episode: Episode
    source: EpisodeFile
    out: Path
    plan: IndexPlan
    made_from: str

    def windows(self) -> tuple[Window, ...]:
        media, proxy, heard = self._write_media()
        provenance = {**self._provenance(proxy), **heard}
        frames, share = self._frame_labels(), self.plan.min_label_share
        cuts = cut_scales(frames, self.plan.scales, min_label_share=share)
        self._write_features([span for _, span, _ in cuts])
        self._write_trajectories()
        numbered = (_Cut(index, *cut) for index, cut in enumerate(cuts))
        return tuple(self._window(cut, media, {**provenance, **_ended(proxy, cut.span)}) for cut in numbered)

    def _window(self, cut: _Cut, media: Media, provenance: dict[str, Any]) -> Window:
        assert self.episode.split is not None
        span = cut.span
        main_task = self.source.main_task
        features = SensorPointer(path=self._pointer(FEATURES), index=cut.row, dim=len(FEATURE_NAMES))
        seen = self.plan.context_frames * self.plan.frame_grid
        camera, hands, body = self._tracked
        view = View(
            context=Span(start=max(0, span.stop - seen), stop=span.stop),
            context_is_whole=span.stop >= seen,
            following=self._following(span),
            media=media,
            features=features,
            trajectories=self._pointer(TRAJECTORIES),
            main_task=main_task,
            labels=cut.labels,
            hands_follow=self._follow(span, camera, hands),
            body_follows=self._follow(span, body, body),
        )
        return Window(
            id=window_id(self.episode.episode_id, span),
            episode_id=self.episode.episode_id,
            session_id=self.episode.session_id,
            split=self.episode.split,
            window=span,
            anchor=span.stop,
            scale=cut.scale,
            fps=self.source.fps,
            anchor_s=self.source.seconds_at(span.stop),
            modalities=Modalities(
                media=media, sensor_features=features, language=Language(main_task=main_task)
            ),
            supervision=cut.labels,
            adapter_views=adapter_views(view),
            provenance=provenance,
        )

    def _write_media(self) -> tuple[Media, Proxy | None, dict[str, Any]]:
        """Return also what the provenance says of the sound."""
        folder = self.out / self.episode.episode_id
        streams = self.source.video_files(swap_fisheye_cam0_cam2=self.plan.swap_fisheye_cam0_cam2)
        if not streams:
            return Media(proxy_video=None), None, {"sound": None, "sound_refused": {}}
        grid = range(0, self.source.num_frames, self.plan.frame_grid)
        proxy = write_proxy(streams, folder / MOSAIC, frame_grid=grid, tile=self.plan.tile)
        write_text(folder / FRAME_PLAN, proxy.plan.model_dump_json() + "\n")
        # By file, whichever pictures it holds: the choice of ``guard``, which knows of no exchange.
        sound, refused = write_soundtrack(
            self.source.video_files(),
            folder / AUDIO,
            length_s=self.source.length_s,
            seconds_of=self.source.seconds_of,
        )
        media = Media(
            proxy_video=self._pointer(MOSAIC),
            grid_stride=self.plan.frame_grid,
            num_proxy_frames=len(grid),
            tiles=proxy.plan.tiles,
            frame_plan=self._pointer(FRAME_PLAN),
            proxy_audio=self._pointer(AUDIO) if sound else None,
        )
        return media, proxy, {"sound": sound.model_dump() if sound else None, "sound_refused": refused}

    def _frame_labels(self) -> FrameLabels:
        in_contact, known = self.source.hand_contact()
        return FrameLabels(self.source.captions(rule=CAPTION_RULE), in_contact, known)

    def _write_features(self, spans: Sequence[Span]) -> None:
        """Write one row per window, and beside it the row of the window after it: 0 where there is none."""
        following = [self._following(span) for span in spans]
        inside = [index for index, span in enumerate(following) if span is not None]
        after = np.zeros((len(spans), len(FEATURE_NAMES)), dtype=np.float32)
        after[inside] = window_features(self.source, [span for span in following if span is not None])
        self._save(FEATURES, windows=window_features(self.source, spans), next_windows=after)

    def _write_trajectories(self) -> None:
        """Write what moves, frame by frame, in the frames of reference of ``EpisodeFile``."""
        camera, camera_valid = self.source.camera_to_world()
        hands, hands_valid = self.source.hands()
        body, body_valid = self.source.body()
        self._save(
            TRAJECTORIES,
            camera_to_world=camera,
            camera_valid=camera_valid,
            hands_in_camera=hands,
            hands_valid=hands_valid,
            body_in_world=body,
            body_valid=body_valid,
        )

    def _save(self, name: str, **arrays: NDArray[Any]) -> None:
        path = self.out / self.episode.episode_id / name
        with appearing_at_once(path) as temporary, temporary.open("wb") as data:
            np.savez(data, allow_pickle=False, **arrays)

    def _follow(self, span: Span, now: Bools, after: Bools) -> bool:
        """Whether ``now`` holds at a window's last frame, and ``after`` at a frame that follows it."""
        following = self._following(span)
        return following is not None and bool(
            now[span.stop - 1] and after[following.start : following.stop].any()
        )

    @cached_property
    def _tracked(self) -> tuple[Bools, Bools, Bools]:
        """Return where the camera, a hand in a known camera, and the body are known."""
        camera = self.source.camera_to_world()[1]
        return camera, camera & np.logical_or(*self.source.hands()[1]), self.source.body()[1]

    def _following(self, span: Span) -> Span | None:
        after = Span(start=span.stop, stop=span.stop + len(span))
        return after if after.stop <= self.source.num_frames else None

    def _pointer(self, name: str) -> str:
        return f"{self.episode.episode_id}/{name}"

    def _provenance(self, proxy: Proxy | None) -> dict[str, Any]:
        return {
            "made_from": self.made_from,
            "episode_digest": self.episode.digest,
            "source_files": sorted(self.episode.bytes_by_file),
            "caption_rule": CAPTION_RULE,
            "label_rule": {"majority_of_labelled_frames": self.plan.min_label_share},
            "contact_rule": {"wrist_probability_above": 0.5},
            "frame_plan_digest": proxy.plan.digest if proxy else None,
            "repeated_frames": proxy.repeated_frames if proxy else {},
        }


def _ended(proxy: Proxy | None, span: Span) -> dict[str, dict[str, int]]:
    return {"cameras_ended": proxy.ended_before(span.stop) if proxy else {}}


def _skipped(episode: Episode, reason: str) -> EpisodeIndex:
    skip = Skip(subject=episode.episode_id, stage="index", reason=reason)
    return EpisodeIndex(windows=(), skips=(skip,), counts=_counts(()))


def _indexed(windows: Sequence[Window]) -> EpisodeIndex:
    return EpisodeIndex(windows=tuple(windows), skips=(), counts=_counts(windows))


def _counts(windows: Sequence[Window]) -> dict[str, int]:
    labels = [window.supervision for window in windows]
    media = windows[0].modalities.media if windows else Media(proxy_video=None)
    repeated = windows[0].provenance["repeated_frames"] if windows else {}
    sound = windows[0].provenance["sound"] if windows else None
    return {
        "windows": len(windows),
        "with_action": sum(label.action is not None for label in labels),
        "with_contact": sum(label.in_contact is not None for label in labels),
        "with_next_action": sum(label.next_action is not None for label in labels),
        "proxy_frames": media.num_proxy_frames,
        "repeated_frames": sum(repeated.values()),
        "silent_ms": round(1000 * sound["silence_s"]) if sound else 0,
    }
