"""Was a stored run made under the contract that it is judged by? Each stage logged what of its own shaped it.

A contract may differ in what shapes nothing, such as the files that it requires: that is judged file by file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omni_mlflow.context import LOCAL_MODEL, contract_settings
from omni_mlflow.logged_files import OUTPUTS_NAME
from omni_mlflow.spine.types import Check
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.manifests import CONTRACT
from omni_mlflow.stages.run_under_test import RunUnderTest, check
from omni_mlflow.stages.validate import stages_of

_FACTS_OF_A_MACHINE = (LOCAL_MODEL, "installed_gates.")
"""What a seal holds as well: a folder with weights, and the code of gates that other packages add."""


def judge_settings(run: RunUnderTest, level: str) -> list[Check]:
    """Compare the settings that each stage logged with those that the contract gives it."""
    remedy = _remedy(run)
    return [
        _judge(run, stage, logged.settings, remedy=remedy)
        for stage in stages_of(level)
        if (logged := (run.logged or {}).get(stage)) is not None
    ]


def _judge(run: RunUnderTest, stage: str, logged: Mapping[str, Any] | None, *, remedy: str) -> Check:
    rule, wanted = "made_under_this_contract", "the settings that this contract gives it"
    if logged is None:
        told = "none, as an earlier omni-mlflow left it; judge the workspace it was made in instead"
        return check(rule, f"{stage}/{OUTPUTS_NAME}", wanted, told, ok=False)
    asked = _of_contract(contract_settings(STAGES[stage], run.contract, run.backbone))
    made = _of_contract(logged)
    keys = sorted(key for key in {*asked, *made} if asked.get(key) != made.get(key))
    if not keys:
        return check(rule, stage, wanted, "the same", ok=True)
    told = ", ".join(f"{key}={made.get(key)} (this contract: {asked.get(key)})" for key in keys)
    return check(rule, stage, wanted, f"{told}; {remedy}", ok=False)


def _of_contract(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if not key.startswith(_FACTS_OF_A_MACHINE)}


def _remedy(run: RunUnderTest) -> str:
    """What to do where the contract is another one, or the installed one of another version."""
    folder = run.folders.get("evaluate")
    if folder is not None and (folder / CONTRACT).is_file():
        return (
            f"if this is not meant, judge it by its own contract: download {CONTRACT} from the artifacts of "
            f"its evaluate run and give --contract {CONTRACT} --profile none, without --set and --sizes"
        )
    return "if this is not meant, give what it was made with: --contract, --profile, --set, --sizes"
