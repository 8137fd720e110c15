"""How a check's sides get to a worker: pickled, each by itself, weights apart.

A side that loads itself, such as a path or a function that reads a checkpoint, is a few hundred bytes, and
every worker loads it from there. A module in memory goes through Ray's object store once: its parameters as
arrays, which the workers of a node read where they lie. Buffers are copied, for a model may write to them.
"""

from __future__ import annotations

import io
import pickle
import sys
import warnings
from types import FunctionType, ModuleType
from typing import Any, Final

import numpy as np

from pytest_reflex.errors import RunnerError
from pytest_reflex.judge.workers.modules import Loaded, loaded
from pytest_reflex.judge.workers.work import Work
from pytest_reflex.runners.base import first_line
from pytest_reflex.runners.served import ServedRunner

__all__ = ["received", "sent"]

Array = np.ndarray[Any, Any]
# A parameter below this stays in the pickle: to be shared it takes more than it is.
_SHARED_FROM_BYTES: Final = 1 << 16


def sent(work: Work) -> tuple[bytes, list[Array]]:
    """The work with what this process has loaded, and the parameters that it names by number.

    Raises:
        RunnerError: a side cannot be sent; the message names it.
    """
    from ray import cloudpickle

    torch, weights, known = sys.modules.get("torch"), list[Array](), dict[int, tuple[Any, ...]]()
    named = set[str]()

    pickler: Any = cloudpickle.Pickler

    class Apart(pickler):
        def reducer_override(self, held: Any) -> Any:
            if isinstance(held, type | FunctionType | ModuleType):
                named.add(str(held.__name__ if isinstance(held, ModuleType) else held.__module__))
            return super().reducer_override(held)

        def persistent_id(self, held: Any) -> tuple[Any, ...] | None:
            if torch is None or type(held) is not torch.nn.Parameter or not _plain(held):
                return None
            if id(held) not in known:
                flat = held.detach().reshape(-1).view(torch.uint8).numpy()
                known[id(held)] = len(weights), held.dtype, tuple(held.shape), held.requires_grad
                weights.append(flat)
            return known[id(held)]

    def pickled(what: str, held: object) -> bytes:
        stream = io.BytesIO()
        try:
            Apart(stream, protocol=5).dump(held)
        except Exception as error:
            raise RunnerError(
                f"workers: {what} cannot be sent to a worker ({first_line(error)}); give a path, or a "
                "function that loads it, or --workers 1"
            ) from error
        return stream.getvalue()

    for side in (work.reference, work.candidate):
        if isinstance(side, ServedRunner):
            raise RunnerError(
                f"workers: {side.name} is one server, which workers would only ask in turn; give --workers 1"
            )
    parts = (
        pickled(f"the reference, {work.reference.name},", work.reference),
        pickled(f"the candidate, {work.candidate.name},", work.candidate),
        pickled("what makes the inputs", (work.make, work.specs, work.exact, work.own)),
    )
    return pickle.dumps((parts, loaded(named))), weights


def received(parts: bytes, weights: list[Any]) -> tuple[Work, Loaded]:
    """The work, in a worker, and what it has loaded for it. ``weights`` are references into Ray's store.

    Raises:
        RunnerError: a module is not there, or is another one than in the first process.
    """
    import ray

    pickled, ours = pickle.loads(parts)
    modules = Loaded(ours)
    arrays: list[Array] = ray.get(weights)
    found: dict[int, Any] = {}

    class Together(pickle.Unpickler):
        def persistent_load(self, told: Any) -> Any:
            number, dtype, shape, learns = told
            if number not in found:
                found[number] = _parameter(arrays[number], dtype, shape, learns)
            return found[number]

    try:
        reference, candidate, inputs = (Together(io.BytesIO(part)).load() for part in pickled)
    except (AttributeError, ImportError) as error:
        modules.require_same_files()  # which says more of why
        raise RunnerError(
            f"what is judged cannot be loaded there ({first_line(error)}); have its modules where they are "
            "here, each name in the file that it was imported from, or give --workers 1"
        ) from error
    modules.require_same_files()
    return Work(reference, candidate, *inputs), modules


def _plain(held: Any) -> bool:
    """Whether a parameter is an array of its own, in this process's memory, and large enough to be shared."""
    on_host = held.device.type == "cpu" and held.layout is sys.modules["torch"].strided
    return bool(on_host and held.is_contiguous() and held.nbytes >= _SHARED_FROM_BYTES)


def _parameter(array: Array, dtype: Any, shape: tuple[int, ...], learns: bool) -> Any:
    import torch

    with warnings.catch_warnings():
        # It may not be written to, and no policy writes to a parameter while it runs.
        warnings.simplefilter("ignore", UserWarning)
        flat = torch.from_numpy(array)
    return torch.nn.Parameter(flat.view(dtype).reshape(shape), requires_grad=learns)
