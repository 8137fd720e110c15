"""Handing fixtures out: none is lost with its worker, none is judged twice, and what cannot end is said."""

from __future__ import annotations

import heapq
import itertools
import os
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pytest_reflex.errors import RunnerError
from pytest_reflex.judge.workers.here import Here, Seen, gave, unlike
from pytest_reflex.judge.workers.pool import AHEAD, LOSSES, UNREADY, Event, Pool
from pytest_reflex.judge.workers.work import Answer
from pytest_reflex.verdict import machine

pytestmark = pytest.mark.once

SAME = Seen({"kind": "onnx", "sha256": {"model.onnx": "ab"}, "threads": 2}, ("bits", "more", "most"))


class Crowd:
    """Workers in a time of their own, which nobody waits for.

    Args:
        seed: what durations and losses are drawn with.
        loss: how likely it is that a worker ends with a fixture, or before it is ready.
        ends: fixtures that end each worker.
        slow: of some fixtures how much longer the first worker takes that is asked.
        placed: whether a worker ever has a place.
        memory: how many the memory holds.
        sides: what each worker's sides are.
    """

    def __init__(self, seed=0, loss=0.0, ends=(), slow=None, placed=True, memory=1 << 30, sides=(SAME, SAME)):
        self.rng, self.now, self.loss, self.ends = random.Random(seed), 0.0, loss, set(ends)
        self.slow, self.placed, self.memory, self.sides = dict(slow or {}), placed, memory, sides
        self.numbers, self.order = itertools.count(), itertools.count()
        self.alive: set[int] = set()
        self.coming: list[tuple[float, int, Event]] = []
        self.asked: list[tuple[int, int]] = []
        self.closed = False

    def clock(self) -> float:
        return self.now

    def later(self, seconds: float, event: Event) -> None:
        heapq.heappush(self.coming, (self.now + seconds, next(self.order), event))

    def start(self) -> int:
        worker = next(self.numbers)
        self.alive.add(worker)
        if len(self.alive) > self.memory:
            self.later(1, Event(worker, "lost", "out of memory", memory=True))
        elif self.placed:
            self.later(1, Event(worker, "place", f"node {worker % 3}"))
            lost = self.rng.random() < self.loss
            self.later(
                2, Event(worker, "lost", "it died") if lost else Event(worker, "ready", sides=self.sides)
            )
        return worker

    def ask(self, worker: int, fixture_idx: int) -> None:
        assert worker in self.alive
        self.asked.append((worker, fixture_idx))
        takes = self.rng.uniform(0.5, 1.5) * self.slow.pop(fixture_idx, 1)
        lost = fixture_idx in self.ends or self.rng.random() < self.loss
        answer = Answer(fixture_idx, (), {}, {}, {}, {})
        self.later(
            takes, Event(worker, "lost", "it died") if lost else Event(worker, "answer", answer=answer)
        )

    def wait(self, seconds: float) -> list[Event]:
        if not self.coming or self.coming[0][0] > self.now + seconds:
            self.now += seconds
            return []
        self.now, _, event = heapq.heappop(self.coming)
        if event.what == "lost":
            self.alive.discard(event.worker)
            self.coming = [one for one in self.coming if one[2].worker != event.worker]
            heapq.heapify(self.coming)
        return [event]

    def close(self) -> None:
        self.closed = True


def answered(crowd: Crowd, idxs, size=3) -> list[int]:
    pool = Pool(crowd, size, crowd.clock)
    pool.plan(idxs)
    found = []
    for idx in idxs:
        found.append(pool.get(idx).fixture_idx)
        pool.done(idx)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_lost_and_nothing_doubled_whoever_ends_and_whoever_is_slow(seed: int) -> None:
    crowd = Crowd(seed, loss=0.15, slow={seed: 100, seed + 7: 300})
    assert answered(crowd, range(3, 80)) == [*range(3, 80)]
    assert len(set(crowd.asked)) == len(crowd.asked)
    assert len({worker for worker, _ in crowd.asked}) > 3  # some were lost


def test_without_losses_each_is_asked_once() -> None:
    crowd = Crowd(1)
    assert answered(crowd, range(200), size=8) == [*range(200)]
    assert max(Counter(idx for _, idx in crowd.asked).values()) == 1
    assert len({worker for worker, _ in crowd.asked}) == 8


@pytest.mark.parametrize("idxs", [range(5, 6), range(0), range(5, 7), [10**12, 3, 7]])
def test_there_are_no_more_workers_than_fixtures(idxs) -> None:
    crowd = Crowd()
    assert answered(crowd, idxs, size=50) == [*idxs]
    assert next(crowd.numbers) == len(idxs)


def test_a_straggler_s_fixture_is_asked_of_another() -> None:
    crowd = Crowd(2, slow={10: 1000})
    assert answered(crowd, range(40)) == [*range(40)]
    assert Counter(idx for _, idx in crowd.asked)[10] == 2
    assert len({worker for worker, idx in crowd.asked if idx == 10}) == 2


