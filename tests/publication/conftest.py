from __future__ import annotations

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def project_root() -> Path:
    return PROJECT


@pytest.fixture
def reference() -> Path:
    folder = Path(os.environ.get("OMNI_REFERENCE_DIR", PROJECT.parent / "shared" / "reference"))
    if not folder.is_dir():
        pytest.skip(f"no reference data in {folder}; set OMNI_REFERENCE_DIR")
    return folder
