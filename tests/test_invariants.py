"""What the specification asks of every backbone, whatever its family: held-out data, evidence, contracts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter

import pytest
import yaml
from pydantic import ValidationError

from omni_mlflow.contract import ContractError
from omni_mlflow.contract.file import load_contract, parse_contract
from omni_mlflow.contract_validation import validate_contracts
from omni_mlflow.spine.evidence import Evidence, EvidenceFacts, evidence_of
from omni_mlflow.spine.selection import scan_data_root
from omni_mlflow.spine.types import Answer, LabelledSample, Labels, Outcome, Sample, Span, Split, Target
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.answering import ForeignAnswersError
from omni_mlflow.stages.base import Options
from omni_mlflow.stages.register import ALIASES
from tests.conftest import PROJECT, TRIVIAL
from tests.workbench import answers_of

WHOLE = EvidenceFacts(
    synthetic=False,
    guarded=True,
    limit=None,
    num_train_episodes=96,
    num_test_episodes=16,
    num_evaluated_episodes=16,
    num_test_samples=448,
    num_evaluated_samples=448,
    seal_recorded=True,
)


def sample(number: int, split: Split = Split.TEST) -> Sample:
    return Sample(
        id=f"kitchen__ep1:20:{number}",
        episode_id="kitchen__ep1",
        split=split,
        anchor=number + 20,
        observed=Span(start=number, stop=number + 20),
        inputs={},
    )


class Attentive:
    """Answers with the sample's id, and stops like a killed process after ``patience`` batches."""

    batch_size = 2

    def __init__(self, patience: int) -> None:
        self.asked: list[str] = []
        self._patience = patience

    def answer(self, samples):
        if self._patience == 0:
            raise KeyboardInterrupt
        self._patience -= 1
        self.asked += [each.id for each in samples]
        return [
            Answer(
                id=each.id,
                episode_id=each.episode_id,
                anchor=each.anchor,
                outcome=Outcome.ANSWERED,
                raw=each.id,
            )
            for each in samples
        ]


def test_an_episode_without_sound_says_so_in_its_manifest_row(episodes, tmp_path):
    session = sorted(folder for folder in episodes.iterdir() if folder.is_dir())[0]
    shutil.copytree(session, tmp_path / session.name)
    folder = tmp_path / session.name / "ep1"
    shutil.copy(folder / "fisheye_cam1.mp4", folder / "fisheye_cam0.mp4")  # cam0 alone has sound
    [(heard,), (mute,)] = (
        [each for each in scan_data_root(root)[0] if each.session_id == session.name]
        for root in (episodes, tmp_path)
    )
    assert "audio" not in heard.missing_modalities
    assert mute.missing_modalities["audio"] == "no video has a sound track"


def test_training_names_the_place_of_its_checkpoint(finished):
    train = finished.workspace / "trivial/train"
    named = finished.json("trivial/train/training_metadata.json")["checkpoint"]
    assert (train / named / "checkpoint_manifest.json").is_file()


def test_a_held_out_sample_cannot_be_handed_to_training():
    held_out = sample(0)
    target = Target(
        id=held_out.id,
        episode_id=held_out.episode_id,
        anchor=held_out.anchor,
        span=held_out.observed,
        labels=Labels(action="Cut"),
    )
    with pytest.raises(ValidationError, match="is held out: its target must stay sealed"):
        LabelledSample(sample=held_out, target=target)


def test_evaluation_needs_a_trained_checkpoint_that_passed_its_gate(tmp_path):
    assert {"train", "gate"} <= set(
        STAGES["evaluate"].needed(Options(data_root=tmp_path, synthetic_root=tmp_path))
    )


def test_a_full_pass_over_a_guarded_real_split_is_held_out():
    assert evidence_of(WHOLE) is Evidence.HELD_OUT


@pytest.mark.parametrize(
    "change",
    [
        {"num_evaluated_samples": 8},
        {"limit": 448},
        {"num_evaluated_episodes": 15},
        {"num_test_episodes": 1, "num_evaluated_episodes": 1},
        {"num_test_samples": 0, "num_evaluated_samples": 0},
        {"episodes_in_training": ("kitchen__ep1",)},
        {"guarded": False},
        {"seal_recorded": False},
    ],
)
def test_a_partial_one_episode_or_overfit_evaluation_is_a_smoke_run_and_gets_no_alias(change):
    assert evidence_of(WHOLE.model_copy(update=change)) is Evidence.SMOKE
    assert Evidence.SMOKE not in ALIASES


def test_an_interrupted_evaluation_asks_only_what_is_unanswered_and_ends_with_the_same_bytes(tmp_path):
    samples = [sample(number) for number in range(5)]
    answers_of(Attentive(patience=3), samples, tmp_path / "undisturbed.jsonl")
    with pytest.raises(KeyboardInterrupt):
        answers_of(Attentive(patience=1), samples, tmp_path / "resumed.jsonl")
    again = Attentive(patience=2)
    answers = answers_of(again, samples, tmp_path / "resumed.jsonl")
    assert [answer.raw for answer in answers] == [each.id for each in samples]
    assert again.asked == [each.id for each in samples[2:]]
    assert (tmp_path / "resumed.jsonl").read_bytes() == (tmp_path / "undisturbed.jsonl").read_bytes()


