"""What pi0 is given and what it learns from: batches without actions, a masked loss, heads on two means."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from policy_nano import DIMS, HORIZON, LABELS, made_up

from omni_mlflow.backbones.policy_vla_branch.base_model import fit_processor, load_model, load_processor
from omni_mlflow.backbones.policy_vla_branch.data import (
    Batches,
    PredictionBatch,
    noise_and_time,
    squared,
)
from omni_mlflow.backbones.policy_vla_branch.heads import (
    CONTACT_LABELS,
    HeadLabels,
    head_features,
    head_loss,
    label_answers,
    new_heads,
    num_features,
)
from omni_mlflow.backbones.policy_vla_branch.model import Policy

KEY = (5, 1, 0, 0)


@pytest.fixture(scope="module")
def parts(policy_nano):
    model = load_model(policy_nano.base, revision="local", horizon=HORIZON, dtype="float32")
    processor = load_processor(policy_nano.base, revision="local")
    batches = Batches(fit_processor(processor, model.config, policy_nano.statistics))
    labels = LABELS.model_copy(update={"features": num_features(model.config)})
    policy = Policy(model, new_heads(labels, seed=0), half=False)
    policy.eval()
    return policy, batches


def test_what_is_asked_of_the_model_cannot_hold_actions():
    assert {field.name for field in fields(PredictionBatch)} == {
        "input_ids",
        "attention_mask",
        "pixel_values",
        "pixel_attention_mask",
        "state",
    }
    with pytest.raises(TypeError, match="actions"):
        PredictionBatch(
            input_ids=0, attention_mask=0, pixel_values=0, pixel_attention_mask=0, state=0, actions=0
        )


def test_a_training_batch_holds_normalised_actions_and_says_which_are_known(parts, policy_nano):
    _, batches = parts
    data, statistics = policy_nano.train_data, policy_nano.statistics
    batch = batches.training(data, [0, 1], key=KEY)
    assert batch.actions.shape == batch.mask.shape == batch.noise.shape == (2, HORIZON, 32)
    # of sample 0 the last number of the last step is unknown, of both everything beyond 6 dimensions
    assert batch.mask.sum(dim=(1, 2)).tolist() == [HORIZON * DIMS - 1, HORIZON * DIMS]
    assert float(batch.actions[~batch.mask].abs().max()) == 0.0
    expected = (data.actions[1, 2, 0] - statistics.actions.mean[0]) / (statistics.actions.std[0] + 1e-8)
    assert float(batch.actions[1, 2, 0]) == pytest.approx(expected, rel=1e-5)
    assert batches.physical(batch.actions)[1, 2] == pytest.approx(data.actions[1, 2], abs=1e-6)


def test_chunks_of_another_length_are_refused_not_reshaped(parts, policy_nano):
    _, batches = parts
    data = policy_nano.train_data
    cut = replace(data, actions=data.actions[:, :2], valid=data.valid[:, :2])
    with pytest.raises(ValueError, match=f"chunks of 2 steps for a model of {HORIZON}"):
        batches.training(cut, [0, 1], key=KEY)


def test_noise_and_time_follow_from_seed_step_and_rank_alone():
    noise, time = noise_and_time((5, 1, 0), (4, 3, 2))
    again, same_time = noise_and_time((5, 1, 0), (4, 3, 2))
    assert (noise == again).all()
    assert (time == same_time).all()
    for other in ((6, 1, 0), (5, 2, 0), (5, 1, 1)):
        assert not (noise == noise_and_time(other, (4, 3, 2))[0]).any()


def test_time_is_distributed_as_pi0_was_trained():
    _, time = noise_and_time((0,), (20_000, 1, 1))
    assert 0.001 <= float(time.min()) < float(time.max()) <= 1.0
    # Beta(1.5, 1): mean 1.5 / 2.5
    assert float(time.mean()) == pytest.approx(0.999 * 0.6 + 0.001, abs=0.005)


def test_an_image_is_padded_to_a_square_centred_on_black():
    image = np.full((2, 4, 3), 9, dtype=np.uint8)
    assert squared(image)[:, 0, 0].tolist() == [0, 9, 9, 0]
    assert squared(image.transpose(1, 0, 2))[0, :, 0].tolist() == [0, 9, 9, 0]


def test_the_loss_is_the_librarys_over_what_is_known_and_nothing_else(parts, policy_nano):
    """Mean of (noise - actions - v)^2 where the mask is true; v from the library's own forward pass."""
    import torch

    policy, batches = parts
    batch = batches.training(policy_nano.train_data, range(4), key=KEY)
    with torch.no_grad():
        flow, _ = policy.losses(batch, next_action_weight=1.0)
        seen = batch.inputs
        velocity = policy.plain(
            state=seen.state,
            input_ids=seen.input_ids,
            attention_mask=seen.attention_mask,
            pixel_values=seen.pixel_values,
            pixel_attention_mask=seen.pixel_attention_mask,
            actions=batch.actions,
            noise=batch.noise,
            timestep=batch.time,
        ).logits
    squares = ((batch.noise - batch.actions - velocity) ** 2)[batch.mask]
    assert len(squares) == 4 * HORIZON * DIMS - 1
    assert float(flow) == pytest.approx(float(squares.mean()), rel=1e-5)


