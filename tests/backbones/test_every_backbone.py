"""What every implemented backbone holds to, whatever its family: those of ``contracts/`` and the trivial one.

A new backbone is found by its contract; nothing here has to know its name.
"""

from __future__ import annotations

import ast
import inspect
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from omni_mlflow.backbone_lookup import own_backbones
from omni_mlflow.backbones.base import Backbone, CheckpointUnderTest, Exported, SampleSet
from omni_mlflow.code_digest import imports_of
from omni_mlflow.contract import Contract
from omni_mlflow.contract.file import load_contract, parse_changes
from omni_mlflow.gates import gates_of
from omni_mlflow.metrics.answers import ANSWER_KEYS
from omni_mlflow.registry import Bound, bind
from omni_mlflow.spine.adapter_views import as_asked
from omni_mlflow.spine.rows import file_digest, read_document, read_json_rows, read_rows, write_document
from omni_mlflow.spine.types import Check, LabelledSample, Labels, Sample, Split, Window, broken
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.checkpoint_checks import (
    LEDGER,
    ask_gates,
    fitted_check,
    ledger_checks,
    manifest_checks,
)
from omni_mlflow.stages.manifests import FITTED, TEST_TARGETS, DatasetManifest
from tests.conftest import PROJECT, TRIVIAL, Place


def implemented() -> dict[str, Path]:
    paths = [*sorted((PROJECT / "contracts").glob("*.yaml")), TRIVIAL / "trivial.yaml"]
    return {path.stem: path for path in paths if load_contract(path).status == "implemented"}


CONTRACTS = implemented()


def contract_of(name: str) -> Contract:
    """Its contract with the demo profile, where it has one."""
    contract = load_contract(CONTRACTS[name])
    return load_contract(CONTRACTS[name], profile="demo") if "demo" in contract.profiles else contract


