"""Options of the command line that say what to select and how to split: listings, plans, given splits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from omni_mlflow.contract import ContractError, SplitCounts
from omni_mlflow.spine.given import GivenFile
from omni_mlflow.stages.base import Listing

SELECTION = click.Option(
    ["--selection"], default="none", help="CSV or JSONL that names the episodes to take."
)
SPLIT_MANIFEST = click.Option(["--split-manifest"], default="none", help="A split to verify and take over.")
FOR_SELECT = [
    SELECTION,
    click.Option(
        ["--listing"], default="none", help="CSV or JSONL of path and bytes: select without the data."
    ),
    click.Option(
        ["--per-band"], default="24/4/4", show_default=True, help="Listing: TRAIN/VAL/TEST of each size band."
    ),
    click.Option(
        ["--bands"], type=click.IntRange(min=1), default=4, show_default=True, help="Listing: size bands."
    ),
    click.Option(
        ["--min-bytes"],
        type=click.IntRange(min=0),
        default=2**29,
        show_default=True,
        help="Listing: smallest annotation.",
    ),
    click.Option(["--tie-seed"], type=int, default=7, show_default=True, help="Listing: seed of the scores."),
    click.Option(["--split-seed"], type=int, default=108, show_default=True, help="Listing: of the split."),
]
FILES = ("listing", "selection", "split_manifest")
"""Names of the options that name a file."""


def listing_of(texts: Mapping[str, str | None], given: Mapping[str, Any]) -> Listing | None:
    """Read the options of a listing; None where none is given."""
    path = texts.get("listing")
    if path is None:
        return None
    for other in ("data_root", "selection", "sizes"):
        if texts[other] is not None:
            option = f"--{other.replace('_', '-')}"
            raise click.BadParameter(
                f"a listing is selected from without {option}; its sizes are --per-band", param_hint=option
            )
    try:
        per_band = SplitCounts.parse(given["per_band"])
    except (ContractError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint="--per-band") from error
    return Listing(
        path=Path(path).resolve(),
        per_band=per_band.by_split(),
        bands=given["bands"],
        min_bytes=given["min_bytes"],
        tie_seed=given["tie_seed"],
        split_seed=given["split_seed"],
    )


def given_file(texts: Mapping[str, str | None], name: str) -> GivenFile | None:
    """Read the file that an option names; None where none is given."""
    path = texts.get(name)
    if path is None:
        return None
    try:
        return GivenFile(Path(path).name, Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        hint = f"--{name.replace('_', '-')}"
        raise click.BadParameter(f"{path} cannot be read: {error}", param_hint=hint) from error
