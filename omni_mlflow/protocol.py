"""Whether the code of a backbone fulfils the protocol, before any of it runs: all that is missing at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import Parameter, Signature, iscoroutinefunction, isfunction, ismethod, signature, unwrap
from typing import Any, NamedTuple, get_type_hints

from pydantic import TypeAdapter, ValidationError

from omni_mlflow.backbones.base import PAGE, Backbone, ExportsEpisodes, IsServed, NotBuiltYetError

OPTIONAL = (ExportsEpisodes, IsServed)
"""What a backbone may add; of these it has all members or none."""

_GATE = Signature([Parameter("test", Parameter.POSITIONAL_OR_KEYWORD)])


def protocol_issues(backbone: Any, wanted_id: str) -> list[str]:
    """Say what ``BACKBONE`` of a package lacks of the protocol, one sentence for each attribute or method.

    Whatever the code of somebody else raises while it is looked at is such a sentence, too.

    Args:
        wanted_id: of the contract that asks for it.
    """
    if isinstance(backbone, type):
        name = backbone.__name__
        return [f"BACKBONE is the class {name}; it must be an instance: BACKBONE = {name}()"]
    unbuilt = [
        str(NotBuiltYetError(wanted_id, member))
        for name, member in METHODS.items()
        if _is_unbuilt(_member(backbone, name))
    ]
    if unbuilt:  # what its code knows is not to be judged before it is there
        return unbuilt
    issues: list[str] = []
    for part in (Backbone, *OPTIONAL):
        if part is Backbone or any(hasattr(type(backbone), name) for name in _members(part)):
            issues += [*_attribute_issues(backbone, part), *_method_issues(backbone, part)]
    issues = issues or list(_ties(backbone, wanted_id))
    return [f"backbone {wanted_id!r}: {issue}; {PAGE} shows how" for issue in issues]


class _Unreadable(NamedTuple):
    """What stands for a member that raises when it is looked at."""

    error: str


def _member(backbone: Any, name: str) -> Any:
    try:
        return getattr(backbone, name, _ABSENT)
    except (Exception, SystemExit) as error:
        return _Unreadable(f"{type(error).__name__}: {error}")


_ABSENT = object()


def _members(part: type) -> list[str]:
    return [*part.__annotations__, *_methods(part)]


def _methods(part: type) -> dict[str, Any]:
    return {name: each for name, each in vars(part).items() if isfunction(each) and not name.startswith("_")}


METHODS: Mapping[str, Any] = _methods(Backbone)
"""Every method of the protocol, in its order."""


def _is_unbuilt(method: Any) -> bool:
    code = getattr(unwrap(method.__func__), "__code__", None) if ismethod(method) else None
    return code is not None and NotBuiltYetError.__name__ in code.co_names


def _attribute_issues(backbone: Any, part: type) -> Iterator[str]:
    """What the annotations of a protocol say of each attribute."""
    for name, wanted in get_type_hints(part).items():
        found = _member(backbone, name)
        if found is _ABSENT:
            yield f"it has no attribute {name!r}"
        elif isinstance(found, _Unreadable):
            yield f"its attribute {name!r} cannot be read: {found.error}"
        else:
            plain = dict(found) if isinstance(found, Mapping) else found
            try:
                TypeAdapter(wanted).validate_python(plain, strict=True)
            except ValidationError as error:
                told = error.errors()[0]
                where = ".".join(map(str, (name, *told["loc"])))
                yield f"its attribute {where} is {told['input']!r}: {told['msg']}"


def _method_issues(backbone: Any, part: type) -> Iterator[str]:
    for name, member in _methods(part).items():
        method = _member(backbone, name)
        if isinstance(method, _Unreadable):
            yield f"its method {name!r} cannot be read: {method.error}"
        elif not callable(method) or getattr(type(backbone), name, None) is member:
            yield f"it has no method {name!r}"
        elif iscoroutinefunction(method):
            yield f"its method {name!r} is async; nobody awaits it"
        elif not _takes(method, _bound(member)):
            yield f"its method {name!r} must take {_shown(_bound(member))}"


def _ties(backbone: Any, wanted_id: str) -> Iterator[str]:
    """What attributes that are sound each by itself say of one another and of the contract."""
    if backbone.id != wanted_id:
        yield f"its id is {backbone.id!r}; id must be the contract's, {wanted_id!r}"
    if backbone.predictions_file not in backbone.eval_files:
        yield f"its predictions_file {backbone.predictions_file!r} is not among its eval_files"
    for name, gate in backbone.gates.items():
        if (trouble := trouble_with_gate(gate)) is not None:
            yield f"its gate {name!r} {trouble}"


def trouble_with_gate(gate: Any) -> str | None:
    """Return why ``gate`` cannot be asked about a checkpoint; None where it can."""
    if isinstance(gate, type) or not callable(gate):
        return "is no function"
    if iscoroutinefunction(gate):
        return "is async; nobody awaits it"
    return None if _takes(gate, _GATE) else f"must take {_GATE}"


def _bound(member: Any) -> Signature:
    own = signature(member)
    _, *wanted = own.parameters.values()
    return own.replace(parameters=wanted)


def _takes(method: Any, wanted: Signature) -> bool:
    """Whether something can be called as the protocol calls it."""
    every = wanted.parameters.values()
    named = {each.name: None for each in every if each.kind is Parameter.KEYWORD_ONLY}
    try:
        signature(method).bind(*[None] * (len(every) - len(named)), **named)
    except (TypeError, ValueError):
        return False
    return True


def _shown(wanted: Signature) -> str:
    """Spell the parameters without their types."""
    plain = [each.replace(annotation=Parameter.empty) for each in wanted.parameters.values()]
    return str(Signature(plain))
