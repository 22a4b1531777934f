"""The protocol between the stages and a backbone.

A backbone is a folder ``omni_mlflow/backbones/<id>/`` whose package holds an object ``BACKBONE`` that
fulfils :class:`Backbone`, and a contract ``contracts/<id>.yaml``. Model libraries are imported only
inside its functions, so that reading a contract stays fast. ``omni-mlflow scaffold`` begins one, and
``docs/add_a_backbone.md`` builds one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.contract import Section
from omni_mlflow.metrics.metric import Metric
from omni_mlflow.spine.modalities import Modality, ModelTarget
from omni_mlflow.spine.types import (
    Answer,
    Check,
    FittedOnTrain,
    LabelledSample,
    Row,
    Sample,
    Skip,
    Split,
    Target,
    Window,
)

PAGE = "docs/add_a_backbone.md"
"""Builds a small backbone, method by method."""

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Exported:
    """One window in a backbone's own terms.

    Attributes:
        arrays: the numeric part of the target by name (a chunk of actions, future features); for each name
            the same shape and type in every window. They lie beside the targets, and those of held-out
            windows are sealed with them.
    """

    sample: Sample
    target: Target
    arrays: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class SampleSet:
    """Labelled samples of train or val, in file order.

    Attributes:
        media_root: the folder that the media pointers of ``Sample.inputs`` start from.
        arrays: numeric targets by name, shape (rows, ...), memory-mapped: row k belongs to ``rows[k]``.
    """

    rows: Sequence[LabelledSample]
    media_root: Path
    arrays: Arrays = field(default_factory=dict)


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

        Rows hold no clock, so an interrupted and resumed training writes the same file. ``checkpoint`` is the
        last row of its step and comes before its state is saved: then all that a resume will not repeat is on
        the disk, and what the journals hold there is remembered with it.
        """

    def preparing(self, what: str, *, done: int, total: int) -> None:
        """Show a person at the terminal that long work goes on before the first step."""

    def consumed(self, sample_ids: Sequence[str], *, step: int) -> None:
        """Append to the training ledger which samples step ``step`` has really learned from.

        Every step from 1 to the last says so once; a ledger that lacks one is refused.
        """

    def measured(self, values: Mapping[str, float], *, step: int) -> None:
        """Record facts of this machine (seconds, data-wait share, bytes): to the tracker only."""

    def rewind(self, saved: Collection[int]) -> int:
        """Choose the state to go on from; asked once, before the first row. Who never asks begins again.

        Args:
            saved: steps whose state ``resume`` holds, in any order; nothing at a first start.

        Returns:
            The latest of them up to which the journals hold what they held when it was saved; rows after it
            are forgotten, for they are about to be repeated. 0 where there is none: begin again.
        """


class TrainingFacts(Row):
    """What ``training_metadata.json`` says beyond the shared facts; a backbone adds keys of its own.

    Attributes:
        base_model, base_revision: the weights that were fine-tuned, as others can find them.
    """

    base_model: str
    base_revision: str


class Predictor(Protocol):
    """A loaded checkpoint."""

    batch_size: int

    def answer(self, samples: Sequence[Sample]) -> list[Answer]:
        """Answer one batch of samples, in order. It is never given a target.

        Raises:
            Exception: the batch cannot be answered (out of memory, unreadable media); its samples are asked
                again one by one, and what raises then is recorded as a failure of the infrastructure.
        """


@dataclass(frozen=True)
class CheckpointUnderTest:
    """What a gate reads. It re-reads files and trusts no manifest alone.

    Attributes:
        folder: the checkpoint.
        settings: the contract's settings, already validated.
        canaries: a few validation samples with their targets; a checkpoint must change the base model's
            output on them, and what a generative model makes of them can be judged.
        fitted: fitted again on the train samples by the caller; the checkpoint's own must agree.
        out: folder for what the gate lets the checkpoint generate; sealed with its verdict.
    """

    folder: Path
    settings: Any
    canaries: SampleSet
    fitted: Any
    out: Path


Gate = Callable[[CheckpointUnderTest], list[Check]]


