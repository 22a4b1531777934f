"""Outputs are sealed by digest and opened by digest; nothing that was made is overwritten."""

import errno
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from omni_mlflow.events import JOURNAL_NAME, run_journals
from omni_mlflow.moving import CannotMoveError
from omni_mlflow.workspace import MissingStageError, Seal, StaleInputError, Workspace


@pytest.fixture
def folder(tmp_path):
    return Workspace(tmp_path).stage("select", backbone=None)


def finish(folder, text="rows\n", fingerprint="f1"):
    """Make one output and seal it, as a stage does."""
    folder.path.mkdir(parents=True, exist_ok=True)
    output = folder.path / "episodes.jsonl"
    output.write_text(text)
    seal = Seal(
        stage="select",
        backbone=None,
        fingerprint=fingerprint,
        inputs={},
        outputs=folder.files([output]),
    )
    folder.close(seal)
    return seal


def test_a_sealed_output_opens(folder):
    finish(folder)
    assert folder.open("episodes.jsonl").read_text() == "rows\n"


def test_a_stage_without_a_seal_says_which_stage_to_run(folder):
    folder.path.mkdir(parents=True)
    (folder.path / "episodes.jsonl").write_text("half")
    with pytest.raises(MissingStageError, match=r"omni-mlflow select"):
        folder.open("episodes.jsonl")


def test_an_output_edited_by_hand_is_refused(folder):
    finish(folder)
    (folder.path / "episodes.jsonl").write_text("ROWS\n")
    with pytest.raises(StaleInputError, match=r"episodes\.jsonl changed after 'select' sealed it"):
        folder.open("episodes.jsonl")


def test_an_output_that_was_only_touched_still_opens(folder):
    finish(folder)
    path = folder.path / "episodes.jsonl"
    path.touch()
    assert folder.open("episodes.jsonl") == path


def test_a_deleted_output_is_refused(folder):
    finish(folder)
    (folder.path / "episodes.jsonl").unlink()
    with pytest.raises(
        StaleInputError, match=r"is gone; restore the file, or delete .*seal\.json and run 'select' again"
    ):
        folder.verify()


