"""No option, setting, link or pattern lets training read the truth of a held-out sample."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni_mlflow.__main__ import build
from omni_mlflow.contract import ContractError
from omni_mlflow.spine.rows import file_digest
from omni_mlflow.stage_run import ground_for
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.base import Shard, UndeclaredInputError
from omni_mlflow.workspace import MissingStageError, StaleInputError
from tests.conftest import TRIVIAL
from tests.workbench import Workbench

TRAIN = STAGES["train"]
TARGETS = "sealed/test_targets.jsonl"
OPENED: list[str] = []
_watch = {"on": False}


def _remember(event: str, arguments: tuple) -> None:
    if _watch["on"] and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        OPENED.append(os.path.realpath(os.fsdecode(arguments[0])))


@pytest.fixture(scope="module", autouse=True)
def _audit():
    """Every file that this process opens, by whatever library; a hook of Python cannot be taken away."""
    sys.addaudithook(_remember)


@pytest.fixture(scope="module")
def bench(tmp_path_factory, finished) -> Workbench:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TRIVIAL))
        yield Workbench(finished.copy(tmp_path_factory.mktemp("seal") / "copy"), [])


def ground_of(bench):
    """What training stands on."""
    context = bench.context()
    inputs = {
        name: context.workspace.stage(name, backbone="trivial" if STAGES[name].per_backbone else None)
        for name in TRAIN.inputs
    }
    return ground_for(TRAIN, context, inputs)


def sealed_files_opened(bench) -> list[str]:
    sealed = (bench.backbone / "export/sealed").resolve()
    return [path for path in OPENED if Path(path).is_relative_to(sealed)]


def watched(bench, **given) -> list[str]:
    """Train, and return what of the sealed answers was opened meanwhile."""
    OPENED.clear()
    _watch["on"] = True
    try:
        bench.run("train", **given)
    finally:
        _watch["on"] = False
    assert any(path.endswith("samples/train.jsonl") for path in OPENED), "the hook heard what was opened"
    return sealed_files_opened(bench)


PIECES = st.sampled_from(
    [
        *(
            "sealed",
            "samples",
            "train.jsonl",
            "test_targets.jsonl",
            "test.jsonl",
            "train.arrays",
            "..",
            ".",
            "",
        ),
        *(
            "*",
            "**",
            "?",
            "[s]ealed",
            "test_targets.arrays",
            "anchor.npy",
            "export",
            "SEALED",
            "train.jsonl\x00",
        ),
    ]
)
NAMES = st.one_of(st.lists(PIECES, min_size=1, max_size=6).map("/".join), st.text(max_size=30))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES)
def test_no_name_or_pattern_opens_a_sealed_file_for_training(bench, name):
    try:
        path = ground_of(bench).open("export", name)
    except (UndeclaredInputError, MissingStageError, StaleInputError, ValueError, OSError):
        return
    sealed = (bench.backbone / "export/sealed").resolve()
    assert not path.resolve().is_relative_to(sealed)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(
    training=st.fixed_dictionaries({"steps": st.integers(1, 14), "batch_size": st.integers(1, 9)}),
    retries=st.integers(0, 3),
    limit=st.one_of(st.none(), st.integers(1, 30)),
    shard=st.one_of(st.none(), st.builds(Shard, st.integers(0, 1), st.just(2))),
)
def test_no_combination_of_options_and_settings_makes_training_open_a_sealed_file(
    bench, training, retries, limit, shard
):
    changes = {f"settings.training.{key}": value for key, value in training.items()}
    given = {"changes": {**changes, "evaluation.max_retries": retries}, "limit": limit, "shard": shard}
    bench.run("train", **given)
    (bench.backbone / "train/seal.json").unlink()  # or the finished training would be reused
    assert watched(bench, **given) == []


@pytest.mark.parametrize(
    "name", ["samples/train.jsonl", "samples/val.jsonl", "samples/train.arrays/anchor.npy"]
)
@pytest.mark.parametrize("kind", ["relative", "absolute", "over a folder"])
def test_a_link_into_the_sealed_answers_is_refused_even_if_somebody_sealed_it(bench, tmp_path, name, kind):
    ground = ground_of(bench)
    export = bench.backbone / "export"
    goal = export / (TARGETS if name.endswith(".jsonl") else "sealed/test_targets.arrays/anchor.npy")
    path, seal = export / name, export / "seal.json"
    kept, sealed = path.read_bytes(), seal.read_text()
    path.unlink()
    try:
        if kind == "over a folder":
            (tmp_path / "way").symlink_to(goal.parent)
            path.symlink_to(tmp_path / "way" / goal.name)
        else:
            path.symlink_to(goal if kind == "absolute" else os.path.relpath(goal, path.parent))
        with pytest.raises(StaleInputError):
            ground.open("export", name)
        document = json.loads(sealed)
        seal.write_text(json.dumps({**document, "outputs": {**document["outputs"], name: file_digest(path)}}))
        with pytest.raises(UndeclaredInputError, match="which is sealed; run 'export' again"):
            ground.open("export", name)
    finally:
        path.unlink()
        path.write_bytes(kept)
        seal.write_text(sealed)


def test_a_name_with_two_dots_in_a_manifest_and_its_seal_is_no_way_round(bench):
    export = bench.backbone / "export"
    name = "samples/train.arrays/../../sealed/test_targets.arrays/anchor.npy"
    seal = export / "seal.json"
    sealed = seal.read_text()
    document = json.loads(sealed)
    try:
        seal.write_text(
            json.dumps({**document, "outputs": {**document["outputs"], name: file_digest(export / name)}})
        )
        with pytest.raises(UndeclaredInputError, match="which is sealed"):
            ground_of(bench).open("export", name)
    finally:
        seal.write_text(sealed)


WORDS = st.sampled_from(
    ["split", "train-split", "targets", "test", "samples", "sealed", "eval-split", "limit"]
)


@settings(max_examples=40, deadline=None)
@given(option=WORDS, value=st.sampled_from(["test", TARGETS, "sealed/*", "../export/sealed", "1"]))
def test_training_has_no_option_that_names_data_to_learn_from(option, value):
    done = CliRunner().invoke(build(), ["train", f"--{option}", value])
    assert done.exit_code == 2
    assert "No such option" in done.output


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(
        ["split", "train_split", "training.split", "training.targets", "data.files", "export"]
    ),
    value=st.sampled_from(["test", TARGETS, ["train", "test"], "sealed/*"]),
)
def test_no_setting_names_data_to_learn_from(bench, key, value):
    with pytest.raises(ContractError):
        bench.context(changes={f"settings.{key}": value})
