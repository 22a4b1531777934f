"""A registered policy predicts chunks of actions in physical units, from the weights that were evaluated."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from policy_nano import made_up, policy_settings

from omni_mlflow.backbones.policy_vla_branch.inference import Observations, PolicyPredictor, load_policy
from omni_mlflow.backbones.policy_vla_branch.served import CHECKPOINT, CheckpointNotHereError, describe
from omni_mlflow.spine.rows import file_digest, write_document

pytestmark = pytest.mark.training


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
            "state": data.states.tolist(),
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
    predictor = PolicyPredictor(load_policy(policy_checkpoint, settings), lambda _: seen, settings)
    chunks, labels = predictor.sample_actions(["a", "b"], seen)
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


def test_a_row_without_a_state_is_refused_by_the_column_s_name(model, rows, policy_checkpoint, monkeypatch):
    import mlflow.pyfunc

    monkeypatch.setenv(CHECKPOINT, str(policy_checkpoint))
    with pytest.raises(ValueError, match=r"columns \['state'\] are missing"):
        mlflow.pyfunc.load_model(str(model)).predict(rows.drop(columns="state"))
