"""The protocol between the stages and a backbone.

A backbone is a folder ``omni_mlflow/backbones/<id>/`` whose package holds an object ``BACKBONE`` that
fulfils :class:`Backbone`, and a contract ``contracts/<id>.yaml``. Model libraries are imported only
inside its functions, so that reading a contract stays fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from omni_mlflow.contract import Section
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.types import Answer, Check, LabelledSample, Sample, Skip, Target, Window


@dataclass(frozen=True)
class SampleSet:
    """Labelled samples of train or val, in file order.

    Attributes:
        media_root: the folder that the media pointers of ``Sample.inputs`` start from.
    """

    rows: Sequence[LabelledSample]
    media_root: Path


class TrainingLog(Protocol):
    """Where a backbone's training reports and keeps its state. All of it survives ``kill -9``.

    Attributes:
        checkpoint: folder of the finished checkpoint.
        resume: folder for the state from which an interrupted training goes on; empty at a first start.
    """

    checkpoint: Path
    resume: Path

    def progress(self, event: str, *, step: int, **values: float | int | str) -> None:
        """Append one row to ``progress.jsonl``: ``step``, ``validation`` or ``checkpoint``.

        Rows hold no clock, so an interrupted and resumed training writes the same file.
        """

    def preparing(self, what: str, *, done: int, total: int) -> None:
        """Show a person at the terminal that long work goes on before the first step."""

    def consumed(self, sample_ids: Sequence[str], *, step: int) -> None:
        """Append to the training ledger which samples step ``step`` has really learned from."""

    def measured(self, values: Mapping[str, float], *, step: int) -> None:
        """Record facts of this machine (seconds, data-wait share, bytes): to the tracker only."""

    def rewind(self, *, step: int) -> None:
        """Forget progress and ledger rows of steps after ``step``: they are about to be repeated."""


class Predictor(Protocol):
    """A loaded checkpoint."""

    batch_size: int

    def answer(self, samples: Sequence[Sample]) -> list[Answer]:
        """Answer one batch of samples, in order. It is never given a target."""


@dataclass(frozen=True)
class CheckpointUnderTest:
    """What a gate reads. It re-reads files and trusts no manifest alone.

    Attributes:
        folder: the checkpoint.
        settings: the contract's settings, already validated.
        media_root: root of the media pointers of the canary samples.
        canaries: a few validation samples; a checkpoint must change the base model's output on them.
        priors: recomputed from the train samples by the caller.
    """

    folder: Path
    settings: Any
    media_root: Path
    canaries: Sequence[Sample]
    priors: TrainPriors


Gate = Callable[[CheckpointUnderTest], list[Check]]


@dataclass(frozen=True)
class Exam:
    """Everything that scoring may look at, after all answers were given.

    Attributes:
        samples, targets: held-out samples and their truth, same order.
        answers: one per sample, same order.
        controls: answers to the same samples with one input exchanged or removed, by control name.
        priors: what was fitted on the train episodes: label counts, next-given-current.
    """

    samples: Sequence[Sample]
    targets: Sequence[Target]
    answers: Sequence[Answer]
    controls: Mapping[str, Sequence[Answer]]
    priors: TrainPriors


@dataclass(frozen=True)
class Scores:
    """The result of an exam.

    Attributes:
        metrics: the content of ``metrics.json``.
        predictions: rows of the backbone's predictions file, one per sample.
        tables: CSV files by name; every row of a table has the same keys.
        headline: the few numbers that are compared in the tracker, by metric name.
    """

    metrics: dict[str, Any]
    predictions: list[dict[str, Any]]
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    headline: dict[str, float] = field(default_factory=dict)


class Backbone(Protocol):
    """What the shared stages ask of a model family.

    Attributes:
        id: folder name and contract id.
        settings_type: the model of the contract's ``settings:`` block.
        gates: checkpoint checks by the name a contract uses.
        metrics: names of every metric that ``score`` can report.
        training_files, eval_files: names of every evidence file that training and scoring write.
        predictions_file: name of the predictions JSONL.
        controls: names of the input controls that :meth:`control` knows.
        stage_settings: for each stage, the blocks of ``settings:`` that shape its output; changing another
            block does not run the stage again. A stage that is not listed depends on all of them.
        stage_modules: for each stage, the modules of this package that shape its output; a stage that is
            not listed depends on the whole package.
    """

    id: str
    settings_type: type[Section]
    gates: Mapping[str, Gate]
    metrics: frozenset[str]
    training_files: frozenset[str]
    eval_files: frozenset[str]
    predictions_file: str
    controls: tuple[str, ...]
    stage_settings: Mapping[str, tuple[str, ...]]
    stage_modules: Mapping[str, tuple[str, ...]]

    def export(self, window: Window, *, media_root: Path, settings: Any) -> tuple[Sample, Target] | Skip:
        """Turn one neutral window into this model's sample, or say why it cannot be asked."""

    def train(
        self, train: SampleSet, val: SampleSet, *, priors: TrainPriors, settings: Any, log: TrainingLog
    ) -> dict[str, Any]:
        """Fine-tune, leave the checkpoint in ``log.checkpoint``, return facts for ``training_metadata.json``.

        Exact resume: when ``log.resume`` holds state, go on from it; the result is the same.
        """

    def load(self, checkpoint: Path, *, media_root: Path, settings: Any) -> Predictor:
        """Load a finished checkpoint for prediction."""

    def control(self, name: str, samples: Sequence[Sample]) -> list[Sample]:
        """Return the samples with the input that ``name`` stands for exchanged or removed, ids kept."""

    def score(self, exam: Exam, *, settings: Any) -> Scores:
        """Compare answers with targets. Pure: same exam, same scores."""


class UnknownBackboneError(Exception):
    """There is no backbone of that name."""
