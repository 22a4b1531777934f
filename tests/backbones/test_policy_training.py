"""Training the policy: it learns, it resumes exactly, whole or by an adapter, and says what it consumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from policy_nano import NAMES, made_up, make_nano, observations
from pydantic import ValidationError
from training_logs import ListLog

from omni_mlflow.backbones.optimisation import TooFewSamplesError
from omni_mlflow.backbones.policy_vla_branch.base_model import load_model
from omni_mlflow.backbones.policy_vla_branch.inference import ActionSampler, load_policy
from omni_mlflow.backbones.policy_vla_branch.tiny_base import NARROW
from omni_mlflow.spine.rows import file_digest

pytestmark = pytest.mark.training


def files(log):
    return {
        path.relative_to(log.checkpoint).as_posix(): file_digest(path)
        for path in log.checkpoint.rglob("*")
        if path.is_file()
    }


def test_every_step_says_which_samples_it_learned_from(policy_nano, policy_log):
    log = policy_log()
    facts = policy_nano.train(log, policy_nano.settings(training_steps=6))
    assert [step for step, _ in log.ledger] == [1, 2, 3, 4, 5, 6]
    # 21 samples in batches of four: five batches per pass, no sample twice in a pass
    assert len({each for _, ids in log.ledger[:5] for each in ids}) == 20
    assert [row["step"] for row in log.rows if row["event"] == "validation"] == [3, 6]
    assert facts.steps == 6
    assert facts.base_model == str(policy_nano.base)


def test_the_model_files_are_those_of_a_plain_pi0_with_the_heads_beside_it(policy_checkpoint):
    assert {path.name for path in policy_checkpoint.iterdir()} == {
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "heads.json",
        "heads.safetensors",
        "base.json",
        "canary.json",
        "normalization_stats.json",
    }
    heads = json.loads((policy_checkpoint / "heads.json").read_text())
    assert heads["action"] == list(NAMES)
    assert heads["features"] == 2 * 32 + 32


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_killed_training_goes_on_and_ends_in_the_same_bytes(policy_nano, policy_log, mode):
    settings = policy_nano.settings(training_steps=5, training_checkpoint_every=2, training_mode=mode)
    whole, killed = policy_log("whole"), policy_log("killed", stop_after=4)
    policy_nano.train(whole, settings)
    with pytest.raises(KeyboardInterrupt):
        policy_nano.train(killed, settings)
    assert sorted(path.name for path in killed.resume.iterdir()) == ["step-00000002"]
    killed.stop_after = None
    policy_nano.train(killed, settings)
    assert (killed.rows, killed.ledger) == (whole.rows, whole.ledger)
    assert files(killed) == files(whole)


def test_accumulated_batches_make_one_step(policy_nano, policy_log):
    log = policy_log()
    policy_nano.train(log, policy_nano.settings(training_batch_size=2, training_accumulate=3))
    assert [len(ids) for _, ids in log.ledger] == [6, 6, 6]


def test_an_adapter_leaves_the_vision_tower_alone_and_lies_beside_the_weights_it_is_merged_into(
    policy_nano, policy_lora_checkpoint
):
    import torch
    from safetensors.torch import load_file

    names = load_file(policy_lora_checkpoint / "adapter" / "adapter_model.safetensors")
    # two layers, two transformers, seven matrices, A and B; five projections with weight and bias
    assert len(names) == 2 * 2 * 7 * 2 + 5 * 2
    assert not [name for name in names if "vision" in name]
    base, trained = (
        load_model(folder, revision="local", horizon=4, dtype="float32").state_dict()
        for folder in (policy_nano.base, policy_lora_checkpoint)
    )
    changed = {name for name in base if not torch.equal(base[name], trained[name])}
    assert "model.dit.layers.0.self_attn.q_proj.weight" in changed
    assert "action_out_proj.weight" in changed
    assert not [name for name in changed if "vision" in name or "norm" in name]


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_bfloat16_computes_in_half_precision_and_trains_float32_weights(policy_nano, policy_log, mode):
    from safetensors.torch import load_file

    log = policy_log()
    policy_nano.train(log, policy_nano.settings(base_precision="bfloat16", training_mode=mode))
    assert all(np.isfinite(log.losses()))
    name = "adapter/adapter_model.safetensors" if mode == "lora" else "model.safetensors"
    types = {str(tensor.dtype) for tensor in load_file(log.checkpoint / name).values()}
    assert types == {"torch.float32"}


def test_activations_of_the_whole_model_are_never_recomputed(policy_nano, policy_log, tmp_path):
    """Recomputed layers fill no cache, which is how actions see the image: pi0 cannot be trained so."""
    with pytest.raises(ValidationError, match="gradient_checkpointing"):
        policy_nano.settings(training_gradient_checkpointing=True)
    base = shutil.copytree(policy_nano.base, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"gradient_checkpointing": True}))
    plain, asked = policy_log("plain"), policy_log("asked")
    policy_nano.train(plain)
    policy_nano.train(asked, policy_nano.settings(base_model=str(base)))
    assert asked.losses() == plain.losses()


def test_fewer_samples_than_a_step_needs_are_an_error_that_says_what_to_do(policy_nano, policy_log):
    with pytest.raises(TooFewSamplesError, match=r"21 train samples cannot fill a batch of 22; lower"):
        policy_nano.train(policy_log(), policy_nano.settings(training_batch_size=22))


KILLED = """
import os, signal, sys
from pathlib import Path
from policy_nano import PolicyNano, made_up
from training_logs import ListLog

