"""Begins a new backbone: a contract made from another one, and a package with every method still to build."""

from __future__ import annotations

import ast
import inspect
import json
import keyword
import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from omni_mlflow.backbone_lookup import installed_backbones, own_backbones
from omni_mlflow.backbones import base
from omni_mlflow.contract import CONTRACT_ID, ContractError
from omni_mlflow.contract.file import load_contract
from omni_mlflow.contract.text import read_document
from omni_mlflow.contract_validation import validate_contracts
from omni_mlflow.spine.rows import write_text
from omni_mlflow.stages import STAGES

_FOLDERS = ("runs", "superseded", "fingerprints")
"""Folders of a workspace beside those of backbones."""

_BUILD_IT = f"Build every method as {base.PAGE} says."

PLANNED, IMPLEMENTED = "planned_adapter", "implemented"


class ScaffoldError(Exception):
    """A new backbone cannot be begun as it was asked for; nothing was written."""


@dataclass(frozen=True)
class NewBackbone:
    """What the user asked for; every field but the first is a line of the new contract.

    Attributes:
        template: id of the contract to begin from.
        status: ``implemented`` only where an installed package or a folder holds the code already.
    """

    template: str
    id: str
    display_name: str
    model_family: str
    dataset_contract: str
    training_objective: str
    checkpoint_gate: str
    status: str


def planned_files(new: NewBackbone, *, project: Path) -> dict[Path, str]:
    """Return the text of every file of the new backbone; nothing is written.

    Where its code is there already, or an installed package brings it, that is the contract alone.

    Raises:
        ContractError: there is no such template; it names the nearest one.
        ScaffoldError: the id cannot be one, somebody has built what it names, or the contract would not be
            valid, with every reason.
    """
    _check_id(new)
    contract = project / "contracts" / f"{new.id}.yaml"
    package = project / "omni_mlflow" / "backbones" / new.id / "__init__.py"
    _check_nothing_built(new, contract, package)
    template = contract.parent / f"{new.template}.yaml"
    load_contract(template)
    text = contract_text(template.read_text(encoding="utf-8"), new)
    if issues := _issues(text, new.id):
        advice = (
            f"; with --status {PLANNED} it is written as it is, for you to edit until contracts --validate "
            f"finds nothing under status: {IMPLEMENTED}"
        )
        told = advice if new.status == IMPLEMENTED else ""
        raise ScaffoldError(f"{contract} would not be valid: {'; '.join(issues)}{told}")
    if new.status == IMPLEMENTED or new.id in installed_backbones():
        return {contract: text}
    return {package: package_text(new.id), contract: text}


def _check_nothing_built(new: NewBackbone, contract: Path, package: Path) -> None:
    built = []
    if contract.is_file() and (status := _status(contract)) != PLANNED:
        built.append(f"{contract} has the status {status!r}")
    if new.status == PLANNED:
        if package.is_file() and package.read_text(encoding="utf-8") != package_text(new.id):
            built.append(f"{package} is no longer what a scaffold writes")
        others = {path.name for path in package.parent.glob("*")} - {package.name, "__pycache__"}
        built += [f"{package.parent / name} is there" for name in sorted(others)]
    if built:
        raise ScaffoldError(
            f"the backbone {new.id!r} is more than a scaffold already, and nothing overwrites that: "
            f"{'; '.join(built)}; choose another --id, or move these files away first"
        )


def _status(contract: Path) -> str:
    try:
        return str(read_document(contract).get("status"))
    except ContractError:
        return "unreadable"


def _issues(text: str, backbone_id: str) -> list[str]:
    with TemporaryDirectory() as folder:
        (Path(folder) / f"{backbone_id}.yaml").write_text(text, encoding="utf-8")
        [report] = validate_contracts(Path(folder), only=None, bind_names=True)
    return report.issues


def write_all(files: Mapping[Path, str], *, overwrite: bool, dry_run: bool) -> None:
    """Write all files or none: where one cannot be written, what was there before comes back.

    Args:
        dry_run: only say whether they may be written.

    Raises:
        ScaffoldError: a file is there already and may not be overwritten; each is named.
    """
    there = [str(path) for path in files if os.path.lexists(path)]
    if there and not overwrite:
        raise ScaffoldError(f"already there: {', '.join(there)}; --overwrite replaces them")
    if dry_run:
        return
    with ExitStack() as undo:
        for path, text in files.items():
            undo.callback(_way_back(path))
            write_text(path, text)
        undo.pop_all()


