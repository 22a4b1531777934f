"""Whatever the JSON files of a checkpoint hold, the gate answers with a broken rule and raises nothing."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from omni_mlflow.backbones.base import CheckpointUnderTest, SampleSet
from omni_mlflow.backbones.qwen3_omni_lora.gate import lora_safetensors_shape_check
from omni_mlflow.spine.rows import file_digest
from omni_mlflow.spine.types import broken
from omni_mlflow.stages.checkpoint_checks import fitted_check, manifest_checks

pytestmark = [pytest.mark.training, pytest.mark.slow]

FILES = ("adapter_config.json", "base.json", "fitted.json", "checkpoint_manifest.json")
ODD: tuple[Any, ...] = (
    None,
    True,
    1,
    4.0,
    -1,
    0.5,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "4",
    "\ud800",
    "\0",
    [],
    [None],
    [["q_proj"]],
    {},
    {"r": [4]},
    {"\ud800": 1},
)
UNSEEN = {"peft_version", "auto_mapping"}
"""Notes of PEFT that change no tensor: any value that PEFT itself can load passes."""


@pytest.fixture(scope="module")
def sound(qwen_nano, qwen_checkpoint, tmp_path_factory) -> CheckpointUnderTest:
    folder = tmp_path_factory.mktemp("odd") / "checkpoint"
    shutil.copytree(qwen_checkpoint, folder)
    ledger = folder.parent / "ledger"
    ledger.write_text("")
    manifest = {"files": {}, "dataset_digest": "d", "training_ledger_digest": file_digest(ledger)}
    (folder / "checkpoint_manifest.json").write_text(json.dumps(manifest))
    return CheckpointUnderTest(
        folder=folder,
        settings=qwen_nano.settings(),
        canaries=SampleSet(qwen_nano.rows[:1], qwen_nano.media_root),
        fitted=qwen_nano.priors,
        out=folder / "generated",
    )


def verdict(checkpoint: CheckpointUnderTest, name: str) -> set[str]:
    """The rules that break; that the manifest lists no file is left out."""
    checks = [fitted_check(checkpoint.folder, checkpoint.fitted)[1]]
    if name == "checkpoint_manifest.json":
        checks += manifest_checks(
            checkpoint.folder, dataset_digest="d", ledger=checkpoint.folder.parent / "ledger"
        )
    else:
        checks += lora_safetensors_shape_check(checkpoint)
    for check in broken(checks):
        check.model_dump_json()  # gate.json can hold it
    return {check.rule for check in broken(checks)} - {"checkpoint_has_no_other_file"}


def fields_of(name: str, content: dict[str, Any]) -> list[str]:
    return [field for field in content if name != "adapter_config.json" or field not in UNSEEN]


@pytest.mark.parametrize("name", FILES)
def test_an_odd_value_in_any_field_is_refused_by_name(sound, name):
    path = sound.folder / name
    text = path.read_text()
    content = json.loads(text)
    passed: list[tuple[str, Any]] = []
    try:
        for field in fields_of(name, content):
            for value in ODD:
                path.write_text(json.dumps(content | {field: value}))
                same = (type(value), value) == (type(content[field]), content[field])
                if not same and not verdict(sound, name):
                    passed.append((field, value))
    finally:
        path.write_text(text)
    assert not passed


@pytest.mark.parametrize("field", sorted(UNSEEN))
def test_a_note_that_changes_no_tensor_never_makes_the_gate_raise(sound, field):
    path = sound.folder / "adapter_config.json"
    text = path.read_text()
    try:
        for value in ODD:
            path.write_text(json.dumps(json.loads(text) | {field: value}))
            assert verdict(sound, path.name) <= {"adapter_config_is_readable", "adapter_loads"}
    finally:
        path.write_text(text)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("text", ["[" * 5000, '{"a":' * 5000, "[" * 900 + "]" * 900, "null", "4", '"x"'])
def test_a_file_that_is_no_mapping_or_nested_too_deep_is_refused(sound, name, text):
    path = sound.folder / name
    before = path.read_text()
    try:
        path.write_text(text)
        assert verdict(sound, name)
    finally:
        path.write_text(before)
