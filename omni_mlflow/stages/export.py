"""export: one backbone's view of the neutral windows; held-out targets go to a sealed file of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from omni_mlflow.backbones.base import Exported, ExportsEpisodes
from omni_mlflow.contract import SEALED, Contract, Windows
from omni_mlflow.metrics.label_ledger import LabelLedger
from omni_mlflow.spine.rows import (
    digest_of,
    file_digest,
    read_document,
    read_rows,
    write_document,
    writing_rows,
)
from omni_mlflow.spine.types import (
    Check,
    LabelledSample,
    Skip,
    Split,
    Window,
)
from omni_mlflow.stages.base import Report, Run, Stage
from omni_mlflow.stages.declared_labels import action_counts
from omni_mlflow.stages.manifests import (
    LABEL_LEDGER,
    TEST_TARGETS,
    DatasetManifest,
    SplitManifest,
    WindowIndexManifest,
    arrays_beside,
    dataset_input,
    media_root,
)


class UnguardedIndexError(Exception):
    """The index was not made from guarded episodes, so nothing may be trained or evaluated on it."""


def _export(run: Run) -> Report:
    index = read_document(run.open("index", "window_index_manifest.json"), WindowIndexManifest)
    if index.split_digest is None:
        raise UnguardedIndexError(
            "this index was converted from exported records, whose episodes nobody guarded against leaks; "
            "run 'index' without --dataset-jsonl on the episodes themselves"
        )
    skips: list[Skip] = []
    windows = read_rows(run.open("index", "window_index.jsonl"), Window)
    num_foreign = 0
    first_window: dict[Split, dict[str, Window]] = {}
    with _SampleFiles(run.folder) as files:
        for window in run.bar.track(windows, description="export samples", total=index.num_windows):
            if (asked := _as_asked(run.contract.windows, window)) is None:
                num_foreign += 1
                continue
            made = _exported(run, asked)
            if isinstance(made, Skip):
                skips.append(made)
            else:
                files.add(made)
                first_window.setdefault(asked.split, {}).setdefault(asked.episode_id, asked)
    whole = _export_episodes(run, {split: [*found.values()] for split, found in first_window.items()})
    manifest = _manifest(run, files)
    out = run.folder / "dataset_manifest.json"
    write_document(out, manifest)
    num_samples = {split: files.per_episode[split].total() for split in Split}
    return Report(
        outputs=[run.folder / "samples", run.folder / SEALED, out, *whole],
        artifacts={"": [out]},
        metrics={f"rows/samples_{split}": num_samples[split] for split in Split},
        tags={"omni.dataset_digest": manifest.digest[:16]},
        datasets=[dataset_input(manifest, split) for split in Split if num_samples[split]],
        failures=_empty_splits(run, num_samples),
        skipped=skips,
        taken=index.num_windows - num_foreign,
        made=sum(num_samples.values()),
    )


def _export_episodes(run: Run, episodes: Mapping[Split, Sequence[Window]]) -> list[Path]:
    """Let a backbone that can write its episodes whole; those of test are sealed with the targets."""
    if not isinstance(run.model, ExportsEpisodes):
        return []
    name = run.model.episodes_folder
    out = {
        split: run.folder / (f"{SEALED}/{name}" if split is Split.TEST else name) / split
        for split in episodes
    }
    run.model.export_episodes(episodes, media={split: media_root(run, split) for split in episodes}, out=out)
    return [run.folder / name]


class _SampleFiles:
    """The files of an export, open at once so that no sample is held: targets of test apart from its samples.

    Attributes:
        names: every file, relative to the stage's folder; those of arrays once all files are closed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.per_episode: dict[Split, Counter[str]] = {split: Counter() for split in Split}
        self._actions: dict[Split, Counter[str]] = {split: Counter() for split in Split}
        self.names = [*(f"samples/{split}.jsonl" for split in Split), TEST_TARGETS]
        self._open = ExitStack()

    def __enter__(self) -> Self:
        from omni_mlflow.spine.arrays import ArrayWriter

        with ExitStack() as opening:
            self._write = {
                name: opening.enter_context(writing_rows(self.folder / name)) for name in self.names
            }
            self._open = opening.pop_all()
        self._arrays = {name: ArrayWriter(self.folder / arrays_beside(name)) for name in self.names}
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)
        written = [path for arrays in self._arrays.values() for path in arrays.close()]
        write_document(self.folder / LABEL_LEDGER, LabelLedger.of(self._actions))
        self.names += [LABEL_LEDGER, *(path.relative_to(self.folder).as_posix() for path in written)]

    def add(self, made: Exported) -> None:
        split = made.sample.split
        self.per_episode[split][made.sample.episode_id] += 1
        self._actions[split].update(action_counts([made.target]))
        samples = f"samples/{split}.jsonl"
        if split is Split.TEST:
            self._write[samples](made.sample)
            self._write[TEST_TARGETS](made.target)
            self._arrays[TEST_TARGETS].append(made.arrays)
        else:
            self._write[samples](LabelledSample(sample=made.sample, target=made.target))
            self._arrays[samples].append(made.arrays)


