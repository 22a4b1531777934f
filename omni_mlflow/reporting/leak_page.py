"""``leak_graph.html``: what was compared, what was found and what could not be compared, layer by layer.

The page shows ids and numbers, never a word, picture or sound of an episode.
"""

from __future__ import annotations

from collections import Counter
from html import escape

from omni_mlflow.reporting import parts, wording
from omni_mlflow.reporting.tables import Table
from omni_mlflow.spine.leak_graph import Leak, LeakGraph, RuleReport

LAYERS = {
    "identity": "Identity: the same session, or the same moment of the same device",
    "bytes": "Bytes: the same file, or the same recorded numbers",
    "near_duplicate": "Near duplicates: re-encoded, trimmed, shifted or mirrored",
    "text": "Text: the same caption, copied or reworded",
}
_WARNS = "warns"
_MOST_ROWS = 200
_HOW_TO_READ = (
    "A score is 1 for equal recordings. What the second episode shows at t seconds, the first shows at t "
    "plus the offset."
)


def leak_page(graph: LeakGraph) -> str:
    """Return the page. Same graph, same bytes."""
    title = _title(graph)
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lede">{escape(_lede(graph))}</p>',
        *parts.block("What was compared", parts.table(_rules(graph.rules))),
    ]
    for layer, heading in LAYERS.items():
        edges = [edge for edge in graph.edges if edge.layer == layer]
        body += parts.block(heading, *_edges(edges))
    abstained = _abstained(graph.rules)
    if abstained.rows:
        rest = sum(len(rule.pairs_abstained) for rule in graph.rules) - _MOST_ROWS
        more = [parts.note(f"and {rest} more pairs, in leak_graph.json")] if rest > 0 else []
        body += parts.block("What could not be compared", parts.table(abstained), *more)
    return parts.document(title, body)


def _title(graph: LeakGraph) -> str:
    if graph.blocking:
        return f"{len(graph.blocking)} leaks block this split"
    if graph.gaps:
        return f"No leak was found, but {', '.join(graph.gaps)}"
    return "No leak blocks this split"


def _lede(graph: LeakGraph) -> str:
    """How large the split is, and which rules did not look at all of it, first those that looked at none."""
    counts = Counter(node.split.value for node in graph.nodes)
    sizes = ", ".join(f"{counts[split]} {split}" for split in ("train", "val", "test"))
    partly = [rule for rule in graph.rules if rule.pairs_not_compared and rule not in graph.blind]
    return "; ".join(
        (
            f"{sizes} episodes",
            *(f"{gap}, so it proves nothing" for gap in graph.gaps),
            f"{len(graph.edges) - len(graph.blocking)} more leaks were found by rules that only warn",
            *(
                f"{rule.rule}: {rule.pairs_not_compared} of {rule.pairs + rule.pairs_not_compared} pairs "
                "not compared"
                for rule in partly
            ),
        )
    )


def _rules(rules: tuple[RuleReport, ...]) -> Table:
    return Table(
        (
            "Rule",
            "Looks at",
            "Sees from",
            "When broken",
            "Pairs compared",
            "Not compared",
            "Leaks",
            "Episodes that abstain",
        ),
        tuple(
            (
                rule.rule,
                rule.looks_at,
                rule.sees_from,
                wording.BLOCKS if rule.blocks else _WARNS,
                str(rule.pairs),
                str(rule.pairs_not_compared),
                str(rule.edges),
                str(len(rule.abstained)),
            )
            for rule in rules
        ),
        numeric=frozenset({4, 5, 6, 7}),
    )


def _edges(edges: list[Leak]) -> list[str]:
    if not edges:
        return [parts.note("None.")]
    shown = sorted(edges, key=lambda edge: (not edge.blocks, edge.rule, edge.first, edge.second or ""))
    table = Table(
        ("Rule", "First", "Second", "Evidence", "Score", "Threshold", "Offset, s", ""),
        tuple(_edge(edge) for edge in shown[:_MOST_ROWS]),
        numeric=frozenset({4, 5, 6}),
    )
    rest = len(shown) - _MOST_ROWS
    more = [parts.note(f"and {rest} more, in leak_graph.json")] if rest > 0 else []
    scored = [parts.note(_HOW_TO_READ)] if any(edge.score is not None for edge in edges) else []
    return [parts.table(table), *more, *scored]


def _edge(edge: Leak) -> tuple[str, ...]:
    second = f"{edge.second} ({edge.second_split})" if edge.second else "any other split"
    numbers = (edge.score, edge.threshold, edge.offset_s)
    return (
        edge.rule,
        f"{edge.first} ({edge.first_split})",
        second,
        edge.evidence,
        *("" if number is None else f"{number:.2f}" for number in numbers),
        wording.BLOCKS if edge.blocks else _WARNS,
    )


def _abstained(rules: tuple[RuleReport, ...]) -> Table:
    rows = [(rule.rule, each.episode_id, each.reason) for rule in rules for each in rule.abstained]
    pairs = [
        (rule.rule, f"{each.first} and {each.second}", each.reason)
        for rule in rules
        for each in rule.pairs_abstained
    ]
    return Table(("Rule", "Episode", "Why"), (*rows, *pairs[:_MOST_ROWS]))
