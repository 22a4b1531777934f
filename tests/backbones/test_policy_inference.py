"""A trained policy answers: the same for a sample whatever else is in its batch, in physical units."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from policy_nano import DIMS, HORIZON, observations

from omni_mlflow.backbones.policy_vla_branch.inference import (
    ActionSampler,
    PolicyPredictor,
    load_policy,
    noise_key,
)
from omni_mlflow.spine.types import Outcome, Sample, Span, Split

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def samples(policy_nano):
    return [
        Sample(
            id=each,
            episode_id="kitchen__ep1",
            split=Split.TEST,
            anchor=20,
            observed=Span(start=0, stop=20),
            forecast_from=20,
            inputs={"row": row},
        )
        for row, each in enumerate(policy_nano.val_data.ids)
    ]


@pytest.fixture(scope="module")
def loaded(policy_nano, policy_checkpoint):
    return load_policy(policy_checkpoint, policy_nano.settings())


@pytest.fixture(scope="module")
def sampler(policy_nano, loaded):
    return ActionSampler(loaded, policy_nano.settings())


@pytest.fixture(scope="module")
def predictor(policy_nano, sampler):
    def observe(asked):
        return observations(policy_nano.val_data, [sample.inputs["row"] for sample in asked])

    return PolicyPredictor(sampler, observe)


@pytest.mark.parametrize("size", [1, 5])
def test_an_answer_is_the_same_to_the_last_bit_in_any_batch(sampler, samples, policy_nano, size):
    """Instructions of different length share a batch."""

    def asked(rows):
        return sampler.sample_actions([samples[row].id for row in rows], observations(data, rows))

    data, rows = policy_nano.val_data, range(len(samples))
    assert len(set(data.instructions)) == 2
    chunks, labels = asked(rows)
    parts = [asked(rows[first : first + size]) for first in rows[::size]]
    assert np.array_equal(np.concatenate([part for part, _ in parts], axis=1), chunks)
    assert [label for _, part in parts for label in part] == labels


def test_an_answer_is_the_same_at_any_place_of_a_batch(predictor, samples):
    assert predictor.answer(samples[::-1]) == predictor.answer(samples)[::-1]


def test_a_chunk_is_in_units_of_the_action_space_and_beside_it_lies_the_mean_of_eight(predictor, samples):
    [answer] = predictor.answer(samples[:1])
    assert answer.outcome is Outcome.ANSWERED
    assert {name: np.shape(chunk) for name, chunk in answer.values.items()} == {
        "actions": (HORIZON, DIMS),
        "actions_mean_of_8": (HORIZON, DIMS),
    }
    assert answer.values["actions"] != answer.values["actions_mean_of_8"]
    assert json.loads(answer.raw).keys() == {"action", "objects", "next_action", "next_contact"}
    told = np.array(answer.values["actions"])
    assert np.array_equal(told, told.round(6))


def test_the_first_draw_is_the_sample_and_the_mean_is_that_of_all(predictor, sampler, samples, policy_nano):
    seen = observations(policy_nano.val_data, [0, 1])
    chunks, _ = sampler.sample_actions([each.id for each in samples[:2]], seen)
    assert chunks.shape == (8, 2, HORIZON, DIMS)
    answers = predictor.answer(samples[:2])
    for row, answer in enumerate(answers):
        assert np.array(answer.values["actions"]) == pytest.approx(chunks[0, row], abs=1e-6)
        mean = np.array(answer.values["actions_mean_of_8"])
        assert mean == pytest.approx(chunks[:, row].mean(axis=0), abs=1e-6)


def test_the_noise_of_a_sample_follows_from_its_id(sampler, policy_nano):
    assert bytes(noise_key("kitchen__ep1:0")) == hashlib.sha256(b"kitchen__ep1:0").digest()
    seen = observations(policy_nano.val_data, [0])
    one, again, other = (sampler.sample_actions([name], seen)[0] for name in ("a", "a", "b"))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_chunk_that_is_no_number_is_no_answer_to_anything(predictor, loaded, samples):
    weight = loaded.policy.plain.action_out_proj.bias
    kept = weight.detach().clone()
    try:
        weight.data.fill_(float("nan"))
        [answer] = predictor.answer(samples[:1])
    finally:
        weight.data.copy_(kept)
    assert answer.outcome is Outcome.MODEL_INVALID
    assert (answer.values, answer.raw) == ({}, "")
