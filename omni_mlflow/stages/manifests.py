"""What stages hand to each other: manifests, and where the files of a stage lie.

Nothing here does a stage's work, so a change of one stage is no change of the stages that read its manifest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from omni_mlflow.backbones.base import Arrays, SampleSet
from omni_mlflow.events import DatasetInput
from omni_mlflow.spine.changed_files import changes_of
from omni_mlflow.spine.rows import digest_of, file_digest, read_json_rows, read_rows
from omni_mlflow.spine.splits import SplitBand
from omni_mlflow.spine.types import SCHEMA_VERSION, Episode, LabelledSample, Row, Skip, Split
from omni_mlflow.stages.base import Options, Run
from omni_mlflow.workspace import StaleInputError

MEDIA = "episodes"
TEST_TARGETS = "sealed/test_targets.jsonl"
LABEL_LEDGER = "sealed/label_ledger.json"  # sealed, because it names held-out labels
SAMPLES_TO_LEARN_FROM = (
    "samples/train.jsonl",
    "samples/val.jsonl",
    "samples/train.arrays/*",
    "samples/val.arrays/*",
)
SEALED_TARGETS = (TEST_TARGETS, "sealed/test_targets.arrays/*", LABEL_LEDGER)
FITTED = "fitted.json"
CONTRACT = "contract.json"
LEDGER = "training_ledger.jsonl"
GENERATED = "generated"
_MOST_NAMED = 20


class SplitManifest(Row):
    """Which episode is in which split.

    Attributes:
        rule: ``stratified`` by length of session, or ``given`` by a file.
        given: name and sha256 of that file.
        sizes: sessions asked for per split.
        bands: what each split got of each band of length; none where the split was given.
        digest: sha256 over the sorted ``(episode_id, split)`` pairs; two runs are comparable when it agrees.
    """

    schema_version: int = SCHEMA_VERSION
    rule: Literal["stratified", "given"]
    given: str | None = None
    seed: int
    sizes: dict[Split, int]
    bands: tuple[SplitBand, ...] = ()
    digest: str
    episodes: tuple[Episode, ...]


class EpisodeManifest(Row):
    """Every episode of the split with path, size, digest and missing modalities; sealed by the guard."""

    schema_version: int = SCHEMA_VERSION
    split_digest: str
    synthetic: bool
    episodes: tuple[Episode, ...]


class WindowIndexManifest(Row):
    """What an index holds. Fields are None where it was converted from exported records, or was not.

    Attributes:
        split_digest: that of the guarded split.
        num_repeated_frames, repeated_frames: how many tiles of the proxy videos repeat the last picture of a
            camera whose file ended, in all and by camera.
        silence_s: seconds without sound of each episode whose track of sound has holes or ends early.
        sound_refused: of each episode in which some camera's file holds sound that cannot be used: why, by
            camera. Sound that another camera has in full was not looked at.
        converted_from: name and sha256 of the file of records, and how many of them were skipped.
    """

    schema_version: int = SCHEMA_VERSION
    num_windows: int
    windows_per_split: dict[Split, int]
    windows_per_episode: dict[str, int]
    split_digest: str | None = None
    plan: dict[str, Any] | None = None
    synthetic: bool | None = None
    num_repeated_frames: int | None = None
    repeated_frames: dict[str, int] | None = None
    silence_s: dict[str, float] | None = None
    sound_refused: dict[str, dict[str, str]] | None = None
    degenerate_labels: dict[str, dict[str, bool | float]] | None = None
    episodes_without_windows: tuple[Skip, ...] = ()
    converted_from: dict[str, Any] | None = None


class DatasetManifest(Row):
    """What was exported.

    Attributes:
        digest: sha256 over the digests of all sample files, the sealed targets included.
        samples_per_episode: number of samples, by split and episode id.
    """

    schema_version: int = SCHEMA_VERSION
    backbone: str
    dataset_contract: str
    split_digest: str
    digest: str
    files: dict[str, str]
    samples_per_episode: dict[Split, dict[str, int]]
    synthetic: bool


def dataset_input(manifest: DatasetManifest, split: Split) -> DatasetInput:
    """Describe one split of the dataset for the tracker."""
    per_episode = manifest.samples_per_episode[split]
    name = "sealed/test_targets.jsonl" if split is Split.TEST else f"samples/{split}.jsonl"
    return DatasetInput(
        name=f"{manifest.dataset_contract}-{split}",
        context=split,
        digest=manifest.files[name][:16],
        source=f"samples/{split}.jsonl",
        profile={
            "num_episodes": len(per_episode),
            "num_samples": sum(per_episode.values()),
            "synthetic": manifest.synthetic,
            "split_digest": manifest.split_digest[:16],
        },
        columns={"id": "string", "episode_id": "string", "anchor": "long", "inputs": "string"},
    )


def arrays_beside(rows: str) -> str:
    """The folder of the numeric targets that belong to a file of rows."""
    return f"{rows.removesuffix('.jsonl')}.arrays"


def open_arrays(run: Run, dataset: DatasetManifest, rows: str) -> Arrays:
    """Numeric targets of an exported file of rows, memory-mapped: row k belongs to its line k."""
    import numpy as np

    folder = f"{arrays_beside(rows)}/"
    return {
        Path(name).stem: np.load(run.open("export", name), mmap_mode="r")
        for name in dataset.files
        if name.startswith(folder)
    }


def sample_set(run: Run, dataset: DatasetManifest, split: Split) -> SampleSet:
    """The labelled samples of train or val, as a backbone learns from them."""
    name = f"samples/{split}.jsonl"
    return SampleSet(
        rows=tuple(read_rows(run.open("export", name), LabelledSample)),
        media_root=media_root(run, split),
        arrays=open_arrays(run, dataset, name),
    )


def media_root(run: Run, split: Split) -> Path:
    """The folder that the media and feature pointers of one split's windows and samples start from.

    Each split has its own: who is given the root of train finds no file of a held-out episode below it.
    """
    return run.folder_of("index") / MEDIA / split


def checkpoint_digest(checkpoint: Path) -> str:
    """Identity of a checkpoint: sha256 over the digests of its files, its own manifest left out."""
    return digest_of(checkpoint_files(checkpoint))


def checkpoint_files(checkpoint: Path) -> dict[str, str]:
    """sha256 of every file of a checkpoint but its own manifest."""
    return {
        path.relative_to(checkpoint).as_posix(): file_digest(path)
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != "checkpoint_manifest.json"
    }


class NotDownloadedError(Exception):
    """Only a listing was selected from; the episodes are not here."""


def selected_episodes(run: Run) -> list[Episode]:
    """The episodes that were read and found complete.

    Raises:
        NotDownloadedError: only a listing was selected from.
    """
    data_root_of(run)
    return list(read_rows(run.open("select", "episodes.jsonl"), Episode))


def data_root_of(run: Run) -> Path:
    """The data root that was selected from. No later stage can read another one.

    Raises:
        NotDownloadedError: only a listing was selected from.
        StaleInputError: the command line names another data root.
    """
    return _data_root(run.open("select", "selection.json"), given=run.options.data_root)


def _data_root(selection: Path, *, given: Path | None) -> Path:
    root = json.loads(selection.read_text(encoding="utf-8"))["data_root"]
    if root is None:
        plan = selection.with_suffix(".csv")
        raise NotDownloadedError(
            "the episodes were selected from a listing and are not here. Download the files that the column "
            f"download_files of {plan} names into one folder, keeping their paths, then run "
            f"omni-mlflow select --data-root FOLDER --selection {plan}"
        )
    selected = Path(root)
    if given is not None and given != selected:
        raise StaleInputError(
            f"the episodes were selected from {selected}, not from {given}; run 'select' again"
        )
    return selected


def check_files(options: Options, selection: Path, episodes: Sequence[Episode], *, since: str) -> Path:
    """Return the data root if every file of ``episodes`` has the size and time of change of its selection.

    Args:
        selection: the ``selection.json`` that names the data root.
        since: what was done with the files as they were, for the message.

    Raises:
        StaleInputError: naming the files that are others now, and what to do.
    """
    data_root = _data_root(selection, given=options.data_root)
    gone = [each.path for each in episodes if not (data_root / each.path).is_dir()]
    if gone:
        raise StaleInputError(
            f"{len(gone)} episodes are not below {data_root} any more, first {gone[0]}; "
            "mount the data root as it was, or run 'select' again"
        )
    changed = [change for each in episodes for change in changes_of(data_root / each.path, each)]
    if changed:
        more = f" and {len(changed) - _MOST_NAMED} more" if len(changed) > _MOST_NAMED else ""
        raise StaleInputError(
            f"{len(changed)} files below {data_root} changed since {since}: "
            f"{'; '.join(changed[:_MOST_NAMED])}{more}. Put them back as they were (also their times), or "
            "run 'select', 'split' and 'guard' again: no split vouches for files that were not compared"
        )
    return data_root


def episodes_learned_from(run: Run) -> set[str]:
    """Episodes whose samples the training really consumed: its ledger, joined with what was exported.

    An id that the export does not know stands for itself, so that it cannot vanish from a comparison.
    """
    episode_of: dict[str, str] = {}
    for split in (Split.TRAIN, Split.VAL):
        for row in read_rows(run.open("export", f"samples/{split}.jsonl"), LabelledSample):
            episode_of[row.sample.id] = row.sample.episode_id
    consumed = (row["ids"] for row in read_json_rows(run.open("train", LEDGER)))
    return {episode_of.get(sample_id, sample_id.partition(":")[0]) for ids in consumed for sample_id in ids}