@pytest.fixture(scope="module", params=CONTRACTS)
def bound(request) -> Iterator[Bound]:
    """Each backbone with its contract, small where the contract says how."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TRIVIAL))
        yield bind(contract_of(request.param))


# The protocol.


PROTOCOL = {name: member for name, member in vars(Backbone).items() if inspect.isfunction(member)}
METHODS = {name: member for name, member in PROTOCOL.items() if not name.startswith("_")}


def shape(method: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(method).parameters.values()]


def test_every_method_takes_what_the_protocol_says(bound):
    given = {name: shape(getattr(type(bound.backbone), name)) for name in METHODS}
    assert given == {name: shape(method) for name, method in METHODS.items()}


def test_no_backbone_of_the_project_imports_another():
    own = own_backbones()
    for name, module in own.items():
        for path in (PROJECT / "omni_mlflow" / "backbones" / name).rglob("*.py"):
            imported = imports_of(ast.parse(path.read_bytes()), f"{module}.{path.stem}", is_package=False)
            others = [each for each in own if each != name and f".backbones.{each}" in " ".join(imported)]
            assert others == [], path


# Samples.


@dataclass(frozen=True)
class Asked:
    """Windows of real synthetic episodes as one backbone is asked about them, and what it made of them."""

    bound: Bound
    media: Path
    windows: tuple[Window, ...]
    made: tuple[Exported, ...]

    def export(self, window: Window, media: Path | None = None) -> Any:
        root = (media or self.media) / window.split
        return self.bound.backbone.export(window, media_root=root, settings=self.bound.settings)

    def rows(self, split: Split) -> tuple[LabelledSample, ...]:
        return tuple(
            LabelledSample(sample=each.sample, target=each.target)
            for each in self.made
            if each.sample.split is split
        )

    def sample_set(self, split: Split) -> SampleSet:
        arrays = [each.arrays for each in self.made if each.sample.split is split]
        return SampleSet(
            self.rows(split),
            self.media / split,
            {name: np.stack([row[name] for row in arrays]) for name in (arrays[0] if arrays else ())},
        )


@pytest.fixture(scope="module")
def asked(bound, finished) -> Asked:
    """The index of the finished job is neutral: it serves every backbone."""
    wanted = bound.contract.windows
    index = finished.workspace / "index"
    windows = tuple(
        as_asked(window, frame_grid=wanted.frame_grid, context_frames=wanted.context_frames)
        for window in read_rows(index / "window_index.jsonl", Window)
    )
    every = Asked(bound, index / "episodes", windows, ())
    made = [every.export(window) for window in windows]
    exported = tuple(each for each in made if isinstance(each, Exported))
    kept = {each.sample.id for each in exported}
    assert {each.sample.split for each in exported} == set(Split)
    return replace(every, windows=tuple(each for each in windows if each.id in kept), made=exported)


def test_a_sample_is_about_its_window_and_sees_no_frame_from_its_anchor_on(asked):
    for window, made in zip(asked.windows, asked.made, strict=True):
        about = (made.sample.id, made.sample.episode_id, made.sample.split, made.sample.anchor)
        assert about == (window.id, window.episode_id, window.split, window.anchor)
        assert made.sample.observed.stop <= window.anchor
        assert (made.target.id, made.target.labels) == (window.id, window.supervision)


def test_what_a_sample_shows_hangs_on_no_answer(asked):
    other = Labels(
        action="Fly kite",
        subtask="Play",
        objects=("kite",),
        in_contact=None,
        next_action="Land",
        transition=None,
    )
    for window, made in zip(asked.windows, asked.made, strict=True):
        relabelled = asked.export(window.model_copy(update={"supervision": other}))
        assert relabelled.sample == made.sample


def test_no_answer_of_the_window_is_written_in_an_input(asked):
    for window, made in zip(asked.windows, asked.made, strict=True):
        labels = window.supervision
        answers = {labels.action, labels.subtask, labels.next_action, *(labels.objects or ())} - {None}
        shown = json.dumps(made.sample.inputs)
        assert answers
        assert [answer for answer in answers if answer in shown] == []
        assert not {*ANSWER_KEYS} - {"evidence_window"} & keys_of(made.sample.inputs)


def keys_of(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {*value, *(key for inner in value.values() for key in keys_of(inner))}
    return {key for inner in value for key in keys_of(inner)} if isinstance(value, list) else set()


def test_a_sample_is_the_same_whatever_happens_from_its_anchor_on(asked, tmp_path):
    window = asked.windows[0]
    shutil.copytree(asked.media, tmp_path / "media")
    pointer = window.modalities.sensor_features
    changed = tmp_path / "media" / window.split / pointer.path
    with np.load(changed) as arrays:
        features = dict(arrays)
    features["windows"][pointer.index + 1 :] += 100.0
    features["next_windows"][pointer.index :] += 100.0
    np.savez(changed, **features)
    trajectories = changed.with_name("trajectories.npz")
    with np.load(trajectories) as arrays:
        frames = dict(arrays)
    for values in frames.values():
        values[window.anchor :] = np.ones_like(values[window.anchor :])
    np.savez(trajectories, **frames)
    assert asked.export(window, tmp_path / "media").sample == asked.made[0].sample


def test_a_test_sample_cannot_be_handed_to_training(asked):
    held_out = [each for each in asked.made if each.sample.split is Split.TEST]
    assert held_out
    for made in held_out:
        with pytest.raises(ValidationError, match="its target must stay sealed"):
            LabelledSample(sample=made.sample, target=made.target)


def test_no_stage_but_evaluate_and_merge_declares_a_file_of_sealed_targets():
    readers = {
        name
        for name, stage in STAGES.items()
        if any(fnmatchcase(TEST_TARGETS, pattern) for pattern in stage.inputs.get("export", ()))
    }
    assert readers == {"evaluate", "merge"}


# What is fitted, and the controls.


def test_a_fit_repeats_and_names_the_train_episodes_and_no_other(asked):
    train = asked.sample_set(Split.TRAIN)
    fit = [asked.bound.backbone.fit(train, settings=asked.bound.settings) for _ in range(2)]
    assert fit[0] == fit[1]
    assert isinstance(fit[0], asked.bound.backbone.fitted_type)
    assert fit[0].episode_ids == tuple(sorted({row.sample.episode_id for row in train.rows}))
    assert type(fit[0]).model_validate_json(fit[0].model_dump_json()) == fit[0]


def test_a_fit_changes_when_its_train_samples_do(asked):
    train = asked.sample_set(Split.TRAIN)
    first = train.rows[0].sample.episode_id
    kept = [place for place, row in enumerate(train.rows) if row.sample.episode_id != first]
    fewer = SampleSet(
        [train.rows[place] for place in kept],
        train.media_root,
        {name: array[kept] for name, array in train.arrays.items()},
    )
    whole, part = (asked.bound.backbone.fit(given, settings=asked.bound.settings) for given in (train, fewer))
    assert whole != part
    assert first not in part.episode_ids


def test_a_control_keeps_every_sample_and_changes_what_it_shows(asked):
    samples = [each.sample for each in asked.made if each.sample.split is Split.TEST]
    assert asked.bound.backbone.controls
    for name in asked.bound.backbone.controls:
        changed = asked.bound.backbone.control(name, samples)
        assert [without_inputs(each) for each in changed] == [without_inputs(each) for each in samples]
        assert all(new.inputs != old.inputs for new, old in zip(changed, samples, strict=True)), name


def without_inputs(sample: Sample) -> Sample:
    return sample.model_copy(update={"inputs": {}})


# A smoke run, and its checkpoint under the gate.


@dataclass(frozen=True)
class Job:
    """A finished main job of one backbone."""

    bound: Bound
    place: Place

    @property
    def folder(self) -> Path:
        return self.place.workspace / self.bound.contract.id

    def judged(self, checkpoint: Path) -> list[str]:
        """Ask all that the gate stage asks about a checkpoint, and return the rules that it breaks."""
        dataset = read_document(self.folder / "export/dataset_manifest.json", DatasetManifest)
        rows = {split: self.rows(split) for split in (Split.TRAIN, Split.VAL)}
        media = self.place.workspace / "index/episodes"
        train = SampleSet(rows[Split.TRAIN], media / Split.TRAIN, self._arrays(Split.TRAIN))
        fitted = self.bound.backbone.fit(train, settings=self.bound.settings)
        val = SampleSet(rows[Split.VAL][:2], media / Split.VAL, self._arrays(Split.VAL))
        under_test = CheckpointUnderTest(
            checkpoint, self.bound.settings, val, fitted, checkpoint.parent / "out"
        )
        ledger = checkpoint.parent / LEDGER
        split_of = {row.sample.id: row.sample.split for each in rows.values() for row in each}
        checks: list[Check] = [
            *manifest_checks(checkpoint, dataset_digest=dataset.digest, ledger=ledger),
            *ledger_checks(ledger, split_of)[1],
            fitted_check(checkpoint, fitted)[1],
            *ask_gates(gates_of(self.bound.contract, self.bound.backbone), under_test),
        ]
        return [check.rule for check in broken(checks)]

    def copy_of_training(self, root: Path) -> Path:
        """A copy of the training's folder; the path of its checkpoint."""
        shutil.copytree(self.folder / "train", root / "train")
        return root / "train" / "checkpoint"

    def rows(self, split: Split) -> tuple[LabelledSample, ...]:
        return tuple(read_rows(self.folder / f"export/samples/{split}.jsonl", LabelledSample))

    def _arrays(self, split: Split) -> dict[str, Any]:
        folder = self.folder / f"export/samples/{split}.arrays"
        return {path.stem: np.load(path) for path in folder.glob("*.npy")}


