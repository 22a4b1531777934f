"""Captions that two splits share: copied sentences, or the same moments in other words.

A run of five words weighs ``log((N + 1) / n)`` where n of N episodes have it (inverse document frequency):
what every annotator writes of a shared task weighs nearly nothing. Moments count only where so many agree
at one offset as chance would not bring about, because annotators look at pictures two seconds apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.alignment import SEES_FROM, wanted_overlap
from omni_mlflow.spine.caption_print import CaptionPrint
from omni_mlflow.spine.fingerprints import Fingerprints
from omni_mlflow.spine.leak_graph import Finding, LeakRule, PairAbstention, edge_between, pairs_across
from omni_mlflow.spine.types import Episode

WORDS_THRESHOLD = 0.5
"""Share of the weight of an episode's five-word runs that another one repeats."""
MIN_WEIGHT = 15.0  # as much as five runs of words that one of 20 episodes has

CHANGES_THRESHOLD = 0.8
"""Share of the changes of action, in the time two episodes have in common, that fall together."""
MIN_CHANGES = 6
MAX_CHANCE = 1e-5  # of so many falling together at any offset
STEP_S = 0.1
NOTHING_IN_COMMON = "one has only uncommon sentences, the other only changes of action"


class _Timing(NamedTuple):
    share: float
    offset_s: float
    together: int


def _captions_disjoint(episodes: Sequence[Episode], fingerprints: Fingerprints) -> Finding:
    prints = {each.episode_id: fingerprints[each.episode_id].caption for each in episodes}
    told = {name: each for name, each in prints.items() if each is not None}
    weights = _weights(told)
    abstained = {name: "it has no caption" for name in prints if name not in told}
    abstained |= {
        name: "its sentences are common, and its actions change too seldom"
        for name, each in told.items()
        if weights[name].sum() < MIN_WEIGHT and len(each.changes_s) < MIN_CHANGES
    }
    compared = [each for each in episodes if each.episode_id not in abstained]
    edges, pairs = [], 0
    silent: list[PairAbstention] = []
    for first, second in pairs_across(compared):
        one, other = first.episode_id, second.episode_id
        if not _comparable(told, weights, one, other):
            silent.append(PairAbstention(first=one, second=other, reason=NOTHING_IN_COMMON))
            continue
        pairs += 1
        share = _shared_words(told, weights, one, other)
        timing = _shared_changes(told[one], told[other])
        if share >= WORDS_THRESHOLD:
            evidence = f"{share:.0%} of the uncommon five-word runs of the shorter caption"
            score, threshold, offset_s = share, WORDS_THRESHOLD, None
        elif timing is not None:
            evidence = f"{timing.together} changes of action at the same moments"
            score, threshold, offset_s = timing.share, CHANGES_THRESHOLD, round(timing.offset_s, 3)
        else:
            continue
        edges.append(
            edge_between(
                "captions_disjoint",
                "text",
                first,
                second,
                evidence,
                score=round(score, 3),
                threshold=threshold,
                offset_s=offset_s,
            )
        )
    return Finding(edges, pairs, abstained, silent)


def _weights(told: Mapping[str, CaptionPrint]) -> dict[str, NDArray[np.float64]]:
    """Return the weight of every shingle of every episode."""
    if not told:
        return {}
    shingles, counts = np.unique(
        np.concatenate([each.shingles for each in told.values()]), return_counts=True
    )
    weight = np.log((len(told) + 1) / counts)
    return {name: weight[np.searchsorted(shingles, each.shingles)] for name, each in told.items()}


def _comparable(
    told: Mapping[str, CaptionPrint], weights: Mapping[str, NDArray[np.float64]], one: str, other: str
) -> bool:
    words = min(weights[one].sum(), weights[other].sum()) >= MIN_WEIGHT
    return bool(words) or min(len(told[one].changes_s), len(told[other].changes_s)) >= MIN_CHANGES


def _shared_words(
    told: Mapping[str, CaptionPrint], weights: Mapping[str, NDArray[np.float64]], one: str, other: str
) -> float:
    """Return the weight of what both tell as a share of the lighter caption; 0 where that says too little."""
    lighter = min(weights[one].sum(), weights[other].sum())
    if lighter < MIN_WEIGHT:
        return 0.0
    _, places, _ = np.intersect1d(
        told[one].shingles, told[other].shingles, assume_unique=True, return_indices=True
    )
    return float(weights[one][places].sum() / lighter)


def _shared_changes(one: CaptionPrint, other: CaptionPrint) -> _Timing | None:
    """Return the offset at which most changes fall together; None where chance would do as much."""
    from scipy.stats import binom

    if min(len(one.changes_s), len(other.changes_s)) < MIN_CHANGES:
        return None
    apart = one.changes_s[:, None] - other.changes_s[None, :]
    steps = np.floor(apart / STEP_S).astype(np.int64).ravel()
    counts = np.bincount(steps - steps.min() + 1)
    together = counts[:-1] + counts[1:]  # within a step of the offset between two bins
    place = int(together.argmax())
    offset_s = float((place + steps.min()) * STEP_S)
    start, stop = max(0.0, offset_s), min(one.length_s, offset_s + other.length_s)
    if stop - start < wanted_overlap(one.length_s, other.length_s):
        return None
    mine = np.count_nonzero((one.changes_s >= start) & (one.changes_s <= stop))
    theirs = np.count_nonzero((other.changes_s >= start - offset_s) & (other.changes_s <= stop - offset_s))
    possible = max(mine, theirs)
    usual = together[together > 0].mean() / possible
    chance = len(together) * binom.sf(together[place] - 1, possible, min(usual, 1.0))
    share = together[place] / possible
    if share < CHANGES_THRESHOLD or together[place] < MIN_CHANGES or chance > MAX_CHANCE:
        return None
    return _Timing(float(share), offset_s, int(together[place]))


TEXT_RULES = {
    "captions_disjoint": LeakRule(
        "text",
        "uncommon runs of five words, and the moments at which actions change, over all offsets",
        f"half of the uncommon sentences, or {MIN_CHANGES} changes of action in {SEES_FROM}",
        _captions_disjoint,
    )
}
