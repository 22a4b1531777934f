"""Which code stands behind what a stage asks of a backbone, so that a change of the rest repeats no work.

The module that defines a backbone imports what each method needs inside that method. A stage asks some
members of the protocol; what only the others need shapes nothing of its output: another scoring, no new
training. Left out are methods and attributes of the class that are not asked and that no code which counts
speaks of, and what of the module only they use: private functions and imports. Constructors, helpers,
constants and the statement that makes the backbone always count. All of the module does where the class is
not of the plain form that :func:`_is_plain` describes, where another module imports it or may get the
backbone in hand, or where names are computed.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import CodeType
from typing import Any

from omni_mlflow.backbones.base import Backbone, ExportsEpisodes, IsServed
from omni_mlflow.code_digest import PACKAGE, ModuleCode, digest_over, followed, imports_of, parents_of
from omni_mlflow.installed import BACKBONES, added_by
from omni_mlflow.loaded_code import LOADED
from omni_mlflow.spine.rows import digest_of

ALWAYS = frozenset({"id", "settings_type"})
"""Members that shape the output of every stage."""

_PROTOCOLS = (Backbone, ExportsEpisodes, IsServed)
_ATTRIBUTES = frozenset(name for protocol in _PROTOCOLS for name in protocol.__annotations__)
PROTOCOL = _ATTRIBUTES | {
    name for protocol in _PROTOCOLS for name in vars(protocol) if not name.startswith("_")
}

_COMPUTED = frozenset(
    {
        *("globals", "vars", "eval", "exec", "modules", "resolve_name", "import_module", "getmembers"),
        *("getmodule", "attrgetter", "__dict__", "__globals__", "__package__"),
    }
)
"""By these, code may speak of a function whose name stands nowhere."""

_MAKE_VALUES = frozenset({"dict", "frozenset", "set", "tuple", "items", "fromkeys"})
"""What a statement may call and still do nothing but define a name."""


def code_behind(backbone: object, members: Iterable[str], *modules: str) -> str:
    """Return the digest of ``modules`` and of the code behind some members of ``backbone``.

    Args:
        members: of the protocol; one that the backbone lacks needs nothing.
        modules: dotted names, as for :func:`~omni_mlflow.code_digest.code_digest`.
    """
    defined = type(backbone)
    tree = ast.parse(LOADED.source(_file_of(defined)))
    kept = _kept(tree, defined.__name__, PROTOCOL - ALWAYS - {*members})
    found = _behind(backbone, kept, modules)
    handles = {*_handles(defined.__name__), defined.__module__}
    if any(code.words & handles or defined.__module__ in code.imports for code in found.values()):
        kept = tree.body
        found = _behind(backbone, kept, modules)
    return digest_of([digest_over(found), *map(ast.dump, kept)])


def _file_of(defined: type) -> Path:
    return Path(str(sys.modules[defined.__module__].__file__))


def _behind(backbone: object, kept: Sequence[ast.stmt], modules: Sequence[str]) -> Mapping[str, ModuleCode]:
    """The modules behind statements of the one that defines a backbone's class, and where that is made."""
    name = type(backbone).__module__
    tree = ast.Module(body=[*kept], type_ignores=[])
    needed = imports_of(tree, name, is_package=_file_of(type(backbone)).name == "__init__.py")
    homes = homes_of(backbone)
    return followed(
        modules, needed=[*needed, *homes, *parents_of(name)], roots=packages_of(backbone), without=name
    )


def packages_of(backbone: object) -> list[str]:
    """The packages that a backbone's class, its bases and the backbone itself come from."""
    names = [*homes_of(backbone), *(each.__module__ for each in type(backbone).__mro__)]
    packages = dict.fromkeys(name.partition(".")[0] for name in names)
    return [each for each in packages if each not in sys.stdlib_module_names]


def homes_of(backbone: object) -> list[str]:
    """The modules where a contract finds ``backbone``; its class may be defined elsewhere."""
    own = f"{PACKAGE}.backbones.{getattr(backbone, 'id', None)}"
    if _holds(own, backbone):
        return [own]
    installed = {each.value for entries in added_by(BACKBONES).values() for each in entries}
    return sorted(name for name in installed if _holds(name, backbone))


def _holds(name: str, backbone: object) -> bool:
    return name in sys.modules and vars(sys.modules[name]).get("BACKBONE") is backbone


def _handles(name: str) -> set[str]:
    """The words by which code gets hold of the whole backbone, whose class is called ``name``."""
    return {"BACKBONE", "load_backbone", "__self__", name}


