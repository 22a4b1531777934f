"""What the policy's demo scores over three untrained bases: each trained and asked like the demo itself.

    python -m benchmarks.policy_learns WORKSPACE [--out FOLDER]

WORKSPACE is one in which ``omni-mlflow main --profile demo --backbone policy_vla_branch`` has run. Its data,
split, index and samples are copied for each base, so that the weights of the base are all that differs; then
``train``, ``gate`` and ``evaluate`` run as commands, tracked in a store of their own: minutes per base.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.policy_vla_branch.tiny_base import NARROW, build_tiny_base

SEEDS = (0, 1, 2)
BACKBONE = "policy_vla_branch"
SHARED = ("synthesize", "select", "split", "guard", "index", f"{BACKBONE}/export")
STAGES = ("train", "gate", "evaluate")
SHOWN = {
    "trajectory_mpjpe": "damped_velocity",
    "action_accuracy": "majority",
    "contact_accuracy": "same_as_now",
}
"""By metric the floor that it is compared with."""


def metrics_of(finished: Path, folder: Path, *, seed: int) -> dict[str, Any]:
    """Train a base of ``seed`` on the samples of ``finished``; return the ``metrics.json`` of its answers.

    Raises:
        CalledProcessError: a stage failed; it has said why.
    """
    base, workspace = folder / "base", folder / "workspace"
    build_tiny_base(base, size=NARROW, seed=seed)
    for name in SHARED:
        shutil.copytree(finished / name, workspace / name)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    for stage in STAGES:
        options = ("--workspace", str(workspace), "--backbone", BACKBONE, "--profile", "demo")
        command = [sys.executable, "-m", "omni_mlflow", stage, *options, "--set", f"base.model={base}"]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((workspace / BACKBONE / "evaluate/metrics.json").read_text())
    return found


def row_of(metrics: Mapping[str, Any]) -> list[str]:
    """Return each metric with its difference from the floor, and what it is without the picture."""
    cells = []
    for name, floor in SHOWN.items():
        difference = metrics["baselines"][name]["differences"][floor]
        blank = metrics["controls"]["blank_image"][name]["value"]
        low, high = difference["low"], difference["high"]
        digits = 1 if name == "trajectory_mpjpe" else 3
        cells += [
            f"{metrics[name]:.{digits}f}",
            f"{difference['value']:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]",
            f"{blank:.{digits}f}",
        ]
    return cells


def main() -> None:
    """Print one row per base, as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--out", type=Path, help="a new folder that keeps the three workspaces")
    given = parser.parse_args()
    heads = [f"{name} | over {floor} | blank image" for name, floor in SHOWN.items()]
    print(f"| base | {' | '.join(heads)} |\n|---|{'---|' * 3 * len(SHOWN)}")
    with tempfile.TemporaryDirectory() as temporary:
        for seed in SEEDS:
            folder = (given.out or Path(temporary)) / f"base_{seed}"
            metrics = metrics_of(given.workspace, folder, seed=seed)
            print(f"| {seed} | {' | '.join(row_of(metrics))} |", flush=True)


if __name__ == "__main__":
    main()
