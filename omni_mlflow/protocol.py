"""Whether the code of a backbone fulfils the protocol, before any of it runs: all that is missing at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import Parameter, Signature, isfunction, ismethod, signature
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from omni_mlflow.backbones.base import PAGE, Backbone, NotBuiltYetError

METHODS: Mapping[str, Any] = {
    name: member for name, member in vars(Backbone).items() if isfunction(member) and not name.startswith("_")
}
"""Every method of the protocol, in its order."""


def protocol_issues(backbone: Any, wanted_id: str) -> list[str]:
    """Say what ``BACKBONE`` of a package lacks of the protocol, one sentence for each attribute or method.

    Args:
        wanted_id: of the contract that asks for it.
    """
    if isinstance(backbone, type):
        name = backbone.__name__
        return [f"BACKBONE is the class {name}; it must be an instance: BACKBONE = {name}()"]
    methods = METHODS.values()
    unbuilt = [str(NotBuiltYetError(wanted_id, each)) for each in methods if _is_unbuilt(backbone, each)]
    if unbuilt:  # what its code knows is not to be judged before it is there
        return unbuilt
    return [
        f"backbone {wanted_id!r}: {issue}; {PAGE} shows how"
        for issue in (*_attribute_issues(backbone, wanted_id), *_method_issues(backbone))
    ]


def _is_unbuilt(backbone: Any, member: Any) -> bool:
    method = getattr(backbone, member.__name__, None)
    return ismethod(method) and NotBuiltYetError.__name__ in method.__func__.__code__.co_names


def _attribute_issues(backbone: Any, wanted_id: str) -> Iterator[str]:
    """What the annotations of the protocol say of each attribute, and what ties them to one another."""
    broken = set()
    for name, wanted in get_type_hints(Backbone).items():
        if not hasattr(backbone, name):
            yield f"it has no attribute {name!r}"
            broken.add(name)
            continue
        try:
            TypeAdapter(wanted).validate_python(getattr(backbone, name), strict=True)
        except ValidationError as error:
            told = error.errors()[0]
            where = ".".join(map(str, (name, *told["loc"])))
            yield f"its attribute {where} is {told['input']!r}: {told['msg']}"
            broken.add(name)
    if "id" not in broken and backbone.id != wanted_id:
        yield f"its id is {backbone.id!r}; id must be the contract's, {wanted_id!r}"
    if (
        not broken & {"predictions_file", "eval_files"}
        and backbone.predictions_file not in backbone.eval_files
    ):
        yield f"its predictions_file {backbone.predictions_file!r} is not among its eval_files"


def _method_issues(backbone: Any) -> Iterator[str]:
    for name, member in METHODS.items():
        method = getattr(backbone, name, None)
        if not callable(method) or getattr(type(backbone), name, None) is member:
            yield f"it has no method {name!r}"
        elif not _takes(method, member):
            yield f"its method {name!r} must take {_shown(member)}"


def _takes(method: Any, member: Any) -> bool:
    """Whether a method can be called as the protocol calls it."""
    _, *wanted = signature(member).parameters.values()
    named = {each.name: None for each in wanted if each.kind is Parameter.KEYWORD_ONLY}
    try:
        signature(method).bind(*[None] * (len(wanted) - len(named)), **named)
    except TypeError:
        return False
    return True


def _shown(member: Any) -> str:
    """Spell the parameters without their types."""
    _, *wanted = signature(member).parameters.values()
    plain = [each.replace(annotation=Parameter.empty) for each in wanted]
    return str(Signature(plain))
