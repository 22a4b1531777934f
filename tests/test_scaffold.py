"""A new backbone begins with one command, and the page about it can be followed as it stands."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from omni_mlflow import __main__ as command_line
from omni_mlflow import registry
from omni_mlflow.backbones.base import Backbone, NotBuiltYetError
from omni_mlflow.contract import ContractError
from omni_mlflow.contract.file import load_contract
from omni_mlflow.contract_validation import validate_contracts
from omni_mlflow.scaffold import (
    NewBackbone,
    ScaffoldError,
    contract_text,
    package_text,
    planned_files,
    write_all,
)
from tests import page
from tests.conftest import PROJECT, TRIVIAL

SPECIFIED = {
    "--template-backbone": "policy_vla_branch",
    "--id": "new_policy_branch",
    "--display-name": "New Policy Branch",
    "--model-family": "Model family name",
    "--dataset-contract": "xperience10m_observation_action_v1",
    "--training-objective": "observation_to_action_policy",
    "--checkpoint-gate": "policy_checkpoint_action_space_and_normalizer",
}
"""The command of the specification."""
TEMPLATES = ("policy_vla_branch", "cosmos_world_model", "qwen3_omni_lora")
CONTRACT, PACKAGE = "contracts/new_policy_branch.yaml", "omni_mlflow/backbones/new_policy_branch/__init__.py"


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """The three contracts of the specification, and no further one, in a folder that may be written to."""
    (tmp_path / "contracts").mkdir()
    for template in TEMPLATES:
        shutil.copy(PROJECT / "contracts" / f"{template}.yaml", tmp_path / "contracts")
    monkeypatch.setattr(command_line, "PROJECT", tmp_path)
    return tmp_path


def words_of(options: dict[str, str]) -> list[str]:
    return [word for pair in options.items() for word in pair]


def scaffold(*flags: str, **changed: str):
    return CliRunner().invoke(command_line.build(), ["scaffold", *words_of(SPECIFIED | changed), *flags])


def new(**changed: str) -> NewBackbone:
    fields = {key.removeprefix("--").replace("-", "_"): value for key, value in SPECIFIED.items()}
    fields["template"] = fields.pop("template_backbone")
    return NewBackbone(**{"status": "planned_adapter", **fields, **changed})


def files_of(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder but caches, by its path."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


def test_the_command_of_the_specification_writes_a_contract_and_a_package(project):
    before = files_of(project)
    told = scaffold("--json")
    assert json.loads(told.stdout) == {
        "id": "new_policy_branch",
        "status": "planned_adapter",
        "dry_run": False,
        "files": [PACKAGE, CONTRACT],
    }
    assert files_of(project).keys() - before.keys() == {PACKAGE, CONTRACT}


def test_a_dry_run_names_the_same_files_and_writes_none(project):
    before = files_of(project)
    assert scaffold("--dry-run").stdout.split("\n")[:2] == [
        f"would write {PACKAGE}",
        f"would write {CONTRACT}",
    ]
    assert files_of(project) == before


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_new_contract_is_valid_at_once_whatever_it_was_made_from(project, template):
    assert scaffold(**{"--template-backbone": template}).exit_code == 0
    [report] = validate_contracts(project / "contracts", only="new_policy_branch", bind_names=True)
    assert (report.status, report.issues) == ("planned_adapter", [])


def test_only_the_named_fields_differ_from_the_template_and_comments_stay(project):
    template = (project / "contracts/policy_vla_branch.yaml").read_text().splitlines()
    made = contract_text("\n".join(template), new()).splitlines()
    assert {line for line in made if line not in template} == {
        "id: new_policy_branch",
        "display_name: New Policy Branch",
        "status: planned_adapter",
        "model_family: Model family name",
        "dataset_contract: xperience10m_observation_action_v1",
        "training_objective: observation_to_action_policy",
    }
    assert len(made) == len(template)
    assert sum("#" in line for line in made) == sum("#" in line for line in template) > 3


@pytest.mark.parametrize(
    "name",
    ["A: B # c", "yes", "'single' and \"double\"", "two\nlines", "12", "Grüße", "{a: b}", "- x", "null"],
)
def test_a_text_is_kept_as_it_was_typed_whatever_yaml_makes_of_such_letters(project, name):
    template = (project / "contracts/qwen3_omni_lora.yaml").read_text()
    made = yaml.safe_load(contract_text(template, new(display_name=name, model_family=name)))
    assert (made["display_name"], made["model_family"]) == (name, name)


@pytest.fixture
def stub(tmp_path):
    path = tmp_path / "stub.py"
    path.write_text(package_text("new_policy_branch"))
    spec = importlib.util.spec_from_file_location("stub", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BACKBONE


@pytest.mark.parametrize(
    "name", ["export", "fit", "train", "load", "answer_parts", "control", "score", "check_outputs"]
)
def test_each_method_says_that_it_is_not_built_what_it_must_return_and_where_to_read(stub, name):
    arguments = {"train": 2, "control": 2}  # of all others it is one
    keywords = {
        "export": ("media_root", "settings"),
        "train": ("fitted", "settings", "log"),
        "load": ("media_root", "settings", "generated"),
        "control": (),
    }.get(name, ("settings",))
    with pytest.raises(NotBuiltYetError) as told:
        getattr(stub, name)(*[None] * arguments.get(name, 1), **dict.fromkeys(keywords))
    returns = getattr(Backbone, name).__annotations__["return"]
    assert f"'new_policy_branch': '{name}' is not built yet. It must return {returns}: " in str(told.value)
    assert f"docs/add_a_backbone.md shows how, under '{name}'" in str(told.value)
    assert f"### `{name}`" in page.text()


def test_an_implemented_contract_above_a_scaffold_lists_each_method_to_build_once_and_nothing_else(
    project, stub, monkeypatch
):
    assert scaffold().exit_code == 0
    text = (project / CONTRACT).read_text().replace("status: planned_adapter", "status: implemented")
    (project / CONTRACT).write_text(text)
    monkeypatch.setattr(registry, "load_backbone", lambda _: stub)
    methods = [name for name in vars(Backbone) if callable(getattr(Backbone, name)) and name[0] != "_"]
    [report] = validate_contracts(project / "contracts", only="new_policy_branch", bind_names=True)
    assert [issue.partition(". ")[0] for issue in report.issues] == [
        f"backbone 'new_policy_branch': {name!r} is not built yet" for name in methods
    ]
    with pytest.raises(ContractError, match="'export' is not built yet") as told:
        registry.load_bound(project / CONTRACT, profile=None, changes={})
    assert list(told.value.issues) == report.issues


def test_a_contract_whose_backbone_is_built_is_a_template_too(project):
    """It has no extension requirements any more; a planned contract must have some."""
    built = (project / "contracts/qwen3_omni_lora.yaml").read_text() + "\nextension_requirements: []\n"
    (project / "contracts/qwen3_omni_lora.yaml").write_text(built)
    done = scaffold(**{"--template-backbone": "qwen3_omni_lora"})
    assert done.exit_code == 0, done.exception
    asked = yaml.safe_load((project / CONTRACT).read_text())["extension_requirements"]
    assert asked == ["Build every method as docs/add_a_backbone.md says."]


def test_finished_code_under_a_planned_contract_is_not_run(project):
    path = project / "contracts/qwen3_omni_lora.yaml"
    text = path.read_text().replace("status: implemented", "status: planned_adapter")
    path.write_text(text + "\nextension_requirements: [finish it]\n")
    with pytest.raises(ContractError, match="its status is planned_adapter; make it implemented"):
        registry.load_bound(path, profile=None, changes={})


def test_the_package_is_clean_code(tmp_path):
    path = tmp_path / "omni_mlflow/backbones/new_policy_branch/__init__.py"
    path.parent.mkdir(parents=True)
    path.write_text(package_text("new_policy_branch"))
    assert_clean(path)


def assert_clean(path: Path) -> None:
    ruff = [Path(sys.executable).parent / "ruff"]
    config = ["--config", PROJECT / "pyproject.toml", "--no-cache", path]
    for verb in (["check", "--ignore", "ARG002"], ["format", "--check"]):
        done = subprocess.run([*ruff, *verb, *config], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_an_existing_file_is_refused_by_name_and_overwritten_only_when_told(project):
    assert scaffold().exit_code == 0
    mine = (project / CONTRACT).read_text().replace("New Policy Branch", "mine")
    (project / CONTRACT).write_text(mine)
    (project / PACKAGE).unlink()
    refused = scaffold()
    assert isinstance(refused.exception, ScaffoldError)
    assert str(refused.exception) == f"already there: {project / CONTRACT}; --overwrite replaces them"
    assert isinstance(scaffold("--dry-run").exception, ScaffoldError)
    assert (project / CONTRACT).read_text() == mine
    assert not (project / PACKAGE).exists()
    assert scaffold("--overwrite").exit_code == 0
    assert load_contract(project / CONTRACT).display_name == "New Policy Branch"
    assert (project / PACKAGE).is_file()


@pytest.mark.parametrize("flags", [["--overwrite"], ["--overwrite", "--dry-run"], []])
def test_a_built_backbone_is_never_replaced_by_a_scaffold(project, flags):
    before = files_of(project)
    told = scaffold(*flags, **{"--id": "qwen3_omni_lora"}).exception
    assert isinstance(told, ScaffoldError)
    assert "qwen3_omni_lora.yaml has the status 'implemented'" in str(told)
    assert str(told).endswith("choose another --id, or move these files away first")
    assert files_of(project) == before


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (PACKAGE, '"""Somebody builds it."""\n', "__init__.py is no longer what a scaffold writes"),
        (PACKAGE.replace("__init__", "training"), "", "training.py is there"),
        (CONTRACT, "mine", "new_policy_branch.yaml has the status 'unreadable'"),
    ],
)
def test_a_scaffold_that_somebody_has_begun_to_build_is_not_overwritten(project, name, text, told):
    assert scaffold().exit_code == 0
    (project / name).write_text(text)
    refused = scaffold("--overwrite").exception
    assert isinstance(refused, ScaffoldError)
    assert told in str(refused)
    assert (project / name).read_text() == text


def test_where_one_file_cannot_be_written_none_is(tmp_path):
    first, second = tmp_path / "package" / "__init__.py", tmp_path / "no folder" / "contract.yaml"
    (tmp_path / "no folder").write_text("a file in the way")
    with pytest.raises(OSError, match="no folder"):
        write_all({first: "code", second: "contract"}, overwrite=False, dry_run=False)
    assert [path.name for path in tmp_path.iterdir()] == ["no folder"]
    first.parent.mkdir()
    first.write_text("mine")
    with pytest.raises(OSError, match="no folder"):
        write_all({first: "code", second: "contract"}, overwrite=True, dry_run=False)
    assert first.read_text() == "mine"


@pytest.mark.parametrize("name", ["New", "1st", "with-dash", "", "class", "a b", "../up", "é", "_x"])
def test_an_id_that_cannot_name_a_package_is_refused(project, name):
    with pytest.raises(ScaffoldError, match="cannot name a Python package"):
        planned_files(new(id=name), project=project)


@pytest.mark.parametrize(
    "name", ["base", "label_answers", "index", "train", "runs", "superseded", "main", "none"]
)
def test_an_id_that_means_something_else_here_is_refused(project, name):
    with pytest.raises(ScaffoldError, match=f"--id '{name}' means something else here already"):
        planned_files(new(id=name), project=project)


def test_an_unknown_template_is_answered_with_the_nearest_one(project):
    with pytest.raises(
        ContractError, match=r"policy_vla_brnch.yaml: no such.*did you mean 'policy_vla_branch'"
    ):
        planned_files(new(template="policy_vla_brnch"), project=project)


def test_what_nobody_has_built_cannot_be_called_implemented(project):
    with pytest.raises(ScaffoldError, match="nobody has built the backbone 'never_built'"):
        planned_files(new(id="never_built", status="implemented"), project=project)


def test_of_a_backbone_that_a_package_provides_only_the_contract_is_written(project, monkeypatch):
    monkeypatch.syspath_prepend(str(TRIVIAL))
    assert list(planned_files(new(id="trivial"), project=project)) == [project / "contracts/trivial.yaml"]
    told = r"would not be valid: .*unknown metric 'trajectory_mpjpe'.*; with --status planned_adapter it is"
    with pytest.raises(ScaffoldError, match=told):
        planned_files(new(id="trivial", status="implemented"), project=project)
    shutil.copy(TRIVIAL / "trivial.yaml", project / "contracts/own.yaml")
    text = (project / "contracts/own.yaml").read_text().replace("id: trivial", "id: own")
    (project / "contracts/own.yaml").write_text(text)
    asked = new(template="own", id="trivial", status="implemented", checkpoint_gate="trivial_gate")
    assert list(planned_files(asked, project=project)) == [project / "contracts/trivial.yaml"]


# The page.


def test_every_command_of_the_page_is_understood_and_every_file_it_names_is_there():
    group = command_line.build()
    for program, *words in page.commands():
        if program == "omni-mlflow":
            group.commands[words[0]].make_context(words[0], words[1:])
        else:
            assert (program, words[:2]) == ("python", ["-m", "pytest"])
            assert (PROJECT / words[2]).is_file()
    assert page.CONTRACT in page.text()
    assert page.PACKAGE in page.text()
    for name in ("omni_mlflow/backbones/base.py", "omni_mlflow/backbones/qwen3_omni_lora"):
        assert name in page.text()
        assert (PROJECT / name).exists()


def test_the_code_of_the_page_is_clean_and_its_contract_binds_to_it(project):
    [words] = [words for words in page.commands() if words[1] == "scaffold"]
    assert CliRunner().invoke(command_line.build(), words[1:]).exit_code == 0
    page.apply(project)
    assert_clean(project / page.PACKAGE)
    contract = load_contract(project / page.CONTRACT)
    spec = importlib.util.spec_from_file_location("sensor_centroids", project / page.PACKAGE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["sensor_centroids"] = module
    spec.loader.exec_module(module)
    backbone = module.BACKBONE
    assert contract.status == "implemented"
    assert contract.id == backbone.id
    assert {*contract.primary_metrics} <= {*backbone.metrics}
    assert contract.artifact_contract.checkpoint_gate in backbone.gates
    backbone.settings_type.model_validate(contract.settings)


NOT_COPIED = shutil.ignore_patterns(
    ".git",
    ".venv",
    "workspace",
    "mlflow.db*",
    "mlruns",
    "mlartifacts",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "sensor_centroids*",  # of whoever has followed the page or the specification here already
    "new_policy_branch*",
)
READ_EVERY_CONTRACT = (
    "tests/publication/test_file_detectors.py",
    "tests/test_contract.py",
    "tests/test_registry.py",
    "tests/test_scaffold.py",
)
"""Tests of the default run that a further backbone in the project could break."""
MADE_BY_RUNS = ("workspace/", "mlflow.db", "mlartifacts/", ".pytest_cache/", ".hypothesis/", "mlruns/")


@pytest.mark.slow
def test_whoever_follows_the_page_has_a_backbone_that_passes_every_test_and_edits_no_other_file(tmp_path):
    project = tmp_path / "omni-mlflow"
    shutil.copytree(PROJECT, project, ignore=NOT_COPIED)
    before = files_of(project)
    scaffolded, *later = page.commands()
    follow(project, scaffolded)
    page.apply(project)
    follow(project, ["omni-mlflow", "scaffold", *words_of(SPECIFIED)])  # a planned backbone beside it
    for words in later:
        follow(project, words)
    follow(project, ["python", "-m", "pytest", *READ_EVERY_CONTRACT])
    after = files_of(project)
    touched = {name for name in after if after[name] != before.get(name)}
    made = {page.CONTRACT, page.PACKAGE, CONTRACT, PACKAGE}
    assert {name for name in touched if not name.startswith(MADE_BY_RUNS)} == made
    assert before.keys() <= after.keys()
    evaluation = project / "workspace/sensor_centroids/evaluate"
    report = (evaluation / "RUN_REPORT.md").read_text()
    assert report.startswith("SYNTHETIC DATA")
    [quoted] = page.blocks("text")
    for finding in quoted.splitlines():
        assert f"\n- {finding}\n" in report
    metrics = json.loads((evaluation / "metrics.json").read_text())
    assert {told["verdict"] for told in metrics["verdicts"].values()} == {None}
    assert metrics["baselines"]["contact_accuracy"]["difference"]["low"] > 0
    assert metrics["baselines"]["accuracy"]["difference"]["low"] <= 0
    assert metrics["controls"]["other_sensors"]["contact_accuracy"]["difference"]["low"] > 0
    assert metrics["subtask_accuracy"] is None
    [control] = re.findall(r"^\| other sensors \| Contact accuracy \|.*$", report, re.MULTILINE)
    value, reading = (control.split(" | ")[place].removesuffix(" |") for place in (3, -1))
    assert f"accuracy is {value}, which the report reads as *{reading}*" in " ".join(page.text().split())


def follow(project: Path, words: list[str]) -> None:
    """Run one command of the page in the copy of the project."""
    program = {"omni-mlflow": ["-m", "omni_mlflow"], "python": []}[words[0]]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, *program, *words[1:]],
        cwd=project,
        env={**environment, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
