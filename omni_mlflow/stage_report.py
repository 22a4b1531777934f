"""What becomes of a stage's report: shown, checked, and only then sealed."""

from __future__ import annotations

from collections.abc import Mapping

from omni_mlflow.record import RunRecord
from omni_mlflow.spine.evidence import Evidence
from omni_mlflow.spine.rows import write_rows
from omni_mlflow.spine.types import Check
from omni_mlflow.stages.base import Report
from omni_mlflow.workspace import Seal, StageFolder


class RulesBrokenError(Exception):
    """A stage did its work and found that rules do not hold; each of them is listed."""

    def __init__(self, title: str, failures: list[Check]) -> None:
        self.failures = failures
        shown = "; ".join(
            f"{check.rule} ({check.subject}): expected {check.expected}, found {check.found}"
            for check in failures[:20]
        )
        more = f"; and {len(failures) - 20} more" if len(failures) > 20 else ""
        super().__init__(f"{title}: {len(failures)} rule(s) broken: {shown}{more}")


class ConservationError(Exception):
    """A stage lost rows without saying why: in = out + skipped does not hold."""


def show(record: RunRecord, folder: StageFolder, report: Report, *, rows: str) -> None:
    """Write everything the tracker shall show; before any refusal, so a failing run has its evidence."""
    if report.skipped:
        skipped = folder.path / f"skipped_{rows}.jsonl"
        write_rows(skipped, report.skipped)
        record.artifacts([skipped])
    record.params(report.params)
    record.tags(report.tags)
    for dataset in report.datasets:
        record.dataset(dataset)
    counts = {"in": report.taken, "out": report.made, "skipped": len(report.skipped)}
    counted = {f"rows/{rows}_{key}": count for key, count in counts.items()} if report.taken else {}
    record.results({**counted, **report.metrics})
    for name, paths in report.artifacts.items():
        record.artifacts(paths, folder=name)


def inherited_tags(seals: Mapping[str, Seal]) -> dict[str, str]:
    """What is made from synthetic episodes is synthetic; no later stage can wash that off."""
    synthetic = any(seal.tags.get("omni.evidence") == Evidence.SYNTHETIC for seal in seals.values())
    return {"omni.evidence": Evidence.SYNTHETIC.value} if synthetic else {}


def check(folder: StageFolder, report: Report) -> None:
    """Refuse a report that breaks rules or lost rows.

    Raises:
        RulesBrokenError: listing every rule that does not hold.
        ConservationError: in = out + skipped does not hold.
    """
    if report.failures:
        raise RulesBrokenError(folder.title, list(report.failures))
    if report.taken != report.made + len(report.skipped):
        raise ConservationError(
            f"{folder.title} took {report.taken} rows, made {report.made} and explained "
            f"{len(report.skipped)} skipped ones; {report.taken - report.made - len(report.skipped)} "
            "are unaccounted for: this is a defect of the stage, please report it"
        )
