"""What a stage is given and what it gives back.

A stage is one function from :class:`Run` to :class:`Report`. Arguments, tracking, locks, seals and
errors are the pipeline's, once around every stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from operator import eq
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from omni_mlflow.backbones.base import Backbone
from omni_mlflow.contract import SEALED, Contract
from omni_mlflow.events import DatasetInput
from omni_mlflow.journal import Journal
from omni_mlflow.record import RunRecord
from omni_mlflow.spine.given import GivenFile
from omni_mlflow.spine.types import Check, Skip, Split
from omni_mlflow.workspace import StageFolder, Workspace

T = TypeVar("T")


class UndeclaredInputError(Exception):
    """A stage reached for a file that its declaration does not name."""


@dataclass(frozen=True)
class Synthesis:
    """A set of synthetic episodes; by default as large as the demo's, and nothing is wrong with it."""

    sessions: int = 26
    frames: int = 600
    seed: int = 7
    anomalies: Literal["none", "demo", "all"] = "none"


@dataclass(frozen=True)
class Listing:
    """A list of files to select from without their data, and how; the numbers are the published pilot's.

    Attributes:
        per_band: episodes of each size band, by split.
        bands: number of size bands.
        min_bytes: smallest annotation that is a candidate.
        tie_seed: seed of the random part of a score.
        split_seed: seed of the split of each band.
    """

    path: Path
    per_band: Mapping[Split, int]
    bands: int = 4
    min_bytes: int = 2**29
    tie_seed: int = 7
    split_seed: int = 108


@dataclass(frozen=True)
class Shard:
    """Every ``stride``-th held-out sample, beginning with number ``offset``."""

    offset: int
    stride: int

    def __str__(self) -> str:
        return f"{self.offset}-of-{self.stride}"


@dataclass(frozen=True)
class Options:
    """What the command line decides beyond the contract.

    Attributes:
        data_root: folder that holds ``<session>/ep<k>/`` episodes; None stands for ``synthetic_root``.
        synthetic_root: where ``synthesize`` writes when it is told no other place.
        listing: select from it, and read no data root.
        selection: take only the episodes that it names.
        split_manifest: the split to take over instead of making one.
        split_seed: draws the split instead of the contract's seed.
        workers: processes for work that is independent per episode.
        cluster: address of a Dask scheduler whose workers ``index`` uses instead of its own processes.
        dataset_jsonl: exported Qwen records that ``index`` converts instead of reading episodes.
        limit: evaluate only the first so many held-out samples; makes the run a smoke run.
        shard: the part of these samples that ``evaluate`` asks and leaves for ``merge``; None for all.
        retry_failed: ``evaluate`` begins a finished evaluation anew that has samples without an answer; only
            these are asked.
        require_stage: how much of a run ``validate`` must find.
        verify_digests: ``guard`` and ``index`` read every byte again instead of trusting size and time of
            change.
    """

    data_root: Path | None
    synthetic_root: Path
    listing: Listing | None = None
    selection: GivenFile | None = None
    split_manifest: GivenFile | None = None
    split_seed: int | None = None
    workers: int = 2
    cluster: str | None = None
    dataset_jsonl: Path | None = None
    synthesis: Synthesis = Synthesis()
    limit: int | None = None
    shard: Shard | None = None
    retry_failed: bool = False
    require_stage: str = "eval"
    verify_digests: bool = False


class Bar(Protocol):
    """Progress of long work, for a person at a terminal."""

    def track(self, items: Iterable[T], *, description: str, total: int) -> Iterator[T]: ...

    def start(self, description: str, *, total: int, done: int = 0) -> Callable[[int], None]:
        """Show a bar and return the function that sets how much is done."""

    def stop(self) -> None:
        """Take the bar away."""


@dataclass(frozen=True)
class Ground:
    """What a stage stands on: its inputs and everything that decides what it makes of them.

    Attributes:
        settings: the contract's settings as the backbone's own model; None for shared stages.
        inputs: folders of the stages it declared.
        readable: for each of them, the patterns of the files it may open; no other.
    """

    stage: str
    workspace: Workspace
    contract: Contract
    backbone: Backbone | None
    settings: Any
    options: Options
    inputs: Mapping[str, StageFolder]
    readable: Mapping[str, tuple[str, ...]]

    def open(self, stage: str, name: str) -> Path:
        """Return a sealed output of an upstream stage, verified.

        Raises:
            UndeclaredInputError: the stage does not declare that it reads this file, or the file is a way
                into the sealed answers under another name.
        """
        if not any(fnmatchcase(name, pattern) for pattern in self.readable.get(stage, ())):
            raise UndeclaredInputError(
                f"{self.stage} may not open {stage}/{name}; it declares {dict(self.readable)}"
            )
        path = self.inputs[stage].open(name)
        sealed = self.inputs[stage].path / SEALED
        if not name.startswith(f"{SEALED}/") and path.resolve().is_relative_to(sealed.resolve()):
            raise UndeclaredInputError(
                f"{self.stage} may not open {stage}/{name}: it leads to {path.resolve()}, which is sealed; "
                f"run {stage!r} again"
            )
        return path

    def open_if_made(self, stage: str, name: str) -> Path | None:
        """Return a sealed output of an upstream stage, or None where that stage had no reason to write it."""
        seal = self.inputs[stage].seal()
        return self.open(stage, name) if seal is not None and name in seal.outputs else None

    def folder_of(self, stage: str) -> Path:
        """Return the folder of an upstream stage, for pointers that start there."""
        if stage not in self.inputs:
            raise UndeclaredInputError(f"{self.stage} reads {stage}/ but declares {sorted(self.inputs)}")
        return self.inputs[stage].path

    @property
    def model(self) -> Backbone:
        """The backbone of a per-backbone stage."""
        if self.backbone is None:
            raise UndeclaredInputError(f"{self.stage} is shared by all backbones and has none of its own")
        return self.backbone


