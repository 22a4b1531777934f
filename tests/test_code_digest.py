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
from omni_mlflow.code_digest import PACKAGE, followed
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

from omni_mlflow.backbone_code import code_behind
from omni_mlflow.backbone_lookup import load_backbone
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.evaluation_identity import ANSWER_WITH

backbone = load_backbone("qwen3_omni_lora")
stages = [stage for stage in STAGES.values() if stage.per_backbone]
found = {stage.name: code_behind(backbone, stage.asks, stage.run.__module__) for stage in stages}
print(json.dumps({**found, "answers": code_behind(backbone, ANSWER_WITH)}))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project's code, to edit."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(PROJECT / PACKAGE, root / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture(scope="module")
def before(project) -> dict[str, str]:
    return digests(project)


def digests(project: Path) -> dict[str, str]:
    """The digest behind each stage, as a process of its own tells it."""
    done = subprocess.run(
        [sys.executable, "-c", DIGESTS],
        cwd=project,
        env={"PYTHONPATH": str(project)},
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("module", SHAPES)
def test_an_edited_module_runs_again_what_it_shapes_and_nothing_else(project, before, module):
    path = project / PACKAGE / module
    source = path.read_text()
    path.write_text(source + "EDITED = True\n")
    after = digests(project)
    path.write_text(source)
    assert {name for name in before if before[name] != after[name]} == SHAPES[module]


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
    metrics = {"one": 1}

    def __init__(self):
        self.right = 1
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
INIT, SCORES, HELPERS, SHAPED = (
    f"omni_edited/{name}.py" for name in ("__init__", "scores", "helpers", "shapes")
)
OTHER = "omni_other/__init__.py"
FILES = {
    INIT: MAIN,
    SCORES: "def made():\n    return 1\n",
    HELPERS: "LIMIT = 3\n",
    SHAPED: "def shape():\n    return 1\n",
    "omni_edited/inner/__init__.py": "",
    "omni_edited/inner/deep.py": "",
    OTHER: "",
    "omni_other-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: omni-other\nVersion: 1.0\n",
    "omni_other-1.0.dist-info/entry_points.txt": "[omni_mlflow.backbones]\nmodel = omni_other\n",
}
CALLED_FOR = {SCORES: "def made():\n    return 2\n"}
"""An edit that is seen where somebody may ask for the scores."""


def backbone_that(old: str, new: str) -> dict[str, str]:
    assert MAIN.count(old) == 1
    return {INIT: MAIN.replace(old, new)}


@pytest.fixture
def is_seen(tmp_path, monkeypatch):
    """Return what says whether an edit is seen behind ``export`` of a small backbone."""

    def digest_of_code(name: str, files: dict[str, str], found_in: str) -> str:
        for file, source in {**FILES, **files}.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(tmp_path / name))
            digest = code_behind(importlib.import_module(found_in).BACKBONE, ["export"])
        for each in [each for each in sys.modules if each.partition(".")[0] in ("omni_edited", "omni_other")]:
            del sys.modules[each]
        return digest

    def is_seen(edit: dict[str, str], *, of: dict[str, str] | None = None, found_in="omni_edited") -> bool:
        before = of or {}
        return digest_of_code("one", before, found_in) != digest_of_code("two", {**before, **edit}, found_in)

    return is_seen


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self.loss = 1.0", "self.loss = 5.0"),
        ("BACKBONE = Model()", "BACKBONE = Model()\nBACKBONE.right = 2"),
        ("WIDTHS = [1", "WIDTHS = [7"),
        ("def _helper():\n    return 1", "def _helper():\n    return 2"),
        ("shape() + _helper()", "shape() - _helper()"),
        ("settings_type = dict", "settings_type = list"),
    ],
)
def test_what_shapes_the_output_of_an_asked_method_is_seen_wherever_it_stands(is_seen, old, new):
    assert is_seen(backbone_that(old, new))


@pytest.mark.parametrize("module", [HELPERS, SHAPED])
def test_a_module_behind_an_asked_method_is_seen(is_seen, module):
    assert is_seen({module: FILES[module] + "EDITED = 1\n"})


