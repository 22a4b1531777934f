"""One contract for the stages that several backbones share: it asks for what each of them asks for."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from omni_mlflow.contract import SAME_WINDOWS, Contract, ContractError, Windows


def shared_contract(contracts: Sequence[Contract]) -> Contract:
    """Return the first contract with windows that serve all of them.

    All scales are cut, the grid is the coarsest one that holds every frame of each grid, and the context is
    the longest. ``export`` gives each backbone the windows of its own contract.

    Raises:
        ContractError: they divide the sessions in other ways, or differ in what has no union.
    """
    first, *others = contracts
    for other in others:
        _check_same(first, other, "split_policy", first.split_policy, other.split_policy)
        for name in SAME_WINDOWS:
            _check_same(
                first, other, f"windows.{name}", getattr(first.windows, name), getattr(other.windows, name)
            )
    windows = _union([contract.windows for contract in contracts])
    return first.model_copy(update={"windows": windows})


def _union(asked: Sequence[Windows]) -> Windows:
    grid = gcd(*(windows.frame_grid for windows in asked))
    longest = max(windows.context_frames * windows.frame_grid for windows in asked)
    scales = dict.fromkeys(scale for windows in asked for scale in windows.scales)
    return asked[0].model_copy(
        update={"scales": tuple(scales), "frame_grid": grid, "context_frames": longest // grid}
    )


def _check_same(first: Contract, other: Contract, name: str, ours: object, theirs: object) -> None:
    if ours != theirs:
        raise ContractError(
            f"{first.id!r} and {other.id!r} cannot share an index: {name} is {ours} in one contract and "
            f"{theirs} in the other; make them equal, or run each backbone in a workspace of its own"
        )
