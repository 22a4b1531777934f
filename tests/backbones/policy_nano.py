"""A nano pi0, a small made-up world to learn from, and a training that keeps its log in lists.

The image shows one coloured block; the hand moves to its place. The action is the colour, the instruction
says which colour follows which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_logs import ListLog

from omni_mlflow.backbones.base import TrainingFacts
from omni_mlflow.backbones.policy_vla_branch.data import PolicyData
from omni_mlflow.backbones.policy_vla_branch.heads import CONTACT_LABELS, HeadLabels
from omni_mlflow.backbones.policy_vla_branch.observations import Observations
from omni_mlflow.backbones.policy_vla_branch.settings import Settings
from omni_mlflow.backbones.policy_vla_branch.statistics import NormalizationStats, fit_stats
from omni_mlflow.backbones.policy_vla_branch.tiny_base import TEST_SIZE, TinySize, build_tiny_base
from omni_mlflow.backbones.policy_vla_branch.training import train_policy

COLOURS = {"blue": (30, 60, 230), "green": (20, 200, 40), "red": (230, 40, 30)}
NAMES = tuple(COLOURS)
LABELS = HeadLabels(action=NAMES, next_action=NAMES, next_contact=CONTACT_LABELS, objects=NAMES)
HORIZON, DIMS, STATE_DIMS = TEST_SIZE.horizon, 6, 28


def policy_settings(base: Path, **changes: Any) -> Settings:
    """Settings of three steps, with single changes such as ``training_steps=5``."""
    blocks: dict[str, dict[str, Any]] = {
        "base": {"model": str(base), "revision": "local", "precision": "float32"},
        "action": {"space": "ee20", "horizon_frames": HORIZON},
        "targets": {"object_affordance": "objects_in_action"},
        "training": {
            "mode": "full",
            "steps": 3,
            "batch_size": 4,
            "learning_rate": 3e-3,
            "warmup_steps": 1,
            "checkpoint_every": 2,
            "validate_every": 3,
            "seed": 5,
            "head_weight": 0.1,
            "next_action_weight": 5.0,
        },
        "lora": {"rank": 4, "alpha": 8},
        "decoding": {"steps": 3, "samples_for_mean": 8},
    }
    for key, value in changes.items():
        block, _, name = key.partition("_")
        blocks[block][name] = value
    return Settings.model_validate(blocks)


def made_up(count: int, *, seed: int) -> PolicyData:
    """Samples of the made-up world: 6 dimensions reach for the block; the last is only known now and then."""
    rng = np.random.default_rng(seed)
    colour, order = rng.integers(0, 3, count), rng.integers(0, 2, count)
    column, row = rng.integers(0, 24, count), rng.integers(0, 24, count)
    images = np.full((count, 32, 32, 3), 128, dtype=np.uint8)
    for index in range(count):
        place = np.s_[index, row[index] : row[index] + 8, column[index] : column[index] + 8]
        images[place] = COLOURS[NAMES[colour[index]]]
    goal = np.stack([column, row], axis=-1) / 24 - 0.5
    share = np.arange(1, HORIZON + 1) / HORIZON
    actions = np.zeros((count, HORIZON, DIMS), dtype=np.float32)
    actions[..., :2] = 0.2 * share[None, :, None] * goal[:, None, :]
    actions[..., 2:] = 0.01 * rng.standard_normal((count, HORIZON, DIMS - 2))
    valid = np.ones(actions.shape, dtype=bool)
    valid[::4, -1, -1] = False
    actions[~valid] = 1e6  # what is not known must not matter
    states = np.zeros((count, STATE_DIMS), dtype=np.float32)
    states[:, 0] = rng.standard_normal(count)
    unknown = np.arange(count) % 7 == 0
    objects = np.eye(3, dtype=np.float32)[colour]
    objects[unknown] = np.nan
    return PolicyData(
        ids=[f"kitchen__ep1:{number}" for number in range(count)],
        images=lambda chosen: [images[index] for index in chosen],
        instructions=[("up", "down the list")[each] for each in order],
        states=states,
        actions=actions,
        valid=valid,
        action=colour.astype(np.int64),
        next_action=np.where(unknown, -1, (colour + 1 + order) % 3).astype(np.int64),
        next_contact=(column > 12).astype(np.int64),
        objects=objects,
    )


def statistics_for(data: PolicyData) -> NormalizationStats:
    floors = np.full(DIMS, 0.005), np.full(STATE_DIMS, 0.01)
    known = np.ones(data.states.shape, dtype=bool)
    return NormalizationStats.of(
        "ee20",
        fit_stats(data.actions, data.valid, floors=floors[0]),
        fit_stats(data.states, known, floors=floors[1]),
        episodes=["kitchen__ep1"],
    )


def observations(data: PolicyData, chosen: Sequence[int]) -> Observations:
    return Observations(
        images=data.images(chosen),
        instructions=[data.instructions[index] for index in chosen],
        states=data.states[list(chosen)],
    )


@dataclass(frozen=True)
class PolicyNano:
    """A nano base in a folder, and samples that it can be trained on."""

    base: Path
    train_data: PolicyData
    val_data: PolicyData

    @property
    def statistics(self) -> NormalizationStats:
        return statistics_for(self.train_data)

    def settings(self, **changes: Any) -> Settings:
        return policy_settings(self.base, **changes)

    def train(self, log: ListLog, settings: Settings | None = None) -> TrainingFacts:
        return train_policy(
            self.train_data,
            self.val_data,
            statistics=self.statistics,
            labels=LABELS,
            settings=settings or self.settings(),
            log=log,
        )


@pytest.fixture(scope="session")
def policy_nano(tmp_path_factory: pytest.TempPathFactory) -> PolicyNano:
    return make_nano(tmp_path_factory.mktemp("policy_nano") / "base", TEST_SIZE, samples=21)


def make_nano(base: Path, size: TinySize, *, samples: int) -> PolicyNano:
    build_tiny_base(base, size=size, seed=0)
    return PolicyNano(base, made_up(samples, seed=1), made_up(9, seed=2))


@pytest.fixture(scope="session")
def policy_checkpoint(policy_nano: PolicyNano, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model files after three steps; copy them before changing anything."""
    log = ListLog(tmp_path_factory.mktemp("policy_trained"))
    policy_nano.train(log)
    return log.checkpoint


@pytest.fixture(scope="session")
def policy_lora_checkpoint(policy_nano: PolicyNano, tmp_path_factory: pytest.TempPathFactory) -> Path:
    log = ListLog(tmp_path_factory.mktemp("policy_lora"))
    policy_nano.train(log, policy_nano.settings(training_mode="lora"))
    return log.checkpoint


@pytest.fixture
def policy_log(tmp_path: Path) -> Callable[..., ListLog]:
    return lambda name="training", **kwargs: ListLog(tmp_path / name, **kwargs)
