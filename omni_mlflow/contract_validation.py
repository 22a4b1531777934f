"""Checks the contracts of a folder: all that is wrong with all of them at once, file by file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from omni_mlflow.backbone_lookup import own_backbones
from omni_mlflow.contract import ContractError, nearest
from omni_mlflow.contract.file import contradictions, parse_contract, with_profile
from omni_mlflow.contract.minimum_evidence import found_at, texts_at
from omni_mlflow.contract.published import published_issues
from omni_mlflow.contract.text import read_document
from omni_mlflow.registry import binding_issues, unknown_names

if TYPE_CHECKING:
    from rich.table import Table

_SPECIFIED = ("cosmos_world_model", "policy_vla_branch", "qwen3_omni_lora")

SCHEMA = "schema.json"
"""Lies beside the contracts, for editors; it is none."""


class ContractReport(BaseModel):
    """What was found out about one contract.

    Attributes:
        id: the name of its file.
        status: what the file says of itself; ``missing`` or ``unreadable`` where it says nothing.
        checked: ``code`` when every name was looked up in the code of its backbone; ``form only`` for a
            planned contract, whose names are looked up in the shared code, or where names were not to be
            looked up; ``published form only`` for the published JSON, in which prose stands for names.
        issues: one sentence for each thing that is wrong.
    """

    id: str
    status: str
    checked: Literal["nothing", "form only", "published form only", "code"]
    issues: list[str]


def validate_contracts(
    folder: Path, *, only: str | None, bind_names: bool, must_have: Mapping[str, str] = MappingProxyType({})
) -> list[ContractReport]:
    """Check every contract of ``folder``: its form, and with ``bind_names`` every name in it.

    Args:
        must_have: ids of contracts that may not be missing, and why not.

    Returns:
        One report per file or missing contract, sorted by id.

    Raises:
        ContractError: the folder does not exist or holds no contract, or none of the name ``only``.
    """
    paths = sorted(path for path in folder.glob("*") if _may_be_a_contract(path))
    if not paths and not must_have:
        raise ContractError(f"{folder}: no contract (*.yaml, or the published *.json) in this folder")
    documents = {path: _read(path) for path in paths}
    reports = [_checked(path, found, bind_names=bind_names) for path, found in documents.items()]
    _report_doubled_ids(documents, reports)
    reports += [
        ContractReport(
            id=name,
            status="missing",
            checked="nothing",
            issues=[f"{folder / name}.yaml is missing: {must_have[name]}"],
        )
        for name in set(must_have) - {path.stem for path in paths}
    ]
    if only is not None:
        names = {report.id for report in reports}
        reports = [report for report in reports if report.id == only]
        if not reports:
            raise ContractError(f"no contract {only!r} in {folder}; {nearest(only, names)}")
    return sorted(reports, key=lambda report: report.id)


def contracts_of_the_project() -> dict[str, str]:
    """The ids that the project's own folder must hold a contract of, and why."""
    built = {
        name: f"omni_mlflow/backbones/{name} is a backbone without a contract" for name in own_backbones()
    }
    return {**built, **dict.fromkeys(_SPECIFIED, "the specification asks for this contract")}


def as_table(reports: Sequence[ContractReport]) -> Table:
    """The reports for people: a line per contract, its issues below one another."""
    from rich import box
    from rich.table import Column, Table
    from rich.text import Text

    table = Table("", "backbone", "status", "checked", Column("issues", overflow="fold"), box=box.SIMPLE)
    for report in reports:
        verdict = Text("FAIL", "bold red") if report.issues else Text("ok", "green")
        table.add_row(
            verdict, report.id, report.status, report.checked, Text("\n".join(report.issues) or "none")
        )
    return table


def _may_be_a_contract(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml", ".json") and path.name != SCHEMA


def _read(path: Path) -> dict[str, Any] | ContractError:
    try:
        return read_document(path)
    except ContractError as error:
        return error


def _checked(path: Path, document: dict[str, Any] | ContractError, *, bind_names: bool) -> ContractReport:
    report = ContractReport(id=path.stem, status="unreadable", checked="nothing", issues=[])
    if isinstance(document, ContractError):
        report.issues += document.issues
        return report
    report.status = str(document.get("status"))
    if path.suffix == ".yml":
        report.issues.append(f"{path.name}: a contract is read from {path.stem}.yaml; rename it")
    if document.get("id") != path.stem:
        report.issues.append(f"id {document.get('id')!r} is not the name of its file, {path.stem!r}")
    if path.suffix == ".json":
        report.checked = "published form only"
        report.issues += published_issues(document)
    else:
        report.checked = "code" if bind_names and report.status == "implemented" else "form only"
        report.issues += _issues_with_profiles(document, bind_names=bind_names)
    return report


def _issues_with_profiles(document: Mapping[str, Any], *, bind_names: bool) -> list[str]:
    """What is wrong with a contract as it stands, and what each profile adds to that."""
    issues = [*_issues(document, bind_names=bind_names), *contradictions(document)]
    profiles = found_at(document, "profiles")
    for profile in profiles if isinstance(profiles, Mapping) else ():
        try:
            found = _issues(with_profile(document, profile), bind_names=bind_names)
        except ContractError as error:
            found = list(error.issues)
        issues += [f"profile {profile!r}: {issue}" for issue in found if issue not in issues]
    return issues


def _issues(document: Mapping[str, Any], *, bind_names: bool) -> list[str]:
    try:
        parse_contract(document, where="")
        issues: list[str] = []
    except ContractError as error:
        issues = list(error.issues)
    if bind_names:
        implemented = document.get("status") == "implemented"
        try:
            issues += binding_issues(document) if implemented else unknown_names(document, None)
        except (Exception, SystemExit) as error:  # the code of one backbone hides no other contract
            issues.append(f"its code cannot be judged: {type(error).__name__}: {error}")
    return issues


def _report_doubled_ids(
    documents: Mapping[Path, dict[str, Any] | ContractError], reports: Sequence[ContractReport]
) -> None:
    """Two files with one id: whoever names that id could mean either."""
    files = defaultdict(list)
    for (path, document), report in zip(documents.items(), reports, strict=True):
        for declared in texts_at(document, "id"):
            files[declared].append((path, report))
    for declared, same in files.items():
        for path, report in same:
            if others := ", ".join(other.name for other, _ in same if other is not path):
                report.issues.append(f"id {declared!r} is also the id of {others}")
