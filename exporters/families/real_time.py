"""Real-time chunking: lerobot's guidance of a new chunk by what is left of the one before, as a plain graph.

lerobot's ``RTCProcessor`` corrects the velocity of each denoising step. Its correction is written as a
gradient of ``x_t - time * v_t`` by ``x_t``, with ``v_t`` computed before ``x_t`` asks for one: the Jacobian
is the identity and the correction the error itself, so that a step is arithmetic and nothing else::

    error = (previous chunk - (x_t - time * v_t)) * prefix weights
    guided = v_t - guidance weight * error

The prefix weights of every horizon and delay are lerobot's own numbers, looked up; the guidance weight is
counted from the time as lerobot counts it, in float64 and then in float32. The reference stays the policy's
own ``sample_actions`` with the policy's own processor.

Black, Galliker and Levine, Real-Time Execution of Action Chunking Flow Policies, 2025.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import nn

from exporters.families.base import set_to
from exporters.flow.policy import Context, FlowPolicy
from exporters.flow.schedule import EulerSchedule
from pytest_reflex.errors import InputError
from pytest_reflex.inputs import Delay, Gaussian, Horizon, InputSpec

__all__ = ["DELAY", "HORIZON", "PREVIOUS", "RealTimeFlow", "guides", "real_time_inputs", "told"]

# What the inputs are called, here and in bundles.
PREVIOUS: Final = "prev_chunk"
DELAY: Final = "inference_delay"
HORIZON: Final = "execution_horizon"


def guides(config: Any, rtc: object = None) -> bool:
    """Whether a policy's chunks are guided: as it is asked for, or else as its configuration says.

    Raises:
        InputError: what is asked for is no switch.
    """
    if rtc not in (None, False, True):
        raise InputError(f"rtc is {rtc!r}, expected True, False, or None for what the policy itself says")
    own = getattr(config, "rtc_config", None)
    return bool(rtc) if rtc is not None else own is not None and bool(own.enabled)


def real_time_inputs(chunk: Sequence[int]) -> list[InputSpec]:
    """What a guided chunk reads besides: the chunk before, and how the two fit together.

    Args:
        chunk: the shape of a chunk, [batch, rows, dim].
    """
    rows = chunk[1]
    return [
        InputSpec(PREVIOUS, tuple(chunk), "float32", Gaussian()),
        InputSpec(HORIZON, (), "int64", Horizon(most=rows)),
        InputSpec(DELAY, (), "int64", Delay(most=rows, horizon=HORIZON)),
    ]


@contextlib.contextmanager
def told(model: Any, named: Mapping[str, torch.Tensor]) -> Iterator[dict[str, Any]]:
    """What lerobot's ``sample_actions`` is told of the chunk before, by keyword; nothing where no input does.

    Within, the model guides its chunks: by its own processor where it has one that is enabled, else by one
    of its own configuration, or lerobot's defaults where it has none.

    Args:
        model: the model inside of a lerobot policy.
        named: the inputs.
    """
    if PREVIOUS not in named:
        yield {}
        return
    from lerobot.policies.rtc.modeling_rtc import RTCProcessor

    config = _config(model)
    own = model.rtc_processor is not None and model.config.rtc_config is config
    processor = model.rtc_processor if own else RTCProcessor(config)
    with set_to(model.config, "rtc_config", config), set_to(model, "rtc_processor", processor):
        yield {
            "prev_chunk_left_over": named[PREVIOUS],
            "inference_delay": int(named[DELAY]),
            "execution_horizon": int(named[HORIZON]),
        }


def _config(model: Any) -> Any:
    """The configuration that a model's chunks are guided by: its own, and enabled."""
    from lerobot.policies.rtc.configuration_rtc import RTCConfig

    own = model.config.rtc_config
    if own is None:
        return RTCConfig(enabled=True)
    return own if own.enabled else replace(own, enabled=True)


