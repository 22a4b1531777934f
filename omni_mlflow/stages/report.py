"""report: the facts of an evaluation as one page with figures and a few windows to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni_mlflow.contract import Contract
from omni_mlflow.spine.rows import read_document, read_json_rows, read_rows, write_text
from omni_mlflow.spine.types import Check, Split, Window, broken
from omni_mlflow.stages.base import Ground, Report, Run, Stage
from omni_mlflow.stages.manifests import media_root
from omni_mlflow.stages.seal_ledger import FACTS, opening_is_recorded

if TYPE_CHECKING:
    from omni_mlflow.reporting.contact_sheets import ContactSheet

NUM_SHEETS = 6
_FRAMES_PER_SHEET = 4
_OF_A_REPLY = ("pred_json", "raw_prediction")
_OF_EVERY_ROW = ("id", "episode_id", "split", "anchor")


def _report(run: Run) -> Report:
    from omni_mlflow.metrics.labels import action_pairs, confusion_rows, per_episode_rows
    from omni_mlflow.reporting.facts import RunFacts
    from omni_mlflow.reporting.figures import figures_of
    from omni_mlflow.reporting.hand_paths import HAND_PATHS, hand_paths_figure
    from omni_mlflow.reporting.page import render_page

    facts = read_document(run.open("evaluate", "run_facts.json"), RunFacts)
    predictions = list(read_json_rows(run.open("evaluate", run.model.predictions_file)))
    labelled = [row for row in predictions if "true_label" in row]
    figures = figures_of(
        facts,
        per_episode=per_episode_rows(labelled),
        confusion=confusion_rows(action_pairs(labelled)),
        progress=read_json_rows(run.open("train", "progress.jsonl")),
    )
    if HAND_PATHS in run.model.eval_files:
        paths = json.loads(run.open("evaluate", HAND_PATHS).read_text(encoding="utf-8"))
        figures.append(hand_paths_figure(paths))
    drawn = [run.folder / "figures" / f"{figure.name}.png" for figure in figures]
    for path, figure in zip(drawn, figures, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(figure.png)
    page = run.folder / "report.html"
    write_text(page, render_page(facts, figures=figures, contact_sheets=_sheets(run, predictions)))
    return Report(
        outputs=[page, *drawn],
        artifacts={"": [page], "figures": drawn},
        taken=len(figures),
        made=sum(path.is_file() for path in drawn),
    )


def _sheets(run: Run, predictions: Sequence[Mapping[str, Any]]) -> list[ContactSheet]:
    """Windows spread evenly over the predictions: neither the best nor the worst are picked."""
    chosen = predictions[:: max(1, len(predictions) // NUM_SHEETS)][:NUM_SHEETS]
    wanted = {row["id"] for row in chosen}
    windows = {
        window.id: window
        for window in read_rows(run.open("index", "window_index.jsonl"), Window)
        if window.id in wanted
    }
    return [_sheet(row, windows[row["id"]], media_root(run, Split.TEST)) for row in chosen]


def _sheet(row: Mapping[str, Any], window: Window, media: Path) -> ContactSheet:
    from omni_mlflow.reporting.contact_sheets import ContactSheet
    from omni_mlflow.spine.video import read_frames

    found = window.modalities.media
    shown = list(found.proxy_frames(window.span))[-_FRAMES_PER_SHEET:]
    frames = list(read_frames(media / found.proxy_video, shown)) if found.proxy_video and shown else []
    sources = ", ".join(str(position * found.grid_stride) for position in shown)
    return ContactSheet(
        sample_id=window.id,
        frames=frames,
        frames_are=f"source frames {sources}",
        question=f"Main task: {window.modalities.language.main_task or 'not told'}",
        answer=row.get("pred_json") or {},
        raw=None if row.keys().isdisjoint(_OF_A_REPLY) else row.get("raw_prediction") or "",
        truth=row.get("true_json") or {},
        columns={name: value for name, value in row.items() if name not in _OF_EVERY_ROW},
    )


def _unfounded(ground: Ground) -> list[Check]:
    """A page repeats what an evaluation claims, so the look that it rests on must be on record."""
    evaluation = json.loads(ground.open("evaluate", FACTS).read_text(encoding="utf-8"))
    return broken([opening_is_recorded(ground.workspace, evaluation)])


def _settings(_: Contract) -> Mapping[str, Any]:
    return {"sheets": NUM_SHEETS}


REPORT = Stage(
    name="report",
    run=_report,
    rows="figures",
    inputs={
        "index": ("window_index.jsonl",),
        "train": ("progress.jsonl",),
        "evaluate": ("run_facts.json", FACTS, "*predictions.jsonl", "hand_paths.json"),
    },
    settings=_settings,
    per_backbone=True,
    asks=("predictions_file", "eval_files"),
    admits=_unfounded,
)
