"""What several files of tests share: a tiny checkpoint, a bundle exported from it, and the command itself."""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import warm
from bundle_cases import Exported, Ran, Reflex

# Policies are small here: workers whose threads wait for each other's cores take twice the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = f"{ROOT / 'examples'}{os.sep}"
# Small on purpose: what is tested here is the command, not the arithmetic.
SMALL = ["--cameras", "2", "--prompt-tokens", "8", "--fixtures", "3"]


@pytest.fixture(autouse=True)
def _at_a_desk(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest and rich print other text where these are set, and the tests pin what a person sees."""
    for name in (
        "CI",
        "BUILD_NUMBER",
        "NO_COLOR",
        "FORCE_COLOR",
        "PY_COLORS",
        "PYTEST_ADDOPTS",
        "GITHUB_ACTIONS",
    ):
        monkeypatch.delenv(name, raising=False)


def pytest_configure(config: pytest.Config) -> None:
    """Each worker keeps to a core of its own: what it starts would else spin for the others'."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity") and "OMP_NUM_THREADS" in os.environ:
        cores = sorted(os.sched_getaffinity(0))
        wanted = int(os.environ["OMP_NUM_THREADS"])
        first = int(worker.removeprefix("gw")) * wanted
        os.sched_setaffinity(0, {cores[(first + i) % len(cores)] for i in range(wanted)})


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a test draws without a seed follows from its name: not from its place in the run, or luck."""
    seed = zlib.crc32(item.nodeid.encode())
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)


@pytest.fixture(autouse=True)
def _nothing_stays_imported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A file that a test wrote, or took from the examples by its bare name, is not the next one's import."""
    before = set(sys.modules)
    yield
    written = f"{tmp_path_factory.getbasetemp()}{os.sep}"
    for name in sys.modules.keys() - before:
        path = getattr(sys.modules[name], "__file__", None) or ""
        if path.startswith(written) or (path.startswith(EXAMPLES) and "." not in name):
            del sys.modules[name]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where coverage is measured a worker writes what it has: pytest-xdist ends one that is slow to leave."""
    coverage = sys.modules.get("coverage")
    measured = coverage.Coverage.current() if coverage and hasattr(session.config, "workerinput") else None
    if measured is not None:
        measured.stop()
        measured.save()


@pytest.fixture(scope="session", autouse=True)
def _collect_rarely() -> None:
    """Objects by the million stay once torch is imported: to look through them each time takes long."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """How to start Python: the same in a process that has imported torch already, where that can be had."""
    if not (hasattr(os, "pidfd_open") and hasattr(os, "fork")):
        yield [sys.executable]
        return
    script = str(Path(warm.__file__).resolve())
    if "REFLEX_WARM" in os.environ:  # somebody who runs the tests many times has one already
        yield [sys.executable, "-S", "-E", script, os.environ["REFLEX_WARM"]]
        return
    place = tmp_path_factory.mktemp("warm")
    socket = place / "s"
    with (
        (place / "said").open("w+") as said,
        subprocess.Popen(
            [sys.executable, script, str(socket)], stdin=subprocess.DEVNULL, stdout=said, stderr=said
        ) as server,
    ):
        try:
            while not socket.exists():
                if server.poll() is not None:
                    pytest.fail(f"{script} ended with {server.returncode}:\n{(place / 'said').read_text()}")
                time.sleep(0.02)
            yield [sys.executable, "-S", "-E", script, str(socket)]
        finally:
            server.kill()


@pytest.fixture
def warm_pytester(
    pytester: pytest.Pytester, python: list[str], monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """Its ``runpytest_subprocess`` starts where torch is imported, and so do the workers of that run."""
    if len(python) > 1:
        monkeypatch.setattr(sys, "executable", warm.launcher(python[-1]))
    # A home of its own is for what reads it at imports; that was read from this one.
    monkeypatch.setenv("HOME", warm.STARTED.get("HOME", ""))
    return pytester


@pytest.fixture(scope="session")
def reflex(python: list[str]) -> Reflex:
    """The real command in a process of its own: ``reflex("export", ..., cwd=..., env={...})``."""

    def run(*arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Ran:
        around = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "COLUMNS": "80", **(env or {})}
        done = subprocess.run(
            [*python, "-m", "pytest_reflex", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, **around},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the whole run, the same in all workers."""
    run = tmp_path_factory.getbasetemp()
    place = (run.parent if "PYTEST_XDIST_WORKER" in os.environ else run) / "shared"
    place.mkdir(exist_ok=True)
    return place


@pytest.fixture(scope="session")
def _kept_traces(shared: Path) -> Any:
    from traced_once import TracedOnce

    place = shared / "traces"
    place.mkdir(exist_ok=True)
    return TracedOnce(place)


@pytest.fixture(scope="module")
def traced_once(_kept_traces: Any) -> Iterator[None]:
    """Exports of this module take the trace that an earlier one of the same content has made."""
    with pytest.MonkeyPatch.context() as patched:
        _kept_traces.patch(patched)
        yield


@pytest.fixture(scope="session")
def checkpoint(shared: Path) -> Path:
    """A tiny pi0 policy as ``save_pretrained`` writes it; one for all workers, not to be changed."""
    from filelock import FileLock

    from examples.tiny_pi0 import tiny_pi0

    place = shared / "checkpoint" / "pi0"
    with FileLock(shared / "checkpoint.lock"):
        if not place.exists():
            tiny_pi0(depth=(1, 1, 1), steps=2, chunk=4).save_pretrained(place)
    return place


@pytest.fixture(scope="session")
def exported(shared: Path, checkpoint: Path, reflex: Reflex) -> Exported:
    """What ``reflex export`` made of :func:`checkpoint`, and said; once for all workers."""
    from filelock import FileLock

    place, said = shared / "bundle" / "p0", shared / "bundle.json"
    with FileLock(f"{said}.lock"):
        if not said.exists():
            place.parent.mkdir()
            ran = reflex("export", checkpoint, place, *SMALL, "--output-json")
            said.write_text(json.dumps(asdict(ran)))
        return Exported(place, Ran(**json.loads(said.read_text())))


@pytest.fixture(scope="session")
def bundle(exported: Exported) -> Path:
    """A good bundle of :func:`checkpoint`; not to be changed."""
    if exported.ran.code != 0:
        pytest.fail(f"the export that these tests start from failed:\n{exported.ran.err}")
    return exported.path


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, named ``p0``, to be damaged."""
    return Path(shutil.copytree(bundle, tmp_path / "p0"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``small(layout="loop", seed=1)``: a bundle of serve_cases, made once; not to be changed."""
    from serve_cases import made

    kept: dict[tuple[str, int], Path] = {}
    work = tmp_path_factory.mktemp("small")

    def bundle(layout: str = "unrolled", seed: int = 0) -> Path:
        if (layout, seed) not in kept:
            kept[layout, seed] = made(work / f"{layout}{seed}", layout=layout, seed=seed)
        return kept[layout, seed]

    return bundle
