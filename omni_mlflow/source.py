"""Which state of the code made a run, as far as git can tell."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git_tags(project: Path) -> dict[str, str]:
    """Return commit, branch and whether files differ from the commit, as the tags MLflow uses.

    Empty where there is no git or the project is no work tree: the code digest of each stage stays.
    """
    commit = _git(project, "rev-parse", "HEAD")
    if commit is None:
        return {}
    branch = _git(project, "rev-parse", "--abbrev-ref", "HEAD") or "HEAD"
    changed = _git(project, "status", "--porcelain", "--untracked-files=no")
    return {
        "mlflow.source.git.commit": commit,
        "mlflow.source.git.branch": branch,
        "mlflow.source.git.dirty": "true" if changed else "false",
    }


def _git(project: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(project), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
