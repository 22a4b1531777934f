"""The model half of the policy's gate passes sound checkpoints and refuses each broken one for its reason."""

from __future__ import annotations

import shutil

import pytest
from policy_damages import tensors
from policy_faults import ADAPTER, FAULTS
from policy_nano import LABELS

from omni_mlflow.backbones.policy_vla_branch.model_gate import model_checks
from omni_mlflow.spine.types import broken

pytestmark = pytest.mark.training

EVERY_MODE = [
    "model_files_are_those_of_the_mode",
    "small_files_are_readable",
    "chunk_length_agrees",
    "widths_agree",
    "config_is_the_bases",
    "processor_is_the_bases",
    "tokenizer_is_the_bases",
    "statistics_can_normalise",
    "processor_uses_the_recorded_statistics",
    "head_labels_are_those_of_train",
    "heads_have_the_shapes_of_their_labels",
    "heads_are_finite",
    "heads_were_trained",
    "weights_load_whole",
    "embedding_is_saved_once",
    "base_and_adapter_load",
    "base_source_is_the_one_trained_on",
    "base_weights_are_those_trained_on",
    "weights_are_finite",
    "weights_differ_from_the_base",
    "frozen_weights_are_the_bases",
    "canary_answers_come_back",
]
OF_AN_ADAPTER = [
    "adapter_config_matches_contract",
    "adapter_equals_peft_expectation",
    "adapter_is_finite",
    "adapter_is_merged_into_the_weights",
]


@pytest.fixture
def ask(policy_nano):
    def checks(folder, *, lora=False, labels=LABELS):
        settings = policy_nano.settings(training_mode="lora" if lora else "full")
        return model_checks(folder, settings, labels=labels)

    return checks


def test_a_sound_checkpoint_passes_every_rule(ask, policy_checkpoint, policy_lora_checkpoint):
    checks = ask(policy_checkpoint)
    assert not broken(checks)
    assert [check.rule for check in checks] == EVERY_MODE
    adapted = ask(policy_lora_checkpoint, lora=True)
    assert not broken(adapted)
    assert [check.rule for check in adapted] == [*EVERY_MODE[:-1], *OF_AN_ADAPTER, EVERY_MODE[-1]]


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_checkpoint_is_refused_for_its_own_reason(
    ask, policy_checkpoint, policy_lora_checkpoint, tmp_path, name
):
    fault = FAULTS[name]
    sound = policy_lora_checkpoint if fault.lora else policy_checkpoint
    folder = shutil.copytree(sound, tmp_path / "checkpoint")
    fault.damage(folder)
    assert {check.rule for check in broken(ask(folder, lora=fault.lora))} == {fault.rule}


def test_every_rule_refuses_something():
    refusing = {fault.rule for fault in FAULTS.values()}
    # a base that does not load is no fault of the checkpoint
    assert refusing == {*EVERY_MODE, *OF_AN_ADAPTER} - {"base_and_adapter_load"}
    assert len(FAULTS) >= 30


def test_heads_of_labels_that_train_does_not_have_are_refused(ask, policy_checkpoint):
    fewer = LABELS.model_copy(update={"action": LABELS.action[1:]})
    refused = {check.rule for check in broken(ask(policy_checkpoint, labels=fewer))}
    assert refused == {"head_labels_are_those_of_train", "heads_have_the_shapes_of_their_labels"}


@pytest.mark.parametrize("lora", [False, True])
def test_bfloat16_checkpoints_pass_too(policy_nano, policy_log, lora):
    log = policy_log()
    settings = policy_nano.settings(base_precision="bfloat16", training_mode="lora" if lora else "full")
    policy_nano.train(log, settings)
    assert not broken(model_checks(log.checkpoint, settings, labels=LABELS))
    if lora:
        tensors(ADAPTER, lambda found: [found[name].zero_() for name in found if "lora_B" in name])(
            log.checkpoint
        )
        refused = [check.rule for check in broken(model_checks(log.checkpoint, settings, labels=LABELS))]
        assert refused == ["adapter_is_merged_into_the_weights"]


def test_an_adapter_above_a_trained_checkpoint_passes_too(policy_nano, policy_checkpoint, policy_log):
    """The way LoRA is meant to be used: on weights that can already see, here those of a full training."""
    log = policy_log()
    settings = policy_nano.settings(base_model=str(policy_checkpoint), training_mode="lora")
    facts = policy_nano.train(log, settings)
    assert facts.base_model == str(policy_checkpoint)
    assert not broken(model_checks(log.checkpoint, settings, labels=LABELS))
