"""Code that does not fulfil the protocol is told when its contract is bound, not after hours of work."""

from __future__ import annotations

import functools
from types import MappingProxyType
from typing import Any

import pytest
import yaml

from omni_mlflow import registry
from omni_mlflow.contract import ContractError
from omni_mlflow.contract_validation import validate_contracts
from omni_mlflow.protocol import METHODS
from tests.conftest import TRIVIAL


@pytest.fixture
def trivial(monkeypatch):
    monkeypatch.syspath_prepend(str(TRIVIAL))
    import omni_trivial

    return omni_trivial.Trivial


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Validate a contract above some code and return its issues; loading must refuse with the same."""
    document = yaml.safe_load((TRIVIAL / "trivial.yaml").read_text())

    def told(backbone: Any, **sections: Any) -> list[str]:
        monkeypatch.setattr(registry, "load_backbone", lambda _: backbone)
        path = tmp_path / "trivial.yaml"
        path.write_text(yaml.safe_dump({**document, **sections}))
        [report] = validate_contracts(tmp_path, only=None, bind_names=True)
        if report.issues:
            with pytest.raises(ContractError) as refused:
                registry.load_bound(path, profile=None, changes={})
            assert list(refused.value.issues) == report.issues
        else:
            registry.load_bound(path, profile=None, changes={})
        return report.issues

    return told


def changed(trivial: type, **attributes: Any) -> Any:
    return type("Changed", (trivial,), attributes)()


def without(trivial: type, name: str) -> Any:
    kept = {key: value for key, value in vars(trivial).items() if key != name and key[:2] != "__"}
    return type("Without", (), kept)()


def test_code_that_fulfils_the_protocol_has_no_issue(trivial, told):
    assert told(trivial()) == []


@pytest.mark.parametrize(
    ("attributes", "issue"),
    [
        ({"id": "qwen3_omni_lora"}, "its id is 'qwen3_omni_lora'; id must be the contract's, 'trivial'"),
        (
            {"settings_type": dict},
            "its attribute settings_type is <class 'dict'>: ",
        ),
        ({"fitted_type": dict}, "its attribute fitted_type is <class 'dict'>: "),
        (
            {"gates": {"trivial_gate": None}},
            "its attribute gates.trivial_gate is None: ",
        ),
        ({"metrics": {"accuracy": 3}}, "its attribute metrics.accuracy is 3: "),
        ({"training_files": None}, "its attribute training_files is None: Input should be a valid frozenset"),
        (
            {"stage_settings": None},
            "its attribute stage_settings is None: Input should",
        ),
        ({"shown": frozenset({"smell"})}, "its attribute shown.0 is 'smell': Input should be 'mosaic_video'"),
        (
            {"predictions_file": "answers.jsonl"},
            "its predictions_file 'answers.jsonl' is not among its eval_files",
        ),
        ({"control": None}, "it has no method 'control'"),
        (
            {"fit": lambda self, rows: None},
            "its method 'fit' must take (train, *, settings)",
        ),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_what_does_not_fit_the_protocol_is_named_when_it_is_bound(trivial, told, attributes, issue):
    issues = told(changed(trivial, **attributes))
    assert any(each.startswith(f"backbone 'trivial': {issue}") for each in issues), issues
    assert all("docs/add_a_backbone.md shows how" in each for each in issues if "backbone 'trivial'" in each)


@pytest.mark.parametrize("name", [*METHODS, "shown", "controls", "predictions_file", "metrics"])
def test_each_method_and_attribute_that_is_missing_is_named(trivial, told, name):
    kind = "method" if name in METHODS else "attribute"
    [issue] = [each for each in told(without(trivial, name)) if "backbone 'trivial'" in each]
    assert issue.startswith(f"backbone 'trivial': it has no {kind} {name!r}")


class Cached:
    """Hides the methods of a class behind what decorators leave."""

    @functools.cache  # noqa: B019 - as people write it
    def load(self, checkpoint, *, media_root, settings, generated):
        """Is as good as any method."""


class Raises:
    @property
    def shown(self):
        raise KeyError("smell")

    @property
    def load(self):
        raise RuntimeError("not now")

    @property
    def fit(self):
        raise SystemExit(0)


def test_a_decorated_method_and_a_read_only_mapping_are_as_good_as_others(trivial, told):
    gates = MappingProxyType(dict(trivial().gates))
    assert told(changed(trivial, load=Cached.load, gates=gates)) == []


def test_what_raises_when_it_is_looked_at_is_an_issue_of_its_own(trivial, told):
    issues = told(changed(trivial, shown=Raises.shown, load=Raises.load, fit=Raises.fit))
    assert "its attribute 'shown' cannot be read: KeyError: 'smell'" in issues[0]
    assert "its method 'fit' cannot be read: SystemExit: 0" in issues[1]
    assert "its method 'load' cannot be read: RuntimeError: not now" in issues[2]


async def waits(self, train, *, settings):
    """Gives a promise."""


@pytest.mark.parametrize(
    ("attributes", "issue"),
    [
        ({"fit": dict}, "its method 'fit' must take (train, *, settings)"),
        ({"fit": waits}, "its method 'fit' is async; nobody awaits it"),
        ({"gates": {"trivial_gate": list}}, "its gate 'trivial_gate' is no function"),
        ({"gates": {"trivial_gate": lambda: []}}, "its gate 'trivial_gate' must take (test)"),
        ({"episodes_folder": 3}, "its attribute episodes_folder is 3: Input should be a valid string"),
        ({"episodes_folder": "whole"}, "it has no method 'export_episodes'"),
        (
            {"describe_served": lambda self: None},
            "its method 'describe_served' must take (folder, *, settings)",
        ),
    ],
)
def test_methods_gates_and_what_a_backbone_may_add_must_be_callable_as_they_are_called(
    trivial, told, attributes, issue
):
    assert any(f"backbone 'trivial': {issue}" in each for each in told(changed(trivial, **attributes)))


def test_code_that_raises_in_a_way_nobody_foresaw_is_an_issue_of_its_contract(trivial, tmp_path, monkeypatch):
    document = yaml.safe_load((TRIVIAL / "trivial.yaml").read_text())
    (tmp_path / "trivial.yaml").write_text(yaml.safe_dump(document))

    class Odd(trivial.settings_type):
        @classmethod
        def model_validate(cls, *_, **__):
            raise ZeroDivisionError("odd")

    monkeypatch.setattr(registry, "load_backbone", lambda _: changed(trivial, settings_type=Odd))
    [report] = validate_contracts(tmp_path, only=None, bind_names=True)
    assert report.issues == ["its code cannot be judged: ZeroDivisionError: odd"]


def test_the_class_in_the_place_of_an_instance_is_told(trivial, told):
    assert told(trivial)[0] == "BACKBONE is the class Trivial; it must be an instance: BACKBONE = Trivial()"


def test_what_the_model_is_shown_may_not_be_excluded_and_must_be_named(trivial, told):
    sees = changed(trivial, shown=frozenset({"audio", "imu", "language"}))
    modalities = {"direct_inputs": ["language"], "excluded_inputs": ["audio"]}
    assert [issue.partition(" (")[0] for issue in told(sees, modalities=modalities)] == [
        "modalities: 'audio' is excluded, but the code of the backbone shows it to the model",
        "modalities: 'imu' is no input, but the code of the backbone shows it to the model",
    ]
    assert told(sees) == []


def test_one_faulty_backbone_hides_no_other_contract(trivial, tmp_path, monkeypatch):
    document = yaml.safe_load((TRIVIAL / "trivial.yaml").read_text())
    for name in ("faulty", "sound"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**document, "id": name}))
    code = {"faulty": without(trivial, "metrics"), "sound": changed(trivial, id="sound")}
    monkeypatch.setattr(registry, "load_backbone", code.__getitem__)
    faulty, sound = validate_contracts(tmp_path, only=None, bind_names=True)
    assert any("backbone 'faulty': it has no attribute 'metrics'" in issue for issue in faulty.issues)
    assert sound.issues == []
