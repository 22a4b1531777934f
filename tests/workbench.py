"""Stages of the trivial backbone, or of another, in this process, on a copy of a finished job."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import pytest
from rich.console import Console

from omni_mlflow.console import TerminalBar
from omni_mlflow.context import Context
from omni_mlflow.events import JOURNAL_NAME
from omni_mlflow.journal import Journal
from omni_mlflow.registry import load_bound
from omni_mlflow.shared_contract import shared_contract
from omni_mlflow.spine.types import Answer, Sample
from omni_mlflow.stage_run import Finished, run_stage
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.answering import AnswerJournal, answer_all
from omni_mlflow.stages.base import Options, Shard
from omni_mlflow.workspace import Workspace
from tests.conftest import PROJECT, TRIVIAL, Place

VOLATILE = (JOURNAL_NAME, ".stat.json", ".look")


class Workbench(NamedTuple):
    """Runs stages and remembers what they said."""

    place: Place
    said: list[str]
    contract: Path = TRIVIAL / "trivial.yaml"

    @property
    def backbone(self) -> Path:
        return self.place.workspace / self.contract.stem

    @property
    def evaluation(self) -> Path:
        return self.backbone / "evaluate"

    def run(self, stage: str, *, changes: dict[str, Any] | None = None, **options: Any) -> Finished:
        return run_stage(STAGES[stage], self.context(changes=changes, **options))

    def context(self, *, changes: dict[str, Any] | None = None, **options: Any) -> Context:
        bound = load_bound(self.contract, profile=None, changes=changes or {})
        return Context(
            workspace=Workspace(self.place.workspace),
            bound=bound,
            shared=shared_contract([bound.contract]),
            options=Options(data_root=self.place.data_root, synthetic_root=self.place.root, **options),
            bar=TerminalBar(Console(file=io.StringIO())),
            say=self.said.append,
            suites=PROJECT / "expectations",
            source={},
            outer=None,
        )

    def shard(self, offset: int, stride: int, **options: Any) -> Path:
        """Ask one shard, and return its folder."""
        return self.run("evaluate", shard=Shard(offset, stride), **options).folder

    def forget_evaluation(self) -> None:
        """As if it had never been: not even the look at the truths is remembered."""
        shutil.rmtree(self.evaluation)
        (self.place.workspace / "seal_ledger.jsonl").unlink(missing_ok=True)

    def openings(self) -> list[dict[str, Any]]:
        ledger = self.place.workspace / "seal_ledger.jsonl"
        lines = ledger.read_text().splitlines() if ledger.is_file() else []
        return [json.loads(line) for line in lines]


def answers_of(
    predictor: Any, samples: Sequence[Sample], path: Path, *, checkpoint: str = "one", max_retries: int = 0
) -> list[Answer]:
    """Ask a predictor what the journal at ``path`` does not hold yet."""
    with Journal(path) as rows:
        journal = AnswerJournal(rows, {"checkpoint": checkpoint}, batch_size=lambda: predictor.batch_size)
        return [
            *answer_all(
                journal,
                "intact",
                [each.id for each in samples],
                as_asked=lambda ids: [each for each in samples if each.id in ids],
                predictor=lambda: predictor,
                batch_size=journal.batch_size,
                on_batch=lambda _: None,
                max_retries=max_retries,
            )
        ]


@contextmanager
def edited_backbone(folder: Path, old: str, new: str) -> Iterator[None]:
    """As if somebody edited the module of the trivial backbone: the code that runs is the one it had."""
    import omni_trivial

    source = Path(omni_trivial.__file__).read_text()
    assert source.count(old) == 1
    edited = Path(mkdtemp(dir=folder)) / "__init__.py"  # a process reads a file once
    edited.write_text(source.replace(old, new))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(omni_trivial, "__file__", str(edited))
        yield


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a stage, its seal included, but those that hold clocks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in VOLATILE
    }