def test_another_method_and_what_only_it_imports_are_not_seen(is_seen):
    assert not is_seen(CALLED_FOR)
    assert not is_seen(backbone_that("return _only_scores()", "return 7"))


@pytest.mark.parametrize("module", [INIT, HELPERS])
def test_a_comment_is_not_seen(is_seen, module):
    assert not is_seen({module: "# one more word\n" + FILES[module] + "\n\n# at the end\n"})


@pytest.mark.parametrize(
    "hands_itself_over",
    [
        "helpers.ask(self)",
        "getattr(self, 'sco' + 're')",
        "type(self).score",
        "self.__class__.score",
        "[me := self, me.score()]",
        "helpers.ask(BACKBONE)",
        "helpers.ask(Model)",
    ],
)
def test_a_class_that_hands_itself_over_may_be_asked_for_anything(is_seen, hands_itself_over):
    assert is_seen(
        CALLED_FOR, of=backbone_that("return self.right", f"return {hands_itself_over} or self.right")
    )


HIDDEN = {INIT: MAIN.replace("return made()\n", "return made() + 1\n")}
"""An edit of a private function that only the scores use."""


@pytest.mark.parametrize(
    "helper",
    [
        "def ask():\n    from omni_edited import _only_scores\n    return _only_scores()\n",
        "def ask():\n    import omni_edited\n    return omni_edited._only_scores()\n",
        "import sys\n\ndef ask(name):\n    return getattr(sys.modules['omni_edited'], name)()\n",
    ],
)
def test_a_private_function_of_a_module_that_a_helper_imports_is_seen(is_seen, helper):
    assert is_seen(HIDDEN, of={HELPERS: FILES[HELPERS] + helper})


@pytest.mark.parametrize(
    "asks",
    [
        "globals()['_only' + '_scores']()",
        "getattr(sys.modules[__name__], '_only' + '_scores')()",
        "eval('_only' '_scores()')",
        "pkgutil.resolve_name('omni_edited:_only' + '_scores')()",
        "getattr(importlib.import_module(__name__), '_only' + '_scores')()",
        "dict(inspect.getmembers(omni_edited))['_only' + '_scores']()",
    ],
)
def test_where_names_are_computed_everything_is_seen(is_seen, asks):
    of = backbone_that("return self.right", f"return {asks} or self.right")
    assert is_seen({INIT: of[INIT].replace("return made()\n", "return made() + 1\n")}, of=of)


def test_what_a_module_says_to_who_asks_it_for_a_name_is_seen(is_seen):
    of = backbone_that("WIDTHS = [1, 2]", "WIDTHS = [1, 2]\n\ndef __getattr__(name):\n    return 1\n")
    assert is_seen({INIT: of[INIT].replace("(name):\n    return 1", "(name):\n    return 2")}, of=of)


def test_an_asked_method_that_calls_another_one_needs_it(is_seen):
    assert is_seen(CALLED_FOR, of=backbone_that("return self.right", "return self.score() or self.right"))