def test_answers_of_another_checkpoint_are_never_mixed_in(tmp_path):
    answers_of(Attentive(patience=1), [sample(0)], tmp_path / "partial.jsonl")
    with pytest.raises(ForeignAnswersError, match=r"different: checkpoint"):
        answers_of(Attentive(patience=1), [sample(0)], tmp_path / "partial.jsonl", checkpoint="another")


def test_progress_and_partial_predictions_are_announced_before_the_evaluation_ends(finished):
    rows = [
        json.loads(line)
        for line in (finished.workspace / "trivial/evaluate/journal.jsonl").read_text().splitlines()
    ]
    live = {row["path"] for row in rows if row["event"] == "artifact" and row["live"]}
    assert live == {"progress.jsonl", "predictions.partial.jsonl"}


def test_the_index_is_written_with_its_manifest(finished):
    windows = [json.loads(line) for line in (finished.workspace / "index/window_index.jsonl").open()]
    manifest = finished.json("index/window_index_manifest.json")
    assert manifest["num_windows"] == len(windows) > 0
    assert manifest["windows_per_split"] == dict(Counter(window["split"] for window in windows))


def test_the_validator_asks_for_every_file_and_metric_that_the_contract_names(finished):
    contract = load_contract(TRIVIAL / "trivial.yaml")
    asked: dict[str, list[str]] = {}
    for check in finished.json("trivial/validate/validation.json")["rules"]:
        asked.setdefault(check["rule"], []).append(check["subject"])
    files = contract.artifact_contract
    assert asked["required_training_file"] == list(files.required_training_files)
    assert asked["required_eval_file"] == list(files.required_eval_files)
    assert asked["primary_metric"] == list(contract.primary_metrics)


def test_the_packager_follows_the_publication_rules_of_the_contract(finished):
    files = load_contract(TRIVIAL / "trivial.yaml").artifact_contract
    package = finished.json("trivial/publish/package/package.json")
    assert package["allowed"] == [each.model_dump() for each in files.public_package_allowed]
    assert package["forbidden"] == list(files.public_package_forbidden)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("split_policy", "default_counts"),
        ("split_policy", "leakage_guard"),
        ("artifact_contract", "checkpoint_gate"),
        ("artifact_contract", "required_training_files"),
        ("artifact_contract", "required_eval_files"),
        ("artifact_contract", "public_package_allowed"),
        ("artifact_contract", "public_package_forbidden"),
    ],
)
def test_a_contract_must_declare_its_split_its_guard_and_its_artifacts(section, key):
    document = yaml.safe_load((TRIVIAL / "trivial.yaml").read_text())
    del document[section][key]
    with pytest.raises(ContractError, match=rf"{section}\.{key}: Field required"):
        parse_contract(document, where="trivial.yaml")


@pytest.mark.parametrize(
    ("section", "key", "lost"),
    [
        (None, "primary_metrics", "held_out_episode_count"),
        ("artifact_contract", "required_training_files", "training_metadata.json"),
        ("artifact_contract", "required_training_files", "progress.jsonl"),
        ("artifact_contract", "public_package_forbidden", "raw_video"),
        ("artifact_contract", "public_package_forbidden", "annotation_hdf5"),
        ("artifact_contract", "public_package_forbidden", "rerun_rrd"),
        ("artifact_contract", "public_package_forbidden", "model_weights"),
        ("artifact_contract", "public_package_forbidden", "checkpoints"),
        ("artifact_contract", "public_package_forbidden", "archives"),
    ],
)
def test_the_minimum_held_out_evidence_cannot_be_left_out(section, key, lost):
    document = yaml.safe_load((TRIVIAL / "trivial.yaml").read_text())
    (document[section] if section else document)[key].remove(lost)
    with pytest.raises(ContractError, match=rf"{key} must also list '{lost}'"):
        parse_contract(document, where="trivial.yaml")


def test_every_name_in_a_contract_of_this_project_resolves_to_code():
    rows = validate_contracts(PROJECT / "contracts", only=None, bind_names=True)
    assert {"qwen3_omni_lora": "code"}.items() <= {row.id: row.checked for row in rows}.items()
    assert not any(row.issues for row in rows)


def test_contracts_are_validated_down_to_the_code_behind_every_name(empty):
    def validate(folder):
        command = [sys.executable, "-m", "omni_mlflow", "contracts", "--validate", "--json"]
        return subprocess.run(
            [*command, "--contracts-dir", str(folder)],
            env=empty.environment,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )

    sound = validate(TRIVIAL)
    assert (sound.returncode, json.loads(sound.stdout)["ok"]) == (0, True)
    text = (TRIVIAL / "trivial.yaml").read_text()
    (empty.root / "trivial.yaml").write_text(text.replace("trivial_gate", "trivail_gate"))
    broken = validate(empty.root)
    [row] = json.loads(broken.stdout)["backbones"]
    assert broken.returncode == 1
    assert "unknown checkpoint gate 'trivail_gate'; did you mean 'trivial_gate'?" in row["issues"][0]
