"""A check over several processes says to the byte what one process says, whatever becomes of the others."""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import socket
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from worker_cases import SPECS, Called, Ends, Off, Strays, plain

from pytest_reflex.errors import MissingPackageError, RunnerError, SettingsError
from pytest_reflex.inputs import make_fixture
from pytest_reflex.judge.check import check
from pytest_reflex.judge.workers import process, ray_crew
from pytest_reflex.judge.workers.here import Here
from pytest_reflex.judge.workers.shares import STARTING
from pytest_reflex.judge.workers.work import Work, Worker
from pytest_reflex.runners import OnnxRunner, ServedRunner, TorchRunner

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Ray on this machine, once for all tests; its address."""
    ray = pytest.importorskip("ray", reason="needs Ray, the extra [ray]")
    os.environ |= {"REFLEX_CHANGED": "once", "REFLEX_REMOVED": "not yet"}
    ray_crew._connect(ray, None, 2)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
    del os.environ["REFLEX_CHANGED"], os.environ["REFLEX_REMOVED"]


def said(candidate, reference=None, **options) -> str:
    """What a check says: its whole result, or the error that it ended with."""
    reference = reference or Called(plain, name="reference", kind="torch")
    try:
        return json.dumps(check(reference, candidate, inputs=SPECS, **options).to_json())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def both(candidate, reference=None, **options) -> str:
    """The same from one process and from two workers."""
    one = said(candidate, reference, **options)
    stages: list[str] = []
    two = said(candidate, reference, **options, workers=2, progress=lambda stage, *_: stages.append(stage))
    assert two == one, two[:400]
    assert stages[:2] == [STARTING, STARTING], "nobody is told why nothing moves yet"
    return one


@pytest.mark.parametrize(
    ("wrong", "options", "passes"),
    [
        ((), {"fixtures": 12, "seed": 10**18 - 1}, True),
        ((), {"claim": "10%"}, True),
        ((9, 13), {"claim": "10%"}, False),
        ((7,), {"fixtures": 9}, False),
    ],
    ids=["fixtures at the last seed", "claim", "claim with a violation", "wrong in one"],
)
def test_two_workers_say_what_one_process_says(cluster, wrong, options, passes) -> None:
    one = json.loads(both(Called(Off(*wrong), name="candidate"), **options))
    assert one["passed"] is passes
    if "claim" in options and wrong:
        assert one["claim"]["judged"] == 10  # up to the first by number


def test_a_side_that_strays_where_it_runs_often_is_refused(cluster) -> None:
    honest = Called(plain, name="reference", kind="torch")
    told = {"inputs": SPECS, "fixtures": 40, "ray": cluster, "workers": 2}
    result = check(honest, Called(Strays(16), name="candidate"), **told)
    assert not result.passed
    assert all(result.fixtures)
    assert [a.gate for a in result.answers if not a.passed] == ["repeat"]
    assert "fixture 0 run again on " in str(result)


def test_a_candidate_that_fails_fails_in_the_same_words(cluster) -> None:
    assert both(Called(Off(8, far=None)), fixtures=12).startswith("ValueError: no answer to ")


def test_a_module_in_memory_is_judged_with_its_floors(cluster) -> None:
    import torch
    from policy_cases import Policy, policy_model

    class Wide(torch.nn.Module):
        """A policy with a parameter large enough to be read where it lies, and tied to another."""

        def __init__(self):
            super().__init__()
            self.own = Policy()
            self.one = self.two = torch.nn.Parameter(torch.zeros(200, 100))

        def forward(self, x, mask):
            found = self.own(x, mask)["actions"]
            return {"actions": found + self.one.sum() - self.two.sum() + (self.one is not self.two)}

    sides, told = (OnnxRunner(policy_model()), TorchRunner(Wide())), {"fixtures": 6, "threshold": "2x floor"}
    one = said(*sides, **told)
    assert json.loads(one)["passed"]
    assert said(*sides, **told, ray=cluster, workers=1) == one  # one is enough: it is another process


def killing(folder: Path, count: int, seed: int) -> threading.Thread:
    """Ends so many workers, each some time after it is open, and never all that are left for long."""
    rng = random.Random(seed)

    def run() -> None:
        left, known = count, {os.getpid()}
        while left:
            fresh = sorted({int(one.name) for one in folder.iterdir()} - known)
            if not fresh:
                time.sleep(0.01)
                continue
            known.add(pid := rng.choice(fresh))
            time.sleep(rng.uniform(0, 0.1))
            os.kill(pid, signal.SIGKILL)
            left -= 1

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_killed_workers_lose_nothing_and_double_nothing(cluster, tmp_path: Path) -> None:
    candidate = Called(Off(70, takes=0.02), tmp_path, name="candidate")
    one = said(candidate, claim="3%")
    thread = killing(tmp_path, 3, seed=3)
    assert said(candidate, claim="3%", ray=cluster, workers=2) == one
    assert not thread.is_alive()
    assert len([*tmp_path.iterdir()]) >= 1 + 2 + 3 - 1


def test_a_fixture_that_ends_its_process_is_named(cluster) -> None:
    assert "fixture 6 ended every worker that it was asked of" in said(Called(Ends(6)), fixtures=7, workers=2)


@pytest.mark.parametrize("fixture_idx", [0, 2])
def test_a_worker_that_gives_other_bits_is_no_worker(cluster, fixture_idx: int) -> None:
    home, where = os.getpid(), make_fixture(SPECS, 0, fixture_idx)["x"].tobytes()

    def elsewhere(x, mask):
        found = plain(x, mask)["actions"]
        same = os.getpid() == home or x.tobytes() != where
        return {"actions": found if same else np.nextafter(found, np.float32(9))}

    wrong = said(Called(elsewhere, name="candidate"), fixtures=5, ray=cluster, workers=1)
    assert "the candidate of the worker on " in wrong
    assert f"it gives other bits in fixture {fixture_idx}" in wrong


def settings_of_this_process(x, mask):
    """The plain policy, with what its process is set to in the first element's last bits."""
    import torch

    told = [*map(os.environ.get, ("REFLEX_SET", "REFLEX_CHANGED", "REFLEX_REMOVED")), np.geterr()["under"]]
    told += [torch.get_default_dtype(), torch.backends.mkldnn.enabled]
    told += [torch.are_deterministic_algorithms_enabled(), process.flushes_denormals()]
    found = plain(x, mask)["actions"]
    found[0, 0] += np.float32(1e-6 * (zlib.crc32(repr(told).encode()) % 1000))
    return {"actions": found}


