"""A stage whose journals are cut at any byte, resumed, ends in the bytes of an undisturbed one."""

from __future__ import annotations

import io
import os
import random
import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console

from omni_mlflow import expectations
from omni_mlflow.console import TerminalBar
from omni_mlflow.context import Context, folder_of
from omni_mlflow.events import JOURNAL_NAME, Metrics, RunOutcome, read_events
from omni_mlflow.registry import load_bound
from omni_mlflow.shared_contract import shared_contract
from omni_mlflow.stage_report import RulesBrokenError
from omni_mlflow.stage_run import run_stage
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.base import Options
from omni_mlflow.stages.training_log import StageTrainingLog
from omni_mlflow.workspace import Workspace
from tests.conftest import PROJECT, TRIVIAL, Place

NUM_ASKED = 10  # two batches of the trivial predictor
KEPT_BY_A_KILL = {  # what a stage leaves that is killed when its last answer or step is written
    "train": ("progress.jsonl", "training_ledger.jsonl", JOURNAL_NAME, "resume", "resume_points.json"),
    "evaluate": ("progress.jsonl", "predictions.partial.jsonl", JOURNAL_NAME, ".look"),
    "guard": (JOURNAL_NAME,),  # begins again, as every stage does that keeps no rows
    "gate": (JOURNAL_NAME,),
}
CUT = [(stage, name) for stage, names in KEPT_BY_A_KILL.items() for name in names if name.endswith(".jsonl")]


class Killed(NamedTuple):
    """A stage that was killed late, what it would have made, and how to start it again."""

    context: Context
    stage: str
    folder: Path
    left: Path
    said: list[str]

    def resume(self, *, cut: str, at: int) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.left, self.folder)
        os.truncate(self.folder / cut, at)
        self.said.clear()
        self.run()

    def run(self) -> None:
        run_stage(STAGES[self.stage], self.context)


