"""What an edit of a module runs again: what it shapes, and nothing else."""

from __future__ import annotations

import ast
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from omni_mlflow.backbone_code import ALWAYS, PROTOCOL, code_behind
from omni_mlflow.code_digest import PACKAGE, code_digest
from omni_mlflow.stages import STAGES
from tests.conftest import PROJECT, TRIVIAL
from tests.workbench import Workbench, edited_backbone

EVERY_STAGE = {stage.name for stage in STAGES.values() if stage.per_backbone}
SHAPES = {  # the stages that are run again once a module is edited; "answers": samples are asked again
    "backbones/qwen3_omni_lora/scoring.py": {"evaluate", "merge"},
    "backbones/qwen3_omni_lora/training.py": {"train"},
    "backbones/qwen3_omni_lora/gate.py": {"gate"},
    "backbones/qwen3_omni_lora/inference.py": {"evaluate", "merge", "answers", "gate"},
    "backbones/qwen3_omni_lora/settings.py": {*EVERY_STAGE, "answers"},
    "backbones/recomputed_metrics.py": {"validate"},
    "metrics/floors.py": {"evaluate", "merge"},
    "publication/package.py": {"publish"},
    "spine/rows.py": {*EVERY_STAGE, "answers"},
}
DIGESTS = """
import json
import sys
from pathlib import Path

from omni_mlflow.backbone_code import code_behind
from omni_mlflow.code_digest import code_digest
from omni_mlflow.registry import load_backbone
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.evaluation_identity import ANSWER_WITH

backbone = load_backbone("qwen3_omni_lora")
stages = [stage for stage in STAGES.values() if stage.per_backbone]

def digests():
    code_digest.cache_clear()
    found = {stage.name: code_behind(backbone, stage.asks, stage.run.__module__) for stage in stages}
    return {**found, "answers": code_behind(backbone, ANSWER_WITH)}

before, changed = digests(), {}
for name in sys.argv[1:]:
    path = Path("omni_mlflow", name)
    source = path.read_text()
    path.write_text(source + "EDITED = True")
    after = digests()
    path.write_text(source)
    changed[name] = sorted(key for key in before if before[key] != after[key])
print(json.dumps(changed))
"""


@pytest.fixture(scope="module")
def run_again(tmp_path_factory) -> dict[str, list[str]]:
    """What a process that runs a copy of the project does again after each edit."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(PROJECT / PACKAGE, root / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", DIGESTS, *SHAPES],
        cwd=root,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("module", SHAPES)
def test_an_edited_module_runs_again_what_it_shapes_and_nothing_else(run_again, module):
    assert set(run_again[module]) == SHAPES[module]


def test_a_stage_names_every_member_of_its_backbone_that_its_code_asks():
    for stage in STAGES.values():
        if stage.per_backbone:
            asked = {
                node.attr
                for path in modules_of(stage.run.__module__)
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Attribute)
                and node.value.attr in ("model", "backbone")
            }
            assert asked & PROTOCOL - ALWAYS <= {*stage.asks}, stage.name
            assert {*stage.asks} <= PROTOCOL, stage.name


def modules_of(name: str) -> list[Path]:
    """The stage's own module and those of the package of stages that it imports, directly or not."""
    pending, seen = [name], set()
    while pending:
        name = pending.pop()
        if name not in seen and name.startswith(f"{PACKAGE}.stages."):
            seen.add(name)
            source = (PROJECT / name.replace(".", "/")).with_suffix(".py").read_text()
            found = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom))
            pending += [node.module for node in found if node.module]
    return [(PROJECT / each.replace(".", "/")).with_suffix(".py") for each in sorted(seen)]


@pytest.mark.parametrize(
    ("old", "new", "started"),
    [
        ("1.0 / step", "2.0 / step", "train"),
        ("int(predicted == target", "int(predicted != target", "evaluate"),
        ("no action label", "no label of an action", "export"),
    ],
)
def test_a_stage_of_edited_code_starts_and_the_one_before_it_is_reused(monkeypatch, place, old, new, started):
    monkeypatch.syspath_prepend(str(TRIVIAL))
    bench = Workbench(place, [])
    earlier = {"train": "export", "evaluate": "gate", "export": None}[started]
    with edited_backbone(place.root, old, new):
        if earlier:
            assert bench.run(earlier).reused
        assert not bench.run(started).reused
    assert f"trivial/{started}: started" in bench.said


