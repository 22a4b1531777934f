"""The LoRA gate passes a sound checkpoint and refuses each broken one for its own reason."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from qwen3_faults import DATASET, FAULTS, Q_A, TrainedFolder, change_json, every

from omni_mlflow.backbones.base import CheckpointUnderTest, SampleSet
from omni_mlflow.backbones.base_identity import fingerprint
from omni_mlflow.backbones.qwen3_omni_lora import BACKBONE
from omni_mlflow.backbones.qwen3_omni_lora.adapter_rules import AdapterFiles, equals_peft_expectation
from omni_mlflow.backbones.qwen3_omni_lora.base_model import load_config, load_thinker
from omni_mlflow.backbones.qwen3_omni_lora.gate import lora_safetensors_shape_check
from omni_mlflow.backbones.qwen3_omni_lora.settings import Settings
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.types import Check, Split, broken
from omni_mlflow.stages.checkpoint_checks import ask_gates, fitted_check, ledger_checks, manifest_checks

pytestmark = pytest.mark.training

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def trained(qwen_nano, qwen_checkpoint, tmp_path) -> TrainedFolder:
    """What a training leaves, sound and sealed."""
    trained = TrainedFolder(tmp_path / "train")
    shutil.copytree(qwen_checkpoint, trained.checkpoint)
    ids = [row.sample.id for row in qwen_nano.rows]
    trained.ledger.write_text(json.dumps({"step": 1, "ids": ids}) + "\n")
    trained.seal()
    return trained


@pytest.fixture
def under_test(qwen_nano, trained) -> CheckpointUnderTest:
    return CheckpointUnderTest(
        folder=trained.checkpoint,
        settings=qwen_nano.settings(),
        canaries=SampleSet(qwen_nano.rows[:2], qwen_nano.media_root),
        fitted=qwen_nano.priors,
        out=trained.root / "generated",
    )


@pytest.fixture
def verdict(qwen_nano, trained, under_test):
    """Everything that the gate stage asks of a checkpoint of this family, in its order."""
    split_of = {row.sample.id: Split.TRAIN for row in qwen_nano.rows} | {"val": Split.VAL, "test": Split.TEST}

    def ask() -> list[Check]:
        return [
            *manifest_checks(trained.checkpoint, dataset_digest=DATASET, ledger=trained.ledger),
            *ledger_checks(trained.ledger, split_of)[1],
            fitted_check(trained.checkpoint, under_test.fitted)[1],
            *ask_gates(BACKBONE.gates, under_test),
        ]

    return ask


def broken_rules(under_test: CheckpointUnderTest) -> list[str]:
    return [check.rule for check in broken(lora_safetensors_shape_check(under_test))]


def test_a_sound_checkpoint_passes_every_rule(under_test):
    checks = lora_safetensors_shape_check(under_test)
    assert not broken(checks)
    assert [check.rule for check in checks] == [
        "fitted_on_train_only",
        "adapter_config_is_readable",
        "adapter_weights_are_readable",
        "base_config_is_readable",
        "adapter_is_lora",
        "adapter_config_matches_contract",
        "base_revision_matches_contract",
        "adapter_keys_are_known",
        "adapter_pairs_are_complete",
        "adapter_covers_target_modules",
        "adapter_tensors_are_matrices",
        "adapter_values_are_float32",
        "adapter_shapes_fit_base",
        "adapter_values_are_finite",
        "adapter_was_trained",
        "adapter_equals_peft_expectation",
        "base_weights_are_those_trained_on",
        "base_source_is_the_one_trained_on",
        "adapter_changes_the_base",
        "reload_gives_same_logits",
        "merge_gives_same_logits",
    ]
    assert BACKBONE.gates.keys() == {"lora_safetensors_shape_check"}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_checkpoint_is_refused_for_its_own_reason(trained, verdict, name):
    fault = FAULTS[name]
    fault.damage(trained)
    if fault.sealed:
        trained.seal()
    refused = [check.rule for check in broken(verdict())]
    assert refused[0] == fault.rule
    assert set(refused) == {fault.rule, *fault.also}


def test_a_sealed_sound_checkpoint_passes_the_rules_that_refuse_the_broken_ones(verdict):
    checks = verdict()
    assert not broken(checks)
    only_when_torn = {fault.rule for fault in FAULTS.values()} - {check.rule for check in checks}
    assert only_when_torn == {"checkpoint_manifest_is_readable", "training_ledger_is_readable"}


def test_the_readme_states_the_number_of_broken_checkpoints():
    [stated] = re.findall(r"(\d+) broken checkpoints", README.read_text())
    assert int(stated) == len(FAULTS) >= 30


def test_peft_itself_would_make_other_tensors_is_a_rule_of_its_own(under_test, qwen_nano):
    """A second opinion on names and shapes, for the day on which our arithmetic is wrong and PEFT is not."""
    from safetensors.torch import load_file

    settings = under_test.settings
    tensors = load_file(under_test.folder / "adapter_model.safetensors")
    files = AdapterFiles({}, tensors, load_config(str(qwen_nano.base), settings.base), settings)
    assert equals_peft_expectation(files).ok
    del tensors[Q_A]
    assert Q_A in equals_peft_expectation(files).found


def test_priors_that_saw_more_than_train_are_refused(under_test, qwen_nano):
    peeked = [row.target for row in qwen_nano.rows]
    peeked.append(peeked[0].model_copy(update={"id": "garage__ep1:20:0", "episode_id": "garage__ep1"}))
    fitted = TrainPriors.fit(peeked).model_dump(mode="json")
    (under_test.folder / "fitted.json").write_text(json.dumps(fitted))
    assert broken_rules(under_test) == ["fitted_on_train_only"]
    (under_test.folder / "fitted.json").unlink()
    assert broken_rules(under_test) == ["fitted_on_train_only"]


def other_base(qwen_nano, folder: Path) -> tuple[Path, Settings]:
    """A copy of the nano base, and the settings that name it."""
    shutil.copytree(qwen_nano.base, folder)
    settings = qwen_nano.settings()
    return folder, settings.model_copy(
        update={"base": settings.base.model_copy(update={"model": str(folder)})}
    )


@pytest.mark.parametrize(
    "weight",
    [
        "thinker.model.layers.0.mlp.gate.weight",
        "thinker.model.layers.1.self_attn.q_proj.weight",
        "thinker.model.layers.1.mlp.experts.1.down_proj.weight",
        "thinker.model.embed_tokens.weight",
        "thinker.visual.merger.mlp.0.weight",
    ],
)
def test_an_adapter_on_other_base_weights_is_refused(under_test, qwen_nano, tmp_path, weight):
    """One value of one weight is another; which one makes no difference."""
    from safetensors.torch import load_file, save_file

    other, settings = other_base(qwen_nano, tmp_path / "other_base")
    tensors = load_file(other / "model.safetensors")
    tensors[weight].view(-1)[0] += 0.5
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    change_json(under_test.folder / "adapter_config.json", base_model_name_or_path=str(other))
    change_json(under_test.folder / "base.json", model=str(other))
    assert broken_rules(replace(under_test, settings=settings)) == ["base_weights_are_those_trained_on"]


def test_an_adapter_on_a_base_with_another_chat_template_is_refused(under_test, qwen_nano, tmp_path):
    other, settings = other_base(qwen_nano, tmp_path / "other_base")
    (other / "chat_template.jinja").write_text((other / "chat_template.jinja").read_text() + " ")
    change_json(under_test.folder / "adapter_config.json", base_model_name_or_path=str(other))
    change_json(under_test.folder / "base.json", model=str(other))
    assert broken_rules(replace(under_test, settings=settings)) == ["base_source_is_the_one_trained_on"]


def test_a_snapshot_of_the_hub_is_known_by_its_commit(under_test, qwen_nano, tmp_path):
    commit = "0123456789abcdef" * 2 + "01234567"
    other, settings = other_base(qwen_nano, tmp_path / "models--qwen" / "snapshots" / commit)
    change_json(under_test.folder / "adapter_config.json", base_model_name_or_path=str(other))
    change_json(under_test.folder / "base.json", model=str(other), source=f"commit {commit}")
    assert not broken_rules(replace(under_test, settings=settings))
    change_json(under_test.folder / "base.json", source="commit " + "f" * 40)
    assert broken_rules(replace(under_test, settings=settings)) == ["base_source_is_the_one_trained_on"]


def test_in_bfloat16_an_effect_that_only_stirs_the_rounding_is_none(under_test, qwen_nano):
    """At a hundredth of its weights the adapter moves the scores by 5e-3, and so does merging it."""
    settings = qwen_nano.settings(base_precision="bfloat16")
    base = load_thinker(settings.base.model, settings.base)
    change_json(under_test.folder / "base.json", fingerprint=fingerprint(base))
    in_bfloat16 = replace(under_test, settings=settings)
    scale = every(lambda tensor: tensor * 20, side="lora_B")
    scale(TrainedFolder(under_test.folder.parent))
    assert not broken(lora_safetensors_shape_check(in_bfloat16))
    faint = every(lambda tensor: tensor / 2000, side="lora_B")
    faint(TrainedFolder(under_test.folder.parent))
    [refused] = broken(lora_safetensors_shape_check(in_bfloat16))
    assert refused.rule == "adapter_changes_the_base"
    assert 1e-4 < float(refused.found) < 2e-2


def test_without_a_sample_to_ask_the_gate_does_not_pass(under_test):
    assert broken_rules(replace(under_test, canaries=SampleSet((), under_test.folder))) == ["canaries_given"]
