"""nn.Module -> onnx_ir.Model. ``torch.export`` and ``torch.onnx`` are called in this file and nowhere else.

Between the two the program is mended by :mod:`exporters.graph.program_passes`, and after them the graph by
:mod:`exporters.graph.graph_passes`.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import logging
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import version_converter
from torch import fx, nn
from torch.export import ExportedProgram

from exporters.graph.graph_passes import (
    brief_metadata,
    name_axes,
    name_ends,
    name_weights,
    refuse_narrowed_constants,
    transpose_weights,
)
from exporters.graph.program_passes import fold_constants, widen_scalars, zero_masked_rows
from exporters.graph.tracing_errors import tracing_error
from pytest_reflex.errors import RunnerError, TracingError

OPSET = 20
_CHATTY = (
    *("torch", "torch.onnx", "torch.export", "torch.fx", "torch._subclasses", "torch.__trace"),
    *("onnxscript", "onnx_ir", "transformers"),
)
Named = Mapping[str, torch.Tensor]


class _Entry(nn.Module):
    """Gives a function of named tensors the positional ``forward`` that ``torch.export`` wants."""

    def __init__(
        self, owner: nn.Module, call: Callable[..., Named], inputs: Sequence[str], outputs: list[str]
    ) -> None:
        super().__init__()
        self.owner = owner
        self._call = call
        self._inputs = tuple(inputs)
        # A list that is filled in place: torch.export restores attributes that forward assigns.
        self._outputs = outputs

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        named = self._call(**dict(zip(self._inputs, tensors, strict=True)))
        self._outputs[:] = named
        return tuple(named.values())


def trace(
    owner: nn.Module,
    call: Callable[..., Named],
    inputs: Named,
    *,
    free: Mapping[str, Sequence[str | None]] = MappingProxyType({}),
) -> ir.Model:
    """Trace ``call`` into an ONNX model without reading a weight.

    Args:
        owner: the module whose parameters and buffers ``call`` uses, in eval mode.
        call: maps the inputs, by keyword, to named output tensors.
        inputs: example tensors; their names, shapes and dtypes become the graph's.
        free: of an input, by name, what each of its axes is called where it may have any size, else None;
            axes of one name have one size. Example sizes of free axes must be 2 or more, and differ.

    Returns:
        A model whose inputs and outputs carry the names of ``inputs`` and of what ``call`` returned,
        and whose initializers still point at the owner's own storage.

    Raises:
        TracingError: torch could not trace or convert it, or the graph would narrow a float64 constant.
    """
    return converted(trace_program(owner, call, inputs, free=free))


def converted(traced: Traced) -> ir.Model:
    """The second half of :func:`trace`."""
    title, outputs = traced.title, traced.outputs
    with (
        torch.no_grad(),
        _quiet(),
        uncollected(),
        _naming(f"torch.onnx could not convert {title}", traced.program.graph.nodes),
    ):
        made = _half("_exported_program_to_onnx_program")(traced.program, registry=_registry())
        model: ir.Model = made.model
        version_converter.convert_version(model, OPSET, fallback=True)
        refuse_narrowed_constants(model)
        name_weights(model)
        transpose_weights(model)
        made.optimize()
    if clash := set(traced.inputs) & set(outputs):
        raise TracingError(f"{sorted(clash)} name both an input and an output of {title}; rename one")
    model = made.model
    name_ends(model, traced.inputs, outputs)
    name_axes(model, traced.free)
    brief_metadata(model)
    return model


def with_lines(method: Callable[..., Any]) -> Callable[..., Any]:
    """The same method, whose lines torch writes into the graph: it does so of code that is named ``forward``.

    What is not written in Python stays as it is.
    """
    function = getattr(method, "__func__", None)
    if not isinstance(function, types.FunctionType):
        return method
    named = types.FunctionType(
        function.__code__.replace(co_name="forward"),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    named.__kwdefaults__ = function.__kwdefaults__
    return types.MethodType(named, method.__self__)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Traced:
    """A traced program as it is converted: in functional operators, mended, its constants folded.

    Attributes:
        title: what errors call it.
        program: the program.
        inputs: names of its inputs, in order.
        outputs: names of its outputs, in order.
        free: what the free axes of its inputs are called; see :func:`trace`.
    """

    title: str
    program: ExportedProgram
    inputs: list[str]
    outputs: list[str]
    free: Mapping[str, Sequence[str | None]]

    @property
    def given(self) -> dict[str, fx.Node]:
        """The nodes that stand for its inputs."""
        nodes = {node.name: node for node in self.program.graph.nodes}
        users = self.program.graph_signature.user_inputs
        return {name: nodes[str(user)] for name, user in zip(self.inputs, users, strict=True)}

    @property
    def made(self) -> dict[str, fx.Node]:
        """The nodes that give its outputs."""
        end = next(node for node in self.program.graph.nodes if node.op == "output")
        return dict(zip(self.outputs, end.args[0], strict=True))


def trace_program(
    owner: nn.Module,
    call: Callable[..., Named],
    inputs: Named,
    *,
    free: Mapping[str, Sequence[str | None]] = MappingProxyType({}),
) -> Traced:
    """The program that :func:`trace` converts; the same arguments, the same errors."""
    outputs: list[str] = []
    entry = _Entry(owner, call, list(inputs), outputs).eval()
    names = sorted({name for axes in free.values() for name in axes if name})
    sizes = {name: torch.export.Dim(name, min=1) for name in names}
    shapes = None
    if sizes:
        of = {n: {i: sizes[axis] for i, axis in enumerate(free.get(n, ())) if axis} for n in inputs}
        shapes = (tuple(of.values()),)
    title = type(owner).__name__
    with torch.no_grad(), _quiet(), uncollected():
        with _naming(f"torch.export could not trace {title}"):
            # torch guards free sizes with conditions that it cannot always simplify, such as
            # min(n, 4 * n) == n; deferred, they do not fix a size. The check runs several sizes.
            program = torch.export.export(
                entry,
                tuple(inputs.values()),
                dynamic_shapes=shapes,
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=bool(sizes),
            )
        with _naming(f"torch.export could not reduce {title} to functional operators"):
            program = _functional(program)
            fold_constants(program)
            widen_scalars(program)
            zero_masked_rows(program)
    return Traced(title, program, list(inputs), outputs, free)


def _functional(program: ExportedProgram) -> ExportedProgram:
    """The program in the operators that torch.onnx converts, none of them in place, dtypes promoted by casts.

    This is the first half of ``torch.onnx.export``, whose second half :func:`trace` calls. In between, the
    passes of :mod:`exporters.graph.program_passes` see every scalar that the decompositions bring in, and no
    value that is written to after it was made; and nothing is decomposed twice.
    """
    prepared: ExportedProgram = _half("_prepare_exported_program_for_export")(program, registry=_registry())
    return prepared


def _half(name: str) -> Any:
    """One of the two functions that ``torch.onnx.export`` consists of, and that have no public names."""
    from torch.onnx._internal.exporter import _core

    half = getattr(_core, name, None)
    if half is None:
        raise TracingError(
            f"torch {torch.__version__} has no torch.onnx {name}, which exports are made with; "
            "install one that is known to: 2.9 to 2.13"
        )
    return half


@functools.cache
def _registry() -> Any:
    """The operators that torch.onnx can convert; a second to gather."""
    from torch.onnx._internal.exporter import _registration

    return _registration.ONNXRegistry.from_torchlib(opset_version=OPSET)


@contextlib.contextmanager
def _naming(what: str, nodes: Iterable[fx.Node] = ()) -> Iterator[None]:
    try:
        yield
    except (TracingError, RunnerError):  # ours, in words already
        raise
    except Exception as error:
        raise tracing_error(what, error, nodes) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's and onnxscript's progress chatter out of a test's output; restores what it touched.

    What torch logs and prints of an error is in the error too.
    """
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.CRITICAL)
    printed, dumped = io.StringIO(), ""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
    except BaseException as error:
        cause: BaseException | None = error
        while cause is not None and not (dumped := str(getattr(cause, "partial_fx_graph", ""))):
            cause = cause.__cause__
        raise
    finally:
        sys.stderr.write(printed.getvalue().replace(f"{dumped}\n", "") if dumped else printed.getvalue())
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Keep Python from looking for garbage: a trace makes objects by the million that stay until it ends.

    To go through them again and again takes a quarter of the time of a trace.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
