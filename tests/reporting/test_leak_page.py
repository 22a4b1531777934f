"""The page of the leak graph: both ends and the evidence of every leak, and nothing of an id is markup."""

from __future__ import annotations

import re
from html import unescape

from omni_mlflow.reporting.leak_page import leak_page
from omni_mlflow.spine.leak_graph import Abstention, Leak, LeakGraph, Node, PairAbstention, RuleReport
from omni_mlflow.spine.types import Split

COPY = Leak(
    rule="motion_disjoint",
    layer="near_duplicate",
    first="kitchen__ep1",
    first_split=Split.TRAIN,
    second="garage__ep2",
    second_split=Split.TEST,
    evidence="the same motion for 9.5 s",
    score=0.931,
    threshold=0.6,
    offset_s=-1.85,
)


def graph_of(
    *edges: Leak, abstained: tuple[Abstention, ...] = (), pairs_abstained: tuple[PairAbstention, ...] = ()
) -> LeakGraph:
    nodes = [("kitchen__ep1", Split.TRAIN), ("cellar__ep1", Split.VAL), ("garage__ep2", Split.TEST)]
    report = RuleReport(
        rule="motion_disjoint",
        layer="near_duplicate",
        blocks=True,
        looks_at="how the rig moved",
        sees_from="5 s",
        pairs=3 - len(pairs_abstained),
        pairs_not_compared=len(pairs_abstained),
        edges=len(edges),
        abstained=abstained,
        pairs_abstained=pairs_abstained,
    )
    return LeakGraph(
        nodes=tuple(
            Node(episode_id=name, session_id=name, split=split, digest=None) for name, split in nodes
        ),
        edges=edges,
        rules=(report,),
    )


def rows_of(page: str) -> list[list[str]]:
    """The cells of every row of every table, as a reader sees them."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, flags=re.DOTALL)
    return [
        [unescape(re.sub("<.*?>", "", cell)) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)]
        for row in rows
    ]


def test_a_leak_names_both_ends_with_their_splits_the_evidence_and_its_numbers():
    page = leak_page(graph_of(COPY))
    assert "1 leaks block this split" in page
    assert "1 train, 1 val, 1 test episodes" in page
    [row] = [row for row in rows_of(page) if "the same motion for 9.5 s" in row]
    assert row[:7] == [
        "motion_disjoint",
        "kitchen__ep1 (train)",
        "garage__ep2 (test)",
        "the same motion for 9.5 s",
        "0.93",
        "0.60",
        "\N{MINUS SIGN}1.85",
    ]


def test_a_leak_that_only_warns_does_not_block():
    page = leak_page(graph_of(COPY.model_copy(update={"blocks": False})))
    assert "No leak blocks this split" in page
    assert "1 more leaks were found by rules that only warn" in page
    assert any("the same motion for 9.5 s" in row and row[-1] == "warns" for row in rows_of(page))


def test_an_episode_that_cannot_be_placed_stands_against_every_other_split():
    unknown = Leak(
        rule="identity_known",
        layer="identity",
        first="e",
        first_split=Split.VAL,
        evidence="unknown device id",
    )
    [row] = [row for row in rows_of(leak_page(graph_of(unknown))) if "unknown device id" in row]
    assert row[:3] == ["identity_known", "e (val)", "any other split"]


def test_who_could_not_be_compared_is_listed_with_the_reason():
    quiet = Abstention(episode_id="cellar__ep1", reason="it is silent")
    assert ["motion_disjoint", "cellar__ep1", "it is silent"] in rows_of(
        leak_page(graph_of(abstained=(quiet,)))
    )


def test_ids_and_evidence_are_text_and_never_markup():
    hostile = "<script>alert('x')</script>&\"amp"
    edge = COPY.model_copy(update={"first": hostile, "second": hostile, "evidence": hostile})
    page = leak_page(graph_of(edge, abstained=(Abstention(episode_id=hostile, reason=hostile),)))
    assert "<script" not in page
    assert any(row[1:4] == [f"{hostile} (train)", f"{hostile} (test)", hostile] for row in rows_of(page))


def test_the_same_graph_gives_the_same_bytes_and_a_long_list_ends_with_how_many_more():
    many = graph_of(*(COPY.model_copy(update={"offset_s": float(second)}) for second in range(203)))
    assert leak_page(many) == leak_page(many)
    assert "and 3 more, in leak_graph.json" in leak_page(many)


def test_a_pair_that_could_not_be_compared_is_counted_named_and_told_why():
    short = PairAbstention(first="kitchen__ep1", second="garage__ep2", reason="too short to compare")
    rows = rows_of(leak_page(graph_of(pairs_abstained=(short,))))
    assert ["motion_disjoint", "kitchen__ep1 and garage__ep2", "too short to compare"] in rows
    header = next(row for row in rows if "Not compared" in row)
    [rule] = [dict(zip(header, row, strict=True)) for row in rows if "how the rig moved" in row]
    assert (rule["Sees from"], rule["Pairs compared"], rule["Not compared"]) == ("5 s", "2", "1")


def test_a_page_without_a_leak_is_not_headed_so_where_a_rule_that_blocks_compared_no_pair():
    short = [PairAbstention(first=f"a{n}", second=f"b{n}", reason="too short") for n in range(3)]
    page = leak_page(graph_of(pairs_abstained=tuple(short)))
    assert "No leak blocks" not in page
    assert "<h1>No leak was found, but motion_disjoint compared 0 of 3 pairs</h1>" in page
    assert "motion_disjoint compared 0 of 3 pairs, so it proves nothing; 0 more leaks" in page
    partly = leak_page(graph_of(pairs_abstained=tuple(short[:1])))
    assert "<h1>No leak blocks this split</h1>" in partly
    assert "motion_disjoint: 1 of 3 pairs not compared" in partly


def test_a_page_with_a_leak_also_says_which_rule_compared_no_pair():
    blind = RuleReport(
        rule="sound_disjoint",
        layer="near_duplicate",
        blocks=True,
        looks_at="sound",
        sees_from="5 s",
        pairs=0,
        pairs_not_compared=3,
        edges=0,
    )
    graph = graph_of(COPY)
    page = leak_page(graph.model_copy(update={"rules": (*graph.rules, blind)}))
    assert "<h1>1 leaks block this split</h1>" in page
    assert "sound_disjoint compared 0 of 3 pairs, so it proves nothing" in page
    warns = blind.model_copy(update={"blocks": False})
    page = leak_page(graph_of().model_copy(update={"rules": (warns,)}))
    assert "<h1>No leak blocks this split</h1>" in page
    assert "sound_disjoint: 3 of 3 pairs not compared" in page
