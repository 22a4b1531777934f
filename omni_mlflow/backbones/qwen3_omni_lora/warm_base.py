"""The tiny base after its warm-up, built once and kept in the user's cache."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from omni_mlflow.backbones.base_weights import built_once
from omni_mlflow.backbones.libraries import prepare_libraries
from omni_mlflow.backbones.qwen3_omni_lora.drills import corpus
from omni_mlflow.backbones.qwen3_omni_lora.tiny_base import DEMO_SIZE, TinySize, build_tiny_base
from omni_mlflow.backbones.qwen3_omni_lora.warm_up import OnStep, WarmUp, warm_up
from omni_mlflow.code_digest import code_digest
from omni_mlflow.spine.rows import digest_of

PLAN = WarmUp()
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "av")


def warm_base(on_step: OnStep | None = None) -> Path:
    """Return the folder of the warm tiny base; build it when no cache holds it (minutes, once).

    Several processes may ask at once: one builds, the others wait for it.

    Args:
        on_step: told after every step of the building how many are done, and how many there are.
    """
    return built_once(
        base_digest()[:32],
        lambda folder: build_warm_base(folder, size=DEMO_SIZE, plan=PLAN, on_step=on_step),
    )


def base_digest() -> str:
    """Identify the tiny base by the code, settings and libraries that make it."""
    libraries = {name: version(name) for name in LIBRARIES}
    return digest_of([code_digest(__name__), libraries])


def build_warm_base(folder: Path, *, size: TinySize, plan: WarmUp, on_step: OnStep | None = None) -> None:
    """Write a tiny checkpoint that has been taught as ``plan`` says."""
    prepare_libraries()
    from transformers import Qwen3OmniMoeForConditionalGeneration, Qwen3OmniMoeProcessor

    folder.mkdir(parents=True)
    build_tiny_base(folder, corpus=corpus(plan.seed), size=size, seed=plan.seed)
    model = Qwen3OmniMoeForConditionalGeneration.from_pretrained(folder, experts_implementation="eager")
    warm_up(model.thinker, Qwen3OmniMoeProcessor.from_pretrained(folder), plan, on_step=on_step)
    model.save_pretrained(folder)
