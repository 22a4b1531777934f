"""guard: the manifest is complete, and no content is shared between train, val and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from omni_mlflow.code_digest import code_digest
from omni_mlflow.contract import Contract
from omni_mlflow.spine.fingerprints import (
    Fingerprint,
    Fingerprints,
    FingerprintStore,
    fingerprint_episode,
    known_fingerprint,
)
from omni_mlflow.spine.leak_graph import Leak, LeakGraph
from omni_mlflow.spine.leaks import find_leaks
from omni_mlflow.spine.processes import each_in_a_process
from omni_mlflow.spine.rows import read_document, write_document, write_text
from omni_mlflow.spine.types import Check, Episode, Split
from omni_mlflow.stages.base import Options, Report, Run, Stage
from omni_mlflow.stages.manifests import EpisodeManifest, SplitManifest, check_files, data_root_of
from omni_mlflow.suite_result import SuiteResult
from omni_mlflow.workspace import StageFolder

FINGERPRINT_FOLDER = "fingerprints"
"""Below the workspace: what was read of the data, so that it is read once whatever is split how often."""

MADE = ("episode_manifest.json", "leak_graph.json", "leak_graph.html")


def _guard(run: Run) -> Report:
    from omni_mlflow.expectations import write_suite_result
    from omni_mlflow.reporting.leak_page import leak_page

    manifest = read_document(run.open("split", "split_manifest.json"), SplitManifest)
    prints = _fingerprints(run, manifest.episodes)
    _check_data(run.options, run.inputs)  # once more: reading every byte may take hours
    episodes = tuple(
        episode.model_copy(update={"digest": prints[episode.episode_id].digest})
        for episode in manifest.episodes
    )
    graph = find_leaks(episodes, prints, blocking=run.contract.split_policy.leakage_guard)
    for gap in graph.gaps:
        run.say(f"{gap}: no leak is found where none could be looked for; {MADE[2]} says why")
    suite = _checked(run, episodes, graph)
    pages = write_suite_result(suite, run.folder / "validation")
    listed, edges, page = shown = [run.folder / name for name in MADE]
    synthetic = any(episode.synthetic for episode in episodes)
    write_document(
        listed, EpisodeManifest(split_digest=manifest.digest, synthetic=synthetic, episodes=episodes)
    )
    write_document(edges, graph)
    write_text(page, leak_page(graph))
    counts = Counter(episode.split for episode in episodes)
    return Report(
        outputs=[*shown, *pages],
        artifacts={"": shown, "validation": pages},
        metrics={
            "checks/leaks": len(graph.blocking),
            "checks/leak_warnings": len(graph.edges) - len(graph.blocking),
            "checks/pairs_not_compared": sum(rule.pairs_not_compared for rule in graph.rules if rule.blocks),
            **{f"rows/episodes_{split}": counts[split] for split in Split},
        },
        failures=[*suite.failures(), *map(_leak_check, graph.blocking), *_changed_files(prints)],
        taken=len(manifest.episodes),
        made=len(episodes),
    )


def _fingerprints(run: Run, episodes: Sequence[Episode]) -> dict[str, Fingerprint]:
    """Return the fingerprint of every episode by its id; files that were read before are not read again."""
    data_root = data_root_of(run)
    store = FingerprintStore(
        run.workspace.root / FINGERPRINT_FOLDER, code_digest("omni_mlflow.spine.fingerprints")
    )
    id_of = {data_root / episode.path: episode.episode_id for episode in episodes}
    anew = run.options.verify_digests
    known = {folder: None if anew else known_fingerprint(folder, store) for folder in id_of}
    prints = {id_of[folder]: found for folder, found in known.items() if found is not None}
    to_read = [folder for folder, found in known.items() if found is None]
    if not to_read:
        return prints
    advance = run.bar.start("read every byte", total=len(id_of), done=len(prints))
    work = partial(fingerprint_episode, store=store, anew=anew)
    for folder, found in each_in_a_process(work, to_read, workers=run.options.workers):
        prints[id_of[folder]] = found
        advance(len(prints))
    return prints


def _checked(run: Run, episodes: Sequence[Episode], graph: LeakGraph) -> SuiteResult:
    from omni_mlflow.expectations import check_suite
    from omni_mlflow.frames import manifest_frame

    counts = run.contract.split_policy.default_counts.by_split()
    return check_suite(
        run.suites / "episode_manifest.yaml",
        manifest_frame(episodes, graph),
        parameters={f"num_{split}": size for split, size in counts.items()},
    )


def _leak_check(leak: Leak) -> Check:
    first = f"{leak.first} ({leak.first_split})"
    if leak.second is None:
        remedy = "move its folder out of the data root, then begin at 'select'"
        return Check(
            rule=leak.rule,
            subject=first,
            expected="an episode that can be told apart from those of other splits",
            found=f"{leak.evidence}; {remedy}",
            ok=False,
        )
    return Check(
        rule=leak.rule,
        subject=f"{first} / {leak.second} ({leak.second_split})",
        expected="nothing shared between two splits",
        found=leak.evidence if leak.score is None else f"{leak.evidence}, score {leak.score:g}",
        ok=False,
    )


def _changed_files(prints: Fingerprints) -> Iterable[Check]:
    for episode_id, found in sorted(prints.items()):
        for name in found.changed_files:
            yield Check(
                rule="digests_verified",
                subject=f"{episode_id} {name}",
                expected="the bytes that were read before",
                found="other bytes under the same size and time of change; check the disk, run guard again",
                ok=False,
            )


def _check_data(options: Options, inputs: Mapping[str, StageFolder]) -> None:
    manifest = read_document(inputs["split"].open("split_manifest.json"), SplitManifest)
    selection = inputs["select"].open("selection.json")
    check_files(options, selection, manifest.episodes, since="'select' read them")


def _settings(contract: Contract) -> Mapping[str, Any]:
    policy = contract.split_policy
    return {"leakage_guard": list(policy.leakage_guard), "sizes": str(policy.default_counts)}


GUARD = Stage(
    name="guard",
    run=_guard,
    rows="episodes",
    inputs={"select": ("selection.json",), "split": ("split_manifest.json",)},
    settings=_settings,
    per_backbone=False,
    suites=("episode_manifest",),
    check_data=_check_data,
    looks_again=lambda ground: ground.options.verify_digests,
    makes=MADE,
)
