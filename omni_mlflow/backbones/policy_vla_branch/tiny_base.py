"""A small pi0 checkpoint in the layout of the hub's, so that everything runs without a download.

It is built by the classes of transformers and loaded by the same call as the 3.5B checkpoint. Its tensors
carry the names of ``lerobot/pi0_base``: what transformers loads under these names, it also saves under them.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base_weights import built_once
from omni_mlflow.backbones.libraries import prepare_libraries
from omni_mlflow.code_digest import code_digest
from omni_mlflow.spine.rows import digest_of

SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
LIBRARIES = ("torch", "transformers", "tokenizers")
SEED = 0


@dataclass(frozen=True)
class TinySize:
    """Numbers of the tiny model. pi0 joins two transformers: they share layers, heads and the size of a head.

    Attributes:
        action_width: what state and actions are padded to.
        expert_width: hidden size of the action expert; noisy actions pass through it, so it is at least
            twice ``action_width``.
        image, patch: side of the square image and of its patches, in pixels.
        horizon: steps of a chunk, unless the checkpoint is loaded with another one.
    """

    action_width: int = 32
    expert_width: int = 64
    width: int = 64
    vision_width: int = 32
    layers: int = 2
    heads: int = 2
    head_dim: int = 32
    image: int = 32
    patch: int = 8
    horizon: int = 16


NARROW = TinySize()
WIDE = TinySize(action_width=128, expert_width=256)
TEST_SIZE = TinySize(width=32, vision_width=16, expert_width=64, head_dim=16, patch=16, horizon=4)


def tiny_base(num_dims: int) -> Path:
    """Return the folder of a tiny base that holds ``num_dims`` actions; build it when no cache holds it."""
    size = NARROW if num_dims <= NARROW.action_width else WIDE
    libraries = {name: version(name) for name in LIBRARIES}
    name = digest_of([code_digest(__name__), libraries, size.action_width, SEED])
    return built_once(name[:32], lambda folder: build_tiny_base(folder, size=size, seed=SEED))


def build_tiny_base(folder: Path, *, size: TinySize, seed: int) -> None:
    """Write an untrained checkpoint into the new folder ``folder``; the same seed gives the same weights."""
    prepare_libraries()
    import torch
    from transformers import PI0ForConditionalGeneration

    folder.mkdir(parents=True)
    processor = _processor(size)
    processor.save_pretrained(folder)
    torch.manual_seed(seed)
    model = PI0ForConditionalGeneration(_config(processor, size))
    _scale_by_fan_in(model, torch.Generator().manual_seed(seed))
    model.save_pretrained(folder)
    _rename_as_on_the_hub(folder / "model.safetensors")


def _processor(size: TinySize) -> Any:
    """Return a processor whose tokenizer knows every byte, so it can read any instruction."""
    from transformers import GemmaTokenizer, PI0ImageProcessor, PI0Processor

    printable = [mark for mark in string.printable if mark.isprintable() and mark != " "]
    tokens = [*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "\n", *printable]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    images = PI0ImageProcessor(
        size={"max_height": size.image, "max_width": size.image},
        pad_size={"height": size.image, "width": size.image},
        image_seq_length=(size.image // size.patch) ** 2,
    )
    return PI0Processor(
        images,
        GemmaTokenizer(vocab=vocabulary, padding_side="right", model_max_length=4096),
        max_state_dim=size.action_width,
        chunk_size=size.horizon,
    )


def _config(processor: Any, size: TinySize) -> Any:
    """Return the configuration, its vocabulary sized by a processor that has added its own tokens."""
    from transformers import PI0Config

    vocabulary = len(processor.tokenizer)
    shared = {
        "model_type": "gemma",
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads // 2,
        "head_dim": size.head_dim,
    }
    text = {
        **shared,
        "hidden_size": size.width,
        "intermediate_size": 2 * size.width,
        "vocab_size": vocabulary,
    }
    expert = {**shared, "hidden_size": size.expert_width, "intermediate_size": 2 * size.expert_width}
    return PI0Config(
        vlm_config={
            "model_type": "paligemma",
            "image_token_index": processor.image_token_id,
            "vocab_size": vocabulary,
            "projection_dim": size.width,
            "hidden_size": size.width,
            "text_config": text,
            "vision_config": _vision_config(size),
        },
        dit_config=expert,
        chunk_size=size.horizon,
        max_state_dim=size.action_width,
        max_action_dim=size.action_width,
    )


def _vision_config(size: TinySize) -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        "hidden_size": size.vision_width,
        "intermediate_size": 2 * size.vision_width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": 2,
        "patch_size": size.patch,
        "image_size": size.image,
        "vision_use_head": False,
    }


def _scale_by_fan_in(model: Any, generator: Any) -> None:
    """Draw linear layers and convolutions with variance 1 / fan-in: the usual 0.02 is dead in narrow layers.

    The output starts near zero, and the places of the image's patches at the scale of their content.
    """
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5, generator=generator)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
    places = model.model.vlm.vision_tower.embeddings.position_embedding.weight
    for weight, deviation in ((model.action_out_proj.weight, 0.02), (places, 1.0)):
        torch.nn.init.normal_(weight, std=deviation, generator=generator)


def _rename_as_on_the_hub(weights: Path) -> None:
    from safetensors.torch import load_file, save_file

    renamed = {_hub_name(name): tensor for name, tensor in load_file(weights).items()}
    save_file(renamed, weights, metadata={"format": "pt"})


def _hub_name(name: str) -> str:
    """Return what ``lerobot/pi0_base`` calls a tensor that a newly configured model saves as ``name``."""
    for ours, theirs in (
        ("language_model.model.embed_tokens", "lm_head"),
        ("language_model.model.", "language_model."),
        ("vision_tower.", "vision_tower.vision_model."),
    ):
        name = name.replace(ours, theirs)
    return f"model.{name.replace('paligemma.model.lm_head', 'paligemma.lm_head')}"