BASE = """
class Base:
    def export(self):
        return self._width()
"""
MAIN = """
from omni_edited import helpers
from omni_edited.helpers import LIMIT

WIDTHS = [1, 2]


def _helper():
    return 1

def _only_scores():
    from omni_edited.scores import made
    return made()

class Model:
    id = "model"
    settings_type = dict

    def __init__(self, right=1):
        self.right = right
        self.loss = 1.0

    def export(self):
        return self.right * self.loss * self._shape() * LIMIT * WIDTHS[0]

    def _shape(self):
        from omni_edited.shapes import shape
        return shape() + _helper()

    def score(self):
        return _only_scores()

BACKBONE = Model()
"""
OTHERS = {
    "helpers": "LIMIT = 3\n",
    "scores": "def made():\n    return 1\n",
    "shapes": "def shape():\n    return 1\n",
    "base": BASE,
}


def package(folder: Path, **modules: str) -> None:
    (folder / "omni_edited").mkdir(exist_ok=True)
    for name, source in {**OTHERS, **modules}.items():
        (folder / f"omni_edited/{name}.py").write_text(source)


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """Return what says whether an edit is seen behind ``export`` of a small backbone."""

    def is_seen(before: dict[str, str], after: dict[str, str], made_in: str = "omni_edited") -> bool:
        package(tmp_path, **before)
        backbone = importlib.import_module(made_in).BACKBONE
        code_digest.cache_clear()
        one = code_behind(backbone, ["export"])
        package(tmp_path, **{**before, **after})
        code_digest.cache_clear()
        return code_behind(backbone, ["export"]) != one

    monkeypatch.syspath_prepend(str(tmp_path))
    yield is_seen
    for name in [each for each in sys.modules if each.partition(".")[0] == "omni_edited"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self.loss = 1.0", "self.loss = 5.0"),
        ("Model()", "Model(right=3)"),
        ("BACKBONE = Model()", "BACKBONE = Model()\nBACKBONE.right = 2"),
        ("WIDTHS = [1", "WIDTHS = [7"),
        ("def _helper():\n    return 1", "def _helper():\n    return 2"),
        ("shape() + _helper()", "shape() - _helper()"),
        ("settings_type = dict", "settings_type = list"),
    ],
)
def test_what_shapes_the_output_of_an_asked_method_is_seen_wherever_it_stands(edited, old, new):
    assert MAIN.count(old) == 1
    assert edited({"__init__": MAIN}, {"__init__": MAIN.replace(old, new)})


@pytest.mark.parametrize("module", ["helpers", "shapes"])
def test_a_module_behind_an_asked_method_is_seen(edited, module):
    assert edited({"__init__": MAIN}, {module: OTHERS[module] + "EDITED = 1\n"})


def test_another_method_and_what_only_it_imports_are_not_seen(edited):
    assert not edited({"__init__": MAIN}, {"scores": OTHERS["scores"] + "EDITED = 1\n"})
    assert not edited({"__init__": MAIN}, {"__init__": MAIN.replace("return _only_scores()", "return 7")})


@pytest.mark.parametrize(
    "hands_itself_over",
    ["helpers.ask(self)", "getattr(self, 'sco' + 're')", "type(self).score", "[me := self, me.score()]"],
)
def test_a_class_that_hands_itself_over_may_be_asked_for_anything(edited, hands_itself_over):
    source = MAIN.replace("return self.right", f"return {hands_itself_over} or self.right")
    assert edited({"__init__": source}, {"scores": OTHERS["scores"] + "EDITED = 1\n"})


def test_an_asked_method_that_calls_another_one_needs_it(edited):
    source = MAIN.replace("return self.right", "return self.score() or self.right")
    assert edited({"__init__": source}, {"scores": OTHERS["scores"] + "EDITED = 1\n"})


def test_a_class_with_a_base_of_its_own_counts_whole(edited):
    source = MAIN.replace("class Model:", "from omni_edited.base import Base\n\nclass Model(Base):")
    assert edited({"__init__": source}, {"scores": OTHERS["scores"] + "EDITED = 1\n"})
    assert edited({"__init__": source}, {"base": BASE.replace("self._width()", "self._height()")})


def test_a_backbone_is_seen_where_it_is_made(edited):
    made = "from omni_edited import Model\n\nBACKBONE = Model(2)\n"
    before = {"__init__": MAIN.replace("BACKBONE = Model()", ""), "made": made}
    assert edited(before, {"made": made.replace("2", "3")}, made_in="omni_edited.made")


def test_relative_and_nested_imports_are_followed_and_libraries_are_not(tmp_path, monkeypatch):
    package = tmp_path / "omni_followed"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("import json\n\ndef go():\n    from .inner import deep\n")
    (package / "inner/__init__.py").write_text("")
    (package / "inner/deep.py").write_text("from ..beside import VALUE\n")
    (package / "beside.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = code_digest("omni_followed.__init__")
    (package / "beside.py").write_text("VALUE = 2\n")
    code_digest.cache_clear()
    assert code_digest("omni_followed.__init__") != before
