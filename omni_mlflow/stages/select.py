"""select: which episodes of a data root are complete, and why each other one is left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omni_mlflow.contract import Contract
from omni_mlflow.spine.rows import digest_of, write_document, write_rows, write_table
from omni_mlflow.spine.types import SCHEMA_VERSION, Episode
from omni_mlflow.stages.base import Options, Report, Run, Stage


def _select(run: Run) -> Report:
    from omni_mlflow.spine.selection import list_episode_folders, scan_data_root

    root = run.options.data_root or run.options.synthetic_root
    total = len(list_episode_folders(root))
    advance = run.bar.start("scan episodes", total=total)
    seen = 0

    def on_episode(_: str) -> None:
        nonlocal seen
        seen += 1
        advance(seen)

    episodes, skips = scan_data_root(root, on_episode=on_episode)
    synthetic = any(episode.synthetic for episode in episodes)
    summary = {
        "schema_version": SCHEMA_VERSION,
        "data_root": str(root),
        "found": len(episodes) + len(skips),
        "selected": len(episodes),
        "rejected": len(skips),
        "synthetic": synthetic,
        "bytes": sum(episode.size_bytes for episode in episodes),
    }
    write_document(run.folder / "selection.json", summary)
    write_rows(run.folder / "episodes.jsonl", episodes)
    write_table(run.folder / "selection.csv", [_row(episode) for episode in episodes])
    shown = [run.folder / "selection.json", run.folder / "selection.csv"]
    return Report(
        outputs=[*shown, run.folder / "episodes.jsonl"],
        artifacts={"": shown},
        tags={"omni.evidence": "synthetic"} if synthetic else {},
        skipped=skips,
        taken=len(episodes) + len(skips),
        made=len(episodes),
    )


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


def _settings(_: Contract) -> Mapping[str, Any]:
    return {}


def _choices(options: Options) -> Mapping[str, Any]:
    """The data root as it is now: any file that is added, replaced or touched makes a new selection."""
    root = options.data_root or options.synthetic_root
    return {"data_root": str(root), "listing_digest": _listing_digest(root)}


def _listing_digest(root: Path) -> str:
    from omni_mlflow.spine.selection import EPISODE_FILES, list_episode_folders

    listing = []
    for folder in list_episode_folders(root):
        for path in (folder / name for name in EPISODE_FILES):
            if path.is_file():
                stat = path.stat()
                listing.append([path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns])
    return digest_of(listing)


SELECT = Stage(
    name="select",
    run=_select,
    rows="episodes",
    inputs={},
    settings=_settings,
    choices=_choices,
    per_backbone=False,
)
