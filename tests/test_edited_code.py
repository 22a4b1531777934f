"""Code that is edited while a command runs: what is sealed is the digest of what ran."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from omni_mlflow.loaded_code import EditedCodeError, LoadedCode
from omni_mlflow.stages.asking import ask
from tests.conftest import PROJECT, TRIVIAL, Place

SENTENCE = "was edited after this command began; start the same command again: what is finished is reused"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of a package, which is not imported yet."""
    package = tmp_path / "omni_late"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "scores.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package / "scores.py"
    for name in [each for each in sys.modules if each.partition(".")[0] == "omni_late"]:
        del sys.modules[name]


@pytest.fixture
def loaded(monkeypatch) -> LoadedCode:
    """What a process of its own would remember of that package."""
    loaded = LoadedCode("omni_late")
    monkeypatch.setattr(sys, "meta_path", [loaded, *sys.meta_path])
    return loaded


def test_a_module_that_is_imported_after_its_edit_is_refused(module, loaded):
    loaded.hold()
    module.write_text("VALUE = 22\n")
    with pytest.raises(EditedCodeError) as refused:
        importlib.import_module("omni_late.scores")
    assert str(refused.value) == f"{module} {SENTENCE}"
    with pytest.raises(EditedCodeError):  # also for who never saw the first one
        loaded.refuse_edited()


@pytest.mark.parametrize("left", [".#scores.py", "a folder.py", "with-dash.py"])
def test_what_an_editor_leaves_beside_a_module_stops_nothing(module, loaded, left):
    if left.startswith("."):
        (module.parent / left).symlink_to("me@host.123:1")
    else:
        (module.parent / left).mkdir()
    loaded.hold()
    assert importlib.import_module("omni_late.scores").VALUE == 1


def test_a_package_that_takes_the_place_of_a_module_is_refused(module, loaded):
    loaded.hold()
    package = module.with_suffix("")
    package.mkdir()
    (package / "__init__.py").write_text("VALUE = 22\n")
    with pytest.raises(EditedCodeError, match="was edited after this command began"):
        importlib.import_module("omni_late.scores")


def test_a_folder_that_is_linked_into_a_package_is_held_too(module, loaded, tmp_path):
    common = tmp_path / "common"
    common.mkdir()
    (common / "rules.py").write_text("VALUE = 1\n")
    (module.parent / "shared").symlink_to(common)
    (common / "round").symlink_to(module.parent)
    loaded.hold()
    (common / "rules.py").write_text("VALUE = 22\n")
    with pytest.raises(EditedCodeError, match="was edited after this command began"):
        importlib.import_module("omni_late.shared.rules")


def test_what_is_read_for_a_digest_after_the_command_began_is_held_too(module, loaded):
    loaded.hold()
    late = module.with_name("late.py")
    late.write_text("VALUE = 1\n")
    loaded.source(late)
    late.write_text("VALUE = 22\n")
    with pytest.raises(EditedCodeError, match="was edited after this command began"):
        importlib.import_module("omni_late.late")


def test_once_the_command_has_ended_an_edited_module_is_imported(module, loaded):
    loaded.hold()
    module.write_text("VALUE = 22\n")
    loaded.release()
    assert importlib.import_module("omni_late.scores").VALUE == 22


def test_a_module_that_is_imported_as_it_was_runs(module, loaded):
    loaded.hold()
    module.write_text("VALUE = 22\n")
    module.write_text("VALUE = 1\n")
    assert importlib.import_module("omni_late.scores").VALUE == 1
    loaded.refuse_edited()


def test_a_module_that_was_edited_before_the_command_began_and_not_yet_imported_runs(module, loaded):
    module.write_text("VALUE = 22\n")
    loaded.hold()
    assert importlib.import_module("omni_late.scores").VALUE == 22


def test_a_module_that_runs_already_is_known_by_what_was_imported(module, loaded):
    importlib.import_module("omni_late.scores")
    module.write_text("VALUE = 22\n")  # before the command begins, but after its process did
    loaded.hold()
    assert loaded.source(module) == b"VALUE = 1\n"
    module.unlink()
    assert loaded.holds(module)


def test_a_process_that_works_for_another_one_imports_what_that_one_did(module, loaded):
    loaded.hold()
    helper = LoadedCode("omni_late")
    module.write_text("VALUE = 22\n")
    helper.source(module)
    helper.hold_to(*loaded.held())
    with pytest.raises(EditedCodeError):
        helper.refuse_edited()


def test_edited_code_is_no_failure_to_answer():
    class Predictor:
        batch_size = 1

        def answer(self, samples):
            raise EditedCodeError("edited")

    with pytest.raises(EditedCodeError):
        ask(Predictor(), [])


