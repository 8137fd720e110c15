"""What goes into a policy: each input's name, shape, dtype and meaning, and the fixtures drawn from them."""

from pytest_reflex.inputs.distributions import Bernoulli, Gaussian, Image, Integers, State, Uniform
from pytest_reflex.inputs.fixtures import array_digest, make_fixture
from pytest_reflex.inputs.prompts import (
    CameraMask,
    ImagePromptMask,
    ImagePromptTokens,
    ImageTokenMask,
    PromptMask,
    Tokens,
)
from pytest_reflex.inputs.spec import Draw, InputSpec, Meaning, check_specs, free_sizes

__all__ = [
    "Bernoulli",
    "CameraMask",
    "Draw",
    "Gaussian",
    "Image",
    "ImagePromptMask",
    "ImagePromptTokens",
    "ImageTokenMask",
    "InputSpec",
    "Integers",
    "Meaning",
    "PromptMask",
    "State",
    "Tokens",
    "Uniform",
    "array_digest",
    "check_specs",
    "free_sizes",
    "make_fixture",
]