@dataclass(frozen=True)
class Exam:
    """Everything that scoring may look at, after all answers were given.

    Attributes:
        samples, targets: held-out samples and their truth, same order.
        answers: one per sample, same order.
        controls: answers to the same samples with one input exchanged or removed, by control name.
        fitted: what the checkpoint holds of :meth:`Backbone.fit`.
        arrays: numeric truth by name, shape (samples, ...), same order.
        generated: folder of the large things that answers name (:meth:`Backbone.load`).
        classes: every action label of the dataset, as declared before anything was answered.
        unasked: held-out episodes without any sample: how many windows were left out, by reason.
    """

    samples: Sequence[Sample]
    targets: Sequence[Target]
    answers: Sequence[Answer]
    controls: Mapping[str, Sequence[Answer]]
    fitted: Any
    arrays: Arrays
    generated: Path
    classes: Sequence[str]
    unasked: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Scores:
    """The result of an exam.

    Attributes:
        metrics: the content of ``metrics.json``. Of its keys shared code reads those named below, and writes
            ``outcomes``, ``label_ledger`` and ``asked_alone``; any other is the backbone's own.
        predictions: rows of the backbone's predictions file, one per sample, each with ``id``,
            ``episode_id``, ``split``, ``anchor`` and ``outcome``; those that answer label questions also
            with the published columns (``omni_mlflow.metrics.answers``). A metric that grades no question
            is compared between runs where each row holds its value under the name of the metric, null where
            the row has none, ``{"sum": s, "of": n}`` where it adds n values, and the metric is the mean of
            all values; else ``compare`` says what it lacks.
        tables: CSV files by name; every row of a table has the same keys.
        flattened: CSV files that hold the predictions, by name: what makes a row of such a table of one.
        documents: JSON files by name.
        headline: the few numbers that are compared in the tracker, by metric name. ``validate`` refuses one
            that ``metrics`` does not hold, under its name or, for ``<metric>_over_floor``, as the value of
            its ``difference`` to the hardest floor.

    What shared code reads of ``metrics``, and what happens without it:
        a metric's name: its value, here or in ``more``. A primary metric of the contract is a finite number
            or null with a reason, or ``evaluate`` refuses it; any other that is declared and has a number is
            in the reports as well.
        ``held_out_episode_count``: ``validate`` refuses it where it is not the number of episodes asked
            about. Reports count samples and episodes themselves and believe no key.
        ``more.reasons``: why a metric is null, by name; the reports tell each.
        ``intervals``: by metric ``low`` and ``high`` of its 95 % interval over episodes, both null with a
            single episode, or where no two differ and the metric's range has no end
            (:func:`omni_mlflow.metrics.score_rows.interval_row`). One of a metric without a value is
            refused; without one the report says *no interval*.
        ``baselines``: by metric the answers that need no model: ``floors`` (values), ``differences`` to each,
            ``best`` (the hardest to beat) and ``difference`` to that one, as
            :func:`omni_mlflow.metrics.score_rows.against` writes them. A difference is
            :func:`omni_mlflow.metrics.score_rows.difference_row`, above zero where the model is better, high
            values good or low ones. Without it a metric has no verdict. Where the contract asks no question,
            findings are about each metric that has it, and of a primary one without it they say that it
            has no floor.
        ``verdicts``: by question its ``verdict``, the ``metric`` it rests on and the ``floor``; they become
            tags, on held-out evidence alone. Without them there are no findings about questions.
        ``controls``: by control and metric ``value``, ``difference`` to the intact run, above zero where the
            answers got worse (intact minus control where high values are good, control minus intact where low
            ones are), and ``over_floor``, above zero where they are still better than the hardest floor, null
            without one. The report tells them for metrics with a verdict; where no question is asked, for
            every reported one;
            ``clusters.worth``: by metric ``samples``, ``effective_samples``, ``intraclass_correlation``;
            ``more.degenerate_questions``, ``more.closed_vocabulary_ceiling`` and
            ``more.num_off_taxonomy_predictions``: remarks about labels. Without them their part of the
            report is empty.
    """

    metrics: dict[str, Any]
    predictions: Sequence[dict[str, Any]]
    tables: dict[str, Sequence[dict[str, Any]]] = field(default_factory=dict)
    flattened: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    headline: dict[str, float] = field(default_factory=dict)


