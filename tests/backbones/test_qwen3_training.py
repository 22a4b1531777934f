"""Training the adapter: it learns, it resumes exactly, and it says what it consumed."""

from __future__ import annotations

import json

import pytest
from qwen3_nano import QWEN_CONTRACT, qwen_settings

from omni_mlflow.backbones.base import SampleSet
from omni_mlflow.backbones.base_weights import BaseModelError
from omni_mlflow.backbones.optimisation import (
    DivergedGradientsError,
    TooFewSamplesError,
    evenly,
    learning_rate,
    prefetched,
    take_step,
    training_order,
)
from omni_mlflow.backbones.qwen3_omni_lora.base_model import (
    load_processor,
    load_thinker,
    locate_base,
)
from omni_mlflow.backbones.qwen3_omni_lora.processing import Processing
from omni_mlflow.backbones.qwen3_omni_lora.training import train_adapter
from omni_mlflow.contract.file import load_contract
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.registry import bind
from omni_mlflow.spine.rows import file_digest, read_document
from omni_mlflow.spine.video import UnreadableVideoError

pytestmark = pytest.mark.training


def files(log):
    return {path.name: file_digest(path) for path in log.checkpoint.iterdir()}


def test_the_loss_falls_and_every_step_says_which_samples_it_learned_from(qwen_nano, qwen_log):
    log = qwen_log()
    settings = qwen_nano.settings(training_steps=6, training_learning_rate=5e-3)
    facts = qwen_nano.train(log, settings)
    assert log.losses()[-1] < log.losses()[0]
    assert [event["event"] for event in log.rows][:3] == ["start", "step", "step"]
    assert [row["step"] for row in log.rows if row["event"] == "validation"] == [3, 6]
    ids = {row.sample.id for row in qwen_nano.rows}
    # five samples in batches of two: two batches per pass, no sample twice in a pass
    assert [step for step, _ in log.ledger] == [1, 2, 3, 4, 5, 6]
    for first, second in zip(log.ledger[::2], log.ledger[1::2], strict=True):
        assert len({*first[1], *second[1]}) == 4
        assert {*first[1], *second[1]} < ids
    assert facts.base_model == str(qwen_nano.base)
    assert facts.steps == 6


def test_validation_reads_the_media_of_its_own_split(qwen_nano, qwen_log, tmp_path):
    train_set = SampleSet(qwen_nano.rows, qwen_nano.media_root)
    val_set = SampleSet(qwen_nano.rows[:2], tmp_path / "media_of_val")
    with pytest.raises(UnreadableVideoError, match="media_of_val"):
        train_adapter(
            train_set,
            val_set,
            priors=qwen_nano.priors,
            settings=qwen_nano.settings(training_validate_every=1),
            log=qwen_log(),
        )


def test_a_killed_training_goes_on_and_ends_in_the_same_bytes(qwen_nano, qwen_log):
    settings = qwen_nano.settings(training_steps=5, training_checkpoint_every=2)
    whole, killed = qwen_log("whole"), qwen_log("killed", stop_after=4)
    qwen_nano.train(whole, settings)
    with pytest.raises(KeyboardInterrupt):
        qwen_nano.train(killed, settings)
    assert sorted(path.name for path in killed.resume.iterdir()) == ["step-00000002"]
    killed.stop_after = None
    qwen_nano.train(killed, settings)
    assert killed.rows == whole.rows
    assert killed.ledger == whole.ledger
    assert files(killed) == files(whole)
    assert sorted(path.name for path in killed.resume.iterdir()) == ["step-00000004", "step-00000005"]


def test_a_training_whose_rows_are_lost_goes_on_from_the_state_before_or_begins_again(qwen_nano, qwen_log):
    settings = qwen_nano.settings(training_steps=5, training_checkpoint_every=2)
    whole, cut = qwen_log("whole"), qwen_log("cut")
    for log in (whole, cut):
        qwen_nano.train(log, settings)
    for lost in ((5,), (4, 5)):
        cut.lost = lost
        qwen_nano.train(cut, settings)
        assert (cut.rows, cut.ledger, files(cut)) == (whole.rows, whole.ledger, files(whole))
        assert sorted(path.name for path in cut.resume.iterdir()) == ["step-00000004", "step-00000005"]


def test_a_half_written_state_is_not_gone_on_from(qwen_nano, qwen_log):
    log = qwen_log()
    (log.resume / ".step-00000002.tmp").mkdir()
    (log.resume / "step-00000003").mkdir()
    qwen_nano.train(log)
    assert log.rows[0] == {"event": "start", "step": 0, "total_steps": 3, "samples": 5}


def test_gradient_checkpointing_changes_nothing_but_memory(qwen_nano, qwen_log):
    plain, recomputed = qwen_log("plain"), qwen_log("recomputed")
    qwen_nano.train(plain)
    qwen_nano.train(recomputed, qwen_nano.settings(training_gradient_checkpointing=True))
    assert recomputed.losses() == pytest.approx(plain.losses(), abs=1e-6)


