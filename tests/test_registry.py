"""The registry: the specification's three contracts, complete and checked before anything runs."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from omni_mlflow import contract_validation
from omni_mlflow.__main__ import build
from omni_mlflow.contract import ContractError, contract_schema
from omni_mlflow.contract.file import load_contract
from omni_mlflow.contract.published import FORBIDDEN_BY_PHRASE, published_issues
from omni_mlflow.contract_validation import contracts_of_the_project, validate_contracts
from omni_mlflow.publication.detectors import DETECTORS
from omni_mlflow.registry import load_bound
from tests.conftest import PROJECT

SPECIFIED = ("cosmos_world_model", "policy_vla_branch", "qwen3_omni_lora")
PUBLISHED = PROJECT.parent / "shared" / "reference" / "backbone_configs"


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


def document_of(backbone: str) -> dict:
    return yaml.safe_load(contract_of(backbone).read_text())


def test_a_broken_file_hides_nothing_of_the_others(tmp_path):
    (tmp_path / "a.yaml").mkdir()
    (tmp_path / "b.yaml").write_text("id: [")
    shutil.copy(contract_of("policy_vla_branch"), tmp_path)
    found = {each.id: len(each.issues) for each in validate_contracts(tmp_path, only=None, bind_names=True)}
    assert found == {"a": 1, "b": 1, "policy_vla_branch": 0}


def test_a_contract_is_named_as_its_file_and_two_files_of_one_id_are_told(tmp_path):
    shutil.copy(contract_of("policy_vla_branch"), tmp_path)
    shutil.copy(contract_of("policy_vla_branch"), tmp_path / "copy.yaml")
    reports = {each.id: each.issues for each in validate_contracts(tmp_path, only=None, bind_names=True)}
    assert reports == {
        "copy": [
            "id 'policy_vla_branch' is not the name of its file, 'copy'",
            "id 'policy_vla_branch' is also the id of policy_vla_branch.yaml",
        ],
        "policy_vla_branch": ["id 'policy_vla_branch' is also the id of copy.yaml"],
    }


@pytest.mark.parametrize("missing", SPECIFIED)
def test_a_missing_contract_of_the_specification_is_told_by_name(tmp_path, missing):
    must_have = contracts_of_the_project()  # further backbones may lie beside those of the specification
    for backbone in must_have.keys() - {missing}:
        shutil.copy(contract_of(backbone), tmp_path)
    reports = validate_contracts(tmp_path, only=None, bind_names=True, must_have=must_have)
    [failed] = [report for report in reports if report.issues]
    assert (failed.id, failed.status) == (missing, "missing")
    assert f"{missing}.yaml is missing" in failed.issues[0]


def test_a_backbone_without_a_contract_and_a_contract_in_a_file_nobody_reads_are_told(tmp_path, monkeypatch):
    for backbone in SPECIFIED:
        shutil.copy(contract_of(backbone), tmp_path)
    (tmp_path / "policy_vla_branch.yaml").rename(tmp_path / "policy_vla_branch.yml")
    monkeypatch.setattr(contract_validation, "own_backbones", lambda: {"forgotten": "anywhere"})
    must_have = contracts_of_the_project()
    reports = validate_contracts(tmp_path, only=None, bind_names=True, must_have=must_have)
    issues = {report.id: report.issues for report in reports if report.issues}
    assert issues == {
        "forgotten": [
            f"{tmp_path / 'forgotten'}.yaml is missing: "
            "omni_mlflow/backbones/forgotten is a backbone without a contract"
        ],
        "policy_vla_branch": [
            "policy_vla_branch.yml: a contract is read from policy_vla_branch.yaml; rename it"
        ],
    }


@pytest.mark.parametrize(
    "place",
    [
        "display_name",
        "training_objective",
        "entrypoints",
        "modalities",
        "dataset_contract",
        "primary_metrics",
        "split_policy.leakage_guard",
        "artifact_contract.checkpoint_gate",
        "artifact_contract.public_package_allowed",
    ],
)
def test_a_published_contract_that_says_nothing_at_a_place_is_refused(place):
    document = published("qwen3_omni_lora")
    assert published_issues(document) == []
    *parents, last = place.split(".")
    block = document
    for key in parents:
        block = block[key]
    block[last] = {str: "", list: [], dict: {}}[type(block[last])]
    assert any(place in issue for issue in published_issues(document))


def test_the_project_s_own_folder_must_hold_all_three(tmp_path, monkeypatch):
    (tmp_path / "contracts").mkdir()
    for backbone in contracts_of_the_project().keys() - {"cosmos_world_model", "qwen3_omni_lora"}:
        shutil.copy(contract_of(backbone), tmp_path / "contracts")
    monkeypatch.setattr("omni_mlflow.__main__.PROJECT", tmp_path)
    done = CliRunner().invoke(build(), ["contracts", "--validate", "--json"])
    found = json.loads(done.stdout)
    assert done.exit_code == 1
    assert [row["id"] for row in found["backbones"] if row["status"] == "missing"] == [
        "cosmos_world_model",
        "qwen3_omni_lora",
    ]


@pytest.mark.parametrize("backbone", SPECIFIED)
def test_a_published_contract_is_held_to_the_same_evidence_by_its_form_only(tmp_path, backbone):
    document = published(backbone)
    path = tmp_path / f"{backbone}.json"
    path.write_text(json.dumps(document))
    [report] = validate_contracts(tmp_path, only=None, bind_names=True)
    assert (report.checked, report.issues) == ("published form only", [])
    document["artifact_contract"]["public_package_forbidden"].remove("raw MP4")
    document["artifact_contract"]["required_training_files"].remove("progress.jsonl")
    document["modality"] = document.pop("modalities")
    path.write_text(json.dumps(document))
    [report] = validate_contracts(tmp_path, only=None, bind_names=True)
    assert "unknown key 'modality'; did you mean 'modalities'?" in report.issues
    assert {issue.partition(":")[0] for issue in report.issues} >= {"forbids_raw_video", "progress_log"}


@pytest.mark.parametrize("backbone", SPECIFIED)
def test_what_a_published_phrase_forbids_our_contract_forbids_by_category(backbone):
    ours = load_contract(contract_of(backbone)).artifact_contract.public_package_forbidden
    for phrase in published(backbone)["artifact_contract"]["public_package_forbidden"]:
        assert set(FORBIDDEN_BY_PHRASE[phrase]) <= set(ours)


def test_every_category_that_a_phrase_stands_for_has_a_detector():
    assert {name for names in FORBIDDEN_BY_PHRASE.values() for name in names} <= set(DETECTORS)


def test_a_policy_names_the_six_kinds_of_target_of_the_specification():
    assert load_contract(contract_of("policy_vla_branch")).modalities.candidate_targets == (
        "action_class",
        "next_action",
        "hand_trajectory",
        "contact_event",
        "retargeted_humanoid_action",
        "robot_action_token",
    )


def test_the_schema_beside_the_contracts_is_the_one_that_the_code_makes_and_fits_them():
    text = (PROJECT / "contracts" / "schema.json").read_text()
    assert text == contract_schema() == CliRunner().invoke(build(), ["contracts", "--schema"]).stdout
    for backbone in SPECIFIED:
        jsonschema.validate(document_of(backbone), json.loads(text))
        first = contract_of(backbone).read_text().partition("\n")[0]
        assert first == "# yaml-language-server: $schema=schema.json"


def test_a_planned_backbone_is_refused_as_planned_before_anything_runs():
    with pytest.raises(ContractError, match="'cosmos_world_model' is planned: it has no code"):
        load_bound(contract_of("cosmos_world_model"), profile="demo", changes={})


def test_people_get_a_table_and_one_backbone_can_be_asked_for():
    done = CliRunner().invoke(build(), ["contracts", "--validate", "--backbone", "cosmos_world_model"])
    assert done.exit_code == 0
    assert re.search(r"ok +cosmos_world_model +planned_adapter +form only +none", done.stdout)
    assert "qwen3_omni_lora" not in done.stdout


def test_an_unknown_backbone_names_the_nearest():
    with pytest.raises(ContractError, match=r"no contract 'policy_vla' in .* 'policy_vla_branch'\?"):
        validate_contracts(PROJECT / "contracts", only="policy_vla", bind_names=False)


def test_the_readme_shows_each_backbone_with_the_status_of_its_contract():
    readme = (PROJECT / "README.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (implemented|planned adapter) \|", readme, re.MULTILINE))
    assert rows == {each: load_contract(contract_of(each)).status.replace("_", " ") for each in SPECIFIED}
