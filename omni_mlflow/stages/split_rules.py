"""Rules of the validator about split, guard and export: what was held out, and was it kept apart?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from omni_mlflow.spine.leak_graph import LeakGraph
from omni_mlflow.spine.rows import digest_of
from omni_mlflow.spine.types import Check
from omni_mlflow.stages.run_under_test import RunUnderTest, as_listed, check

_GRAPH = "guard/leak_graph.json"


def no_leak_between_splits(run: RunUnderTest) -> Iterable[Check]:
    """No edge blocks, and none is of a rule that the contract's guard names, whatever it says of itself.

    A rule that compared no pair breaks nothing, for tiny splits are allowed, but it is told.
    """
    graph, guard = _graph(run), run.contract.split_policy.leakage_guard
    leaks = [edge for edge in graph.edges if edge.blocks or edge.rule in guard]
    found = "; ".join((f"{len(leaks)} leaks", *graph.gaps))
    yield check("no_leak_between_splits", _GRAPH, "0 leaks", found, ok=not leaks)


def rules_of_the_guard_blocked(run: RunUnderTest) -> Iterable[Check]:
    """Every rule that the contract's guard names is in the leak graph, and could stop the pipeline."""
    blocked = {rule.rule for rule in _graph(run).rules if rule.blocks}
    wanted = sorted(run.contract.split_policy.leakage_guard)
    found = [name for name in wanted if name in blocked]
    yield check("rules_of_the_guard_blocked", _GRAPH, wanted, found)


def leak_graph_is_of_this_split(run: RunUnderTest) -> Iterable[Check]:
    """The nodes of the leak graph are the episodes of the split manifest, each in its split."""
    wanted = _placed(run.json("split", "split_manifest.json")["episodes"])
    found = sorted((node.episode_id, str(node.split)) for node in _graph(run).nodes)
    told = "the same" if found == wanted else f"{len(found)} others"
    yield check(
        "leak_graph_is_of_this_split",
        _GRAPH,
        f"the {len(wanted)} episodes of the split",
        told,
        ok=found == wanted,
    )


def _graph(run: RunUnderTest) -> LeakGraph:
    return LeakGraph.model_validate(run.json("guard", "leak_graph.json"))


def _placed(episodes: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return sorted((each["episode_id"], each["split"]) for each in episodes)


def sessions_are_disjoint(run: RunUnderTest) -> Iterable[Check]:
    per_split: dict[str, set[str]] = {}
    for episode in run.json("guard", "episode_manifest.json")["episodes"]:
        per_split.setdefault(episode["split"], set()).add(episode["session_id"])
    for left, right in combinations(sorted(per_split), 2):
        both = sorted(per_split[left] & per_split[right])
        yield check("sessions_are_disjoint", f"{left}/{right}", "no session in both", both, ok=not both)


def guarded_this_split(run: RunUnderTest) -> Iterable[Check]:
    split, guard = run.json("split", "split_manifest.json"), run.json("guard", "episode_manifest.json")
    subject = "guard/episode_manifest.json"
    yield check("guarded_this_split", subject, split["digest"], guard["split_digest"])
    episodes, guarded = _placed(split["episodes"]), _placed(guard["episodes"])
    found = "the same" if episodes == guarded else f"{len(guarded)} others"
    yield check(
        "guarded_every_episode", subject, f"the {len(episodes)} of the split", found, ok=episodes == guarded
    )


def dataset_is_of_this_split(run: RunUnderTest) -> Iterable[Check]:
    split = run.json("split", "split_manifest.json")["digest"]
    found = run.json("export", "dataset_manifest.json")["split_digest"]
    yield check("dataset_is_of_this_split", "export/dataset_manifest.json", split, found)


def sample_files_are_those_exported(run: RunUnderTest) -> Iterable[Check]:
    dataset = run.json("export", "dataset_manifest.json")
    files = dict(sorted(dataset["files"].items()))
    yield check(
        "dataset_digest_is_of_its_files", "export/dataset_manifest.json", dataset["digest"], digest_of(files)
    )
    for name, digest in files.items():
        yield as_listed(run, "sample_file_is_the_one_exported", "export", name, digest)
