"""What an answer of the Qwen adapter depends on is named; one changed bit is seen in one part."""

from __future__ import annotations

import json

import pytest

from omni_mlflow.backbones import libraries
from omni_mlflow.backbones.qwen3_omni_lora.answer_parts import answer_parts
from tests.backbones.qwen3_nano import qwen_settings

BASE = {"model": "the base", "revision": "main", "source": "commit 0f", "fingerprint": "ab"}
FILES = {
    "tokenizer.json": '{"a": 0}',
    "preprocessor_config.json": '{"patch_size": 16}',
    "config.json": '{"rope_theta": 16}',
    "generation_config.json": '{"repetition_penalty": 1}',
    "model.safetensors": "weights 0",
}
COMMIT = "0123456789abcdef" * 2 + "01234567"


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
    "base_weights": (rewrite(1, "model.safetensors", "weights 1"), {}),
    "base_config": (rewrite(1, "generation_config.json", '{"repetition_penalty": 2}'), {}),
    "adapter_config": (rewrite(0, "adapter_config.json", '{"r": 17}'), {}),
    "processor": (rewrite(1, "preprocessor_config.json", '{"patch_size": 17}'), {}),
    "prompt": (None, {"prompt_sensor_bridge": False}),
    "decoding": (None, {"decoding_max_new_tokens": 161}),
}


@pytest.mark.parametrize("part", CHANGES)
def test_the_least_change_of_a_part_is_seen_in_that_part_alone(folders, part):
    change, settings = CHANGES[part]
    before = parts(folders)
    assert set(before) == {*CHANGES, "libraries"}
    if change:
        change(folders)
    after = parts(folders, **settings)
    assert [name for name in before if before[name] != after[name]] == [part]


def test_a_chat_template_is_part_of_the_processor_and_how_the_layers_are_built_of_the_base(folders):
    before = parts(folders)
    (folders[1] / "config.json").write_text('{"rope_theta": 17}')
    built = parts(folders)
    assert {name for name in before if before[name] != built[name]} == {"base_config"}
    (folders[1] / "chat_template.jinja").write_text("{{ messages }}")
    assert parts(folders)["processor"] != built["processor"]


@pytest.mark.parametrize("name", ["torch", "transformers", "peft", "accelerate", "tokenizers", "av"])
def test_another_release_of_a_library_is_another_part(folders, monkeypatch, name):
    before = parts(folders)
    version = libraries.version
    monkeypatch.setattr(libraries, "version", lambda each: version(each) + ".1" * (each == name))
    after = parts(folders)
    assert [part for part in before if before[part] != after[part]] == ["libraries"]


def test_a_hub_id_stands_for_the_commit_that_lies_here_and_for_that_of_the_training_where_none_does(
    folders, tmp_path, monkeypatch
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    nowhere = parts(folders, base_model="qwen/base", base_revision="main")
    assert nowhere["base_weights"] == nowhere["base_config"] == nowhere["processor"] == "qwen/base 0f"
    cached = tmp_path / "hub/models--qwen--base"
    (cached / "snapshots" / COMMIT).mkdir(parents=True)
    (cached / "snapshots" / COMMIT / "config.json").write_text("{}")
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text(COMMIT)
    here = parts(folders, base_model="qwen/base", base_revision="main")
    assert {part for part in here if here[part] != nowhere[part]} == {
        "base_weights",
        "base_config",
        "processor",
    }
    assert here["base_weights"] == f"qwen/base {COMMIT}"


def test_settings_of_the_training_are_no_part(folders):
    assert parts(folders, training_steps=999, lora_rank=4) == parts(folders)
