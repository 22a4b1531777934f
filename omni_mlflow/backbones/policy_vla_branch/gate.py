"""Checks a policy checkpoint: what was fitted on train, counted again, and then the model itself.

Statistics, maps and labels are never believed: the caller fits them again on the train samples, and every
file that repeats them must say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from omni_mlflow.backbones.base import CheckpointUnderTest
from omni_mlflow.backbones.policy_vla_branch.action_space import SPACES
from omni_mlflow.backbones.policy_vla_branch.action_space_file import CheckpointSpace
from omni_mlflow.backbones.policy_vla_branch.fitted import (
    ACTION_SPACE_NAME,
    MAPS_NAME,
    PolicyFitted,
    head_labels,
)
from omni_mlflow.backbones.policy_vla_branch.fitted_again import differing
from omni_mlflow.backbones.policy_vla_branch.model_gate import model_checks
from omni_mlflow.backbones.policy_vla_branch.round_trip import load_maps
from omni_mlflow.backbones.policy_vla_branch.settings import Settings
from omni_mlflow.backbones.policy_vla_branch.statistics import STATS_NAME, DimensionStats, NormalizationStats
from omni_mlflow.spine.rows import UNREADABLE, digest_of, read_document
from omni_mlflow.spine.types import Check, broken

GATE_NAME = "policy_checkpoint_action_space_and_normalizer"
_SAME = 1e-6
_OF_ITS_OWN_FILE = frozenset({"action_space_digest"})
"""It hangs on every last bit."""


def checkpoint_checks(checkpoint: CheckpointUnderTest) -> list[Check]:
    """Apply every rule; the model is loaded only where what surrounds it is sound."""
    checks = list(data_checks(checkpoint.folder, checkpoint.fitted, checkpoint.settings))
    if broken(checks):
        return checks
    labels = head_labels(checkpoint.fitted)
    return [*checks, *model_checks(checkpoint.folder, checkpoint.settings, labels=labels)]


def data_checks(folder: Path, fitted: PolicyFitted, settings: Settings) -> Iterator[Check]:
    """Hold everything that was learned from data against what the train samples give now."""
    stored = yield from _read("fitted.json", folder, lambda path: read_document(path, PolicyFitted))
    space = yield from _read(ACTION_SPACE_NAME, folder, lambda path: read_document(path, CheckpointSpace))
    stats = yield from _read(STATS_NAME, folder, lambda path: read_document(path, NormalizationStats))
    maps = yield from _read(MAPS_NAME, folder, lambda path: load_maps(path, type(fitted.maps)))
    if stored is not None:
        yield _same("fitted_again_agrees", "fitted.json", stored, fitted, without=_OF_ITS_OWN_FILE)
        own = digest_of(stored.action_space)
        yield _check("action_space_digest_is_its_own", "fitted.json", own, stored.action_space_digest)
    if space is not None:
        yield from _space_checks(space, fitted, settings)
    if stats is not None:
        yield from _stats_checks(stats, fitted)
    if maps is not None:
        yield _same("maps_fitted_again", MAPS_NAME, maps, fitted.maps)


def _space_checks(space: CheckpointSpace, fitted: PolicyFitted, settings: Settings) -> Iterator[Check]:
    wanted = SPACES[settings.action.space]
    yield _check("action_space_is_that_of_the_contract", ACTION_SPACE_NAME, wanted.name, space.space)
    yield _check("action_space_kind", ACTION_SPACE_NAME, wanted.kind, space.kind)
    yield _check("action_space_width", ACTION_SPACE_NAME, wanted.dim(), space.dim)
    horizon = settings.action.horizon_frames
    yield _check("action_space_horizon", ACTION_SPACE_NAME, horizon, space.horizon)
    yield _same("action_space_fitted_again", ACTION_SPACE_NAME, space, fitted.action_space)


def _stats_checks(stats: NormalizationStats, fitted: PolicyFitted) -> Iterator[Check]:
    again = fitted.normalization
    foreign = sorted({*stats.episode_ids} - {*again.episode_ids})
    yield _check("normalised_on_train_episodes_only", STATS_NAME, "no other", foreign or "no other")
    ids = digest_of(list(again.episode_ids))
    yield _check("normalising_episodes", STATS_NAME, ids, digest_of(list(stats.episode_ids)))
    yield _check("normalising_episodes_digest", STATS_NAME, again.episodes_digest, stats.episodes_digest)
    yield _check("normalised_action_space", STATS_NAME, again.action_space, stats.action_space)
    for name, found, expected in (
        ("actions", stats.actions, again.actions),
        ("state", stats.state, again.state),
    ):
        yield _check(f"{name}_counted_again", STATS_NAME, digest_of(expected.count), digest_of(found.count))
        apart = _farthest(found, expected)
        yield _check(
            f"{name}_statistics_again",
            STATS_NAME,
            f"within {_SAME} deviations",
            f"{apart:.3g}",
            ok=apart <= _SAME,
        )
        smallest = float(np.min(found.std, initial=np.inf)) if found.std else 0.0
        yield _check(
            f"{name}_deviation_above_zero", STATS_NAME, "> 0", f"{smallest:.3g}", ok=smallest >= _SAME
        )


def _farthest(found: DimensionStats, expected: DimensionStats) -> float:
    """How far means, deviations and quantiles are apart, in deviations; infinite where they do not pair."""
    scale = np.array(expected.std)
    parts = [(found.mean, expected.mean), (found.std, expected.std)]
    parts += [(found.q01, expected.q01), (found.q99, expected.q99)]
    if any(len(one) != len(other) for one, other in parts):
        return float("inf")
    apart = np.abs([(np.array(one) - np.array(other)) / scale for one, other in parts])
    return float(apart.max()) if np.isfinite(apart).all() else float("inf")


def _same(
    rule: str,
    subject: str,
    found: BaseModel,
    expected: BaseModel,
    *,
    without: frozenset[str] = frozenset(),
) -> Check:
    """Every number to within :data:`~.fitted_again.CLOSE`, and all else to the letter."""
    other = differing(found, expected, without=without)
    return _check(rule, subject, "the same", f"other {', '.join(other)}" if other else "the same")


def _read(name: str, folder: Path, read: Callable[[Path], Any]) -> Any:
    """Yield whether a file can be read, and return what is in it, or None."""
    from safetensors import SafetensorError

    content, found = None, "readable"
    try:
        content = read(folder / name)
    except (*UNREADABLE, ValidationError, SafetensorError, ValueError) as error:
        found = f"{type(error).__name__}: {error}"
    yield _check("file_is_readable", name, "readable", found)
    return content


def _check(rule: str, subject: str, expected: Any, found: Any, *, ok: bool | None = None) -> Check:
    return Check(
        rule=rule,
        subject=subject,
        expected=str(expected),
        found=str(found),
        ok=expected == found if ok is None else ok,
    )