@pytest.fixture(scope="module")
def killed(tmp_path_factory, finished):
    """Return a function that prepares a killed stage; nothing waits for the disk, which no cut can show."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TRIVIAL))
        patch.setattr(os, "fsync", lambda _: None)
        check_once(patch)
        place = finished.copy(tmp_path_factory.mktemp("cut") / "copy")
        yield cache(lambda stage: kill(place, stage))


def check_once(patch: pytest.MonkeyPatch) -> None:
    """Great Expectations takes ten times as long as all else, so equal tables are checked once."""
    check, results = expectations.check_suite, {}

    def check_suite(path, frame, **given):
        key = (path, repr(frame), repr(given))
        return results.setdefault(key, results.get(key) or check(path, frame, **given))

    patch.setattr(expectations, "check_suite", check_suite)


def kill(place: Place, stage: str) -> Killed:
    said: list[str] = []
    bound = load_bound(TRIVIAL / "trivial.yaml", profile=None, changes={})
    options = Options(data_root=place.data_root, synthetic_root=place.root, limit=NUM_ASKED)
    context = Context(
        workspace=Workspace(place.workspace),
        bound=bound,
        shared=shared_contract([bound.contract]),
        options=options,
        bar=TerminalBar(Console(file=io.StringIO())),
        say=said.append,
        suites=PROJECT / "expectations",
        source={},
        outer=None,
    )
    folder = folder_of(STAGES[stage], context).path
    run_stage(STAGES[stage], context)
    left = place.root / f"left-by-{stage}"
    shutil.copytree(folder, left)
    for path in left.iterdir():
        if path.name not in KEPT_BY_A_KILL[stage]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(folder, place.root / f"undisturbed-{stage}")
    return Killed(context, stage, folder, left, said)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but those that hold clocks, and what was cut off."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in (JOURNAL_NAME, ".stat.json", ".look")
        and path.suffix != ".torn"
    }


def curves(folder: Path) -> Counter[tuple[str, int, float]]:
    """Points that a resumed stage shows again when its journal lost them; times belong to their process."""
    rows = [event for event in read_events(folder / JOURNAL_NAME) if isinstance(event, Metrics)]
    points = ((key, row.step, value) for row in rows for key, value in row.values.items())
    return Counter(point for point in points if not point[0].startswith("time/"))


def some_offsets(whole: bytes, *, seed: str) -> list[int]:
    """The borders of all rows, a byte before and after each, and some in the middle."""
    ends = [end + 1 for end, byte in enumerate(whole) if byte == ord("\n")]
    borders = {end + beside for end in (0, *ends) for beside in (-1, 0, 1)}
    chosen = random.Random(seed).sample(range(len(whole)), 20)
    return sorted(each for each in {*borders, *chosen} if 0 <= each <= len(whole))


def assert_every_cut_ends_the_same(killed: Killed, name: str, offsets) -> None:
    whole = (killed.left / name).read_bytes()
    undisturbed = killed.left.parent / f"undisturbed-{killed.stage}"
    expected, shown = contents(undisturbed), curves(undisturbed)
    for at in offsets:
        killed.resume(cut=name, at=at)
        assert contents(killed.folder) == expected, f"{name} cut at byte {at}"
        assert curves(killed.folder) == shown, f"{name} cut at byte {at}"
        torn = whole[:at].rpartition(b"\n")[2]
        kept = killed.folder / f"{name}.torn"
        if torn and (name != JOURNAL_NAME or b"omni.fingerprint" in whole[:at].rpartition(b"\n")[0]):
            assert kept.read_bytes() == torn + b"\n"
            [told] = [line for line in killed.said if str(kept) in line]
            assert f"{name} was left unfinished" in told
            assert f"{len(torn)} bytes" in told
        else:  # whole, or so short that nobody knows whose work it was: all of it is set aside
            assert not kept.exists()


@pytest.mark.parametrize(("stage", "name"), CUT)
def test_a_stage_cut_at_the_borders_of_its_rows_and_resumed_ends_byte_identical(killed, stage, name):
    whole = (killed(stage).left / name).read_bytes()
    assert_every_cut_ends_the_same(killed(stage), name, some_offsets(whole, seed=name))


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "name"), CUT)
def test_a_stage_cut_at_any_byte_and_resumed_ends_byte_identical(killed, stage, name):
    size = (killed(stage).left / name).stat().st_size
    assert_every_cut_ends_the_same(killed(stage), name, range(size + 1))


@pytest.mark.parametrize(("name", "rows"), [("training_ledger.jsonl", 5), ("progress.jsonl", 9)])
def test_a_training_whose_rows_are_lost_says_that_it_begins_again(killed, name, rows):
    """The one state that the trivial backbone keeps is of step 10, and neither file reaches so far."""
    stage = killed("train")
    lines = (stage.left / name).read_bytes().splitlines(keepends=True)
    stage.resume(cut=name, at=len(b"".join(lines[:rows])))
    [told] = [line for line in stage.said if "begins again" in line]
    assert told == (
        "trivial/train: progress.jsonl or training_ledger.jsonl no longer holds the rows that the "
        "checkpoint of step 10 builds on; training begins again"
    )


@pytest.mark.parametrize("told", [(), (3, 3)], ids=["a step is missing", "a step is told twice"])
def test_a_training_whose_ledger_does_not_hold_every_step_once_is_not_sealed(killed, monkeypatch, told):
    stage = killed("train")
    append = StageTrainingLog.consumed
    times = Counter(told)

    def consumed(log, sample_ids, *, step):
        for _ in range(times[step] if step == 3 else 1):
            append(log, sample_ids, step=step)

    monkeypatch.setattr(StageTrainingLog, "consumed", consumed)
    shutil.rmtree(stage.folder)
    with pytest.raises(RulesBrokenError, match="steps 1 to 12, each once and in order"):
        stage.run()
    assert not (stage.folder / "seal.json").exists()
    assert read_events(stage.folder / JOURNAL_NAME)[-1].outcome == RunOutcome.REFUSED
