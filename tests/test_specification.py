"""``docs/specification.md`` quotes the whole specification, and everything it names is there."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path

import click
import pytest
import yaml

from omni_mlflow.__main__ import build
from omni_mlflow.backbone_lookup import load_backbone
from omni_mlflow.contract.file import load_contract
from omni_mlflow.stages import STAGES

PROJECT = Path(__file__).parent.parent
SPECIFICATION = PROJECT.parent / "shared" / "OMNI_MODEL_EXTENSION_CONTRACT.md"
FIRST_SECTION = "## Omni Model Extension Contract"
HEADER = ("Specification", "Made true by", "Test")

DEFINITION = "by definition"
NOT_YET = "not yet: "
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
COMMANDS = ("mlflow ", "omni-mlflow ", "make ")


@dataclass(frozen=True)
class Traced:
    """One row of the document: a sentence, what makes it true, and what shows that it is."""

    section: str
    sentence: str
    made_by: str
    shown_by: tuple[str, ...]

    @property
    def missing(self) -> str:
        """What the row says is not there yet."""
        return " ".join(each for each in self.shown_by if each.startswith(NOT_YET))


@cache
def document() -> tuple[Traced, ...]:
    text = (PROJECT / "docs" / "specification.md").read_text(encoding="utf-8")
    rows, section = [], ""
    for line in text[text.index(FIRST_SECTION) :].splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("|"):
            sentence, made_by, shown_by = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            if (sentence, made_by, shown_by) != HEADER and not sentence.startswith("---"):
                rows.append(Traced(section, sentence, made_by, tuple(shown_by.split("<br>"))))
    return tuple(rows)


def spans(cell: str) -> list[str]:
    """What stands between backticks: commands, paths and artifacts."""
    return re.findall(r"`([^`]+)`", cell)


def is_command(span: str) -> bool:
    return span.startswith(COMMANDS)


def letters(text: str) -> str:
    """A text without white space and Markdown's marks, which a table cannot keep as they were."""
    return re.sub(r"[\s`|\\]", "", text)


def first_difference(wanted: str, found: str) -> tuple[str, str]:
    pairs = enumerate(zip_longest(wanted, found))
    place = next((at for at, (one, other) in pairs if one != other), len(wanted))
    return wanted[place : place + 80], found[place : place + 80]


def test_the_whole_specification_is_quoted_sentence_by_sentence_in_its_order():
    if not SPECIFICATION.is_file():
        pytest.skip(f"the specification is not at {SPECIFICATION}")
    lines = SPECIFICATION.read_text(encoding="utf-8").splitlines()
    wanted = "".join(line.removeprefix("- ") for line in lines if not line.startswith("|---"))
    quoted, section = "", ""
    for row in document():
        quoted += row.sentence if row.section == section else row.section + row.sentence
        section = row.section
    assert first_difference(letters(wanted), letters(quoted)) == ("", "")


def test_a_row_quotes_no_more_than_one_sentence():
    assert [row.sentence for row in document() if re.search(r"[.:;]\s+[A-Z]", row.sentence)] == []


def test_a_row_names_a_test_or_says_that_it_is_not_true_yet_or_true_by_definition():
    def is_told(item: str) -> bool:
        says_why = item.startswith(NOT_YET) and len(item.split()) > 4
        return bool(TEST.fullmatch(item)) or item == DEFINITION or says_why

    untold = [row.sentence for row in document() if not all(map(is_told, row.shown_by))]
    unmade = [row.sentence for row in document() if not row.made_by]
    assert (untold, unmade) == ([], [])


def test_every_named_test_exists():
    named = {pair for row in document() for item in row.shown_by for pair in TEST.findall(item)}
    assert named
    assert sorted(f"{file}::{name}" for file, name in named if name not in functions(file)) == []


@cache
def functions(file: str) -> frozenset[str]:
    path = PROJECT / file
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_every_named_command_is_understood():
    wrong = {span: problem_of(span) for row in document() for span in spans(row.made_by) if is_command(span)}
    assert wrong
    assert {command: problem for command, problem in wrong.items() if problem} == {}


def problem_of(command: str) -> str | None:
    """Say what is wrong with a command; nothing is run."""
    program, *words = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return None if words[0] in targets else f"no target {words[0]}"
    try:
        parse_verb(as_verb(words) if program == "mlflow" else words)
    except (click.UsageError, KeyError) as error:
        return str(error)
    return None


def parse_verb(words: list[str]) -> None:
    group = build()
    name, command, rest = group.resolve_command(click.Context(group), words)
    assert command is not None
    command.make_context(name, rest)


def as_verb(words: list[str]) -> list[str]:
    """Turn the words after ``mlflow`` into those after ``omni-mlflow``, as the MLproject file does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", choices=["run"])
    parser.add_argument("uri", choices=["."])
    parser.add_argument("-e", default="main")
    parser.add_argument("-P", action="append", default=[])
    parser.add_argument("--env-manager", choices=["local"])
    given = parser.parse_args(words)
    entry_point = entry_points()[given.e]
    values = {name: str(each["default"]) for name, each in entry_point["parameters"].items()}
    for name, _, value in (pair.partition("=") for pair in given.P):
        if name not in values:
            raise KeyError(f"no parameter {name}")
        values[name] = value
    return shlex.split(entry_point["command"].format(**values))[3:]


@cache
def entry_points() -> dict:
    return yaml.safe_load((PROJECT / "MLproject").read_text(encoding="utf-8"))["entry_points"]


@pytest.mark.parametrize("name", entry_points())
def test_the_command_line_understands_what_an_entry_point_of_the_mlproject_file_says(name):
    assert problem_of(f"mlflow run . -e {name}") is None


def test_every_stage_and_the_main_job_is_an_entry_point_and_a_verb():
    assert set(entry_points()) == {*STAGES, "main", "compare"} <= set(build().commands)


def test_every_named_path_is_in_the_repository_or_is_an_artifact_of_a_finished_stage(finished):
    made = {*artifacts_of(finished.workspace), *written_by_backbones()}
    named = {span for row in document() for span in spans(row.made_by) if not is_command(span)}
    assert named
    assert sorted(span for span in named - made if not (PROJECT / span).exists()) == []


def artifacts_of(workspace: Path) -> Iterator[str]:
    """Files and folders that the stages of a finished main job made, as ``<stage>/<name>``."""
    for seal in workspace.rglob("seal.json"):
        folder = seal.parent
        yield from (f"{folder.name}/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*"))


def written_by_backbones() -> Iterator[str]:
    """Files that the backbones of the contracts say they write; a planned one has no code that writes."""
    contracts = [load_contract(path) for path in (PROJECT / "contracts").glob("*.yaml")]
    for contract in contracts:
        if contract.status == "planned_adapter":
            continue
        backbone = load_backbone(contract.id)
        yield from (f"evaluate/{name}" for name in backbone.eval_files)
        for name in backbone.training_files:
            yield from (f"train/{name}", f"train/checkpoint/{name}")


def test_what_a_row_calls_missing_is_still_missing():
    missing = {span for row in document() for span in spans(row.missing)}
    assert sorted(span for span in missing if is_command(span) and problem_of(span) is None) == []
    assert sorted(span for span in missing if not is_command(span) and (PROJECT / span).exists()) == []
