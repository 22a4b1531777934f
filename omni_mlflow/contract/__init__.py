"""The contract of a backbone: names and numbers, one YAML file in ``contracts/``.

Every name in it resolves to code; ``omni_mlflow.registry`` does the binding. A misspelt key, an
unknown name or a value of the wrong kind is an error with the nearest match, never documentation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from omni_mlflow.contract.values import Count, Once, Pixels, Positive, Seed, Share, Text
from omni_mlflow.spine.modalities import Modality, ModelTarget
from omni_mlflow.spine.rows import digest_of
from omni_mlflow.spine.types import SCHEMA_VERSION, Scale, Split

T = TypeVar("T")

CONTRACT_ID = r"^[a-z][a-z0-9_]*$"
NO_PROFILE = "none"


class ContractError(Exception):
    """A contract says something that this project cannot do.

    Attributes:
        issues: one sentence for each thing that is wrong.
    """

    def __init__(self, message: str, *, issues: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.issues = tuple(issues) or (message,)


class Section(BaseModel):
    """A block of a contract: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Weights(Section):
    """A block of settings that names a model's weights; another folder may stand in for them.

    Attributes:
        local_copy: the folder that the contract's ``local_model_env`` points at, if set. It is a fact of
            this machine, so it is no setting: no digest holds it.
    """

    _local_copy: str | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        self._local_copy = (context or {}).get("local_copy")

    @property
    def local_copy(self) -> str | None:
        return self._local_copy


