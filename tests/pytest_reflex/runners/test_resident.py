"""How much memory something takes, in multiples of what is known to be taken."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pytest_reflex.runners import resident
from pytest_reflex.runners.resident import Resident

pytestmark = pytest.mark.once
SIZE = 64 << 20

linux = pytest.mark.skipif(sys.platform != "linux", reason="on Linux only")


def touched() -> np.ndarray:
    return np.ones(SIZE, np.uint8)


@linux
def test_the_peak_is_told_though_it_was_let_go() -> None:
    memory = Resident()
    touched()
    taken = memory.taken()
    assert taken is not None
    assert SIZE * 3 // 4 < taken < 2 * SIZE


@linux
def test_what_was_there_before_does_not_count_and_its_room_is_not_used_again_unseen() -> None:
    before = touched()
    kept = Resident().taken()
    assert kept is not None
    assert kept < SIZE // 4
    small = [np.ones(1 << 10, np.uint8) for _ in range(1 << 15)]  # half of it, on the heap
    del small
    memory = Resident()
    small = [np.ones(1 << 10, np.uint8) for _ in range(1 << 15)]
    taken = memory.taken()
    assert taken is not None
    assert taken > SIZE // 4
    assert len(before) + len(small) > 0


@linux
def test_where_the_peak_cannot_begin_anew_what_is_held_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(resident, "_CLEAR", tmp_path / "none" / "clear_refs")
    memory = Resident()
    touched()
    gone = memory.taken()
    held = touched()
    taken = memory.taken()
    assert gone is not None
    assert taken is not None
    assert gone < SIZE // 4 < SIZE * 3 // 4 < taken
    assert held.size == SIZE


def test_elsewhere_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident.sys, "platform", "darwin")
    assert Resident().taken() is None


@linux
def test_a_status_that_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resident, "_STATUS", tmp_path / "status")
    assert Resident().taken() is None
    (tmp_path / "status").write_text("Name:\tpython\n")
    assert Resident().taken() is None
