"""Is what a checkpoint normalises with fit for it? lerobot computes on with whatever statistics it has.

It leaves a feature as it is where there are none, broadcasts what has another size, and divides by what is
not a number; both sides of a check would do the same, so that no figure shows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch

from pytest_reflex.errors import CheckpointError

__all__ = ["ranges", "require_statistics", "statistics_notes", "unnormalised"]

# What each of lerobot's normalisations reads (its ``_NormalizationMixin._apply_transform``).
_READS: Final = {
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}
_ACTION: Final = "action"
# No joint is so far from its rest, in whatever unit.
_FAR: Final = 1e6


def _normalised(steps: Sequence[Any]) -> Iterator[tuple[str, Any, str, Any]]:
    """Key, feature, mode and statistics, or None, of whatever the steps normalise where a policy acts."""
    for step in steps:
        if not hasattr(step, "norm_map"):
            continue
        back = type(step).__name__.startswith("Un")
        wanted = getattr(step, "normalize_observation_keys", None)
        for key, feature in step.features.items():
            mode = getattr(step.norm_map.get(feature.type), "name", "IDENTITY")
            if mode in _READS and (key == _ACTION) is back and (wanted is None or back or key in wanted):
                yield key, feature, mode, step._tensor_stats.get(key)


def require_statistics(steps: Sequence[Any]) -> None:
    """Refuse statistics that no feature has.

    Args:
        steps: the steps of both pipelines.

    Raises:
        CheckpointError: one is missing, not finite, negative where it is a deviation, or of another size.
    """
    for key, feature, mode, known in _normalised(steps):
        for name in _READS[mode] if known is not None else ():
            value = known.get(name)
            if value is None:
                raise CheckpointError(
                    f"the processors normalise {key} by {mode}, and its statistics have no {name!r}; they "
                    f"have {', '.join(known) or 'none'}"
                )
            wrong = _wrong(name, value, tuple(feature.shape))
            if wrong:
                raise CheckpointError(
                    f"the processors normalise {key} by {mode}, and its {name!r} {wrong}; take the "
                    "statistics of the data that the policy was trained on"
                )


def _wrong(name: str, value: torch.Tensor, shape: tuple[int, ...]) -> str:
    """What is wrong with a statistic of a feature of this shape; empty where nothing is."""
    # Of a camera there is one for each channel.
    good = (shape[0], *[1] * (len(shape) - 1))
    if tuple(value.shape) not in (good, shape):
        return f"is of shape {list(value.shape)}, expected {list(good)}"
    flat = value.double().reshape(-1)
    bad = torch.nonzero(~torch.isfinite(flat)).reshape(-1)
    if bad.numel():
        return f"is {flat[bad[0]].item()} at {bad[0].item()}, expected finite numbers"
    below = torch.nonzero(flat < 0).reshape(-1)
    if name == "std" and below.numel():
        return f"is {flat[below[0]].item():g} at {below[0].item()}, expected none below 0"
    return ""


def unnormalised(steps: Sequence[Any], features: Mapping[str, Any], modes: Mapping[str, Any]) -> list[str]:
    """What stays as it is, though it is meant to be normalised, in words.

    Args:
        steps: the steps before the policy, or behind it.
        features: what the policy's configuration says that goes through them, by key.
        modes: how that normalises each kind of feature.
    """
    there = {key: (mode, known) for key, _, mode, known in _normalised(steps)}
    found = [
        f"{key} is to be normalised by {mode}, and the checkpoint has no statistics of it, so that lerobot "
        "leaves it as it is"
        for key, (mode, known) in there.items()
        if known is None
    ]
    for key, feature in features.items():
        mode = getattr(modes.get(feature.type.name), "name", "IDENTITY")
        if mode in _READS and key not in there:
            found.append(
                f"{key} is to be normalised by {mode}, as the policy's configuration says, and no step does "
                "that"
            )
    return found


def ranges(steps: Sequence[Any]) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Between which values each element of a feature without pixels lay in the data, by key.

    The smallest and largest where the statistics have them, else what the normalisation reads: three
    deviations around the mean, or two quantiles. Nothing of a feature of which no element varied.
    """
    found = {}
    for key, feature, mode, known in _normalised(steps):
        if known is None or len(feature.shape) != 1:
            continue
        first, second = (known[name].double() for name in _READS[mode])
        ends = (first - 3 * second, first + 3 * second) if mode == "MEAN_STD" else (first, second)
        extremes = [known[name].double() for name in ("min", "max") if name in known]
        if len(extremes) == 2 and all(one.shape == first.shape for one in extremes):
            ends = (extremes[0], extremes[1])
        low, high = (tuple(float(one) for one in end.reshape(-1)) for end in ends)
        if all(-_FAR < a <= b < _FAR for a, b in zip(low, high, strict=True)) and low != high:
            found[key] = low, high
    return found


def statistics_notes(steps: Sequence[Any]) -> list[str]:
    """Elements that never varied in the data, by whose spread of 0 lerobot divides plus a small number."""
    found = []
    for key, _, mode, known in _normalised(steps):
        if known is None:
            continue
        low, high = (known[name].reshape(-1) for name in _READS[mode])
        still = high == 0 if mode == "MEAN_STD" else high == low
        if still.any():
            at = ", ".join(str(int(place)) for place in torch.nonzero(still).reshape(-1)[:8])
            found.append(f"{key}[{at}] never varied in the data that the statistics are of")
    return found
