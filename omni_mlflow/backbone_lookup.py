"""Finds the code of a backbone by its id: in this project, or in a package that somebody installed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from omni_mlflow.backbone_code import packages_of
from omni_mlflow.backbones.base import Backbone
from omni_mlflow.contract import ContractError, resolve
from omni_mlflow.installed import BACKBONES, added_by, the_one
from omni_mlflow.interruption import Interrupted
from omni_mlflow.loaded_code import LOADED


def load_backbone(backbone_id: str) -> Backbone:
    """Return the ``BACKBONE`` of ``omni_mlflow/backbones/<id>/`` or of an installed package.

    A package of somebody else adds a backbone with an entry point of the group ``omni_mlflow.backbones``
    whose name is the contract id; it cannot take the place of one of this project.

    Raises:
        ContractError: nobody provides that backbone, two packages do, or its package defines no BACKBONE.
    """
    name = _module_of(backbone_id)
    LOADED.watch(name)
    try:
        module = importlib.import_module(name)
        backbone: Backbone | None = getattr(module, "BACKBONE", None)
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException as error:  # whatever the package of somebody else raises at import
        raise ContractError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
    if backbone is None:
        raise ContractError(f"{module.__name__} defines no BACKBONE")
    for each in {name, type(backbone).__module__} - sys.stdlib_module_names:
        _check_source(each)
    for package in packages_of(backbone):
        LOADED.watch(package)
    return backbone


def _check_source(module: str) -> None:
    """Raise ContractError where Python runs what nobody can read: its edits could not be noticed."""
    file = Path(str(getattr(sys.modules.get(module), "__file__", None)))
    if file.suffix != ".py" or not file.is_file():
        raise ContractError(
            f"{module} is installed without its source ({file}); a stage is run again when the code behind "
            "it changes, and that is seen by its source: install a wheel or a folder with .py files"
        )


def _module_of(backbone_id: str) -> str:
    own = own_backbones()
    if backbone_id in own:
        return own[backbone_id]
    installed = added_by(BACKBONES)  # looks through every package of the environment
    resolve("backbone", backbone_id, {**own, **installed})
    return the_one("backbone", backbone_id, installed).value


def own_backbones() -> dict[str, str]:
    """The module of each backbone that lies in this project, by id."""
    packages = (Path(__file__).parent / "backbones").glob("*/__init__.py")
    return {path.parent.name: f"omni_mlflow.backbones.{path.parent.name}" for path in packages}


def installed_backbones() -> dict[str, list[str]]:
    """The modules that installed packages give each backbone id; more than one is a clash."""
    return {name: [each.value for each in found] for name, found in added_by(BACKBONES).items()}
