"""Reads from an ONNX graph what precision it is in: types of weights, operators, casts and quantisation.

Weights that lie beside the graph are not read. Needs onnx, which a robot may not have.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners.base import first_line
from pytest_reflex.runners.graph_file import inlined
from pytest_reflex.runners.graph_sizes import STANDARD, is_random
from pytest_reflex.verdict.precision import FLOATS, GraphPrecision, Quantized

if TYPE_CHECKING:
    import onnx

__all__ = ["MOVES", "precision_of"]

# ONNX's numbers of types, by our names; onnx.TensorProto has them in capitals.
_NAMES: Final = {
    1: "float32", 10: "float16", 11: "float64", 16: "bfloat16", 17: "float8_e4m3fn", 19: "float8_e5m2",
    2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 21: "uint4", 22: "int4",
}  # fmt: skip
_INTEGERS: Final = frozenset({"uint8", "int8", "uint4", "int4", "uint16", "int16"})
# A precision is called by its bits: whether they hold a sign is the quantiser's choice.
_CALLED: Final = {"uint8": "int8", "uint4": "int4", "uint16": "int16"}
_DYNAMIC: Final = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})
_TURN: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
# They multiply integers, or widen quantised weights themselves.
_WHOLE: Final = frozenset(
    {"MatMulInteger", "ConvInteger", "MatMulIntegerToFloat", "QAttention", "QGemm", "MatMulNBits"}
)
# They multiply matrices, beside those above.
_BOOL: Final = 9
_PRODUCTS: Final = frozenset(
    {
        "MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "FusedMatMul", "FusedGemm", "Attention",
        "MultiHeadAttention", "GroupQueryAttention", "LSTM", "GRU", "RNN",
    }
)  # fmt: skip
# They hand values on and compute nothing.
MOVES: Final = frozenset(
    {
        "Cast", "CastLike", "Constant", "ConstantOfShape", "Identity", "Reshape", "Transpose", "Flatten",
        "Squeeze", "Unsqueeze", "Slice", "Gather", "Concat", "Split", "Expand", "Tile", "Shape", "Loop", "If",
        "Scan", "Where", "Pad", "GatherND", "GatherElements",
    }
)  # fmt: skip

_MOVERS: Final = MOVES | {"ScatterND", "ScatterElements"}
_NARROW: Final = FLOATS[FLOATS.index("float32") + 1 :]

# What graphs were found to be, by their bytes: an export reads its own, and so does each check of it.
_known: dict[bytes, GraphPrecision] = {}
_KNOWN_MOST: Final = 64
# What is larger holds its weights itself; to hash those takes as long as to read the graph.
_KNOWN_BYTES: Final = 64 << 20


def precision_of(model: onnx.ModelProto | str | Path | bytes) -> GraphPrecision:
    """The precision of a graph.

    Args:
        model: the model, the path of its file, or its bytes.

    Raises:
        RunnerError: onnx is not installed, or this is no ONNX model.
    """
    if isinstance(model, str | Path):
        try:
            if Path(model).stat().st_size <= _KNOWN_BYTES:
                model = Path(model).read_bytes()
        except OSError as error:
            raise RunnerError(f"{model!s} cannot be read: {error.strerror or error}") from error
    if not isinstance(model, bytes) or len(model) > _KNOWN_BYTES:
        return _read(model)
    digest = hashlib.sha256(model).digest()
    if digest not in _known:
        found = _read(model)
        while len(_known) >= _KNOWN_MOST:
            del _known[next(iter(_known))]
        _known[digest] = found
    return _known[digest]


def _read(model: onnx.ModelProto | str | Path | bytes) -> GraphPrecision:
    try:
        from onnx import shape_inference
    except ImportError as error:
        raise RunnerError("reading a graph's precision needs onnx; pip install onnx") from error
    try:
        typed = _typed(inlined(model), shape_inference.infer_shapes)
    except Exception as error:
        raise RunnerError(f"this is no ONNX model whose types can be read: {first_line(error)}") from error
    found = _Found()
    found.graph(typed.graph, {})
    return replace(found.described(), moved=dict(_moved(typed.graph)))


def _moved(graph: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """For each output the inputs that are narrowed for it by operators that only move them, or for it itself.

    An output that something else computes with the input too gets no allowance for what is moved.
    """
    types, readers = _types(graph), _readers(graph)
    for output in graph.output:
        _, towards = _used(graph, [output.name])
        found = []
        for value in graph.input:
            first = [node for node in readers.get(value.name, ()) if {*node.output} & towards]
            casts = [n for n in first if n.op_type == "Cast" and types.get(n.output[0]) in _NARROW]
            after = [r for cast in casts for r in readers.get(cast.output[0], ()) if {*r.output} & towards]
            given = any(cast.output[0] == output.name for cast in casts)
            moves = all(reader.op_type in _MOVERS for reader in after) and len(casts) == len(first)
            if types.get(value.name) == "float32" and moves and (after or given):
                found.append(value.name)
        if found:
            yield output.name, tuple(found)


def _readers(graph: Any) -> dict[str, list[Any]]:
    """The nodes that read a value, in themselves or in a graph within them."""
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        inner = [name for one in _graphs(node) for name in _read_in(one)]
        for name in {*node.input, *inner}:
            readers.setdefault(name, []).append(node)
    return readers


def _typed(model: onnx.ModelProto, infer: Any) -> onnx.ModelProto:
    """A copy with the types that can be inferred: converters leave those of before in theirs."""
    bare = type(model)()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    typed: onnx.ModelProto = infer(bare, strict_mode=False)
    known = {value.name for value in typed.graph.value_info}
    typed.graph.value_info.extend(value for value in model.graph.value_info if value.name not in known)
    return typed


class _Found:
    """What is counted on the way through a graph and the graphs in it."""

    def __init__(self) -> None:
        self.weights: Counter[str] = Counter()
        self.nodes: Counter[str] = Counter()
        self.products: Counter[str] = Counter()
        self.rounded: Counter[str] = Counter()
        self.waves: Counter[str] = Counter()
        self.casts: Counter[str] = Counter()
        self.unread: Counter[str] = Counter()
        self.draws: Counter[str] = Counter()
        self.quantizing = 0
        self.dynamic = self.activations = False
        self.scales: list[float] = []
        self.held: dict[str, float] = {}  # numbers that may be scales, by name
        self.off: set[str] = set()  # what is false whatever comes in

    def described(self) -> GraphPrecision:
        quantized: Quantized = ""
        if self.quantizing or any(name in _INTEGERS for name in self.nodes):
            quantized = "dynamic" if self.dynamic else "static" if self.activations else "weights"
        return GraphPrecision(
            weights=_sorted(self.weights),
            nodes=_sorted(self.nodes),
            products=_sorted(self.products),
            rounded=_sorted(self.rounded),
            waves=_sorted(self.waves),
            casts=_sorted(self.casts),
            quantizing=self.quantizing,
            quantized=quantized,
            scales=tuple(self.scales),
            unread=_sorted(self.unread),
            draws=_sorted(self.draws),
        )

    def graph(self, graph: Any, outer: Mapping[str, str]) -> None:
        types = {**outer, **_types(graph)}
        stored = {tensor.name for tensor in graph.initializer}
        self.off |= {tensor.name for tensor in graph.initializer if _false(tensor)}
        self.off |= {node.output[0] for node in graph.node for held in _tensors(node) if _false(held)}
        self.held |= {tensor.name: scale for tensor in graph.initializer for scale in _scalar(tensor)}
        nodes, read = _used(graph, [value.name for value in graph.output])
        makers = {name: node for node in nodes for name in node.output if name}
        readers: dict[str, list[Any]] = {}
        for node in nodes:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        for tensor in graph.initializer:
            if tensor.name in read:
                self._weight(tensor, readers.get(tensor.name, ()))
        given = {value.name for value in graph.output}
        for node in nodes:
            after = [] if not given.isdisjoint(node.output) else readers.get(node.output[0], [])
            if after and node.op_type not in MOVES and all(one.op_type == "Cast" for one in after):
                kinds = {types.get(one.output[0], "") for one in after}
                self.rounded.update(kinds if len(kinds) == 1 and kinds <= {*FLOATS} else ())
            for held in _tensors(node):
                self._weight(held, readers.get(node.output[0], ()))
            for inner in _graphs(node):
                self.graph(inner, types)
            self.draws.update([node.op_type] if _draws(node, self.off) else [])
            self._node(node, types, makers, stored)
            if node.op_type == "QuantizeLinear" and node.input[0] not in stored:
                self._activation(node, makers, readers)

    def _activation(self, node: Any, makers: Mapping[str, Any], readers: Mapping[str, list[Any]]) -> None:
        """The scale of what is quantised, unless that is a product's result and goes into none.

        Whether a bias is added before or after that is not the same in every conversion.
        """
        turned = readers.get(node.output[0], ())
        after = [reader for one in turned for reader in readers.get(one.output[0], ())]
        maker = makers.get(node.input[0])
        result = maker is not None and maker.op_type in _PRODUCTS
        if node.input[1] in self.held and not (result and all(r.op_type not in _PRODUCTS for r in after)):
            self.scales.append(self.held[node.input[1]])

    def _weight(self, tensor: Any, readers: Any) -> None:
        name = _NAMES.get(tensor.data_type)
        if name in FLOATS or (name in _INTEGERS and any(_quantises(reader.op_type) for reader in readers)):
            self.weights[_CALLED.get(name, name)] += _size(tensor)

    def _node(self, node: Any, types: Mapping[str, str], makers: Mapping[str, Any], stored: set[str]) -> None:
        if node.op_type == "Cast":
            pair = types.get(node.input[0], ""), types.get(node.output[0], "")
            if pair[0] != pair[1] and all(name in FLOATS for name in pair):
                self.casts[" to ".join(pair)] += 1
            return
        if _quantises(node.op_type):
            self.quantizing += 1
            self.dynamic |= node.op_type in _DYNAMIC
            self.activations |= node.op_type == "QuantizeLinear" and node.input[0] not in stored
            self.activations |= node.op_type.startswith("QLinear")
            if node.op_type in _TURN or node.op_type == "DynamicQuantizeLinear":
                return
            kinds = {
                _CALLED.get(kind, kind) for name in node.input if (kind := types.get(name, "")) in _INTEGERS
            }
            kind = "int8" if "int8" in kinds else min(kinds, default="int8")
            self._count(node.op_type, _packed(node) or kind, product=True)
            return
        if node.op_type in MOVES:
            return
        whole = _dequantised(node, types, makers)
        if whole:
            self._count(node.op_type, whole)
            return
        given = [types.get(name, "") for name in node.output if name]
        if any(name == "" for name in given) and not any(name in FLOATS for name in given):
            self.unread[node.op_type] += 1
        elif given and given[0] in FLOATS:
            self._count(node.op_type, given[0])

    def _count(self, op_type: str, kind: str, *, product: bool = False) -> None:
        self.nodes[kind] += 1
        if product or op_type in _PRODUCTS:
            self.products[kind] += 1
        if op_type in ("Sin", "Cos"):
            self.waves[kind] += 1


def _used(graph: Any, outputs: Iterable[str]) -> tuple[list[Any], set[str]]:
    """The nodes that outputs hang on, in order, and every name that is read: the rest computes nothing."""
    makers = {name: at for at, node in enumerate(graph.node) for name in node.output if name}
    read: set[str] = set()
    used: set[int] = set()
    wanted = [*outputs]
    while wanted:
        name = wanted.pop()
        if name in read:
            continue
        read.add(name)
        at = makers.get(name)
        if at is not None and at not in used:
            used.add(at)
            wanted += graph.node[at].input
            wanted += [read_in for inner in _graphs(graph.node[at]) for read_in in _read_in(inner)]
    return [graph.node[at] for at in sorted(used)], read


def _read_in(graph: Any) -> Iterator[str]:
    """Every name that a graph within a graph reads, its own among them."""
    for value in graph.output:
        yield value.name
    for node in graph.node:
        yield from node.input
        for inner in _graphs(node):
            yield from _read_in(inner)


def _draws(node: Any, off: set[str]) -> bool:
    """Whether a node draws random numbers; dropout does unless its third input is known to be false."""
    idle = node.op_type == "Dropout" and {*node.input[2:3]} <= off
    return node.domain in STANDARD and is_random(node) and not idle


def _false(tensor: Any) -> bool:
    return tensor.data_type == _BOOL and not (any(tensor.raw_data) or any(tensor.int32_data))


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _quantises(op_type: str) -> bool:
    return op_type in _TURN or op_type in _DYNAMIC or op_type in _WHOLE or op_type.startswith("QLinear")


def _packed(node: Any) -> str:
    """The type of weights that are packed into bytes; empty for every other operator."""
    if node.op_type != "MatMulNBits":
        return ""
    return f"int{next((attribute.i for attribute in node.attribute if attribute.name == 'bits'), 4)}"


def _dequantised(node: Any, types: Mapping[str, str], makers: Mapping[str, Any]) -> str | None:
    """The integer type that every float which the operator reads was quantised to; None where one was not."""
    kinds = set()
    for name in node.input[:2]:
        maker = makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear":
            return None
        kind = types.get(maker.input[0], "int8")
        kinds.add(_CALLED.get(kind, kind))
    return min(kinds & _INTEGERS, default=None)


def _types(graph: Any) -> dict[str, str]:
    """The type of every value that has one and is a tensor; an unnamed one by its number."""
    found = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        number = value.type.tensor_type.elem_type
        if number:
            found[value.name] = _NAMES.get(number, str(number))
    for tensor in graph.initializer:
        found[tensor.name] = _NAMES.get(tensor.data_type, str(tensor.data_type))
    return found


def _tensors(node: Any) -> Iterator[Any]:
    if node.op_type == "Constant":
        yield from (a.t for a in node.attribute if a.name == "value")


def _graphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _scalar(tensor: Any) -> Iterator[float]:
    """The one number of a tensor of floats that has one."""
    from onnx import numpy_helper

    if _NAMES.get(tensor.data_type) == "float32" and _size(tensor) == 1 and not tensor.external_data:
        yield float(numpy_helper.to_array(tensor).reshape(-1)[0])


def _size(tensor: Any) -> int:
    size = 1
    for n in tensor.dims:
        size *= n
    return size
