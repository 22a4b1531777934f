"""A forbidden file is recognised by its bytes, whatever it is called."""

from __future__ import annotations

import json

import pytest
from forbidden_bytes import FORBIDDEN, zipped

from omni_mlflow.contract.file import load_contract
from omni_mlflow.publication.detectors import DETECTORS


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_a_renamed_file_is_still_caught(tmp_path, kind):
    category, make = FORBIDDEN[kind]
    path = tmp_path / "metrics.json"
    path.write_bytes(make())
    assert DETECTORS[category](path) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        '{"macro_f1": 0.25}\n',
        "id,episode_id,correct\nw0,e0,1\n",
        "# Run report\n\nThe free moov and ftyp boxes of an MP4, PK, GGUF, RRF2, ustar and OggS.\n",
        "BM25 beats nothing\nGreetings\n",
        "I1\n.",
        "Gießkanne über dem Spülbecken — 水を注ぐ 🫗\n",
        "II. Results\n",
    ],
)
def test_text_is_taken_for_nothing_else(tmp_path, text):
    path = tmp_path / "text"
    path.write_text(text, encoding="utf-8")
    assert {name: found for name, detect in DETECTORS.items() if (found := detect(path))} == {}


def test_evidence_says_what_was_seen_and_where(tmp_path):
    path = tmp_path / "RUN_REPORT.md"
    path.write_bytes(b"0123456789" + FORBIDDEN["hdf5"][1]())
    assert DETECTORS["annotation_hdf5"](path) == "HDF5 signature at byte 10"


def test_a_folder_with_training_state_is_a_checkpoint(tmp_path):
    (tmp_path / "checkpoint-600").mkdir()
    (tmp_path / "checkpoint-600" / "optimizer.pt").write_bytes(b"")
    assert "checkpoint-600" in DETECTORS["checkpoints"](tmp_path)
    assert DETECTORS["checkpoints"](tmp_path / "checkpoint-600") is not None


def test_a_folder_of_reports_is_no_checkpoint(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"macro_f1": 0.25}))
    assert DETECTORS["checkpoints"](tmp_path) is None


def test_a_damaged_zip_is_an_archive_and_does_not_stop_the_search(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_bytes(zipped(notes=b"hello")[:-30] + b"PK\x05\x06" + bytes(18))
    assert DETECTORS["model_weights"](path) is None
    assert DETECTORS["archives"](path) is not None


@pytest.mark.training
def test_what_torch_saves_is_caught_as_weights_and_as_checkpoint(tmp_path):
    import torch

    for number, modern in enumerate((True, False)):
        path = tmp_path / f"predictions_{number}.jsonl"
        torch.save({"weight": torch.ones(3)}, path, _use_new_zipfile_serialization=modern)
        assert DETECTORS["model_weights"](path) is not None
        assert DETECTORS["checkpoints"](path) is not None


def test_every_category_that_the_contracts_forbid_has_a_detector(project_root):
    for path in sorted((project_root / "contracts").glob("*.yaml")):
        forbidden = load_contract(path).artifact_contract.public_package_forbidden
        assert set(forbidden) <= set(DETECTORS)
