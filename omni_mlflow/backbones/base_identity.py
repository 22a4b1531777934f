"""Which weights a checkpoint was trained on: every byte of them, and what lies beside them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base_weights import BaseModelError
from omni_mlflow.backbones.libraries import versions
from omni_mlflow.backbones.noted_digests import noted
from omni_mlflow.spine.rows import digest_of, file_digest, read_document
from omni_mlflow.spine.types import Row

_WEIGHTS = {".bin", ".safetensors"}
_CONFIGURATION = ("config.json", "generation_config.json")


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


def require_base(model: Any, location: str, *, checkpoint: Path, revision: str, precision: str) -> None:
    """Refuse to put a checkpoint above other weights than it was trained on: its answers would be no answers.

    The weights are read whole when they are large and new to this machine, as :func:`noted` tells; after that
    only their sizes and times are looked at.

    Args:
        model: loaded from ``location``, without its adapter.

    Raises:
        BaseModelError: what lies there is not what ``base.json`` says.
    """
    folder = _folder_of(location, revision)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    what = ["fingerprint", type(model).__name__, precision, versions()]
    here = (noted(files, what, lambda: fingerprint(model)), source_of(location, revision))
    trained_on = read_document(checkpoint / "base.json", BaseIdentity)
    wanted = (trained_on.fingerprint, trained_on.source)
    if here != wanted:
        told = [f"weights {weights[:16]} and {source[:24]}" for weights, source in (wanted, here)]
        raise BaseModelError(
            f"{location} is not the base that {checkpoint} was trained on: that had {told[0]}, here are "
            f"{told[1]}; put that base back, or train on this one"
        )


def base_parts(location: str, revision: str, *, commit: str | None) -> dict[str, str]:
    """Digest what lies at a folder or hub id, for the identity of answers: weights, and their configuration.

    What the hub calls by a commit is fixed by it. Where nothing of it is on this machine, as may be where
    shards are merged, it is the commit trained on: :func:`require_base` lets no other answer.

    Args:
        commit: that of ``base.json``.
    """
    if not Path(location).is_dir():
        return dict.fromkeys(
            ("base_weights", "base_config"), f"{location} {commit_of(location, revision, commit)}"
        )
    folder = Path(location)
    weights = sorted(path for path in folder.iterdir() if path.suffix in _WEIGHTS)
    configuration = [folder / name for name in _CONFIGURATION] + sorted(folder.glob("*.index.json"))
    return {
        "base_weights": noted(weights, "files", lambda: _files_digest(weights)),
        "base_config": _files_digest([path for path in configuration if path.is_file()]),
    }


def commit_of(location: str, revision: str, commit: str | None) -> str | None:
    """Return the commit of a hub id that this machine would load; ``commit`` where it has none yet."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(location, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else commit


def _files_digest(files: Sequence[Path]) -> str:
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
        digests = list(threads.map(file_digest, files))
    return digest_of({path.name: digest for path, digest in zip(files, digests, strict=True)})


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
