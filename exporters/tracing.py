"""nn.Module -> onnx_ir.Model. ``torch.export`` and ``torch.onnx`` are called in this file and nowhere else.

Between the two, the traced program is mended in two ways that torch.onnx does not do by itself:

* what depends on no input and no weight is computed here, by torch, and stored. The sinusoid's
  frequencies then carry torch's own bits instead of those of another library's ``exp`` or ``pow``;
* a Python scalar beside a float64 tensor becomes a float64 tensor. torch.onnx writes such a scalar
  as a *float32* constant; times an angle of 1,571 rad that costs 1e-4 in a time embedding.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

from pytest_reflex.errors import TracingError

OPSET = 20
# A folded constant is stored in the graph; beyond this it is cheaper to compute than to ship.
FOLD_LIMIT_BYTES = 1 << 24

_STACK = "pkg.torch.onnx.stack_trace"
_KEPT = ("pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy", _STACK)

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
    owner: nn.Module, call: Callable[..., Named], inputs: Named, *, dynamic_batch: bool = False
) -> ir.Model:
    """Trace ``call`` into an ONNX model without reading a weight.

    Args:
        owner: the module whose parameters and buffers ``call`` uses, in eval mode.
        call: maps the inputs, by keyword, to named output tensors.
        inputs: example tensors; their names, shapes and dtypes become the graph's.
        dynamic_batch: leave the first dimension of every input free.

    Returns:
        A model whose inputs and outputs carry the names of ``inputs`` and of what ``call`` returned,
        and whose initializers still point at the owner's own storage.

    Raises:
        TracingError: torch could not trace or convert it, or the graph would narrow a float64 constant.
    """
    outputs: list[str] = []
    entry = _Entry(owner, call, list(inputs), outputs).eval()
    shapes = None
    if dynamic_batch:
        batch = torch.export.Dim("batch", min=1)
        shapes = (tuple({0: batch} for _ in inputs),)
    title = type(owner).__name__
    with torch.no_grad(), _quiet():
        with _naming(f"torch.export could not trace {title}"):
            program = torch.export.export(
                entry, tuple(inputs.values()), dynamic_shapes=shapes, strict=False
            )
        with _naming(f"torch.onnx could not convert {title}"):
            program = _functional(program)
            fold_constants(program)
            widen_scalars(program)
            converted = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                optimize=False,
                verbose=False,
            )
            if converted is None:
                raise TracingError(f"torch.onnx gave no program for {title}")
            name_weights(converted.model)
            transpose_weights(converted.model)
            converted.optimize()
    clash = set(inputs) & set(outputs)
    if clash:
        raise TracingError(f"{sorted(clash)} name both an input and an output of {title}; rename one")
    model: ir.Model = converted.model
    _name_ends(model, list(inputs), outputs)
    refuse_narrowed_constants(model)
    brief_metadata(model)
    return model


def _functional(program: ExportedProgram) -> ExportedProgram:
    """The same program without in-place operators, in the operators that torch.onnx converts.

    torch.onnx would do this itself; done first, the passes below see every scalar that its
    decompositions bring in, and no value that is written to after it was made.
    """
    from torch.onnx._internal.exporter import _decomp, _registration

    registry = _registration.ONNXRegistry.from_torchlib(opset_version=OPSET)
    implemented = set(_decomp.get_onnx_implemented_overloads(registry))
    return program.run_decompositions(_decomp.create_onnx_friendly_decomposition_table(implemented))


def fold_constants(program: ExportedProgram) -> None:
    """Compute, with torch, every value that depends on neither an input nor a parameter, and store it."""
    known: dict[fx.Node, torch.Tensor] = _lifted_constants(program)
    folded: list[fx.Node] = []
    for node in program.graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        if torch.Tag.nondeterministic_seeded in node.target.tags or node.target._schema.is_mutable:
            continue
        if not all(argument in known for argument in node.all_input_nodes):
            continue
        fake = node.meta.get("val")
        if not isinstance(fake, torch.Tensor) or any(not isinstance(n, int) for n in fake.shape):
            continue
        if fake.numel() * fake.element_size() > FOLD_LIMIT_BYTES:
            continue
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: known[n])
        known[node] = node.target(*args, **kwargs)
        folded.append(node)
    # Only what something else still reads has to be stored.
    frontier = [n for n in folded if any(user not in known for user in n.users)]
    for node in frontier:
        node.replace_all_uses_with(_lift(program, f"folded_{node.name}", known[node]))
    program.graph.eliminate_dead_code()


def widen_scalars(program: ExportedProgram) -> None:
    """Turn every Python number that meets a float64 tensor in an elementwise operator into a float64 tensor."""
    made: dict[float, fx.Node] = {}
    for node in list(program.graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        if not any(_is_float64(argument) for argument in node.args):
            continue
        tensor_overload = _TENSOR_OVERLOADS.get(node.target)
        if tensor_overload is None:
            continue
        args = list(node.args)
        for index in (0, 1):
            value = args[index]
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                if value not in made:
                    made[value] = _lift(
                        program,
                        f"scalar_{len(made)}",
                        torch.tensor(value, dtype=torch.float64),
                    )
                args[index] = made[value]
        node.target, node.args = tensor_overload, tuple(args)
    program.graph_module.recompile()


_aten = torch.ops.aten
# The operators that take a tensor and a number, and what takes two tensors in their place.
_TENSOR_OVERLOADS: dict[Any, Any] = {
    **{op.Tensor: op.Tensor for op in (_aten.add, _aten.sub, _aten.mul, _aten.div, _aten.remainder)},
    **{op.Scalar: op.Tensor for op in (_aten.add, _aten.sub, _aten.mul, _aten.div, _aten.remainder)},
    _aten.pow.Tensor_Scalar: _aten.pow.Tensor_Tensor,
    _aten.pow.Scalar: _aten.pow.Tensor_Tensor,
    _aten.pow.Tensor_Tensor: _aten.pow.Tensor_Tensor,
}


def name_weights(model: ir.Model) -> None:
    """Give every initializer the name that its tensor has in the owner's state dict."""
    for value in list(model.graph.initializers.values()):
        if value.name is not None and value.name.startswith("owner."):
            value.name = value.name.removeprefix("owner.")


