"""Short codes for the shape of the fingers, fitted on the hands of train episodes.

Both codes start from the finger joints in the wrist's frame, left hands mirrored, so one map serves both
hands. ``synergies`` are the leading principal components of that shape (Santello et al., J. Neurosci. 1998);
``template`` is the shape as a linear function of the aperture, which is all that a gripper has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.backbones.policy_vla_branch.hands import (
    INDEX_TIP,
    NUM_JOINTS,
    THUMB_TIP,
    apertures,
    fingers_in_wrist,
)
from omni_mlflow.backbones.policy_vla_branch.round_trip import Bound, RetargetingMaps, bound_of
from omni_mlflow.spine.poses import Bools, Floats

NUM_SYNERGIES = 7
FOLDS = 5
TOLERANCE = 1.1
"""Of 250 made-up wearers after a fit on six others, the worst lost 1.07 times as much."""

_SHAPE = 60


class NoHandsError(Exception):
    """There are too few valid hands to fit the shape of fingers."""


class Maps(RetargetingMaps):
    """What turns finger joints into codes and back. Every number is an exact float64.

    Attributes:
        mean: mean shape, 60 numbers in metres: 20 finger joints, x y z each.
        synergies: orthonormal rows, each of 60 numbers.
        explained: share of the variance of shapes that each synergy explains.
        template: shape at aperture 0, and its change per metre of aperture; 60 numbers each.
        num_hands: number of left and of right hands fitted on.
        apertures_m: smallest and largest aperture among them.
        aperture_bound_m: how far the aperture of a decoded hand may be from the one asked for, anywhere
            between those two.
        round_trip: measured on train hands of episodes that were left out of a fit.
    """

    mean: tuple[float, ...]
    synergies: tuple[tuple[float, ...], ...]
    explained: tuple[float, ...]
    template: tuple[tuple[float, ...], tuple[float, ...]]
    num_hands: tuple[int, int]
    apertures_m: tuple[float, float]
    aperture_bound_m: float

    @property
    def num_examples(self) -> tuple[int, ...]:
        return self.num_hands

    def coefficients(self, fingers: Floats) -> Floats:
        """Return the synergy coefficients of shapes, (..., 60) to (..., 7), metres."""
        return np.asarray((fingers - np.array(self.mean)) @ np.array(self.synergies).T)

    def from_coefficients(self, coefficients: Floats) -> Floats:
        return np.asarray(coefficients @ np.array(self.synergies) + np.array(self.mean))

    def from_apertures(self, opened_m: Floats) -> Floats:
        """Return the shape of a hand that is opened so far, (...) to (..., 60)."""
        closed, per_metre = np.array(self.template)
        return np.asarray(closed + opened_m[..., None] * per_metre)


def fit_maps(joints: Floats, valid: Bools, *, episodes: Sequence[str]) -> Maps:
    """Fit the maps on valid hands, and measure their round trip on episodes that a fit did not see.

    The episodes are dealt into five folds by their place in the alphabet; for the measurement each fold is
    left out once. With one episode its own rows are dealt instead. The order of episodes changes no bit.

    Args:
        joints: hands of train episodes in any camera, shape (rows, 2, 21, 3).
        valid: shape (rows, 2).
        episodes: which episode each row is from.

    Raises:
        NoHandsError: fewer valid hands than a fit needs.
    """
    order = np.argsort(np.array(episodes), kind="stable")
    joints, valid = np.where(valid[..., None, None], joints, 0.0)[order], valid[order]
    names, places = np.unique(np.array(episodes)[order], return_inverse=True)
    groups = places if len(names) > 1 else np.arange(len(joints)) % FOLDS
    shapes, opened = fingers_in_wrist(joints)[valid], apertures(joints)[valid]
    if len(shapes) <= 2 * NUM_SYNERGIES:
        raise NoHandsError(
            f"{len(shapes)} valid hands in {len(names)} train episodes; synergies need more than "
            f"{2 * NUM_SYNERGIES}: add episodes in which hands are tracked"
        )
    hand_groups = np.broadcast_to(groups[:, None], valid.shape)[valid]
    maps = _fitted(shapes, opened, valid)
    return maps.model_copy(update={"round_trip": _held_out_round_trip(shapes, opened, hand_groups, valid)})


def _fitted(shapes: Floats, opened: Floats, valid: Bools) -> Maps:
    mean = shapes.mean(axis=0)
    centred = shapes - mean
    variances, directions = np.linalg.eigh(centred.T @ centred / len(shapes))
    variances, directions = variances[::-1], directions.T[::-1]
    # A direction and its opposite are the same component: the largest entry decides, so a refit agrees.
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    synergies = (directions * np.sign(largest))[:NUM_SYNERGIES]
    design = np.stack([np.ones_like(opened), opened], axis=1)
    template = np.asarray(np.linalg.lstsq(design, shapes, rcond=None)[0], dtype=np.float64)
    total = max(float(variances.sum()), np.finfo(float).tiny)
    return Maps(
        mean=mean.tolist(),
        synergies=synergies.tolist(),
        explained=(variances[:NUM_SYNERGIES] / total).tolist(),
        template=template.tolist(),
        num_hands=tuple(valid.sum(axis=0).tolist()),
        apertures_m=(float(opened.min()), float(opened.max())),
        aperture_bound_m=_aperture_bound(template, float(opened.min()), float(opened.max())),
        round_trip={},
    )


def _aperture_bound(template: Floats, low: float, high: float) -> float:
    """Return the largest difference between an aperture of [low, high] and that of its decoded hand.

    The tips are linear in the aperture, so their distance is convex in it: the difference is largest at an
    end, or at the inner point where it is smallest.
    """
    tips = template.reshape(2, 20, 3)
    closed, per_metre = tips[:, THUMB_TIP - 1] - tips[:, INDEX_TIP - 1]
    slope, offset = float(per_metre @ per_metre), float(closed @ per_metre)
    candidates = [low, high]
    if slope > 1:  # the decoded aperture can grow as fast as the one asked for: d/da distance = 1
        across = max(float(closed @ closed) - offset**2 / slope, 0.0)
        candidates.append(np.sqrt(across / (slope * (slope - 1))) - offset / slope)
    inside = np.clip(candidates, low, high)
    decoded = np.linalg.norm(closed + inside[:, None] * per_metre, axis=1)
    return float(np.abs(decoded - inside).max())


def _held_out_round_trip(
    shapes: Floats, opened: Floats, groups: NDArray[np.signedinteger], valid: Bools
) -> dict[str, Bound]:
    errors_mm = {name: np.zeros(len(shapes)) for name in ("joints126", "ee20", "synergy32")}
    for fold in range(FOLDS):
        out = groups % FOLDS == fold
        if not out.any():
            continue
        maps = _fitted(shapes[~out], opened[~out], valid)
        errors_mm["ee20"][out] = _errors_mm(maps.from_apertures(opened[out]), shapes[out])
        back = maps.from_coefficients(maps.coefficients(shapes[out]))
        errors_mm["synergy32"][out] = _errors_mm(back, shapes[out])
    return {name: bound_of(errors, groups, tolerance=TOLERANCE) for name, errors in errors_mm.items()}


def _errors_mm(decoded: Floats, shapes: Floats) -> Floats:
    """Mean over a hand's 21 joints; the wrist, which every code keeps, counts as the one without error."""
    distances = np.linalg.norm((decoded - shapes).reshape(-1, _SHAPE // 3, 3), axis=-1)
    errors: Floats = 1000.0 * distances.sum(axis=1) / NUM_JOINTS
    return errors
