"""What goes into a policy: each input's name, shape, dtype and meaning, and the fixtures drawn from them."""

from pytest_reflex.inputs.chunks import Chain, Delay, Horizon, chain, left_over
from pytest_reflex.inputs.distributions import (
    Bernoulli,
    Gaussian,
    Image,
    Integers,
    Joints,
    ScaledImage,
    State,
    Uniform,
)
from pytest_reflex.inputs.fixtures import array_digest, make_fixture
from pytest_reflex.inputs.prompts import (
    CameraMask,
    ImagePromptMask,
    ImagePromptTokens,
    ImageTokenMask,
    PromptMask,
    Text,
    Tokens,
)
from pytest_reflex.inputs.spec import Distribution, Draw, InputSpec, check_specs, free_sizes
from pytest_reflex.inputs.vision_prompts import VisionPromptMask, VisionPromptTokens

__all__ = [
    "Bernoulli",
    "CameraMask",
    "Chain",
    "Delay",
    "Distribution",
    "Draw",
    "Gaussian",
    "Horizon",
    "Image",
    "ImagePromptMask",
    "ImagePromptTokens",
    "ImageTokenMask",
    "InputSpec",
    "Integers",
    "Joints",
    "Meaning",
    "PromptMask",
    "ScaledImage",
    "State",
    "Text",
    "Tokens",
    "Uniform",
    "VisionPromptMask",
    "VisionPromptTokens",
    "array_digest",
    "chain",
    "check_specs",
    "free_sizes",
    "left_over",
    "make_fixture",
]

# What an input means is how its values are distributed: the same under its name in specifications.
Meaning = Distribution
