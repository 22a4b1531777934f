"""The registered policy as ``mlflow.pyfunc`` loads it: it predicts chunks of actions in physical units.

A registered model describes its checkpoint. The weights stay where they were trained, so whoever loads it
names a folder that holds them, and gets nothing else than the checkpoint that was evaluated.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni_mlflow.backbones.policy_vla_branch.inference import ActionSampler, LoadedPolicy, load_policy
from omni_mlflow.backbones.policy_vla_branch.served_input import (
    EXAMPLE_NAME,
    example,
    observations,
    signature,
)
from omni_mlflow.backbones.policy_vla_branch.settings import Settings
from omni_mlflow.spine.rows import file_digest, write_document

if TYPE_CHECKING:
    import pandas as pd

CHECKPOINT = "OMNI_MLFLOW_CHECKPOINT"
"""The variable that names the folder with the weights."""

SETTINGS_NAME, MANIFEST_NAME = "settings.json", "checkpoint_manifest.json"


class CheckpointNotHereError(Exception):
    """The weights of a registered model are not where they were looked for, or are others."""


def describe(folder: Path, settings: Settings) -> None:
    """Write what ``mlflow.pyfunc.load_model`` needs beside the JSON files of a checkpoint."""
    flavour = {"loader_module": __name__, "python_version": platform.python_version()}
    pointer = {"artifact_path": EXAMPLE_NAME, "type": "dataframe", "pandas_orient": "split"}
    model = {
        "flavors": {"python_function": flavour},
        "signature": signature(),
        "saved_input_example_info": pointer,
    }
    write_document(folder / "MLmodel", model)  # JSON is YAML
    write_document(folder / EXAMPLE_NAME, example())
    write_document(folder / SETTINGS_NAME, settings)


def _load_pyfunc(path: str) -> ServedPolicy:
    """Load the checkpoint that the model in ``path`` describes; mlflow calls this by its name.

    Raises:
        CheckpointNotHereError: the variable is not set, or a file there is missing or has other bytes.
    """
    folder = Path(path)
    settings = Settings.model_validate_json((folder / SETTINGS_NAME).read_text(encoding="utf-8"))
    checkpoint = _checkpoint(json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))["files"])
    return ServedPolicy(load_policy(checkpoint, settings), settings)


def _checkpoint(digests: dict[str, str]) -> Path:
    named = os.environ.get(CHECKPOINT)
    if named is None:
        raise CheckpointNotHereError(
            f"a registered model holds no weights; set {CHECKPOINT} to the checkpoint folder of its training"
        )
    folder = Path(named)
    other = [
        name
        for name, digest in sorted(digests.items())
        if not (folder / name).is_file() or file_digest(folder / name) != digest
    ]
    if other:
        raise CheckpointNotHereError(
            f"{folder} is not the checkpoint of this registered model: {other[:5]} are missing or differ; "
            f"set {CHECKPOINT} to the one that it was registered from"
        )
    return folder


class ServedPolicy:
    """What ``mlflow.pyfunc`` wraps."""

    def __init__(self, loaded: LoadedPolicy, settings: Settings) -> None:
        self._sampler = ActionSampler(loaded, settings)

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Answer every row.

        Args:
            model_input: columns ``id`` (its noise follows from it), ``image`` (RGB, height x width x 3, whole
                numbers from 0 to 255), ``instruction``, and ``state`` (28 numbers, metres and metres per
                second, then 0 or 1 for a hand that is known).

        Returns:
            By row ``id``, ``actions`` (steps x dimensions, in the units of ``action_space.json``), ``labels``
            (JSON: action, objects, next action, next contact).

        Raises:
            BadInputError: a row is not that.
        """
        import pandas as pd

        ids, seen = observations(model_input)
        chunks, labels = self._sampler.sample_actions(ids, seen)
        return pd.DataFrame({"id": ids, "actions": chunks[0].tolist(), "labels": labels})
