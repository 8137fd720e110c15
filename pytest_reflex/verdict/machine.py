"""What a figure was computed on: processor, instruction sets, cores, and settings that change arithmetic.

The last bits of a float32 sum depend on the order of its terms, and that on the width of the processor's
vectors, on the libraries' choice among their kernels, and on how many threads share the work. Nothing here
imports a library, and nothing here fails: what cannot be found is ``"unknown"``.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

UNKNOWN: Final = "unknown"
CPUINFO: Final = Path("/proc/cpuinfo")

# The instruction sets that arithmetic is written for, by Linux's names, the oldest first.
INSTRUCTIONS: Final = (
    *("sse4_1", "sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512dq", "avx512bw", "avx512vl"),
    *("avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "avx_vnni_int8", "avx_ne_convert"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("neon", "asimd", "asimdhp", "asimddp", "asimdfhm", "bf16", "i8mm"),
    *("sve", "sve2", "svebf16", "svei8mm", "sme"),
)
# What the libraries read to choose another kernel or another number of threads.
SETTINGS: Final = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_NUM_THREADS",
    "NPY_DISABLE_CPU_FEATURES",
    "OMP_NUM_THREADS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
)
# Where OpenMP's libraries are told whether threads that wait for others leave their core meanwhile, by
# "PASSIVE". It decides no bit.
WAITING: Final = "OMP_WAIT_POLICY"


def here() -> dict[str, Any]:
    """This process's machine, as builtins.

    Returns:
        ``processor`` (its model), ``instructions`` (its :data:`INSTRUCTIONS`), ``cores`` (those that this
        process may use) and ``environment`` (the :data:`SETTINGS` that are set, with their values).
    """
    processor, instructions = _processor(CPUINFO)
    return {
        "processor": processor,
        "instructions": list(instructions),
        "cores": _cores(),
        "environment": {name: as_text(os.environ[name]) for name in SETTINGS if name in os.environ},
    }


def stated(told: object) -> dict[str, Any]:
    """What facts from elsewhere say of a machine, as far as that has the right form; the rest is left out."""
    if not isinstance(told, Mapping):
        return {}
    words = ("processor", "torch_capability", "onnxruntime_build")
    found: dict[str, Any] = {key: told[key] for key in words if isinstance(told.get(key), str)}
    if type(told.get("cores")) is int and told["cores"] > 0:
        found["cores"] = told["cores"]
    if isinstance(told.get("instructions"), list):
        found["instructions"] = [name for name in told["instructions"] if isinstance(name, str)]
    if isinstance(told.get("environment"), Mapping):
        found["environment"] = {
            key: value
            for key, value in told["environment"].items()
            if isinstance(key, str) and isinstance(value, str)
        }
    return found


# Products of bytes that are summed in 32 bits at once; without them x86 sums two in 16, which saturates.
_WHOLE_SUMS: Final = frozenset(
    {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "neon", "asimd", "asimddp", "i8mm"}
)
_HALF_SUMS: Final = frozenset({"sse4_1", "sse4_2", "avx", "avx2", "avx512f", "avx512bw"})


def integer_sums(told: object) -> str:
    """How a machine sums products of bytes: ``whole``, in 32 bits; ``saturating``, in 16; or ``unknown``.

    An x86 without VNNI multiplies with ``vpmaddubsw``, which saturates: the same quantised graph then gives
    other numbers there, by far more than rounding (Intel's manual, volume 2).

    Args:
        told: what :func:`here` or :func:`stated` gives.
    """
    said = stated(told).get("instructions", ())
    if _WHOLE_SUMS.intersection(said):
        return "whole"
    return "saturating" if _HALF_SUMS.intersection(said) else UNKNOWN


def as_text(value: str) -> str:
    """A value as a report can write it, also where it is no UTF-8."""
    return value.encode("utf-8", "backslashreplace").decode()


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on every system
        return os.cpu_count() or 1


@cache
def _processor(cpuinfo: Path) -> tuple[str, tuple[str, ...]]:
    """Model and instruction sets. Every core is listed: their models are joined, their sets intersected."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine() or UNKNOWN, (UNKNOWN,)
    cores = [core for block in text.split("\n\n") if (core := _fields(block.splitlines()))]
    models = dict.fromkeys(model for core in cores if (model := _model(core)))
    flags = [set(said.split()) for core in cores if (said := core.get("flags") or core.get("Features"))]
    known = set.intersection(*flags) if flags else {UNKNOWN}
    instructions = tuple(name for name in (*INSTRUCTIONS, UNKNOWN) if name in known)
    return "; ".join(models) or platform.machine() or UNKNOWN, instructions


def _fields(lines: Iterable[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs if value.strip()}


def _model(core: Mapping[str, str]) -> str:
    """A core's model; a cloud's own name for it says less than its family and model number."""
    x86 = ("vendor_id", "cpu family", "model", "stepping")
    arm = ("CPU implementer", "CPU variant", "CPU part", "CPU revision")
    numbers = " ".join(
        f"{key.removeprefix('cpu ').removeprefix('CPU ')} {core[key]}" for key in (*x86, *arm) if key in core
    ).removeprefix("vendor_id ")
    name = core.get("model name") or core.get("cpu", "")
    return f"{name} ({numbers})" if name and numbers else name or numbers
