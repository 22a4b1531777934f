"""split: give each session to train, val or test; its episodes inherit the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from omni_mlflow.contract import Contract
from omni_mlflow.spine.given import GivenFile, named_episodes
from omni_mlflow.spine.given_splits import GivenSplit, hold_against
from omni_mlflow.spine.rows import digest_of, read_rows, write_document
from omni_mlflow.spine.splits import SplitBand, splits_of, stratified_bands
from omni_mlflow.spine.types import Check, Episode, Skip, Split
from omni_mlflow.stages.base import Options, Report, Run, Stage
from omni_mlflow.stages.manifests import SplitManifest, selected_episodes


def _split(run: Run) -> Report:
    episodes = selected_episodes(run)
    given = run.options.split_manifest
    if given is not None:
        found = _verified(run, episodes, given)
        kept = _placed(episodes, found.split_of)
        manifest = _manifest(run, kept, rule="given", given=f"{given.name} sha256:{given.digest}")
        return _report(run, manifest, skips=found.skips, failures=found.checks, taken=found.taken)
    policy = run.contract.split_policy
    bands = stratified_bands(episodes, sizes=policy.default_counts.by_split(), seed=_seed(run))
    split_of = splits_of(bands, seed=_seed(run))
    by_episode = {each.episode_id: split_of.get(each.session_id) for each in episodes}
    kept = _placed(episodes, by_episode)
    reason = f"not needed: {policy.default_counts} sessions asked"
    left_out = [
        Skip(subject=name, stage=run.stage, reason=reason)
        for name, split in by_episode.items()
        if split is None
    ]
    manifest = _manifest(run, kept, rule="stratified", bands=bands)
    return _report(run, manifest, skips=left_out, failures=[], taken=len(episodes))


def _seed(run: Run) -> int:
    asked = run.options.split_seed
    return run.contract.split_policy.seed if asked is None else asked


def _verified(run: Run, episodes: list[Episode], given: GivenFile) -> GivenSplit:
    rejections = run.open_if_made("select", "skipped_episodes.jsonl")
    rejected = {skip.subject: skip.reason for skip in read_rows(rejections, Skip)} if rejections else {}
    sizes = run.contract.split_policy.default_counts.by_split()
    return hold_against(named_episodes(given), episodes, rejected=rejected, sizes=sizes)


def _placed(episodes: list[Episode], split_of: Mapping[str, Split | None]) -> tuple[Episode, ...]:
    return tuple(
        each.model_copy(update={"split": split})
        for each in episodes
        if (split := split_of.get(each.episode_id)) is not None
    )


def _manifest(
    run: Run,
    kept: tuple[Episode, ...],
    *,
    rule: Literal["stratified", "given"],
    bands: tuple[SplitBand, ...] = (),
    given: str | None = None,
) -> SplitManifest:
    policy = run.contract.split_policy
    return SplitManifest(
        rule=rule,
        given=given,
        seed=_seed(run),
        sizes=policy.default_counts.by_split(),
        bands=bands,
        digest=digest_of(sorted((each.episode_id, each.split) for each in kept)),
        episodes=kept,
    )


def _report(
    run: Run, manifest: SplitManifest, *, skips: list[Skip], failures: list[Check], taken: int
) -> Report:
    out = run.folder / "split_manifest.json"
    write_document(out, manifest)
    counts = Counter(each.split for each in manifest.episodes)
    return Report(
        outputs=[out],
        artifacts={"": [out]},
        metrics={
            "rows/size_bands": len(manifest.bands),
            **{f"rows/episodes_{split}": counts[split] for split in Split},
        },
        tags={"omni.split_digest": manifest.digest[:16]},
        failures=failures,
        skipped=skips,
        taken=taken,
        made=len(manifest.episodes),
    )


def _settings(contract: Contract) -> Mapping[str, Any]:
    policy = contract.split_policy
    return {"sizes": str(policy.default_counts), "split_seed": policy.seed}


def _choices(options: Options) -> Mapping[str, Any]:
    given, seed = options.split_manifest, options.split_seed
    choices: dict[str, Any] = {} if seed is None else {"split_seed": seed}
    return (
        {**choices, "split_manifest": given.name, "split_manifest_digest": given.digest} if given else choices
    )


SPLIT = Stage(
    name="split",
    run=_split,
    rows="episodes",
    inputs={"select": ("selection.json", "episodes.jsonl", "skipped_episodes.jsonl")},
    settings=_settings,
    choices=_choices,
    per_backbone=False,
    makes=("split_manifest.json",),
)
