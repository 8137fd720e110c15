"""What workers are worth: rates side by side, what each part takes, and kills that lose and double nothing.

    python benchmarks/workers.py --kills 50 --nodes --json workers.json

One worker and two workers over Ray beside one and two bare processes that do the same without Ray, on the
tiny pi0, in turn; with `--bundle DIR --model CHECKPOINT` on those. Then claims on a policy of numpy while its
workers are killed, each beside what one process says, to the byte. With `--nodes` the same on two nodes of
Ray's, each in a network namespace of its own (on Linux, as root), of which the second is killed and started
again; where the machine makes none, it says so.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

# ruff: noqa: E402
from side_by_side import ratio, table, write
from worker_cases import SPECS, Called, Off, plain

from pytest_reflex import check
from pytest_reflex.judge.sides import sides_of
from pytest_reflex.judge.workers.here import Here
from pytest_reflex.judge.workers.pool import Pool
from pytest_reflex.judge.workers.ray_crew import RayCrew
from pytest_reflex.judge.workers.shares import OWN
from pytest_reflex.judge.workers.work import Work, Worker

SPACES = ("reflex-one", "reflex-two")
HEAD, SECOND, PORT = "10.77.0.1", "10.77.0.2", 6399


class Given(NamedTuple):
    """What is judged: a bundle and its policy, or where there is none the tiny pi0, exported there."""

    bundle: Path
    model: str = ""


def held(given: Given) -> Work:
    """Both sides as every worker holds them."""
    from examples.tiny_pi0 import tiny_pi0 as policy
    from exporters import pi0
    from exporters.bundles import open_bundle
    from pytest_reflex.cli.reference import named_reference
    from pytest_reflex.inputs.fixtures import fixtures_from
    from pytest_reflex.settings import provider_name

    if not given.model and not given.bundle.is_dir():
        pi0.export(policy(), given.bundle, cameras=2, prompt_tokens=6, verify=False)
    bundle = open_bundle(given.bundle)
    reference = named_reference(bundle, given.model)[0] if given.model else policy()
    sides = sides_of(reference, bundle, None, provider_name("cpu"))
    fixtures = fixtures_from(sides.inputs, 5, 0)
    return Work(sides.reference, sides.candidate, fixtures.make, fixtures.specs, False, OWN)


def bare(given: Given, fixture_idxs: range, here: Here, gate: Any, told: Any) -> None:
    """One bare process: opens both sides, waits for the others, and runs its part."""
    here.take_over()  # spawned, it has the path already
    worker = Worker(held(given), here)
    gate.wait()
    begun = time.perf_counter()
    for idx in fixture_idxs:
        worker.judge(idx)
    told.put((begun, time.perf_counter()))


def bare_seconds(given: Given, draws: int, processes: int) -> float:
    """From the first that begins to the last that ends."""
    context = multiprocessing.get_context("spawn")
    gate, told, here = context.Barrier(processes), context.Queue(), Here.of_this_process()
    parts = [range(part, draws, processes) for part in range(processes)]
    made = [context.Process(target=bare, args=(given, part, here, gate, told)) for part in parts]
    for process in made:
        process.start()
    times = [told.get() for _ in made]
    for process in made:
        process.join()
    return max(ended for _, ended in times) - min(begun for begun, _ in times)


def worker_seconds(given: Given, draws: int, workers: int) -> tuple[float, float]:
    """What the first answer takes, with starting and loading; and all others, once every worker is ready."""
    began = time.perf_counter()
    pool = Pool(RayCrew(None, workers, held(given)), workers)
    try:
        warm = range(draws, draws + 4 * workers)
        pool.plan(warm)
        pool.get(warm[0])
        loaded = time.perf_counter() - began
        more = itertools.count(warm[-1])
        while len(pool.ready) < workers:
            pool.get(next(more))
        began = time.perf_counter()
        pool.plan(range(draws))
        for idx in range(draws):
            pool.get(idx)
            pool.done(idx)
        return loaded, time.perf_counter() - began
    finally:
        pool.close()


def rates(given: Given, draws: int, rounds: int) -> dict[str, Any]:
    """Fixtures a second of each way, in turn, and how they compare."""
    seconds: dict[str, list[float]] = {}
    loads: list[float] = []
    held(given)
    for _ in range(rounds):
        for count, words in ((1, "one"), (2, "two")):
            seconds.setdefault(f"{words} bare", []).append(bare_seconds(given, draws, count))
            loaded, took = worker_seconds(given, draws, count)
            seconds.setdefault(f"{words} over Ray", []).append(took)
            loads.append(loaded)
    rows = [{"way": name, "fixtures a second": draws / min(took)} for name, took in seconds.items()]
    table(f"{given.model or 'the tiny pi0'}, best of the rounds", rows)
    found = {
        "rates": rows,
        "two_to_one_over_ray": ratio(seconds, "one over Ray", "two over Ray"),
        "two_to_one_bare": ratio(seconds, "one bare", "two bare"),
        "start_and_load_seconds": min(loads),
    }
    print({name: value for name, value in found.items() if name != "rates"})
    return found


def merge(given: Given, share: str) -> dict[str, Any]:
    """What the first process itself takes for each fixture that workers ran."""
    work = held(given)
    used = {}
    # The first time pays for what both then have, such as Ray.
    for asked in ("50%", "50%", share):
        begun = time.process_time()
        result = check(work.reference, work.candidate, inputs=list(work.specs), claim=asked, workers=2)
        used[result.claim.judged if result.claim else 0] = time.process_time() - begun
    (few, least), (many, most) = sorted(used.items())
    return {"merge_seconds_a_fixture": (most - least) / (many - few), "first_process_seconds": least}


def said(candidate: Any, **options: Any) -> str:
    reference = Called(plain, name="reference", kind="torch")
    return json.dumps(check(reference, candidate, inputs=SPECS, **options).to_json())


class Killer(threading.Thread):
    """Kills workers, each some time after it is open, until enough are killed or the check ends.

    Args:
        folder: where workers leave their numbers.
        rng: what times are drawn with.
        kills: how many, at most.
        node: kills a node and starts it again, in place of every fifth worker; None where there is none.
    """

    def __init__(self, folder: Path, rng: random.Random, kills: int, node: Callable[[], None] | None) -> None:
        super().__init__(daemon=True)
        self.folder, self.rng, self.most, self.node = folder, rng, kills, node
        self.known, self.ended = {os.getpid()}, threading.Event()
        self.kills = self.nodes = 0

    def run(self) -> None:
        while not self.ended.wait(self.rng.uniform(0.02, 0.3)) and self.kills < self.most:
            fresh = sorted({int(one.name) for one in self.folder.iterdir()} - self.known)
            if not fresh:
                continue
            self.known.add(pid := self.rng.choice(fresh))
            if self.node is not None and self.rng.random() < 0.2:
                self.node()
                self.nodes += 1
                self.kills += 1
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.kills += 1


def killed(kills: int, seed: int, node: Callable[[], None] | None = None, **options: Any) -> dict[str, Any]:
    """Claims, one after the other, until so many workers were killed; those that said something else."""
    rng, found = random.Random(seed), {"kills": 0, "of_nodes": 0, "checks": 0, "different": 0}
    while found["kills"] < kills:
        with tempfile.TemporaryDirectory() as name:
            # Every second one is refused, in its fixture 70.
            wrong = [70] if found["checks"] % 2 else []
            candidate = Called(Off(*wrong, takes=0.02), Path(name), name="candidate")
            one = said(candidate, claim="3%")
            killer = Killer(Path(name), rng, kills - found["kills"], node)
            killer.start()
            try:
                two = said(candidate, claim="3%", workers=2, **options)
            finally:
                killer.ended.set()
                killer.join()
        found["checks"] += 1
        found["different"] += two != one
        found["kills"] += killer.kills
        found["of_nodes"] += killer.nodes
        print(found, flush=True)
    return found


def run(*words: str, check: bool = True) -> str:
    return subprocess.run(words, check=check, capture_output=True, text=True, timeout=120).stdout


def ray(space: str, *words: str) -> list[str]:
    return ["ip", "netns", "exec", space, sys.executable, "-m", "ray.scripts.scripts", *words]


def second() -> None:
    run(
        *ray(
            SPACES[1],
            *("start", f"--address={HEAD}:{PORT}", f"--node-ip-address={SECOND}", "--num-cpus=2"),
        )
    )


def ends(space: str) -> None:
    for pid in run("ip", "netns", "pids", space, check=False).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


@contextlib.contextmanager
def two_nodes() -> Iterator[str]:
    """Two nodes of Ray's in network namespaces that see each other and nothing else; their address."""
    try:
        for space in SPACES:
            run("ip", "netns", "add", space)
            run("ip", "-n", space, "link", "set", "lo", "up")
        run(
            "ip",
            "link",
            "add",
            "reflex1",
            "netns",
            SPACES[0],
            "type",
            "veth",
            "peer",
            "reflex2",
            "netns",
            SPACES[1],
        )
        for space, link, address in ((SPACES[0], "reflex1", HEAD), (SPACES[1], "reflex2", SECOND)):
            run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", link)
            run("ip", "-n", space, "link", "set", link, "up")
        head = ("start", "--head", f"--port={PORT}", f"--node-ip-address={HEAD}", "--num-cpus=2")
        run(*ray(SPACES[0], *head, "--include-dashboard=false"))
        second()
        yield f"{HEAD}:{PORT}"
    finally:
        for space in SPACES:
            ends(space)
            run("ip", "netns", "del", space, check=False)


