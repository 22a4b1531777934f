"""Where the weights lie that a backbone starts from; those that this project builds are built once."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path


class BaseModelError(Exception):
    """The base model cannot be loaded as the contract names it."""


def local_copy_or_model(model: str, local_copy: str | None) -> str:
    """Return what to load: the folder that stands in for a model, if there is one, else the model.

    Raises:
        BaseModelError: the local copy of the weights is none.
    """
    if not local_copy:
        return model
    if not (Path(local_copy) / "config.json").is_file():
        raise BaseModelError(
            f"{local_copy}, the local copy of {model}, holds no config.json; point the contract's "
            "local_model_env at a checkpoint or unset it"
        )
    return local_copy


def built_once(name: str, build: Callable[[Path], None]) -> Path:
    """Return the folder of a base that this project builds; build it when no cache holds it.

    Several processes may ask at once: one builds, the others wait for it.

    Args:
        name: of the folder in the cache: a digest of all that shapes the base.
        build: writes the base into a folder that does not exist yet.
    """
    folder = cache_folder() / "bases" / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            logging.getLogger(__name__).info("building the tiny base model in %s, once", folder)
            unfinished = folder.with_name(f".{name}.{os.getpid()}.partial")
            shutil.rmtree(unfinished, ignore_errors=True)
            build(unfinished)
            unfinished.rename(folder)
    return folder


def cache_folder() -> Path:
    """Return this project's folder in the user's cache (XDG base directory specification)."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "omni-mlflow"
