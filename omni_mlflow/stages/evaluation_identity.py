"""What the answers of an evaluation depend on, part by part: answers that differ in one of them never mix."""

from __future__ import annotations

from omni_mlflow.backbone_code import code_behind
from omni_mlflow.contract import Contract
from omni_mlflow.spine.rows import digest_of
from omni_mlflow.spine.types import Split
from omni_mlflow.stages import asking
from omni_mlflow.stages.base import Ground
from omni_mlflow.stages.manifests import MEDIA, DatasetManifest, checkpoint_digest

Identity = dict[str, str]

ANSWER_WITH = ("load", "control", "answer_parts")
"""What of a backbone shapes an answer; answers outlive a change of the rest, such as its scoring."""

_DECIDED_AFTERWARDS = {"profiles", "evaluation", "primary_metrics", "artifact_contract"}
_NAMED_BY_THEMSELVES = {"windows", "settings"}


def evaluation_identity(ground: Ground, dataset: DatasetManifest) -> Identity:
    """Return a digest or a short text for each part; the backbone names its own among them.

    ``limit`` is one because what a control exchanges is taken from the samples that are asked.
    """
    checkpoint = ground.folder_of("train") / "checkpoint"
    limit = ground.options.limit
    return {
        **ground.model.answer_parts(checkpoint, settings=ground.settings),
        "checkpoint": checkpoint_digest(checkpoint),
        "dataset": dataset.digest,
        "media": _held_out_media(ground),
        "frame_plan": digest_of(ground.contract.windows),
        "contract": _contract(ground.contract),
        "code": code_behind(ground.model, ANSWER_WITH, asking.__name__),
        "limit": "none" if limit is None else str(limit),
    }


def differing(one: Identity, other: Identity) -> list[str]:
    """Name the parts in which two identities differ."""
    return sorted(part for part in {*one, *other} if one.get(part) != other.get(part))


def _contract(contract: Contract) -> str:
    """All of the contract but what is decided about given answers, and what is a part of its own."""
    rest = contract.model_dump(mode="json", exclude=_DECIDED_AFTERWARDS | _NAMED_BY_THEMSELVES)
    return digest_of(rest)


def _held_out_media(ground: Ground) -> str:
    """The proxy media of held-out episodes by their bytes, as ``index`` sealed them."""
    seal = ground.inputs["index"].seal()
    outputs = seal.outputs if seal else {}
    return digest_of(
        {name: digest for name, digest in outputs.items() if name.startswith(f"{MEDIA}/{Split.TEST}/")}
    )