def contract_text(template: str, new: NewBackbone) -> str:
    """Return the text of ``template`` with the fields of ``new`` in it; all else stays, comments too.

    A planned contract must say what its code has to do; where the template does not, it says where to read.
    """
    root: Any = yaml.compose(template, Loader=yaml.SafeLoader)
    fields = {key.value: value for key, value in root.value}
    files = {key.value: value for key, value in fields["artifact_contract"].value}
    changes = [(files["checkpoint_gate"], new.checkpoint_gate)]
    changes += [
        (fields[name], getattr(new, name))
        for name in (
            "id",
            "display_name",
            "status",
            "model_family",
            "dataset_contract",
            "training_objective",
        )
    ]
    texts = [(node.start_mark.index, node.end_mark.index, _scalar(value)) for node, value in changes]
    if new.status == PLANNED and not (said := fields.get("extension_requirements")):
        [settings] = [key for key, _ in root.value if key.value == "settings"]
        start = settings.start_mark.index
        texts.append((start, start, f"extension_requirements:\n  - {_BUILD_IT}\n\n"))
    elif new.status == PLANNED and said is not None and not said.value:
        texts.append((said.start_mark.index, said.end_mark.index, f"[{_scalar(_BUILD_IT)}]"))
    for start, stop, text in sorted(texts, reverse=True):
        template = _replaced(template, start, stop, text)
    return template


def package_text(backbone_id: str) -> str:
    """Return the code of a backbone whose every method raises ``NotBuiltYetError``."""
    return _PACKAGE.format(
        id=backbone_id,
        name="".join(part.capitalize() for part in backbone_id.split("_")),
        page=base.PAGE,
        methods="\n\n".join(_stubs()),
    )


def _stubs() -> list[str]:
    """Each method of the protocol, its signature as it stands in ``base.py``, that says it is not built."""
    source = inspect.getsource(base.Backbone)
    lines = source.splitlines()
    [protocol] = ast.parse(source).body
    assert isinstance(protocol, ast.ClassDef)
    methods = [node for node in protocol.body if isinstance(node, ast.FunctionDef)]
    return [
        "\n".join(
            [
                *lines[method.lineno - 1 : method.body[0].lineno - 1],
                f"        raise NotBuiltYetError(self.id, Backbone.{method.name})",
            ]
        )
        for method in methods
    ]


def _check_id(new: NewBackbone) -> None:
    if not re.fullmatch(CONTRACT_ID, new.id) or keyword.iskeyword(new.id):
        raise ScaffoldError(
            f"--id {new.id!r} cannot name a Python package: lower-case letters, digits and _, a letter "
            "first, no word of the language, such as new_policy_branch"
        )
    modules = {path.stem for path in Path(base.__file__).parent.glob("*.py")}
    if new.id in {*STAGES, *modules, *_FOLDERS, "main", "none"}:
        raise ScaffoldError(f"--id {new.id!r} means something else here already; choose another")
    if new.status == IMPLEMENTED and new.id not in {*installed_backbones(), *own_backbones()}:
        raise ScaffoldError(
            f"--status {IMPLEMENTED}: nobody has built the backbone {new.id!r}; leave --status out, build it "
            f"as {base.PAGE} says, and change the status in its contract then"
        )


def _way_back(path: Path) -> Callable[[], None]:
    """What makes ``path`` and its folder again what they are now."""
    if path.is_file():
        return partial(_write_bytes, path, path.read_bytes())
    folder = None if path.parent.exists() else path.parent

    def remove() -> None:
        path.unlink(missing_ok=True)
        if folder is not None and folder.exists():
            folder.rmdir()

    return remove


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _replaced(text: str, start: int, stop: int, new: str) -> str:
    return text[:start] + new + text[stop:]


def _scalar(value: str) -> str:
    """Spell a text so that YAML reads it as this text and nothing else, on one line."""
    plain = yaml.safe_dump(value, width=10**9, allow_unicode=True).removesuffix("...\n").strip()
    return json.dumps(value) if "\n" in plain else plain


_PACKAGE = '''"""Planned: no method is built yet. {page} builds a small backbone from such a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base import (
    Backbone,
    Exam,
    Exported,
    Gate,
    NotBuiltYetError,
    Predictor,
    SampleSet,
    Scores,
    TrainingFacts,
    TrainingLog,
)
from omni_mlflow.contract import Section
from omni_mlflow.metrics.metric import Metric
from omni_mlflow.spine.modalities import Modality, ModelTarget
from omni_mlflow.spine.types import Check, FittedOnTrain, Sample, Skip, Window


class Settings(Section):
    """The ``settings:`` block of the contract, key by key."""


class {name}:
    """Fulfils the backbone protocol when it is built; ``contracts --validate`` lists what is missing."""

    id = "{id}"
    settings_type: type[Section] = Settings
    fitted_type: type[FittedOnTrain] = FittedOnTrain
    shown: frozenset[Modality] = frozenset()
    targets: frozenset[ModelTarget] = frozenset()
    gates: Mapping[str, Gate] = {{}}
    metrics: Mapping[str, Metric] = {{}}
    training_files: frozenset[str] = frozenset()
    eval_files: frozenset[str] = frozenset()
    predictions_file = "predictions.jsonl"
    controls: tuple[str, ...] = ()
    stage_settings: Mapping[str, tuple[str, ...]] = {{}}

{methods}


BACKBONE: Backbone = {name}()
'''
