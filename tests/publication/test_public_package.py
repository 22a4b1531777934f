"""Only clean files that the contract allows leave, all of them or none."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from forbidden_bytes import FORBIDDEN
from test_disclosures import ROOT, TELLING

from omni_mlflow.contract import ContractError, PackageFile
from omni_mlflow.contract.file import load_contract
from omni_mlflow.publication.package import PackageExistsError, PackageReport, build_package
from omni_mlflow.publication.verify import PackageRecord, verify_package
from omni_mlflow.spine.rows import read_document
from omni_mlflow.spine.types import broken

ALLOWED = [
    PackageFile(category="metrics", pattern="evaluate/metrics.json", max_bytes=100_000),
    PackageFile(category="predictions", pattern="evaluate/predictions.*", max_bytes=100_000),
    PackageFile(category="run_reports", pattern="evaluate/RUN_REPORT.md", max_bytes=100_000),
    PackageFile(category="skipped", pattern="*/skipped_*.jsonl", max_bytes=1000),
    PackageFile(category="notes", pattern="notes/*", max_bytes=100_000),
]
CATEGORIES = [
    "raw_video",
    "raw_audio",
    "annotation_hdf5",
    "rerun_rrd",
    "model_weights",
    "checkpoints",
    "archives",
]
FACTS = {"backbone": "qwen3_omni_lora", "evidence": "synthetic", "split_digest": "0f" * 32}


@pytest.fixture
def run(tmp_path):
    """A clean run: files by their name in a package."""
    texts = {
        "evaluate/metrics.json": '{"macro_f1": 0.25, "macro_f1_unseen": null}\n',
        "evaluate/predictions.jsonl": '{"id": "e0:20", "raw": "{\\"action\\": \\"Wasser holen\\"}"}\n',
        "evaluate/predictions.csv": 'id,label\ne0:20,"cup, blue"\n',
        "evaluate/RUN_REPORT.md": "# Run report\n\n16 episodes, 448 anchors. 水\n",
        "select/skipped_episodes.jsonl": '{"subject": "s1/ep3", "stage": "select", "reason": "no audio"}\n',
    }
    candidates = {}
    for name, text in texts.items():
        candidates[name] = tmp_path / "run" / name
        candidates[name].parent.mkdir(parents=True, exist_ok=True)
        candidates[name].write_text(text, encoding="utf-8")
    return candidates


@pytest.fixture
def build(tmp_path) -> Callable[[dict[str, Path]], PackageReport]:
    def build(candidates: dict[str, Path]) -> PackageReport:
        return build_package(
            candidates,
            allowed=ALLOWED,
            forbidden=CATEGORIES,
            out=tmp_path / "out" / "package",
            private_roots=[tmp_path, ROOT],
            facts=FACTS,
        )

    return build


def assert_nothing_left(report: PackageReport, rule: str, subject: str) -> None:
    assert (rule, subject) in {(finding.rule, finding.subject) for finding in report.findings}
    assert report.num_published == 0
    [refused] = [decision for decision in report.decisions if decision.name == subject]
    assert refused.outcome == "refused"
    parent = report.folder.parent
    assert [*parent.iterdir()] == [] if parent.exists() else True


def test_a_clean_run_leaves_with_every_file_that_is_allowed(run, build):
    report = build(run)
    assert report.findings == ()
    assert {each.name: each.outcome for each in report.decisions} == dict.fromkeys(run, "published")
    for name, source in run.items():
        assert (report.folder / name).read_bytes() == source.read_bytes()
    assert broken(verify_package(report.folder)) == []


def test_real_predictions_and_metrics_that_were_published_may_leave(reference, tmp_path):
    names = ["predictions.jsonl", "metrics.json"]
    report = build_package(
        {f"evaluate/{name}": reference / "qwen_v2" / name for name in names},
        allowed=[PackageFile(category="evidence", pattern="evaluate/*", max_bytes=1_000_000)],
        forbidden=CATEGORIES,
        out=tmp_path / "package",
        private_roots=[reference, tmp_path],
        facts=FACTS,
    )
    assert (report.findings, report.num_published) == ((), 2)


def test_a_file_that_no_rule_allows_is_withheld_and_recorded(run, build, tmp_path):
    run["train/checkpoint/adapter_model.safetensors"] = tmp_path / "never" / "opened"
    run["deep/evaluate/metrics.json"] = run["evaluate/metrics.json"]
    run["metrics.json"] = run["evaluate/metrics.json"]
    report = build(run)
    assert (report.num_published, report.num_withheld) == (5, 3)
    record = read_document(report.folder / "package.json", PackageRecord)
    [withheld] = [each for each in record.decisions if each.name.endswith(".safetensors")]
    assert (withheld.outcome, withheld.reason) == ("withheld", "no rule of the contract allows this name")
    assert not (report.folder / "train").exists()


def test_the_manifest_lists_the_digest_of_every_file_in_bagit_form(run, build):
    folder = build(run).folder
    lines = (folder / "manifest-sha256.txt").read_text().splitlines()
    assert [line.partition("  ")[2] for line in lines] == sorted([*run, "package.json"])
    for line in lines:
        digest, _, name = line.partition("  ")
        assert digest == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_the_same_files_make_the_same_bytes_wherever_they_lie(run, build, tmp_path):
    first = build(run).folder
    kept = first.rename(tmp_path / "kept")
    second = build(dict(reversed(run.items()))).folder
    for path in sorted(kept.rglob("*.*")):
        assert (second / path.relative_to(kept)).read_bytes() == path.read_bytes()
    text = (second / "package.json").read_text() + (second / "manifest-sha256.txt").read_text()
    assert str(tmp_path) not in text
    assert socket.gethostname() not in text
    assert json.loads((second / "package.json").read_text())["facts"] == FACTS


@pytest.mark.parametrize("kind", FORBIDDEN)
@pytest.mark.parametrize("name", ["evaluate/metrics.json", "evaluate/predictions.npz"])
def test_a_forbidden_file_under_an_allowed_name_refuses_the_package(run, build, tmp_path, kind, name):
    category, make = FORBIDDEN[kind]
    run[name] = tmp_path / "disguised"
    run[name].write_bytes(make())
    rule = category if category in CATEGORIES else "text_of_its_kind"
    assert_nothing_left(build(run), rule, name)


@pytest.mark.parametrize("hidden", TELLING)
def test_a_text_that_gives_something_away_refuses_the_package(run, build, tmp_path, hidden):
    rule, name, text = TELLING[hidden]
    run[f"notes/{name}"] = tmp_path / name
    run[f"notes/{name}"].write_text(text, encoding="utf-8")
    assert_nothing_left(build(run), rule, f"notes/{name}")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("../metrics.json", "name"),
        ("evaluate/../../metrics.json", "name"),
        ("/evaluate/metrics.json", "name"),
        ("evaluate//metrics.json", "name"),
        ("./evaluate/metrics.json", "name"),
        ("evaluate\\metrics.json", "name"),
        ("C:/metrics.json", "name"),
        ("notes/a\u202etxt.md", "name"),
        ("notes/a\n.md", "name"),
        ("", "name"),
    ],
)
def test_a_name_that_could_land_elsewhere_refuses_the_package(run, build, name, rule):
    run[name] = run["evaluate/metrics.json"]
    assert_nothing_left(build(run), rule, name)


def test_two_names_that_are_one_file_on_other_systems_refuse_the_package(run, build):
    run["notes/a.md"] = run["notes/A.md"] = run["evaluate/RUN_REPORT.md"]
    assert_nothing_left(build(run), "name", "notes/a.md")


def test_a_link_refuses_the_package_even_to_a_clean_file(run, build, tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(run["evaluate/metrics.json"])
    run["evaluate/metrics.json"] = link
    assert_nothing_left(build(run), "regular_file", "evaluate/metrics.json")


def test_a_folder_refuses_the_package(run, build, tmp_path):
    run["evaluate/metrics.json"] = tmp_path
    assert_nothing_left(build(run), "regular_file", "evaluate/metrics.json")


def test_a_pipe_refuses_the_package_and_nobody_waits_for_it(run, build, tmp_path):
    run["evaluate/metrics.json"] = tmp_path / "pipe"
    os.mkfifo(run["evaluate/metrics.json"])
    assert_nothing_left(build(run), "regular_file", "evaluate/metrics.json")


def test_an_allowed_file_that_cannot_be_read_refuses_the_package(run, build, tmp_path):
    run["evaluate/metrics.json"] = tmp_path / "missing.json"
    assert_nothing_left(build(run), "readable", "evaluate/metrics.json")


def test_a_file_beyond_its_size_refuses_the_package(run, build):
    run["select/skipped_episodes.jsonl"].write_text('{"reason": "no audio"}\n' * 50)  # 1150 bytes
    report = build(run)
    assert_nothing_left(report, "size", "select/skipped_episodes.jsonl")
    assert report.findings[0].found == "1150 bytes"


def test_a_file_of_exactly_its_size_may_leave(run, build):
    run["select/skipped_episodes.jsonl"].write_text('"' + "a" * 997 + '"\n')  # 1000 bytes
    assert build(run).findings == ()


def test_all_findings_are_listed_at_once_and_clean_files_say_why_they_stay(run, build):
    run["evaluate/metrics.json"].write_bytes(FORBIDDEN["mp4"][1]())
    run["evaluate/RUN_REPORT.md"].write_text("See /home/ada, ask ada@engine.org\n")
    report = build(run)
    assert [(finding.subject, finding.rule) for finding in report.findings] == [
        ("evaluate/RUN_REPORT.md", "private_path"),
        ("evaluate/RUN_REPORT.md", "email"),
        ("evaluate/metrics.json", "raw_video"),
        ("evaluate/metrics.json", "text_of_its_kind"),
    ]
    [clean] = [decision for decision in report.decisions if decision.name.endswith(".csv")]
    assert (clean.outcome, clean.reason) == ("withheld", "another file refused the package")


def test_a_package_is_never_mixed_into_an_older_one(run, build):
    folder = build(run).folder
    before = (folder / "package.json").read_bytes()
    with pytest.raises(PackageExistsError, match="move it away"):
        build(run)
    assert (folder / "package.json").read_bytes() == before


def test_what_a_killed_process_left_does_not_reach_the_next_package(run, build, tmp_path):
    left = tmp_path / "out" / ".package.building"
    left.mkdir(parents=True)
    (left / "stale.mp4").write_bytes(b"")
    report = build(run)
    assert report.findings == ()
    assert not (report.folder / "stale.mp4").exists()
    assert [path.name for path in report.folder.parent.iterdir()] == ["package"]


def test_a_category_without_a_detector_is_an_error_with_the_nearest_name(run, tmp_path):
    with pytest.raises(ContractError, match="did you mean 'raw_video'"):
        build_package(
            run,
            allowed=ALLOWED,
            forbidden=["raw_vidio"],
            out=tmp_path / "package",
            private_roots=[],
            facts=FACTS,
        )
    assert not (tmp_path / "package").exists()


def test_the_contracts_allow_nothing_but_kinds_of_text(project_root):
    for path in sorted((project_root / "contracts").glob("*.yaml")):
        for rule in load_contract(path).artifact_contract.public_package_allowed:
            assert Path(rule.pattern).suffix in {".json", ".jsonl", ".csv", ".md", ".txt"}, rule


def test_held_out_answers_never_leave_whatever_pattern_reaches_them(run, tmp_path):
    answers = {"export/sealed/test_targets.jsonl": run["select/skipped_episodes.jsonl"]}
    report = build_package(
        answers,
        allowed=[PackageFile(category="notes", pattern="export/*/*", max_bytes=1000)],
        forbidden=CATEGORIES,
        out=tmp_path / "package",
        private_roots=[],
        facts=FACTS,
    )
    [finding] = report.findings
    assert (finding.rule, finding.subject) == ("held_out_answers", "export/sealed/test_targets.jsonl")
    assert not (tmp_path / "package").exists()
    with pytest.raises(ValueError, match="they never leave"):
        PackageFile(category="notes", pattern="export/sealed/*", max_bytes=1)
