"""A package of somebody else adds a backbone and gates, with nothing of this project edited."""

from __future__ import annotations

import json
import py_compile
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from rich.console import Console

from omni_mlflow import backbone_lookup
from omni_mlflow.__main__ import build
from omni_mlflow.backbone_lookup import load_backbone
from omni_mlflow.backbones.base import CheckpointUnderTest, SampleSet
from omni_mlflow.console import TerminalBar
from omni_mlflow.context import Context
from omni_mlflow.contract import ContractError
from omni_mlflow.gates import ENTRY_POINT_GROUP
from omni_mlflow.registry import binding_issues, load_bound
from omni_mlflow.spine.types import Check
from omni_mlflow.stage_report import RulesBrokenError
from omni_mlflow.stage_run import run_stage
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.base import Options
from omni_mlflow.stages.checkpoint_checks import ask_gates
from omni_mlflow.workspace import Workspace
from tests.conftest import PROJECT, TRIVIAL
from tests.test_scaffold import SPECIFIED

GATES = """
import os

from omni_mlflow.spine.types import Check


def answers_are_short(checkpoint):
    size = (checkpoint.folder / "model.json").stat().st_size
    return [Check(rule="answers_are_short", subject="model.json", expected="at most 1000 bytes",
                  found=f"{size} bytes", ok=size <= 1000)]


def stumbles(checkpoint):
    return [checkpoint.settings["no such key"]]


def looks_at_nothing(checkpoint):
    return []


def exits(checkpoint):
    raise SystemExit(0)


def rewrites(checkpoint):
    path = checkpoint.folder / "model.json"
    path.write_text(path.read_text().replace("{", "{ ", 1))
    (checkpoint.folder / "notes.txt").write_text("hello")
    (checkpoint.folder / "fitted.json").unlink()
    return answers_are_short(checkpoint)


def talks(checkpoint):
    print("hello from gate")
    os.write(1, b"hello from below\\n")
    return answers_are_short(checkpoint)


def takes_nothing():
    return []


not_a_function = 3
"""
BACKBONE = """
from omni_trivial import Trivial


class Visitor(Trivial):
    id = "visitor"


BACKBONE = Visitor()
"""
ENTRY_POINTS = f"""
[omni_mlflow.backbones]
visitor = omni_visitor

[{ENTRY_POINT_GROUP}]
answers_are_short = omni_visitor.gates:answers_are_short
stumbles = omni_visitor.gates:stumbles
looks_at_nothing = omni_visitor.gates:looks_at_nothing
exits = omni_visitor.gates:exits
rewrites = omni_visitor.gates:rewrites
talks = omni_visitor.gates:talks
takes_nothing = omni_visitor.gates:takes_nothing
is_malformed = my-package:gate
not_a_function = omni_visitor.gates:not_a_function
not_there = omni_visitor.gates:not_there
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A wheel of a tiny package, installed by pip."""
    root = tmp_path_factory.mktemp("visitor")
    info = "omni_visitor-1.0.dist-info"
    files = {
        "omni_visitor/__init__.py": BACKBONE,
        "omni_visitor/gates.py": GATES,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: omni-visitor\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": ENTRY_POINTS,
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    wheel = root / "omni_visitor-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(root / "site"), str(wheel)], check=True)
    return root / "site"


@pytest.fixture
def contract_of(installed, tmp_path, monkeypatch):
    """Write a contract of the installed backbone, with gates beside its own."""
    monkeypatch.syspath_prepend(str(TRIVIAL))
    monkeypatch.syspath_prepend(str(installed))

    def write(*further_gates: str, checkpoint_gate: str = "trivial_gate") -> Path:
        document = yaml.safe_load((TRIVIAL / "trivial.yaml").read_text())
        document["id"] = "visitor"
        document["artifact_contract"] |= {
            "checkpoint_gate": checkpoint_gate,
            "further_gates": list(further_gates),
        }
        path = tmp_path / "visitor.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


@pytest.fixture
def gated(place, contract_of):
    """Export, train and gate the installed backbone; return the content of gate.json."""

    def run(*further_gates: str) -> dict:
        bound = load_bound(contract_of(*further_gates), profile=None, changes={})
        context = Context(
            workspace=Workspace(place.workspace),
            bound=bound,
            shared=bound.contract,
            options=Options(data_root=place.data_root, synthetic_root=place.data_root),
            bar=TerminalBar(Console(quiet=True)),
            say=lambda _: None,
            suites=PROJECT / "expectations",
            source={},
        )
        for name in ("export", "train"):
            run_stage(STAGES[name], context)
        try:
            run_stage(STAGES["gate"], context)
        except RulesBrokenError:
            assert not (place.workspace / "visitor/gate/seal.json").exists()
        return json.loads((place.workspace / "visitor/gate/gate.json").read_text())

    return run


def test_an_installed_gate_is_asked_beside_the_backbones_own(gated):
    gate = gated("answers_are_short")
    rules = [rule["rule"] for rule in gate["rules"]]
    assert gate["ok"]
    assert rules.index("model_answers_the_majority") + 1 == rules.index("answers_are_short")


def test_a_gate_that_raises_or_looks_at_nothing_is_a_broken_rule_and_the_others_are_asked(gated):
    gate = gated("stumbles", "looks_at_nothing", "answers_are_short")
    broken = {rule["rule"]: rule for rule in gate["rules"] if not rule["ok"]}
    assert {rule: each["subject"] for rule, each in broken.items()} == {
        "gate_ran_to_its_end": "stumbles",
        "gate_checked_something": "looks_at_nothing",
    }
    assert "TypeError" in broken["gate_ran_to_its_end"]["found"]
    assert "(gates.py, line 14)" in broken["gate_ran_to_its_end"]["found"]
    assert {rule["rule"] for rule in gate["rules"]} >= {"model_answers_the_majority", "answers_are_short"}


def test_a_gate_that_exits_with_success_is_a_broken_rule_and_ends_nothing(gated):
    gate = gated("exits", "answers_are_short")
    assert not gate["ok"]
    [broken] = [rule for rule in gate["rules"] if not rule["ok"]]
    assert (broken["rule"], broken["subject"]) == ("gate_ran_to_its_end", "exits")
    assert "SystemExit" in broken["found"]
    assert "answers_are_short" in {rule["rule"] for rule in gate["rules"]}


def test_a_gate_that_changes_the_checkpoint_is_refused_by_name(gated, place):
    gate = gated("rewrites", "answers_are_short")
    [broken] = [rule for rule in gate["rules"] if not rule["ok"]]
    assert (broken["rule"], broken["subject"]) == ("gate_changes_no_checkpoint", "rewrites")
    assert "deleted fitted.json, rewrote model.json, added notes.txt;" in broken["found"]
    assert "delete train/seal.json and run 'train' again" in broken["found"]
    assert "answers_are_short" in {rule["rule"] for rule in gate["rules"]}


@pytest.mark.slow
def test_what_a_gate_prints_is_no_part_of_the_result(place, gated, contract_of, installed, monkeypatch):
    gated("answers_are_short")
    monkeypatch.setenv("PYTHONPATH", str(installed))
    contract = contract_of("talks")
    done = place.run("gate", "--json", "--backbone", "visitor", "--contract", str(contract))
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)
    assert row["stage"] == "gate"
    assert {"hello from gate", "hello from below"} <= {*done.stderr.splitlines()}


