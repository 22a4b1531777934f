"""A registered policy predicts chunks of actions in physical units, from the weights that were evaluated."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from policy_nano import made_up, policy_settings

from omni_mlflow.backbones.policy_vla_branch.inference import ActionSampler, load_policy
from omni_mlflow.backbones.policy_vla_branch.observations import Observations
from omni_mlflow.backbones.policy_vla_branch.served import CHECKPOINT, CheckpointNotHereError, describe
from omni_mlflow.backbones.policy_vla_branch.served_input import BadInputError, example, observations
from omni_mlflow.spine.rows import file_digest, write_document

pytestmark = pytest.mark.training

HANDS_AT_REST = example()["data"][0][3]


def changed(place: int, value: float) -> list[float]:
    return [*HANDS_AT_REST[:place], value, *HANDS_AT_REST[place + 1 :]]


@pytest.fixture
def model(policy_checkpoint, policy_nano, tmp_path):
    """The folder of a registered model: descriptions of a checkpoint, and no weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    describe(folder, policy_settings(policy_nano.base))
    files = {path.name: file_digest(path) for path in policy_checkpoint.iterdir() if path.is_file()}
    write_document(folder / "checkpoint_manifest.json", {"files": files})
    assert not list(folder.glob("*.safetensors"))
    return folder


@pytest.fixture
def rows():
    data = made_up(2, seed=11)
    return pd.DataFrame(
        {
            "id": ["a", "b"],
            "image": [image.tolist() for image in data.images([0, 1])],
            "instruction": data.instructions,
            "state": [changed(0, -0.2), [0.0] * 28],  # b sees no hand
        }
    )


def test_mlflow_loads_it_and_it_predicts_what_the_evaluation_would(
    model, rows, policy_checkpoint, policy_nano, monkeypatch
):
    import mlflow.pyfunc

    monkeypatch.setenv(CHECKPOINT, str(policy_checkpoint))
    told = mlflow.pyfunc.load_model(str(model)).predict(rows)
    settings = policy_settings(policy_nano.base)
    seen = Observations(
        images=[np.array(image, dtype=np.uint8) for image in rows["image"]],
        instructions=rows["instruction"].tolist(),
        states=np.array(rows["state"].tolist(), dtype=np.float32),
    )
    sampler = ActionSampler(load_policy(policy_checkpoint, settings), settings)
    chunks, labels = sampler.sample_actions(["a", "b"], seen)
    assert told["id"].tolist() == ["a", "b"]
    assert np.array_equal(np.array(told["actions"].tolist()), chunks[0])
    assert told["labels"].tolist() == labels
    assert {*json.loads(told["labels"][0])} == {"action", "objects", "next_action", "next_contact"}


def test_without_the_weights_it_says_where_they_are_looked_for(model, monkeypatch):
    import mlflow.pyfunc

    monkeypatch.delenv(CHECKPOINT, raising=False)
    with pytest.raises(CheckpointNotHereError, match=f"set {CHECKPOINT} to the checkpoint folder"):
        mlflow.pyfunc.load_model(str(model))


def test_other_weights_than_those_that_were_evaluated_are_refused(
    model, policy_checkpoint, tmp_path, monkeypatch
):
    import mlflow.pyfunc

    other = tmp_path / "other"
    shutil.copytree(policy_checkpoint, other)
    weights = other / "heads.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    monkeypatch.setenv(CHECKPOINT, str(other))
    with pytest.raises(CheckpointNotHereError, match=r"\['heads.safetensors'\] are missing or differ"):
        mlflow.pyfunc.load_model(str(model))


@pytest.fixture
def served(model, policy_checkpoint, monkeypatch):
    import mlflow.pyfunc

    monkeypatch.setenv(CHECKPOINT, str(policy_checkpoint))
    return mlflow.pyfunc.load_model(str(model))


def test_its_signature_says_what_a_row_holds_and_its_example_can_be_asked(served):
    inputs, outputs = served.metadata.signature.inputs, served.metadata.signature.outputs
    assert inputs.input_names() == ["id", "image", "instruction", "state"]
    assert str(inputs.input_types()[3]) == "Array(double)"
    told = served.predict(served.input_example)
    assert told.columns.tolist() == outputs.input_names() == ["id", "actions", "labels"]
    assert np.isfinite(np.array(told["actions"].tolist())).all()


def test_a_row_without_a_state_is_refused_by_the_column_s_name(served, rows):
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=r"missing inputs \['state'\]"):
        served.predict(rows.drop(columns="state"))
    with pytest.raises(BadInputError, match=r"columns \['state'\] are missing"):
        observations(rows.drop(columns="state"))


GREY = np.full((4, 4, 3), 100)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("image", GREY / 255, r"row 1: image holds float64 numbers; give whole numbers from 0 to 255"),
        ("image", GREY + 200, r"row 1: image goes from 300 to 300"),
        ("image", GREY - 101, r"row 1: image goes from -1 to -1"),
        ("image", GREY[..., 0], r"row 1: image has shape \(4, 4\); give RGB"),
        ("image", GREY.transpose(2, 0, 1), r"row 1: image has shape \(3, 4, 4\); give RGB"),
        ("image", [[[1, 2, 3]], [[1, 2]]], r"row 1: image is no array of numbers"),
        ("image", None, r"row 1: image has shape \(\)"),
        ("state", [float("nan"), *HANDS_AT_REST[1:]], r"row 1: state is not finite at \['left_x'\]"),
        ("state", [float("inf"), *HANDS_AT_REST[1:]], r"row 1: state is not finite at \['left_x'\]"),
        ("state", HANDS_AT_REST[1:], r"row 1: state is float64 of shape \(27,\); give 28 numbers: left_x"),
        ("state", [*HANDS_AT_REST[1:], 0.5], r"row 1: left_valid and right_valid are \[1.0, 0.5\]"),
        (
            "state",
            [*HANDS_AT_REST[:-1], 0.0],
            "row 1: the right hand of the state has numbers and a flag of 0",
        ),
        ("state", changed(0, 450.0), "row 1: the left hand of the state is 450 m away or open; give metres"),
        ("state", changed(19, 80.0), "row 1: the right hand of the state is 80 m away or open; give metres"),
        ("state", changed(25, 900.0), "row 1: the right hand of the state moves 900 m in a second"),
        ("state", changed(3, 0.5), "row 1: the left hand of the state has a rotation whose two columns"),
        ("state", changed(16, 0.5), "row 1: the right hand of the state has a rotation whose two columns"),
        ("instruction", None, r"row 1: instruction is None; give a text"),
        ("id", 7, r"row 1: id is 7; give a text"),
    ],
)
def test_what_the_policy_was_not_trained_on_is_refused_and_never_answered(rows, column, value, told):
    given = rows.astype(object)
    given.at[1, column] = value
    with pytest.raises(BadInputError, match=told):
        observations(given)


def test_a_refusal_reaches_whoever_asks_through_mlflow(served, rows):
    rows.at[1, "image"] = (GREY / 255).tolist()
    with pytest.raises(BadInputError, match="image holds float64 numbers"):
        served.predict(rows)


def test_no_rows_are_refused(rows):
    with pytest.raises(BadInputError, match="there is no row to answer"):
        observations(rows.iloc[:0])


def test_pictures_may_be_arrays_or_lists(rows):
    as_arrays = rows.assign(image=[np.array(image, dtype=np.uint8) for image in rows["image"]])
    for one, other in zip(observations(rows)[1].images, observations(as_arrays)[1].images, strict=True):
        assert one.dtype == np.uint8
        assert np.array_equal(one, other)
