"""split: give each session to train, val or test; its episodes inherit the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from omni_mlflow.contract import Contract
from omni_mlflow.spine.rows import digest_of, read_rows, write_document
from omni_mlflow.spine.splits import assign_splits
from omni_mlflow.spine.types import Episode, Skip, Split
from omni_mlflow.stages.base import Report, Run, Stage
from omni_mlflow.stages.manifests import SplitManifest


def _split(run: Run) -> Report:
    episodes = list(read_rows(run.open("select", "episodes.jsonl"), Episode))
    policy = run.contract.split_policy
    sizes = policy.default_counts.by_split()
    split_of = assign_splits((each.session_id for each in episodes), sizes=sizes, seed=policy.seed)
    kept = tuple(
        each.model_copy(update={"split": split_of[each.session_id]})
        for each in episodes
        if each.session_id in split_of
    )
    left_out = [
        Skip(
            subject=each.episode_id,
            stage=run.stage,
            reason=f"not needed: {policy.default_counts} sessions asked",
        )
        for each in episodes
        if each.session_id not in split_of
    ]
    digest = digest_of(sorted((each.episode_id, each.split) for each in kept))
    manifest = SplitManifest(seed=policy.seed, sizes=sizes, digest=digest, episodes=kept)
    out = run.folder / "split_manifest.json"
    write_document(out, manifest)
    counts = Counter(each.split for each in kept)
    return Report(
        outputs=[out],
        artifacts={"": [out]},
        metrics={f"rows/episodes_{split}": counts[split] for split in Split},
        tags={"omni.split_digest": digest[:16]},
        skipped=left_out,
        taken=len(episodes),
        made=len(kept),
    )


def _settings(contract: Contract) -> Mapping[str, Any]:
    policy = contract.split_policy
    return {"sizes": str(policy.default_counts), "split_seed": policy.seed}


SPLIT = Stage(
    name="split",
    run=_split,
    rows="episodes",
    inputs={"select": ("episodes.jsonl",)},
    settings=_settings,
    per_backbone=False,
)
