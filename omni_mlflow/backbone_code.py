"""Which code stands behind some members of a backbone, so that a change of the rest repeats no work.

The module that defines a backbone imports what each method needs inside that method. A stage asks some of
its methods; what the others import shapes nothing of the stage's output: another scoring, no new training.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from omni_mlflow.code_digest import code_digest, imports_of
from omni_mlflow.spine.rows import digest_of

ALWAYS = ("settings_type",)
"""Members that shape the output of every stage."""


def code_behind(backbone: object, members: Iterable[str], *modules: str) -> str:
    """Return the digest of ``modules`` and of the code behind some members of ``backbone``.

    Of the module that defines the backbone's class, the statements count that the members reach, and what
    these import. A class that is made by other means than a class statement stands for its whole module.

    Args:
        members: attributes of the backbone; one that it lacks needs nothing.
        modules: dotted names, as for :func:`~omni_mlflow.code_digest.code_digest`.
    """
    module = sys.modules[type(backbone).__module__]
    path = Path(str(module.__file__))
    tree = ast.parse(path.read_bytes())
    defined = [
        each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == type(backbone).__name__
    ]
    reached = _reached(tree, defined[-1], {*members, *ALWAYS}) if defined else [tree]
    is_package = path.name == "__init__.py"
    needed = {name for node in reached for name in imports_of(node, module.__name__, is_package=is_package)}
    behind = code_digest(*modules, needed=frozenset(needed), without=module.__name__)
    return digest_of([behind, sorted(map(ast.unparse, reached))])


def _reached(tree: ast.Module, defined: ast.ClassDef, members: Iterable[str]) -> list[ast.AST]:
    """The statements of a module that members of one of its classes reach, and all that have no name."""
    of_module, unnamed = _by_name(node for node in tree.body if node is not defined)
    of_class, in_class = _by_name(defined.body)
    pending: list[ast.AST] = [*unnamed, *in_class, *defined.bases, *defined.keywords, *defined.decorator_list]
    pending += [node for name in members for node in of_class.get(name, ())]
    reached: list[ast.AST] = []
    while pending:
        node = pending.pop()
        if node in reached:
            continue
        reached.append(node)
        for each in ast.walk(node):
            if isinstance(each, ast.Name):
                pending += of_module.get(each.id, ())
            elif isinstance(each, ast.Attribute) and _is_own(each.value, defined):
                pending += of_class.get(each.attr, ())
    return reached


def _is_own(value: ast.expr, defined: ast.ClassDef) -> bool:
    return isinstance(value, ast.Name) and value.id in ("self", "cls", defined.name)


def _by_name(statements: Iterable[ast.stmt]) -> tuple[dict[str, list[ast.stmt]], list[ast.stmt]]:
    """Statements by the names that they define, and those that define none."""
    named: dict[str, list[ast.stmt]] = {}
    unnamed = []
    for statement in statements:
        names = [*_names(statement)]
        for name in names:
            named.setdefault(name, []).append(statement)
        if not names:
            unnamed.append(statement)
    return named, unnamed


def _names(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in statement.names)
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))
