"""Which weights a checkpoint was trained on: every byte of them, and what lies beside them."""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from omni_mlflow.spine.rows import digest_of, file_digest
from omni_mlflow.spine.types import Row


class BaseIdentity(Row):
    """Which weights a checkpoint was trained on; its ``base.json``.

    Attributes:
        model, revision: as the contract names them; never a path of one machine that it does not name.
        source: ``commit`` and the hub's commit where the base lies in a snapshot of the hub's cache;
            otherwise ``files`` and a digest of every file of its folder but the weights: configuration,
            tokenizer, processor, chat template.
        fingerprint: sha256 over name, type, shape and bytes of every weight.
    """

    model: str
    revision: str
    source: str
    fingerprint: str

    @property
    def commit(self) -> str | None:
        kind, _, value = self.source.partition(" ")
        return value if kind == "commit" else None


def fingerprint(model: Any) -> str:
    """Return one sha256 of all weights; another bit or another type of any of them changes it.

    Every byte is read, because an adapter is only right above exactly the weights it was trained on. That
    costs what sha256 costs, on up to eight cores at once: at 1.4 GB per second and core the 61 GB of 30B
    parameters in bfloat16 take 45 core-seconds, less than reading them from a disk.
    """
    weights = sorted(model.state_dict().items())
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
        digests = list(threads.map(_weight_digest, (weight for _, weight in weights)))
    return digest_of({name: digest for (name, _), digest in zip(weights, digests, strict=True)})


def _weight_digest(weight: Any) -> str:
    import torch

    whole = hashlib.sha256(f"{weight.dtype} {tuple(weight.shape)} ".encode())
    whole.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return whole.hexdigest()


def source_of(location: str, revision: str) -> str:
    """Say what lies at a folder or hub id beside the weights, as :class:`BaseIdentity` holds it."""
    folder = _folder_of(location, revision)
    if folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name):
        return f"commit {folder.name}"
    files = {
        path.relative_to(folder).as_posix(): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".safetensors" and not path.name.startswith(".")
    }
    return f"files {digest_of(files)}"


def _folder_of(location: str, revision: str) -> Path:
    """The folder that a base was loaded from: the one given, or a snapshot in the hub's cache."""
    if Path(location).is_dir():
        return Path(location)
    from transformers.utils import cached_file

    return Path(cached_file(location, "config.json", revision=revision)).parent
