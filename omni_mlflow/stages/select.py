"""select: which episodes of a data root or a listing are complete, and why each other one is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni_mlflow.contract import Contract
from omni_mlflow.spine.given import named_episodes
from omni_mlflow.spine.rows import digest_of, file_digest, write_document, write_rows, write_table, write_text
from omni_mlflow.spine.types import SCHEMA_VERSION, Episode
from omni_mlflow.stages.base import Listing, Options, Report, Run, Stage

if TYPE_CHECKING:
    from omni_mlflow.spine.size_bands import SizeBandRule


def _select(run: Run) -> Report:
    listing = run.options.listing
    return _scan(run) if listing is None else _plan_a_download(run, listing)


def _scan(run: Run) -> Report:
    """Read every episode below the data root, or those that a selection names."""
    from omni_mlflow.spine.selection import episode_id_of, list_episode_folders, scan_data_root, wanted_bytes

    root = run.options.data_root or run.options.synthetic_root
    given = run.options.selection
    wanted = {each.episode_id: wanted_bytes(each.values) for each in named_episodes(given)} if given else None
    folders = list_episode_folders(root)
    absent = set(wanted or ()) - {episode_id_of(folder, root) for folder in folders}
    advance = run.bar.start("scan episodes", total=len(folders))
    seen = 0

    def on_episode(_: str) -> None:
        nonlocal seen
        seen += 1
        advance(seen)

    episodes, skips = scan_data_root(root, wanted=wanted, on_episode=on_episode)
    synthetic = any(episode.synthetic for episode in episodes)
    summary = {
        "data_root": str(root),
        "selection": f"{given.name} sha256:{given.digest}" if given else None,
        "found": len(folders) + len(absent),
        "selected": len(episodes),
        "rejected": len(skips),
        "synthetic": synthetic,
        "bytes": sum(episode.size_bytes for episode in episodes),
    }
    write_rows(run.folder / "episodes.jsonl", episodes)
    shown = _write(run, summary, [_row(episode) for episode in episodes])
    if given:  # it may come from a folder of this workspace that was set aside for this run
        shown.append(run.folder / f"plan{Path(given.name).suffix}")
        write_text(shown[-1], given.text)
    return Report(
        outputs=[*shown, run.folder / "episodes.jsonl"],
        artifacts={"": shown},
        tags={"omni.evidence": "synthetic"} if synthetic else {},
        skipped=skips,
        taken=len(folders) + len(absent),
        made=len(episodes),
    )


def _plan_a_download(run: Run, listing: Listing) -> Report:
    """Pick a pilot from sizes alone; nothing is here yet to be read, so there is no ``episodes.jsonl``."""
    from omni_mlflow.spine.listing import complete_episodes, read_listing
    from omni_mlflow.spine.size_bands import measure, pick, published_fields

    listed = read_listing(listing.path)
    complete, incomplete = complete_episodes(listed)
    rule = _rule(listing)
    sizes = measure(complete, rule)
    picked, others, unfilled = pick(complete, sizes, rule)
    rows = [published_fields(each) for each in picked]
    summary = {
        "data_root": None,
        "listing": f"{listing.path.name} sha256:{file_digest(listing.path)}",
        "found": len(listed),
        "complete": len(complete),
        "selected": len(picked),
        "rejected": len(incomplete) + len(others),
        "synthetic": False,
        "bytes": sum(each.episode.training_bytes for each in picked),
        "rule": asdict(rule),
        "size_statistics": asdict(sizes),
        "episodes": rows,
    }
    shown = _write(run, summary, [{key: _cell(value) for key, value in row.items()} for row in rows])
    return Report(
        outputs=shown,
        artifacts={"": shown},
        failures=unfilled,
        skipped=[*incomplete, *others],
        taken=len(listed),
        made=len(picked),
    )


def _rule(listing: Listing) -> SizeBandRule:
    from omni_mlflow.spine.size_bands import SizeBandRule

    return SizeBandRule(
        per_band=listing.per_band,
        num_bands=listing.bands,
        min_annotation_bytes=listing.min_bytes,
        tie_seed=listing.tie_seed,
        split_seed=listing.split_seed,
    )


def _write(run: Run, summary: Mapping[str, Any], rows: list[dict[str, Any]]) -> list[Path]:
    shown = [run.folder / "selection.json", run.folder / "selection.csv"]
    write_document(shown[0], {"schema_version": SCHEMA_VERSION, **summary})
    write_table(shown[1], rows)
    return shown


def _row(episode: Episode) -> dict[str, Any]:
    return {
        "episode_id": episode.episode_id,
        "session_id": episode.session_id,
        "path": episode.path,
        "num_frames": episode.num_frames,
        "fps": f"{episode.fps:.4f}",
        "bytes": episode.size_bytes,
        "missing_modalities": " ".join(sorted(episode.missing_modalities)),
    }


def _cell(value: Any) -> Any:
    return " ".join(value) if isinstance(value, list) else value


def _settings(_: Contract) -> Mapping[str, Any]:
    return {}


def _choices(options: Options) -> Mapping[str, Any]:
    """What is selected from, as it is now: any file that is added, replaced or touched is a new selection."""
    from omni_mlflow.spine.listing import check_listing
    from omni_mlflow.spine.selection import state_of_files

    if (listing := options.listing) is not None:
        check_listing(listing.path)
        return {**asdict(listing), "path": str(listing.path), "listing_digest": file_digest(listing.path)}
    root = options.data_root or options.synthetic_root
    chosen = {"data_root": str(root), "listing_digest": digest_of(state_of_files(root))}
    given = options.selection
    return {**chosen, "selection": given.name, "selection_digest": given.digest} if given else chosen


SELECT = Stage(
    name="select",
    run=_select,
    rows="episodes",
    inputs={},
    settings=_settings,
    choices=_choices,
    per_backbone=False,
)
