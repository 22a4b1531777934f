"""A nano Qwen3-Omni, windows of one synthetic session, and a training that keeps its log in lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_logs import ListLog

from omni_mlflow.backbones.base import Exported, SampleSet, TrainingFacts
from omni_mlflow.backbones.qwen3_omni_lora.captions import write_mosaic, write_sound
from omni_mlflow.backbones.qwen3_omni_lora.drills import corpus
from omni_mlflow.backbones.qwen3_omni_lora.sample import export_window
from omni_mlflow.backbones.qwen3_omni_lora.settings import Settings
from omni_mlflow.backbones.qwen3_omni_lora.tiny_base import TEST_SIZE, build_tiny_base
from omni_mlflow.backbones.qwen3_omni_lora.training import train_adapter
from omni_mlflow.contract.file import load_contract
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.features import FEATURE_NAMES
from omni_mlflow.spine.rows import write_document
from omni_mlflow.spine.synthetic.world import SessionWorld, make_session
from omni_mlflow.spine.types import (
    LabelledSample,
    Labels,
    Language,
    Media,
    Modalities,
    Sample,
    Scale,
    SensorPointer,
    Span,
    Split,
    Target,
    Window,
)

QWEN_CONTRACT = Path(__file__).parents[2] / "contracts" / "qwen3_omni_lora.yaml"
QWEN_FRAMES = 100


def qwen_settings(**changes: Any) -> Settings:
    """Settings of the demo profile, cut down to three steps, with single changes such as ``lora_rank=4``."""
    demo = {f"training_{key}": 3 for key in ("steps", "checkpoint_every", "validate_every")}
    small = {"training_batch_size": 2, "training_warmup_steps": 0, "lora_rank": 4, "lora_alpha": 8}
    dotted = {
        f"settings.{key.replace('_', '.', 1)}": value for key, value in (demo | small | changes).items()
    }
    contract = load_contract(QWEN_CONTRACT, profile="demo", changes=dotted)
    return Settings.model_validate(contract.settings)


def qwen_window(anchor: int = 40, *, split: Split = Split.TRAIN, **changes: Any) -> Window:
    """A window of 20 frames before ``anchor``, its context 8 proxy frames of every fourth source frame."""
    media = Media(
        proxy_video="kitchen/mosaic.mp4",
        grid_stride=4,
        num_proxy_frames=QWEN_FRAMES // 4,
        proxy_audio="kitchen/audio.wav",
    )
    facts: dict[str, Any] = {
        "id": f"kitchen__ep1:20:{anchor - 20}",
        "episode_id": "kitchen__ep1",
        "session_id": "kitchen",
        "split": split,
        "window": Span(start=anchor - 20, stop=anchor),
        "anchor": anchor,
        "scale": Scale(frames=20, stride=10),
        "fps": 20.0,
        "modalities": Modalities(
            media=media,
            sensor_features=SensorPointer(path="kitchen/features.npz", index=1, dim=len(FEATURE_NAMES)),
            language=Language(main_task="Sorting blocks at the workbench"),
        ),
        "supervision": Labels(action="Brush red block", in_contact=True),
        "adapter_views": {
            "qwen3_omni_lora": {
                "context_window": {"start_frame": max(0, anchor - 32), "end_frame": anchor - 1},
                "context_is_whole": anchor >= 32,
            }
        },
        "provenance": {},
    }
    return Window(**facts | changes)


def write_qwen_media(folder: Path, world: SessionWorld) -> None:
    """Write what an index holds of one session: mosaic, sound and two rows of sensor features."""
    folder.mkdir(parents=True)
    write_mosaic(world, folder / "mosaic.mp4")
    write_sound(world, folder / "audio.wav")
    rows = np.stack([np.zeros(len(FEATURE_NAMES)), np.ones(len(FEATURE_NAMES))]).astype(np.float32)
    np.savez(folder / "features.npz", windows=rows)


@dataclass(frozen=True)
class QwenNano:
    """A nano base in a folder, and labelled samples of one session that it can be trained on.

    Attributes:
        settings: the demo's, with ``base.model`` the folder of the nano base.
        rows: train samples; ``held_out`` are samples of the same session, without a target.
    """

    base: Path
    media_root: Path
    rows: tuple[LabelledSample, ...]
    held_out: tuple[Sample, ...]

    @property
    def priors(self) -> TrainPriors:
        return TrainPriors.fit(row.target for row in self.rows)

    def settings(self, **changes: Any) -> Settings:
        return qwen_settings(base_model=str(self.base), **changes)

    def train(self, log: ListLog, settings: Settings | None = None) -> TrainingFacts:
        train_set = SampleSet(self.rows, self.media_root)
        val_set = SampleSet(self.rows[:2], self.media_root)
        return train_adapter(
            train_set, val_set, priors=self.priors, settings=settings or self.settings(), log=log
        )


@pytest.fixture(scope="session")
def qwen_nano(tmp_path_factory: pytest.TempPathFactory) -> QwenNano:
    root = tmp_path_factory.mktemp("qwen_nano")
    base = root / "base"
    base.mkdir()
    build_tiny_base(base, corpus=corpus(seed=0), size=TEST_SIZE, seed=0)
    media_root = root / "media"
    world = make_session(1, frames=QWEN_FRAMES)
    write_qwen_media(media_root / "kitchen", world)
    made = [_exported(world, anchor, media_root) for anchor in range(40, QWEN_FRAMES + 1, 10)]
    rows = tuple(LabelledSample(sample=sample, target=target) for sample, target in made[:5])
    held_out = tuple(sample.model_copy(update={"split": Split.TEST}) for sample, _ in made)
    return QwenNano(base, media_root, rows, held_out)


def _exported(world: SessionWorld, anchor: int, media_root: Path) -> tuple[Sample, Target]:
    labels = Labels(
        action=world.action_at(anchor - 1),
        objects=world.objects_at(anchor - 1),
        in_contact=world.in_contact_at(anchor - 1),
    )
    made = export_window(
        qwen_window(anchor, supervision=labels), media_root=media_root, settings=qwen_settings()
    )
    assert isinstance(made, Exported)
    return made.sample, made.target


@pytest.fixture(scope="session")
def qwen_checkpoint(qwen_nano: QwenNano, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A nano adapter after three steps; copy it before changing anything in it."""
    log = ListLog(tmp_path_factory.mktemp("qwen_trained"))
    qwen_nano.train(log)
    write_document(log.checkpoint / "fitted.json", qwen_nano.priors)
    return log.checkpoint


@pytest.fixture
def qwen_log(tmp_path: Path) -> Callable[..., ListLog]:
    return lambda name="training", **kwargs: ListLog(tmp_path / name, **kwargs)
