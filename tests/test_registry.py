"""The registry: the specification's three contracts, complete and checked before anything runs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from omni_mlflow.contract_file import load_contract
from tests.conftest import PROJECT

PUBLISHED = PROJECT.parent / "shared" / "reference" / "backbone_configs"
SPECIFIED = ("cosmos_world_model", "policy_vla_branch", "qwen3_omni_lora")


def published(backbone: str) -> dict:
    path = PUBLISHED / f"{backbone}.json"
    if not path.is_file():
        pytest.skip(f"the published contracts are not at {PUBLISHED}")
    return json.loads(path.read_text())


def contract_of(backbone: str) -> Path:
    return PROJECT / "contracts" / f"{backbone}.yaml"


@pytest.mark.parametrize("backbone", SPECIFIED)
def test_a_contract_asks_for_the_published_evidence(backbone):
    wanted, contract = published(backbone), load_contract(contract_of(backbone))
    files, wanted_files = contract.artifact_contract, wanted["artifact_contract"]
    assert contract.primary_metrics == tuple(wanted["primary_metrics"])
    assert files.checkpoint_gate == wanted_files["checkpoint_gate"]
    assert files.required_eval_files == tuple(wanted_files["required_eval_files"])
    added = Counter(files.required_training_files) - Counter(wanted_files["required_training_files"])
    assert list(added) == (["scheduler_config.json"] if backbone == "cosmos_world_model" else [])
    assert set(wanted_files["required_training_files"]) <= set(files.required_training_files)
    for key in ("id", "display_name", "model_family", "local_model_env", "dataset_contract"):
        assert getattr(contract, key) == wanted[key]
    assert contract.training_objective == wanted["training_objective"]


def test_every_backbone_foretells_the_next_action():
    assert all("next_action" in load_contract(contract_of(each)).questions.foretell for each in SPECIFIED)


def test_the_world_model_sees_120_frames_and_foretells_60_as_the_specification_s_example():
    windows = load_contract(contract_of("cosmos_world_model")).windows
    assert windows.context_frames * windows.frame_grid == 120
    assert [scale.frames for scale in windows.scales] == [60]