@pytest.fixture
def settings_of_its_own(monkeypatch: pytest.MonkeyPatch, cluster) -> Iterator[None]:
    """Settings that this process has only since Ray was started."""
    import torch

    monkeypatch.setenv("REFLEX_SET", "by the test")
    monkeypatch.setenv("REFLEX_CHANGED", "twice")
    monkeypatch.delenv("REFLEX_REMOVED")
    before = process.torch_settings()
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    torch.backends.mkldnn.enabled = False
    torch.set_flush_denormal(True)
    with np.errstate(under="raise"):
        yield
    torch.set_flush_denormal(False)
    process.set_torch(before)


def test_a_worker_is_set_as_the_first_process_is_by_then(cluster, settings_of_its_own) -> None:
    one = said(Called(settings_of_this_process), fixtures=5)
    assert json.loads(one)["name"]
    assert said(Called(settings_of_this_process), fixtures=5, ray=cluster, workers=1) == one


def test_a_value_that_was_set_in_a_module_is_not_a_worker_s(cluster, tmp_path, monkeypatch) -> None:
    (tmp_path / "set_since.py").write_text(
        "from worker_cases import plain\nMODE = 'new'\n"
        "def policy(x, mask):\n    return plain(x, mask) if MODE == 'new' or x[0, 0] < 2 else {}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("set_since")
    told = {"fixtures": 5, "ray": cluster, "workers": 1}
    assert json.loads(said(Called(module.policy), **told))["passed"]
    monkeypatch.setattr(module, "MODE", "old")
    wrong = said(Called(module.policy), **told)
    assert "set_since.MODE is 'new' there and 'old' here, where it was set after the import" in wrong
    assert "--workers 1" in wrong


def test_a_module_of_another_file_is_not_a_worker_s(cluster, tmp_path, monkeypatch) -> None:
    for name, much in (("here", 1), ("there", 2)):
        (tmp_path / name).mkdir()
        text = f"from worker_cases import plain\ndef policy(x, mask):\n    return plain({much} * x, mask)\n"
        (tmp_path / name / "found_twice.py").write_text(text)
    with monkeypatch.context() as only:
        only.syspath_prepend(tmp_path / "here")
        module = importlib.import_module("found_twice")
    monkeypatch.syspath_prepend(tmp_path / "there")
    wrong = said(Called(module.policy), fixtures=5, ray=cluster, workers=1)
    assert f"module found_twice is {tmp_path}/there/found_twice.py there and {module.__file__} here" in wrong


def test_what_is_asked_of_ray_under_names_of_its_own_is_there() -> None:
    """Without them nothing fails: paragraphs are printed, and an address is asked for minutes."""
    pytest.importorskip("ray", reason="needs Ray, the extra [ray]")
    from ray._private import ray_constants, worker

    assert getattr(ray_constants, ray_crew._TRIES, 0) > 2
    assert callable(worker.print_to_stdstream)
    assert Path(worker.__file__).read_text().count("print_to_stdstream") > 1, "it is called no more"


@pytest.mark.parametrize("side", ["candidate", "reference"])
def test_a_side_that_does_not_repeat_fails_wherever_it_runs(cluster, side: str) -> None:
    def restless(x, mask):
        return {"actions": plain(x, mask)["actions"] + np.float32(1e-7 * time.monotonic_ns() % 1e-5)}

    kinds = {"candidate": "function", "reference": "torch"}
    sides = {one: Called(plain, name=one, kind=kind) for one, kind in kinds.items()}
    sides[side] = Called(restless, name=side, kind=kinds[side])
    gate = {"candidate": "repeat", "reference": "reference"}[side]
    for workers in (1, 2):
        result = check(**sides, inputs=SPECS, fixtures=8, threshold=1e-3, strict=True, workers=workers)
        assert gate in [answer.gate for _, answer in result.refusals]


def test_what_cannot_be_sent_is_named() -> None:
    pytest.importorskip("ray", reason="needs Ray, the extra [ray]")
    lock = threading.Lock()
    held = Called(lambda x, mask: {"actions": lock}, name="locked")
    for sides, name in (
        ((Called(plain), held), "the candidate, locked,"),
        ((held, Called(plain)), "the reference, locked,"),
    ):
        with pytest.raises(RunnerError, match=f"workers: {name} cannot be sent to a worker .*--workers 1"):
            check(*sides, inputs=SPECS, workers=2)
    served = ServedRunner("ws://127.0.0.1:1")
    with pytest.raises(RunnerError, match="is one server, which workers would only ask in turn"):
        check(Called(plain), served, inputs=SPECS, workers=2)


def test_one_worker_is_the_plain_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert said(Called(Off()), workers=1) == said(Called(Off()))


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r"needs Ray; pip install 'pytest-reflex\[ray\]'"):
        check(Called(plain), Called(plain), inputs=SPECS, workers=2)


