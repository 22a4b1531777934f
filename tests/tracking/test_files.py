"""A growing file is shown while it grows, and its traffic stays in proportion to what it ends as."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_mlflow.events import RunOutcome
from omni_mlflow.tracking.connection import connect
from omni_mlflow.tracking.files import is_worth_sending
from omni_mlflow.tracking.follow import Follower
from omni_mlflow.tracking.projection import Projection

PARTIAL = "predictions.partial.jsonl"


def sizes_sent(sizes):
    sent: list[int] = []
    for size in sizes:
        if is_worth_sending(size, sent=sent[-1] if sent else None):
            sent.append(size)
    return sent


@given(st.lists(st.one_of(st.just(0), st.integers(1, 50), st.integers(1, 10**8)), min_size=1, max_size=200))
def test_however_a_file_grows_less_than_five_times_its_size_is_sent_and_most_of_it_is_shown(added):
    total, sent = 0, None
    for size in itertools.accumulate(added):
        if is_worth_sending(size, sent=sent):
            total, sent = total + size, size
        assert total < 5 * size or size == 0
        assert sent is not None
        assert 5 * sent > 4 * size or sent == size


def test_the_first_rows_are_shown_one_by_one_and_later_ones_together():
    assert sizes_sent(range(1, 17)) == [1, 2, 3, 4, 5, 7, 9, 12, 15]


def test_a_file_that_was_cut_is_shown_as_it_is_and_one_that_stands_still_is_not_sent_again():
    assert sizes_sent([1000, 1000, 900, 900, 0, 0, 10]) == [1000, 900, 0, 10]


@pytest.fixture
def opened(workspace, store, monkeypatch):
    """A store to which growing files are uploaded without a pause in between."""
    monkeypatch.setattr("omni_mlflow.tracking.files.LIVE_EVERY_S", 0.0)
    return connect(store, workspace=workspace)


@pytest.fixture
def projection(opened, workspace):
    return Projection(opened, Follower(workspace, store=opened.address))


@pytest.fixture
def uploads(opened, monkeypatch):
    """The size of each file that was uploaded so far."""
    sizes: list[int] = []
    upload = opened.client.log_artifact

    def counted(run_id, path, folder=None):
        sizes.append(Path(path).stat().st_size)
        upload(run_id, path, folder)

    monkeypatch.setattr(opened.client, "log_artifact", counted)
    return sizes


def test_a_file_of_many_rows_is_uploaded_a_few_times_and_whole_at_the_end(
    begin, projection, uploads, tracker, store
):
    stage = begin("evaluate")
    partial = stage.folder / PARTIAL
    stage.live_artifact(partial)
    for _ in range(30):
        with partial.open("a") as rows:
            rows.write("x" * 99 + "\n")
        projection.run_pass()
    assert uploads == [100, 200, 300, 400, 500, 700, 900, 1200, 1500, 1900, 2400, 3000]
    with partial.open("a") as rows:
        rows.write("the last answer\n")
    projection.run_pass()
    assert uploads[-1] == 3000
    stage.ended("FINISHED", RunOutcome.OK)
    projection.run_pass()
    assert uploads[-1] == partial.stat().st_size == 3016
    undisturbed = tracker.new_store("undisturbed")
    tracker.forget()
    tracker.project(undisturbed)
    assert tracker.dump(store) == tracker.dump(undisturbed)


def test_no_row_of_any_run_waits_for_the_upload_of_a_growing_file(
    begin, opened, projection, tracker, monkeypatch
):
    first, second = begin("evaluate"), begin("train")
    (first.folder / PARTIAL).write_text("{}\n")
    first.live_artifact(first.folder / PARTIAL)
    second.metrics({"train/loss": 2.0}, step=1)

    def break_off(*_):
        raise ConnectionError("the line went dead in the middle of an upload")

    monkeypatch.setattr(opened.client, "log_artifact", break_off)
    with pytest.raises(ConnectionError):
        projection.run_pass()
    assert tracker.dump(opened.address)["runs"][second.key]["metrics"] != {}