def test_what_a_backbone_prints_when_it_is_loaded_is_no_part_of_the_result(
    contract_of, tmp_path, monkeypatch, capfd
):
    contract = contract_of()
    site = tmp_path / "site"
    info = site / "omni_talker-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: omni-talker\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[omni_mlflow.backbones]\ntalker = omni_talker\n")
    source = "import os\nprint('hello')\nos.write(1, b'from below')\nfrom omni_visitor import BACKBONE\n"
    (site / "omni_talker.py").write_text(source)
    monkeypatch.syspath_prepend(str(site))
    document = yaml.safe_load(contract.read_text()) | {"id": "talker"}
    (tmp_path / "contracts").mkdir()
    (tmp_path / "contracts" / "talker.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(SystemExit):  # the id of its code is another
        build().main(
            ["contracts", "--validate", "--json", "--contracts-dir", str(tmp_path / "contracts")],
            standalone_mode=False,
        )
    said = capfd.readouterr()
    [report] = json.loads(said.out)["backbones"]
    assert report["id"] == "talker"
    assert "hello" in said.err
    assert "from below" in said.err


def test_a_backbone_whose_import_exits_is_an_issue_of_its_contract(contract_of, tmp_path, monkeypatch):
    path = contract_of()
    site = tmp_path / "site"
    info = site / "omni_leaver-1.dist-info"
    info.mkdir(parents=True)
    (site / "omni_leaver.py").write_text("raise SystemExit(0)")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: omni-leaver\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[omni_mlflow.backbones]\nleaver = omni_leaver\n")
    monkeypatch.syspath_prepend(str(site))
    document = yaml.safe_load(path.read_text()) | {"id": "leaver"}
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ContractError, match="omni_leaver cannot be imported: SystemExit"):
        load_bound(path, profile=None, changes={})


