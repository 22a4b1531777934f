"""The published JSON form of a contract: the same sections, but prose where ours has names.

Only its form and its minimum evidence can be checked: no code stands behind a sentence. What a phrase of
``public_package_forbidden`` forbids is read through :data:`FORBIDDEN_BY_PHRASE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from omni_mlflow.contract import CONTRACT_ID, Section, SplitCounts
from omni_mlflow.contract.form_problems import problems
from omni_mlflow.contract.minimum_evidence import missing_evidence, texts_at
from omni_mlflow.contract.values import Text

FORBIDDEN_BY_PHRASE: Mapping[str, tuple[str, ...]] = {
    "raw MP4": ("raw_video",),
    "annotation HDF5": ("annotation_hdf5",),
    "Rerun RRD": ("rerun_rrd",),
    "base-model weights": ("model_weights",),
    "LoRA adapter weights": ("model_weights",),
    "full checkpoints": ("checkpoints",),
    "large archives": ("archives",),
    "generated raw video unless explicitly licensed and size-bounded": ("raw_video", "raw_images"),
    "private retargeting source files": ("annotation_hdf5", "model_weights", "archives"),
}
"""The categories with a detector that catch what a published phrase means.

Ours are stricter: no archive and no video leaves, of any size or licence. Retargeting sources are motion as
HDF5, NumPy arrays (found as ``model_weights``) or zip files; anything else is in no allowed pattern.
"""

_CONDITION = " unless "


_Texts = Annotated[tuple[Text, ...], Field(min_length=1)]


class PublishedSplit(Section):
    unit: Literal["episode"]
    default_counts: SplitCounts
    leakage_guard: Text


class PublishedArtifacts(Section):
    checkpoint_gate: Text
    required_eval_files: _Texts
    required_training_files: _Texts
    public_package_allowed: _Texts
    public_package_forbidden: _Texts


class PublishedContract(Section):
    """A contract as the reference implementation has it."""

    id: str = Field(pattern=CONTRACT_ID)
    display_name: Text
    status: Literal["implemented", "planned_adapter"]
    model_family: Text
    default_model_id: Text | None
    local_model_env: Text
    dataset_contract: Text
    training_objective: Text
    split_policy: PublishedSplit
    modalities: dict[Text, tuple[Text, ...]] = Field(min_length=1)
    entrypoints: dict[Text, Text | None] = Field(min_length=1)
    primary_metrics: _Texts
    artifact_contract: PublishedArtifacts
    extension_requirements: tuple[Text, ...]


def published_issues(document: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the form of a published contract, and what evidence it does not ask for."""
    form: list[str] = []
    try:
        PublishedContract.model_validate(document)
    except ValidationError as error:
        form = problems(error, PublishedContract)
    return [*form, *missing_evidence(_with_categories(document))]


def _with_categories(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with categories for its phrases; what is forbidden with a condition counts as allowed."""
    place = "artifact_contract.public_package_forbidden"
    phrases = [phrase for phrase in texts_at(document, place) if _CONDITION not in phrase]
    categories = [name for phrase in phrases for name in FORBIDDEN_BY_PHRASE.get(phrase, ())]
    files = document.get("artifact_contract")
    known = dict(files) if isinstance(files, Mapping) else {}
    return {**document, "artifact_contract": {**known, "public_package_forbidden": categories}}
