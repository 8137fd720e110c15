"""Exports that are killed, that meet a full disk or each other: the old bundle whole or the new one whole."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

from killing import Exporter, contents

import exporters.bundle.store
from exporters.bundle.manifest import MANIFEST
from exporters.bundle.store import staged
from pytest_reflex.errors import BundleError, RunnerError
from pytest_reflex.runners import save_recording

OLD, NEW = 1.0, 2.0
KILL = int(signal.SIGKILL)
KILLS = 10


class Place:
    """Where exports go, and what an old and a new one leave there."""

    def __init__(self, path: Path, exporter: Exporter) -> None:
        self.path, self.exporter = path, exporter
        self.new = self._made(NEW)
        self.old = self._made(OLD)

    def _made(self, weight: float) -> dict[str, str]:
        ended = self.exporter.attempt(weight)
        assert (ended.signal, ended.code) == (0, 0)
        self.events, self.seconds = ended.events, ended.seconds
        return contents(self.path)

    def strays(self) -> list[str]:
        return [p.name for p in self.path.parent.iterdir() if p.name not in (self.path.name, "warm-up")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    path = tmp_path_factory.mktemp("killed") / "b"
    with Exporter(path) as exporter:
        yield Place(path, exporter)


@pytest.mark.once
def test_killed_at_any_file_operation_and_at_any_instant(place: Place) -> None:
    assert place.old != place.new
    assert place.events > 10
    half = KILLS // 2
    # Two at the end, where the bundles change places and the old one is removed.
    at = [1 + n * (place.events - 3) // (half - 2) for n in range(half - 2)] + [
        place.events - 1,
        place.events,
    ]
    points = [{"at_event": n} for n in at]
    points += [{"after_s": place.seconds * (n + 0.5) / half} for n in range(half)]
    for point in points:
        ended = place.exporter.attempt(NEW, **point)  # type: ignore[arg-type]
        # An instant may come after the end; an export that hangs or raises was not killed.
        done = (ended.signal, ended.code)
        assert done == (KILL, 0) or ("after_s" in point and done == (0, 0)), (point, ended)
        assert contents(place.path) in (place.old, place.new), point
    # Whatever so many left, one export takes away.
    assert place.exporter.attempt(OLD).code == 0
    assert contents(place.path) == place.old
    assert place.strays() == []


@pytest.mark.once
@pytest.mark.parametrize("limit_bytes", [1, 500, 4000])
def test_a_full_disk_leaves_the_old_bundle_and_nothing_else(limit_bytes: int, place: Place) -> None:
    ended = place.exporter.attempt(NEW, limit_bytes=limit_bytes)
    assert (ended.signal, ended.code) == (0, 2)
    assert contents(place.path) == place.old
    assert place.strays() == []


def test_a_recording_that_finds_no_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunnerError, match=r"could not be written: OSError: .*No space left on device"):
        save_recording(tmp_path / "r", [({"x": np.zeros(1)}, {"y": np.zeros(1)})], [])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_while_it_is_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(exporters.bundle.store, "_fsync", full)
    with pytest.raises(BundleError, match="b was not written: No space left on device"):
        _publish(tmp_path / "b", "{}")
    assert list(tmp_path.iterdir()) == []


def test_another_error_of_the_system_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError), staged(tmp_path / "b"):
        raise ConnectionResetError(errno.ECONNRESET, "the hub went away")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("which", ["stage", "all"])
def test_a_directory_that_is_removed_under_way(which: str, tmp_path: Path) -> None:
    def export() -> None:
        with staged(tmp_path / "in" / "b") as stage:
            shutil.rmtree(stage if which == "stage" else stage.parent)
            (stage / MANIFEST).write_text("{}")

    with pytest.raises(BundleError, match="b was not written: its directory was removed"):
        export()


def test_the_old_bundle_may_be_removed_under_way(tmp_path: Path) -> None:
    _publish(tmp_path / "b", "old")
    with staged(tmp_path / "b") as stage:
        (stage / MANIFEST).write_text("new")
        shutil.rmtree(tmp_path / "b")
    assert (tmp_path / "b" / MANIFEST).read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_what_came_there_under_way_is_not_replaced(tmp_path: Path) -> None:
    def export() -> None:
        with staged(tmp_path / "b") as stage:
            (stage / MANIFEST).write_text("new")
            (tmp_path / "b").mkdir()
            (tmp_path / "b" / "thesis.txt").write_text("four years")

    with pytest.raises(BundleError, match="exists and is no bundle: it will not be replaced"):
        export()
    assert (tmp_path / "b" / "thesis.txt").read_text() == "four years"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    _publish(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    _publish(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / MANIFEST).read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "real"]


def test_many_exports_to_one_directory_at_once(tmp_path: Path) -> None:
    """Each in a thread: every look finds one bundle whole, and in the end nothing else lies there."""
    place, wrong = tmp_path / "b", []
    names = [f"file{n}" for n in range(8)]

    def export(number: int) -> None:
        for turn in range(6):
            try:
                with staged(place) as stage:
                    for name in (*names, MANIFEST):
                        (stage / name).write_text(f"{number}.{turn}")
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=export, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        found = _looked_at(place, names)
        if found is not None and len(found) != 1:
            wrong.append(found)
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(_looked_at(place, names) or ()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def _looked_at(place: Path, names: list[str]) -> set[str] | None:
    """What the files say that lie in one and the same directory; None when it went away meanwhile."""
    try:
        directory = os.open(place, os.O_RDONLY)
    except FileNotFoundError:
        return None
    said = set()
    try:
        for name in names:
            file = os.open(name, os.O_RDONLY, dir_fd=directory)
            said.add(os.read(file, 100).decode())
            os.close(file)
    except FileNotFoundError:
        return None
    finally:
        os.close(directory)
    return said


def test_what_a_living_export_has_staged_is_not_swept(tmp_path: Path) -> None:
    with staged(tmp_path / "b") as slow:
        (slow / "half").write_text("")
        _publish(tmp_path / "b", "other")
        assert (slow / "half").is_file()
        (slow / MANIFEST).write_text("slow")
    assert (tmp_path / "b" / MANIFEST).read_text() == "slow"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_without_locks_and_without_the_system_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr("fcntl.flock", unsupported)
    monkeypatch.setattr(exporters.bundle.store, "_swap", lambda first, second: False)
    (tmp_path / ".b.reflex-1-left").mkdir()
    for text in ("old", "new"):
        _publish(tmp_path / "b", text)
    assert (tmp_path / "b" / MANIFEST).read_text() == "new"
    # Nobody can say that whoever left it is dead.
    assert sorted(p.name for p in tmp_path.iterdir()) == [".b.reflex-1-left", "b"]


@pytest.mark.parametrize("how", ["refused", "killed"])
def test_between_two_names_the_old_bundle_is_not_lost(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the system call: the disk refuses the second of three names, or the process dies there."""

    class Killed(BaseException):
        pass

    rename = os.rename

    def second(source: Path, target: Path) -> None:
        if Path(target) == tmp_path / "b" and not str(source).endswith("-old"):
            raise Killed if how == "killed" else OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    _publish(tmp_path / "b", "old")
    with monkeypatch.context() as patch:
        patch.setattr(exporters.bundle.store, "_swap", lambda first, second: False)
        patch.setattr(os, "rename", second)
        with pytest.raises(Killed if how == "killed" else BundleError):
            _publish(tmp_path / "b", "new")
    if how == "refused":
        assert (tmp_path / "b" / MANIFEST).read_text() == "old"
    else:
        # The next export finds it, were it to fail itself.
        with pytest.raises(ZeroDivisionError), staged(tmp_path / "b"):
            raise ZeroDivisionError
        assert (tmp_path / "b" / MANIFEST).read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def _publish(place: Path, text: str) -> None:
    with staged(place) as stage:
        (stage / MANIFEST).write_text(text)
