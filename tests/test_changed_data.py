"""Files that changed after they were read are named, and what was made from them before is not reused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from omni_mlflow.console import TerminalBar
from omni_mlflow.context import Context
from omni_mlflow.contract.file import load_contract
from omni_mlflow.registry import bind
from omni_mlflow.spine.rows import read_document
from omni_mlflow.spine.types import Episode, Split
from omni_mlflow.stage_report import RulesBrokenError
from omni_mlflow.stage_run import Finished, run_stage
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.base import Options
from omni_mlflow.stages.manifests import EpisodeManifest
from omni_mlflow.workspace import StaleInputError, Workspace
from tests.conftest import PROJECT, TRIVIAL

NAME = "stereo_left.mp4"


def run(context: Context, *stages: str) -> list[Finished]:
    return [run_stage(STAGES[name], context) for name in stages]


@pytest.fixture(scope="module")
def guarded_once(tmp_path_factory, episodes) -> Context:
    root = tmp_path_factory.mktemp("changed")
    contract = load_contract(TRIVIAL / "trivial.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TRIVIAL))
        bound = bind(contract)
    context = Context(
        workspace=Workspace(root / "workspace"),
        bound=bound,
        shared=contract,
        options=Options(data_root=shutil.copytree(episodes, root / "data"), synthetic_root=root, workers=1),
        bar=TerminalBar(Console(quiet=True)),
        say=lambda _: None,
        suites=PROJECT / "expectations",
        source={},
    )
    run(context, "select", "split", "guard")
    return context


@pytest.fixture
def guarded(guarded_once, tmp_path) -> Context:
    """A data root that was guarded, and a workspace to change as one likes."""
    workspace = shutil.copytree(guarded_once.workspace.root, tmp_path / "workspace")
    return replace(guarded_once, workspace=Workspace(workspace))


def episodes_of(context: Context) -> dict[Split, Episode]:
    """One guarded episode of each split."""
    manifest = context.workspace.root / "guard/episode_manifest.json"
    return {each.split: each for each in read_document(manifest, EpisodeManifest).episodes}


def file_of(context: Context, split: Split) -> Path:
    return context.options.data_root / episodes_of(context)[split].path / NAME


@contextmanager
def holding(path: Path, content: bytes, *, changed_ns: int | None = None) -> Iterator[None]:
    """Let a file hold other bytes for a while; it keeps its time of change where ``changed_ns`` is given."""
    before, times = path.read_bytes(), path.stat()
    path.write_bytes(content)
    if changed_ns is not None:
        os.utime(path, ns=(changed_ns, changed_ns))
    yield
    path.write_bytes(before)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@contextmanager
def other_bytes_under_the_same_size_and_time(path: Path) -> Iterator[None]:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    with holding(path, bytes(content), changed_ns=path.stat().st_mtime_ns):
        yield


def test_files_as_they_were_are_no_reason_to_guard_again(guarded):
    [again] = run(guarded, "guard")
    assert again.reused


@pytest.mark.parametrize(
    ("stage", "since"), [("guard", "'select' read them"), ("index", "'guard' compared them")]
)
def test_a_file_that_was_replaced_is_named_and_what_was_made_is_not_reused(guarded, stage, since):
    stolen, path = file_of(guarded, Split.TRAIN), file_of(guarded, Split.TEST)
    sizes = f"has {stolen.stat().st_size} bytes, it had {path.stat().st_size}"
    named = f"1 files below .* changed since {since}: {path.parent.parent.name}/ep1/{NAME} {sizes}"
    with holding(path, stolen.read_bytes()), pytest.raises(StaleInputError, match=named) as refused:
        run(guarded, stage)
    assert "run 'select', 'split' and 'guard' again" in str(refused.value)


def test_a_file_of_the_same_size_that_was_written_again_is_named(guarded):
    path = file_of(guarded, Split.TEST)
    with (
        holding(path, path.read_bytes(), changed_ns=1),
        pytest.raises(StaleInputError, match=f"{NAME} was written again"),
    ):
        run(guarded, "guard")


def test_a_file_that_is_gone_is_named(guarded):
    path = file_of(guarded, Split.VAL)
    with holding(path, path.read_bytes()):
        path.unlink()
        with pytest.raises(StaleInputError, match=f"{NAME} is gone"):
            run(guarded, "index")


def test_selecting_splitting_and_guarding_again_finds_what_was_copied_since(guarded):
    stolen, path = file_of(guarded, Split.TRAIN), file_of(guarded, Split.TEST)
    with holding(path, stolen.read_bytes()):
        run(guarded, "select", "split")
        with pytest.raises(RulesBrokenError, match=f"same content: {NAME}"):
            run(guarded, "guard")


def test_guard_finds_other_bytes_under_the_same_size_and_time_when_asked_to_read_every_byte(guarded):
    asked = replace(guarded, options=replace(guarded.options, verify_digests=True))
    path = file_of(guarded, Split.TEST)
    with other_bytes_under_the_same_size_and_time(path):
        [trusting] = run(guarded, "guard")
        assert trusting.reused
        episode_id = episodes_of(guarded)[Split.TEST].episode_id
        with pytest.raises(RulesBrokenError, match=rf"digests_verified \({episode_id} {NAME}\)"):
            run(asked, "guard")


def test_index_refuses_other_bytes_under_the_same_size_and_time_when_asked_to_read_every_byte(guarded):
    asked = replace(guarded.options, verify_digests=True)
    inputs = {name: guarded.workspace.stage(name, backbone=None) for name in ("select", "guard")}
    STAGES["index"].check_data(asked, inputs)
    episode = episodes_of(guarded)[Split.TEST]
    with other_bytes_under_the_same_size_and_time(file_of(guarded, Split.TEST)):
        STAGES["index"].check_data(guarded.options, inputs)
        with pytest.raises(StaleInputError, match=f"1 episodes hold other bytes .*: {episode.path}; check"):
            STAGES["index"].check_data(asked, inputs)