class RealTimeFlow(FlowPolicy):
    """The two halves of a policy whose chunks are guided by the ones before.

    Args:
        inner: the halves without guidance.
        model: the model inside of the lerobot policy, whose configuration says how firmly.
        rows: how many rows a chunk has.
    """

    # lerobot takes 1 - time in float64, and rounds that.
    schedule = EulerSchedule(dtype="float64")

    def __init__(self, inner: FlowPolicy, model: Any, rows: int) -> None:
        super().__init__()
        self.inner = inner
        self.steps = inner.steps
        config = _config(model)
        self.guidance = _Guidance(rows, config.prefix_attention_schedule, config.max_guidance_weight)

    def prefix(  # type: ignore[override]
        self,
        *,
        prev_chunk: torch.Tensor,  # [B, T, D], zeros after what is left
        execution_horizon: torch.Tensor,  # [] int64
        inference_delay: torch.Tensor,  # [] int64
        **observation: torch.Tensor,
    ) -> Context:
        weights = self.guidance.prefix_weights(execution_horizon, inference_delay)
        return {**self.inner.prefix(**observation), PREVIOUS: prev_chunk, "prefix_weights": weights}

    def velocity(  # type: ignore[override]
        self,
        x_t: torch.Tensor,  # [B, T, D]
        time: torch.Tensor,  # [B] float64
        prev_chunk: torch.Tensor,  # [B, T, D]
        prefix_weights: torch.Tensor,  # [1, T, 1]
        **context: torch.Tensor,
    ) -> torch.Tensor:
        now = time.float()
        velocity = self.inner.velocity(x_t, now, **context)
        actions = x_t - now[:, None, None] * velocity
        error = (prev_chunk - actions) * prefix_weights
        return velocity - self.guidance.weight(time)[:, None, None] * error


class _Guidance(nn.Module):
    """How strongly a row is held to the chunk before, by lerobot's ``RTCProcessor``.

    Args:
        rows: how many rows a chunk has.
        schedule: how the weight falls from the delay to the horizon; lerobot's ``RTCAttentionSchedule``.
        most: the largest guidance weight.
    """

    weights: torch.Tensor

    def __init__(self, rows: int, schedule: Any, most: float) -> None:
        super().__init__()
        self.rows, self.most = rows, float(most)
        # A copy of its own: what torch is given to trace may not be shared between traces.
        self.register_buffer("weights", _prefix_weights(rows, schedule).clone(), persistent=False)

    def prefix_weights(self, horizon: torch.Tensor, delay: torch.Tensor) -> torch.Tensor:
        """The weight of each row, [1, rows, 1]."""
        # Beyond the chunk lerobot means all of it too.
        place = horizon.clamp(0, self.rows) * (self.rows + 1) + delay.clamp(0, self.rows)
        return self.weights.index_select(0, place.reshape(1)).unsqueeze(-1)

    def weight(self, time: torch.Tensor) -> torch.Tensor:
        """The guidance weight at a time, [B] float64 -> [B] float32; 1 at noise, 0 at actions."""
        tau = (1 - time).float()
        left = 1 - tau
        squared = left * left
        spread = (squared + tau * tau) / squared
        # At tau = 0 lerobot divides by zero and takes the largest weight for infinity.
        return (left / tau.clamp(min=torch.finfo(torch.float32).tiny) * spread).clamp(max=self.most)


@functools.lru_cache(maxsize=8)
def _prefix_weights(rows: int, schedule: Any) -> torch.Tensor:
    """The weights of every horizon and delay, [(rows + 1) * (rows + 1), rows], as lerobot makes them."""
    from lerobot.policies.rtc.configuration_rtc import RTCConfig
    from lerobot.policies.rtc.modeling_rtc import RTCProcessor

    made = RTCProcessor(RTCConfig(prefix_attention_schedule=schedule)).get_prefix_weights
    every = range(rows + 1)
    return torch.stack([made(delay, horizon, rows) for horizon in every for delay in every])