def _empty_splits(run: Run, num_samples: Mapping[Split, int]) -> list[Check]:
    """A split without a sample is found here, and not after the training."""
    sizes = run.contract.split_policy.default_counts.by_split()
    return [
        Check(
            rule="every_split_has_samples",
            subject=f"split {split}",
            expected=f"samples of its {sizes[split]} sessions",
            found="none: skipped_windows.jsonl here and skipped_episodes.jsonl of index say why",
            ok=False,
        )
        for split in Split
        if sizes[split] and not num_samples[split]
    ]


class ForeignSampleError(Exception):
    """A backbone made a sample of another window than it was given."""


def _as_asked(asked: Windows, window: Window) -> Window | None:
    """The window with the grid and context of this contract; None where only another one asks for it."""
    if not any(scale.holds(window.span) for scale in asked.scales):
        return None
    from omni_mlflow.spine.adapter_views import as_asked

    return as_asked(window, frame_grid=asked.frame_grid, context_frames=asked.context_frames)


def _exported(run: Run, window: Window) -> Exported | Skip:
    """Ask the backbone, and check that what it made is about this window and sees no frame after it."""
    made = run.model.export(window, media_root=media_root(run, window.split), settings=run.settings)
    if isinstance(made, Skip):
        return made
    sample, target = made.sample, made.target
    wanted = (window.id, window.episode_id, window.anchor)
    if (
        (sample.id, sample.episode_id, sample.anchor) != wanted
        or (target.id, target.episode_id, target.anchor) != wanted
        or (sample.split, target.span) != (window.split, window.span)
    ):
        raise ForeignSampleError(
            f"{run.model.id} made {sample.id} of window {window.id}; ids and spans must agree"
        )
    return made


def _manifest(run: Run, written: _SampleFiles) -> DatasetManifest:
    """Bind the written files together."""
    files = {name: file_digest(run.folder / name) for name in written.names}
    split_manifest = read_document(run.open("split", "split_manifest.json"), SplitManifest)
    return DatasetManifest(
        backbone=run.model.id,
        dataset_contract=run.contract.dataset_contract,
        split_digest=split_manifest.digest,
        digest=digest_of(files),
        files=files,
        samples_per_episode={
            split: dict(sorted(counts.items())) for split, counts in written.per_episode.items()
        },
        synthetic=any(episode.synthetic for episode in split_manifest.episodes),
    )


def _settings(contract: Contract) -> Mapping[str, Any]:
    return {
        "dataset_contract": contract.dataset_contract,
        "windows": contract.windows.model_dump(mode="json"),
    }


EXPORT = Stage(
    name="export",
    run=_export,
    rows="windows",
    inputs={
        "split": ("split_manifest.json",),
        "index": ("window_index.jsonl", "window_index_manifest.json"),
    },
    settings=_settings,
    per_backbone=True,
    asks=("export", "episodes_folder", "export_episodes"),
    makes=("dataset_manifest.json", *(f"samples/{split}.jsonl" for split in Split)),
)