def nodes(kills: int, seed: int) -> dict[str, Any]:
    """Kills of workers and of the second node, from a process in the first one's namespace."""
    if shutil.which("ip") is None or os.getuid() != 0:
        return {"not_run": "two nodes want network namespaces, which root alone makes, with `ip`"}
    try:
        with two_nodes() as address, tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "nodes.json"
            words = ("--inside", address, "--kills", str(kills), "--seed", str(seed), "--json", str(out))
            here = ["ip", "netns", "exec", SPACES[0], sys.executable, __file__, *words]
            subprocess.run(here, check=True, timeout=1800)
            found: dict[str, Any] = json.loads(out.read_text())["rows"][0]
            return found
    except (OSError, subprocess.SubprocessError) as error:
        return {"not_run": f"{type(error).__name__}: {error}"}


def restarted() -> None:
    ends(SPACES[1])
    second()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--draws", type=int, default=150, help="fixtures of each rate")
    options.add_argument("--rounds", type=int, default=3, help="how often each rate is taken, in turn")
    options.add_argument("--bundle", type=Path, help="judge this one with its --model, not the tiny pi0")
    options.add_argument("--model", default="", help="the policy of --bundle: a checkpoint")
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--nodes", action="store_true", help="two nodes in network namespaces, too")
    options.add_argument("--inside", metavar="ADDRESS", help=argparse.SUPPRESS)
    options.add_argument("--json", type=Path)
    told = options.parse_args()
    if bool(told.bundle) != bool(told.model):
        options.error("--bundle and --model are given together")
    if told.inside:
        found = killed(told.kills, told.seed, restarted, ray=told.inside)
        write(told.json, "workers on nodes", [found])
        return 0
    found: dict[str, Any] = {}
    if told.rounds:
        with tempfile.TemporaryDirectory() as folder:
            given = Given(told.bundle or Path(folder) / "p0", told.model)
            found |= rates(given, told.draws, told.rounds) | (merge(given, "2%") if not told.model else {})
    kills = {"one machine": killed(told.kills, told.seed)} if told.kills else {}
    if told.nodes:
        kills["two nodes"] = nodes(told.kills, told.seed)
    print(json.dumps(kills, indent=2))
    write(told.json, "workers", found.pop("rates", []), kills=kills, **found)
    return int(any(one.get("different") for one in kills.values()))


if __name__ == "__main__":
    sys.exit(main())
