"""What the stages of the command line may be told, and how the texts that a person types become values."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from omni_mlflow.contract import ContractError, SplitCounts
from omni_mlflow.shard_options import shard_of
from omni_mlflow.spine.given import GivenFile
from omni_mlflow.spine.types import SYNTHETIC_FRAMES
from omni_mlflow.stages.base import Listing, Options, Synthesis
from omni_mlflow.workspace_trouble import no_folder

if TYPE_CHECKING:
    from omni_mlflow.command import Request
    from omni_mlflow.context import OuterRun

SELECTION = click.Option(
    ["--selection"], default="none", help="CSV or JSONL that names the episodes to take."
)
SPLIT_MANIFEST = click.Option(["--split-manifest"], default="none", help="A split to verify and take over.")
_DRAWN_WITH = "What sessions are drawn with; none: split_policy.seed."
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
    click.Option(
        ["--frames"],
        type=click.IntRange(SYNTHETIC_FRAMES[0], SYNTHETIC_FRAMES[-1]),
        default=600,
        show_default=True,
    ),
    click.Option(["--seed"], type=int, default=7, show_default=True),
]


def _anomalies(*, default: str) -> click.Option:
    kinds = click.Choice(["none", "demo", "all"])
    told = "demo: three sessions are spoiled; all: one more for everything that can be wrong with one."
    return click.Option(["--anomalies"], type=kinds, default=default, show_default=True, help=told)


CLUSTER = click.Option(
    ["--cluster"], default="none", help="Dask scheduler, tcp://HOST:PORT; none: processes of this machine."
)
VERIFY_DIGESTS = click.Option(
    ["--verify-digests"],
    type=bool,
    is_flag=False,
    flag_value=True,
    default=False,
    show_default=True,
    help="Read every byte again, and compare with what was read before.",
)
RETRY_FAILED = click.Option(
    ["--retry-failed"],
    type=bool,
    is_flag=False,
    flag_value=True,
    default=False,
    show_default=True,
    help="Ask the samples again that a finished evaluation could not ask.",
)
LIMIT = click.Option(
    ["--limit"], type=click.IntRange(min=0), default=0, help="Ask only so many held-out samples; 0: all."
)
SHARD = [
    click.Option(
        ["--sample-offset"],
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Shard: number of the first held-out sample to ask.",
    ),
    click.Option(
        ["--sample-stride"],
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Shard: ask every so many-th sample from there; 'merge' joins the shards.",
    ),
]
EXTRA_OPTIONS = {
    "synthesize": [*SYNTHESIS_OPTIONS, _anomalies(default="none")],
    "select": FOR_SELECT,
    "split": [SPLIT_MANIFEST, click.Option(["--seed", "drawing_seed"], default="none", help=_DRAWN_WITH)],
    "main": [
        *SYNTHESIS_OPTIONS,
        _anomalies(default="demo"),
        CLUSTER,
        SELECTION,
        SPLIT_MANIFEST,
        click.Option(["--split-seed", "drawing_seed"], default="none", help=_DRAWN_WITH),
        LIMIT,
    ],
    "index": [
        CLUSTER,
        VERIFY_DIGESTS,
        click.Option(
            ["--dataset-jsonl"], default="none", help="Convert exported Qwen records; no episode is read."
        ),
    ],
    "guard": [VERIFY_DIGESTS],
    "evaluate": [LIMIT, *SHARD, RETRY_FAILED],
    "merge": [LIMIT],
    "validate": [
        click.Option(
            ["--require-stage"],
            type=click.Choice(["manifest", "dataset", "training", "eval"]),
            default="eval",
            show_default=True,
        ),
        click.Option(
            ["--run", "run_id"],
            default="none",
            help="Judge this run of the tracking store by what it shows, not the workspace.",
        ),
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
    "drawing_seed",
    "cluster",
    "dataset_jsonl",
    "run_id",
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
    per_band = _counts(given["per_band"], hint="--per-band")
    return Listing(
        path=Path(path).resolve(),
        per_band=per_band.by_split(),
        bands=given["bands"],
        min_bytes=given["min_bytes"],
        tie_seed=given["tie_seed"],
        split_seed=given["split_seed"],
    )


def _counts(text: str, *, hint: str) -> SplitCounts:
    try:
        return SplitCounts.parse(text)
    except ContractError as error:
        raise click.BadParameter(str(error), param_hint=hint) from error


def _drawing_seed(texts: Mapping[str, str | None]) -> int | None:
    """Read the seed of the split; None for the contract's."""
    text = texts["drawing_seed"]
    if text is None:
        return None
    if texts["split_manifest"]:
        raise click.BadParameter("a split that is given is not drawn", param_hint="--split-manifest")
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise click.BadParameter(f"{text!r} is no whole number from 0", param_hint="seed of the split")
    return int(text)


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


def request_of(name: str, given: Mapping[str, Any], *, project: Path) -> Request:
    """Read what a person typed for a stage or ``main``.

    Args:
        project: the folder that holds ``contracts/`` and ``expectations/``.

    Raises:
        BadParameter: a value cannot be used, such as a file where a folder must be.
    """
    from omni_mlflow.command import Request
    from omni_mlflow.tracking import store_uri

    if (trouble := no_folder(Path(given["workspace"]).absolute())) is not None:
        raise click.BadParameter(trouble, param_hint="--workspace")
    texts = {key: None if given.get(key) in ("", "none") else given.get(key) for key in TEXT_OPTIONS}
    records = Path(texts["dataset_jsonl"]).resolve() if texts["dataset_jsonl"] else None
    if records and not records.is_file():
        raise click.BadParameter(f"{records} is no file; name a dataset.jsonl", param_hint="--dataset-jsonl")
    synthesis = {key: given[key] for key in ("sessions", "frames", "seed", "anomalies") if key in given}
    return Request(
        command=name,
        project=project,
        workspace=Path(given["workspace"]).resolve(),
        store=store_uri(project),
        backbones=tuple(part.strip() for part in given["backbone"].split(",")),
        contract=Path(texts["contract"]).resolve() if texts["contract"] else None,
        profile=texts["profile"],
        sizes=_counts(texts["sizes"], hint="--sizes") if texts["sizes"] else None,
        changes=texts["changes"],
        options=Options(
            data_root=Path(texts["data_root"]).resolve() if texts["data_root"] else None,
            synthetic_root=Path(given["workspace"]).resolve() / "synthesize" / "episodes",
            listing=listing_of(texts, given),
            selection=given_file(texts, "selection"),
            split_manifest=given_file(texts, "split_manifest"),
            split_seed=_drawing_seed(texts),
            workers=given["workers"],
            cluster=texts["cluster"],
            dataset_jsonl=records,
            synthesis=Synthesis(**synthesis),
            limit=given.get("limit") or None,
            shard=shard_of(given),
            retry_failed=given.get("retry_failed", False),
            require_stage=given.get("require_stage", "eval"),
            verify_digests=given.get("verify_digests", False),
        ),
        outer=outer_run(),
    )


def outer_run() -> OuterRun | None:
    """The run that ``mlflow run`` has made for this process."""
    from omni_mlflow.context import OuterRun

    run_id = os.environ.get("MLFLOW_RUN_ID")
    return OuterRun(run_id, os.environ.get("MLFLOW_EXPERIMENT_ID")) if run_id else None
