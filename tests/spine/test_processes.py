"""Work in other processes stops with the process that asked for it."""

import time
from functools import partial
from pathlib import Path

import pytest

from omni_mlflow.spine.processes import each_in_a_process


def note(number: int, *, folder: Path) -> int:
    (folder / str(number)).touch()
    time.sleep(0.05)
    return number


def test_every_task_comes_back_with_its_result(tmp_path):
    done = dict(each_in_a_process(partial(note, folder=tmp_path), range(4), workers=2))
    assert done == {0: 0, 1: 1, 2: 2, 3: 3}


def test_an_interruption_leaves_what_was_not_begun_undone(tmp_path):
    def interrupted():
        for number, _ in each_in_a_process(partial(note, folder=tmp_path), range(60), workers=2):
            if number == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    begun = len(list(tmp_path.iterdir()))
    assert begun < 30
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) == begun, "no worker goes on after the interruption"
