"""In = out + skipped holds at every stage, or the stage fails."""

from __future__ import annotations

import pytest

from omni_mlflow.spine.types import Check, Skip
from omni_mlflow.stage_report import ConservationError, RulesBrokenError, check
from omni_mlflow.stages.base import Report
from omni_mlflow.workspace import StageFolder

SKIP = Skip(subject="a__ep1", stage="index", reason="cut short")


@pytest.fixture
def folder(tmp_path):
    return StageFolder(tmp_path, "index", None)


@pytest.mark.parametrize(("taken", "made", "skipped"), [(3, 2, [SKIP]), (3, 3, []), (1, 0, [SKIP])])
def test_rows_that_add_up_pass(folder, taken, made, skipped):
    assert check(folder, Report(outputs=(), taken=taken, made=made, skipped=skipped)) is None


@pytest.mark.parametrize(
    ("taken", "made", "skipped", "unaccounted"),
    [(3, 1, [SKIP], 1), (3, 3, [SKIP], -1), (0, 1, [], -1), (2, 0, [], 2)],
)
def test_rows_that_vanish_or_appear_fail_the_stage(folder, taken, made, skipped, unaccounted):
    words = rf"index took {taken} rows, made {made} .*; {unaccounted} are unaccounted for"
    with pytest.raises(ConservationError, match=words):
        check(folder, Report(outputs=(), taken=taken, made=made, skipped=skipped))


def test_broken_rules_are_told_before_rows_are_counted(folder):
    broken = Check(rule="no_leak", subject="a/b", expected="nothing", found="a file", ok=False)
    with pytest.raises(RulesBrokenError, match=r"no_leak \(a/b\)"):
        check(folder, Report(outputs=(), failures=[broken], taken=2))
