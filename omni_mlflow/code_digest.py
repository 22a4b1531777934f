"""Which code shapes a stage's output: the stage's module and every module of ours that it imports.

A version string does not change when somebody edits a file; these bytes do.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "omni_mlflow"

_PLUMBING = frozenset(
    f"{PACKAGE}.{name}"
    for name in (
        "pipeline",
        "stage_run",
        "context",
        "record",
        "events",
        "workspace",
        "code_digest",
        "registry",
    )
)
"""Modules that carry outputs but do not shape them."""


@cache
def code_digest(*modules: str) -> str:
    """Return the sha256 over the source of ``modules`` and what they import of ours or of their own package.

    Args:
        modules: dotted names; a package stands for every module in it, ``package.__init__`` for itself.
    """
    roots = (PACKAGE, *(name.partition(".")[0] for name in modules))
    pending = [module for name in modules for module in _with_children(name)]
    sources: dict[str, bytes] = {}
    while pending:
        name = pending.pop()
        if name in sources or name in _PLUMBING:
            continue
        path = _path_of(name)
        if path is None:
            continue
        sources[name] = path.read_bytes()
        pending.extend(_imports(sources[name], name, path.name == "__init__.py", roots))
    whole = hashlib.sha256()
    for name in sorted(sources):
        whole.update(f"{name}:{hashlib.sha256(sources[name]).hexdigest()}\n".encode())
    return whole.hexdigest()


def package_of(instance: object) -> str:
    """Return the dotted name of the package that defines the class of ``instance``."""
    return sys.modules[type(instance).__module__].__package__ or type(instance).__module__


def _imports(source: bytes, name: str, is_package: bool, roots: tuple[str, ...]) -> Iterator[str]:
    """Yield every module below ``roots`` that is imported anywhere in ``source``, also inside functions."""
    package = name if is_package else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in roots)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]) if base else ".".join(parents)
            if base.partition(".")[0] in roots:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _with_children(name: str) -> list[str]:
    if name.endswith(".__init__"):
        return [name.removesuffix(".__init__")]
    path = _path_of(name)
    if path is None:
        raise ModuleNotFoundError(name)
    if path.name != "__init__.py":
        return [name]
    children = sorted(path.parent.rglob("*.py"))
    inner = [child.relative_to(path.parent).with_suffix("").parts for child in children]
    return [name, *(".".join([name, *parts]) for parts in inner if parts[-1] != "__init__")]


def _path_of(name: str) -> Path | None:
    """Return the source file of a module, or None when ``name`` is a name inside a module."""
    try:
        spec = find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None
