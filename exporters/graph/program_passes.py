"""ExportedProgram -> ExportedProgram: three mendings between ``torch.export`` and ``torch.onnx``.

* What depends on no input and no parameter is computed here, by torch, and stored. The sinusoid's
  frequencies then carry torch's own bits instead of those of another library's ``exp`` or ``pow``.
* A Python scalar beside a float64 tensor becomes a float64 tensor. torch.onnx writes such a scalar
  as a *float32* constant; times an angle of 1,571 rad that costs 1e-4 in a time embedding.
* Attention whose keys are all masked gives zeros, as torch's ``scaled_dot_product_attention`` does under
  a bool mask and under one of minus infinities. torch.onnx writes the first as a large negative number, whose
  softmax is an average, and hands the second on, whose softmax is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

# A folded constant is stored in the graph; beyond this it is cheaper to compute than to ship.
FOLD_LIMIT_BYTES = 1 << 24


def fold_constants(program: ExportedProgram) -> None:
    """Compute, with torch, every value that depends on no input and no parameter, and store it."""
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
    _name_outputs(program)
    program.graph.eliminate_dead_code()


def widen_scalars(program: ExportedProgram) -> None:
    """Turn every Python number that meets a float64 tensor in an elementwise operator into such a tensor."""
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
                        program, f"scalar_{len(made)}", torch.tensor(value, dtype=torch.float64)
                    )
                args[index] = made[value]
        node.target, node.args = tensor_overload, tuple(args)
    program.graph_module.recompile()


def zero_masked_rows(program: ExportedProgram) -> None:
    """Set to zero what attention gives for a query that may look at no key: all False, or all -inf."""
    zeros: dict[torch.dtype, fx.Node] = {}
    seen: dict[fx.Node, fx.Node] = {}
    for node in list(program.graph.nodes):
        if node.target is not _aten.scaled_dot_product_attention.default:
            continue
        mask = node.kwargs.get("attn_mask", node.args[3] if len(node.args) > 3 else None)
        fake = mask.meta.get("val") if isinstance(mask, fx.Node) else None
        if not isinstance(mask, fx.Node) or not isinstance(fake, torch.Tensor):
            continue
        dtype = node.meta["val"].dtype
        if dtype not in zeros:
            zeros[dtype] = _lift(program, f"masked_row_{len(zeros)}", torch.zeros((), dtype=dtype))
        users = list(node.users)
        if mask not in seen:
            seen[mask] = _rows_seen(program, node, mask, fake.dtype)
        with program.graph.inserting_after(node if seen[mask] < node else seen[mask]):
            mended = _call(program, _aten.where.self, seen[mask], node, zeros[dtype])
        _origin_of(node, mended)
        for user in users:
            user.replace_input_with(node, mended)
    _name_outputs(program)
    program.graph_module.recompile()


def _name_outputs(program: ExportedProgram) -> None:
    """Let the signature name what the program returns now; torch.onnx reads the outputs from there."""
    end = next(node for node in program.graph.nodes if node.op == "output")
    for spec, made in zip(program.graph_signature.output_specs, end.args[0], strict=True):
        if isinstance(made, fx.Node) and hasattr(spec.arg, "name"):
            spec.arg.name = made.name


def _rows_seen(program: ExportedProgram, node: fx.Node, mask: fx.Node, dtype: torch.dtype) -> fx.Node:
    """Which rows of the mask let anything through, computed after ``node``."""
    allowed = mask
    if dtype != torch.bool:
        with program.graph.inserting_after(node):
            allowed = _call(program, _aten.ne.Scalar, mask, -math.inf)
        _origin_of(node, allowed)
    with program.graph.inserting_after(node if allowed is mask else allowed):
        seen = _call(program, _aten.any.dim, allowed, -1, True)
    _origin_of(node, seen)
    return seen


def _origin_of(node: fx.Node, made: fx.Node) -> None:
    """What was made for a node comes from where it does."""
    made.meta.update({key: value for key, value in node.meta.items() if key not in made.meta})


def _call(program: ExportedProgram, operator: Any, *args: Any) -> fx.Node:
    """A node that calls ``operator``, with the fake value that later passes read its shape from."""
    node: fx.Node = program.graph.call_function(operator, args)
    node.meta["val"] = operator(*fx.map_arg(args, lambda argument: argument.meta["val"]))
    return node


_aten = torch.ops.aten
# The operators that take a tensor and a number, and what takes two tensors in their place.
_TENSOR_OVERLOADS: dict[Any, Any] = {
    **{op.Tensor: op.Tensor for op in (_aten.add, _aten.sub, _aten.mul, _aten.div, _aten.remainder)},
    **{op.Scalar: op.Tensor for op in (_aten.add, _aten.sub, _aten.mul, _aten.div, _aten.remainder)},
    _aten.pow.Tensor_Scalar: _aten.pow.Tensor_Tensor,
    _aten.pow.Scalar: _aten.pow.Tensor_Tensor,
    _aten.pow.Tensor_Tensor: _aten.pow.Tensor_Tensor,
}


def _is_float64(argument: object) -> bool:
    value = argument.meta.get("val") if isinstance(argument, fx.Node) else None
    return isinstance(value, torch.Tensor) and value.dtype == torch.float64


def _lifted_constants(program: ExportedProgram) -> dict[fx.Node, torch.Tensor]:
    """The placeholders of constant tensors, and of buffers that nothing writes to, with their values."""
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
    specs.insert(at, InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(name=node.name), target=node.name))
    placeholder: fx.Node = node
    return placeholder


def _fakes(program: ExportedProgram) -> Iterator[Any]:
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch._subclasses.FakeTensor):
            yield value