class Killed(ListLog):
    def consumed(self, sample_ids, *, step):
        if step == 4:
            os.kill(os.getpid(), signal.SIGKILL)

nano = PolicyNano(Path(sys.argv[1]), made_up(21, seed=1), made_up(9, seed=2))
log = Killed(Path(sys.argv[2]))
nano.train(log, nano.settings(training_steps=5, training_checkpoint_every=2))
"""


@pytest.mark.slow
def test_a_process_that_the_system_kills_is_gone_on_from_to_the_same_bytes(policy_nano, policy_log):
    whole, killed = policy_log("whole"), policy_log("killed")
    settings = policy_nano.settings(training_steps=5, training_checkpoint_every=2)
    policy_nano.train(whole, settings)
    command = [sys.executable, "-c", KILLED, str(policy_nano.base), str(killed.root)]
    here = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": here}, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [path.name for path in killed.resume.iterdir()] == ["step-00000002"]
    policy_nano.train(killed, settings)
    assert killed.rows[0]["event"] == "step"
    assert killed.rows[0]["step"] == 3
    assert files(killed) == files(whole)


@pytest.mark.slow
def test_it_learns_where_the_hand_goes_what_is_done_and_what_comes_next(tmp_path):
    nano = make_nano(tmp_path / "base", replace(NARROW, horizon=4), samples=600)
    settings = nano.settings(
        training_steps=300,
        training_batch_size=64,
        training_warmup_steps=30,
        training_checkpoint_every=300,
        training_validate_every=300,
    )
    log = ListLog(tmp_path / "log")
    nano.train(log, settings)
    assert np.mean(log.losses()[-20:]) < 0.5 * np.mean(log.losses()[:20])
    held_out = made_up(200, seed=9)
    sampler = ActionSampler(load_policy(log.checkpoint, settings), settings)
    chunks, raw = sampler.sample_actions(held_out.ids, observations(held_out, range(200)))
    answers = [json.loads(each) for each in raw]
    for name in ("action", "next_action"):
        truth = getattr(held_out, name)
        known = [index for index in range(200) if truth[index] >= 0]
        hits = [answers[index][name] == NAMES[truth[index]] for index in known]
        majority = np.bincount(truth[known]).max() / len(known)
        assert np.mean(hits) > majority + 0.25, name
    reach = held_out.actions[:, -1, :2]
    error = np.linalg.norm(chunks[0, :, -1, :2] - reach, axis=-1).mean()
    assert error < 0.7 * np.linalg.norm(reach - reach.mean(axis=0), axis=-1).mean()
