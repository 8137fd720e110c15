"""The corpus as parity tests: an inner pytest runs this file, each case is one test of the plugin's user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from known_bad_cases import CASES

import pytest_reflex as reflex


@reflex.parity
@pytest.mark.parametrize("name", CASES)
def test_case(name: str, parity: Any, tmp_path: Path) -> None:
    CASES[name].judge(parity.check, tmp_path)
