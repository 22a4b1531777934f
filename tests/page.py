"""``docs/add_a_backbone.md`` as a stranger follows it: its commands, its blocks, the files they belong in."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "add_a_backbone.md"
PACKAGE = "omni_mlflow/backbones/sensor_centroids/__init__.py"
CONTRACT = "contracts/sensor_centroids.yaml"


@cache
def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text(), re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every command of the page in its order, as words."""
    return [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]


def package() -> str:
    """The blocks of code one after the other: what begins at the margin has two empty lines before it."""
    joined = ""
    for block in blocks("python"):
        joined += f"{'' if not joined else chr(10) if block.startswith(' ') else chr(10) * 2}{block}"
    return joined


def contract(scaffolded: str) -> str:
    """A contract in which each section of the page's YAML has replaced the one of the same name."""
    [block] = blocks("yaml")
    for section in re.split(r"\n\n(?=\w)", block.strip("\n")):
        name = section.partition(":")[0]
        there = re.compile(rf"^{name}:.*\n(?:(?: .*|)\n)*?(?=^\w|\Z)", re.MULTILINE)
        blank = "" if name in ("status", "default_model_id") else "\n"
        scaffolded, count = there.subn(lambda _, new=section, end=blank: f"{new}\n{end}", scaffolded)
        assert count == 1, f"{count} sections {name!r} in the contract"
    return scaffolded


def apply(project: Path) -> None:
    """Do in a copy of the project what the page says is to be written by hand."""
    target = project / CONTRACT
    target.write_text(contract(target.read_text(encoding="utf-8")), encoding="utf-8")
    (project / PACKAGE).write_text(package(), encoding="utf-8")