def transpose_weights(model: ir.Model) -> None:
    """Replace every transposed weight by an initializer that is transposed when it is written.

    ONNX Runtime would fold such a node at each start, into a private copy that can no longer be
    mapped from the file. The name is the weight's own with ``.T`` behind it.
    """
    graph = model.graph
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is None or not source.is_initializer() or source.const_value is None:
            continue
        rank = len(source.const_value.shape)
        perm = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else None
        axes = perm if perm is not None else list(reversed(range(rank)))
        output = node.outputs[0]
        name = f"{source.name}.T" if axes == [1, 0] else f"{source.name}.T{axes}"
        if name not in graph.initializers:
            tensor = _transposed(source.const_value, axes, name)
            graph.register_initializer(
                ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
            )
        ir.convenience.replace_all_uses_with(output, graph.initializers[name])
        graph.remove(node, safe=True)


def _transposed(tensor: ir.TensorProtocol, axes: Sequence[int], name: str) -> ir.LazyTensor:
    shape = [int(n) for n in tensor.shape]

    def read() -> ir.TensorProtocol:
        return ir.Tensor(tensor.numpy().transpose(axes), dtype=tensor.dtype, name=name)

    return ir.LazyTensor(
        read, dtype=tensor.dtype, shape=ir.Shape([shape[axis] for axis in axes]), name=name
    )


def brief_metadata(model: ir.Model) -> None:
    """Keep of torch's metadata where each node comes from, without the paths of this machine.

    The scopes name the module; the stack names file and line, cut to the part below
    ``site-packages``, so that the same export is the same bytes elsewhere.
    """
    for node in model.graph:
        kept = {key: node.metadata_props[key] for key in _KEPT if key in node.metadata_props}
        stack = kept.get(_STACK)
        if stack is not None:
            kept[_STACK] = "\n".join(_frames(stack))
        node.metadata_props.clear()
        node.metadata_props.update(kept)


