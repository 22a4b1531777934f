"""guard: the manifest is complete, and no content is shared between train, val and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from omni_mlflow.contract import Contract
from omni_mlflow.spine.fingerprints import Fingerprint, Leak, find_leaks, fingerprint_episode
from omni_mlflow.spine.processes import each_in_a_process
from omni_mlflow.spine.rows import read_document, write_document
from omni_mlflow.spine.types import SCHEMA_VERSION, Check, Episode, Split
from omni_mlflow.stages.base import Report, Run, Stage
from omni_mlflow.stages.manifests import EpisodeManifest, SplitManifest, data_root_of


def _guard(run: Run) -> Report:
    from omni_mlflow.expectations import check_suite, write_suite_result
    from omni_mlflow.frames import manifest_frame

    manifest = read_document(run.open("split", "split_manifest.json"), SplitManifest)
    prints = _fingerprints(run, manifest.episodes)
    episodes = tuple(
        episode.model_copy(update={"digest": prints[episode.episode_id].digest})
        for episode in manifest.episodes
    )
    leaks = find_leaks(episodes, prints, rules=run.contract.split_policy.leakage_guard)
    counts = Counter(episode.split for episode in episodes)
    wanted = {
        f"num_{split}": size for split, size in run.contract.split_policy.default_counts.by_split().items()
    }
    suite = check_suite(
        run.suites / "episode_manifest.yaml",
        manifest_frame(episodes),
        parameters=wanted,
    )
    pages = write_suite_result(suite, run.folder / "validation")
    shown = [run.folder / "episode_manifest.json", run.folder / "leak_graph.json"]
    write_document(
        shown[0],
        EpisodeManifest(
            split_digest=manifest.digest,
            synthetic=any(episode.synthetic for episode in episodes),
            episodes=episodes,
        ),
    )
    write_document(
        shown[1],
        {"schema_version": SCHEMA_VERSION, "leaks": [leak.model_dump(mode="json") for leak in leaks]},
    )
    return Report(
        outputs=[*shown, *pages],
        artifacts={"": shown, "validation": pages},
        metrics={"checks/leaks": len(leaks), **{f"rows/episodes_{split}": counts[split] for split in Split}},
        failures=[*suite.failures(), *_leak_checks(leaks)],
        taken=len(manifest.episodes),
        made=len(episodes),
    )


def _fingerprints(run: Run, episodes: Sequence[Episode]) -> dict[str, Fingerprint]:
    data_root = data_root_of(run)
    id_of = {data_root / episode.path: episode.episode_id for episode in episodes}
    advance = run.bar.start("read every byte", total=len(id_of))
    prints: dict[str, Fingerprint] = {}
    for folder, found in each_in_a_process(fingerprint_episode, id_of, workers=run.options.workers):
        prints[id_of[folder]] = found
        advance(len(prints))
    return prints


def _leak_checks(leaks: Sequence[Leak]) -> list[Check]:
    return [
        Check(
            rule=leak.rule,
            subject=f"{leak.first} ({leak.first_split}) / {leak.second} ({leak.second_split})",
            expected="nothing shared between two splits",
            found=leak.evidence,
            ok=False,
        )
        for leak in leaks
    ]


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
)
