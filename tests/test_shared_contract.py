"""Several backbones, one index: it serves the union of what their contracts ask for, or refuses by name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from rich.console import Console

from omni_mlflow.console import TerminalBar
from omni_mlflow.context import Context
from omni_mlflow.contract import Contract, ContractError, SplitCounts
from omni_mlflow.contract.file import load_contract
from omni_mlflow.pipeline import run_main
from omni_mlflow.registry import Bound, bind
from omni_mlflow.shared_contract import shared_contract
from omni_mlflow.spine.types import Scale
from omni_mlflow.stage_run import run_stage
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.base import Options
from omni_mlflow.workspace import StaleInputError, Workspace
from tests.conftest import PROJECT, TRIVIAL

UP_TO_EXPORT = [STAGES[name] for name in ("select", "split", "guard", "index", "export")]


@pytest.fixture
def trivial() -> Contract:
    """Windows of 20 frames every 10; every 4th frame is shown, 8 of them before the anchor."""
    return load_contract(TRIVIAL / "trivial.yaml")


def other(contract: Contract, **windows: object) -> Contract:
    changed = contract.windows.model_copy(update=windows)
    return contract.model_copy(update={"id": "other", "windows": changed})


def scales(*pairs: tuple[int, int]) -> tuple[Scale, ...]:
    return tuple(Scale(frames=frames, stride=stride) for frames, stride in pairs)


def test_one_contract_is_served_as_it_stands(trivial):
    assert shared_contract([trivial]) == trivial


def test_several_contracts_get_all_scales_every_frame_and_the_longest_context(trivial):
    wide = other(trivial, scales=scales((40, 20), (20, 10)), frame_grid=6, context_frames=10)
    windows = shared_contract([trivial, wide]).windows
    assert windows.scales == scales((20, 10), (40, 20))
    assert windows.frame_grid == 2  # holds 0, 4, 8 … and 0, 6, 12 …
    assert windows.context_frames == 30  # 60 source frames, those of the second contract


@pytest.mark.parametrize(
    ("name", "value"),
    [("tile_pixels", (64, 64)), ("min_label_share", 0.5), ("swap_fisheye_cam0_cam2", True)],
)
def test_what_has_no_union_is_refused_by_name(trivial, name, value):
    with pytest.raises(
        ContractError,
        match=rf"'trivial' and 'other' cannot share an index: windows\.{name} is .* make them equal",
    ):
        shared_contract([trivial, other(trivial, **{name: value})])


def test_another_division_of_the_sessions_is_refused_by_name(trivial):
    policy = trivial.split_policy.model_copy(update={"default_counts": SplitCounts(train=2, val=2, test=2)})
    with pytest.raises(ContractError, match="'trivial' and 'other' cannot share an index: split_policy is"):
        shared_contract([trivial, other(trivial).model_copy(update={"split_policy": policy})])


@pytest.fixture
def context(tmp_path, episodes, trivial, monkeypatch) -> Context:
    monkeypatch.syspath_prepend(str(TRIVIAL))
    return Context(
        workspace=Workspace(tmp_path / "workspace"),
        bound=bind(trivial),
        shared=trivial,
        options=Options(data_root=episodes, synthetic_root=tmp_path),
        bar=TerminalBar(Console(quiet=True)),
        say=lambda _: None,
        suites=PROJECT / "expectations",
        source={},
    )


def samples(context: Context, backbone: str) -> list[dict]:
    rows = (context.workspace.root / backbone / "export" / "samples" / "test.jsonl").read_text().splitlines()
    return [json.loads(row) for row in rows]


def test_two_backbones_read_one_index_and_each_exports_the_windows_it_asks_for(context, trivial):
    wide = other(trivial, scales=scales((40, 20)), frame_grid=2, context_frames=20)
    bounds = [context.bound, Bound(wide, context.bound.backbone, context.bound.settings)]
    shared = replace(context, shared=shared_contract([trivial, wide]))
    finished = run_main(bounds, shared, UP_TO_EXPORT)
    assert [each.stage for each in finished if each.reused] == ["select", "split", "guard", "index"]
    ids = {backbone: [row["id"] for row in samples(shared, backbone)] for backbone in ("trivial", "other")}
    starts = {"trivial": range(0, 81, 10), "other": range(0, 61, 20)}
    lengths = {"trivial": 20, "other": 40}
    for backbone, found in ids.items():
        named = [f":{lengths[backbone]}:{start}" for start in starts[backbone]]
        assert [each[each.index(":") :] for each in found] == named * 2  # two held-out episodes of 100 frames


def test_a_backbone_is_exported_the_same_from_an_index_that_serves_others_too(context, trivial):
    run_main([context.bound], context, UP_TO_EXPORT)
    alone = samples(context, "trivial")
    wide = other(trivial, scales=scales((40, 20), (20, 5)), frame_grid=2, context_frames=20)
    run_stage(STAGES["index"], replace(context, shared=shared_contract([trivial, wide])))
    exported = run_stage(STAGES["export"], context)  # by itself, with its own contract
    assert not exported.reused
    assert samples(context, "trivial") == alone


def test_an_index_that_lacks_a_scale_serves_nobody_who_asks_for_it(context, trivial):
    run_main([context.bound], context, UP_TO_EXPORT)
    asked = trivial.model_copy(update={"windows": other(trivial, scales=scales((20, 10), (30, 15))).windows})
    with pytest.raises(StaleInputError, match="'index' was made with other settings: scales="):
        run_stage(
            STAGES["export"], replace(context, bound=replace(context.bound, contract=asked), shared=asked)
        )
