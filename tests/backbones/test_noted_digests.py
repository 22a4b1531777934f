"""What was computed from large files is noted until one of them changes; small ones are read each time."""

from __future__ import annotations

import os

import pytest

from omni_mlflow.backbones.noted_digests import LARGE, noted


@pytest.fixture
def large(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "model.safetensors"
    path.touch()
    os.truncate(path, LARGE)
    return path


def times_read(files, count, change=lambda: None, what="digest"):
    """How often the files are read when they are asked for ``count`` times, and changed before the last."""
    read = []
    for number in range(count):
        if number == count - 1:
            change()
        assert noted(files, what, lambda: read.append(0) or "the digest") == "the digest"
    return len(read)


def test_large_files_are_read_once(large):
    assert times_read([large], 3) == 1
    assert times_read([large], 2) == 0
    assert times_read([large], 2, what="another digest") == 1


def test_another_byte_is_seen_though_somebody_put_the_time_back(large):
    def change():
        before = large.stat()
        with large.open("r+b") as out:
            out.write(b"x")
        os.utime(large, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert times_read([large], 2, change) == 2


def test_a_file_in_the_place_of_another_is_seen(large, tmp_path):
    other = tmp_path / "other.safetensors"
    other.touch()
    os.truncate(other, LARGE)
    assert times_read([large], 2, lambda: other.rename(large)) == 2


def test_small_files_leave_no_note(large, tmp_path):
    os.truncate(large, LARGE - 1)
    assert times_read([large], 3) == 3
    assert not (tmp_path / "cache").exists()