@dataclass(frozen=True)
class Run(Ground):
    """One stage at work.

    Attributes:
        folder: the stage's own folder; everything it makes lies below it.
        fingerprint: of the work in it: inputs, settings and code.
        suites: folder of the Great Expectations suites.
        say: tells a person at the terminal one line.
        findings: what is wrong with the inputs of a stage that judges them itself; None for all others, whose
            inputs were verified.
    """

    folder: Path
    fingerprint: str
    record: RunRecord
    bar: Bar
    suites: Path
    say: Callable[[str], None]
    findings: Sequence[Check] | None = None

    def report_torn(self, *opened: Journal) -> None:
        """Say, at the terminal and in the tracker, what opening these journals cut off them."""
        for journal in opened:
            if journal.quarantined is not None:
                self.say(str(journal.quarantined))
                self.record.report_torn(journal.quarantined)


@dataclass(frozen=True)
class Report:
    """What a stage made.

    Attributes:
        outputs: files and folders to seal.
        artifacts: small files to show in the tracker, by artifact folder.
        failures: rules that do not hold; the stage ends FAILED with all of them, its evidence shown.
        taken, made: rows in and rows out; their difference must be explained by ``skipped``.
        rows: what was counted this time, where it is not what the stage counts as a rule.
    """

    outputs: Sequence[Path]
    artifacts: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: Sequence[DatasetInput] = ()
    failures: Sequence[Check] = ()
    skipped: Sequence[Skip] = ()
    taken: int = 0
    made: int = 0
    rows: str | None = None


@dataclass(frozen=True)
class Stage:
    """Declaration of a stage.

    Attributes:
        rows: what it counts, as a plural noun; rows left out go to ``skipped_<rows>.jsonl``.
        inputs: for each stage it builds on, the patterns of the files it may open; an empty tuple means
            that it only passes on pointers into that stage's folder.
        settings: what of the contract shapes its output.
        choices: what of the command line shapes its output; by default nothing.
        suites: names of the Great Expectations suites that it checks.
        makes: names of the small files that it may seal, beside those that its backbone names, the pages of
            its suites and the rows it left out.
        per_backbone: it has one folder per backbone.
        asks: the members of its backbone that shape its output; a change of the code behind any other does
            not run it again.
        resumable: it goes on from what an interrupted attempt left in its folder.
        serves: whether an output made with the first settings holds what the second ones ask for; by default
            only equal ones do.
        only_needs: the inputs that given options really ask for; by default all of them.
        judges_inputs: damaged inputs do not stop it; it is told of them and must refuse them itself.
        looks_again: finished work is to be done anew, because what it looked at beside its inputs may have
            changed; asked at the same moment.
        check_data: refuses where files outside the workspace are not those that its inputs describe, given
            the folders of its inputs; asked before anything is done, and before finished work is reused.
        admits: the rules that do not hold although the inputs are sound, asked at the same moment.
        folder: name of the folder that given options put its work in; by default its own name.
        fills: the stage whose folder it fills in another way, so that what follows knows no difference.
    """

    name: str
    run: Callable[[Run], Report]
    rows: str
    inputs: Mapping[str, tuple[str, ...]]
    settings: Callable[[Contract], Mapping[str, Any]]
    per_backbone: bool
    asks: tuple[str, ...] = ()
    choices: Callable[[Options], Mapping[str, Any]] = field(default=lambda _: {})
    suites: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    resumable: bool = False
    serves: Callable[[Mapping[str, Any], Mapping[str, Any]], bool] = field(default=eq)
    only_needs: Callable[[Options], Iterable[str]] | None = None
    judges_inputs: bool = False
    looks_again: Callable[[Ground], bool] = field(default=lambda _: False)
    check_data: Callable[[Options, Mapping[str, StageFolder]], None] = field(default=lambda _, __: None)
    admits: Callable[[Ground], Sequence[Check]] = field(default=lambda _: ())
    folder: Callable[[Options], str] | None = None
    fills: Stage | None = None

    @property
    def work(self) -> Stage:
        """The stage whose work this is: its settings, code and folder make its identity."""
        return self.fills or self

    def folder_name(self, options: Options) -> str:
        return self.name if self.folder is None else self.folder(options)

    def needed(self, options: Options) -> list[str]:
        """The stages that must have finished before this one runs with ``options``."""
        return list(self.inputs if self.only_needs is None else self.only_needs(options))
