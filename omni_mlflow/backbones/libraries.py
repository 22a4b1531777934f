"""Makes the model libraries importable and quiet, before any backbone imports them; and picks the device."""

from __future__ import annotations

import importlib.util
import os
import warnings
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

SHAPING_ANSWERS = (
    "accelerate",
    "av",
    "numpy",
    "peft",
    "pillow",
    "tokenizers",
    "torch",
    "torchvision",
    "transformers",
)
"""Distributions between the files of a sample and an answer: another release may say another thing."""

_DECLARED: list[Any] = []
"""Operator libraries declared here; PyTorch forgets their operators when the object is collected."""


@cache
def prepare_libraries() -> None:
    """Declare torchvision's operators where its binary does not fit this torch, and silence transformers.

    torchvision from PyPI beside a CPU-only torch loads no operators, and importing it fails at the
    first reference to one. The processors of transformers import torchvision but call none of them.
    """
    import torch

    if not _operators_load():
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)

    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"(transformers|peft)\.")


def versions() -> str:
    """Name the releases of all libraries that shape an answer, without importing one."""
    return " ".join(f"{name} {version(name)}" for name in SHAPING_ANSWERS)


def device() -> Any:
    """Return the accelerator if there is one, of several that of this launched process; else the CPU.

    There torch is limited to one thread: more that compete for the same cores wait for each other most of
    the time.
    """
    prepare_libraries()
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.set_num_threads(1)
    return torch.device("cpu")


def _operators_load() -> bool:
    import torch

    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        return False
    binaries = sorted(Path(package.origin).parent.glob("_C*.so"))
    try:
        for binary in binaries:
            torch.ops.load_library(str(binary))
    except OSError:
        return False
    return bool(binaries)
