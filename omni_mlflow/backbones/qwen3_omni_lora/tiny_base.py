"""A small Qwen3-Omni checkpoint in the layout of the hub's, so that everything runs without a download.

It is built by the classes of transformers, and loaded by the same calls as the 30B checkpoint. The
shape is Qwen3-Omni's (vision tower, audio tower, mixture-of-experts language model), the size is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.libraries import prepare_libraries

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
MEDIA_TOKENS = {
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
    "audio_token": "<|audio_pad|>",
}
PATCH, MERGE = 8, 2
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{% for part in message.content %}"
    "{% if part.type == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% elif part.type == 'audio' %}{{ '<|audio_start|><|audio_pad|><|audio_end|>' }}"
    "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class TinySize:
    """Numbers that make the tiny model big enough to learn, or small enough for a test.

    Attributes:
        vocabulary: upper bound of the tokenizer's size, special tokens included.
        experts: number of experts per layer, two of which see each token.
        vision_width, audio_width: hidden sizes of the towers.
    """

    vocabulary: int = 768
    width: int = 128
    layers: int = 3
    heads: int = 4
    experts: int = 4
    vision_width: int = 64
    audio_width: int = 64


DEMO_SIZE = TinySize()
TEST_SIZE = TinySize(vocabulary=384, width=32, layers=2, heads=2, experts=2, vision_width=16, audio_width=16)


def build_tiny_base(folder: Path, *, corpus: Iterable[str], size: TinySize, seed: int) -> None:
    """Write an untrained checkpoint: tokenizer, processor, configuration and weights.

    Args:
        folder: an existing folder.
        corpus: texts whose words become tokens.
    """
    prepare_libraries()
    import torch
    from transformers import Qwen3OmniMoeForConditionalGeneration

    processor = _processor(folder, corpus, size)
    processor.save_pretrained(folder)
    torch.manual_seed(seed)
    model = Qwen3OmniMoeForConditionalGeneration(_config(processor.tokenizer, size))
    scale_by_fan_in(model, torch.Generator().manual_seed(seed))
    model.save_pretrained(folder)


def scale_by_fan_in(model: Any, generator: Any) -> None:
    """Draw every matrix from a normal with variance 1 / fan-in, so that each layer keeps its input's scale.

    The usual standard deviation of 0.02 is made for wide layers: in these narrow ones the sound would
    vanish below the audio tower's position signal. The convolutions in front of it get twice, its
    projection three times the scale for the same reason.
    """
    import torch

    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            continue
        fan_in = weight.shape[-1] if weight.ndim == 2 or "experts" in name else weight[0].numel()
        deviation = fan_in**-0.5
        if "embed_tokens" in name:
            deviation = 1.0
        elif "pos_embed" in name:
            deviation = 0.5
        elif "conv2d" in name:
            deviation *= 2.0
        elif "conv_out" in name:
            deviation *= 3.0
        torch.nn.init.normal_(weight, std=deviation, generator=generator)


def _processor(folder: Path, corpus: Iterable[str], size: TinySize) -> Any:
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        Qwen3OmniMoeProcessor,
        WhisperFeatureExtractor,
    )

    tokenizer = _tokenizer(folder, corpus, size.vocabulary)
    vision = {
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": (PATCH * MERGE) ** 2, "longest_edge": 64 * (PATCH * MERGE) ** 2},
    }
    sound = WhisperFeatureExtractor(
        feature_size=128,
        sampling_rate=16_000,
        hop_length=160,
        n_fft=400,
        chunk_length=300,
        return_attention_mask=True,
    )
    return Qwen3OmniMoeProcessor(
        Qwen2VLImageProcessor(**vision),
        Qwen2VLVideoProcessor(**vision, cap_pixels_per_frame=False),
        sound,
        tokenizer,
        chat_template=CHAT_TEMPLATE,
    )


def _tokenizer(folder: Path, corpus: Iterable[str], vocabulary: int) -> Any:
    """Fit a byte-level BPE with Qwen's pre-tokenizer and special tokens."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )
    from transformers import Qwen2Tokenizer
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    special = [END_OF_TEXT, TURN_START, TURN_END, *MEDIA_TOKENS.values()]
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    bpe.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    bpe.save(str(folder / "tokenizer.json"))
    return Qwen2Tokenizer.from_pretrained(
        folder, eos_token=TURN_END, pad_token=END_OF_TEXT, extra_special_tokens=MEDIA_TOKENS
    )


def _config(tokenizer: Any, size: TinySize) -> Any:
    from transformers import Qwen3OmniMoeConfig

    id_of = {name: tokenizer.convert_tokens_to_ids(token) for name, token in MEDIA_TOKENS.items()}
    thinker = {
        "text_config": _text_config(size, vocabulary=len(tokenizer)),
        "vision_config": _vision_config(size),
        "audio_config": _audio_config(size),
        "audio_token_id": id_of["audio_token"],
        "image_token_id": id_of["image_token"],
        "video_token_id": id_of["video_token"],
        "audio_start_token_id": id_of["audio_bos_token"],
        "audio_end_token_id": id_of["audio_eos_token"],
        "vision_start_token_id": id_of["vision_bos_token"],
        "vision_end_token_id": id_of["vision_eos_token"],
        "position_id_per_seconds": 13,
    }
    return Qwen3OmniMoeConfig(
        thinker_config=thinker,
        enable_audio_output=False,
        im_start_token_id=tokenizer.convert_tokens_to_ids(TURN_START),
        im_end_token_id=tokenizer.convert_tokens_to_ids(TURN_END),
    )


def _text_config(size: TinySize, *, vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": -(-vocabulary // 64) * 64,
        "hidden_size": size.width,
        "intermediate_size": size.width // 2,
        "moe_intermediate_size": size.width // 2,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads // 2,
        "head_dim": 32,
        "num_experts": size.experts,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [6, 5, 5],  # time, height, width: together half a head
            "mrope_interleaved": True,
            "interleaved": True,
        },
    }


def _vision_config(size: TinySize) -> dict[str, Any]:
    return {
        "depth": 2,
        "hidden_size": size.vision_width,
        "intermediate_size": 2 * size.vision_width,
        "num_heads": 4,
        "patch_size": PATCH,
        "out_hidden_size": size.width,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }


def _audio_config(size: TinySize) -> dict[str, Any]:
    return {
        "num_mel_bins": 128,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 2 * size.audio_width,
        "d_model": size.audio_width,
        "output_dim": size.width,
        "downsample_hidden_size": 8,
        "n_window": 50,
        "n_window_infer": 800,
        "max_source_positions": 1500,
    }
