"""What is done to a traced graph before it is composed, and how a composed one is written."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import numpy as np
import onnx_ir as ir

from pytest_reflex.errors import TracingError
from pytest_reflex.runners.external_data import FileFacts

# Small tensors (shapes, axes, scalars) stay in the graph, where optimizers and readers look for them.
INLINE_BYTES = 1024
# Mapping a tensor from the file wants it on a page.
ALIGNMENT = 4096

_STACK = "pkg.torch.onnx.stack_trace"
_KEPT = ("pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy", _STACK)


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
    shape = tensor.shape.numpy()

    def read() -> ir.TensorProtocol:
        return ir.Tensor(tensor.numpy().transpose(axes), dtype=tensor.dtype, name=name)

    return ir.LazyTensor(read, dtype=tensor.dtype, shape=ir.Shape([shape[axis] for axis in axes]), name=name)


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
    """``file:line in function`` for each frame of a printed stack, outermost first."""
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
    """Refuse a graph that widens a float32 constant to float64 when it was meant to be a float64 number.

    To be called before an optimizer folds the two into one. A constant that float32 holds exactly,
    such as 2.0 or 0.5, has lost nothing.

    Raises:
        TracingError: naming the node.
    """
    for node in model.graph:
        if node.op_type != "Cast" or node.attributes["to"].as_int() != ir.DataType.DOUBLE:
            continue
        source = node.inputs[0]
        tensor = ir.convenience.get_const_tensor(source) if source is not None else None
        if tensor is None or tensor.dtype != ir.DataType.FLOAT:
            continue
        for value in tensor.numpy().reshape(-1):
            # The number that was written is the shortest one that rounds to this float32.
            if np.isfinite(value) and float(str(value)) != float(value):
                raise TracingError(
                    f"node {node.name!r} widens the float32 constant {value!s} to float64, "
                    "so the digits beyond float32 are lost; make it a float64 tensor in the module"
                )


def name_axes(model: ir.Model, free: Mapping[str, Sequence[str | None]]) -> None:
    """Call free sizes by the names that the inputs give them, wherever they appear; torch numbers them."""
    names: dict[str, str] = {}
    for value in model.graph.inputs:
        for n, name in zip(value.shape or (), free.get(str(value.name), ()), strict=False):
            if isinstance(n, ir.SymbolicDim) and n.value is not None and name:
                names[str(n.value)] = name
    if not names:
        return
    symbol = re.compile("|".join(rf"\b{re.escape(found)}\b" for found in names))
    outputs = (output for node in model.graph for output in node.outputs)
    for value in (*model.graph.inputs, *outputs):
        if value.shape is None or not any(isinstance(n, ir.SymbolicDim) for n in value.shape):
            continue
        value.shape = ir.Shape(
            [
                symbol.sub(lambda m: names[m.group()], str(n.value))
                if isinstance(n, ir.SymbolicDim) and n.value is not None
                else n
                for n in value.shape
            ]
        )


def name_ends(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Name inputs and outputs, and give every output a value that is no input, weight or other output.

    torch.onnx is not asked to do it: it would name a tensor that is handed through only once.
    """
    graph = model.graph
    _give_way(graph, {*inputs, *outputs})
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


def _give_way(graph: ir.Graph, names: Set[str]) -> None:
    """Name anew what is inside the graph, or at the other end of it, and has an end's name."""
    made = (value for node in graph for value in node.outputs)
    values = [*graph.inputs, *graph.initializers.values(), *made]
    taken = {*names, *(value.name for value in values)}
    for value in values:
        if value.name in names:
            other = next(n for i in itertools.count(1) if (n := f"{value.name}.{i}") not in taken)
            taken.add(other)
            value.name = other


def write_graph(model: ir.Model, directory: Path, stem: str) -> dict[str, FileFacts]:
    """Write ``stem.onnx`` and, if it has weights, ``stem.onnx.data``; only one tensor is in memory at a time.

    Returns:
        Size and SHA-256 by file name.
    """
    graph_file, data_file = f"{stem}.onnx", f"{stem}.onnx.data"
    files: dict[str, FileFacts] = {}
    digest, offset = hashlib.sha256(), 0
    with (directory / data_file).open("wb") as stream:
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.nbytes < INLINE_BYTES or tensor.dtype == ir.DataType.STRING:
                continue
            padding = b"\0" * (-offset % ALIGNMENT)
            # A view of the weight's own storage unless it is transposed.
            array = np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)
            for piece in (padding, array.data):
                stream.write(piece)
                digest.update(piece)
            offset += len(padding)
            value.const_value = ir.ExternalTensor(
                location=data_file,
                offset=offset,
                length=array.nbytes,
                dtype=tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=value.name or "",
                base_dir=str(directory),
            )
            offset += array.nbytes
    if offset:
        files[data_file] = {"size": offset, "sha256": digest.hexdigest()}
    else:
        (directory / data_file).unlink()
    data = ir.to_proto(model).SerializeToString(deterministic=True)
    (directory / graph_file).write_bytes(data)
    files[graph_file] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return files
