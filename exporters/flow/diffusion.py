"""A scheduler of diffusers' as an update and its table: DDPM, DDIM, DPM-Solver++.

The numbers are the scheduler's own, made by the expressions of its ``step`` on its own float32 tensors, so
that they are rounded where its are. Nothing of diffusers is imported: the scheduler is an object that the
policy holds, and is told by its class.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, Final

import torch

from exporters.flow.schedule import Schedule, TableSchedule
from exporters.flow.update import EARLIER, EULER, MODEL, NOISE, START, X_NEXT, Operation, X
from pytest_reflex.errors import SettingsError, a_type

Row = dict[str, Any]
# What the network's answer, or an update's clipped form of it, says of ``x`` without noise.
_CLEAN: Final = "predicted"


class DiffusionSchedule(Schedule):
    """A scheduler's loop, for any number of steps.

    Args:
        scheduler: a ``DDPMScheduler``, ``DDIMScheduler`` or ``DPMSolverMultistepScheduler`` of diffusers; it
            is copied, and stays as it is.
        eta: how much noise DDIM puts back in each step, as its ``step`` takes it.

    Raises:
        SettingsError: the scheduler is another, or works as no table says.
    """

    kind = "diffusers"
    fixed = True

    def __init__(self, scheduler: Any, *, eta: float = 0.0) -> None:
        self._scheduler, self._eta = scheduler, eta

    def over(self, steps: int) -> TableSchedule:
        scheduler = copy.deepcopy(self._scheduler)
        kinds = {kind.__name__ for kind in type(scheduler).__mro__}
        made: dict[str, Callable[[Any, float], TableSchedule]] = {
            "DDPMScheduler": _ddpm,
            "DDIMScheduler": _ddim,
            "DPMSolverMultistepScheduler": _dpm_solver,
        }
        found = next((kind for kind in made if kind in kinds), None)
        if found is None:
            raise SettingsError(f"the scheduler is {a_type(scheduler)}, expected one of {', '.join(made)}")
        most = scheduler.config.num_train_timesteps
        if steps > most:
            raise SettingsError(
                f"steps is {steps}, and the scheduler was trained with {most}; give at most those"
            )
        scheduler.set_timesteps(steps)
        if len(scheduler.timesteps) != steps:
            raise SettingsError(
                f"the scheduler makes {len(scheduler.timesteps)} steps of {steps}; give another number"
            )
        return made[found](scheduler, self._eta)


class GridSchedule(Schedule):
    """Euler steps on a float32 grid from 0 to 1, as lerobot's ``FlowMatchingObjective`` takes them."""

    kind = "grid"
    fixed = True

    def over(self, steps: int) -> TableSchedule:
        grid = torch.linspace(0, 1, steps + 1)
        return TableSchedule(
            times=tuple(grid[:-1].tolist()),
            update=EULER,
            table={"dt": tuple((grid[1:] - grid[:-1]).tolist())},
        )


class InterpolationSchedule(Schedule):
    """On the line from the noise to what the network takes for clean: ``x' = t' start + (1 - t') model``.

    Each step begins at the same noise again, and the last one ends in what the network said. ``t`` is
    ``i / steps`` from 1 down, in Python's floats, rounded once; ``1 - t`` is counted in float32. Upstream:
    lerobot's ``XVLAModel.generate_actions``.
    """

    kind = "interpolation"
    fixed = True

    def over(self, steps: int) -> TableSchedule:
        times = torch.tensor([index / steps for index in range(steps, -1, -1)], dtype=torch.float32)
        return TableSchedule(
            times=tuple(times[:-1].tolist()),
            update=(
                Operation("Mul", "held", ("to_start", START)),
                Operation("Mul", "towards", ("to_clean", MODEL)),
                Operation("Add", X_NEXT, ("held", "towards")),
            ),
            table={"to_start": tuple(times[1:].tolist()), "to_clean": tuple((1 - times[1:]).tolist())},
        )