def test_the_checkpoint_says_what_it_was_fitted_on_and_which_base_it_belongs_to(qwen_nano, qwen_checkpoint):
    assert read_document(qwen_checkpoint / "fitted.json", TrainPriors) == qwen_nano.priors
    config = json.loads((qwen_checkpoint / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(qwen_nano.base)
    assert config["revision"] == "local"
    assert config["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
    identity = json.loads((qwen_checkpoint / "base.json").read_text())
    assert len(identity["fingerprint"]) == 64
    assert not list(qwen_checkpoint.glob("*.bin")) + list(qwen_checkpoint.glob("*.pt"))


def test_bfloat16_trains_with_float32_adapters(qwen_nano, qwen_log):
    from safetensors.torch import load_file

    log = qwen_log()
    qwen_nano.train(log, qwen_nano.settings(base_precision="bfloat16"))
    tensors = load_file(log.checkpoint / "adapter_model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.float32"}
    assert all(loss > 0 for loss in log.losses())


def test_fewer_samples_than_a_batch_are_an_error_that_says_what_to_do(qwen_nano, qwen_log):
    with pytest.raises(TooFewSamplesError, match=r"5 train samples cannot fill a batch of 6; lower"):
        qwen_nano.train(qwen_log(), qwen_nano.settings(training_batch_size=6))


def test_only_the_tokens_of_the_answer_are_learned(qwen_nano):
    settings = qwen_nano.settings()
    processor = load_processor(str(qwen_nano.base), settings.base)
    processing = Processing(processor, qwen_nano.media_root, options=(), max_frame_pixels=6144)
    batch = processing.lessons(qwen_nano.rows[:1])
    learned = batch["input_ids"][batch["labels"] != -100]
    answer = processor.tokenizer.decode(learned)
    assert answer.startswith('{"action":"')
    assert answer.endswith('"evidence_window":{"start_frame":20,"end_frame":39}}<|im_end|>\n')
    # 8 frames of 64 x 96 pixels: 4 pairs x 4 x 6 tokens of 16 x 16 pixels; 1 s of sound: 13 tokens
    ids = batch["input_ids"][0].tolist()
    assert ids.count(processor.video_token_id) == 96
    assert ids.count(processor.audio_token_id) == 13
    assert batch["video_second_per_grid"].tolist() == pytest.approx([0.4])


def test_a_sample_in_a_batch_is_processed_as_if_it_were_alone(qwen_nano):
    import torch

    settings = qwen_nano.settings()
    model = load_thinker(str(qwen_nano.base), settings.base)
    processor = load_processor(str(qwen_nano.base), settings.base)
    processing = Processing(processor, qwen_nano.media_root, options=(), max_frame_pixels=6144)
    silent = qwen_nano.held_out[1].model_copy(
        update={"inputs": qwen_nano.held_out[1].inputs | {"audio": None, "sensors": None}}
    )
    samples = [qwen_nano.held_out[0], silent]
    with torch.inference_mode():
        together = model(**processing.questions(samples)).logits[:, -1]
        alone = [model(**processing.questions([sample])).logits[0, -1] for sample in samples]
    assert torch.allclose(together, torch.stack(alone), atol=1e-4)


def test_every_pass_has_its_own_order_and_a_resumed_one_has_the_same():
    training = qwen_settings(training_steps=6, training_batch_size=2, training_seed=3).training
    steps = list(training_order(5, training, start=0))
    assert [step for step, _ in steps] == [1, 2, 3, 4, 5, 6]
    assert list(training_order(5, training, start=3)) == steps[3:]
    other_seed = qwen_settings(training_steps=6, training_batch_size=2, training_seed=4).training
    assert list(training_order(5, other_seed, start=0)) != steps
    assert steps[0][1] + steps[1][1] != steps[2][1] + steps[3][1]


def test_the_learning_rate_rises_to_its_peak_and_falls_to_a_twentieth_of_it():
    rates = [learning_rate(step, peak=1.0, warmup_steps=10, steps=100) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.1, abs=1e-3)
    assert max(rates) == rates[9] == pytest.approx(0.9768, abs=1e-3)
    # half way: 0.05 + 0.95 / 2
    assert rates[49] == pytest.approx(0.525)
    assert rates[99] == pytest.approx(0.05)


@pytest.mark.parametrize("slope", [float("nan"), float("inf")])
def test_gradients_that_are_no_numbers_change_no_weight(slope):
    import torch

    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.grad = torch.tensor([1.0, slope, 0.0])
    with pytest.raises(DivergedGradientsError, match=r"gradients is (nan|inf), so no weight was changed"):
        take_step(optimizer, 0.1)
    assert weight.tolist() == [1.0, 1.0, 1.0]


def test_batches_are_made_ahead_and_come_in_order():
    assert list(prefetched(lambda number: number * number, range(5), workers=2)) == [
        (0, 0),
        (1, 1),
        (2, 4),
        (3, 9),
        (4, 16),
    ]


def test_validation_samples_are_spread_over_all_of_them():
    assert evenly("abcdefgh", 4) == ["a", "c", "e", "g"]
    assert evenly("abc", 4) == "abc"


def test_a_local_folder_wins_over_the_contracts_model_and_must_hold_a_checkpoint(
    qwen_nano, tmp_path, monkeypatch
):
    contract = load_contract(QWEN_CONTRACT)
    hub = "Qwen/Qwen3-Omni-30B-A3B-Instruct"
    for folder, location in ((None, hub), (qwen_nano.base, str(qwen_nano.base))):
        monkeypatch.setenv(contract.local_model_env, str(folder or ""))
        assert locate_base(bind(contract).settings.base) == location
    monkeypatch.setenv(contract.local_model_env, str(tmp_path))
    with pytest.raises(BaseModelError, match=r"holds no config\.json; point the contract's local_model_env"):
        locate_base(bind(contract).settings.base)


def test_where_the_local_copy_lies_is_no_setting(monkeypatch):
    contract = load_contract(QWEN_CONTRACT)
    monkeypatch.setenv(contract.local_model_env, "/models/qwen")
    assert "/models/qwen" not in bind(contract).settings.model_dump_json()
