"""Places that cannot be written: one line that names them, and what lies there stays."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

from exporters.bundle.manifest import MANIFEST
from exporters.bundle.store import staged
from pytest_reflex.errors import BundleError

NOBODY = 65534


@pytest.mark.skipif(sys.platform != "linux", reason="/proc takes no directory from anyone")
def test_a_place_that_cannot_be_written_is_named() -> None:
    with pytest.raises(BundleError, match="cannot write beside /proc/p0"), staged("/proc/p0"):
        pytest.fail("nobody can write there")


@contextlib.contextmanager
def nobody(home: Path) -> Iterator[None]:
    """Without root's leave to write anywhere; ``home`` is then nobody's."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(home, NOBODY, -1)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_directory_without_write_permission_is_named() -> None:
    # Not below tmp_path, which is closed to everyone else.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o500)
        place = Path(folder, "b")
        words = r"cannot write beside .*: Permission denied"
        with nobody(Path(folder)), pytest.raises(BundleError, match=words), staged(place):
            pytest.fail("nobody can write there")


def test_a_directory_that_is_closed_under_way_keeps_what_is_there() -> None:
    with tempfile.TemporaryDirectory() as folder, nobody(Path(folder)):
        with staged(Path(folder, "b")) as stage:
            (stage / MANIFEST).write_text("old")

        def export() -> None:
            with staged(Path(folder, "b")) as stage:
                (stage / MANIFEST).write_text("new")
                os.chmod(folder, 0o500)

        with pytest.raises(BundleError, match="b was not written: Permission denied"):
            export()
        os.chmod(folder, 0o700)
        assert Path(folder, "b", MANIFEST).read_text() == "old"


def test_a_directory_that_is_a_file_s_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = r"cannot write beside .*: (File exists|Not a directory)"
    with pytest.raises(BundleError, match=words), staged(tmp_path / "file" / "b"):
        pytest.fail("nobody can write there")