def _ddpm(scheduler: Any, eta: float) -> TableSchedule:
    """Formula (7) of https://arxiv.org/abs/2006.11239, as ``DDPMScheduler.step`` writes it."""
    if scheduler.variance_type not in ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"):
        raise SettingsError(
            f"the scheduler's variance_type is {scheduler.variance_type!r}, which the network predicts; "
            "no table has it"
        )
    update = [*_predicted(scheduler.config.prediction_type), *_bounded(scheduler.config)]
    clean = update[-1].name if update else MODEL
    update += [
        Operation("Mul", "towards", ("to_clean", clean)),
        Operation("Mul", "held", ("to_x", X)),
        Operation("Add", "mean", ("towards", "held")),
        Operation("Mul", "spread", ("sigma", NOISE)),
        Operation("Add", X_NEXT, ("mean", "spread")),
    ]
    rows: list[Row] = []
    for t in scheduler.timesteps:
        earlier = scheduler.previous_timestep(t)
        alpha = scheduler.alphas_cumprod[t]
        alpha_next = scheduler.alphas_cumprod[earlier] if earlier >= 0 else scheduler.one
        beta, beta_next, now = 1 - alpha, 1 - alpha_next, alpha / alpha_next
        sigma = torch.tensor(0.0)
        if t > 0:
            variance = scheduler._get_variance(t)
            sigma = variance if scheduler.variance_type == "fixed_small_log" else variance**0.5
        rows.append(
            {
                **_roots(alpha, beta),
                "to_clean": (alpha_next**0.5 * (1 - now)) / beta,
                "to_x": now**0.5 * beta_next / beta,
                "sigma": sigma,
            }
        )
    draws = sum(bool(t > 0) for t in scheduler.timesteps)
    return _table(scheduler, update, rows, draws)


def _ddim(scheduler: Any, eta: float) -> TableSchedule:
    """Formulas (12) and (16) of https://arxiv.org/abs/2010.02502, as ``DDIMScheduler.step`` writes them."""
    config = scheduler.config
    update = _predicted(config.prediction_type)
    noise = MODEL
    if config.prediction_type == "sample":
        update += [
            Operation("Mul", "clean_part", ("root", MODEL)),
            Operation("Sub", "noise_part", (X, "clean_part")),
            Operation("Div", "noise_in_x", ("noise_part", "noise_root")),
        ]
    elif config.prediction_type == "v_prediction":
        update += [
            Operation("Mul", "turned", ("root", MODEL)),
            Operation("Mul", "noisy", ("noise_root", X)),
            Operation("Add", "noise_in_x", ("turned", "noisy")),
        ]
    if config.prediction_type != "epsilon":
        noise = "noise_in_x"
    bounded = _bounded(config)
    clean = bounded[-1].name if bounded else MODEL if config.prediction_type == "sample" else _CLEAN
    update += [
        *bounded,
        Operation("Mul", "direction", ("to_noise", noise)),
        Operation("Mul", "towards", ("to_clean", clean)),
        Operation("Add", "mean", ("towards", "direction")),
        Operation("Mul", "spread", ("sigma", NOISE)),
        Operation("Add", X_NEXT, ("mean", "spread")),
    ]
    rows: list[Row] = []
    for t in scheduler.timesteps:
        earlier = t - config.num_train_timesteps // scheduler.num_inference_steps
        alpha = scheduler.alphas_cumprod[t]
        alpha_next = scheduler.alphas_cumprod[earlier] if earlier >= 0 else scheduler.final_alpha_cumprod
        sigma = eta * scheduler._get_variance(t, earlier) ** 0.5
        rows.append(
            {
                **_roots(alpha, 1 - alpha),
                "to_noise": (1 - alpha_next - sigma**2) ** 0.5,
                "to_clean": alpha_next**0.5,
                "sigma": sigma,
            }
        )
    return _table(scheduler, update, rows, len(rows) if eta > 0 else 0)


def _dpm_solver(scheduler: Any, eta: float) -> TableSchedule:
    """DPM-Solver++ of first and second order (https://arxiv.org/abs/2211.01095), and its form with noise.

    Upstream: ``DPMSolverMultistepScheduler``. A step of first order is one of second whose slope counts 0.
    """
    config = scheduler.config
    if config.algorithm_type not in ("dpmsolver++", "sde-dpmsolver++") or config.solver_order not in (1, 2):
        raise SettingsError(
            f"the scheduler is {config.algorithm_type} of order {config.solver_order}; "
            "expected dpmsolver++ or sde-dpmsolver++ of order 1 or 2"
        )
    if config.variance_type in ("learned", "learned_range"):
        raise SettingsError(f"the scheduler's variance_type is {config.variance_type!r}; no table has it")
    update = [*_predicted(config.prediction_type), *_bounded(config, clips=False)]
    clean = update[-1].name if update else MODEL
    update += [
        Operation("Mul", "held", ("to_x", X)),
        Operation("Mul", "towards", ("to_clean", clean)),
        Operation("Sub", "first", ("held", "towards")),
        Operation("Sub", "change", (clean, EARLIER)),
        Operation("Mul", "slope", ("per_step", "change")),
        Operation("Mul", "turn", ("to_slope", "slope")),
        Operation("Sub", "mean", ("first", "turn")),
        Operation("Mul", "spread", ("sigma", NOISE)),
        Operation("Add", X_NEXT, ("mean", "spread")),
    ]
    rows = [_dpm_row(scheduler, index) for index in range(len(scheduler.timesteps))]
    draws = len(rows) if config.algorithm_type == "sde-dpmsolver++" else 0
    return _table(scheduler, update, rows, draws, clean)


