"""Every check of every suite in ``expectations/`` trips on its own fault and names the rows at fault."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from omni_mlflow.expectations import SuiteError, check_suite, load_suite, write_suite_result
from omni_mlflow.frames import converted_frame, ledger_frame, manifest_frame, prediction_frame, window_frame
from omni_mlflow.spine.dataset_records import ConvertedWindow
from omni_mlflow.spine.leak_graph import Abstention, LeakGraph, RuleReport, edge_between
from omni_mlflow.spine.rows import read_document
from omni_mlflow.spine.types import Episode, Labels, Language, Media, Modalities, Scale, Span, Split, Window
from omni_mlflow.suite_result import SuiteResult

SUITES = Path(__file__).parents[1] / "expectations"
PARAMETERS = {"num_train": 2, "num_val": 1, "num_test": 2, "num_expected": 3}

Rows = list[dict[str, Any]]


def episode(number: int, session: str, split: Split | None, **changes: Any) -> Episode:
    fields = {
        "episode_id": f"e{number}",
        "session_id": session,
        "path": f"{session}/ep{number}",
        "split": split,
        "num_frames": 100,
        "fps": 20.0,
        "bytes_by_file": {"annotation.hdf5": 7, "stereo_left.mp4": 3},
        "digest": f"{number:064x}",
    }
    return Episode.model_validate(fields | changes)


def window(number: int, owner: Episode, start: int, stop: int, action: str | None = "pour water") -> Window:
    return Window(
        id=f"w{number}",
        episode_id=owner.episode_id,
        session_id=owner.session_id,
        split=owner.split or Split.TRAIN,
        span=Span(start=start, stop=stop),
        anchor=stop,
        scale=Scale(frames=stop - start, stride=10),
        fps=owner.fps,
        modalities=Modalities(media=Media(proxy_video=None), language=Language()),
        supervision=Labels(action=action),
        adapter_views={},
        provenance={},
    )


def converted(window: Window) -> ConvertedWindow:
    return ConvertedWindow.model_validate_json(window.model_dump_json(by_alias=True))


EPISODES = [
    episode(0, "kitchen", Split.TRAIN),
    episode(1, "kitchen", Split.TRAIN),
    episode(2, "garage", Split.TRAIN),
    episode(3, "office", Split.VAL),
    episode(4, "garden", Split.TEST),
    episode(5, "cellar", Split.TEST),
]
COMPARED = RuleReport(
    rule="motion_disjoint",
    layer="near_duplicate",
    blocks=True,
    looks_at="motion",
    sees_from="5 s",
    pairs=11,
    edges=0,
)
NO_LEAKS = LeakGraph(nodes=(), edges=(), rules=(COMPARED,))
WINDOWS = [window(number, owner, 0, 20) for number, owner in enumerate(EPISODES)]
WINDOWS.append(window(6, EPISODES[0], 10, 30))
ANSWER = '{"id": "%s", "split": "test", "outcome": "answered"}'


def sound(suite: str) -> Rows:
    """A table that the suite has nothing against."""
    consumed = {"e0": 4, "e1": 4, "e2": 4, "e3": 1}
    tables: dict[str, Callable[[], Rows]] = {
        "episode_manifest": lambda: manifest_frame(EPISODES, NO_LEAKS),
        "window_index": lambda: list(window_frame(WINDOWS, EPISODES)),
        "converted_index": lambda: list(converted_frame(map(converted, WINDOWS))),
        "training_ledger": lambda: ledger_frame(
            EPISODES, fitted_on={"e0", "e1", "e2"}, samples_consumed=consumed, windows=WINDOWS
        ),
        "predictions": lambda: list(prediction_frame(["a", "b", "c"], [ANSWER % name for name in "abc"])),
    }
    return tables[suite]()


def check(suite: str, rows: Rows) -> SuiteResult:
    return check_suite(SUITES / f"{suite}.yaml", rows, parameters=PARAMETERS)


@dataclass(frozen=True)
class Fault:
    """One planted fault: the check that must find it, in which rows, and which checks it breaks besides."""

    code: str
    plant: Callable[[Rows], Any]
    ids: tuple[Any, ...] = ()
    also: frozenset[str] = frozenset()


def put(index: int, **values: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[index].update(values)


def drop(index: int) -> Callable[[Rows], Any]:
    return lambda rows: rows.pop(index)


FAULTS = {
    "episode_manifest": [
        Fault("M01", drop(2)),
        Fault("M02", drop(3)),
        Fault("M03", drop(5)),
        Fault("M04", put(0, split=None), ("e0",)),
        Fault("M05", put(2, split="trian"), ("e2",), frozenset({"M01"})),
        Fault("M06", put(0, episode_id=None), (None,)),
        Fault("M07", put(1, episode_id="e0"), ("e0", "e0")),
        Fault("M08", put(2, session_id=None), ("e2",), frozenset({"M01", "M10"})),
        Fault("M09", put(2, session_id=""), ("e2",)),
        Fault("M10", put(5, session_id="kitchen"), ("e0", "e1", "e5")),
        Fault("M11", put(5, folder="kitchen"), ("e0", "e1", "e5")),
        Fault("M12", put(2, path=None), ("e2",)),
        Fault("M13", put(1, path="kitchen/ep0"), ("e0", "e1")),
        Fault("M14", put(2, path="/data/garage/ep2"), ("e2",)),
        Fault("M15", put(2, size_bytes=None), ("e2",)),
        Fault("M16", put(2, size_bytes=0), ("e2",)),
        Fault("M17", put(2, digest=None), ("e2",), frozenset({"M18"})),
        Fault("M18", put(5, digest=f"{0:064x}"), ("e0", "e5"), frozenset({"M19"})),
        Fault("M19", put(1, digest=f"{0:064x}"), ("e0", "e1")),
        Fault("M20", put(2, num_frames=0), ("e2",)),
        Fault("M21", put(2, fps=0.0), ("e2",)),
        Fault("M22", put(2, fps=None), ("e2",)),
        Fault("M23", put(2, missing_modalities="audio"), ("e2",)),
        Fault("M24", put(2, num_leaks=1), ("e2",)),
        Fault("M25", put(2, num_leak_warnings=1), ("e2",)),
        Fault("M26", put(2, num_signals=0), ("e2",)),
    ],
    "window_index": [
        Fault("W01", put(2, id=None), (None,)),
        Fault("W02", put(6, id="w0"), ("w0", "w0")),
        Fault("W03", put(2, m_num_frames=None), ("w2",), frozenset({"W05"})),
        Fault("W04", put(4, split="train"), ("w4",)),
        Fault("W05", put(2, stop=101, anchor=101), ("w2",)),
        Fault("W06", put(2, anchor=19), ("w2",)),
        Fault("W07", put(6, start=0, stop=20, anchor=20), ("w0", "w6")),
        Fault("W08", put(2, action=""), ("w2",)),
        Fault("W09", put(2, action=None), ("w2",)),
    ],
    "converted_index": [
        Fault("C01", put(6, id="w0"), ("w0", "w0")),
        Fault("C02", put(6, split="test"), ("w6",)),
        Fault("C03", put(6, start=0, stop=20), ("w0", "w6")),
        Fault("C04", put(2, action=""), ("w2",)),
        Fault("C05", put(2, action=None), ("w2",)),
    ],
    "training_ledger": [
        Fault("L01", put(3, split=None), ("e3",)),
        Fault("L02", put(1, episode_id="e0"), ("e0", "e0")),
        Fault("L03", put(4, in_fit=True), ("e4",)),
        Fault("L04", put(4, num_samples_consumed=1), ("e4",)),
        Fault("L05", put(3, num_train_same_session=1), ("e3",)),
        Fault("L06", put(2, num_samples_consumed=0), ("e2",)),
        Fault("L07", put(4, unseen_label_share=0.5)),
    ],
    "predictions": [
        Fault("P01", drop(2)),
        Fault("P02", put(2, num_lines=2), ("c",)),
        Fault("P02", put(2, num_lines=0, outcome=None, split=None), ("c",)),
        Fault("P03", lambda rows: rows.append({**rows[0], "id": "d", "expected": False}), ("d",)),
        Fault("P04", put(2, json_error="line 3: NaN is not JSON"), ("c",)),
        Fault("P05", put(2, outcome=None), ("c",)),
        Fault("P06", put(2, outcome="infrastructure_failed"), ("c",)),
        Fault("P07", put(2, split="train"), ("c",)),
    ],
}


@pytest.mark.parametrize("suite", FAULTS)
def test_a_sound_table_passes(suite):
    result = check(suite, sound(suite))
    assert [found.code for found in result.checks if not found.success] == []
    assert (result.status, result.failures()) == ("pass", [])


@pytest.mark.parametrize("suite", FAULTS)
def test_a_fault_is_planted_for_every_check(suite):
    codes = {expectation.code for expectation in load_suite(SUITES / f"{suite}.yaml").expectations}
    assert {fault.code for fault in FAULTS[suite]} == codes


@pytest.mark.parametrize(
    ("suite", "fault"),
    [pytest.param(suite, fault, id=fault.code) for suite, faults in FAULTS.items() for fault in faults],
)
def test_a_check_trips_on_its_own_fault_and_names_the_rows(suite, fault):
    rows = sound(suite)
    fault.plant(rows)
    result = check(suite, rows)
    broken = {found.code: found for found in result.checks if not found.success}
    assert set(broken) == {fault.code} | fault.also
    found = broken[fault.code]
    assert tuple(row[result.id_columns[0]] for row in found.unexpected) == fault.ids
    assert result.status == {"critical": "fail", "warning": "warn", "info": "pass"}[found.severity]
    assert bool(result.failures()) == (found.severity == "critical")


@pytest.mark.parametrize("path", ["", "/data/ep", "../ep", "kitchen/../../ep", "~/ep", "C:\\ep"])
def test_a_path_that_leaves_the_data_root_is_a_failure(path):
    rows = sound("episode_manifest")
    rows[2]["path"] = path
    assert [failure.rule for failure in check("episode_manifest", rows).failures()] == [
        "episode_manifest M14"
    ]


def test_a_failure_says_which_rows_break_what():
    rows = sound("episode_manifest")
    rows[5]["session_id"] = "kitchen"
    [failure] = check("episode_manifest", rows).failures()
    assert failure.subject == "e0 / kitchen, e1 / kitchen, e5 / kitchen"
    assert failure.expected == "no session in two splits"
    assert failure.found == "3 of 6 rows"


def test_the_observed_number_of_an_informative_check_is_recorded():
    rows = sound("training_ledger")
    rows[4]["unseen_label_share"] = 0.5
    result = check("training_ledger", rows)
    [share] = [found for found in result.checks if found.code == "L07"]
    assert share.observed == 0.25  # (0.5 + 0) / 2 test episodes
    assert result.status == "pass"


def test_a_suite_may_say_that_there_may_be_nothing_to_measure():
    rows = sound("training_ledger")
    for row in rows:
        row["unseen_label_share"] = None
    result = check("training_ledger", rows)
    [share] = [found for found in result.checks if found.code == "L07"]
    assert (share.success, share.seen, result.status) == (True, "no row", "pass")


def test_an_empty_table_fails_every_check_but_row_counts_of_zero():
    result = check_suite(
        SUITES / "episode_manifest.yaml", [], parameters={"num_train": 0, "num_val": 0, "num_test": 0}
    )
    passed = {found.code for found in result.checks if found.success}
    errors = {found.error for found in result.checks if not found.success}
    assert passed == {"M01", "M02", "M03"}
    assert errors == {"no row was checked"}
    assert result.status == "fail"


def test_a_condition_that_no_row_meets_is_a_failure():
    rows = sound("training_ledger")
    for row in rows:
        row["in_fit"] = False
    [failure] = check("training_ledger", rows).failures()
    assert (failure.rule, failure.found) == ("training_ledger L03", "no row was checked")


def test_a_check_that_cannot_run_is_critical_whatever_its_severity(suite_file):
    path = suite_file(
        type="expect_rows_to_satisfy",
        kwargs={"column_list": ["id", "size"], "rule": "size > nothing_of_that_name"},
        severity="info",
    )
    result = check_suite(path, [{"id": "a", "size": 1}])
    assert result.status == "fail"
    assert "nothing_of_that_name" in result.failures()[0].found


@pytest.fixture
def suite_file(tmp_path):
    """Write a suite of one valid check, with changes to the check or to the suite around it."""

    def write(around: dict[str, Any] | None = None, **changes: Any) -> Path:
        valid = {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "size", "min_value": 1},
            "description": "A01 no empty file",
        }
        suite = {
            "name": "files",
            "notes": "One row per file.",
            "columns": {"id": "name of the file", "size": "bytes"},
            "id_columns": ["id"],
            "expectations": [valid | changes],
        } | (around or {})
        path = tmp_path / "files.yaml"
        path.write_text(yaml.safe_dump(suite), encoding="utf-8")
        return path

    return write


def test_the_suite_of_these_refusals_is_itself_usable(suite_file):
    assert check_suite(suite_file(), [{"id": "a", "size": 1}]).status == "pass"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": "expect_column_values_to_be_betwen"}, "expect_column_values_to_be_betwen"),
        ({"severity": "fatal"}, "severity"),
        ({"kwargs": {"column": "size", "min_value": 1, "minimum": 1}}, "A01"),
        ({"kwargs": {}}, "A01"),
        ({"kwarg": {}}, "unknown key 'expectations.0.kwarg'"),
        ({"description": "no empty file"}, "description"),
        ({"kwargs": {"column": "sizes", "min_value": 1}}, r"columns \['sizes'\]"),
        ({"kwargs": {"column": "size", "min_value": {"$PARAMETER": "least"}}}, r"uses \['least'\]"),
        ({"around": {"expectations": []}}, "expectations"),
        ({"around": {"name": "other"}}, "must be 'files'"),
        ({"around": {"parameters": {"least": "bytes"}}}, "documents parameters"),
        ({"around": {"id_columns": ["name"]}}, r"columns \['name'\]"),
        ({"around": {"note": ""}}, "unknown key 'note'; did you mean 'notes'?"),
    ],
)
def test_a_suite_that_the_library_would_accept_in_silence_is_refused(suite_file, changes, reason):
    with pytest.raises(SuiteError, match=reason):
        load_suite(suite_file(**changes))


def test_a_check_code_used_twice_is_refused(suite_file):
    path = suite_file()
    document = yaml.safe_load(path.read_text())
    document["expectations"] *= 2
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(SuiteError, match="A01 is used twice"):
        load_suite(path)


def test_a_row_without_a_documented_column_is_refused():
    rows = sound("episode_manifest")
    del rows[3]["digest"]
    with pytest.raises(SuiteError, match=r"row 3 lacks columns \['digest'\]"):
        check("episode_manifest", rows)


def test_a_parameter_without_a_value_is_refused():
    with pytest.raises(SuiteError, match=r"parameters \['num_test'\]"):
        check_suite(
            SUITES / "episode_manifest.yaml",
            sound("episode_manifest"),
            parameters={"num_train": 3, "num_val": 1},
        )


def test_the_result_is_written_as_strict_json_and_read_back(tmp_path):
    rows = sound("training_ledger")
    rows[4]["unseen_label_share"] = float("inf")
    result = check("training_ledger", rows)
    document, page = write_suite_result(result, tmp_path)
    assert [document.name, page.name] == ["training_ledger.json", "training_ledger.html"]
    assert json.loads(document.read_text(), parse_constant=pytest.fail)["status"] == "pass"
    assert read_document(document, SuiteResult).checks == result.checks


def test_the_page_stands_alone_escapes_values_and_shows_the_worst_first(tmp_path):
    rows = sound("episode_manifest")
    rows[2]["path"] = "/<script>alert(1)</script>"
    rows[1]["missing_modalities"] = "audio"
    _, path = write_suite_result(check("episode_manifest", rows), tmp_path)
    page = path.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "http" not in page
    assert "src=" not in page
    assert page.index(">M14<") < page.index(">M23<") < page.index(">M01<")


def test_at_most_fifty_offending_rows_are_kept_and_the_rest_is_counted():
    rows = window_frame([window(number, EPISODES[0], 0, 20, action=None) for number in range(60)], EPISODES)
    result = check("window_index", rows)
    [unlabelled] = [found for found in result.checks if found.code == "W09"]
    assert (len(unlabelled.unexpected), unlabelled.unexpected_count) == (50, 60)
    [doubled] = [failure for failure in result.failures() if failure.rule == "window_index W07"]
    assert doubled.subject.endswith("w4 / e0 and 55 more")


@pytest.mark.parametrize("suite", FAULTS)
def test_a_table_that_is_checked_in_parts_gets_the_same_result(suite, monkeypatch):
    rows = sound(suite)
    for fault in reversed(FAULTS[suite]):  # rows are dropped by the first ones
        fault.plant(rows)
    at_once = check(suite, rows)
    assert len(at_once.failures()) > 1
    monkeypatch.setattr("omni_mlflow.expectations.BATCH_ROWS", 2)
    assert check(suite, rows) == at_once


def test_fifty_rows_are_kept_of_all_parts_together(monkeypatch):
    monkeypatch.setattr("omni_mlflow.expectations.BATCH_ROWS", 40)
    rows = window_frame(
        [window(number, EPISODES[0], number, number + 20, action=None) for number in range(80)], EPISODES
    )
    result = check("window_index", rows)
    [unlabelled] = [found for found in result.checks if found.code == "W09"]
    assert [row["id"] for row in unlabelled.unexpected] == [f"w{number}" for number in range(50)]
    assert (unlabelled.element_count, unlabelled.unexpected_count) == (80, 80)


def test_a_check_that_cannot_run_in_one_part_has_failed(suite_file, monkeypatch):
    path = suite_file(
        type="expect_rows_to_satisfy", kwargs={"column_list": ["id", "size"], "rule": "size + 1 > 0"}
    )
    monkeypatch.setattr("omni_mlflow.expectations.BATCH_ROWS", 1)
    result = check_suite(path, [{"id": "a", "size": 1}, {"id": "b", "size": "one"}])
    assert (result.num_rows, result.status) == (2, "fail")
    assert result.checks[0].error is not None


def test_values_that_only_share_a_hash_are_no_repeats(suite_file, monkeypatch):
    path = suite_file(type="expect_column_values_to_be_unique", kwargs={"column": "size"})
    monkeypatch.setattr("omni_mlflow.expectations.BATCH_ROWS", 1)
    assert hash((-1,)) == hash((-2,))
    result = check_suite(path, [{"id": name, "size": size} for name, size in zip("abc", (1, -1, -2))])
    assert (result.status, result.checks[0].element_count) == ("pass", 3)


def test_repeats_of_values_without_a_hash_are_found(suite_file, monkeypatch):
    path = suite_file(type="expect_column_values_to_be_unique", kwargs={"column": "size"})
    monkeypatch.setattr("omni_mlflow.expectations.BATCH_ROWS", 1)
    result = check_suite(path, [{"id": name, "size": [size]} for name, size in zip("abc", (1, 2, 2))])
    assert [row["id"] for row in result.checks[0].unexpected] == ["b", "c"]


def test_the_manifest_table_names_the_session_folder_and_missing_modalities():
    seventh = episode(7, "attic", None, missing_modalities={"imu": "absent", "audio": "mute"})
    [row] = manifest_frame([seventh], NO_LEAKS)
    assert (row["folder"], row["missing_modalities"], row["split"]) == ("attic", "audio,imu", None)
    assert row["size_bytes"] == 10
    assert manifest_frame([episode(7, "attic", None, path="ep7")], NO_LEAKS)[0]["folder"] == "ep7"


def test_the_manifest_table_counts_the_leaks_of_each_episode_and_the_signals_that_could_be_compared():
    first, second = EPISODES[0], EPISODES[4]
    edges = [
        edge_between("motion_disjoint", "near_duplicate", first, second, "the same motion"),
        edge_between("captions_disjoint", "text", first, second, "the same words").model_copy(
            update={"blocks": False}
        ),
    ]
    silent = COMPARED.model_copy(
        update={"rule": "sound_disjoint", "abstained": (Abstention(episode_id="e4", reason="it is silent"),)}
    )
    graph = LeakGraph(nodes=(), edges=tuple(edges), rules=(COMPARED, silent))
    rows = manifest_frame(EPISODES, graph)
    assert [row["num_leaks"] for row in rows] == [1, 0, 0, 0, 1, 0]
    assert [row["num_leak_warnings"] for row in rows] == [1, 0, 0, 0, 1, 0]
    assert [row["num_signals"] for row in rows] == [2, 2, 2, 2, 1, 2]


def test_a_window_of_an_episode_that_the_manifest_lacks_has_no_manifest_values():
    [row] = window_frame([window(0, episode(9, "attic", Split.VAL), 0, 20)], EPISODES)
    assert (row["m_split"], row["m_num_frames"]) == (None, None)


def test_the_ledger_counts_sessions_labels_and_strangers():
    held_out_take = episode(8, "kitchen", Split.TEST)
    windows = [*WINDOWS, window(7, held_out_take, 0, 20, "wash cup"), window(8, held_out_take, 20, 40)]
    table = ledger_frame(
        [*EPISODES, held_out_take],
        fitted_on={"e0"},
        samples_consumed={"e0": 2, "stranger": 1},
        windows=windows,
    )
    by_id = {row["episode_id"]: row for row in table}
    assert by_id["e0"]["num_train_same_session"] == 1
    assert by_id["e8"]["num_train_same_session"] == 2
    assert by_id["e8"]["unseen_label_share"] == 0.5
    assert (by_id["stranger"]["split"], by_id["stranger"]["num_samples_consumed"]) == (None, 1)
    assert by_id["e1"]["in_fit"] is False


def test_the_prediction_table_holds_what_was_asked_and_what_was_not():
    lines = [
        ANSWER % "a",
        ANSWER % "a",
        ANSWER % "stranger",
        '{"id": "b", "score": NaN}',
        "{torn",
        '{"id": "c", "id": "c", "score": 1e999}',
    ]
    table = {row["id"]: row for row in prediction_frame(["a", "b", "c", "d"], lines)}
    assert list(table) == ["a", "b", "c", "d", "stranger", "line 5"]
    assert table["a"]["num_lines"] == 2
    assert table["b"]["json_error"] == "line 4: NaN is not JSON"
    assert table["c"]["json_error"] == "line 6: 1e999 is beyond a double"
    assert (table["d"]["num_lines"], table["d"]["outcome"]) == (0, None)
    assert table["stranger"]["expected"] is False
    assert table["line 5"]["json_error"].startswith("line 5: ")


def test_validation_says_nothing_on_the_log_or_the_terminal(caplog, capfd):
    with caplog.at_level(logging.INFO):
        check("predictions", sound("predictions"))
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