class SplitCounts(Section):
    train: Positive
    val: Count
    test: Positive

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``TRAIN/VAL/TEST``, e.g. ``96/16/16``.

        Raises:
            ContractError: the text is not three whole numbers, or leaves nothing to train or to test on.
        """
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})/([0-9]{1,9})", text)
        if match is None:
            raise ContractError(
                f"{text!r} are not three whole numbers of sessions; give TRAIN/VAL/TEST, e.g. 96/16/16"
            )
        train, val, test = map(int, match.groups())
        empty = " and ".join(name for name, size in (("train", train), ("test", test)) if size == 0)
        if empty:
            raise ContractError(
                f"{text!r} leave no session for {empty}; give at least one for train and one for test, "
                "e.g. 96/16/16"
            )
        return cls(train=train, val=val, test=test)

    def by_split(self) -> dict[Split, int]:
        return {Split.TRAIN: self.train, Split.VAL: self.val, Split.TEST: self.test}

    def __str__(self) -> str:
        return f"{self.train}/{self.val}/{self.test}"


class SplitPolicy(Section):
    """How episodes are divided: whole sessions, so that all episodes of one session share a split."""

    unit: Literal["episode"]
    grouped_by: Literal["session"]
    default_counts: SplitCounts
    seed: Seed
    leakage_guard: Once[Text] = Field(min_length=1)


class Windows(Section):
    """Which windows the index cuts, and which frames a model may see.

    Attributes:
        frame_grid: every n-th source frame is kept in the proxy video.
        context_frames: how many grid frames before the anchor a sample shows.
        tile_pixels: width and height of one camera's tile in the mosaic.
        min_label_share: share of a window's labelled frames that its majority label must reach.
        swap_fisheye_cam0_cam2: take each of the two cameras from the other one's file, for recordings whose
            files are named the wrong way round. The annotation does not tell: look at the pictures.
    """

    scales: Once[Scale] = Field(min_length=1)
    frame_grid: Positive
    context_frames: Positive
    tile_pixels: tuple[Pixels, Pixels]
    min_label_share: float = Field(strict=True, gt=0, le=1)
    swap_fisheye_cam0_cam2: bool = Field(default=False, strict=True)


SAME_WINDOWS = ("tile_pixels", "min_label_share", "swap_fisheye_cam0_cam2")
"""What contracts that share an index must agree on: one mosaic has one size, and one window has one label."""


INPUT_ROLES = ("direct_inputs", "bridged_inputs", "conditioning_inputs", "observations")
"""The keys of ``modalities`` under which an input can stand."""


class Modalities(Section):
    """What the backbone may be shown and what it learns to produce.

    What its code shows the model (``Backbone.shown``) must be among the inputs and may not be excluded, and
    the targets are those of its samples (``Backbone.targets``). An answer is no modality, so no input can be
    one.

    Attributes:
        direct_inputs: shown to the model as they are.
        bridged_inputs: shown as a summary in words.
        conditioning_inputs: features that a generative model is conditioned on; none reaches past the anchor.
        observations: what a policy sees and feels.
        targets: what every sample holds to learn from.
        candidate_targets: of these, each sample states which it has.
        excluded_inputs: never shown.
    """

    direct_inputs: Once[Modality] = ()
    bridged_inputs: Once[Modality] = ()
    conditioning_inputs: Once[Modality] = ()
    observations: Once[Modality] = ()
    targets: Once[ModelTarget] = ()
    candidate_targets: Once[ModelTarget] = ()
    excluded_inputs: Once[Modality] = ()

    @model_validator(mode="after")
    def _shows_something_and_nothing_excluded(self) -> Self:
        shown = [name for role in INPUT_ROLES for name in getattr(self, role)]
        if not shown:
            raise ValueError("direct_inputs or observations must name what the model is shown")
        if both := sorted(set(shown) & set(self.excluded_inputs)):
            raise ValueError(f"{both} cannot be shown and excluded")
        if twice := sorted({name for name in shown if shown.count(name) > 1}):
            raise ValueError(f"{twice} play two roles; an input plays one of {', '.join(INPUT_ROLES)}")
        if both := sorted(set(self.targets) & set(self.candidate_targets)):
            raise ValueError(f"every sample holds the targets, so {both} are no candidate_targets as well")
        return self


class Questions(Section):
    """Which questions the backbone answers: about the window before the anchor and the one after it."""

    describe: Once[Literal["action", "subtask", "objects", "contact", "transition"]] = ()
    foretell: Once[Literal["next_action", "next_contact", "next_transition"]] = ()

    @property
    def asked(self) -> tuple[str, ...]:
        return (*self.describe, *self.foretell)


SEALED = "sealed"
"""The folder of a stage that holds the answers to held-out samples."""


class Evaluation(Section):
    """Held-out samples that the infrastructure (memory, media) left unanswered are counted and left out.

    Attributes:
        max_retries: how often such a sample is asked again.
        max_infrastructure_failed_share: of the samples asked, 0..1; above it nothing is finalised.
    """

    max_retries: Annotated[int, Field(strict=True, ge=0, le=100)] = 2
    max_infrastructure_failed_share: Share = 0.0


class PackageFile(Section):
    """A file that may leave.

    Attributes:
        category: what the record of a package calls it.
        pattern: ``<stage>/<file>``, as a shell pattern.
    """

    category: Text
    pattern: Text
    max_bytes: Positive

    @field_validator("pattern")
    @classmethod
    def _leaves_the_sealed_answers(cls, pattern: str) -> str:
        if SEALED in pattern.split("/"):
            raise ValueError(f"{pattern} names held-out answers; they never leave")
        return pattern


class ArtifactContract(Section):
    """What proves a run, what may leave and what may not.

    Attributes:
        checkpoint_gate: the model family's validation rule for a checkpoint.
        further_gates: gates that are asked as well, such as those of an installed package.
    """

    checkpoint_gate: Text
    further_gates: Once[Text] = ()
    required_training_files: Once[Text] = Field(min_length=1)
    required_eval_files: Once[Text] = Field(min_length=1)
    public_package_allowed: Once[PackageFile] = Field(min_length=1)
    public_package_forbidden: Once[Text] = Field(min_length=1)


class Contract(Section):
    """Everything the shared pipeline reads about one backbone.

    Attributes:
        status: of a planned adapter only the form is checked, and it cannot be run.
        model_family: for readers.
        default_model_id: the base model as others can find it; ``settings.base.model`` says the same.
        local_model_env: the variable that names a folder with the weights instead; its name ends in _DIR.
        dataset_contract: names the test set of a registered model, and the manifest of its samples.
        training_objective: told by each training run and by the registered model.
        entrypoints: for readers: which entry point of the MLflow project plays a role of the specification;
            an implemented backbone names all of them.
        primary_metrics: what ``validate`` demands of ``metrics.json``; what is asked is graded by one of
            them, and what one grades must be asked.
        extension_requirements: for readers: what the code of a planned adapter must do; it must say so.
        settings: what the backbone's own code reads; its ``settings_type`` is the form.
        profiles: changes under a name, laid over the contract by ``--profile``.
    """

    schema_version: Positive
    id: str = Field(pattern=CONTRACT_ID)
    display_name: Text
    status: Literal["implemented", "planned_adapter"]
    model_family: Text
    default_model_id: Text | None
    local_model_env: str = Field(pattern=r"^[A-Z_][A-Z0-9_]*_DIR$")
    dataset_contract: Text
    training_objective: Text
    split_policy: SplitPolicy
    modalities: Modalities
    entrypoints: dict[Text, Text] = Field(min_length=1)
    questions: Questions
    windows: Windows
    evaluation: Evaluation = Evaluation()
    primary_metrics: Once[Text] = Field(min_length=1)
    artifact_contract: ArtifactContract
    extension_requirements: Once[Text] = ()
    settings: dict[str, Any]
    profiles: dict[Text, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("schema_version")
    @classmethod
    def _is_known(cls, version: int) -> int:
        if version > SCHEMA_VERSION:
            raise ValueError(f"{version} is newer than this project; it knows {SCHEMA_VERSION}")
        return version

    @field_validator("profiles")
    @classmethod
    def _can_be_chosen(cls, profiles: dict[str, Any]) -> dict[str, Any]:
        if NO_PROFILE in profiles:
            raise ValueError(f"no profile can be called {NO_PROFILE!r}: that asks for the contract as it is")
        return profiles

    @property
    def digest(self) -> str:
        """Identity of the contract as used: profile and changes included, other profiles not."""
        return digest_of(self.model_dump(mode="json", exclude={"profiles"}))


def resolve(kind: str, name: str, known: Mapping[str, T]) -> T:
    """Return the code that ``name`` stands for.

    Raises:
        ContractError: nobody implements it; the message names the nearest match.
    """
    if name in known:
        return known[name]
    raise ContractError(f"unknown {kind} {name!r}; {nearest(name, known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {names}"


def contract_schema() -> str:
    """The form of a contract as a JSON Schema, for editors: the text of ``contracts/schema.json``."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Contract.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"
