"""Inputs of every kind of range, and some that hang on each other."""

from __future__ import annotations

from pytest_reflex.inputs import (
    Bernoulli,
    CameraMask,
    Gaussian,
    Image,
    ImagePromptMask,
    ImagePromptTokens,
    InputSpec,
    Integers,
    ScaledImage,
    State,
    Uniform,
)

PROMPT = [
    InputSpec("cameras", (1, 2), "bool", CameraMask()),
    InputSpec("mask", (1, 12), "int64", ImagePromptMask("cameras", 3)),
    InputSpec("tokens", (1, 12), "int64", ImagePromptTokens(50, 50, 3, "cameras", "mask")),
    InputSpec("state", (1, 4), meaning=State()),
]


def seven(time: str) -> list[InputSpec]:
    """Seven inputs; ``time`` is the dtype of one of them."""
    return [
        InputSpec("image", (1, 3, 4, 4), meaning=Image()),
        InputSpec("scaled", (1, 3, 4, 4), meaning=ScaledImage(0.25, 1.0)),
        InputSpec("state", (1, 8), meaning=State()),
        InputSpec("gripper", (1, 2), "bool", Bernoulli()),
        InputSpec("arm", (1,), "int64", Integers(3, 9)),
        InputSpec("time", (1,), time, Uniform(0.5, 2.0)),
        InputSpec("noise", (1, 6, 8), meaning=Gaussian(1.0, 2.0)),
    ]
