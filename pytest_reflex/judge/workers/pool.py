"""Which fixture goes to which worker, and what becomes of it when that worker is slow, or is no more.

The first process asks for answers by number, in the order in which it judges; here they are had in the order
in which workers give them. An answer is kept under its fixture's number, the first one that comes: so none is
lost with its worker, for the fixture is asked of another, and none counts twice.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from pytest_reflex.errors import RunnerError
from pytest_reflex.judge.workers.here import Seen, unlike
from pytest_reflex.judge.workers.work import Answer

__all__ = ["Crew", "Event", "Pool"]

# A fixture that so many workers ended with is what ends them.
LOSSES: Final = 5
# So many workers in a row that end before they are ready are what every other would be, too.
UNREADY: Final = 5
# A fixture that takes so many times as long as the slowest before it is asked of an idle worker, too.
STRAGGLING: Final = 2.0
# Workers are asked for so many fixtures each beyond the one that the first process waits for.
AHEAD: Final = 2
# How long to wait for a place for the first worker, in seconds, and between two looks at stragglers.
PLACED_WITHIN: Final = 120.0
LOOK_EVERY: Final = 1.0


@dataclass(frozen=True)
class Event:
    """What became of what a worker was asked.

    Attributes:
        worker: its number.
        what: it has a ``place``, it is ``ready``, it gave an ``answer``, it is ``lost`` or it ``refused``.
        said: why it is lost or refused; where it runs.
        sides: what its two sides are, once it is ready.
        answer: the answer.
        memory: whether it is lost for want of memory.
    """

    worker: int
    what: Literal["place", "ready", "answer", "lost", "refused"]
    said: str = ""
    sides: tuple[Seen, ...] = ()
    answer: Answer | None = None
    memory: bool = False


class Crew(Protocol):
    """Processes that each hold both sides."""

    def start(self) -> int:
        """Have one more, and give its number."""

    def ask(self, worker: int, fixture_idx: int) -> None:
        """Have one judge a fixture."""

    def wait(self, seconds: float) -> list[Event]:
        """What has become of what was asked, as soon as anything has; nothing when the time is over."""

    def close(self) -> None:
        """End all of them."""


class Pool:
    """Answers by fixture, from workers.

    Args:
        crew: the workers.
        size: how many of them there are to be.
        now: the clock, in seconds.

    Attributes:
        size: how many there are to be, which is fewer once memory did not hold them.
    """

    def __init__(self, crew: Crew, size: int, now: Callable[[], float] = time.monotonic) -> None:
        self._crew, self.size, self._now = crew, size, now
        self._alive: set[int] = set()
        self._idle: list[int] = []
        self._where: dict[int, str] = {}
        self._sides: dict[int, tuple[Seen, ...]] = {}
        self._ours: list[Seen] = []
        self._out: dict[int, tuple[int, float]] = {}  # worker -> fixture, and since when
        self._found: dict[int, Answer] = {}
        self._fresh: set[int] = set()  # found, and not asked for yet
        self._needless: set[int] = set()  # done, while a second worker is still at it
        self._again: deque[int] = deque()
        self._plan: Sequence[int] = ()
        self._next = 0
        self._awaited: int | None = None
        self._losses: Counter[int] = Counter()
        self._unready, self._slowest = 0, 0.0
        self._begun: float | None = None

    def plan(self, fixture_idxs: Sequence[int]) -> None:
        """Say which fixtures will be asked for, in order, in place of what was said before.

        They are handed out ahead of being asked for. What is known of others is dropped. Ones that are all of
        the plan already leave it as it is.
        """
        if all(idx in self._plan for idx in fixture_idxs):
            return
        self._plan, self._next, self._needless = fixture_idxs, 0, set()
        self._again = deque(idx for idx in self._again if idx in fixture_idxs)
        self._found = {idx: one for idx, one in self._found.items() if idx in fixture_idxs}
        self._fresh &= self._found.keys()
        while len(self._alive) < min(self.size, len(fixture_idxs)):
            self._start()

    def require_same(self, *ours: Seen) -> None:
        """Say what the first process's sides are, which every worker's have to be.

        Raises:
            RunnerError: a worker's are others.
        """
        self._ours = [*ours]
        for worker in self._sides:
            self._compare(worker)

    def answer(self, fixture_idx: int, until: float = math.inf) -> Answer | None:
        """What was given in a fixture, as soon as that is known; None where that moment comes first.

        It is kept until :meth:`done`.

        Raises:
            RunnerError: a worker cannot open its sides or is another than this process, the fixture ends
                every worker that it is asked of, or no worker has a place.
        """
        if fixture_idx not in self._plan:
            self.plan([fixture_idx])
        self._awaited = fixture_idx
        while fixture_idx not in self._found:
            self._hand_out()
            left = until - self._now()
            if left <= 0:
                return None
            for event in self._crew.wait(min(left, LOOK_EVERY)):
                self._take(event)
            self._require_place()
        self._fresh.discard(fixture_idx)
        self._hand_out()  # what it made room for
        return self._found[fixture_idx]

    def get(self, fixture_idx: int) -> Answer:
        """What was given in a fixture, however long that takes; see :meth:`answer`."""
        found = self.answer(fixture_idx)
        if found is None:
            raise RunnerError(f"fixture {fixture_idx} has no answer, which a clock that ends cannot be")
        return found

    def done(self, fixture_idx: int) -> None:
        """Let go of an answer, which nobody will ask for again."""
        self._found.pop(fixture_idx, None)
        self._awaited = None
        self._needless = (self._needless | {fixture_idx}) & self._asked

    def asked_again(self, fixture_idx: int) -> list[tuple[str, Answer]]:
        """What every worker gives in a fixture, and where it runs, asked when all else is done.

        Of one that ends meanwhile there is nothing, and none starts in its place.
        """
        self._plan, self._awaited = (), None
        self._again.clear()
        found: list[tuple[str, Answer]] = []
        left, asked = self.ready, set[int]()
        while left:
            for worker in [one for one in self._idle if one in left and one not in asked]:
                self._idle.remove(worker)
                self._crew.ask(worker, fixture_idx)
                asked.add(worker)
            for event in self._crew.wait(LOOK_EVERY):
                if event.worker in left and event.what in ("lost", "refused"):
                    left.discard(event.worker)
                elif event.worker in asked and event.answer is not None:
                    found.append((self._place(event.worker), event.answer))
                    left.discard(event.worker)
                elif event.worker in left and event.answer is not None:  # what it was still at
                    self._idle.append(event.worker)
        return found

    def close(self) -> None:
        self._crew.close()

    @property
    def ready(self) -> set[int]:
        """The workers that have both sides open."""
        return self._alive & self._sides.keys()

    @property
    def _asked(self) -> set[int]:
        return {idx for idx, _ in self._out.values()}

    def _wanted(self, idx: int) -> bool:
        return idx in self._plan and idx not in self._found and idx not in self._needless

    def _start(self) -> None:
        self._begun = self._begun or self._now()
        self._alive.add(self._crew.start())

    def _hand_out(self) -> None:
        """Give every idle worker a fixture: one that was lost, the next, or what another is slow with."""
        while self._idle and (idx := self._next_idx()) is not None:
            worker = self._idle.pop()
            self._out[worker] = idx, self._now()
            self._crew.ask(worker, idx)

    def _next_idx(self) -> int | None:
        if self._again:
            return self._again.popleft()
        asked = self._asked
        # Whatever is ahead of it, what is waited for is asked.
        if self._awaited is not None and self._wanted(self._awaited) and self._awaited not in asked:
            return self._awaited
        while self._next < len(self._plan) and len(self._fresh) + len(asked) < AHEAD * self.size:
            idx = self._plan[self._next]
            self._next += 1
            if idx not in self._found and idx not in asked:
                return idx
        return self._straggler()

    def _straggler(self) -> int | None:
        """Of what one worker alone is slow with, what it was given first."""
        now, count = self._now(), Counter(idx for idx, _ in self._out.values())
        late = [
            (since, idx)
            for idx, since in self._out.values()
            if count[idx] == 1
            and self._wanted(idx)
            and self._slowest
            and now - since > STRAGGLING * self._slowest
        ]
        return min(late)[1] if late else None

    def _take(self, event: Event) -> None:
        worker = event.worker
        if worker not in self._alive:
            return
        if event.what == "place":
            self._where[worker] = event.said
        elif event.what == "ready":
            self._unready = 0
            self._sides[worker] = event.sides
            self._compare(worker)
            self._idle.append(worker)
        elif event.what == "answer" and event.answer is not None:
            self._keep(worker, event.answer)
        elif event.what == "lost":
            self._lose(event)
        else:
            raise RunnerError(f"the worker on {self._place(worker)} cannot be one: {event.said}")

    def _keep(self, worker: int, answer: Answer) -> None:
        idx, since = self._out.pop(worker)
        self._slowest = max(self._slowest, self._now() - since)
        self._idle.append(worker)
        if self._wanted(idx):
            self._found[idx] = answer
            self._fresh.add(idx)

    def _lose(self, event: Event) -> None:
        """Ask what it was asked of another, and have another in its place."""
        worker = event.worker
        self._alive.discard(worker)
        self._idle = [one for one in self._idle if one != worker]
        if worker in self._out:
            idx, _ = self._out.pop(worker)
            self._losses[idx] += 1
            if self._losses[idx] >= LOSSES:
                raise RunnerError(
                    f"fixture {idx} ended every worker that it was asked of, {LOSSES} of them (the last on "
                    f"{self._place(worker)}: {event.said}); run it alone, with --workers 1, to see why"
                )
            if self._wanted(idx) and idx not in self._asked:
                self._again.appendleft(idx)
        elif worker not in self._sides:
            self._unready += 1
            if self._unready >= UNREADY:
                raise RunnerError(
                    f"{UNREADY} workers in a row ended before they were ready (the last on "
                    f"{self._place(worker)}: {event.said}); give fewer, or more memory"
                )
        if event.memory and self._alive:
            self.size = len(self._alive)  # memory does not hold more
        else:
            self._start()

    def _compare(self, worker: int) -> None:
        for side, ours, theirs in zip(
            ("reference", "candidate"), self._ours, self._sides[worker], strict=False
        ):
            if said := unlike(ours, theirs):
                raise RunnerError(
                    f"the {side} of the worker on {self._place(worker)} is not that of the first process: "
                    f"{said}; one verdict is of one machine, one version and one file, and --workers 1 is of "
                    "this one"
                )

    def _require_place(self) -> None:
        if not self._where and self._begun is not None and self._now() - self._begun > PLACED_WITHIN:
            raise RunnerError(
                f"no worker found a place in {PLACED_WITHIN:g} s: no node has a free core; end what takes "
                "them, or ask for fewer workers"
            )

    def _place(self, worker: int) -> str:
        return self._where.get(worker, "a node that is not known")
