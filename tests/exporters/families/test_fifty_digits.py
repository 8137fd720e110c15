"""The float64 truth against fifty digits: a small submodule of each policy, worked out again with mpmath."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

import numpy as np  # noqa: E402
import torch  # noqa: E402
from floors import ulp  # noqa: E402
from mpmath import mp, mpf  # noqa: E402
from tiny_groot import GOLDEN  # noqa: E402

from exporters import groot  # noqa: E402
from pytest_reflex.runners.float64 import lifted  # noqa: E402

Vector = list[Any]
# In steps of float64 at the largest value: a sum of some dozens of products rounds by less.
STEPS = 64


@pytest.fixture(autouse=True)
def _digits() -> Any:
    with mp.workdps(50):
        yield


def exact(tensor: torch.Tensor) -> Any:
    """A float tensor's own values, as nested lists of mpf: nothing is rounded."""
    values = tensor.detach().tolist()

    def convert(value: Any) -> Any:
        return [convert(v) for v in value] if isinstance(value, list) else mpf(value)

    return convert(values)


def linear(x: Sequence[Any], weight: torch.Tensor, bias: torch.Tensor | None) -> Vector:
    rows = exact(weight)
    offsets = exact(bias) if bias is not None else [mpf(0)] * len(rows)
    return [mp.fdot(row, x) + b for row, b in zip(rows, offsets, strict=True)]


def silu(x: Any) -> Any:
    return x / (1 + mp.exp(-x))


def gelu_tanh(x: Any) -> Any:
    return x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mpf("0.044715") * x**3)))


def agrees(truth: torch.Tensor, worked_out: Vector, inside: float = 0.0) -> None:
    """To the rounding of float64, at the largest value and at the largest ``inside``, such as a sine's angle."""
    assert truth.dtype == torch.float64
    got = [mpf(v) for v in truth.reshape(-1).tolist()]
    assert len(got) == len(worked_out)
    bound = STEPS * ulp(np.float64, max(abs(float(v)) for v in got)) + ulp(np.float64, inside)
    assert max(abs(a - b) for a, b in zip(got, worked_out, strict=True)) < bound
    # The check can fail: float32 is far outside of it.
    single = [mpf(v) for v in truth.float().double().reshape(-1).tolist()]
    assert max(abs(a - b) for a, b in zip(single, worked_out, strict=True)) > bound


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def in_float64(module: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with torch.no_grad(), lifted():
        return module(*args, **kwargs)


def test_smolvla_s_rms_norm_and_gated_mlp(golden: Callable[[str], Any]) -> None:
    layer = golden("smolvla").model.vlm_with_expert.lm_expert.layers[0]
    norm, mlp = layer.post_attention_layernorm, layer.mlp
    x = drawn(1, norm.weight.numel())
    truth = in_float64(lambda x: mlp(norm(x)), x)
    (values,) = exact(x)
    root = mp.sqrt(mp.fsum(v * v for v in values) / len(values) + mpf(norm.variance_epsilon))
    normed = [v / root * w for v, w in zip(values, exact(norm.weight), strict=True)]
    gate, up = (linear(normed, m.weight, m.bias) for m in (mlp.gate_proj, mlp.up_proj))
    agrees(truth, linear([silu(g) * u for g, u in zip(gate, up, strict=True)], mlp.down_proj.weight, None))


def test_pi0_s_gemma_norm_and_gelu_mlp(golden: Callable[[str], Any]) -> None:
    layer = golden("pi0").model.paligemma_with_expert.gemma_expert.model.layers[0]
    norm, mlp = layer.post_attention_layernorm, layer.mlp
    x = drawn(1, norm.weight.numel())

    def run(x: torch.Tensor) -> torch.Tensor:
        normed = norm(x)
        out: torch.Tensor = mlp(normed[0] if isinstance(normed, tuple) else normed)
        return out

    truth = in_float64(run, x)
    (values,) = exact(x)
    root = mp.sqrt(mp.fsum(v * v for v in values) / len(values) + mpf(norm.eps))
    normed = [v / root * (1 + w) for v, w in zip(values, exact(norm.weight), strict=True)]
    gate, up = (linear(normed, m.weight, m.bias) for m in (mlp.gate_proj, mlp.up_proj))
    gated = [gelu_tanh(g) * u for g, u in zip(gate, up, strict=True)]
    agrees(truth, linear(gated, mlp.down_proj.weight, mlp.down_proj.bias))


def test_pi05_s_time_embedding_and_its_mlp(golden: Callable[[str], Any]) -> None:
    from lerobot.policies.pi05.modeling_pi05 import create_sinusoidal_pos_embedding

    model = golden("pi05").model
    width = model.time_mlp_in.in_features
    config = model.config
    time = torch.tensor([0.7], dtype=torch.float32)

    def run(time: torch.Tensor) -> torch.Tensor:
        embedded = create_sinusoidal_pos_embedding(
            time, width, config.min_period, config.max_period, time.device
        )
        hidden = torch.nn.functional.silu(model.time_mlp_in(embedded.type(dtype=time.dtype)))
        return torch.nn.functional.silu(model.time_mlp_out(hidden))

    truth = in_float64(run, time)
    half = width // 2
    low, high = mpf(config.min_period), mpf(config.max_period)
    angles = [
        2 * mp.pi * mpf(time.item()) / (low * (high / low) ** (mpf(i) / (half - 1))) for i in range(half)
    ]
    embedded = [mp.sin(a) for a in angles] + [mp.cos(a) for a in angles]
    hidden = [silu(v) for v in linear(embedded, model.time_mlp_in.weight, model.time_mlp_in.bias)]
    worked_out = [silu(v) for v in linear(hidden, model.time_mlp_out.weight, model.time_mlp_out.bias)]
    agrees(truth, worked_out, inside=float(max(angles)))


def test_groot_s_adaptive_layer_norm() -> None:
    head = groot.load(GOLDEN)
    norm = head.model.transformer_blocks[0].norm1
    inner = norm.norm
    width = norm.linear.in_features
    x, told = drawn(1, 1, width), drawn(2, width)[1:]
    truth = in_float64(norm, x, temb=told)
    ((values,),), (embedding,) = exact(x), exact(told)
    changed = linear([silu(v) for v in embedding], norm.linear.weight, norm.linear.bias)
    scale, shift = changed[:width], changed[width:]
    mean = mp.fsum(values) / width
    variance = mp.fsum((v - mean) ** 2 for v in values) / width
    normed = [(v - mean) / mp.sqrt(variance + mpf(inner.eps)) for v in values]
    if inner.weight is not None:
        normed = [v * w + b for v, w, b in zip(normed, exact(inner.weight), exact(inner.bias), strict=True)]
    agrees(truth, [v * (1 + s) + h for v, s, h in zip(normed, scale, shift, strict=True)])