@pytest.mark.parametrize("made", ["Open", "{}"])
def test_a_class_or_any_other_thing_in_the_place_of_a_backbone_is_told(tmp_path, monkeypatch, made):
    (tmp_path / "omni_open.py").write_text(f"class Open:\n    id = 'open'\n\nBACKBONE = {made}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(backbone_lookup, "own_backbones", lambda: {"open": "omni_open"})
    monkeypatch.delitem(sys.modules, "omni_open", raising=False)
    issues = binding_issues({"id": "open"})
    told = "it must be an instance: BACKBONE = Open()" if made == "Open" else "it has no method 'export'"
    assert any(told in issue for issue in issues)


@pytest.mark.parametrize("archived", [True, False])
def test_a_backbone_without_its_source_is_told(tmp_path, monkeypatch, archived):
    source = tmp_path / "omni_closed.py"
    source.write_text("class Closed:\n    id = 'closed'\n\nBACKBONE = Closed()\n")
    if archived:
        with zipfile.ZipFile(tmp_path / "closed.zip", "w") as archive:
            archive.write(source, "omni_closed.py")
        monkeypatch.syspath_prepend(str(tmp_path / "closed.zip"))
    else:
        py_compile.compile(str(source), cfile=str(tmp_path / "closed" / "omni_closed.pyc"))
        monkeypatch.syspath_prepend(str(tmp_path / "closed"))
    source.unlink()
    monkeypatch.setattr(backbone_lookup, "own_backbones", lambda: {"closed": "omni_closed"})
    monkeypatch.delitem(sys.modules, "omni_closed", raising=False)
    with pytest.raises(ContractError, match="omni_closed is installed without its source"):
        load_backbone("closed")


@pytest.fixture
def clash(tmp_path, monkeypatch) -> None:
    """Two packages that add a backbone ``twice`` and a gate ``twice`` each."""
    for package in ("one", "other"):
        info = tmp_path / f"omni_{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: omni-{package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[omni_mlflow.backbones]\ntwice = omni_{package}\n"
            f"[{ENTRY_POINT_GROUP}]\ntwice = omni_{package}:it\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("clash")
def test_two_installed_backbones_of_one_id_are_told_and_none_is_taken():
    with pytest.raises(ContractError) as told:
        load_backbone("twice")
    assert "two installed packages add the backbone 'twice'" in str(told.value)
    assert all(name in str(told.value) for name in ("omni_one", "omni_other"))


@pytest.mark.usefixtures("clash")
def test_a_clash_stops_the_contract_that_names_it_and_no_other(contract_of):
    with pytest.raises(ContractError, match="two installed packages add the checkpoint gate 'twice'"):
        load_bound(contract_of("twice"), profile=None, changes={})
    bound = load_bound(contract_of("answers_are_short"), profile=None, changes={})
    settings = STAGES["gate"].settings(bound.contract)
    assert settings["installed_gates"].keys() == {"answers_are_short"}
    mine = {**SPECIFIED, "--template-backbone": "qwen3_omni_lora", "--id": "a_third"}
    words = [word for pair in mine.items() for word in pair]
    assert CliRunner().invoke(build(), ["scaffold", *words, "--dry-run"]).exit_code == 0


def test_another_version_of_an_installed_gate_is_asked_anew(contract_of, installed):
    contract = load_bound(contract_of("answers_are_short"), profile=None, changes={}).contract
    settings = STAGES["gate"].settings(contract)
    assert settings["gates"] == ["trivial_gate", "answers_are_short"]
    assert settings["installed_gates"].keys() == {"answers_are_short"}


def test_every_gate_that_cannot_be_used_is_listed_with_its_reason_when_the_contract_is_bound(contract_of):
    path = contract_of("answers_are_shot", "not_a_function", "not_there", "takes_nothing", "is_malformed")
    with pytest.raises(ContractError) as refused:
        load_bound(path, profile=None, changes={})
    assert "unknown checkpoint gate 'answers_are_shot'; did you mean 'answers_are_short'?" in str(
        refused.value
    )
    assert "'not_a_function' (omni_visitor.gates:not_a_function) is no function" in str(refused.value)
    assert "'takes_nothing' (omni_visitor.gates:takes_nothing) must take (test)" in str(refused.value)
    assert "'is_malformed' of an installed package is 'my-package:gate', no module:name" in str(refused.value)
    assert "'not_there' (omni_visitor.gates:not_there) cannot be imported: AttributeError" in str(
        refused.value
    )


def test_what_a_gate_returns_beside_checks_is_refused(tmp_path):
    under_test = CheckpointUnderTest(tmp_path, None, SampleSet((), tmp_path), None, tmp_path / "generated")
    passed = Check(rule="r", subject="s", expected="e", found="e", ok=True)
    [strange] = ask_gates({"told": lambda _: [passed, "all is well"]}, under_test)
    assert (strange.rule, strange.subject, strange.ok) == ("gate_checked_something", "told", False)
    assert strange.found == "str among them"


def test_each_gate_has_a_folder_of_its_own_to_generate_into(tmp_path):
    under_test = CheckpointUnderTest(tmp_path, None, SampleSet((), tmp_path), None, tmp_path / "generated")

    def tells_its_folder(checkpoint):
        return [Check(rule="r", subject=checkpoint.out.name, expected="", found="", ok=True)]

    checks = ask_gates({"one": tells_its_folder, "other": tells_its_folder}, under_test)
    assert [check.subject for check in checks] == ["one", "other"]
