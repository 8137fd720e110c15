"""What strangers and many robots do to ``reflex serve``: hostile messages, then 30 Hz from several clients.

    python benchmarks/serve_load.py                       # 10,000 messages, then 8 clients for 60 s
    python benchmarks/serve_load.py --bundle p0 --json serve.json

By default the bundle of ``examples/own_policy.py`` is made and served, in a process of its own on loopback.

*fuzz*: seeded random bytes, valid messages cut off, bit-flipped or with other dtypes, shapes and names, huge
declared sizes, deep nesting, text, messages over the limit, and connections dropped at every stage. The
server's resident memory (VmRSS) is read after ``--warm-up`` such messages and good ones in between, and again
at the end. Good requests in between and after must be answered with the local policy's bits.

*load*: each client asks at its own fixed times, whether or not the answer before was late. A latency is from
the time a request was due to its answer. Exit 1 if anything was not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import logging
import os
import platform
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from exporters import Policy, open_bundle
from pytest_reflex.inputs import make_fixture
from pytest_reflex.runners import wire

ROOT = Path(__file__).resolve().parents[1]
MAY_GROW = 0.05
OPTIONS: dict[str, Any] = {"compression": None, "proxy": None, "max_size": None}


@contextlib.contextmanager
def serving(bundle: Path, max_size: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "pytest_reflex", "serve", str(bundle), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("REFLEX_API_KEY", None)
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [*command, "--max-size", str(max_size)],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=environment,
        )
        try:
            lines = [process.stdout.readline().strip() for _ in range(2)] if process.stdout else []
            if not lines[-1].startswith("serving "):
                said.seek(0)
                raise SystemExit(f"the server did not start: {lines} {said.read()}")
            yield process, lines[-1].rpartition(" ")[2]
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()


def resident(process: subprocess.Popen[str]) -> int:
    """VmRSS in bytes; 0 where the process is gone."""
    status = Path(f"/proc/{process.pid}/status")
    found = re.search(r"^VmRSS:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


class Fuzzer:
    """Hostile messages and connections, the same for the same seed."""

    def __init__(self, url: str, observation: dict[str, np.ndarray], max_size: int, seed: int) -> None:
        self.url = url
        self.address = ("127.0.0.1", int(url.rpartition(":")[2]))
        self.observation = observation
        self.packed = wire.encode(observation)
        self.max_size = max_size
        self.rng = random.Random(seed)
        self.seen: collections.Counter[str] = collections.Counter()
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._connection: ClientConnection | None = None
        self._kinds: list[tuple[str, Callable[[], bytes | str]]] = [
            ("random bytes", lambda: self.rng.randbytes(self.rng.randrange(2000))),
            ("cut off", lambda: self.packed[: self.rng.randrange(len(self.packed))]),
            ("bits flipped", self._flipped),
            ("array keys changed", self._array),
            ("fields changed", self._fields),
            ("huge sizes declared", self._declared),
            ("nested deep", self._nested),
            ("many items", self._items),
            (
                "text",
                lambda: "".join(chr(self.rng.randrange(1, 0xD800)) for _ in range(self.rng.randrange(200))),
            ),
        ]
        self._abrupt: list[tuple[str, Callable[[], None]]] = [
            ("over the limit", self._oversized),
            ("dropped after a request", self._dropped),
            ("half closed", self._half_closed),
            ("no web socket", self._raw),
            ("broken frames", self._frames),
        ]

    def one(self) -> None:
        """Send one hostile message; whatever the server does must leave it serving."""
        if self.rng.random() < 0.1:
            name, act = self.rng.choice(self._abrupt)
            self.seen[name] += 1
            with contextlib.suppress(OSError, EOFError, ConnectionClosed):
                act()
            return
        name, make = self.rng.choice(self._kinds)
        self.seen[name] += 1
        try:
            if self._connection is None:
                self._connection = connect(self.url, **OPTIONS)
                self._connection.__enter__()
                self._connection.recv(timeout=60)
            self._connection.send(make())
            reply = self._connection.recv(timeout=60)
        except ConnectionClosed as closed:
            self._connection = None
            code = closed.rcvd.code if closed.rcvd else "none"
            self.outcomes[f"closed with {code}"] += 1
            return
        if isinstance(reply, bytes):
            # A flipped bit of a float is a good observation of something else.
            self.outcomes["actions"] += 1
        else:
            good = len(reply.splitlines()) == 1 and str(ROOT) not in reply and "Traceback" not in reply
            self.outcomes["an error of one line" if good else f"BAD TEXT {reply!r}"] += 1

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _flipped(self) -> bytes:
        message = bytearray(self.packed)
        for _ in range(self.rng.choice((1, 1, 1, 4, 64))):
            # Mostly where the structure is: floats fill the rest.
            at = self.rng.randrange(min(200, len(message)) if self.rng.random() < 0.5 else len(message))
            message[at] ^= 1 << self.rng.randrange(8)
        return bytes(message)

    def _array(self) -> bytes:
        name = self.rng.choice(list(self.observation))
        array = self.observation[name]
        whole: dict[bytes, Any] = {
            b"__ndarray__": True,
            b"data": array.tobytes(),
            b"dtype": array.dtype.str,
            b"shape": list(array.shape),
        }
        huge = [2**63 - 1, 2**40, 2**31, 0, -1, 1.5, None, True]
        changes: list[tuple[bytes, Any]] = [
            *(
                (b"dtype", d)
                for d in ("|O", "<c8", "<U4", "<M8[s]", "V8", "<f4,<f4", ">f4", "|b1", "<i8", 4, None)
            ),
            *((b"shape", s) for s in ([h] for h in huge)),
            *((b"shape", s) for s in ([2**32, 2**32], [0, 2**62], [], [1] * 40, "3", {}, [[1]])),
            *((b"data", d) for d in (b"", b"\0", "text", 7, None, self.rng.randbytes(64))),
            (b"__ndarray__", False),
            (b"more", 1),
        ]
        key, value = self.rng.choice(changes)
        whole[key] = value
        if self.rng.random() < 0.2:
            del whole[self.rng.choice(list(whole))]
        packer = msgpack.Packer(default=lambda v: wire._plain(v))
        return bytes(packer.pack({**self.observation, name: whole}))

    def _fields(self) -> bytes:
        name = self.rng.choice(list(self.observation))
        array, changed = self.observation[name], dict(self.observation)
        changes: list[Callable[[], Any]] = [
            lambda: changed.pop(name),
            lambda: changed.update({name * self.rng.randrange(2, 9): array}),
            lambda: changed.update({name: array[..., :1]}),
            lambda: changed.update({name: np.stack([array, array])}),
            lambda: changed.update({name: array.astype(self.rng.choice(["f2", "f8", "i4", "u1", "?"]))}),
            lambda: changed.update(
                {name: np.full(array.shape, np.nan).astype(array.dtype, casting="unsafe")}
            ),
            lambda: changed.update({name: self.rng.choice([None, 1, "text", [1, 2], {"a": array}, b"b"])}),
        ]
        with np.errstate(invalid="ignore"):
            self.rng.choice(changes)()
        return wire.encode(changed)

    def _declared(self) -> bytes:
        head = self.rng.choice(
            [
                *(kind + b"\xff\xff\xff\xff" for kind in (b"\xc6", b"\xdb", b"\xdd", b"\xdf", b"\xc9")),
                b"\x81\xa5state\xc6\x7f\xff\xff\xff",
                b"\xdc\x03\xff" * 300,
            ]
        )
        return head + self.rng.randbytes(self.rng.randrange(50))

    def _nested(self) -> bytes:
        return self.rng.choice([b"\x91", b"\x81\xa1a", b"\x81\xa1a\x91"]) * self.rng.choice(
            [10, 30, 500, 5000]
        )

    def _items(self) -> bytes:
        inner = b"\xdc\x03\xe8" + self.rng.choice([b"\x80", b"\x90", b"\xc0", b"\xa0"]) * 1000
        return b"\x81\xa5state\xdc\x00\x32" + inner * 50

    def _oversized(self) -> None:
        with connect(self.url, **OPTIONS) as connection:
            connection.recv(timeout=60)
            connection.send(bytes(self.max_size + 1 + self.rng.randrange(1000)))
            connection.recv(timeout=60)

    def _dropped(self) -> None:
        with connect(self.url, **OPTIONS) as connection:
            connection.recv(timeout=60)
            connection.send(self.packed)
            # The connection is reset: what is unread is thrown away.
            linger = (1).to_bytes(4, sys.byteorder) + (0).to_bytes(4, sys.byteorder)
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.socket.close()

    def _half_closed(self) -> None:
        with connect(self.url, **OPTIONS) as connection:
            connection.recv(timeout=60)
            connection.send(self.packed)
            connection.socket.shutdown(socket.SHUT_WR)

    def _raw(self) -> None:
        head = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        with socket.create_connection(self.address, timeout=60) as raw:
            raw.sendall(
                self.rng.choice([b"", self.rng.randbytes(500), head, head + b"\r\n", b"GET /healthz"])
            )

    def _frames(self) -> None:
        with connect(self.url, **OPTIONS) as connection:
            connection.recv(timeout=60)
            connection.socket.sendall(self.rng.randbytes(self.rng.randrange(1, 300)))
            connection.recv(timeout=0.05)


def good(url: str, observation: dict[str, np.ndarray], wanted: bytes) -> bool:
    """Whether a new client is answered with the right bits."""
    with connect(url, **OPTIONS) as connection:
        connection.recv(timeout=60)
        connection.send(wire.encode(observation))
        reply = connection.recv(timeout=60)
    return isinstance(reply, bytes) and next(iter(wire.decode(reply).values())).tobytes() == wanted


def fuzz(
    process: subprocess.Popen[str], fuzzer: Fuzzer, wanted: bytes, messages: int, warm_up: int
) -> dict[str, Any]:
    every = 100
    right = 0
    asked = 0

    def run(count: int) -> None:
        nonlocal right, asked
        for number in range(1, count + 1):
            fuzzer.one()
            if number % every == 0 or number == count:
                asked += 1
                right += good(fuzzer.url, fuzzer.observation, wanted)

    run(warm_up)
    fuzzer.seen.clear()
    fuzzer.outcomes.clear()
    before, begin = resident(process), time.perf_counter()
    run(messages)
    seconds = time.perf_counter() - begin
    fuzzer.close()
    after = resident(process)
    bad = [outcome for outcome in fuzzer.outcomes if outcome.startswith("BAD")]
    return {
        "messages": messages,
        "warm_up": warm_up,
        "seconds": seconds,
        "kinds": dict(sorted(fuzzer.seen.items())),
        "outcomes": dict(sorted(fuzzer.outcomes.items())),
        "good_requests": asked,
        "good_answers": right,
        "rss_before_bytes": before,
        "rss_after_bytes": after,
        "rss_growth": after / before - 1,
        "passed": right == asked and not bad and after <= before * (1 + MAY_GROW) and process.poll() is None,
    }


async def load(
    url: str,
    sent: list[dict[str, np.ndarray]],
    wanted: list[bytes],
    clients: int,
    hertz: float,
    seconds: float,
) -> dict[str, Any]:
    packed = [wire.encode(observation) for observation in sent]
    latencies: list[float] = []
    errors: collections.Counter[str] = collections.Counter()
    served: list[float] = []
    ticks = max(1, round(seconds * hertz))

    async def client(number: int, start: float) -> None:
        async with connect_async(url, **OPTIONS) as connection:
            await connection.recv()
            for tick in range(ticks):
                # Clients are spread over the period, as robots that know nothing of each other are.
                due = start + (tick + number / clients) / hertz
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                which = (tick + number) % len(packed)
                await connection.send(packed[which])
                reply = await connection.recv()
                latencies.append((time.perf_counter() - due) * 1e3)
                if isinstance(reply, str):
                    errors[reply] += 1
                    continue
                found = wire.decode(reply)
                served.append(found.pop("server_timing")["infer_ms"])
                if next(iter(found.values())).tobytes() != wanted[which]:
                    errors["other bits"] += 1

    start = time.perf_counter() + 0.5
    done = await asyncio.gather(*(client(i, start) for i in range(clients)), return_exceptions=True)
    for error in done:
        if isinstance(error, BaseException):
            errors[f"{type(error).__name__}: {error}"] += 1
    whole = np.array(latencies or [np.nan])
    return {
        "clients": clients,
        "hertz": hertz,
        "seconds": seconds,
        "answers": len(latencies),
        "expected": clients * ticks,
        "errors": dict(errors),
        "latency_p50_ms": float(np.percentile(whole, 50)),
        "latency_p99_ms": float(np.percentile(whole, 99)),
        "latency_max_ms": float(whole.max()),
        "infer_p50_ms": float(np.percentile(served or [np.nan], 50)),
        "over_one_period": int((whole > 1e3 / hertz).sum()),
        "passed": not errors and len(latencies) == clients * ticks,
    }


def made(place: Path) -> Path:
    subprocess.run(
        [sys.executable, str(ROOT / "examples" / "own_policy.py")],
        cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return place / "demo" / "reach"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--warm-up", type=int, default=500)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--hertz", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # The client's own library is surprised by what is done to its sockets here.
    logging.getLogger("websockets").setLevel(logging.CRITICAL + 1)

    with tempfile.TemporaryDirectory() as folder:
        directory = options.bundle or made(Path(folder))
        bundle = open_bundle(directory)
        sent = [make_fixture(bundle.inputs, options.seed, i) for i in range(4)]
        with Policy(bundle) as local:
            wanted = [next(iter(local.infer(o).values())).tobytes() for o in sent]
        max_size = 2 * max(len(wire.encode(observation)) for observation in sent) + (1 << 16)
        with serving(directory, max_size) as (process, url):
            fuzzer = Fuzzer(url, sent[0], max_size, options.seed)
            fuzzed = fuzz(process, fuzzer, wanted[0], options.messages, options.warm_up)
            loaded = asyncio.run(load(url, sent, wanted, options.clients, options.hertz, options.seconds))
            loaded["rss_after_bytes"] = resident(process)
            process.send_signal(signal.SIGTERM)
            exit_code = process.wait(60)

    print(f"fuzz: {fuzzed['messages']} messages in {fuzzed['seconds']:.0f} s, seed {options.seed}")
    for name, count in [*fuzzed["kinds"].items(), *fuzzed["outcomes"].items()]:
        print(f"  {name:<28}{count:>8}")
    print(f"  good requests answered      {fuzzed['good_answers']:>8} of {fuzzed['good_requests']}")
    print(f"  resident before / after     {fuzzed['rss_before_bytes'] / 1e6:>8.1f} / "
          f"{fuzzed['rss_after_bytes'] / 1e6:.1f} MB ({fuzzed['rss_growth']:+.2%})")  # fmt: skip
    print(f"load: {loaded['clients']} clients at {loaded['hertz']:g} Hz for {loaded['seconds']:g} s")
    print(f"  answers                     {loaded['answers']:>8} of {loaded['expected']}")
    print(f"  errors                      {sum(loaded['errors'].values()):>8} {loaded['errors'] or ''}")
    for name in ("latency_p50_ms", "latency_p99_ms", "latency_max_ms", "infer_p50_ms"):
        print(f"  {name:<28}{loaded[name]:>8.2f}")
    print(f"  later than one period       {loaded['over_one_period']:>8}")
    print(f"exit code of the server       {exit_code:>8}")
    passed = fuzzed["passed"] and loaded["passed"] and exit_code == 0
    print(f"passed                        {'yes' if passed else 'NO':>8}")
    if options.json:
        machine = {"python": platform.python_version(), "system": platform.system(), "cores": os.cpu_count()}
        seen = {"fuzz": fuzzed, "load": loaded, "exit_code": exit_code, "machine": machine, "passed": passed}
        options.json.write_text(json.dumps(seen, indent=2) + "\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
