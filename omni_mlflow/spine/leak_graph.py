"""The leak graph: which episodes of two splits share something, by which rule, and on what evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

from omni_mlflow.spine.fingerprints import Fingerprints
from omni_mlflow.spine.types import SCHEMA_VERSION, Episode, Row, Split

HINTS = frozenset({"pictures_disjoint", "captions_disjoint"})
"""Rules whose finding may be two honest recordings: of one place, or of one task in the same words."""

Layer = Literal["identity", "bytes", "near_duplicate", "text"]


class Leak(Row):
    """An edge of the leak graph: two episodes of two splits that share something.

    Attributes:
        second: None when ``first`` cannot be placed at all, because its identity is unknown.
        evidence: what they share, in words.
        score: how alike they are, 1 for equal; None where equality was compared.
        threshold: the score from which this rule speaks of a leak.
        offset_s: what the second shows at ``t`` seconds, the first shows at ``t + offset_s``.
        blocks: the contract's leakage guard names the rule, so nothing may be trained on this split.
    """

    rule: str
    layer: Layer
    first: str
    first_split: Split
    second: str | None = None
    second_split: Split | None = None
    evidence: str
    score: float | None = None
    threshold: float | None = None
    offset_s: float | None = None
    blocks: bool = True


class Node(Row):
    episode_id: str
    session_id: str
    split: Split
    digest: str | None


class Abstention(Row):
    """Why a rule could not compare an episode."""

    episode_id: str
    reason: str


class PairAbstention(Row):
    """Why a rule could not compare two episodes, each of which it could have compared with others."""

    first: str
    second: str
    reason: str


class RuleReport(Row):
    """What one rule looked at.

    Attributes:
        sees_from: the least that two episodes must share for this rule to notice it.
        pairs: pairs of episodes of two splits that were compared.
        pairs_not_compared: the other pairs; none is in neither number.
        abstained: episodes that were compared with none.
        pairs_abstained: pairs not compared for a reason that is no single episode's.
    """

    rule: str
    layer: Layer
    blocks: bool
    looks_at: str
    sees_from: str
    pairs: int
    pairs_not_compared: int = 0
    edges: int
    abstained: tuple[Abstention, ...] = ()
    pairs_abstained: tuple[PairAbstention, ...] = ()

    @property
    def told(self) -> str:
        """How much of what there is was compared."""
        return f"{self.rule} compared {self.pairs} of {self.pairs + self.pairs_not_compared} pairs"


class LeakGraph(Row):
    """``leak_graph.json``. It holds no text, picture or sound of any episode."""

    schema_version: int = SCHEMA_VERSION
    nodes: tuple[Node, ...]
    edges: tuple[Leak, ...]
    rules: tuple[RuleReport, ...]

    def sharing_with(self, split: Split) -> tuple[str, ...]:
        """Ids of the episodes of ``split`` that share a recording with another split, ascending.

        Rules that compare descriptions or looks only (:data:`HINTS`) do not count.
        """
        ends = ((edge.first, edge.first_split) for edge in self.edges if edge.rule not in HINTS)
        others = (
            (edge.second, edge.second_split)
            for edge in self.edges
            if edge.rule not in HINTS and edge.second is not None
        )
        return tuple(sorted({name for name, at in (*ends, *others) if at is split}))

    @property
    def blocking(self) -> list[Leak]:
        return [edge for edge in self.edges if edge.blocks]

    @property
    def blind(self) -> list[RuleReport]:
        """The rules that would block and compared none of the pairs there are: they prove nothing."""
        return [each for each in self.rules if each.blocks and not each.pairs and each.pairs_not_compared]

    @property
    def gaps(self) -> list[str]:
        """Where no leak can be found: rules that compared nothing, episodes that no witness could compare."""
        return [
            *(rule.told for rule in self.blind),
            *(f"{name} could be compared by no near-duplicate rule that blocks" for name in self.unseen),
        ]

    @property
    def unseen(self) -> list[str]:
        """Ids of the episodes of which every near-duplicate rule that blocks others abstained."""
        witnesses = [
            each for each in self.rules if each.layer == "near_duplicate" and each.blocks and each.pairs
        ]
        silent = [{each.episode_id for each in rule.abstained} for rule in witnesses]
        return sorted(set.intersection(*silent)) if silent else []


@dataclass(frozen=True)
class Finding:
    """What a rule found.

    Attributes:
        pairs: how many pairs it compared.
        abstained: why an episode was compared with none, by its id.
        pairs_abstained: why no other pair was compared.
    """

    edges: list[Leak]
    pairs: int
    abstained: Mapping[str, str] = field(default_factory=dict)
    pairs_abstained: Sequence[PairAbstention] = ()


@dataclass(frozen=True)
class LeakRule:
    """A rule of the graph.

    Attributes:
        looks_at: what it compares, for a reader of the page.
        sees_from: the least that two episodes must share for it to notice.
        find: from episodes with a split and a fingerprint, sorted by id, to what they share.
    """

    layer: Layer
    looks_at: str
    sees_from: str
    find: Callable[[Sequence[Episode], Fingerprints], Finding]


def pairs_across(episodes: Sequence[Episode]) -> Iterator[tuple[Episode, Episode]]:
    """Yield every pair of episodes of two splits."""
    for first, second in combinations(episodes, 2):
        if first.split != second.split:
            yield first, second


def num_pairs_across(episodes: Sequence[Episode]) -> int:
    sizes = [sum(each.split == split for each in episodes) for split in Split]
    return sum(one * other for one, other in combinations(sizes, 2))


def edge_between(
    rule: str,
    layer: Layer,
    first: Episode,
    second: Episode | None,
    evidence: str,
    *,
    score: float | None = None,
    threshold: float | None = None,
    offset_s: float | None = None,
) -> Leak:
    assert first.split is not None
    return Leak(
        rule=rule,
        layer=layer,
        first=first.episode_id,
        first_split=first.split,
        second=second.episode_id if second else None,
        second_split=second.split if second else None,
        evidence=evidence,
        score=score,
        threshold=threshold,
        offset_s=offset_s,
    )