WORK = """
import sys
from pathlib import Path

from omni_mlflow.loaded_code import LOADED
from omni_mlflow.spine.processes import each_in_a_process

if __name__ == "__main__":
    LOADED.watch("omni_late")
    from omni_late import scores
    LOADED.hold()
    print(list(each_in_a_process(scores.twice, [1], workers=1)))
    Path(scores.__file__).write_text("def twice(number):\\n    return 3 * number\\n")
    print(list(each_in_a_process(scores.twice, [1], workers=1)))
"""


@pytest.mark.slow
def test_a_worker_process_refuses_code_that_its_parent_does_not_run(module):
    module.write_text("def twice(number):\n    return 2 * number\n")
    script = module.parent.parent / "work.py"
    script.write_text(WORK)
    done = subprocess.run(
        [sys.executable, script],
        env={"PYTHONPATH": f"{PROJECT}{os.pathsep}{module.parent.parent}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "[(1, 2)]\n"
    assert f"EditedCodeError: {module} {SENTENCE}" in done.stderr


# On the command line.

SLOWLY = ("--set", "training.pause_s=0.3")


@pytest.fixture
def backbone(place) -> Path:
    """A copy of the trivial backbone, which runs in its place."""
    shutil.copytree(TRIVIAL, place.root / "plugin", ignore=shutil.ignore_patterns("__pycache__"))
    return place.root / "plugin/omni_trivial/__init__.py"


def environment(place: Place) -> dict[str, str]:
    return {**place.environment, "PYTHONPATH": f"{PROJECT}{os.pathsep}{place.root / 'plugin'}"}


def main(
    place: Place, edit=None, *, edit_at: str = "trivial/train: started"
) -> tuple[int, str, dict[str, bool]]:
    """Run all, edit once a line is told; return the status, what was told, and which stages were reused."""
    process = subprocess.Popen(
        place.arguments("main", *SLOWLY, "--json"),
        env=environment(place),
        cwd=place.root,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    told = []
    for line in process.stderr:
        told.append(line)
        if edit is not None and edit_at in line:
            edit()
    shown = process.stdout.read()
    rows = json.loads(shown) if shown else []
    return process.wait(), "".join(told), {row["stage"]: row["reused"] for row in rows}


def replaced(file: Path, old: str, new: str):
    source = file.read_text()
    assert source.count(old) == 1
    return lambda: file.write_text(source.replace(old, new))


@pytest.mark.slow
def test_scores_that_are_edited_during_a_training_are_computed_anew_by_the_next_command(place, backbone):
    edit = replaced(backbone, "int(predicted == target", "int(predicted != target")
    status, told, reused = main(place, edit)
    assert status == 0, told
    accuracy = place.json("trivial/evaluate/metrics.json")["action_accuracy"]
    assert not reused["train"]
    assert not reused["evaluate"]
    status, told, reused = main(place)
    assert status == 0, told
    assert reused["train"]
    assert not reused["evaluate"]
    assert place.json("trivial/evaluate/metrics.json")["action_accuracy"] == pytest.approx(1 - accuracy)


@pytest.mark.slow
def test_a_training_names_the_code_that_trained_and_runs_again_once_that_is_edited(place, backbone):
    ran = place.json("trivial/train/training_metadata.json")["code_digest"]
    status, told, _ = main(place, replaced(backbone, "loss=1.0 / step", "loss=2.0 / step"))
    assert status == 0, told
    assert place.json("trivial/train/training_metadata.json")["code_digest"] == ran
    status, told, reused = main(place)
    assert status == 0, told
    assert not reused["train"]
    assert place.json("trivial/train/training_metadata.json")["code_digest"] != ran


@pytest.mark.slow
def test_a_module_that_is_edited_before_its_import_ends_the_command(place, backbone):
    late = backbone.with_name("late.py")
    late.write_text("def right(predicted, true):\n    return int(predicted == true)\n")
    replaced(
        backbone,
        "        rows = []\n",
        "        from omni_trivial.late import right\n\n        rows = []\n",
    )()
    replaced(backbone, "int(predicted == target.labels.action)", "right(predicted, target.labels.action)")()
    status, told, _ = main(place, replaced(late, "==", "!="))
    assert status == 1
    assert f"{late} {SENTENCE}" in told
    ended = {run.info.run_name: run for run in place.runs()[-10:]}
    for name in ("main trivial", "evaluate"):
        assert ended[name].info.status == "FAILED"
        assert ended[name].data.tags["mlflow.note.content"].endswith(SENTENCE)
    status, told, reused = main(place)
    assert status == 0, told
    assert reused["train"]
    assert not reused["evaluate"]
    assert place.json("trivial/evaluate/metrics.json")["num_rows"] > 0
