"""What the verbs that are no stage may be told, and how the texts that a person types become values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from omni_mlflow.stage_options import JSON, WORKSPACE, outer_run

if TYPE_CHECKING:
    from omni_mlflow.comparison import Comparing

CONTRACTS_OPTIONS: list[click.Parameter] = [
    click.Option(["--validate"], is_flag=True, help="Look up every name in the code."),
    click.Option(["--schema"], is_flag=True, help="Print the JSON Schema of a contract."),
    click.Option(["--backbone"], default="none", help="Only this one."),
    click.Option(
        ["--contracts-dir"],
        default="none",
        help="A folder of contracts, also of published JSON ones; none: the project's own.",
    ),
    JSON,
]
SCAFFOLD_OPTIONS = [
    click.Option(["--template-backbone"], required=True, help="Id of the contract to begin from."),
    click.Option(["--id"], required=True, help="Name of the new contract and its package."),
    click.Option(["--display-name"], required=True),
    click.Option(["--model-family"], required=True),
    click.Option(["--dataset-contract"], required=True),
    click.Option(["--training-objective"], required=True),
    click.Option(["--checkpoint-gate"], required=True, help="Name of its check of a checkpoint."),
    click.Option(
        ["--status"],
        type=click.Choice(["planned_adapter", "implemented"]),
        default="planned_adapter",
        show_default=True,
        help="implemented: the code is there already, only the contract is written.",
    ),
    click.Option(["--overwrite"], is_flag=True, help="Replace files that are there already."),
    click.Option(["--dry-run"], is_flag=True, help="Say what would be written; write nothing."),
    JSON,
]
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
SCORE_OPTIONS = [
    click.Option(["--predictions"], type=_FILE, required=True, help="JSONL of published prediction rows."),
    click.Option(
        ["--label-options"], type=_FILE, required=True, help="JSON list of the actions offered to the model."
    ),
    click.Option(
        ["--train-labels"],
        type=_FILE,
        help="JSON list with the action of each train sample, or fitted.json of a checkpoint.",
    ),
    click.Option(
        ["--declared-classes"],
        type=_FILE,
        help="JSON list of the classes of supported_class_macro_f1, or label_ledger.json of an evaluation.",
    ),
    click.Option(["--engine"], help="What answered: vllm-0.11, an API, …; written beside the numbers."),
    click.Option(
        ["--out"], type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write to."
    ),
    JSON,
]
HEAL_OPTIONS: list[click.Parameter] = [
    click.Option(
        ["--end"],
        multiple=True,
        metavar="RUN_ID",
        help="End this run too, or free a finished one: you know that nobody works on it.",
    ),
    WORKSPACE,
    JSON,
]
COMPARE_OPTIONS: list[click.Parameter] = [
    click.Argument(["run"], nargs=-1),
    click.Option(["--runs"], default="none", help="The same with commas, for `mlflow run`."),
    click.Option(["--out"], default="none", help="Folder for the files; none: they stay with the run."),
    WORKSPACE,
    JSON,
]


def comparing_of(given: Mapping[str, Any], *, project: Path) -> Comparing:
    """Read what a person typed for ``compare``.

    Raises:
        BadParameter: no run is named, or a value cannot be used.
    """
    from omni_mlflow.comparison import Comparing
    from omni_mlflow.tracking import store_uri

    runs = (*given["run"], *_listed(given["runs"]))
    if not runs:
        raise click.BadParameter("name run ids, workspaces or folders of backbones", param_hint="RUN")
    for option in ("workspace", "out"):
        if Path(given[option]).is_file():
            raise click.BadParameter(f"{given[option]} is a file; name a folder", param_hint=f"--{option}")
    return Comparing(
        runs=runs,
        project=project,
        workspace=Path(given["workspace"]).resolve(),
        store=store_uri(project),
        out=None if given["out"] in ("", "none") else Path(given["out"]).resolve(),
        outer=outer_run(),
    )


def _listed(text: str) -> list[str]:
    return [] if text in ("", "none") else [part.strip() for part in text.split(",")]
