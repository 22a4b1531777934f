"""What an answer of the policy depends on beside its weights, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from omni_mlflow.backbones.base_identity import BaseIdentity
from omni_mlflow.backbones.libraries import versions
from omni_mlflow.backbones.policy_vla_branch.fitted import ACTION_SPACE_NAME
from omni_mlflow.backbones.policy_vla_branch.settings import Settings
from omni_mlflow.spine.rows import digest_of, file_digest, read_document

_FILES = {
    "action_space": ACTION_SPACE_NAME,
    "normalization": "normalization_stats.json",
    "processor": "processor_config.json",
    "tokenizer": "tokenizer.json",
    "heads": "heads.json",
}


def answer_parts(checkpoint: Path, settings: Settings) -> Mapping[str, str]:
    """Return base, action space, its normalisation, processor, tokenizer, heads, decoding and libraries.

    The base is that of the training: the checkpoint holds all weights and their configuration itself, and
    answers without its base.
    """
    base = read_document(checkpoint / "base.json", BaseIdentity)
    return {
        "base_model": digest_of([settings.base.model, settings.base.precision, base.fingerprint]),
        "base_revision": f"{settings.base.revision} {base.source}",
        **{part: file_digest(checkpoint / name) for part, name in _FILES.items()},
        "decoding": digest_of(settings.decoding),
        "libraries": versions(),
    }
