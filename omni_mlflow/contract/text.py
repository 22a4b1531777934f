"""Reads the text of a contract, YAML or JSON, as a mapping; what it cannot read it refuses in words.

A contract needs neither anchors, aliases nor tags, so they are refused before anything is built: an alias can
make ten lines stand for gigabytes.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from omni_mlflow.contract import ContractError
from omni_mlflow.spine.strict_json import strict_json

MAX_BYTES = 1_000_000
MAX_DEPTH = 20


def read_document(path: Path) -> dict[str, Any]:
    """Return the mapping that a ``.yaml`` or ``.json`` file holds.

    Raises:
        ContractError: it is not a readable text file of one mapping, or holds a key twice, an alias or a tag.
    """
    text = _text_of(path)
    try:
        document = strict_json(text) if path.suffix == ".json" else _yaml(text)
    except yaml.YAMLError as error:
        raise ContractError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except ValueError as error:  # of strict JSON, or of a YAML value such as the date 2020-99-99
        raise ContractError(f"{path}: cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ContractError(f"{path}: a contract is a mapping of sections; this is {_kind(document)}")
    return document


def _text_of(path: Path) -> str:
    if not path.is_file():
        raise ContractError(f"{path}: not a file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ContractError(f"{path}: cannot be opened: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise ContractError(f"{path}: larger than {MAX_BYTES} bytes; a contract is a page of text")
    if not content.strip():
        raise ContractError(f"{path}: the file is empty")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ContractError(f"{path}: no UTF-8 text, from byte {error.start} on") from error
    if "\0" in text:
        raise ContractError(f"{path}: a binary file, with a zero byte at {text.index(chr(0))}")
    return text


class _UniqueKeys(yaml.CSafeLoader):
    """Builds mappings whose keys are texts, each once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is no text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands here twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _yaml(text: str) -> Any:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"{_line(event)}: nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.NodeEvent) and event.anchor:
            raise ValueError(f"{_line(event)}: a contract holds no anchor and no alias ({event.anchor})")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
            raise ValueError(f"{_line(event)}: a contract holds no tag ({event.tag})")
    return yaml.load(text, Loader=_UniqueKeys)


def _line(event: yaml.Event) -> str:
    return f"line {event.start_mark.line + 1}" if event.start_mark else "somewhere"


def _kind(document: object) -> str:
    names = {type(None): "nothing but comments", list: "a list", str: "a text"}
    return names.get(type(document), f"a {type(document).__name__}")
