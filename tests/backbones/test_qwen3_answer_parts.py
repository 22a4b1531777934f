"""What an answer of the Qwen adapter depends on is named; one changed bit is seen in one part."""

from __future__ import annotations

import json

import pytest

from omni_mlflow.backbones.qwen3_omni_lora.answer_parts import answer_parts
from tests.backbones.qwen3_nano import qwen_settings

BASE = {"model": "the base", "revision": "main", "source": "commit 0f", "fingerprint": "ab"}
FILES = {"tokenizer.json": '{"a": 0}', "preprocessor_config.json": '{"patch_size": 16}', "config.json": "{}"}


@pytest.fixture
def folders(tmp_path):
    """A checkpoint, and a base model in a folder."""
    checkpoint, base = tmp_path / "checkpoint", tmp_path / "base"
    checkpoint.mkdir()
    base.mkdir()
    (checkpoint / "base.json").write_text(json.dumps(BASE))
    (checkpoint / "adapter_config.json").write_text('{"r": 16}')
    for name, text in FILES.items():
        (base / name).write_text(text)
    return checkpoint, base


def parts(folders, **changes):
    checkpoint, base = folders
    return answer_parts(checkpoint, qwen_settings(**{"base_model": str(base), **changes}))


def rewrite(folder, name, text):
    return lambda folders: (folders[folder] / name).write_text(text)


CHANGES = {
    "base_model": (rewrite(0, "base.json", json.dumps({**BASE, "fingerprint": "ac"})), {}),
    "base_revision": (rewrite(0, "base.json", json.dumps({**BASE, "source": "commit 0e"})), {}),
    "adapter_config": (rewrite(0, "adapter_config.json", '{"r": 17}'), {}),
    "processor": (rewrite(1, "preprocessor_config.json", '{"patch_size": 17}'), {}),
    "prompt": (None, {"prompt_sensor_bridge": False}),
    "decoding": (None, {"decoding_max_new_tokens": 161}),
}


@pytest.mark.parametrize("part", CHANGES)
def test_the_least_change_of_a_part_is_seen_in_that_part_alone(folders, part):
    change, settings = CHANGES[part]
    before = parts(folders)
    assert set(before) == set(CHANGES)
    if change:
        change(folders)
    after = parts(folders, **settings)
    assert [name for name in before if before[name] != after[name]] == [part]


def test_a_chat_template_is_part_of_the_processor_and_the_weights_configuration_is_not(folders):
    before = parts(folders)
    (folders[1] / "config.json").write_text('{"architectures": []}')
    assert parts(folders) == before
    (folders[1] / "chat_template.jinja").write_text("{{ messages }}")
    assert parts(folders)["processor"] != before["processor"]


def test_settings_of_the_training_are_no_part(folders):
    assert parts(folders, training_steps=999, lora_rank=4) == parts(folders)