def test_an_address_where_nobody_answers_is_one_line() -> None:
    ray = pytest.importorskip("ray", reason="needs Ray, the extra [ray]")
    if ray.is_initialized():
        ray.shutdown()
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
    with pytest.raises(RunnerError, match=f"--ray {address}: nobody answers there"):
        check(Called(plain), Called(plain), inputs=SPECS, ray=address)


@pytest.mark.parametrize("host", ["a..b", "a" * 80, "no such host"])
def test_an_address_that_is_none_is_one_line(host: str) -> None:
    pytest.importorskip("ray", reason="needs Ray, the extra [ray]")
    with pytest.raises(RunnerError, match=f"--ray {host}:6379: nobody answers there"):
        ray_crew._require_there(f"{host}:6379")


def test_more_workers_than_a_machine_holds_are_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"workers is 1000000000, and this machine has \d+ cores; give at"
    ):
        check(Called(plain), Called(plain), inputs=SPECS, workers=10**9)


def test_an_interrupt_in_a_worker_names_the_side() -> None:
    def interrupted(**_: object) -> dict[str, np.ndarray]:
        raise KeyboardInterrupt

    held = Work(
        Called(plain, name="r"),
        Called(plain, name="c"),
        lambda idx: make_fixture(SPECS, 0, idx),
        SPECS,
        False,
    )
    worker = Worker(held, Here.of_this_process())
    held.candidate.function = interrupted
    assert str(worker.judge(7).candidate) == "c failed: it raised KeyboardInterrupt"


@pytest.mark.parametrize("workers", [0, -1, 1.5, "two", True])
def test_a_bad_number_of_workers_is_refused(workers) -> None:
    with pytest.raises(SettingsError, match="is not a number of workers; give a whole number, 1 or more"):
        check(Called(plain), Called(plain), inputs=SPECS, workers=workers)


@pytest.mark.parametrize("address", ["", "nowhere", "host:", ":1", "host:0", "host:99999", 7])
def test_a_bad_address_is_refused(address) -> None:
    with pytest.raises(SettingsError, match="is no address; give HOST:PORT"):
        check(Called(plain), Called(plain), inputs=SPECS, ray=address)


@pytest.mark.parametrize("fails", [1, 2])
def test_ray_that_does_not_start_is_started_again_once(fails: int) -> None:
    """It gives itself 30 seconds, and a machine may be busy for as long."""
    asked: list[str] = []

    class Ray:
        def init(self, address: str, **_: object) -> None:
            asked.append(address)
            if asked.count("local") <= fails:
                raise Exception("The current node timed out during startup.")

        def shutdown(self) -> None:
            asked.append("ended")

    if fails == 1:
        ray_crew._start(Ray())
    else:
        with pytest.raises(RunnerError, match=r"does not start .*\(The current node timed out .*try when it"):
            ray_crew._start(Ray())
    assert asked == ["local", "ended", "local", "ended"][: 2 * fails + (fails == 1)]
