"""One environment and one set of options, whichever file names them; and a clean clone that runs in it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import click
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from omni_mlflow.__main__ import build
from omni_mlflow.doctor import PYTHON, read_pins
from omni_mlflow.spine.synthetic import write_episode_set
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.base import Synthesis

PROJECT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
MLPROJECT = yaml.safe_load((PROJECT / "MLproject").read_text())
CONDA = yaml.safe_load((PROJECT / "conda.yaml").read_text())
ENTRY_POINTS = MLPROJECT["entry_points"]
# A torch built for CUDA brings these, in versions of its own; a lock for every machine leaves them out.
OF_CUDA = ("nvidia-", "cuda-", "triton")
# PATH as in a shell where the environment of these tests is activated.
ACTIVATED = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def pins_of(name: str) -> dict[str, str]:
    return {canonicalize_name(package): pin for package, pin in read_pins(PROJECT / name).items()}


LOCK = pins_of("requirements.lock")
DEV_LOCK = pins_of("requirements-dev.lock")


def below(roots: list[str]) -> set[str]:
    """Every package that ``roots`` ask for on this machine, directly or through others."""
    reached: set[str] = set()
    todo = [Requirement(root) for root in roots]
    seen: set[tuple[str, str]] = set()
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        for extra in ("", *wanted.extras):
            if (name, extra) in seen or name.startswith(OF_CUDA):
                continue
            seen.add((name, extra))
            reached.add(name)
            asked = [Requirement(line) for line in requires(name) or []]
            todo += [each for each in asked if each.marker is None or each.marker.evaluate({"extra": extra})]
    return reached


def test_every_pin_of_pyproject_is_in_the_lock():
    pins = [Requirement(line) for line in PYPROJECT["project"]["dependencies"]]
    named = {canonicalize_name(pin.name): str(pin.specifier) for pin in pins}
    assert named == {name: f"=={LOCK[name]}" for name in named}
    tools = [Requirement(line) for line in PYPROJECT["project"]["optional-dependencies"]["dev"]]
    assert all(tool.specifier.contains(DEV_LOCK[canonicalize_name(tool.name)]) for tool in tools)


def test_the_lock_holds_what_pyproject_asks_for_and_all_below_it_and_nothing_else():
    assert below(PYPROJECT["project"]["dependencies"]) == set(LOCK)
    tools = below(PYPROJECT["project"]["optional-dependencies"]["dev"])
    assert tools - set(LOCK) == set(DEV_LOCK)


def test_no_package_of_the_lock_asks_for_another_version_than_the_lock_holds():
    wanted = [(name, Requirement(line)) for name in {**LOCK, **DEV_LOCK} for line in requires(name) or []]
    conflicts = [
        (name, str(each))
        for name, each in wanted
        if (each.marker is None or each.marker.evaluate({"extra": ""}))
        and not canonicalize_name(each.name).startswith(OF_CUDA)
        and not each.specifier.contains({**LOCK, **DEV_LOCK}[canonicalize_name(each.name)], prereleases=True)
    ]
    assert conflicts == []


def test_the_installed_environment_equals_the_locks():
    locked = {**LOCK, **DEV_LOCK}
    assert {name: version(name).partition("+")[0] for name in locked} == locked


def test_conda_yaml_uses_the_lock_and_every_file_names_the_same_python():
    *conda, pip = CONDA["dependencies"]
    wanted = ".".join(map(str, PYTHON))
    assert pip == {"pip": ["-r requirements.lock"]}
    assert conda == [f"python={wanted}", "pip"]
    allowed = SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert [minor for minor in range(30) if allowed.contains(f"3.{minor}.5")] == [PYTHON[1]]
    assert PYPROJECT["tool"]["mypy"]["python_version"] == wanted
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{wanted.replace('.', '')}"
    assert f"sys.version_info[:2] != {PYTHON}" in (PROJECT / "Makefile").read_text()


def test_mlproject_exposes_the_stages_the_main_job_and_the_comparison():
    assert sorted(ENTRY_POINTS) == sorted([*STAGES, "main", "compare"])


def options_of(verb: str) -> dict[str, click.Option]:
    """The options of a verb that take a value, by the name that follows ``--``."""
    options = [each for each in build().commands[verb].params if isinstance(each, click.Option)]
    return {each.opts[0].removeprefix("--"): each for each in options if not each.is_flag}


@pytest.mark.parametrize("verb", ENTRY_POINTS)
def test_each_parameter_of_an_entry_point_is_handed_over_as_the_option_of_its_name(verb):
    words = shlex.split(ENTRY_POINTS[verb]["command"])
    assert words[:4] == ["python", "-m", "omni_mlflow", verb]
    parameters = ENTRY_POINTS[verb]["parameters"]
    named = {f"--{name.replace('_', '-')}": f"{{{name}}}" for name in parameters}
    assert dict(zip(words[4::2], words[5::2], strict=True)) == named
    assert {name.removeprefix("--") for name in named} <= set(options_of(verb))


@pytest.mark.parametrize("verb", ENTRY_POINTS)
def test_the_defaults_of_mlproject_are_those_of_the_command_line(verb):
    parameters = ENTRY_POINTS[verb]["parameters"]
    options = options_of(verb)
    defaults = {name: str(options[name.replace("_", "-")].default) for name in parameters}
    assert {name: str(each["default"]) for name, each in parameters.items()} == defaults


@pytest.mark.parametrize("verb", STAGES)
def test_a_stage_can_be_told_as_much_by_mlflow_run_as_by_the_command_line(verb):
    named = {name.replace("_", "-") for name in ENTRY_POINTS[verb]["parameters"]}
    assert named == set(options_of(verb))


def test_the_command_line_synthesizes_what_the_stage_does_by_default():
    options = options_of("synthesize")
    assert {name: options[name].default for name in Synthesis.__annotations__} == vars(Synthesis())


def test_a_synthetic_set_is_clean_unless_asked_otherwise_and_that_of_the_main_job_is_the_demo():
    assert options_of("synthesize")["anomalies"].default == "none"
    assert options_of("main")["anomalies"].default == "demo"


@pytest.mark.parametrize("verb", ENTRY_POINTS)
def test_no_default_is_empty_or_would_be_quoted_by_a_shell(verb):
    """MLflow stores a parameter as the shell would quote it, and loses an empty one."""
    for parameter in ENTRY_POINTS[verb]["parameters"].values():
        default = str(parameter["default"])
        assert default == shlex.quote(default)
        assert parameter["default"] is not None


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """What somebody gets who clones the repository: the last commit, and nothing built."""
    if not (PROJECT / ".git").exists():
        pytest.skip("this is no git checkout, so there is nothing to clone")
    folder = tmp_path_factory.mktemp("clean") / "omni-mlflow"
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(folder)], check=True)
    return folder


@pytest.fixture
def select_by_mlflow(clone, tmp_path, blank_store):
    """Run ``mlflow run . -e select`` in the clone, on two tiny episodes, and return its one run."""
    import mlflow

    data = tmp_path / "episodes"
    write_episode_set(data, sessions=2, frames=60, seed=3, anomalies="none", workers=1)
    shutil.copy(blank_store, tmp_path)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def run(manager: str, **variables: str):
        own = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")}
        own.pop("PYTHONPATH", None)
        environment = {**own, "PATH": ACTIVATED, "MLFLOW_TRACKING_URI": store, **variables}
        command = [sys.executable, "-m", "mlflow", "run", ".", "-e", "select", "--env-manager", manager]
        for parameter in (f"data_root={data}", f"workspace={tmp_path / 'workspace'}"):
            command += ["-P", parameter]
        done = subprocess.run(
            command, cwd=clone, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        client = mlflow.MlflowClient(store)
        everywhere = [each.experiment_id for each in client.search_experiments()]
        [found] = client.search_runs(everywhere)
        return found

    return run


def assert_selected(run, workspace: Path) -> None:
    assert run.info.status == "FINISHED"
    assert run.data.tags["omni.outcome"] == "ok"
    assert run.data.params["sizes"] == "none"
    rows = (workspace / "select" / "selection.csv").read_text().splitlines()
    assert len(rows) == 3  # a header and two episodes


@pytest.mark.slow
def test_a_clean_clone_runs_a_stage_in_the_environment_at_hand(select_by_mlflow, tmp_path):
    assert_selected(select_by_mlflow("local"), tmp_path / "workspace")


@pytest.fixture
def environments(tmp_path):
    """A place for environments that is gone afterwards: one of them takes 2 GB."""
    folder = tmp_path / "environments"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def find_links() -> dict[str, str]:
    """What uv must be told where pip has a folder of wheels: uv reads none of pip's settings."""
    shown = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    folders = re.findall(r"find-links='(.+)'", shown.stdout)
    return {"UV_FIND_LINKS": ",".join(folders[0].split())} if folders else {}


@pytest.mark.slow
def test_a_clean_clone_runs_a_stage_in_an_environment_that_uv_builds(
    select_by_mlflow, clone, environments, tmp_path
):
    if shutil.which("uv", path=ACTIVATED) is None:
        pytest.skip("uv is not on PATH; pip install uv")
    run = select_by_mlflow("uv", MLFLOW_ENV_ROOT=str(environments), **find_links())
    assert_selected(run, tmp_path / "workspace")
    [built] = environments.glob("mlflow-*")
    found = {name: pin for name, pin in packages_of(built).items() if not name.startswith(OF_CUDA)}
    assert {name: pin for name, pin in found.items() if name != "pip"} == LOCK


def packages_of(environment: Path) -> dict[str, str]:
    """Version of each installed package, build tags left out."""
    listing = "from importlib.metadata import distributions as d\nfor p in d(): print(p.name, p.version)"
    python = environment / "bin" / "python"
    shown = subprocess.run([python, "-I", "-c", listing], capture_output=True, text=True, check=True)
    lines = [line.split() for line in shown.stdout.splitlines()]
    return {canonicalize_name(name): found.partition("+")[0] for name, found in lines}
