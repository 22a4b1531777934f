"""Which code shapes a stage's output: the stage's module and every module of ours that it imports.

A version string does not change when somebody edits a file; its statements do. Comments and layout are not
among them. All of it is the source that this process runs: :mod:`omni_mlflow.loaded_code`.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from omni_mlflow.loaded_code import LOADED, file_of, is_module

PACKAGE = "omni_mlflow"

_PLUMBING = frozenset(
    {
        PACKAGE,
        f"{PACKAGE}.stages",  # lists all of them
        *(
            f"{PACKAGE}.{name}"
            for name in (
                "pipeline",
                "stage_run",
                "context",
                "record",
                "events",
                "workspace",
                "backbone_code",
                "backbone_lookup",
                "code_digest",
                "loaded_code",
                "registry",
            )
        ),
    }
)
"""Modules that carry outputs but do not shape them."""

_DOTTED = re.compile(r"\.*[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class ModuleCode:
    """What the source of a module says.

    Attributes:
        digest: of its statements.
        imports: every name that it imports, also inside functions or by a string.
        words: every name that it speaks of, also by a string.
    """

    digest: str
    imports: frozenset[str]
    words: frozenset[str]


def code_digest(*modules: str) -> str:
    """Return the sha256 over ``modules`` and what they import of ours or of their own package.

    Args:
        modules: dotted names; a package stands for every module in it.
    """
    return digest_over(followed(modules))


def followed(
    modules: Iterable[str],
    *,
    needed: Iterable[str] = (),
    roots: Iterable[str] = (),
    without: str | None = None,
) -> Mapping[str, ModuleCode]:
    """Return ``modules`` and every module that they import, directly or not; an import runs its parents, too.

    Args:
        needed: names that are imported by code which is no whole module.
        roots: further packages whose modules are followed.
        without: a module that is left out, with what only it imports.
    """
    inside = {PACKAGE, *(name.partition(".")[0] for name in (*modules, *roots))}
    pending = [*needed, *(module for name in modules for module in _with_children(name))]
    found: dict[str, ModuleCode] = {}
    seen = {*_PLUMBING, without}
    while pending:
        name = pending.pop()
        if name in seen or name.partition(".")[0] not in inside:
            continue
        seen.add(name)
        if (file := file_of(name)) is not None:
            found[name] = _code_of(LOADED.source(file), name, is_package=file.name == "__init__.py")
            pending.extend((*found[name].imports, *parents_of(name)))
    return found


def digest_over(found: Mapping[str, ModuleCode]) -> str:
    whole = hashlib.sha256()
    for name in sorted(found):
        whole.update(f"{name}:{found[name].digest}\n".encode())
    return whole.hexdigest()


def parents_of(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def imports_of(tree: ast.AST, name: str, *, is_package: bool) -> Iterator[str]:
    """Yield every name that code of the module ``name`` imports, also inside functions or by a string."""
    package = name if is_package else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _DOTTED.fullmatch(node.value):
            yield _absolute(node.value, package)


@cache
def _code_of(source: bytes, name: str, *, is_package: bool) -> ModuleCode:
    tree = ast.parse(source)
    return ModuleCode(
        hashlib.sha256(ast.dump(tree).encode()).hexdigest(),
        frozenset(imports_of(tree, name, is_package=is_package)),
        frozenset(_words(tree)),
    )


def _words(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _absolute(name: str, package: str) -> str:
    """Spell out a name that begins with dots, as an import of code in ``package`` may."""
    inner = name.lstrip(".")
    level = len(name) - len(inner)
    if level == 0:
        return name
    parents = package.split(".")
    return ".".join([*parents[: len(parents) - level + 1], *filter(None, [inner])])


def _with_children(name: str) -> list[str]:
    file = file_of(name)
    if file is None:
        raise ModuleNotFoundError(name)
    if file.name != "__init__.py":
        return [name]
    modules = filter(is_module, file.parent.rglob("*.py"))
    children = [each.relative_to(file.parent).with_suffix("").parts for each in modules]
    return [name, *(".".join([name, *parts]) for parts in children if parts[-1] != "__init__")]
