"""Find what train, val and test share, whatever it is called.

Four layers. *identity*: the same session, the same moment of the same device. *bytes*: the same file, the
same recorded numbers. *near_duplicate*: the same motion, sound or pictures, re-encoded, trimmed, shifted or
mirrored. *text*: the same caption, copied or reworded. A rule that finds too little in an episode abstains
and says so; it never guesses. An episode whose identity is unknown cannot be placed at all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from omni_mlflow.spine.caption_overlap import TEXT_RULES
from omni_mlflow.spine.exact_leaks import EXACT_RULES, unknown_identities
from omni_mlflow.spine.fingerprints import Fingerprints
from omni_mlflow.spine.leak_graph import (
    Abstention,
    Finding,
    LeakGraph,
    LeakRule,
    Node,
    RuleReport,
    num_pairs_across,
)
from omni_mlflow.spine.near_duplicates import NEAR_DUPLICATE_RULES
from omni_mlflow.spine.types import Episode

LEAK_RULES: dict[str, LeakRule] = {**EXACT_RULES, **NEAR_DUPLICATE_RULES, **TEXT_RULES}
"""The rules that a contract's ``leakage_guard`` may name. All are applied; those it names block."""


def find_leaks(
    episodes: Sequence[Episode],
    fingerprints: Fingerprints,
    *,
    blocking: Collection[str],
) -> LeakGraph:
    """Apply every rule to all pairs of episodes of two splits.

    Args:
        episodes: only those with a split are looked at.
        fingerprints: by episode id.
        blocking: names of the rules whose edges forbid this split. An unknown identity always does.
    """
    placed = sorted((each for each in episodes if each.split), key=lambda each: each.episode_id)
    known = [each for each in placed if each.episode_id in fingerprints]
    unknown = unknown_identities(placed, fingerprints)
    edges = list(unknown)
    reports = [
        RuleReport(
            rule="identity_known",
            layer="identity",
            blocks=True,
            looks_at="session, device and device clock of every episode",
            sees_from="one of them unknown",
            pairs=0,
            edges=len(unknown),
        )
    ]
    for name, rule in LEAK_RULES.items():
        found = rule.find(known, fingerprints)
        edges += [edge.model_copy(update={"blocks": name in blocking}) for edge in found.edges]
        reports.append(_report(name, rule, found, blocks=name in blocking, pairs=num_pairs_across(known)))
    nodes = (
        Node(
            episode_id=each.episode_id,
            session_id=each.session_id,
            split=each.split,
            digest=fingerprints[each.episode_id].digest if each.episode_id in fingerprints else None,
        )
        for each in placed
        if each.split
    )
    return LeakGraph(nodes=tuple(nodes), edges=tuple(edges), rules=tuple(reports))


def _report(name: str, rule: LeakRule, found: Finding, *, blocks: bool, pairs: int) -> RuleReport:
    abstained = (
        Abstention(episode_id=episode_id, reason=reason)
        for episode_id, reason in sorted(found.abstained.items())
    )
    return RuleReport(
        rule=name,
        layer=rule.layer,
        blocks=blocks,
        looks_at=rule.looks_at,
        sees_from=rule.sees_from,
        pairs=found.pairs,
        pairs_not_compared=pairs - found.pairs,
        edges=len(found.edges),
        abstained=tuple(abstained),
        pairs_abstained=tuple(found.pairs_abstained),
    )
