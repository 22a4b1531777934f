"""Which code shapes a stage's output: the stage's module and every module of ours that it imports.

A version string does not change when somebody edits a file; these bytes do.
"""

from __future__ import annotations

import ast
import hashlib
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
def code_digest(*modules: str, needed: frozenset[str] = frozenset(), without: str | None = None) -> str:
    """Return the sha256 over the source of ``modules`` and what they import of ours or of their own package.

    Args:
        modules: dotted names; a package stands for every module in it, ``package.__init__`` for itself.
        needed: names that are imported by code which is no whole module, as :func:`imports_of` gives them.
        without: a module that is left out, with what only it imports.
    """
    roots = {PACKAGE, *(name.partition(".")[0] for name in (*modules, without or PACKAGE))}
    pending = [*needed, *(module for name in modules for module in _with_children(name))]
    sources: dict[str, bytes] = {}
    while pending:
        name = pending.pop()
        if name in sources or name == without or name in _PLUMBING or name.partition(".")[0] not in roots:
            continue
        path = _path_of(name)
        if path is None:
            continue
        sources[name] = path.read_bytes()
        pending.extend(imports_of(ast.parse(sources[name]), name, is_package=path.name == "__init__.py"))
    whole = hashlib.sha256()
    for name in sorted(sources):
        whole.update(f"{name}:{hashlib.sha256(sources[name]).hexdigest()}\n".encode())
    return whole.hexdigest()


def imports_of(tree: ast.AST, name: str, *, is_package: bool) -> Iterator[str]:
    """Yield every name that code of the module ``name`` imports, also inside functions."""
    package = name if is_package else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]) if base else ".".join(parents)
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
