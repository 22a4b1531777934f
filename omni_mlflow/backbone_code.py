"""Which code stands behind what a stage asks of a backbone, so that a change of the rest repeats no work.

The module that defines a backbone imports what each method needs inside that method. A stage asks some
methods of the protocol; what only the others import shapes nothing of its output: another scoring, no new
training. Only that is left out. Constructors, helpers, constants and the statement that makes the backbone
always count, and where nobody can tell who calls a method, all of the module does.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from omni_mlflow.backbones.base import Backbone, ExportsEpisodes, IsServed
from omni_mlflow.code_digest import code_digest, imports_of
from omni_mlflow.spine.rows import digest_of

ALWAYS = frozenset({"id", "settings_type"})
"""Members that shape the output of every stage."""

PROTOCOL = frozenset(
    name
    for protocol in (Backbone, ExportsEpisodes, IsServed)
    for name in (*vars(protocol), *protocol.__annotations__)
    if not name.startswith("_")
)


def code_behind(backbone: object, members: Iterable[str], *modules: str) -> str:
    """Return the digest of ``modules`` and of the code behind some members of ``backbone``.

    Of the module that defines the backbone's class, all statements count but the other members of the
    protocol, and what only these use: private functions and imports. It counts whole where the class has a
    base of its own or hands itself to somebody else, who may call any member.

    Args:
        members: of the protocol; one that the backbone lacks needs nothing.
        modules: dotted names, as for :func:`~omni_mlflow.code_digest.code_digest`.
    """
    defined = sys.modules[type(backbone).__module__]
    path = Path(str(defined.__file__))
    kept = _kept(ast.parse(path.read_bytes()), type(backbone), PROTOCOL - ALWAYS - {*members})
    whole = ast.Module(body=[*kept], type_ignores=[])
    needed = imports_of(whole, defined.__name__, is_package=path.name == "__init__.py")
    makers = [name for name in _makers(backbone) if name != defined.__name__]
    behind = code_digest(*modules, needed=frozenset([*needed, *makers]), without=defined.__name__)
    return digest_of([behind, *map(ast.unparse, kept)])


def _makers(backbone: object) -> list[str]:
    """The loaded modules that hold ``backbone``: its class may be defined elsewhere."""
    root = type(backbone).__module__.partition(".")[0]
    loaded = [(name, module) for name, module in sys.modules.items() if name.partition(".")[0] == root]
    return sorted(name for name, module in loaded if vars(module).get("BACKBONE") is backbone)


def _kept(tree: ast.Module, of: type, unasked: Collection[str]) -> Sequence[ast.stmt]:
    """The statements of a module without what only unasked members of the class ``of`` need."""
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == of.__name__]
    bases = [base for base in of.__mro__[1:] if base.__module__ not in ("builtins", "typing", "abc")]
    if len(found) != 1 or bases:
        return tree.body
    [defined] = found
    others = [node for node in tree.body if node is not defined]
    members = [node for node in defined.body if not {*_names(node)} & {*unasked}]
    left = [node for node in defined.body if node not in members]
    private = [node for node in others if isinstance(node, ast.FunctionDef) and node.name.startswith("_")]
    kept = [node for node in others if node not in private and not _is_import(node)]
    header = [*defined.bases, *defined.keywords, *defined.decorator_list]
    while True:
        code: list[ast.AST] = [*kept, *members, *header]
        if any(map(_hands_itself_over, code)):
            return tree.body
        called = {name for node in code for name in _called(node, {"self", "cls", "BACKBONE", of.__name__})}
        used = {name for node in code for name in _mentioned(node)}
        more_members = [node for node in left if node not in members and {*_names(node)} & called]
        more = [node for node in private if node not in kept and node.name in used]
        if not more_members and not more:
            break
        members, kept = [*members, *more_members], [*kept, *more]
    imports = [node for node in others if _is_import(node) and {*_names(node)} & {*used, "*"}]
    return [*imports, *kept, *members, *(ast.Expr(each) for each in header if isinstance(each, ast.expr))]


def _is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _hands_itself_over(node: ast.AST) -> bool:
    """Whether ``self`` or ``cls`` stands anywhere but before a dot: who gets it may ask for anything."""
    before_dots = {id(each.value) for each in ast.walk(node) if isinstance(each, ast.Attribute)}
    names = (each for each in ast.walk(node) if isinstance(each, ast.Name))
    return any(each.id in ("self", "cls") and id(each) not in before_dots for each in names)


def _called(node: ast.AST, owners: Collection[str]) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id in owners:
            yield each.attr


def _mentioned(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            yield each.id
        elif isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value  # an annotation in quotes, or globals()["name"]


def _names(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in statement.names)
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        yield from (node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
