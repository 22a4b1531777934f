"""A package proves itself: whatever was changed in it afterwards breaks a rule that names the file."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from omni_mlflow.contract import PackageFile
from omni_mlflow.publication.package import build_package
from omni_mlflow.publication.verify import verify_package
from omni_mlflow.spine.types import broken

FILES = {
    "evaluate/metrics.json": '{"macro_f1": 0.25}\n',
    "evaluate/predictions.csv": "id,label\ne0:20,cup\n",
    "evaluate/RUN_REPORT.md": "# Run report\n",
}


@pytest.fixture
def package(tmp_path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return build_package(
        {name: tmp_path / name for name in FILES},
        allowed=[PackageFile(category="evidence", pattern="evaluate/*", max_bytes=1000)],
        forbidden=["raw_video", "archives"],
        out=tmp_path / "package",
        private_roots=[],
        facts={"backbone": "qwen3_omni_lora"},
    ).folder


def subjects(folder: Path) -> set[str]:
    return {check.subject for check in broken(verify_package(folder))}


def test_an_untouched_package_keeps_every_rule_and_lists_them(package):
    checks = verify_package(package)
    assert broken(checks) == []
    assert {check.subject for check in checks if check.rule == "digest"} == {*FILES, "package.json"}


def test_any_changed_byte_is_noticed_and_its_file_named(package):
    files = sorted(path for path in package.rglob("*") if path.is_file())
    rng = random.Random(0)
    for _ in range(300):
        path = rng.choice(files)
        before = path.read_bytes()
        position = rng.randrange(len(before))
        after = before[position] ^ (1 << rng.randrange(8))
        path.write_bytes(before[:position] + bytes([after]) + before[position + 1 :])
        name = path.relative_to(package).as_posix()
        assert name in subjects(package), (name, position)
        path.write_bytes(before)
    assert subjects(package) == set()


@pytest.mark.parametrize("name", [*FILES, "package.json", "manifest-sha256.txt"])
def test_a_shortened_lengthened_or_missing_file_is_noticed(package, name):
    path = package / name
    before = path.read_bytes()
    for after in (before[:-1], before + b"\n"):
        path.write_bytes(after)
        assert name in subjects(package)
    path.unlink()
    assert broken(verify_package(package))


def test_an_additional_file_is_noticed(package):
    (package / "evaluate" / "clip.mp4").write_bytes(b"")
    assert subjects(package) == {"evaluate/clip.mp4", "manifest-sha256.txt"}


def test_a_link_in_place_of_a_file_is_noticed(package, tmp_path):
    outside = shutil.copy(package / "evaluate" / "metrics.json", tmp_path / "outside.json")
    (package / "evaluate" / "metrics.json").unlink()
    (package / "evaluate" / "metrics.json").symlink_to(outside)
    assert "evaluate/metrics.json" in subjects(package)


def test_a_private_folder_of_the_verifying_machine_is_noticed(package):
    assert broken(verify_package(package, private_roots=[Path("/evaluate")])) == []
    (package / "evaluate" / "RUN_REPORT.md").write_text("# Run report of /lab/data\n")
    rules = {check.rule for check in broken(verify_package(package, private_roots=[Path("/lab/data")]))}
    assert "private_path" in rules


def test_a_folder_that_is_no_package_says_so(tmp_path):
    [failure] = verify_package(tmp_path)
    assert failure.rule == "package_is_readable"
    assert "package.json" in failure.found
