"""Open finished evaluations of the tracking store or of a workspace; none is believed before it is judged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omni_mlflow.contract import Contract
from omni_mlflow.leftovers import key_of
from omni_mlflow.logged_files import LoggedFiles
from omni_mlflow.logged_settings import judge_settings
from omni_mlflow.metrics.answers import PredictionRow
from omni_mlflow.metrics.metric import Metric
from omni_mlflow.metrics.metrics_file import HELD_OUT_EPISODE_COUNT
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.registry import Bound, bind
from omni_mlflow.shown_values import judge_shown
from omni_mlflow.spine.rows import digest_of, read_document, read_rows
from omni_mlflow.spine.types import Check, Skip, broken
from omni_mlflow.stages import FILLS, OF_ONE_BACKBONE, STAGES
from omni_mlflow.stages.evaluation_facts import EvaluationFacts
from omni_mlflow.stages.manifests import CONTRACT, FITTED, TEST_TARGETS
from omni_mlflow.stages.run_under_test import RunUnderTest
from omni_mlflow.stages.seal_ledger import FACTS, opening_is_recorded
from omni_mlflow.stages.validate import stages_of
from omni_mlflow.stages.validation_rules import judge
from omni_mlflow.tracking import ShownRun, fetch_stages, find_run
from omni_mlflow.workspace import Workspace

_SKIPPED = "skipped_windows.jsonl"
_MOST_TOLD = 5
TRAINING_SEED = ("training", "seed")


class NotComparableError(Exception):
    """Runs that were named cannot be held against each other; every reason is in the message."""


@dataclass(frozen=True)
class EvaluatedRun:
    """One evaluation that was judged sound.

    Attributes:
        given: the run id, or the folder of the backbone.
        run_id: in the tracking store; None for a workspace.
        key: of the run in the journals.
        asked: the questions of its contract.
        training: its ``training_metadata.json``.
        skipped: by window, why its export made no sample of it.
        primary: the metrics that its contract names.
        kinds: the metrics of its backbone, but for the count of held-out episodes.
        metrics: its ``metrics.json``.
        targets: digest of the sealed targets that it was scored against.
        best_floors: by metric, the answer without a model that the evaluation held it against.
        priors: what its train samples answer, for those floors; None where the backbone fits something else.
    """

    given: str
    run_id: str | None
    key: str
    backbone: str
    asked: tuple[str, ...]
    facts: EvaluationFacts
    training: Mapping[str, Any]
    predictions: Sequence[PredictionRow]
    skipped: Mapping[str, str]
    primary: Sequence[str]
    kinds: Mapping[str, Metric]
    metrics: Mapping[str, Any]
    targets: str
    best_floors: Mapping[str, str]
    priors: TrainPriors | None

    @property
    def shown(self) -> str:
        """How a page names it: by run id, or by workspace and backbone; no path of a machine."""
        return self.run_id or "/".join(Path(self.given).parts[-2:])

    @property
    def seed(self) -> Any:
        block, name = TRAINING_SEED
        return self.training["settings"].get(block, {}).get(name)

    @property
    def settings_but_seed(self) -> dict[str, Any]:
        block, name = TRAINING_SEED
        settings = dict(self.training["settings"])
        if block in settings:
            settings[block] = {key: value for key, value in settings[block].items() if key != name}
        return settings


def open_run(given: str, *, store: str) -> Iterator[EvaluatedRun]:
    """Yield the evaluation of a run of the store, or every evaluation of a workspace or a backbone's folder.

    Raises:
        NotComparableError: there is no such run, it is not finished, or the validator refuses it.
        ContractError: no code stands (any more) behind the contract that it was made with.
    """
    folder = Path(given)
    if not folder.is_dir():
        yield _of_store(given, store=store)
        return
    here = sorted(path.parent.parent for path in folder.glob("*/evaluate/seal.json"))
    backbones = [folder] if (folder / "evaluate").is_dir() else here
    if not backbones:
        raise NotComparableError(
            f"{given} holds no finished evaluation; name a workspace, a backbone's folder in it or a run id"
        )
    for each in backbones:
        yield _of_workspace(each.resolve())


def _of_store(run_id: str, *, store: str) -> EvaluatedRun:
    found = find_run(store, run_id)
    if found is None:
        raise NotComparableError(f"{run_id} is neither a folder nor a run of the tracking store")
    if found.status != "FINISHED":
        raise NotComparableError(
            f"run {run_id} is {found.status}; only a finished run can be compared: finish it, or name its "
            "evaluate run"
        )
    stages = stages_of("eval")
    with TemporaryDirectory(prefix="omni-mlflow-") as scratch:
        fetched = fetch_stages(
            store,
            run_id,
            stages=stages,
            fills=FILLS,
            of_one_backbone=OF_ONE_BACKBONE,
            backbone=found.backbone,
            into=Path(scratch),
        )
        return _judged(
            run_id, found.key, fetched.folders, fetched.checks, logged=fetched.logged, shown=fetched.shown
        )


def _of_workspace(folder: Path) -> EvaluatedRun:
    backbone = folder.name
    workspace = Workspace(folder.parent)
    stages = {
        name: workspace.stage(name, backbone=backbone if STAGES[name].per_backbone else None)
        for name in stages_of("eval")
    }
    checks = [check for stage in stages.values() for check in stage.examine()[1]]
    folders = {name: stage.path for name, stage in stages.items()}
    if broken(checks):
        _refuse(str(folder), broken(checks))
    evaluation = json.loads((folders["evaluate"] / FACTS).read_text(encoding="utf-8"))
    if unfounded := broken([opening_is_recorded(workspace, evaluation)]):
        _refuse(str(folder), unfounded)
    key = key_of(stages["evaluate"].path)
    return _judged(str(folder), key, folders, checks, logged=None, shown=())


def _bound(given: str, evaluation: Path | None) -> Bound:
    """Bind the contract that the evaluation was made with, profile and changes included.

    Raises:
        NotComparableError: it holds none, or another one than it says.
    """
    if evaluation is None or not (evaluation / CONTRACT).is_file():
        raise NotComparableError(
            f"{given} is not validated as an evaluation: it holds no {CONTRACT}, which says what it was made "
            "with; run 'evaluate' again"
        )
    contract = read_document(evaluation / CONTRACT, Contract)
    wanted = read_document(evaluation / "evaluation.json", EvaluationFacts).contract_digest
    if contract.digest != wanted:
        raise NotComparableError(
            f"{given} was made with contract {wanted[:16]}, but its {CONTRACT} is {contract.digest[:16]}; "
            "put that file back or run 'evaluate' again"
        )
    return bind(contract)


def _judged(
    given: str,
    key: str,
    folders: Mapping[str, Path],
    checks: Sequence[Check],
    *,
    logged: Mapping[str, LoggedFiles] | None,
    shown: Sequence[ShownRun],
) -> EvaluatedRun:
    bound = _bound(given, folders.get("evaluate"))
    under_test = RunUnderTest(folders, bound.contract, bound.backbone, bound.settings, logged=logged)
    made_under = judge_settings(under_test, "eval")
    failed = broken(
        [*checks, *made_under, *judge(under_test, "eval"), *judge_shown(under_test, shown, "eval")]
    )
    if failed:
        _refuse(given, failed)
    metrics = under_test.json("evaluate", "metrics.json")
    fitted = folders["train"] / "checkpoint" / FITTED
    return EvaluatedRun(
        given=given,
        run_id=None if logged is None else given,
        key=key,
        backbone=bound.contract.id,
        asked=bound.contract.questions.asked,
        facts=read_document(folders["evaluate"] / "evaluation.json", EvaluationFacts),
        training=under_test.json("train", "training_metadata.json"),
        predictions=under_test.rows("evaluate", bound.backbone.predictions_file),
        skipped=_reasons(folders["export"] / _SKIPPED),
        primary=bound.contract.primary_metrics,
        kinds={name: kind for name, kind in bound.backbone.metrics.items() if name != HELD_OUT_EPISODE_COUNT},
        metrics=metrics,
        targets=_targets(under_test.json("export", "dataset_manifest.json")),
        best_floors={
            metric: baseline["best"] for metric, baseline in metrics.get("baselines", {}).items() if baseline
        },
        priors=read_document(fitted, TrainPriors)
        if issubclass(bound.backbone.fitted_type, TrainPriors) and fitted.is_file()
        else None,
    )


def _targets(dataset: Mapping[str, Any]) -> str:
    stem = TEST_TARGETS.removesuffix("jsonl")
    sealed = {name: digest for name, digest in dataset["files"].items() if name.startswith(stem)}
    return digest_of(dict(sorted(sealed.items())))


def _reasons(skipped: Path) -> dict[str, str]:
    return {skip.subject: skip.reason for skip in read_rows(skipped, Skip)} if skipped.is_file() else {}


def _refuse(given: str, failed: Sequence[Check]) -> None:
    told = "; ".join(
        f"{each.rule} ({each.subject}): expected {each.expected}, found {each.found}"
        for each in failed[:_MOST_TOLD]
    )
    more = f"; and {len(failed) - _MOST_TOLD} more" if len(failed) > _MOST_TOLD else ""
    raise NotComparableError(
        f"{given} is not validated as an evaluation, {len(failed)} rule(s) broken: {told}{more}; "
        "omni-mlflow validate lists them all"
    )
