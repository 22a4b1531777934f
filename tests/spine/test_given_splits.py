"""A split that somebody hands over is verified, and every broken rule is listed."""

from __future__ import annotations

import json

import pytest

from omni_mlflow.spine.given import GivenFile, named_episodes
from omni_mlflow.spine.given_splits import hold_against
from omni_mlflow.spine.rows import BadRowError, NewerSchemaError
from omni_mlflow.spine.types import Episode, Split

SIZES = {Split.TRAIN: 2, Split.VAL: 0, Split.TEST: 1}


def selected(*paths: str) -> list[Episode]:
    return [
        Episode(
            episode_id=path.replace("/", "__"),
            session_id=path.partition("/")[0],
            path=path,
            num_frames=60,
            fps=20.0,
            bytes_by_file={},
        )
        for path in paths
    ]


def given(text: str, name: str = "split.csv"):
    return named_episodes(GivenFile(name, text))


GOOD = "episode_path,split\na/ep1,train\nb/ep1,train\nc/ep1,test\n"


def test_a_split_that_fits_is_taken_over():
    found = hold_against(given(GOOD), selected("a/ep1", "b/ep1", "c/ep1"), rejected={}, sizes=SIZES)
    assert found.split_of == {"a__ep1": "train", "b__ep1": "train", "c__ep1": "test"}
    assert (found.skips, found.checks, found.taken) == ([], [], 3)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("split.csv", "episode_id,split\na__ep1,train\nb__ep1,test\n"),
        ("selection.csv", "split,episode_path,episode_id\ntrain,a/ep1,ep1\ntest,b/ep1,ep1\n"),
        ("split.jsonl", '{"path": "a/ep1", "split": "train"}\n{"path": "b/ep1", "split": "test"}\n'),
        (
            "split_manifest.json",
            json.dumps(
                {"episodes": [{"path": f"{s}/ep1", "split": p} for s, p in (("a", "train"), ("b", "test"))]}
            ),
        ),
    ],
)
def test_each_form_of_a_split_names_the_same_episodes(name, text):
    assert [(each.episode_id, each.values["split"]) for each in given(text, name)] == [
        ("a__ep1", "train"),
        ("b__ep1", "test"),
    ]


def test_what_is_on_one_side_only_is_skipped_with_its_reason():
    here = selected("a/ep1", "b/ep1", "c/ep1", "d/ep4")
    rows = given(GOOD + "e/ep1,train\n")
    found = hold_against(rows, here, rejected={"e__ep1": "no caption"}, sizes=SIZES)
    assert found.checks == []
    assert {skip.subject: skip.reason for skip in found.skips} == {
        "d__ep4": "the split manifest does not name it",
        "e__ep1": "the split manifest names it, but: no caption",
    }
    assert found.taken == len(found.split_of) + len(found.skips) == 5


def test_every_broken_rule_is_listed_at_once():
    text = "episode_path,split\na/ep1,train\na/ep2,test\nb/ep1,training\nc/ep1,test\nc/ep1,test\nx/ep1,val\n"
    found = hold_against(given(text), selected("a/ep1", "a/ep2", "b/ep1", "c/ep1"), rejected={}, sizes=SIZES)
    assert {(check.rule, check.subject, check.found) for check in found.checks} == {
        ("splits_are_known", "split.csv, row 3: b__ep1", "training"),
        ("episodes_come_once", "split.csv, row 5: c__ep1", "also split.csv, row 4"),
        ("episodes_are_known", "split.csv, row 6: x__ep1", "not found"),
        ("sessions_have_one_split", "session a", "test: ep2; train: ep1"),
        ("sizes_are_as_asked", "split train", "1"),
        ("sizes_are_as_asked", "split test", "2"),
    }


def test_sizes_say_how_to_take_what_is_here():
    found = hold_against(
        given(GOOD), selected("a/ep1", "c/ep1"), rejected={"b__ep1": "cut short"}, sizes=SIZES
    )
    (check,) = found.checks
    assert (check.subject, check.found) == ("split train", "1")
    assert check.expected == "2 sessions; to take what is here, give --sizes 1/0/1"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "split\ntrain\n", "row 1: it names no episode"),
        ("a.csv", "episode_id,split\nep1,train\n", "row 1: it names no episode"),
        ("a.csv", "episode_path,split\n", "a.csv: it names no episode"),
        ("a.json", "{}", "cannot be read as .json"),
        ("a.json", '{"episodes": [1]}', "row 1: not an object"),
        ("a.json", '{"episodes": ' + "[" * 20_000 + "]" * 20_000 + "}", "nested too deeply"),
        ("a.jsonl", "{broken\n", "cannot be read as .jsonl"),
    ],
)
def test_a_file_that_names_no_episode_is_refused(name, text, words):
    with pytest.raises(BadRowError, match=words):
        given(text, name)


def test_a_split_of_a_newer_schema_is_refused():
    with pytest.raises(NewerSchemaError, match="schema_version 99"):
        given(
            '{"schema_version": 99, "episodes": [{"path": "a/ep1", "split": "train"}]}', "split_manifest.json"
        )