def _frames(stack: str) -> list[str]:
    """``file:line in function`` for each frame of a printed stack, outermost first, this file's own left out."""
    found = re.findall(r'File "([^"]+)", line (\d+), in (\S+)', stack)
    frames = []
    for path, line, function in found:
        path = path.replace("\\", "/")
        if path == __file__.replace("\\", "/"):
            continue
        short = path.rpartition("/site-packages/")[2]
        frames.append(f"{short if short != path else path.rpartition('/')[2]}:{line} in {function}")
    return frames


def refuse_narrowed_constants(model: ir.Model) -> None:
    """Refuse a graph in which a float32 constant is cast to float64 before it is used.

    Raises:
        TracingError: naming the node: its constant has lost half of its digits.
    """
    for node in model.graph:
        if node.op_type != "Cast" or node.outputs[0].dtype != ir.DataType.DOUBLE:
            continue
        source = node.inputs[0]
        producer = source.producer() if source is not None else None
        if producer is None or producer.op_type != "Constant" or source.dtype != ir.DataType.FLOAT:
            continue
        value = source.const_value.numpy() if source.const_value is not None else None
        if value is None or value.astype("float32").astype("float64").tolist() != _short(value):
            raise TracingError(
                f"node {node.name!r} widens the float32 constant {value!r} to float64, "
                "so digits of the original float64 number are lost; make it a tensor in the module"
            )


def _short(value: Any) -> Any:
    """The numbers of a float32 array that a float64 holds without loss and a reader would have written: integers."""
    import numpy as np

    return np.where(value == np.round(value), value.astype("float64"), np.nan).tolist()


def _is_float64(argument: object) -> bool:
    value = argument.meta.get("val") if isinstance(argument, fx.Node) else None
    return isinstance(value, torch.Tensor) and value.dtype == torch.float64


def _lifted_constants(program: ExportedProgram) -> dict[fx.Node, torch.Tensor]:
    """The placeholders that stand for constant tensors and for buffers that nothing writes to, with their values."""
    signature = program.graph_signature
    written = set(signature.buffers_to_mutate.values())
    named = {}
    for spec in signature.input_specs:
        if spec.target is None or spec.target in written:
            continue
        if spec.kind is InputKind.CONSTANT_TENSOR or spec.kind is InputKind.BUFFER:
            stored = program.state_dict if spec.persistent else program.constants
            named[spec.arg.name] = stored[spec.target]
    return {n: named[n.name] for n in program.graph.nodes if n.op == "placeholder" and n.name in named}


def _lift(program: ExportedProgram, name: str, value: torch.Tensor) -> fx.Node:
    """Add ``value`` to the program as a constant tensor, before its first user input."""
    specs = program.graph_signature.input_specs
    at = next((i for i, s in enumerate(specs) if s.kind is InputKind.USER_INPUT), len(specs))
    placeholders = [n for n in program.graph.nodes if n.op == "placeholder"]
    before = placeholders[at] if at < len(placeholders) else next(iter(program.graph.nodes))
    with program.graph.inserting_before(before):
        node = program.graph.placeholder(name)
    mode = next((m.fake_mode for m in _fakes(program)), None)
    value = value.detach().contiguous()
    node.meta["val"] = mode.from_tensor(value, static_shapes=True) if mode is not None else value
    program.constants[node.name] = value
    specs.insert(
        at, InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(name=node.name), target=node.name)
    )
    return node


def _fakes(program: ExportedProgram) -> Iterator[Any]:
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch._subclasses.FakeTensor):
            yield value


def _name_ends(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Name the graph's inputs and outputs, and give every output a value that is no input, weight or other output.

    torch.onnx is not asked to do it: it would name a tensor that is handed through only once.
    """
    graph = model.graph
    for value, name in zip(graph.inputs, inputs, strict=True):
        value.name = name
    seen: set[int] = set()
    for index, (value, name) in enumerate(zip(list(graph.outputs), outputs, strict=True)):
        if value.is_graph_input() or value.is_initializer() or id(value) in seen:
            node = ir.node("Identity", [value], name=f"output_{name}")
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
            graph.append(node)
            graph.outputs[index] = node.outputs[0]
        seen.add(id(graph.outputs[index]))
        graph.outputs[index].name = name


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    try:
        yield
    except TracingError:
        raise
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), "").strip()
        raise TracingError(f"{what}: {type(error).__name__}: {first}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's and onnxscript's progress chatter out of a test's output; restores what it touched."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)
