"""What the stages of the command line may be told, and how the texts that a person types become values."""

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
WORKSPACE = click.Option(
    ["--workspace"], default="workspace", show_default=True, help="Folder of all stage outputs."
)
DATA_ROOT = click.Option(
    ["--data-root"], default="none", help="Folder of <session>/ep<k>/; none: the workspace's synthetic set."
)
OUT = click.Option(["--out", "data_root"], default="none", help="Where to write; none: into the workspace.")
JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print the result as JSON.")
# MLproject cannot hand over an empty value, so `none` stands for it everywhere.
STAGE_OPTIONS = [
    WORKSPACE,
    DATA_ROOT,
    click.Option(["--backbone"], default="qwen3_omni_lora", show_default=True, help="Ids, with commas."),
    click.Option(["--contract"], default="none", help="A contract file of your own."),
    click.Option(["--profile"], default="demo", show_default=True, help="Profile of the contract, or none."),
    click.Option(["--set", "changes"], default="none", help="lora.rank=8,training.steps=50"),
    click.Option(["--sizes"], default="none", help="Sessions per split: TRAIN/VAL/TEST."),
    click.Option(
        ["--workers"], type=click.IntRange(min=1), default=2, show_default=True, help="Processes per stage."
    ),
    JSON,
]
SYNTHESIS_OPTIONS = [
    click.Option(["--sessions"], type=click.IntRange(min=1), default=26, show_default=True),
    click.Option(["--frames"], type=click.IntRange(min=20), default=600, show_default=True),
    click.Option(["--seed"], type=int, default=7, show_default=True),
    click.Option(
        ["--anomalies"],
        type=click.Choice(["none", "demo", "all"]),
        default="demo",
        show_default=True,
        help="all: besides the clean sessions, an episode for everything that can be wrong with one.",
    ),
]
CLUSTER = click.Option(
    ["--cluster"], default="none", help="Dask scheduler, tcp://HOST:PORT; none: processes of this machine."
)
EXTRA_OPTIONS = {
    "synthesize": SYNTHESIS_OPTIONS,
    "select": FOR_SELECT,
    "split": [SPLIT_MANIFEST],
    "main": [*SYNTHESIS_OPTIONS, CLUSTER, SELECTION, SPLIT_MANIFEST],
    "index": [
        CLUSTER,
        click.Option(
            ["--dataset-jsonl"], default="none", help="Convert exported Qwen records; no episode is read."
        ),
    ],
    "guard": [
        click.Option(
            ["--verify-digests"],
            type=bool,
            is_flag=False,
            flag_value=True,
            default=False,
            show_default=True,
            help="Read every byte again, and compare with what was read before.",
        )
    ],
    "evaluate": [click.Option(["--limit"], type=click.IntRange(min=0), default=0, help="0: every sample.")],
    "validate": [
        click.Option(
            ["--require-stage"],
            type=click.Choice(["manifest", "dataset", "training", "eval"]),
            default="eval",
            show_default=True,
        )
    ],
}

TEXT_OPTIONS = (
    "listing",
    "selection",
    "split_manifest",
    "data_root",
    "contract",
    "profile",
    "changes",
    "sizes",
    "cluster",
    "dataset_jsonl",
)
"""Those whose value is a text; ``none`` and an empty one mean not given."""


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
