"""A trained checkpoint that answers: greedy decoding, without any grammar that would help."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base_identity import require_base
from omni_mlflow.backbones.qwen3_omni_lora.base_model import load_processor, load_thinker, locate_base
from omni_mlflow.backbones.qwen3_omni_lora.processing import Processing
from omni_mlflow.backbones.qwen3_omni_lora.prompt import label_options
from omni_mlflow.backbones.qwen3_omni_lora.settings import Settings
from omni_mlflow.backbones.qwen3_omni_lora.tiny_base import TURN_END
from omni_mlflow.metrics.answers import is_readable
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.rows import read_document
from omni_mlflow.spine.types import Answer, Outcome, Sample


class QwenPredictor:
    """Answers samples with a thinker whose adapter is merged into its weights."""

    def __init__(self, model: Any, processing: Processing, tokenizer: Any, settings: Settings) -> None:
        self.batch_size = settings.decoding.batch_size
        self._model = model
        self._processing = processing
        self._tokenizer = tokenizer
        self._max_new_tokens = settings.decoding.max_new_tokens

    def answer(self, samples: Sequence[Sample]) -> list[Answer]:
        """Answer ``samples`` in order."""
        return [answer_from(sample, text) for sample, text in zip(samples, self._say(samples), strict=True)]

    def _say(self, samples: Sequence[Sample]) -> list[str]:
        import torch

        batch = self._processing.questions(samples).to(self._model.device)
        with torch.inference_mode():
            tokens = self._model.generate(
                **batch,
                do_sample=False,
                max_new_tokens=self._max_new_tokens,
                eos_token_id=self._tokenizer.convert_tokens_to_ids(TURN_END),
                pad_token_id=self._tokenizer.pad_token_id,
            )
        said = tokens[:, batch["input_ids"].shape[1] :]
        texts: list[str] = self._tokenizer.batch_decode(said, skip_special_tokens=True)
        return texts


def load_predictor(checkpoint: Path, *, media_root: Path, settings: Settings) -> QwenPredictor:
    """Load base and adapter, and merge them once.

    An unmerged expert adapter would be rebuilt for every token. Merging rounds to the precision of the base;
    the gate measures by how much that moves the scores.

    Raises:
        BaseModelError: the base that lies here is not the one that the adapter was trained on.
    """
    location = locate_base(settings.base)
    base = load_thinker(location, settings.base)
    require_base(
        base,
        location,
        checkpoint=checkpoint,
        revision=settings.base.revision,
        precision=settings.base.precision,
    )
    from peft import PeftModel

    model = PeftModel.from_pretrained(base, checkpoint).merge_and_unload().eval()
    processor = load_processor(location, settings.base)
    processing = checkpoint_processing(processor, checkpoint, media_root, settings)
    return QwenPredictor(model, processing, processor.tokenizer, settings)


def checkpoint_processing(
    processor: Any, checkpoint: Path, media_root: Path, settings: Settings
) -> Processing:
    """Return the processing of a checkpoint: its label options are those of its own train priors."""
    priors = read_document(checkpoint / "fitted.json", TrainPriors)
    return Processing(
        processor,
        media_root,
        options=label_options(priors, max_options=settings.prompt.max_label_options),
        max_frame_pixels=settings.prompt.max_frame_pixels,
    )


def answer_from(sample: Sample, text: str) -> Answer:
    """Return the reply as it is; one in which no answer can be found is marked as invalid."""
    outcome = Outcome.ANSWERED if is_readable(text) else Outcome.MODEL_INVALID
    return Answer(id=sample.id, episode_id=sample.episode_id, anchor=sample.anchor, outcome=outcome, raw=text)