QUICKER = {
    "qwen3_omni_lora": "training.steps=3,training.batch_size=2,training.warmup_steps=0,"
    "decoding.max_new_tokens=8",
    "policy_vla_branch": "training.steps=3,training.batch_size=4,training.warmup_steps=0,decoding.steps=2",
}
"""Changes with which the smoke run of a big family ends soon, as ``--set`` takes them."""

SMOKE = [name if name == "trivial" else pytest.param(name, marks=pytest.mark.slow) for name in CONTRACTS]


@pytest.fixture(scope="module", params=SMOKE)
def job(request, finished, tmp_path_factory) -> Iterator[Job]:
    """The smoke run of each backbone; but for the trivial one they are slow."""
    name = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TRIVIAL))
        if name == "trivial":
            yield Job(bind(contract_of(name)), finished)
            return
        place = Place(tmp_path_factory.mktemp(name), finished.data_root)
        options = {
            "--backbone": name,
            "--contract": str(CONTRACTS[name]),
            "--profile": "demo" if "demo" in load_contract(CONTRACTS[name]).profiles else "none",
            "--sizes": "3/1/2",
            "--limit": "4",
            "--set": QUICKER.get(name, "none"),
        }
        words = place.arguments("main", *(word for pair in options.items() for word in pair))
        done = place.run_as_typed(*words[3:])  # as long as building a tiny base may take
        assert done.returncode == 0, done.stderr
        profile = None if options["--profile"] == "none" else options["--profile"]
        changes = parse_changes(options["--set"])
        yield Job(bind(load_contract(CONTRACTS[name], profile=profile, changes=changes)), place)


