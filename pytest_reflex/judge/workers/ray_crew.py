"""Workers that Ray starts: on this machine, or on the nodes of a cluster."""

from __future__ import annotations

import contextlib
import itertools
import logging
import pickle
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from pytest_reflex.errors import MissingPackageError, RunnerError, brief
from pytest_reflex.judge.workers import hands
from pytest_reflex.judge.workers.here import Here
from pytest_reflex.judge.workers.pool import Event
from pytest_reflex.judge.workers.work import Answer, Work

if TYPE_CHECKING:
    from pytest_reflex.judge.workers.here import Seen

__all__ = ["RayCrew", "installed"]

# How long an address may take to answer, in seconds.
ANSWERS_WITHIN: Final = 5.0
# What Ray calls how often it asks; no option says it.
_TRIES: Final = "NUM_REDIS_GET_RETRIES"


class RayCrew:
    """Workers over Ray; see :class:`~pytest_reflex.judge.workers.pool.Crew`.

    Args:
        address: of a cluster, as ``ray start`` says it; None for this machine alone.
        size: how many workers there are to be; None for one on each core of the cluster.
        work: what they hold.

    Raises:
        RunnerError: a side cannot be sent, or no cluster answers at the address.
        MissingPackageError: Ray is not installed.
    """

    def __init__(self, address: str | None, size: int | None, work: Work) -> None:
        self._ray = ray = installed()
        from pytest_reflex.judge.workers.sent import sent

        parts, weights = sent(work)  # before a cluster is asked: what cannot be sent is said at once
        _connect(ray, address, size or 1)
        self.size = size or max(1, int(ray.cluster_resources().get("CPU", 1)))
        # On one machine it is for the user to say how many; on a cluster each has a core of its own.
        cores = 0 if address is None else 1
        ray.cloudpickle.register_pickle_by_value(hands)
        self._kind = ray.remote(num_cpus=cores, scheduling_strategy="SPREAD")(hands.Hands)
        here = Here.of_this_process()
        self._place = ray.put(here.path), ray.put(pickle.dumps(here))
        self._sent = ray.put(parts)
        self._weights = [ray.put(array) for array in weights]
        self._numbers = itertools.count()
        self._hands: dict[int, Any] = {}
        self._waiting: dict[Any, tuple[int, Callable[[int, Any], Event]]] = {}

    def start(self) -> int:
        worker = next(self._numbers)
        held = self._hands[worker] = self._kind.remote()
        self._waiting[held.place.remote(*self._place)] = worker, _placed
        self._waiting[held.hold.remote(self._sent, self._weights)] = worker, _ready
        return worker

    def ask(self, worker: int, fixture_idx: int) -> None:
        self._waiting[self._hands[worker].judge.remote(fixture_idx)] = worker, _answered

    def wait(self, seconds: float) -> list[Event]:
        if not self._waiting:
            time.sleep(min(seconds, 0.1))
            return []
        done, _ = self._ray.wait([*self._waiting], num_returns=1, timeout=seconds)
        return [event for one in done if (event := self._event(one)) is not None]

    def _event(self, one: Any) -> Event | None:
        worker, made = self._waiting.pop(one)
        if worker not in self._hands:
            return None
        errors = self._ray.exceptions
        try:
            return made(worker, self._ray.get(one))
        except errors.RayTaskError as error:
            return Event(worker, "refused", _one_line(error.cause or error))
        except errors.RayError as error:
            del self._hands[worker]
            self._waiting = {ref: its for ref, its in self._waiting.items() if its[0] != worker}
            memory = isinstance(error, errors.OutOfMemoryError) or "OutOfMemory" in str(error)
            return Event(worker, "lost", _one_line(error), memory=memory)

    def close(self) -> None:
        for held in self._hands.values():
            with contextlib.suppress(Exception):
                self._ray.kill(held)
        self._hands, self._waiting, self._weights = {}, {}, []


def installed() -> Any:
    """Ray.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError(
            "workers: more than one process needs Ray; pip install 'pytest-reflex[ray]'"
        ) from error
    return ray


def _connect(ray: Any, address: str | None, size: int) -> None:
    """Be at the cluster, or start one on this machine; one that this process is at already is taken."""
    if ray.is_initialized():
        return
    # What it says of itself, such as that a token guards it, is no warning of a check's; and what it calls
    # an error, such as that its dashboard is late where much is at work, ends nothing, or is raised too.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    quiet = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
    if address is None:
        _start(ray, num_cpus=size, include_dashboard=False, **quiet)
        _silence()
        return
    _require_there(address)
    try:
        with _few_tries(), contextlib.redirect_stdout(sys.stderr):
            ray.init(address=address, **quiet)
        _silence()
    except Exception as error:
        raise RunnerError(
            f"--ray {_named(address)}: no cluster of Ray's that this process can join ({_one_line(error)}); "
            "give HOST:PORT, as `ray start --head` says it"
        ) from error


def _start(ray: Any, **how: Any) -> None:
    """Ray on this machine, which gives itself 30 seconds: too few where everything else is at work, once.

    Raises:
        RunnerError: it does not start.
    """
    for last in (False, True):
        try:
            # "local", or one that somebody else runs on this machine would be joined.
            with contextlib.redirect_stdout(sys.stderr):  # stdout is a report's
                ray.init("local", **how)
            return
        except Exception as error:
            ray.shutdown()
            if last:
                raise RunnerError(
                    f"workers: Ray does not start on this machine ({_one_line(error)}); try when it has less "
                    "to do, or go without --workers"
                ) from error


@contextlib.contextmanager
def _few_tries() -> Iterator[None]:
    """Have Ray ask an address twice and not twenty times, where something else answers."""
    from ray._private import ray_constants

    before = getattr(ray_constants, _TRIES, None)
    if before is not None:
        setattr(ray_constants, _TRIES, 2)
    try:
        yield
    finally:
        if before is not None:
            setattr(ray_constants, _TRIES, before)


def _require_there(address: str) -> None:
    """Refuse an address where nobody answers, which Ray itself asks for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_WITHIN).close()
    except (OSError, ValueError, OverflowError) as error:  # the last two where it is no host or no port
        raise RunnerError(
            f"--ray {_named(address)}: nobody answers there ({error}); give the address that "
            "`ray start --head` says"
        ) from error


def _named(address: str) -> str:
    """An address, shortened where it is long."""
    return brief(address)[1:-1]


def _placed(worker: int, said: tuple[str, str]) -> Event:
    where, refused = said
    return Event(worker, "refused", f"{where}: {refused}") if refused else Event(worker, "place", where)


def _ready(worker: int, said: tuple[Seen, ...] | str) -> Event:
    if isinstance(said, str):
        return Event(worker, "refused", said)
    return Event(worker, "ready", sides=said)


def _answered(worker: int, answer: Answer) -> Event:
    return Event(worker, "answer", answer=answer)


def _one_line(error: BaseException) -> str:
    """What Ray says, without its numbers and advice, or what was raised in a worker."""
    said = " ".join(str(error).split())
    return re.split(r"[.:]? (?:class_name|Worker exit type|The actor is dead|To troubleshoot)", said)[0][:300]


def _silence() -> None:
    """Keep Ray from printing a paragraph for each lost worker, which the pool mends: stdout is a report's."""
    with contextlib.suppress(Exception):
        from ray._private import worker

        worker.print_to_stdstream = lambda *_, **__: None
