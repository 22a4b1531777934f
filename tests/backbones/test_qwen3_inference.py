"""A loaded checkpoint answers freely, in order, and as the unmerged adapter would."""

from __future__ import annotations

import shutil

import pytest

from omni_mlflow.backbones.base_weights import BaseModelError
from omni_mlflow.backbones.qwen3_omni_lora.base_model import load_thinker
from omni_mlflow.backbones.qwen3_omni_lora.inference import load_predictor
from omni_mlflow.spine.types import Outcome
from omni_mlflow.stages.asking import ask
from tests.backbones.qwen3_nano import qwen_settings

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def predictor(qwen_nano, qwen_checkpoint):
    settings = qwen_nano.settings(decoding_max_new_tokens=12, decoding_batch_size=4)
    return load_predictor(qwen_checkpoint, media_root=qwen_nano.media_root, settings=settings)


def test_every_sample_gets_its_own_answer_in_order(predictor, qwen_nano):
    answers = predictor.answer(qwen_nano.held_out[:3])
    assert [answer.id for answer in answers] == [sample.id for sample in qwen_nano.held_out[:3]]
    assert all(answer.raw for answer in answers)
    # twelve tokens are too few for the seven keys
    assert {answer.outcome for answer in answers} == {Outcome.MODEL_INVALID}
    assert predictor.batch_size == 4


@pytest.mark.parametrize("size", [2, 3, 4])
def test_an_answer_does_not_depend_on_the_batch_around_it(predictor, qwen_nano, size):
    alone = [predictor.answer([sample])[0] for sample in qwen_nano.held_out]
    batches = [qwen_nano.held_out[start : start + size] for start in range(0, len(alone), size)]
    together = [answer for batch in batches for answer in predictor.answer(batch)]
    differing = [one.id for one, other in zip(alone, together, strict=True) if one != other]
    assert differing == []


def test_only_the_sample_whose_media_are_lost_is_a_failure_of_the_infrastructure(predictor, qwen_nano):
    sound = qwen_nano.held_out[0]
    lost = qwen_nano.held_out[1]
    lost = lost.model_copy(
        update={"inputs": lost.inputs | {"video": lost.inputs["video"] | {"path": "gone/mosaic.mp4"}}}
    )
    answers = ask(predictor, [sound, lost])
    assert [answer.outcome for answer in answers] == [Outcome.MODEL_INVALID, Outcome.INFRASTRUCTURE_FAILED]
    assert answers[1].raw == ""
    assert "gone/mosaic.mp4" in answers[1].reason
    assert answers[:1] == predictor.answer([sound])


def test_the_libraries_own_call_loads_the_checkpoint(qwen_nano, qwen_checkpoint):
    from peft import PeftModel
    from safetensors.torch import load_file

    base = load_thinker(str(qwen_nano.base), qwen_nano.settings().base)
    model = PeftModel.from_pretrained(base, qwen_checkpoint)
    loaded = {name: weight for name, weight in model.named_parameters() if "lora_" in name}
    stored = load_file(qwen_checkpoint / "adapter_model.safetensors")
    assert len(loaded) == len(stored) == 24  # 2 layers x (4 attention + 2 expert weights) x A and B
    assert sorted(float(each.double().sum()) for each in loaded.values()) == pytest.approx(
        sorted(float(each.double().sum()) for each in stored.values())
    )


@pytest.mark.parametrize("where", ["a weight", "the chat template"])
def test_nothing_is_asked_above_another_base_than_the_one_trained_on(
    qwen_nano, qwen_checkpoint, tmp_path, where
):
    base = shutil.copytree(qwen_nano.base, tmp_path / "base")
    settings = qwen_settings(base_model=str(base))
    load_predictor(qwen_checkpoint, media_root=qwen_nano.media_root, settings=settings)
    if where == "a weight":
        flip_a_bit_of_a_weight(base / "model.safetensors")
    else:
        (base / "chat_template.jinja").write_text((base / "chat_template.jinja").read_text() + " ")
    with pytest.raises(BaseModelError, match=r"is not the base that .* was trained on"):
        load_predictor(qwen_checkpoint, media_root=qwen_nano.media_root, settings=settings)


def flip_a_bit_of_a_weight(path):
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors["thinker.model.layers.1.self_attn.q_proj.weight"].view(-1).view(torch.uint8)[0] ^= 1
    save_file(tensors, path, metadata={"format": "pt"})
