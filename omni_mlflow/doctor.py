"""Look at the machine before a stage does: what is here, what is missing, and what to do about it."""

from __future__ import annotations

import io
import os
import platform
import shutil
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from omni_mlflow.contract import ContractError
from omni_mlflow.contract.file import load_contract
from omni_mlflow.spine.types import Row
from omni_mlflow.tracking import UnsupportedStoreError, store_uri, trouble_with
from omni_mlflow.tracking.stores import without_password
from omni_mlflow.weights_at_hand import weights_of
from omni_mlflow.workspace_trouble import trouble_with as trouble_with_workspace

PYTHON = (3, 11)
LOCK = "requirements.lock"
CODECS = "video and sound"
REBUILD = f"make setup, or: {sys.executable} -m pip install --force-reinstall -r {LOCK}"
DEMO_BYTES = 10**9
"""The demo writes 260 MB of episodes and index; the rest is for checkpoints and one more run beside it."""

_SHOWN = 6  # packages in one sentence
_PICTURES = 8
_SIDE = 64  # pixels
_FPS = 20
_SAMPLE_RATE = 44_100
_SAMPLES = _PICTURES * _SAMPLE_RATE // _FPS


class Finding(Row):
    """One thing that was looked at.

    Attributes:
        required: a stage fails without it; what is not required is only worth knowing.
        what_to_do: empty when there is nothing to do.
    """

    name: str
    ok: bool
    found: str
    what_to_do: str = ""
    required: bool = True


def examine(project: Path, workspace: Path) -> list[Finding]:
    """Make every check, whatever the others say.

    Args:
        project: the root of the project, where the lock and the contracts lie.
        workspace: where the stages would write; it may be absent.
    """
    checks: dict[str, Callable[[], Finding]] = {
        "python": check_python,
        "packages": partial(check_packages, project / LOCK),
        "torch": check_torch,
        CODECS: check_codecs,
        "workspace": partial(check_workspace, workspace),
        "disk": partial(check_disk, workspace),
        "tracking store": partial(check_store, project),
        "git": check_git,
    }
    for path in sorted((project / "contracts").glob("*.yaml")):
        checks[f"base of {path.stem}"] = partial(check_base_model, path)
    return [_finding(name, check) for name, check in checks.items()]


def healthy(findings: list[Finding]) -> bool:
    return all(finding.ok for finding in findings if finding.required)


def as_table(findings: list[Finding]) -> Table:
    table = Table("", "check", "found", "what to do", box=box.SIMPLE)
    for finding in findings:
        verdict = Text("ok", "green") if finding.ok else Text("FAIL", "bold red")
        if not finding.ok and not finding.required:
            verdict = Text("note", "yellow")
        table.add_row(verdict, finding.name, Text(finding.found), Text(finding.what_to_do))
    return table


def check_python() -> Finding:
    wanted = ".".join(map(str, PYTHON))
    return Finding(
        name="python",
        ok=sys.version_info[:2] == PYTHON,
        found=f"{platform.python_version()} at {sys.executable}",
        what_to_do=""
        if sys.version_info[:2] == PYTHON
        else f"every version is pinned for Python {wanted}: make PYTHON=/path/to/python{wanted} setup",
    )


def check_packages(lock: Path) -> Finding:
    """Compare what is installed with ``lock``; a build tag such as ``+cpu`` makes no other version."""
    pins = read_pins(lock)
    wrong = []
    for name, wanted in pins.items():
        found = _installed(name)
        if found is None:
            wrong.append(f"{name} missing")
        elif found.partition("+")[0] != wanted:
            wrong.append(f"{name} {found}, not {wanted}")
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return Finding(
        name="packages",
        ok=not wrong,
        found=", ".join(wrong[:_SHOWN]) + more if wrong else f"all {len(pins)} as {lock.name} names them",
        what_to_do=REBUILD if wrong else "",
    )