def test_a_smoke_run_ends_with_every_file_its_contract_requires_and_is_called_synthetic(job):
    required = job.bound.contract.artifact_contract.required_eval_files
    assert [name for name in required if not (job.folder / "evaluate" / name).is_file()] == []
    report = (job.folder / "evaluate" / "RUN_REPORT.md").read_text()
    assert report.startswith("SYNTHETIC DATA")
    assert json.loads((job.folder / "evaluate/evaluation.json").read_text())["evidence"] == "synthetic"
    assert json.loads((job.folder / "validate/validation.json").read_text())["ok"]


def test_training_learned_from_train_samples_and_sealed_the_answers_of_test(job):
    samples = {split: {row.sample.id for row in job.rows(split)} for split in (Split.TRAIN, Split.VAL)}
    consumed = {each for row in read_json_rows(job.folder / "train" / LEDGER) for each in row["ids"]}
    assert consumed
    assert consumed <= samples[Split.TRAIN]
    held_out = list(read_rows(job.folder / "export/samples/test.jsonl", Sample))
    assert held_out
    assert not {each.id for each in held_out} & (samples[Split.TRAIN] | samples[Split.VAL])


def test_the_gate_passes_the_checkpoint_as_it_was_trained(job, tmp_path):
    assert job.judged(job.copy_of_training(tmp_path)) == []


def test_a_checkpoint_file_that_was_altered_or_removed_is_refused(job, tmp_path):
    names = sorted(
        path.relative_to(job.folder / "train/checkpoint").as_posix()
        for path in (job.folder / "train/checkpoint").rglob("*")
        if path.is_file() and path.name != "checkpoint_manifest.json"
    )
    assert names
    for number, name in enumerate(names):
        checkpoint = job.copy_of_training(tmp_path / f"altered{number}")
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
        assert "checkpoint_files_match_manifest" in job.judged(checkpoint), name
        checkpoint = job.copy_of_training(tmp_path / f"removed{number}")
        (checkpoint / name).unlink()
        assert "checkpoint_files_match_manifest" in job.judged(checkpoint), name


def test_a_checkpoint_fitted_on_a_test_episode_is_refused_though_its_manifest_agrees(job, tmp_path):
    checkpoint = job.copy_of_training(tmp_path)
    held_out = next(read_rows(job.folder / "export/samples/test.jsonl", Sample))
    fitted = json.loads((checkpoint / FITTED).read_text())
    fitted["episode_ids"] = sorted([*fitted["episode_ids"], held_out.episode_id])
    write_document(checkpoint / FITTED, fitted)
    manifest = json.loads((checkpoint / "checkpoint_manifest.json").read_text())
    manifest["files"][FITTED] = file_digest(checkpoint / FITTED)
    write_document(checkpoint / "checkpoint_manifest.json", manifest)
    assert "fitted_on_train_episodes" in job.judged(checkpoint)


def test_a_checkpoint_that_learned_from_a_test_sample_is_refused(job, tmp_path):
    checkpoint = job.copy_of_training(tmp_path)
    held_out = next(read_rows(job.folder / "export/samples/test.jsonl", Sample))
    with (checkpoint.parent / LEDGER).open("a") as ledger:
        ledger.write(json.dumps({"step": 99, "ids": [held_out.id]}) + "\n")
    assert "only_train_samples_were_learned_from" in job.judged(checkpoint)
