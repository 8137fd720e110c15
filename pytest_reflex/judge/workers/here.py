"""Whether a worker is what the first process is: the same version, processor, files, threads and bits."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pytest_reflex._version import __version__
from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs.fixtures import array_digest
from pytest_reflex.judge.workers import process
from pytest_reflex.verdict import machine

__all__ = ["Here", "Seen", "gave", "unlike"]

Array = np.ndarray[Any, Any]
# What of a side's facts has to be the same everywhere. Of the others, such as a count of runs, none decides
# what is computed.
_ALIKE: Final = (
    *("kind", "sha256", "dtype", "device", "threads", "provider_asked", "providers_used"),
    *("prepack", "optimization", "config"),
)
# How a digest begins where there is none.
FAILED: Final = "failed: "
# What of the machine decides the last bits. How many cores there are does so by the number of threads alone.
_BUILT: Final = ("processor", "instructions", "environment", "torch_capability", "onnxruntime_build")


@dataclass(frozen=True)
class Here:
    """What of the first process every worker takes over before it loads anything.

    Attributes:
        version: of this package.
        python: of Python.
        folder: where relative paths begin.
        path: where modules are found.
        host: where it runs.
        environment: its variables, but for Ray's own.
        threads: torch's threads within an operator; None where torch is not loaded.
        torch: what torch is set to; empty where it is not loaded.
        errors: what numpy does where a number overflows, underflows or is none.
        flushes: whether what is below the least normal number is taken for 0.
        machine: the processor and its instruction sets.
    """

    version: str
    python: str
    folder: str
    path: tuple[str, ...]
    host: str
    environment: dict[str, str]
    threads: int | None
    torch: dict[str, Any]
    errors: dict[str, Any]
    flushes: bool
    machine: dict[str, Any]

    @classmethod
    def of_this_process(cls) -> Here:
        torch = sys.modules.get("torch")
        folder = os.getcwd()
        return cls(
            __version__,
            platform.python_version(),
            folder,
            tuple(os.path.join(folder, place) for place in sys.path),
            socket.gethostname(),
            process.carried(),
            None if torch is None else torch.get_num_threads(),
            process.torch_settings(),
            dict(np.geterr()),
            process.flushes_denormals(),
            _built(machine.here()),
        )

    def take_over(self) -> None:
        """Make this process as that one was.

        Raises:
            RunnerError: it has no such folder, another version of Python or of this package, or another
                processor.
        """
        if not os.path.isdir(self.folder):
            raise RunnerError(f"there is no folder {self.folder}, where the check runs; share it or copy it")
        os.chdir(self.folder)
        process.set_environment(self.environment, self.host)
        # Each has as many threads as the first process, for its bits, and shares the cores with others:
        # threads that wait without giving theirs up would take it from them. It decides no bit.
        os.environ.setdefault(machine.WAITING, "PASSIVE")
        ours = {"pytest-reflex": __version__, "Python": platform.python_version(), **_built(machine.here())}
        theirs = {"pytest-reflex": self.version, "Python": self.python, **self.machine}
        if said := _apart("", theirs, ours):
            raise RunnerError(said)

    def set_libraries(self) -> bool:
        """Set numpy as it is there, and torch, where something has loaded it by now.

        Returns:
            Whether anything was other than there but the number of threads, so that what ran before may have
            given other bits.

        Raises:
            RunnerError: a setting cannot be taken over.
        """
        other = bool(np.geterr() != self.errors)
        np.seterr(**self.errors)
        flushed = process.flushes_denormals()
        kept = process.set_flushing(self.flushes)  # first, for it may load torch
        torch = sys.modules.get("torch")
        if torch is not None and self.threads is not None:
            torch.set_num_threads(self.threads)
        other = process.set_torch(self.torch) or other
        said = _apart("torch", self.torch, process.torch_settings())
        if not kept:
            said = f"products below the least normal number are {'kept' if self.flushes else '0'} there"
        if said:
            raise RunnerError(f"{said}, which cannot be set there; give --workers 1")
        return other or flushed != self.flushes


@dataclass(frozen=True)
class Seen:
    """One side of a check as a process has it.

    Attributes:
        facts: what its runner says of itself, as far as it has to be the same everywhere.
        digests: of what it gives in each of the first fixtures, or how it failed there; none where the same
            question gets other bits each time, which is what the verdict says of it wherever it runs.
    """

    facts: dict[str, Any]
    digests: tuple[str, ...]

    @classmethod
    def of(cls, facts: Mapping[str, Any], digests: Sequence[str], *, repeats: bool = True) -> Seen:
        kept = {key: facts[key] for key in _ALIKE if key in facts}
        versions = dict(facts.get("versions") or {})
        around = _built(dict(facts.get("machine") or {}))
        plain = json.loads(json.dumps({**kept, **versions, **around}, default=str))
        return cls(plain, tuple(digests) if repeats else ())


def gave(outputs: Mapping[str, Array]) -> str:
    """What a side gave in a fixture, as a digest; by places, for a name may be another one's."""
    return array_digest({str(place): array for place, array in enumerate(outputs.values())})


def unlike(ours: Seen, theirs: Seen) -> str:
    """In what a worker's side is another than the first process's, in words; empty where it is the same."""
    if said := _apart("", ours.facts, theirs.facts):
        return said
    for fixture_idx, (one, other) in enumerate(zip(ours.digests, theirs.digests, strict=False)):
        if one != other:
            failed = other.startswith(FAILED) and f"it {other} in fixture {fixture_idx}"
            return failed or f"it gives other bits in fixture {fixture_idx}"
    return ""


def _built(told: Mapping[str, Any]) -> dict[str, Any]:
    return {key: told[key] for key in _BUILT if key in told}


def _apart(key: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """``torch is 2.12 there and 2.13 here``: the first of what both know that is not the same."""
    for name, one in ours.items():
        other = theirs.get(name, one)
        if one == other:
            continue
        place = f"{key} {name}".strip()
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            nothing = dict.fromkeys({**one, **other}, "nothing")
            return _apart(place, {**nothing, **one}, {**nothing, **other})
        return f"{place} is {_short(other)} there and {_short(one)} here"
    return ""


def _short(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
