"""What an ONNX file reads, as input specifications: names, dtypes, shapes and free axes, and no meaning."""

from __future__ import annotations

from pytest_reflex.errors import InputError
from pytest_reflex.inputs import Bernoulli, Gaussian, InputSpec
from pytest_reflex.runners.onnx import OnnxRunner

_FLOATS = ("float16", "float32", "float64")


def graph_inputs(model: OnnxRunner) -> list[InputSpec]:
    """The inputs that the graph states: floats are noise, bools a coin; a free axis is 1 at first.

    Args:
        model: a closed runner; it is opened and closed again.

    Raises:
        InputError: an input holds whole numbers, of which the graph does not say what they mean.
        RunnerError: the model cannot be opened.
    """
    with model:
        stated = model.stated_inputs
    specs = []
    for place, (name, dtype, shape) in enumerate(stated):
        sizes = tuple(n if isinstance(n, int) else 1 for n in shape)
        free = tuple(None if isinstance(n, int) else n or f"axis_{place}_{i}" for i, n in enumerate(shape))
        if dtype not in (*_FLOATS, "bool"):
            raise InputError(
                f"{model.name}: input {name!r} is {dtype} {list(sizes)}, and the graph does not say what its "
                f"numbers mean; give inputs, such as InputSpec({name!r}, {sizes}, {dtype!r}, Integers(LOW, "
                "HIGH))"
            )
        meaning = Bernoulli() if dtype == "bool" else Gaussian()
        specs.append(InputSpec(name, sizes, dtype, meaning, free if any(free) else ()))
    return specs
