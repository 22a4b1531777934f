"""export: one backbone's view of the neutral windows; held-out targets go to a sealed file of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from omni_mlflow.backbones.base import Exported
from omni_mlflow.contract import Contract
from omni_mlflow.spine.arrays import ArrayWriter
from omni_mlflow.spine.rows import (
    digest_of,
    file_digest,
    read_document,
    read_rows,
    write_document,
    write_rows,
)
from omni_mlflow.spine.types import (
    Check,
    LabelledSample,
    Sample,
    Skip,
    Split,
    Window,
)
from omni_mlflow.stages.base import Report, Run, Stage
from omni_mlflow.stages.manifests import (
    TEST_TARGETS,
    DatasetManifest,
    SplitManifest,
    arrays_beside,
    dataset_input,
    media_root,
)


def _export(run: Run) -> Report:
    samples: dict[Split, list[Exported]] = {split: [] for split in Split}
    skips: list[Skip] = []
    windows = list(read_rows(run.open("index", "window_index.jsonl"), Window))
    for window in run.bar.track(windows, description="export samples", total=len(windows)):
        made = _exported(run, window)
        if isinstance(made, Skip):
            skips.append(made)
        else:
            samples[window.split].append(made)
    manifest = _write(run, samples)
    out = run.folder / "dataset_manifest.json"
    write_document(out, manifest)
    return Report(
        outputs=[run.folder / "samples", run.folder / "sealed", out],
        artifacts={"": [out]},
        metrics={f"rows/samples_{split}": len(samples[split]) for split in Split},
        tags={"omni.dataset_digest": manifest.digest[:16]},
        datasets=[dataset_input(manifest, split) for split in Split if samples[split]],
        failures=_empty_splits(run, samples),
        skipped=skips,
        taken=len(windows),
        made=sum(map(len, samples.values())),
    )


def _empty_splits(run: Run, samples: Mapping[Split, list[Exported]]) -> list[Check]:
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
        if sizes[split] and not samples[split]
    ]


class ForeignSampleError(Exception):
    """A backbone made a sample of another window than it was given."""


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


def _write(run: Run, samples: Mapping[Split, list[Exported]]) -> DatasetManifest:
    """Write train and val with their targets, test without; the manifest binds all of them."""
    arrays: list[str] = []
    for split in (Split.TRAIN, Split.VAL):
        rows = (LabelledSample(sample=each.sample, target=each.target) for each in samples[split])
        write_rows(run.folder / f"samples/{split}.jsonl", rows)
        arrays += _write_arrays(run, f"samples/{split}.jsonl", samples[split])
    held_out = samples[Split.TEST]
    write_rows(run.folder / "samples/test.jsonl", (each.sample for each in held_out))
    write_rows(run.folder / TEST_TARGETS, (each.target for each in held_out))
    arrays += _write_arrays(run, TEST_TARGETS, held_out)
    names = [*(f"samples/{split}.jsonl" for split in Split), TEST_TARGETS, *arrays]
    files = {name: file_digest(run.folder / name) for name in names}
    split_manifest = read_document(run.open("split", "split_manifest.json"), SplitManifest)
    return DatasetManifest(
        backbone=run.model.id,
        dataset_contract=run.contract.dataset_contract,
        split_digest=split_manifest.digest,
        digest=digest_of(files),
        files=files,
        samples_per_episode={split: _per_episode(each.sample for each in samples[split]) for split in Split},
        synthetic=any(episode.synthetic for episode in split_manifest.episodes),
    )


def _write_arrays(run: Run, rows: str, made: Iterable[Exported]) -> list[str]:
    """Write the numeric targets of one file of rows; return their names below the stage's folder."""
    writer = ArrayWriter(run.folder / arrays_beside(rows))
    for each in made:
        writer.append(each.arrays)
    return [path.relative_to(run.folder).as_posix() for path in writer.close()]


def _per_episode(samples: Iterable[Sample]) -> dict[str, int]:
    return dict(sorted(Counter(sample.episode_id for sample in samples).items()))


def _settings(contract: Contract) -> Mapping[str, Any]:
    return {"dataset_contract": contract.dataset_contract}


EXPORT = Stage(
    name="export",
    run=_export,
    rows="windows",
    inputs={"split": ("split_manifest.json",), "index": ("window_index.jsonl",)},
    settings=_settings,
    per_backbone=True,
)