def _kept(tree: ast.Module, name: str, unasked: Collection[str]) -> Sequence[ast.stmt]:
    """The statements of a module without what only unasked members of the class ``name`` need."""
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    if len(found) != 1 or not _is_plain(found[0]):
        return tree.body
    [defined] = found
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    others = [node for node in tree.body if node is not defined and node not in imports]
    left = [node for node in defined.body if _only_defines(node) and _names(node) <= {*unasked}]
    left += [node for node in others if _only_defines(node) and _is_private_function(node)]
    while True:
        kept = [node for node in (*others, *defined.body) if node not in left]
        words = {word for node in kept if not _makes(node, name) for word in _words(node)}
        if not any(_names(node) & words for node in left):
            break
        left = [node for node in left if not _names(node) & words]
    methods = [node for node in kept if node in defined.body]
    if words & {*_handles(name), *_COMPUTED, "__class__"} or any(map(_hands_itself_over, methods)):
        return tree.body
    unused = {word for node in left for word in _words(node)}
    return [node for node in imports if _names(node) & words or not _names(node) & unused] + kept


def _is_plain(defined: ast.ClassDef) -> bool:
    """Whether a class has no base and no decorator, and holds attributes of the protocol and methods alone.

    A method is a function of ``self`` that nobody wraps, or a property.
    """
    return not (defined.bases or defined.keywords or defined.decorator_list) and all(
        _is_plain_method(node) or _is_plain_attribute(node) or _is_text(node) for node in defined.body
    )


def _is_plain_method(node: ast.stmt) -> bool:
    if not isinstance(node, ast.FunctionDef):
        return False
    wrapped = [ast.unparse(each) for each in node.decorator_list] not in ([], ["property"])
    first = [*node.args.posonlyargs, *node.args.args][:1]
    return not wrapped and [each.arg for each in first] == ["self"]


def _is_plain_attribute(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Assign | ast.AnnAssign) or not _names(node) <= _ATTRIBUTES:
        return False
    may_be_given_the_backbone = isinstance(node.value, ast.Call) and not _only_defines(node)
    return not may_be_given_the_backbone and not any(
        isinstance(each, ast.NamedExpr) for each in ast.walk(node)
    )


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_private_function(node: ast.stmt) -> bool:
    """Whether nobody but who speaks of it calls a function, which the import system does with some."""
    if not isinstance(node, ast.FunctionDef) or node.decorator_list:
        return False
    return node.name.startswith("_") and not node.name.endswith("__")


def _only_defines(node: ast.stmt) -> bool:
    """Whether importing a statement does nothing but give a value or a function its name."""
    runs = [node.args, *node.decorator_list] if isinstance(node, ast.FunctionDef) else [node]
    calls = (each.func for part in runs for each in ast.walk(part) if isinstance(each, ast.Call))
    called = {ast.unparse(each).rpartition(".")[2] for each in calls}
    return bool(_names(node)) and called <= _MAKE_VALUES


def _makes(node: ast.stmt, name: str) -> bool:
    """Whether a statement is ``BACKBONE = Name()``."""
    is_it = isinstance(node, ast.Assign | ast.AnnAssign) and _names(node) == {"BACKBONE"}
    return is_it and ast.unparse(node).endswith(f" = {name}()")


def _hands_itself_over(node: ast.AST) -> bool:
    """Whether ``self`` stands anywhere but before a dot: who gets it may ask for anything."""
    before_dots = {id(each.value) for each in ast.walk(node) if isinstance(each, ast.Attribute)}
    names = (each for each in ast.walk(node) if isinstance(each, ast.Name))
    return any(each.id == "self" and id(each) not in before_dots for each in names)


def _words(node: ast.stmt) -> set[str]:
    """Every name that a statement looks up anywhere but among its own variables, and every string in it."""
    names: set[str] = set()
    texts: set[str] = set()
    pending: list[Any] = [compile(ast.Module(body=[node], type_ignores=[]), "", "exec", dont_inherit=True)]
    while pending:
        each = pending.pop()
        if isinstance(each, CodeType):
            names |= {*each.co_names}
            pending += each.co_consts
        elif isinstance(each, tuple | frozenset):
            pending += each
        elif isinstance(each, str):
            texts.add(each)
    # Beside its annotation, the name of a parameter stands as a string.
    return names | (texts - {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)})


def _names(node: ast.stmt) -> set[str]:
    """The names that a statement defines."""
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    return set()
