"""What a process is set to that changes what is computed in it: its variables, numpy's ways and torch's."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

__all__ = ["carried", "flushes_denormals", "set_environment", "set_flushing", "set_torch", "torch_settings"]

# Ray's own, which it sets in each of its processes; and the password of a signing key, which no worker needs.
_KEPT: Final = ("RAY_", "SPT_NOENV", "PYTHONBREAKPOINT", "REFLEX_KEY_PASSWORD")
# What says where a process runs, and is another on another machine.
_OF_A_HOST: Final = (
    *(
        "HOME",
        "HOSTNAME",
        "LOGNAME",
        "MAIL",
        "OLDPWD",
        "PATH",
        "PWD",
        "SHELL",
        "SHLVL",
        "TEMP",
        "TMP",
        "TMPDIR",
    ),
    *("USER", "LD_LIBRARY_PATH", "LD_PRELOAD", "DISPLAY", "CUDA_VISIBLE_DEVICES", "SSH_", "XDG_"),
)

# torch's flags, by where they stand below torch.
_FLAGS: Final = (
    "backends.mkldnn.enabled",
    "backends.mkldnn.deterministic",
    "backends.cudnn.enabled",
    "backends.cudnn.benchmark",
    "backends.cudnn.deterministic",
    "backends.cudnn.allow_tf32",
    "backends.cuda.matmul.allow_tf32",
    "backends.cuda.matmul.allow_fp16_reduced_precision_reduction",
    "backends.cuda.matmul.allow_bf16_reduced_precision_reduction",
    "backends.quantized.engine",
    "backends.opt_einsum.enabled",
    "backends.opt_einsum.strategy",
    "backends.fp32_precision",
    "backends.mkldnn.fp32_precision",
    "backends.mkldnn.matmul.fp32_precision",
    "backends.mkldnn.conv.fp32_precision",
)
# And what functions say and set, by their names below torch.
_FUNCTIONS: Final = {
    "get_default_dtype": "set_default_dtype",
    "get_default_device": "set_default_device",
    "get_float32_matmul_precision": "set_float32_matmul_precision",
    "get_num_interop_threads": "set_num_interop_threads",
    "is_grad_enabled": "set_grad_enabled",
    "get_deterministic_debug_mode": "set_deterministic_debug_mode",
    "backends.cuda.flash_sdp_enabled": "backends.cuda.enable_flash_sdp",
    "backends.cuda.math_sdp_enabled": "backends.cuda.enable_math_sdp",
    "backends.cuda.mem_efficient_sdp_enabled": "backends.cuda.enable_mem_efficient_sdp",
    "backends.mha.get_fastpath_enabled": "backends.mha.set_fastpath_enabled",
}
_Plain = bool | int | str | None


def carried() -> dict[str, str]:
    """The variables of this process that are a worker's, too."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_KEPT)}


def set_environment(theirs: Mapping[str, str], host: str) -> None:
    """Set what is set there, and nothing else; on another host not what says where a process runs.

    Args:
        theirs: that process's variables.
        host: where it runs.
    """
    kept = _KEPT if host == socket.gethostname() else (*_KEPT, *_OF_A_HOST)
    for name in {*os.environ, *theirs}:
        if name.startswith(kept):
            continue
        if name not in theirs:
            del os.environ[name]
        elif os.environ.get(name) != theirs[name]:
            os.environ[name] = theirs[name]


def flushes_denormals() -> bool:
    """Whether this thread's products are 0 where they are below the least normal number."""
    with np.errstate(all="ignore"):
        tiny = np.full(4, 1e-38, np.float32) * np.float32(0.1)
    return not tiny.any()


def set_flushing(flushes: bool) -> bool:
    """Have this thread flush denormals, or keep them; whether it does as told. torch alone can set it."""
    if flushes_denormals() != flushes:
        with contextlib.suppress(ImportError):
            import torch

            torch.set_flush_denormal(flushes)
    return flushes_denormals() == flushes


def torch_settings() -> dict[str, _Plain]:
    """What torch is set to in this process, by names below torch; empty where nothing has loaded it."""
    torch = sys.modules.get("torch")
    found: dict[str, _Plain] = {}
    for name in (*_FLAGS, *_FUNCTIONS) if torch is not None else ():
        # Which of them there are is for its version, and some that contradict each other cannot be read.
        with contextlib.suppress(Exception):
            value = _below(torch, name)
            found[name] = _as_plain(value() if name in _FUNCTIONS else value)
    return found


def set_torch(theirs: Mapping[str, _Plain]) -> bool:
    """Set torch as it is there, where something has loaded it by now; whether anything had to be set."""
    ours = torch_settings()
    other = [name for name, value in ours.items() if theirs.get(name, value) != value]
    for name in other:
        # What cannot be set any more stays as it is, and whoever compares them says so.
        with contextlib.suppress(Exception):
            _set(sys.modules["torch"], name, theirs[name])
    return bool(other)


def _set(torch: Any, name: str, value: _Plain) -> None:
    if name in _FUNCTIONS:
        setter: Callable[[Any], object] = _below(torch, _FUNCTIONS[name])
        setter(getattr(torch, str(value)) if name == "get_default_dtype" else value)
        return
    place, _, last = name.rpartition(".")
    setattr(_below(torch, place), last, value)


def _below(torch: Any, name: str) -> Any:
    found = torch
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _as_plain(value: object) -> _Plain:
    return value if isinstance(value, bool | int | str | None) else str(value).removeprefix("torch.")