@pytest.mark.parametrize(
    "helper",
    [
        "def ask():\n    from omni_edited import BACKBONE\n    return BACKBONE.score()\n",
        "def ask():\n    import omni_edited\n    return omni_edited.BACKBONE.score()\n",
        "def ask():\n    from omni_edited import Model as It\n    return It().score()\n",
        "def ask(method):\n    return method.__self__.score()\n",
        "from omni_mlflow import backbone_lookup as at\n\ndef ask():\n    return at.load_backbone('model')\n",
    ],
)
def test_a_helper_that_gets_hold_of_the_backbone_may_ask_for_anything(is_seen, helper):
    assert is_seen(CALLED_FOR, of={HELPERS: FILES[HELPERS] + helper})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("WIDTHS = [1, 2]", "WIDTHS = [1, 2]\nfrom omni_edited import scores  # noqa: F401\n"),
        ("WIDTHS = [1, 2]", "WIDTHS = [1, 2]\nimport omni_edited.scores\n"),
        (
            "WIDTHS = [1, 2]",
            "WIDTHS = [1, 2]\nimport importlib\nimportlib.import_module('omni_edited.scores')",
        ),
        ("WIDTHS = [1, 2]", "WIDTHS = [1, 2]\n__import__('importlib').import_module('.scores', __name__)"),
        ("def _only_scores", "@WIDTHS.append\ndef _only_scores"),
        ("    def score(self)", "    @helpers.told\n    def score(self)"),
        ("def export(self):\n        return self", "def export(this):\n        return this"),
        ("def export(self)", "@helpers.told\n    def export(self)"),
        ("class Model:", "class Model(dict):"),
        ("class Model:", "@helpers.told\nclass Model:"),
        ("\nBACKBONE", "    export = score\n\nBACKBONE"),
        ("\nBACKBONE", "    _shape = score\n\nBACKBONE"),
    ],
)
def test_what_is_not_of_the_plain_form_counts_whole(is_seen, old, new):
    helpers = {HELPERS: FILES[HELPERS] + "def told(it):\n    return it\n"}
    assert is_seen(CALLED_FOR, of={**helpers, **backbone_that(old, new)})


@pytest.mark.parametrize("attribute", ["steps = len(metrics)", "controls = tuple(metrics)"])
def test_an_attribute_that_others_are_made_of_is_seen(is_seen, attribute):
    source = MAIN.replace('{"one": 1}\n', f'{{"one": 1}}\n    {attribute}\n')
    source = source.replace("return self.right", f"return len(self.{attribute.split()[0]}) or self.right")
    assert is_seen({INIT: source.replace('"one": 1', '"one": 1, "two": 2')}, of={INIT: source})


def test_an_attribute_that_nobody_asks_for_is_not_seen(is_seen):
    assert not is_seen(backbone_that('"one": 1', '"one": 1, "two": 2'))


def test_an_attribute_whose_value_somebody_else_makes_is_seen(is_seen):
    filled = backbone_that('metrics = {"one": 1}', 'metrics = {"one": WIDTHS.append(1)}')
    assert is_seen({INIT: filled[INIT].replace("append(1)", "append(2)")}, of=filled)


BASE = "class Base:\n    def export(self):\n        return self._width()\n"


@pytest.mark.parametrize("package", ["omni_edited", "omni_other"])
def test_a_class_with_a_base_of_its_own_counts_whole_and_the_base_too(is_seen, package):
    base = f"{package}/base.py"
    header = f"from {package}.base import Base\n\nclass Model(Base):"
    derived = {base: BASE, **backbone_that("class Model:", header)}
    assert is_seen(CALLED_FOR, of=derived)
    assert is_seen({base: BASE.replace("self._width()", "self._height()")}, of=derived)


def test_a_backbone_is_seen_where_a_contract_finds_it(is_seen):
    made = "from omni_edited import Model\n\nBACKBONE = Model()\nBACKBONE.right = 2\n"
    before = {**backbone_that("BACKBONE = Model()", ""), OTHER: made}
    assert is_seen({OTHER: made.replace("2", "3")}, of=before, found_in="omni_other")
    assert is_seen(CALLED_FOR, of=before, found_in="omni_other")


def test_the_packages_around_an_imported_module_are_seen(is_seen):
    deep = backbone_that(
        "return self.right", "from omni_edited.inner.deep import go\n        return self.right"
    )
    assert is_seen({"omni_edited/inner/__init__.py": "EDITED = 1\n"}, of=deep)


def test_relative_and_nested_imports_are_followed_and_libraries_are_not(tmp_path, monkeypatch):
    package = tmp_path / "omni_followed"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "start.py").write_text("import json\n\ndef go():\n    from .inner import deep\n")
    (package / "inner/__init__.py").write_text("")
    (package / "inner/deep.py").write_text("from ..beside import VALUE\n")
    (package / "beside.py").write_text("VALUE = 1\n")
    (package / "aside.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    inside = {
        "omni_followed",
        *(f"omni_followed.{each}" for each in ("start", "beside", "inner", "inner.deep")),
    }
    assert followed(["omni_followed.start"]).keys() == inside
