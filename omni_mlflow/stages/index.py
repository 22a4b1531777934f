"""index: decode every frame once per episode and camera, and cut the windows that all backbones share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni_mlflow.contract import Contract
from omni_mlflow.spine.processes import each_in_a_process
from omni_mlflow.spine.rows import read_document, read_rows, write_document, write_rows
from omni_mlflow.spine.types import SCHEMA_VERSION, Episode, Split, Window
from omni_mlflow.spine.windows import degenerate_labels
from omni_mlflow.stages.base import Report, Run, Stage
from omni_mlflow.stages.manifests import MEDIA, EpisodeManifest, data_root_of
from omni_mlflow.workspace import StaleInputError

if TYPE_CHECKING:
    from omni_mlflow.spine.indexing import EpisodeIndex, IndexPlan


def _index(run: Run) -> Report:
    from omni_mlflow.expectations import check_suite, write_suite_result
    from omni_mlflow.frames import window_frame
    from omni_mlflow.spine.indexing import IndexPlan

    manifest = read_document(run.open("guard", "episode_manifest.json"), EpisodeManifest)
    data_root = data_root_of(run)
    _check_that_all_are_there(manifest.episodes, data_root)
    windows = run.contract.windows
    plan = IndexPlan(
        scales=windows.scales,
        frame_grid=windows.frame_grid,
        context_frames=windows.context_frames,
        tile=windows.tile_pixels,
        min_label_share=windows.min_label_share,
        swap_fisheye_cam0_cam2=windows.swap_fisheye_cam0_cam2,
    )
    media = run.folder / MEDIA
    work = partial(_index_one, data_root=data_root, media=media, plan=plan)
    advance = run.bar.start("index episodes", total=len(manifest.episodes))
    made: dict[str, EpisodeIndex] = {}
    for episode, index in each_in_a_process(work, manifest.episodes, workers=run.options.workers):
        made[episode.episode_id] = index
        advance(len(made))
    order = sorted(made)  # the order of episodes, whatever finished first
    skips = [skip for name in order for skip in made[name].skips]
    out = run.folder / "window_index.jsonl"
    num_windows = write_rows(out, (window for name in order for window in made[name].windows))
    per_split = Counter(window.split for name in order for window in made[name].windows)
    summary = run.folder / "window_index_manifest.json"
    write_document(
        summary,
        {
            "schema_version": SCHEMA_VERSION,
            "split_digest": manifest.split_digest,
            "num_windows": num_windows,
            "windows_per_split": {split: per_split[split] for split in Split},
            "windows_per_episode": {name: len(made[name].windows) for name in order},
            "degenerate_labels": degenerate_labels(
                window.supervision for name in order for window in made[name].windows
            ),
            "episodes_without_windows": [skip.model_dump(mode="json") for skip in skips],
            "plan": windows.model_dump(mode="json"),
            "synthetic": manifest.synthetic,
        },
    )
    frame = window_frame(read_rows(out, Window), manifest.episodes)
    suite = check_suite(run.suites / "window_index.yaml", frame)
    pages = write_suite_result(suite, run.folder / "validation")
    return Report(
        outputs=[out, summary, media, *pages],
        artifacts={"": [summary], "validation": pages},
        metrics={f"rows/windows_{split}": per_split[split] for split in Split},
        failures=suite.failures(),
        skipped=skips,
        taken=len(manifest.episodes),
        made=len(manifest.episodes) - len(skips),
    )


def _index_one(episode: Episode, *, data_root: Path, media: Path, plan: IndexPlan) -> EpisodeIndex:
    """Index one episode into the folder of its split."""
    from omni_mlflow.spine.indexing import index_episode

    return index_episode(episode, data_root=data_root, out=media / str(episode.split), plan=plan)


def _check_that_all_are_there(episodes: Sequence[Episode], data_root: Path) -> None:
    """An episode that vanished is no skip: it was there when the guard read every byte of it."""
    gone = [episode.path for episode in episodes if not (data_root / episode.path).is_dir()]
    if gone:
        raise StaleInputError(
            f"{len(gone)} guarded episodes are not below {data_root} any more, first {gone[0]}; "
            "mount the data root as it was, or run 'select' again"
        )


def _settings(contract: Contract) -> Mapping[str, Any]:
    return contract.windows.model_dump(mode="json")


INDEX = Stage(
    name="index",
    run=_index,
    rows="episodes",
    inputs={"select": ("selection.json",), "guard": ("episode_manifest.json",)},
    settings=_settings,
    per_backbone=False,
    resumable=True,
    suites=("window_index",),
)