def test_an_output_that_cannot_be_read_is_a_finding_like_any_other(folder, monkeypatch):
    finish(folder)

    def forbidden(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("omni_mlflow.workspace.file_digest", forbidden)
    seal, [finding] = folder.examine()
    assert seal is not None
    assert (finding.rule, finding.found) == ("sealed_file_is_unchanged", "unreadable: Permission denied")


def test_a_folder_whose_clearing_was_interrupted_has_no_seal(folder, monkeypatch):
    finish(folder)
    monkeypatch.setattr("omni_mlflow.workspace._remove", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        folder.clear()
    assert folder.seal() is None


def test_equal_work_seals_equal_bytes(tmp_path):
    first, second = (Workspace(tmp_path / name).stage("select", backbone=None) for name in "ab")
    finish(first)
    finish(second)
    assert (first.path / "seal.json").read_bytes() == (second.path / "seal.json").read_bytes()


def test_superseded_work_is_set_aside_and_taken_back(folder):
    finish(folder, "old\n", fingerprint="old")
    folder.set_aside("old")
    finish(folder, "new\n", fingerprint="new")
    folder.set_aside("new")
    assert folder.take_back("old")
    assert folder.open("episodes.jsonl").read_text() == "old\n"


@pytest.fixture
def other_disk(tmp_path):
    """A folder of another file system, where large checkpoints go."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    with TemporaryDirectory(dir=shm) as folder:
        yield Path(folder)


def seeded(root, seed, *, backbone="trivial"):
    """Do what a run with a setting does: make room for its work, and do it where it was not done before."""
    folder = Workspace(root).stage("train", backbone=backbone)
    work = f"seed {seed}"
    if os.path.lexists(folder.path) and folder.seal().fingerprint != work:
        folder.set_aside(folder.seal().fingerprint)
    taken_back = folder.take_back(work)
    if not os.path.lexists(folder.path):
        finish(folder, f"{work}\n", fingerprint=work)
        (folder.path / JOURNAL_NAME).write_text(work)
    assert folder.open("episodes.jsonl").read_text() == f"{work}\n"
    return taken_back


def linked_backbone(root, disk):
    (root / "trivial").symlink_to(disk)


def linked_stage(root, disk):
    (root / "trivial").mkdir()
    (disk / "train").mkdir()
    finish(Workspace(disk).stage("train", backbone=None), "seed 1\n", fingerprint="seed 1")
    (root / "trivial" / "train").symlink_to(disk / "train")


def linked_shelf(root, disk):
    (root / "trivial").mkdir()
    (root / "trivial" / "superseded").symlink_to(disk)


def layers_that_cannot_rename(root, disk):
    """The lower layer of a container's file system."""


@pytest.mark.parametrize("laid_out", [linked_backbone, linked_stage, linked_shelf, layers_that_cannot_rename])
def test_work_on_another_disk_comes_back_whole_whatever_is_linked(
    tmp_path, other_disk, laid_out, monkeypatch
):
    laid_out(tmp_path, other_disk)
    if laid_out is layers_that_cannot_rename:
        rename = Path.rename

        def across_layers(source, target):
            if source.name == "train" or ("superseded" in source.parts and not source.name.startswith(".")):
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            return rename(source, target)

        monkeypatch.setattr(Path, "rename", across_layers)
    assert [seeded(tmp_path, seed) for seed in (1, 2, 1, 2, 3, 1)] == [
        False,
        False,
        True,
        True,
        False,
        True,
    ]
    aside = sorted((tmp_path / "trivial" / "superseded").iterdir())
    assert [(each / "episodes.jsonl").read_text() for each in aside] == ["seed 2\n", "seed 3\n"]
    journals = [path for path in run_journals(tmp_path) if path.read_text().startswith("seed")]
    assert len(journals) == (2 if laid_out is linked_stage else 3)
    if laid_out is linked_stage:  # where its owner put it, and whole
        assert (tmp_path / "trivial" / "train").resolve() == other_disk / "train"
        assert (other_disk / "train" / "episodes.jsonl").read_text() == "seed 1\n"


def test_a_link_that_was_brought_back_by_hand_costs_nothing(tmp_path, other_disk):
    """A copy of the link lies on the shelf, and both lead to the one folder that there is."""
    linked_stage(tmp_path, other_disk)
    seeded(tmp_path, 2)
    Workspace(tmp_path).stage("train", backbone="trivial").set_aside("seed 2")
    (tmp_path / "trivial" / "train").symlink_to(other_disk / "train")
    seeded(tmp_path, 2)
    assert seeded(tmp_path, 1)
    assert (other_disk / "train" / "episodes.jsonl").read_text() == "seed 1\n"


def test_a_link_to_what_lies_on_the_shelf_takes_it_from_nobody(tmp_path):
    seeded(tmp_path, 1)
    seeded(tmp_path, 2)
    train, shelf = tmp_path / "trivial/train", tmp_path / "trivial/superseded"
    train.rename(tmp_path / "elsewhere")
    train.symlink_to(shelf / "train-seed 1")
    assert not seeded(tmp_path, 3)
    assert seeded(tmp_path, 1)


def test_a_link_to_a_disk_that_is_not_there_is_told(tmp_path):
    (tmp_path / "trivial").symlink_to(tmp_path / "unmounted")
    folder = Workspace(tmp_path).stage("train", backbone="trivial")
    with pytest.raises(StaleInputError, match="unmounted, which is not there; mount that disk, or remove"):
        folder.open("episodes.jsonl")


def test_a_disk_too_full_for_a_copy_keeps_what_there_is_and_tells_one_file(tmp_path, other_disk, monkeypatch):
    def full(source, making, **_):
        making.mkdir()
        raise shutil.Error([(str(source / "a.bin"), "there", "[Errno 28] No space left on device")])

    monkeypatch.setattr(shutil, "copytree", full)
    seeded(tmp_path, 1)
    linked = tmp_path / "trivial/superseded"
    linked.symlink_to(other_disk)
    told = r"train cannot be copied to .*: there: \[Errno 28\] No space left on device"
    with pytest.raises(CannotMoveError, match=told):
        seeded(tmp_path, 2)
    assert list(other_disk.iterdir()) == []
    assert not seeded(tmp_path, 1)


def test_half_a_folder_that_a_dying_process_left_does_not_replace_the_whole_one(tmp_path):
    folder = Workspace(tmp_path).stage("train", backbone="trivial")
    finish(folder, "seed 1\n", fingerprint="seed 1")
    folder.set_aside("seed 1")
    folder.path.mkdir()
    (folder.path / JOURNAL_NAME).write_text("half")
    folder.set_aside("seed 1")
    assert folder.take_back("seed 1")
    assert folder.open("episodes.jsonl").read_text() == "seed 1\n"


def test_a_folder_stands_for_all_files_below_it(folder):
    media = folder.path / "media"
    (media / "one").mkdir(parents=True)
    (media / "one" / "a.wav").write_bytes(b"a")
    (media / "b.wav").write_bytes(b"b")
    assert list(folder.files([media])) == ["media/b.wav", "media/one/a.wav"]


def test_what_was_begun_comes_back_too(folder):
    folder.path.mkdir(parents=True)
    (folder.path / "progress.jsonl").write_text("half")
    folder.set_aside("begun")
    assert folder.take_back("begun")
    assert (folder.path / "progress.jsonl").read_text() == "half"
    assert folder.seal() is None


def test_files_under_a_temporary_name_are_nobodys(folder):
    (folder.path / "resume" / ".step-00000100.tmp").mkdir(parents=True)
    (folder.path / ".metrics.json.77.tmp").write_text("{")
    (folder.path / "kept.json").write_text("{}")
    folder.clear_half_written()
    left = sorted(path.name for path in folder.path.rglob("*"))
    assert left == ["kept.json", "resume"]


def test_an_output_edited_with_its_size_and_time_kept_is_refused(folder):
    finish(folder)
    path = folder.path / "episodes.jsonl"
    before = path.stat()
    path.write_text("ROWS\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(StaleInputError, match="changed after"):
        folder.verify()


@pytest.mark.parametrize("noted", [None, "", "\x00\x01", "[1, 2]", '{"episodes.jsonl": [1]}'])
def test_what_was_noted_about_the_files_may_be_lost_and_is_noted_again(folder, noted):
    finish(folder)
    stats = folder.path / ".stat.json"
    before = stats.read_text()
    stats.unlink() if noted is None else stats.write_text(noted)
    assert folder.verify() == folder.seal()
    assert stats.read_text() == before


@pytest.mark.parametrize("seal", [b"", b"\xff\xfe", b"[]", b'{"stage": '])
def test_a_damaged_seal_says_what_to_do(folder, seal):
    finish(folder)
    (folder.path / "seal.json").write_bytes(seal)
    with pytest.raises(StaleInputError, match=r"(?s)seal\.json.* delete it and run 'select' again"):
        folder.verify()
