"""Samples to model inputs: decode, tokenise, and mark what the model shall learn to say."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.backbones.label_answers import answer_of, compact
from omni_mlflow.backbones.qwen3_omni_lora.prompt import Message, messages
from omni_mlflow.backbones.qwen3_omni_lora.sample import AudioPointer, Inputs, VideoPointer
from omni_mlflow.backbones.qwen3_omni_lora.tiny_base import TURN_END
from omni_mlflow.spine.audio import read_audio
from omni_mlflow.spine.types import LabelledSample, Sample
from omni_mlflow.spine.video import ProxyReader

IGNORED = -100
"""Label of a token that the loss leaves out, by PyTorch's convention."""
_OPEN_FILES, _CACHED_BYTES = 64, 1 << 30


class Media:
    """Decodes proxy media. Files stay open, the least recently used is closed first; for one thread only."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._readers: OrderedDict[str, ProxyReader] = OrderedDict()

    def clip(self, video: VideoPointer) -> NDArray[np.uint8]:
        """Return the frames of ``video``, shape (frames, height, width, 3), RGB."""
        reader = self._readers.pop(video.path, None) or ProxyReader(
            self._root / video.path, cache_bytes=_CACHED_BYTES // _OPEN_FILES
        )
        self._readers[video.path] = reader
        if len(self._readers) > _OPEN_FILES:
            self._readers.popitem(last=False)[1].close()
        return reader.frames(video.positions)

    def sound(self, audio: AudioPointer) -> NDArray[np.float32]:
        """Return mono samples at 16 kHz, shape (samples,), in -1..1."""
        return read_audio(self._root / audio.path, start_s=audio.start_s, stop_s=audio.stop_s)


class Processing:
    """Builds batches for the model; may be used by several threads.

    Args:
        options: train actions that the question lists.
        max_frame_pixels: frames are scaled down to at most this width x height.
    """

    def __init__(
        self, processor: Any, media_root: Path, *, options: Sequence[str], max_frame_pixels: int
    ) -> None:
        self._processor = processor
        self._media_root = media_root
        self._local = threading.local()
        self._options = tuple(options)
        vision = processor.video_processor
        smallest = (vision.patch_size * vision.merge_size) ** 2
        self._size = {"shortest_edge": smallest, "longest_edge": max_frame_pixels}
        self._frames_per_token = vision.temporal_patch_size

    def questions(self, samples: Sequence[Sample]) -> Any:
        """Return model inputs that end where the model's turn begins, padded on the left."""
        inputs = [Inputs.model_validate(sample.inputs) for sample in samples]
        return self.batch(inputs, [messages(each, self._options) for each in inputs], answers=None)

    def lessons(self, rows: Sequence[LabelledSample]) -> Any:
        """Return model inputs with the true answers; ``labels`` marks only their tokens."""
        inputs = [Inputs.model_validate(row.sample.inputs) for row in rows]
        answers = [compact(answer_of(row.target.labels, row.target.span)) for row in rows]
        return self.batch(inputs, [messages(each, self._options) for each in inputs], answers=answers)

    def batch(
        self, inputs: Sequence[Inputs], talks: Sequence[list[Message]], *, answers: Sequence[str] | None
    ) -> Any:
        """Process conversations with their media, and append the answers when there are any."""
        processor, media = self._own()
        texts = [
            processor.apply_chat_template(talk, add_generation_prompt=True, tokenize=False) for talk in talks
        ]
        endings = [f"{answer}{TURN_END}\n" for answer in answers or ()]
        videos = [media.clip(each.video) for each in inputs if each.video]
        sounds = [media.sound(each.audio) for each in inputs if each.audio]
        made = processor(
            text=[text + ending for text, ending in zip(texts, endings, strict=True)] if answers else texts,
            videos=videos or None,
            audio=sounds or None,
            padding=True,
            return_tensors="pt",
            videos_kwargs={"size": self._size},
        )
        if videos:
            self._set_time_scale(made, inputs)
        if answers:
            made["labels"] = _labels(processor.tokenizer, made["input_ids"], endings)
        return made

    def _set_time_scale(self, made: Any, inputs: Sequence[Inputs]) -> None:
        """Tell the model how long one video token lasts; the processor knows one rate per call only."""
        import torch

        rates = [each.video.frames_per_second for each in inputs if each.video]
        made["video_second_per_grid"] = torch.tensor([self._frames_per_token / rate for rate in rates])

    def _own(self) -> tuple[Any, Media]:
        """Processor and media of this thread: neither fast tokenizers nor decoders can be shared."""
        if not hasattr(self._local, "tools"):
            self._local.tools = copy.deepcopy(self._processor), Media(self._media_root)
        tools: tuple[Any, Media] = self._local.tools
        return tools


def _labels(tokenizer: Any, ids: Any, endings: Sequence[str]) -> Any:
    """Padding is on the left, so an answer is the tail of its row."""
    import torch

    labels = torch.full_like(ids, IGNORED)
    for row, ending in enumerate(endings):
        tail = torch.tensor(tokenizer(ending)["input_ids"])
        if not torch.equal(ids[row, -len(tail) :], tail):
            raise AssertionError(f"the tokenizer joins the question with the answer {ending!r}")
        labels[row, -len(tail) :] = tail
    return labels
