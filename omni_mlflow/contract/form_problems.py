"""Says of a document that does not have the form of its model what is wrong, and which name was meant."""

from __future__ import annotations

import re
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from omni_mlflow.contract import nearest

_OUT_OF_RANGE = {
    *("greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of"),
    *("finite_number", "int_type", "float_type", "int_from_float", "int_parsing_size"),
}


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Say in one line what is wrong with all keys."""
    return "; ".join(problems(error, model))


def problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Say of each wrong key what is wrong with it and, for an unknown name, which was meant."""
    sentences = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"]) or "contract"
        if problem["type"] == "extra_forbidden":
            known = _fields_at(model, problem["loc"][:-1])
            sentences.append(f"unknown key {place!r}; {nearest(str(problem['loc'][-1]), known)}")
        elif problem["type"] == "literal_error" and isinstance(problem["input"], str):
            known = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
            sentences.append(
                f"{place}: unknown name {problem['input']!r}; {nearest(problem['input'], known)}"
            )
        elif problem["type"] in _OUT_OF_RANGE and (allowed := _range_at(model, problem["loc"])):
            sentences.append(f"{place}: {_shown(problem['input'])} is not {allowed}")
        elif problem["type"] == "greater_than_equal":
            least = problem["ctx"]["ge"]
            sentences.append(f"{place}: {problem['input']!r} is too small; give {least} or more")
        elif problem["type"] in ("int_type", "int_parsing", "int_from_float"):
            sentences.append(f"{place}: {problem['input']!r} is no whole number; give one")
        else:
            sentences.append(f"{place}: {problem['msg']}")
    return sentences


def _fields_at(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    for part in place:
        if isinstance(part, int):  # the items of a list were entered with its key
            continue
        annotation = model.model_fields[part].annotation
        inner = [each for each in (annotation, *get_args(annotation)) if _is_model(each)]
        if not inner:
            break
        model = inner[0]
    return list(model.model_fields)


def _range_at(model: type[BaseModel], place: tuple[int | str, ...]) -> str | None:
    """The numbers that a field takes, such as ``a whole number from 1 to 9``; None without two ends."""
    schema = model.model_json_schema()
    node: Any = schema
    for part in place:
        if reference := node.get("$ref"):
            node = schema["$defs"][reference.rpartition("/")[2]]
        if isinstance(part, int):
            fixed = node.get("prefixItems")
            node = fixed[part] if fixed else node.get("items", {})
        else:
            node = node.get("properties", {}).get(part, {})
    low = node.get("minimum", node.get("exclusiveMinimum"))
    if low is None or "maximum" not in node:
        return None
    kind = {"integer": "an even number" if node.get("multipleOf") == 2 else "a whole number"}
    begin = f"above {low}" if "exclusiveMinimum" in node else f"from {low}"
    return f"{kind.get(node['type'], 'a number')} {begin} to {node['maximum']}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