def test_no_more_are_asked_ahead_than_workers_can_hold() -> None:
    crowd = Crowd(3)
    pool = Pool(crowd, 4, crowd.clock)
    pool.plan(range(3_000_000_000))
    for idx in range(30):
        pool.get(idx)
        assert max(ahead for _, ahead in crowd.asked) <= idx + 4 * AHEAD
        pool.done(idx)


def test_a_fixture_that_ends_every_worker_ends_the_check() -> None:
    crowd = Crowd(4, ends=[17])
    with pytest.raises(RunnerError, match=r"fixture 17 ended every worker that it was asked of, \d+ of them"):
        answered(crowd, range(40))
    assert Counter(idx for _, idx in crowd.asked)[17] == LOSSES


def test_workers_that_never_get_ready_end_the_check() -> None:
    crowd = Crowd(5, loss=1.0)
    with pytest.raises(RunnerError, match=r"workers in a row ended before they were ready .*: it died"):
        answered(crowd, range(40))
    assert next(crowd.numbers) < UNREADY + 3


def test_without_a_place_for_any_it_ends() -> None:
    with pytest.raises(RunnerError, match="no worker found a place"):
        answered(Crowd(placed=False), range(40))


def test_where_memory_holds_fewer_those_do_the_work() -> None:
    crowd = Crowd(6, memory=2)
    assert answered(crowd, range(60), size=4) == [*range(60)]
    assert next(crowd.numbers) == 4  # none was started in place of those
    assert len({worker for worker, _ in crowd.asked}) == 2


def test_an_answer_is_not_waited_for_beyond_a_moment() -> None:
    crowd = Crowd(7, slow={0: 1000})
    pool = Pool(crowd, 1, crowd.clock)
    pool.plan(range(5))
    assert pool.answer(0, crowd.now + 50) is None
    assert pool.answer(0) is not None  # nothing of it was lost
    pool.close()
    assert crowd.closed


def test_what_is_asked_for_out_of_turn_is_answered_too() -> None:
    crowd = Crowd(8)
    pool = Pool(crowd, 1, crowd.clock)
    pool.plan(range(60, 90))
    assert [pool.get(idx).fixture_idx for idx in (60, 88, 63, 61, 89, 62)] == [60, 88, 63, 61, 89, 62]


def test_another_plan_lets_go_of_the_last() -> None:
    crowd = Crowd(8)
    pool = Pool(crowd, 2, crowd.clock)
    pool.plan(range(100))
    pool.get(0)
    pool.plan([200, 201])
    assert [pool.get(idx).fixture_idx for idx in (200, 201)] == [200, 201]


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        (Seen(SAME.facts, ("others", "more", "most")), "it gives other bits in fixture 0"),
        (Seen(SAME.facts, ("bits", "more", "others")), "it gives other bits in fixture 2"),
        (Seen(SAME.facts, ("bits", "failed: no", "most")), "it failed: no in fixture 1"),
        (
            Seen({**SAME.facts, "sha256": {"model.onnx": "cd"}}, SAME.digests),
            "sha256 model.onnx is cd there and ab here",
        ),
        (Seen({**SAME.facts, "threads": 4}, SAME.digests), "threads is 4 there and 2 here"),
    ],
)
def test_a_worker_that_is_another_ends_the_check(theirs: Seen, said: str) -> None:
    assert unlike(SAME, theirs) == said
    crowd = Crowd(9, sides=(SAME, theirs))
    wrong = r"the candidate of the worker on node \d is not that of the first"
    pool = Pool(crowd, 2, crowd.clock)
    pool.require_same(SAME, SAME)
    pool.plan(range(9))
    with pytest.raises(RunnerError, match=wrong):
        pool.get(0)
    # What was used before the first process had its own is taken back.
    pool = Pool(crowd, 2, crowd.clock)
    pool.plan(range(9))
    pool.get(0)
    with pytest.raises(RunnerError, match=wrong):
        pool.require_same(SAME, SAME)


def test_bits_that_never_come_again_are_not_compared() -> None:
    restless = Seen.of(SAME.facts, [gave({"actions": np.zeros(2)})], repeats=False)
    assert unlike(restless, Seen(SAME.facts, ("others",))) == ""
    assert (
        unlike(restless, Seen({**SAME.facts, "threads": 4}, ("others",))) == "threads is 4 there and 2 here"
    )


def test_threads_of_a_worker_that_wait_leave_their_core_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(machine.WAITING, "ACTIVE")
    Here.of_this_process().take_over()
    assert os.environ[machine.WAITING] == "ACTIVE"
    del os.environ[machine.WAITING]
    Here.of_this_process().take_over()
    assert os.environ[machine.WAITING] == "PASSIVE"


def test_a_process_that_is_another_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(machine.WAITING, "PASSIVE")
    here = Here.of_this_process()
    here.take_over()
    for other, said in [
        (replace(here, version="0.0.1"), "pytest-reflex is .* there and 0.0.1 here"),
        (replace(here, python="2.7.18"), "Python is .* there and 2.7.18 here"),
        (
            replace(here, machine={**here.machine, "processor": "abacus"}),
            "processor is .* there and abacus here",
        ),
        (replace(here, folder="/nowhere/at/all"), "there is no folder /nowhere/at/all"),
    ]:
        with pytest.raises(RunnerError, match=said):
            other.take_over()
