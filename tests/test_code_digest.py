"""What an edit of a module runs again: what it shapes, and nothing else."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from omni_mlflow.backbone_code import ALWAYS
from omni_mlflow.backbones.base import Backbone, ExportsEpisodes, IsServed
from omni_mlflow.code_digest import PACKAGE, code_digest
from omni_mlflow.stages import STAGES
from tests.conftest import PROJECT, TRIVIAL
from tests.workbench import Workbench, edited_backbone

SHAPES = {  # the stages that are run again once a module is edited; "answers": samples are asked again
    "backbones/qwen3_omni_lora/scoring.py": {"evaluate", "merge"},
    "backbones/qwen3_omni_lora/training.py": {"train"},
    "backbones/qwen3_omni_lora/gate.py": {"gate"},
    "backbones/qwen3_omni_lora/inference.py": {"evaluate", "merge", "answers", "gate"},
    "backbones/recomputed_metrics.py": {"validate"},
    "metrics/floors.py": {"evaluate", "merge"},
    "publication/package.py": {"publish"},
    "spine/rows.py": {*(stage.name for stage in STAGES.values() if stage.per_backbone), "answers"},
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


@pytest.mark.parametrize("module", SHAPES)
def test_an_edited_module_runs_again_what_it_shapes_and_nothing_else(run_again, module):
    assert set(run_again[module]) == SHAPES[module]


def test_a_stage_names_every_member_of_its_backbone_that_its_code_asks():
    protocols = (Backbone, ExportsEpisodes, IsServed)
    members = {name for each in protocols for name in (*vars(each), *each.__annotations__)}
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
            assert asked & members - {"id", *ALWAYS} <= {*stage.asks}, stage.name
            assert {*stage.asks} <= members, stage.name


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
