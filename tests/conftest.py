"""Fixtures shared by the tests: tiny real models, the bundled model, real data where it is present."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Threads change the order of floating-point sums and fight for cores; the Hub is never asked in tests.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real labelled data that is never part of the package; the test is skipped where it is absent."""
    folder = Path(os.environ.get("CONCEPT_DEPTH_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set CONCEPT_DEPTH_DATA to its folder")
    return folder
