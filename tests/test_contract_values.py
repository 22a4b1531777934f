"""A number of a contract has two ends, a text says something, and in no list anything stands twice."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_mlflow.contract import ContractError
from omni_mlflow.contract.file import load_contract, parse_contract
from omni_mlflow.contract_validation import validate_contracts
from omni_mlflow.registry import binding_issues
from tests.conftest import PROJECT

DOCUMENTS: dict[str, dict[str, Any]] = {
    name: yaml.safe_load((PROJECT / "contracts" / f"{name}.yaml").read_text())
    for name in ("qwen3_omni_lora", "policy_vla_branch")
}
DOCUMENT = DOCUMENTS["qwen3_omni_lora"]


def leaves(node: Any, kind: type | tuple[type, ...], place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values of a kind in a document, its profiles left out."""
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return [
            found
            for key, value in items
            if (*place, key) != ("profiles",)
            for found in leaves(value, kind, (*place, key))
        ]
    return [place] if isinstance(node, kind) and not isinstance(node, bool) else []


def changed(place: tuple[Any, ...], value: Any, document: dict[str, Any] = DOCUMENT) -> dict[str, Any]:
    document = deepcopy(document)
    node = document
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    return document


def issues(document: dict[str, Any]) -> list[str]:
    try:
        parse_contract(document, where="")
    except ContractError as error:
        return list(error.issues)
    return binding_issues(document)


def of_the_first_or_of_settings(kind: type | tuple[type, ...]) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """The sections that all contracts share are looked at in one of them, the settings in each."""
    return {
        ".".join([name, *map(str, place)]): (name, place)
        for name, document in DOCUMENTS.items()
        for place in leaves(document, kind)
        if document is DOCUMENT or place[0] == "settings"
    }


NUMBERS = of_the_first_or_of_settings((int, float))
TEXTS = of_the_first_or_of_settings(str)
LISTS = [
    ("split_policy", "leakage_guard"),
    ("questions", "describe"),
    ("windows", "scales"),
    ("primary_metrics",),
    ("artifact_contract", "required_eval_files"),
    ("artifact_contract", "public_package_allowed"),
    ("settings", "lora", "target_modules"),
]


def test_the_document_has_all_its_numbers_looked_at():
    assert len(NUMBERS) > 45
    assert [issues(document) for document in DOCUMENTS.values()] == [[], []]


@pytest.mark.parametrize(("backbone", "place"), NUMBERS.values(), ids=NUMBERS)
@settings(max_examples=4, deadline=None)
@given(
    value=st.one_of(
        st.integers(max_value=-1),
        st.integers(min_value=10**11),
        st.floats(max_value=-1e-9),
        st.floats(min_value=1e11),
        st.sampled_from([math.nan, math.inf, -math.inf, True, "8", None, []]),
    )
)
def test_a_number_without_sense_is_refused_and_its_field_is_named(backbone, place, value):
    told = issues(changed(place, value, DOCUMENTS[backbone]))
    field = ".".join(map(str, place)).replace("settings.", "settings: ", 1)
    assert any(field in issue for issue in told)


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (
            ("windows", "tile_pixels", 0),
            -320,
            "windows.tile_pixels.0: -320 is not an even number from 2 to 8192",
        ),
        (
            ("settings", "training", "learning_rate"),
            math.inf,
            "settings: training.learning_rate: inf is not a number above 0 to 1",
        ),
        (
            ("settings", "prompt", "audio_seconds"),
            math.nan,
            "settings: prompt.audio_seconds: nan is not a number above 0 to 3600",
        ),
        (
            ("settings", "training", "steps"),
            10**20,
            "settings: training.steps: 100000000000000000000 is not a whole number from 1 to 1000000000",
        ),
        (
            ("split_policy", "seed"),
            1.5,
            "split_policy.seed: 1.5 is not a whole number from 0 to 4294967295",
        ),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_an_issue_names_the_field_what_it_holds_and_what_it_may_hold(place, value, told):
    assert issues(changed(place, value)) == [told]


@pytest.mark.parametrize(("backbone", "place"), TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_text_is_refused(backbone, place, blank):
    assert issues(changed(place, blank, DOCUMENTS[backbone]))


def test_a_pattern_that_is_no_regular_expression_is_refused():
    [told] = issues(changed(("settings", "lora", "exclude_modules"), "((("))
    assert told.startswith("settings: lora.exclude_modules: ")
    assert "is no regular expression" in told


@pytest.mark.parametrize("place", LISTS, ids=".".join)
def test_what_stands_twice_in_a_list_is_refused(place):
    node = DOCUMENT
    for key in place:
        node = node[key]
    [told] = issues(changed(place, [*node, node[0]]))
    assert "stand there twice" in told


@pytest.mark.parametrize(
    "change", [{"status": "planned_adapter"}, {"id": "another"}, {"schema_version": 1}, {"profiles": {}}]
)
def test_a_profile_cannot_change_which_contract_this_is(tmp_path, change):
    document = changed(("profiles", "demo"), change)
    (tmp_path / "qwen3_omni_lora.yaml").write_text(yaml.safe_dump(document))
    [report] = validate_contracts(tmp_path, only=None, bind_names=True)
    assert any("a profile cannot change" in issue for issue in report.issues)
    with pytest.raises(ContractError, match="a profile cannot change"):
        load_contract(tmp_path / "qwen3_omni_lora.yaml", profile="demo")
