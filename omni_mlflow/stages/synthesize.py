"""synthesize: write a small set of synthetic episodes in the real format, with a world worth learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omni_mlflow.contract import Contract
from omni_mlflow.spine.rows import write_document
from omni_mlflow.stages.base import Options, Report, Run, Stage


def _synthesize(run: Run) -> Report:
    from omni_mlflow.spine.synthetic import plan_episode_set, write_planned

    wanted = run.options.synthesis
    root = run.options.data_root or run.options.synthetic_root
    synthesis = plan_episode_set(
        sessions=wanted.sessions, frames=wanted.frames, seed=wanted.seed, anomalies=wanted.anomalies
    )
    advance = run.bar.start("write episodes", total=len(synthesis.episodes))
    written: list[str] = []

    def on_episode(name: str) -> None:
        written.append(name)
        advance(len(written))

    write_planned(root, synthesis, workers=run.options.workers, on_episode=on_episode)
    out = run.folder / "synthesis.json"
    write_document(out, synthesis)
    inside = root.is_relative_to(run.folder)
    return Report(
        outputs=[out, root] if inside else [out],
        artifacts={"": [out]},
        tags={"omni.evidence": "synthetic"},
        metrics={"rows/episodes_written": len(written)},
        taken=len(synthesis.episodes),
        made=len(written),
    )


def _settings(_: Contract) -> Mapping[str, Any]:
    return {}


def _choices(options: Options) -> Mapping[str, Any]:
    wanted = options.synthesis
    return {
        "sessions": wanted.sessions,
        "frames": wanted.frames,
        "synthesis_seed": wanted.seed,
        "anomalies": wanted.anomalies,
        "out": str(options.data_root or options.synthetic_root),
    }


SYNTHESIZE = Stage(
    name="synthesize",
    run=_synthesize,
    rows="episodes",
    inputs={},
    settings=_settings,
    choices=_choices,
    per_backbone=False,
    resumable=True,
)