class Backbone(Protocol):
    """What the shared stages ask of a model family.

    Attributes:
        id: folder name and contract id.
        settings_type: the model of the contract's ``settings:`` block.
        fitted_type: the model of what :meth:`fit` returns, as ``fitted.json`` of a checkpoint holds it.
        shown: everything of an episode that reaches the model before the anchor, as it is or told in words; a
            contract names all of it among its inputs.
        targets: what samples hold to learn from beside the answers to questions; a contract names all of it.
        gates: checkpoint checks by the name a contract uses.
        metrics: every metric that ``score`` can report, by name.
        training_files, eval_files: names of every evidence file that training and scoring write.
        predictions_file: name of the predictions JSONL.
        controls: names of the input controls that :meth:`control` knows.
        stage_settings: for each stage, the blocks of ``settings:`` that shape its output; changing another
            block does not run the stage again. A stage that is not listed depends on all of them.
    """

    id: str
    settings_type: type[Section]
    fitted_type: type[FittedOnTrain]
    shown: frozenset[Modality]
    targets: frozenset[ModelTarget]
    gates: Mapping[str, Gate]
    metrics: Mapping[str, Metric]
    training_files: frozenset[str]
    eval_files: frozenset[str]
    predictions_file: str
    controls: tuple[str, ...]
    stage_settings: Mapping[str, tuple[str, ...]]

    def export(self, window: Window, *, media_root: Path, settings: Any) -> Exported | Skip:
        """Turn one neutral window into this model's sample, or say why it cannot be asked."""

    def fit(self, train: SampleSet, *, settings: Any) -> FittedOnTrain:
        """Learn from the train samples what is not a weight. Pure: the gate fits again and compares."""

    def train(
        self, train: SampleSet, val: SampleSet, *, fitted: Any, settings: Any, log: TrainingLog
    ) -> TrainingFacts:
        """Fine-tune and leave the checkpoint in ``log.checkpoint``; the caller adds ``fitted.json`` to it.

        Exact resume: when ``log.resume`` holds state, go on from it; the result is the same.
        """

    def load(self, checkpoint: Path, *, media_root: Path, settings: Any, generated: Path) -> Predictor:
        """Load a finished checkpoint for prediction.

        Args:
            generated: folder for what an answer generates and no row can hold, such as a video; the answer
                names it in ``values`` relative to this folder.
        """

    def answer_parts(self, checkpoint: Path, *, settings: Any) -> Mapping[str, str]:
        """Name what an answer depends on beside the checkpoint's bytes: base revision, prompt, decoding ...

        Returns:
            A digest or a short text by name. Answers whose parts differ never mix, and the name is told; what
            is no part may change between two halves of an evaluation.
        """

    def control(self, name: str, samples: Sequence[Sample]) -> list[Sample]:
        """Return the samples with the input that ``name`` stands for exchanged or removed, ids kept."""

    def score(self, exam: Exam, *, settings: Any) -> Scores:
        """Compare answers with targets. Pure: same exam, same scores."""

    def check_outputs(self, evaluation: Path, *, settings: Any) -> list[Check]:
        """Check what ``score`` left in the folder ``evaluation`` against itself: the gate's second look."""


@runtime_checkable
class ExportsEpisodes(Protocol):
    """A backbone that also writes its episodes whole, for tools of others; most do not.

    Attributes:
        episodes_folder: what it is called, beside the samples and their sealed targets.
    """

    episodes_folder: str

    def export_episodes(
        self,
        episodes: Mapping[Split, Sequence[Window]],
        *,
        media: Mapping[Split, Path],
        out: Mapping[Split, Path],
    ) -> None:
        """Write one folder for each split.

        Args:
            episodes: a window of every episode that has samples; splits without one are absent.
            media: the folder that pointers of each split's windows start from.
            out: the folder to write; that of test is sealed with the held-out targets.
        """


@runtime_checkable
class IsServed(Protocol):
    """A backbone whose registered checkpoints ``mlflow.pyfunc.load_model`` can load; most are not."""

    def describe_served(self, folder: Path, *, settings: Any) -> None:
        """Write beside the checkpoint's JSON files what loading needs, ``MLmodel`` among it; no weights."""


class NotBuiltYetError(Exception):
    """A scaffolded backbone was asked for something that nobody has built.

    Args:
        method: of :class:`Backbone`; the protocol's own words say what it must return.
    """

    def __init__(self, backbone: str, method: Any) -> None:
        says = (method.__doc__ or "").partition("\n")[0]
        super().__init__(
            f"backbone {backbone!r}: {method.__name__!r} is not built yet. It must return "
            f"{method.__annotations__['return']}: {says} {PAGE} shows how, under {method.__name__!r}"
        )
