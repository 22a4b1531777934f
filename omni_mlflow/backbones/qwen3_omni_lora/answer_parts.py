"""What an answer of the model depends on beside its adapter's weights, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from omni_mlflow.backbones.base_identity import BaseIdentity, base_parts, commit_of
from omni_mlflow.backbones.libraries import versions
from omni_mlflow.backbones.qwen3_omni_lora.base_model import locate_base
from omni_mlflow.backbones.qwen3_omni_lora.prompt import INSTRUCTION
from omni_mlflow.backbones.qwen3_omni_lora.settings import Settings
from omni_mlflow.spine.rows import digest_of, file_digest, read_document

PROCESSOR_FILES = (
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
)
"""Those of a checkpoint folder, whichever of them it has."""


def answer_parts(checkpoint: Path, settings: Settings) -> Mapping[str, str]:
    """Return the base model as it lies here, adapter config, processor, prompt, decoding and libraries."""
    base = read_document(checkpoint / "base.json", BaseIdentity)
    location, revision = locate_base(settings.base), settings.base.revision
    return {
        "base_model": digest_of([settings.base.model, settings.base.precision, base.fingerprint]),
        "base_revision": f"{revision} {base.commit}",
        **base_parts(location, revision, commit=base.commit),
        "adapter_config": file_digest(checkpoint / "adapter_config.json"),
        "processor": _processor(location, revision, base),
        "prompt": digest_of([INSTRUCTION, settings.prompt.model_dump(mode="json")]),
        "decoding": digest_of(settings.decoding),
        "libraries": versions(),
    }


def _processor(location: str, revision: str, base: BaseIdentity) -> str:
    """The files of a folder by their bytes; those of a hub's commit by that commit, which fixes them."""
    folder = Path(location)
    if not folder.is_dir():
        return f"{location} {commit_of(location, revision, base.commit)}"
    found = {name: folder / name for name in PROCESSOR_FILES}
    return digest_of({name: file_digest(path) for name, path in found.items() if path.is_file()})