def test_what_is_not_known_changes_no_gradient(parts, policy_nano):
    import torch

    policy, batches = parts
    data = policy_nano.train_data
    other = np.where(data.valid, data.actions, -3e5).astype(np.float32)
    gradients = []
    for each in (data, replace(data, actions=other)):
        flow, _ = policy.losses(batches.training(each, range(4), key=KEY), next_action_weight=1.0)
        weight = policy.plain.action_out_proj.weight
        gradients.append(torch.autograd.grad(flow, weight)[0])
    assert torch.equal(*gradients)
    assert float(gradients[0].abs().max()) > 0


def test_the_heads_reach_into_the_language_model(parts, policy_nano):
    import torch

    policy, batches = parts
    batch = batches.training(policy_nano.train_data, range(4), key=KEY)
    _, heads = policy.losses(batch, next_action_weight=5.0)
    text = policy.plain.model.vlm.language_model
    last = text.layers[-1].mlp.down_proj.weight  # the flow of actions alone would not train this one
    assert float(torch.autograd.grad(heads, last)[0].abs().max()) > 0


def test_features_are_the_mean_image_token_the_mean_text_token_and_the_state():
    import torch

    batch = PredictionBatch(
        input_ids=torch.tensor([[9, 9, 2, 3, 0]]),
        attention_mask=torch.tensor([[1, 1, 1, 1, 0]]),
        pixel_values=None,
        pixel_attention_mask=None,
        state=torch.tensor([[0.5, 0.0]]),
    )
    hidden = torch.tensor([[[1.0], [3.0], [10.0], [20.0], [1e6]]])
    # image (1 + 3) / 2, text (10 + 20) / 2; the padded token is in neither
    assert head_features(hidden, batch, image_token=9).tolist() == [[2.0, 15.0, 0.5, 0.0]]


def test_samples_that_nobody_annotated_leave_the_mean():
    import torch

    even = torch.zeros(2, 3)
    scores = {"action": even, "next_action": even, "objects": torch.zeros(2, 2)}
    labels = {
        "action": torch.tensor([1, -1]),
        "next_action": torch.tensor([-1, -1]),
        "objects": torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]]),
    }
    # uniform scores: ln 3 for the one action, nothing for next actions, ln 2 per known object
    expected = np.log(3) + 0.0 + np.log(2)
    assert float(head_loss(scores, labels, next_action_weight=5.0)) == pytest.approx(expected)
    labels["next_action"] = torch.tensor([0, -1])
    weighted = float(head_loss(scores, labels, next_action_weight=5.0))
    assert weighted == pytest.approx(expected + 5 * np.log(3))


def test_scores_become_the_json_of_label_answers():
    import torch

    labels = HeadLabels(
        action=("pour", "stir"), next_action=(), next_contact=CONTACT_LABELS, objects=("cup", "pan")
    )
    assert labels.sizes() == {"action": 2, "next_contact": 2, "objects": 2}
    scores = {
        "action": torch.tensor([[0.0, 1.0]]),
        "next_contact": torch.tensor([[2.0, 1.0]]),
        "objects": torch.tensor([[0.1, -0.1]]),
    }
    assert label_answers(scores, labels, rows=1) == [
        '{"action":"stir","objects":["cup"],"next_action":"unknown","next_contact":"no"}'
    ]


def test_one_reading_gives_the_chunk_that_the_librarys_own_sampling_gives(parts):
    policy, batches = parts
    data = made_up(3, seed=4)
    batch = batches.prediction(data.images(range(3)), data.instructions, data.states)
    noise, _ = noise_and_time((7,), (3, HORIZON, 32))
    chunks, _ = policy.predict(batch, noise[None], steps=4)
    expected = policy.plain.sample_actions(
        **{field.name: getattr(batch, field.name) for field in fields(batch)}, noise=noise, num_steps=4
    )
    assert float((chunks[0] - expected).abs().max()) < 1e-5