def read_pins(lock: Path) -> dict[str, str]:
    """Return the version of each ``name==version`` line."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    return dict(line.strip().split("==") for line in lines if "==" in line and not line.startswith("#"))


def check_torch() -> Finding:
    """Multiply two matrices on the device that training would use."""
    import torch

    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    ones = torch.ones(8, 8, device=device)
    right = float((ones @ ones).sum()) == 8.0**3
    if on_gpu:
        properties = torch.cuda.get_device_properties(device)
        where = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"
    else:
        where = f"no GPU, {torch.get_num_threads()} threads of {os.cpu_count()} cores"
    if not right:
        advice = f"{device} multiplies wrongly: check its driver, or hide it with CUDA_VISIBLE_DEVICES="
    elif not on_gpu and shutil.which("nvidia-smi"):
        advice = "there is an NVIDIA driver, but this torch cannot use it: install torch's build for its CUDA"
    elif not on_gpu and "OMP_NUM_THREADS" not in os.environ:
        advice = "export OMP_NUM_THREADS=1: the processes of a stage share the cores"
    else:
        advice = ""
    return Finding(name="torch", ok=right, found=f"{torch.__version__}, {where}", what_to_do=advice)


def check_codecs() -> Finding:
    """Write a few pictures and their sound as MP4 in memory, and read them back."""
    import av

    pictures, samples = _read_back(_tiny_mp4())
    version = ".".join(map(str, av.library_versions["libavcodec"]))
    told = f"PyAV {av.__version__} with libavcodec {version}"
    if pictures == _PICTURES and samples >= _SAMPLES:
        return Finding(name=CODECS, ok=True, found=f"{told}: H.264 and AAC written and read back")
    return Finding(
        name=CODECS,
        ok=False,
        found=f"{told}: of {_PICTURES} pictures {pictures} came back, of {_SAMPLES} sound samples {samples}",
        what_to_do=f"synthesize, select and index need both: {REBUILD}",
    )


def _tiny_mp4() -> io.BytesIO:
    import av
    import numpy as np

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        video: Any = container.add_stream("libx264", rate=_FPS)
        video.width = video.height = _SIDE
        video.pix_fmt = "yuv420p"
        audio: Any = container.add_stream("aac", rate=_SAMPLE_RATE, layout="mono")
        for grey in range(_PICTURES):
            image = np.full((_SIDE, _SIDE, 3), 25 * grey, dtype=np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        silence = np.zeros((1, _SAMPLES), dtype=np.float32)
        sound = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = _SAMPLE_RATE, 0, Fraction(1, _SAMPLE_RATE)
        container.mux(audio.encode(sound))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    file.seek(0)
    return file


def _read_back(file: io.BytesIO) -> tuple[int, int]:
    """Return the number of pictures and of sound samples in an MP4."""
    import av

    with av.open(file) as container:
        pictures = sum(1 for _ in container.decode(video=0))
        container.seek(0)
        return pictures, sum(frame.samples for frame in container.decode(audio=0))


def check_workspace(workspace: Path) -> Finding:
    trouble = trouble_with_workspace(workspace)
    return Finding(
        name="workspace",
        ok=trouble is None,
        found=f"stages can write to {workspace}" if trouble is None else trouble.partition("; ")[0],
        what_to_do="" if trouble is None else trouble.partition("; ")[2],
    )


def check_disk(workspace: Path) -> Finding:
    place = next(each for each in (workspace, *workspace.parents) if each.is_dir())
    free = shutil.disk_usage(place).free
    ok = free >= DEMO_BYTES
    return Finding(
        name="disk",
        ok=ok,
        found=f"{free / 1e9:.1f} GB free for {workspace}; the demo needs {DEMO_BYTES / 1e9:g} GB",
        what_to_do="" if ok else "free some space, or name another disk with --workspace",
    )


def check_store(project: Path) -> Finding:
    try:
        store = store_uri(project)
    except UnsupportedStoreError as error:
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        return Finding(name="tracking store", ok=False, found=uri, what_to_do=str(error))
    trouble = trouble_with(store)
    return Finding(
        name="tracking store",
        ok=trouble is None,
        found=trouble or without_password(store),
        what_to_do="stages run without it all the same; when it is back: omni-mlflow sync" if trouble else "",
    )


def check_git() -> Finding:
    git = shutil.which("git")
    return Finding(
        name="git",
        ok=git is not None,
        required=False,
        found=git or "not on PATH",
        what_to_do="" if git else "install git, or runs do not name the commit of the code that made them",
    )


def check_base_model(contract_file: Path) -> Finding:
    """Tell whether the weights that a contract names are here, or can be fetched."""
    name = f"base of {contract_file.stem}"
    try:
        contract = load_contract(contract_file)
    except ContractError as error:
        advice = "omni-mlflow contracts --validate lists every issue"
        return Finding(name=name, ok=False, found=str(error), what_to_do=advice)
    ok, found = weights_of(contract)
    advice = f"hf download {contract.default_model_id}, or point {contract.local_model_env} at its folder"
    if "demo" in contract.profiles:
        advice += "; --profile demo makes a small one itself"
    return Finding(name=name, ok=ok, required=False, found=found, what_to_do="" if ok else advice)


def _finding(name: str, check: Callable[[], Finding]) -> Finding:
    """Make one check. What a library raises when it does not even import is the finding."""
    try:
        return check()
    except Exception as error:
        said = f"{type(error).__name__}: {error}".partition("\n")[0]
        return Finding(name=name, ok=False, found=said, what_to_do=REBUILD)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
