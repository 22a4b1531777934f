"""A model version for a checkpoint: made once, whatever is projected again, and its alias moved once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omni_mlflow.events import ModelVersion
from omni_mlflow.tracking.connection import run_if_there, store_name
from omni_mlflow.tracking.outer_runs import CONTINUED_TAG, KEY_TAG, UPSTREAM_TAG
from omni_mlflow.tracking.stored_run import StoredRun

if TYPE_CHECKING:
    import mlflow.entities.model_registry
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

DIGEST_TAG = "omni.checkpoint_digest"


def register(
    client: MlflowClient, model: ModelVersion, stored: StoredRun, *, files: Sequence[Path]
) -> str | None:
    """Log the model, register it as a version, and let the alias point to that version.

    The version carries ``omni.alias.<alias>.previous``: the version that the alias pointed to before, or
    ``none``; and ``omni.alias.<alias>`` once the alias was moved, which is done only once: from then on
    it stays where people move it.

    Args:
        files: what describes the checkpoint; kept with the model under their own names.

    Returns:
        What a version that was made before goes on saying of a run that was purged, the first time that this
        is met; else None.
    """
    from mlflow.entities import LoggedModelOutput, Metric

    logged = _logged_model(client, model, stored, files)
    if logged.model_id not in stored.model_outputs:
        client.log_outputs(stored.run_id, [LoggedModelOutput(logged.model_id, step=0)])
        stored.model_outputs.add(logged.model_id)
    points = [
        Metric(
            store_name(key),
            value,
            model.at_ms,
            0,
            model_id=logged.model_id,
            dataset_name=model.dataset_name,
            dataset_digest=model.dataset_digest,
            run_id=stored.run_id,
        )
        for key, value in model.metrics.items()
    ]
    client.log_batch(stored.run_id, metrics=points)
    version = _version(client, model, logged, stored)
    _move_alias(client, model, version)
    return _name_new_runs(client, model, logged, version, stored)


def _lineage(model: ModelVersion, stored: StoredRun) -> dict[str, str]:
    upstream = {key: value for key, value in stored.tags.items() if key.startswith(UPSTREAM_TAG)}
    ours = {DIGEST_TAG: model.checkpoint_digest, KEY_TAG: stored.tags[KEY_TAG]}
    return {store_name(key): value for key, value in {**model.tags, **upstream, **ours}.items()}


def _logged_model(
    client: MlflowClient, model: ModelVersion, stored: StoredRun, files: Sequence[Path]
) -> LoggedModel:
    """Return the READY logged model of the checkpoint; one that was left half made is finished."""
    found = client.search_logged_models(
        [stored.experiment_id], filter_string=f"tags.`{DIGEST_TAG}` = '{model.checkpoint_digest}'"
    )
    logged = (
        found[0]
        if found
        else client.create_logged_model(
            stored.experiment_id,
            name=model.model_name,
            source_run_id=stored.run_id,
            tags=_lineage(model, stored),
            params=model.params,
            model_type="checkpoint",
        )
    )
    if logged.status != "READY":
        with tempfile.TemporaryDirectory() as card:
            for path in files:
                shutil.copy(path, card)
            client.log_model_artifacts(logged.model_id, card)
        logged = client.finalize_logged_model(logged.model_id, "READY")
    return logged


def _version(
    client: MlflowClient, model: ModelVersion, logged: LoggedModel, stored: StoredRun
) -> mlflow.entities.model_registry.ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model.registered_name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    query = f"name = '{model.registered_name}' and tags.`{DIGEST_TAG}` = '{model.checkpoint_digest}'"
    found = client.search_model_versions(query)
    if found:
        return found[0]
    return client.create_model_version(
        model.registered_name,
        source=f"models:/{logged.model_id}",
        run_id=stored.run_id,
        tags=_lineage(model, stored),
        description=model.description,
        model_id=logged.model_id,
        await_creation_for=0,
    )


def _name_new_runs(
    client: MlflowClient,
    model: ModelVersion,
    logged: LoggedModel,
    version: mlflow.entities.model_registry.ModelVersion,
    stored: StoredRun,
) -> str | None:
    """Let a model that outlived runs, purged and made anew since, name the new ones; return what it cannot.

    MLflow never changes the run that a model is from, so a tag names the one in its place.
    """
    logged_tags = _new_names(client, logged.tags, stored, made_by=logged.source_run_id)
    if logged_tags:
        client.set_logged_model_tags(logged.model_id, logged_tags)
    version_tags = _new_names(client, version.tags, stored, made_by=version.run_id)
    for key, value in version_tags.items():
        client.set_model_version_tag(model.registered_name, str(version.version), key, value)
    if CONTINUED_TAG not in version_tags:
        return None
    return (
        f"version {version.version} of {model.registered_name} goes on naming run {version.run_id}, which is "
        f"gone from the tracking store: MLflow never changes that. Its tag {CONTINUED_TAG} names run "
        f"{stored.run_id}, made in its place, and its tags {UPSTREAM_TAG}* the runs that are there now"
    )


def _new_names(
    client: MlflowClient, tags: Mapping[str, str], stored: StoredRun, *, made_by: str
) -> dict[str, str]:
    """Return the tags that name other runs than those of ``stored``; none while another run has the model."""
    maker = tags.get(CONTINUED_TAG, made_by)
    is_ours = maker == stored.run_id
    if not is_ours and run_if_there(client, maker) is not None:
        return {}
    names = {key: value for key, value in stored.tags.items() if key.startswith(UPSTREAM_TAG)}
    wanted = {store_name(key): value for key, value in names.items()}
    if not is_ours:
        wanted |= {KEY_TAG: stored.tags[KEY_TAG], CONTINUED_TAG: stored.run_id}
    return {key: value for key, value in wanted.items() if tags.get(key) != value}


def _move_alias(
    client: MlflowClient, model: ModelVersion, version: mlflow.entities.model_registry.ModelVersion
) -> None:
    name, number = model.registered_name, str(version.version)
    moved, previous = f"omni.alias.{model.alias}", f"omni.alias.{model.alias}.previous"
    if moved in version.tags:
        return
    if previous not in version.tags:  # written first: after the move nobody could tell it any more
        before = _version_of_alias(client, name, model.alias)
        client.set_model_version_tag(name, number, previous, before or "none")
    client.set_registered_model_alias(name, model.alias, number)
    client.set_model_version_tag(name, number, moved, "moved")


def _version_of_alias(client: MlflowClient, name: str, alias: str) -> str | None:
    aliases = client.get_registered_model(name).aliases
    return str(aliases[alias]) if alias in aliases else None
