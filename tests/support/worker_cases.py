"""Policies of numpy that workers can be sent, which say where they run, and can be told to end there."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from pytest_reflex.inputs import Bernoulli, InputSpec, make_fixture
from pytest_reflex.judge.workers.shares import OWN
from pytest_reflex.runners.base import RunnerBase

SPECS = [InputSpec("x", (1, 8)), InputSpec("mask", (1, 8), "bool", Bernoulli())]


def plain(x, mask):
    return {"actions": np.where(mask, np.float32(2) * x + np.float32(0.5), np.float32(0))}


class Called(RunnerBase):
    """A runner around a function of the inputs, which leaves its process's number in a folder once it judges.

    What a worker is asked before, to see whether it is as the first process is, does not count.
    """

    def __init__(self, function, folder: Path | None = None, name="function", **facts):
        self.name, self.function, self.folder, self.given = name, function, folder, facts
        self.runs: dict[int, int] = {}  # by process: a worker is sent what ran in the first

    def open(self):
        pass

    def run(self, inputs):
        here = os.getpid()
        self.runs[here] = self.runs.get(here, 0) + 1
        if self.folder is not None and self.runs[here] > OWN:
            (self.folder / str(here)).touch()
        return self.function(**inputs)

    def close(self):
        pass

    def facts(self):
        return {"kind": "function", **self.given}


class Off:
    """What the plain policy gives, off by rounding, and by ``far`` in some fixtures.

    Args:
        fixture_idxs: which.
        far: how far; None raises there.
        takes: how long a run takes, in seconds.
    """

    def __init__(self, *fixture_idxs: int, far: float | None = 1.0, takes: float = 0.0) -> None:
        self.found = [make_fixture(SPECS, 0, idx)["x"].tobytes() for idx in fixture_idxs]
        self.far, self.takes = far, takes

    def __call__(self, x, mask):
        time.sleep(self.takes)
        moved = plain(x, mask)["actions"] + np.float32(1e-6)
        if x.tobytes() not in self.found:
            return {"actions": moved}
        if self.far is None:
            raise ValueError(f"no answer to {x[0, 0]:.3f}")
        return {"actions": moved + np.float32(self.far)}


class Strays(Off):
    """Off by rounding in another way from so many runs in a process on."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after, self.runs = after, 0

    def __call__(self, x, mask):
        self.runs += 1
        return {"actions": super().__call__(x, mask)["actions"] + np.float32(1e-6 * (self.runs > self.after))}


class Ends(Off):
    """Ends its process in some fixtures, where it is not the one that made it."""

    def __init__(self, *fixture_idxs: int) -> None:
        super().__init__(*fixture_idxs)
        self.home = os.getpid()

    def __call__(self, x, mask):
        if x.tobytes() in self.found and os.getpid() != self.home:
            os._exit(9)
        return plain(x, mask)
