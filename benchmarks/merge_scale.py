"""How long does it take to merge the shards of a whole test split, and in what memory?

    make demo
    OMP_NUM_THREADS=1 python -m benchmarks.merge_scale [--rows 34269 100000] [--shards 8] [--no-controls]

Takes the finished demo of the Qwen branch, copies its held-out samples and their truths until there are so
many (same episodes, later anchors), lets shards hold the answers of the demo's model to them, in every pass,
and merges: every journal is judged, truth joined, every metric, floor, interval and control scored, every
evidence file written and checked, in a process of its own. Goal: 34,269 rows in 10 seconds. The published
evaluation of so many rows asked each of them once; ``--no-controls`` does as much.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import resource
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from rich.console import Console

from omni_mlflow.console import TerminalBar
from omni_mlflow.context import Context, folder_of
from omni_mlflow.journal import Journal
from omni_mlflow.metrics.label_ledger import LabelLedger
from omni_mlflow.registry import load_bound
from omni_mlflow.shared_contract import shared_contract
from omni_mlflow.spine.rows import (
    digest_of,
    file_digest,
    read_document,
    read_rows,
    write_document,
    write_rows,
)
from omni_mlflow.spine.types import Answer, LabelledSample, Sample, Span, Split, Target
from omni_mlflow.stage_run import ground_for, run_stage
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.answer_sheets import PARTIAL, read_sheet
from omni_mlflow.stages.asked import questions
from omni_mlflow.stages.asking import ALONE, INTACT
from omni_mlflow.stages.base import Ground, Options
from omni_mlflow.stages.declared_labels import action_counts
from omni_mlflow.stages.kept_answers import KeptAnswers
from omni_mlflow.stages.manifests import LABEL_LEDGER, TEST_TARGETS, DatasetManifest
from omni_mlflow.workspace import Workspace

PROJECT = Path(__file__).parents[1]
T = TypeVar("T", Sample, Target, Answer)


def context_of(workspace: Path, *, controls: bool = True) -> Context:
    bound = load_bound(PROJECT / "contracts/qwen3_omni_lora.yaml", profile="demo", changes={})
    if not controls:
        setattr(bound.backbone, "controls", ())  # noqa: B010 - every process of this benchmark has its own
    return Context(
        workspace=Workspace(workspace),
        bound=bound,
        shared=shared_contract([bound.contract]),
        options=Options(data_root=None, synthetic_root=workspace / "episodes"),
        bar=TerminalBar(Console(file=io.StringIO())),
        say=print,
        suites=PROJECT / "expectations",
        source={},
        outer=None,
    )


def frames_of(rows: list[Sample]) -> int:
    return max(row.anchor for row in rows)


def copies(rows: list[T], count: int, *, frames: int) -> Iterator[T]:
    """Yield ``count`` rows: all of them, then all of them ``frames`` frames later, and so on."""
    many = (later(row, turn, by=turn * frames) for turn in range(count) for row in rows)
    return islice(many, count)


def later(row: T, turn: int, *, by: int) -> T:
    moved: dict[str, object] = {"id": f"{row.id}:{turn}", "anchor": row.anchor + by}
    for name in ("observed", "span"):
        if (span := getattr(row, name, None)) is not None:
            moved[name] = Span(start=span.start + by, stop=span.stop + by)
    if isinstance(row, Sample) and row.forecast_from is not None:
        moved["forecast_from"] = row.forecast_from + by
    return row.model_copy(update=moved)


def ground_of(context: Context) -> Ground:
    """What ``evaluate`` reads."""
    stage = STAGES["evaluate"]
    inputs = {name: folder_of(STAGES[name], context) for name in stage.needed(context.options)}
    return ground_for(stage, context, inputs)


def lengthen(context: Context, *, rows: int, shards: int) -> None:
    """Give the held-out episodes of a finished evaluation ``rows`` samples, and shards their answers."""
    workspace, backbone = context.workspace, context.bound.backbone.id
    sheet = read_sheet(workspace.stage("evaluate", backbone=backbone))
    assert sheet is not None, "the demo's evaluation is here"
    said = KeptAnswers()
    for start, row in sheet.rows():
        said.put_row(sheet.file, start, row)
    export = workspace.stage("export", backbone=backbone)
    samples = list(read_rows(export.path / "samples/test.jsonl", Sample))
    passes = questions(ground_of(context)).rounds((), batch_size=1)  # all but those asked again alone
    answers = {name: [said[name, sample.id] for sample in samples] for name in passes}
    _lengthen_export(context, samples, rows=rows)
    for path in (export.path.parent).glob("evaluate*"):
        shutil.rmtree(path)
    asked = questions(ground_of(context))
    drawn = {*asked.rounds(asked.ids, batch_size=sheet.batch_size).get(ALONE, ())}
    for offset in range(shards):
        folder = export.path.parent / f"evaluate-{offset}-of-{shards}"
        with Journal(folder / PARTIAL) as journal:
            journal.append({"identity": asked.identity, "batch_size": sheet.batch_size})
            for name, of_pass in answers.items():
                mine = islice(copies(of_pass, rows, frames=frames_of(samples)), offset, None, shards)
                rows_of_pass = [{"pass": name, **each.model_dump(mode="json")} for each in mine]
                journal.extend(rows_of_pass)
                if name == INTACT:
                    journal.extend([{**row, "pass": ALONE} for row in rows_of_pass if row["id"] in drawn])


def _lengthen_export(context: Context, samples: list[Sample], *, rows: int) -> None:
    """Rewrite the held-out part of the export, and let the stages behind it say that they read this one."""
    backbone = context.bound.backbone.id
    export = context.workspace.stage("export", backbone=backbone)
    targets = list(read_rows(export.path / TEST_TARGETS, Target))
    frames = frames_of(samples)
    write_rows(export.path / "samples/test.jsonl", copies(samples, rows, frames=frames))
    write_rows(export.path / TEST_TARGETS, copies(targets, rows, frames=frames))
    learned = {
        split: action_counts(
            row.target for row in read_rows(export.path / f"samples/{split}.jsonl", LabelledSample)
        )
        for split in (Split.TRAIN, Split.VAL)
    }
    counts = {**learned, Split.TEST: action_counts(copies(targets, rows, frames=frames))}
    write_document(export.path / LABEL_LEDGER, LabelLedger.of(counts))
    manifest = read_document(export.path / "dataset_manifest.json", DatasetManifest)
    files = {name: file_digest(export.path / name) for name in manifest.files}
    per_episode = Counter(sample.episode_id for sample in copies(samples, rows, frames=frames))
    manifest = manifest.model_copy(
        update={
            "files": files,
            "digest": digest_of(files),
            "samples_per_episode": {**manifest.samples_per_episode, Split.TEST: dict(per_episode)},
        }
    )
    write_document(export.path / "dataset_manifest.json", manifest)
    changed = {}
    for name in ("export", "train", "gate"):
        folder = context.workspace.stage(name, backbone=backbone)
        seal = folder.seal()
        assert seal is not None, "the demo is finished"
        inputs = {each: changed.get(each, digest) for each, digest in seal.inputs.items()}
        outputs = folder.files(folder.path / each for each in seal.outputs)
        seal = seal.model_copy(update={"inputs": inputs, "outputs": outputs})
        folder.close(seal)
        changed[name] = seal.digest


def merge_apart(workspace: Path, controls: bool, results: multiprocessing.Queue) -> None:
    """Merge in this process; report its seconds of processor, and the largest memory it ever had, in MiB."""
    begin = time.process_time()
    run_stage(STAGES["merge"], context_of(workspace, controls=controls))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    results.put((time.process_time() - begin, peak))


def measured(workspace: Path, *, controls: bool) -> tuple[float, float]:
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    process = spawn.Process(target=merge_apart, args=(workspace, controls, results))
    process.start()
    process.join()
    return results.get(timeout=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--rows", type=int, nargs="+", default=[34_269, 100_000])
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--no-controls", dest="controls", action="store_false")
    given = parser.parse_args()
    if not (given.workspace / "qwen3_omni_lora/evaluate/seal.json").is_file():
        parser.exit(
            2, f"{given.workspace} holds no finished evaluation of the Qwen branch; run 'make demo' first\n"
        )
    print(f"{'rows':>10}{'seconds of processor':>24}{'rows per second':>18}{'peak MiB':>11}")
    for rows in given.rows:
        with TemporaryDirectory() as name:
            workspace = Path(name) / "workspace"
            shutil.copytree(given.workspace, workspace)
            lengthen(context_of(workspace, controls=given.controls), rows=rows, shards=given.shards)
            seconds, peak = measured(workspace, controls=given.controls)
        print(f"{rows:>10}{seconds:>24.1f}{rows / seconds:>18.0f}{peak:>11.0f}", flush=True)


if __name__ == "__main__":
    main()