def _dpm_row(scheduler: Any, index: int) -> Row:
    config, steps = scheduler.config, len(scheduler.timesteps)
    last = index == steps - 1 and (
        config.euler_at_final
        or (config.lower_order_final and steps < 15)
        or config.final_sigmas_type == "zero"
    )
    first_order = config.solver_order == 1 or index == 0 or last

    def at(place: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[place])
        return alpha, sigma, torch.log(alpha) - torch.log(sigma)

    (alpha_t, sigma_t, lambda_t), (alpha, sigma, now) = at(index + 1), at(index)
    h = lambda_t - now
    row = {"root": alpha, "noise_root": sigma, "per_step": torch.tensor(0.0), "to_slope": torch.tensor(0.0)}
    if not first_order:
        row["per_step"] = 1.0 / ((now - at(index - 1)[2]) / h)
    if config.algorithm_type == "dpmsolver++":
        row |= {
            "to_x": sigma_t / sigma,
            "to_clean": alpha_t * (torch.exp(-h) - 1.0),
            "sigma": torch.tensor(0.0),
        }
        midpoint, heun = 0.5 * row["to_clean"], -(alpha_t * ((torch.exp(-h) - 1.0) / h + 1.0))
    else:
        row |= {
            "to_x": sigma_t / sigma * torch.exp(-h),
            "to_clean": -(alpha_t * (1 - torch.exp(-2.0 * h))),
            "sigma": sigma_t * torch.sqrt(1.0 - torch.exp(-2 * h)),
        }
        midpoint = 0.5 * row["to_clean"]
        heun = -(alpha_t * ((1.0 - torch.exp(-2.0 * h)) / (-2.0 * h) + 1.0))
    if not first_order:
        row["to_slope"] = midpoint if config.solver_type == "midpoint" else heun
    return row


def _roots(alpha: torch.Tensor, beta: torch.Tensor) -> Row:
    return {"root": alpha**0.5, "noise_root": beta**0.5}


def _predicted(kind: str) -> list[Operation]:
    """``x`` without its noise, by what the network predicts; nothing where that is it.

    Raises:
        SettingsError: nobody knows what it predicts.
    """
    if kind == "sample":
        return []
    scaled = Operation("Mul", "scaled", ("noise_root", MODEL))
    if kind == "epsilon":
        return [
            scaled,
            Operation("Sub", "noiseless", (X, "scaled")),
            Operation("Div", _CLEAN, ("noiseless", "root")),
        ]
    if kind == "v_prediction":
        return [Operation("Mul", "kept", ("root", X)), scaled, Operation("Sub", _CLEAN, ("kept", "scaled"))]
    raise SettingsError(f"prediction_type is {kind!r}, expected epsilon, sample or v_prediction")


def _bounded(config: Any, *, clips: bool = True) -> list[Operation]:
    """The prediction within the scheduler's bounds."""
    clean = MODEL if config.prediction_type == "sample" else _CLEAN
    if config.thresholding:
        numbers = config.dynamic_thresholding_ratio, config.sample_max_value
        return [Operation("Threshold", "bounded", (clean, *numbers))]
    if clips and config.clip_sample:
        return [Operation("Clip", "bounded", (clean, -config.clip_sample_range, config.clip_sample_range))]
    return []


def _table(
    scheduler: Any, update: list[Operation], rows: list[Row], draws: int, earlier: str | None = None
) -> TableSchedule:
    """The table, without what nothing reads."""
    if not draws:
        update = [*update[:-3], update[-3]._replace(name=X_NEXT)]
    read = {name for operation in update for name in operation.reads}
    table = {name: tuple(float(row[name]) for row in rows) for name in rows[0] if name in read}
    for name, column in table.items():
        step = next((at for at, number in enumerate(column) if not math.isfinite(number)), None)
        if step is not None:
            raise SettingsError(
                f"the scheduler's own {name} of step {step} is {column[step]}, so that it computes nothing "
                "with these settings; give it others"
            )
    times = tuple(t.item() for t in scheduler.timesteps)
    dtype = "float32" if scheduler.timesteps.is_floating_point() else "int64"
    return TableSchedule(times, tuple(update), table, dtype, earlier, draws)
