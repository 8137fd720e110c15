"""No decision that an input can turn round is taken to be one of constants or a guard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from decision_cases import BOOL, FLOAT, INT64, model, node, ran
from onnx import TensorProto, helper, numpy_helper

from pytest_reflex.runners.graph_decisions import decisions_of

ZERO, ONE = np.float32(0), np.float32(1)
# What the nodes below may read.
HELD: dict[str, Any] = {
    "zero": ZERO, "one": ONE, "five": np.float32(5), "huge": np.float32(1e38), "gone": np.float32(-np.inf),
    "no": np.int64(0), "few": np.int64(5), "many": np.int64(2**62), "first": np.int64([0]),
    "third": np.float32([3]), "two": np.float32(2), "minus": np.float32(-1), "limit": np.int64(1000),
    "step": np.int64(1), "shape": np.int64([-1]), "hundred": np.int64(100),
    "wide": np.int32(2**24), "half32": np.int32(-(2**30)), "no32": np.int32(0), "many16": np.float16(300),
    "ends": np.float32([0] * 99 + [np.inf]), "six": np.zeros((3, 2), np.float32),
}  # fmt: skip
ENDS = {"n": (np.asarray(-3), np.asarray(300)), "mask": (np.zeros((1, 3), bool), np.ones((1, 3), bool))}


def judged(*nodes: onnx.NodeProto, last: str = "decided", typed: bool = False) -> Any:
    """Of what the nodes decide the last, and a function that runs fixtures."""
    made = [*nodes, node("Cast", [last], to=FLOAT)]
    graph = model(*made, **HELD)
    if typed:
        graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(graph)).SerializeToString()
    return lambda *fixtures: ran(graph, *fixtures, inputs=ENDS)[f"the_{last} condition"]


def casts(op: str, kind: int, limit: str) -> list[onnx.NodeProto]:
    return [
        node(op, ["x"], "made"),
        node("Cast", ["made"], "whole", to=kind),
        node("Cast", ["whole"], "long", to=INT64),
        node("Less", ["long", limit], "decided"),
    ]


def size_of(*nodes: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [*nodes, node("Size", ["found"], "size"), node("Less", ["size", "few"], "decided")]


LOW, HIGH = (0.5, True, 0), (10.0, False, 200)
TURNED: dict[str, tuple[Sequence[onnx.NodeProto], Any, Any]] = {
    **{
        f"Cast of {op} to {kind}": (casts(op, kind, "few"), LOW, HIGH)
        for op in ("Relu", "Exp", "Abs", "Softplus")
        for kind in (TensorProto.INT64, TensorProto.INT32)
    },
    "what may be NaN": (
        [node("Log", ["x"], "log"), node("Tanh", ["log"], "made"), node("Less", ["made", "two"], "decided")],
        (-1, True, 0),
        LOW,
    ),
    "Cast that wraps": (
        [
            node("Cast", ["n"], "small", to=TensorProto.INT8), node("Cast", ["small"], "long", to=INT64),
            node("Less", ["long", "no"], "decided"),
        ],
        LOW, HIGH,
    ),
    "a product that wraps": (
        [node("Mul", ["n", "many"], "product"), node("Less", ["product", "no"], "decided")],
        (0, True, 0), (0, True, 2),
    ),
    **{
        f"{op} of what wraps later": (
            [
                node("Cast", ["n"], "short", to=TensorProto.INT32), node(op, ["short"], "above"),
                node("Mul", ["above", "wide"], "product"), node("Less", ["product", "no32"], "decided"),
            ],
            (0, True, 1), (0, True, 200),
        )
        for op in ("Relu", "Abs")
    },
    "the size of the least whole number": (
        [
            node("Cast", ["n"], "short", to=TensorProto.INT32), node("Mul", ["short", "half32"], "product"),
            node("Abs", ["product"], "size"), node("Less", ["size", "no32"], "decided"),
        ],
        (0, True, 1), (0, True, 2),
    ),
    "a sum that wraps": (
        [
            node("Add", ["n", "many"], "more"), node("Add", ["more", "many"], "sum"),
            node("Greater", ["sum", "no"], "decided"),
        ],
        (0, True, -1), (0, True, 1),
    ),
    "infinity less infinity": (
        [
            node("Exp", ["x"], "up"), node("Exp", ["up"], "upper"), node("Sub", ["upper", "upper"], "none"),
            node("Abs", ["none"], "size"), node("GreaterOrEqual", ["size", "zero"], "decided"),
        ],
        LOW, HIGH,
    ),
    "0 times infinity": (
        [
            node("Exp", ["x"], "up"), node("Exp", ["up"], "upper"), node("Mul", ["upper", "zero"], "none"),
            node("Equal", ["none", "zero"], "decided"),
        ],
        LOW, HIGH,
    ),
    "a root of what is below 0": (
        [node("Sqrt", ["x"], "root"), node("GreaterOrEqual", ["root", "zero"], "decided")],
        (-1, True, 0), LOW,
    ),
    "the sine of infinity": (
        [
            node("Exp", ["x"], "up"), node("Exp", ["up"], "upper"), node("Sin", ["upper"], "sine"),
            node("Less", ["sine", "two"], "decided"),
        ],
        LOW, HIGH,
    ),
    "size of NonZero": (size_of(node("NonZero", ["x"], "found")), (0, True, 0), ([1, 2, 3], True, 0)),
    "size of Range": (size_of(node("Range", ["no", "n", "step"], "found")), LOW, HIGH),
    "size of Expand": (
        size_of(node("Reshape", ["n", "shape"], "to"), node("Expand", ["one", "to"], "found")), LOW, HIGH,
    ),
    "size of ConstantOfShape": (
        size_of(node("Reshape", ["n", "shape"], "to"), node("ConstantOfShape", ["to"], "found")), LOW, HIGH,
    ),
    "size of Tile": (
        size_of(node("Reshape", ["n", "shape"], "to"), node("Tile", ["third", "to"], "found")), LOW, HIGH,
    ),
    "size of Slice": (
        size_of(
            node("Range", ["no", "hundred", "step"], "all"), node("Reshape", ["n", "shape"], "to"),
            node("Slice", ["all", "first", "to"], "found"),
        ),
        LOW, HIGH,
    ),
    "size of what is made of NonZero": (
        size_of(
            node("NonZero", ["x"], "which"), node("Cast", ["which"], "numbers", to=FLOAT),
            node("Tanh", ["numbers"], "found"),
        ),
        (0, True, 0), ([1, 2, 3], True, 0),
    ),
    "a count of what NonZero gave": (
        [
            node("NonZero", ["x"], "which"), node("Cast", ["which"], "numbers", to=FLOAT),
            node("Tanh", ["numbers"], "held"), node("Less", ["held", "two"], "each"),
            node("Cast", ["each"], "ones", to=INT64), node("ReduceSum", ["ones"], "count", keepdims=0),
            node("Less", ["count", "few"], "decided"),
        ],
        (0, True, 0), ([1, 2, 3], True, 0),
    ),
    "Compress": (
        size_of(
            node("Reshape", ["mask", "shape"], "which"), node("Compress", ["six", "which"], "found", axis=0),
        ),
        (0, False, 0), (0, True, 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("typed", [False, True], ids=["bare", "typed"])
@pytest.mark.parametrize("name", TURNED)
def test_what_an_input_turns_round_no_constant_decides(name: str, typed: bool) -> None:
    nodes, one, other = TURNED[name]
    found = judged(*nodes, typed=typed)(one, other)
    assert found.both
    assert not found.constant


def test_a_free_size_is_that_of_no_stand_in() -> None:
    nodes = [
        node("Tanh", ["x"], "held"),
        node("Size", ["held"], "size"),
        node("Equal", ["size", "step"], "decided"),
        node("Cast", ["decided"], to=FLOAT),
    ]
    made = onnx.load_model_from_string(model(*nodes, step=np.int64(1)))
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "length"
    wide, narrow = ([0.1, 0.2, 0.3], True, 0), ([0.1], True, 0)
    assert ran(made.SerializeToString(), wide, narrow)["the_decided condition"].both
    made.graph.input[0].type.tensor_type.ClearField("shape")
    assert not any(one.constant for one in decisions_of(made.SerializeToString()).found)


def test_what_a_graph_states_of_a_size_bounds_nothing() -> None:
    """ONNX Runtime warns of another size than is stated, and goes on."""
    nodes = [
        node("MatMul", ["x", "w"], "wide"),
        node("ArgMax", ["wide"], "place", axis=1, keepdims=1),
        node("Greater", ["place", "step"], "decided"),
        node("Cast", ["decided"], to=FLOAT),
    ]
    for stated, most in ((2, 1), (4, 1), (2, 3)):
        made = onnx.load_model_from_string(model(*nodes, w=np.ones((3, 4), np.float32), step=np.int64(most)))
        made.graph.value_info.append(helper.make_tensor_value_info("wide", FLOAT, [1, stated]))
        (found,) = decisions_of(made.SerializeToString()).found
        assert found.constant == (most == 3)


def test_what_an_input_is_by_default_is_no_constant() -> None:
    nodes = [node("Less", ["n", "few"], "decided"), node("Cast", ["decided"], to=FLOAT)]
    (found,) = decisions_of(model(*nodes, few=np.int64(5), n=np.int64(3))).found
    assert not found.constant


DRAWN: dict[str, tuple[list[str], dict[str, Any]]] = {
    "RandomNormal": ([], {"shape": [1, 3]}),
    "RandomUniform": ([], {"shape": [1, 3]}),
    "RandomNormalLike": (["six"], {}),
    "RandomUniformLike": (["six"], {}),
    "Bernoulli": (["six"], {}),
    "Multinomial": (["six"], {"dtype": INT64}),
    "Dropout": (["six", "one", "yes"], {}),
}


@pytest.mark.parametrize("op", DRAWN)
def test_what_is_drawn_is_no_constant(op: str) -> None:
    """Though nothing but constants is read."""
    given, more = DRAWN[op]
    nodes = [
        node(op, given, "drawn", **more),
        node("Cast", ["drawn"], "number", to=FLOAT),
        node("Less", ["number", "one"], "decided"),
        node("IsInf", ["number"], "lost"),
        node("Or", ["decided", "lost"], "either"),
        node("Cast", ["either"], to=FLOAT),
    ]
    found = decisions_of(model(*nodes, yes=np.bool_(True), **HELD)).found
    assert not any(one.constant for one in found)
    assert [one.what for one in found if one.op == "IsInf"] == ["condition" if op == "Dropout" else "guard"]


def test_a_size_of_constants_is_one() -> None:
    for made in (
        [node("Tanh", ["x"], "found")],
        [node("Range", ["no", "few", "step"], "found")],
        [node("Shape", ["x"], "to"), node("Expand", ["one", "to"], "found")],
    ):
        nodes = [*made, node("Size", ["found"], "size"), node("Less", ["size", "few"], "decided")]
        assert judged(*nodes)().constant


def test_a_cast_that_fits_keeps_the_range() -> None:
    nodes = [
        node("Cast", ["n"], "short", to=TensorProto.INT32),
        node("Cast", ["limit"], "as", to=TensorProto.INT32),
    ]
    assert judged(*nodes, node("Less", ["short", "as"], "decided"))().constant
    held = [node("Tanh", ["x"], "held"), node("Cast", ["held"], "whole", to=INT64)]
    assert judged(*held, node("Less", ["whole", "few"], "decided"))().constant
    assert judged(node("Mul", ["n", "n"], "square"), node("Less", ["square", "many"], "decided"))().constant


ODD: dict[str, Sequence[onnx.NodeProto]] = {
    "Exp": [node("Exp", ["x"], "odd")],
    "Log": [node("Log", ["x"], "odd")],
    "a quotient": [node("Div", ["one", "x"], "odd")],
    "Reciprocal": [node("Reciprocal", ["x"], "odd")],
    "a root": [node("Sqrt", ["x"], "odd")],
    "a large factor": [node("Mul", ["x", "huge"], "odd")],
    "squares of squares": [
        node("Mul", ["x", "x"], "square1"),
        *(node("Mul", [f"square{i}"] * 2, f"square{i + 1}") for i in range(1, 6)),
        node("Identity", ["square6"], "odd"),
    ],
    "a table with an end": [node("Gather", ["ends", "n"], "read"), node("Mul", ["x", "read"], "odd")],
    "a power": [node("Pow", ["x", "five"], "fifth"), node("Pow", ["five", "fifth"], "odd")],
    "a product of a smaller type": [
        node("Tanh", ["x"], "held"),
        node("Cast", ["held"], "half_held", to=TensorProto.FLOAT16),
        node("Mul", ["half_held", "many16"], "more"),
        node("Mul", ["more", "many16"], "most"),
        node("Cast", ["most"], "odd", to=FLOAT),
    ],
    "a smaller type": [
        node("Cast", ["x"], "half", to=TensorProto.FLOAT16),
        node("Cast", ["half"], "odd", to=FLOAT),
    ],
}


@pytest.mark.parametrize("op", ["IsNaN", "IsInf"])
@pytest.mark.parametrize("name", ODD)
def test_what_finite_inputs_make_infinite_is_no_guard(name: str, op: str) -> None:
    graph = model(*ODD[name], node(op, ["odd"], "lost"), node("Where", ["lost", "one", "x"]), **HELD)
    kinds = {each.node: each.what for each in ran(graph, (1, True, 0), inputs=ENDS).values()}
    # Infinite, and never NaN.
    ordered = op == "IsNaN" and name in (
        "Exp",
        "a large factor",
        "a smaller type",
        "a product of a smaller type",
        "squares of squares",
    )
    assert kinds["the_lost"] == kinds["the_y"] == ("guard" if ordered else "condition")


@pytest.mark.parametrize("op", ["Add", "Mul", "Gemm", "ReduceSum", "LayerNormalization", "Div", "CastLike"])
@pytest.mark.parametrize("kind", [FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_what_small_types_do_not_hold_has_no_guard(op: str, kind: int) -> None:
    given = {"ReduceSum": ["x"], "Div": ["x", "minus"], "CastLike": ["x", "minus"]}.get(op, ["x", "x"])
    more = {"transB": 1} if op == "Gemm" else {}
    nodes = [
        node(op, given, "made", **more),
        node("IsInf", ["made"], "lost"),
        node("Cast", ["lost"], to=FLOAT),
    ]
    made = onnx.load_model_from_string(model(*nodes, minus=np.float32([-1])))
    made.graph.input[0].type.tensor_type.elem_type = FLOAT if op == "CastLike" else kind
    made.graph.initializer[0].CopyFrom(helper.make_tensor("minus", kind, [1], [-1]))
    (found,) = decisions_of(made.SerializeToString()).found
    assert found.what == ("guard" if kind == FLOAT else "condition")


@pytest.mark.parametrize("how", ["branch", "constant", "filled", "product"])
def test_a_constant_that_is_not_finite_makes_no_guard(how: str) -> None:
    """However it is held and wherever it is read."""
    ends = np.ones((1, 100), np.float32)
    ends[0, 70] = np.inf
    lost = [
        node("Relu", ["x"], "some"),
        node("ReduceMax", ["some"], "most", keepdims=0), node("Mul", ["most", "ends"], "odd"),
        node("IsNaN", ["odd"], "lost"), node("Cast", ["lost"], to=FLOAT),
    ]  # fmt: skip
    held: dict[str, Any] = {"ends": ends}
    if how == "branch":
        inside = [
            helper.make_graph(lost if first else [node("Identity", ["ends"])], "b", [], [
                helper.make_tensor_value_info("y", FLOAT, None)
            ])
            for first in (True, False)
        ]  # fmt: skip
        nodes = [
            node("Cast", ["n"], "yes", to=BOOL),
            node("If", ["yes"], "z", then_branch=inside[0], else_branch=inside[1]),
            node("Identity", ["z"]),
        ]
        inside[1].node[0].output[0] = inside[1].output[0].name = "w"
        inside[0].output[0].name = inside[0].node[-1].output[0] = "v"
    elif how == "product":
        lost[2] = node("MatMul", ["column", "ends"], "odd")
        nodes = [*lost[:2], node("Reshape", ["most", "single"], "column"), *lost[2:]]
        held["single"] = np.int64([1, 1])
    else:
        made = numpy_helper.from_array(ends if how == "constant" else np.float32([np.inf]))
        held = {} if how == "constant" else {"hundred": np.int64([100])}
        given = [] if how == "constant" else ["hundred"]
        nodes = [
            node("Constant" if how == "constant" else "ConstantOfShape", given, "ends", value=made),
            *lost,
        ]
    found = decisions_of(model(*nodes, **held)).found
    assert next(one for one in found if one.node == "the_lost").what == "condition"


@pytest.mark.parametrize("op", ["IsNaN", "IsInf"])
def test_what_stays_finite_has_a_guard(op: str) -> None:
    """A norm, a product with what has no upper end, and attention of a mask."""
    nodes = [
        *(node("Pow", ["x", "two"], "squared"), node("ReduceMean", ["squared", "last"], "mean")),
        *(
            node("Add", ["mean", "one"], "more"),
            node("Sqrt", ["more"], "root"),
            node("Div", ["x", "root"], "held"),
        ),
        *(node("Relu", ["held"], "above"), node("Mul", ["above", "held"], "score")),
        *(node("Where", ["mask", "zero", "gone"], "added"), node("Add", ["score", "added"], "sum")),
        *(
            node("Softmax", ["sum"], "share"),
            node(op, ["share"], "lost"),
            node("Where", ["lost", "one", "share"]),
        ),
    ]
    graph = model(*nodes, last=np.int64([-1]), **HELD)
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(graph)).SerializeToString()
    found = ran(graph, (1, [True, False, True], 0), inputs=ENDS)
    assert found["the_lost guard"].what == found["the_y guard"].what == "guard"


@pytest.mark.parametrize(
    ("told", "what"),
    [
        ([node("Identity", ["mask"], "open")], "guard"),
        ([node("Greater", ["n", "few"], "open")], "guard"),
        ([node("Size", ["x"], "size"), node("Greater", ["n", "size"], "open")], "guard"),
        ([node("Greater", ["x", "one"], "open")], "condition"),
        ([node("Less", ["x", "one"], "low"), node("Or", ["low", "mask"], "open")], "condition"),
        (
            [node("ArgMax", ["x"], "place", axis=1, keepdims=1), node("Less", ["place", "step"], "open")],
            "condition",
        ),
        (
            [node("Cast", ["x"], "whole", to=INT64), node("Less", ["whole", "few"], "open")],
            "condition",
        ),
        (
            [node("RandomUniformLike", ["zero"], "drawn"), node("Less", ["drawn", "one"], "open")],
            "condition",
        ),
    ],
)
def test_a_mask_that_values_close_is_no_guard_s(told: list[onnx.NodeProto], what: str) -> None:
    nodes = [
        *told,
        node("Where", ["open", "zero", "gone"], "added"),
        node("Add", ["x", "added"], "sum"),
        node("Softmax", ["sum"], "share"),
        node("IsNaN", ["share"], "lost"),
        node("Where", ["lost", "one", "share"]),
    ]
    kinds = {one.node: one.what for one in decisions_of(model(*nodes, **HELD), ENDS).found}
    assert kinds["the_lost"] == kinds["the_y"] == what


def test_what_goes_round_in_a_loop_is_finite_where_it_stays_so() -> None:
    for op, what in (("Tanh", "guard"), ("Exp", "condition")):
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go"], ["on"]),
                helper.make_node("IsInf", ["held"], ["lost"], name="lost"),
                helper.make_node("Where", ["lost", "one", "held"], ["kept"], name="kept"),
                helper.make_node(op, ["kept"], ["next"]),
            ],
            "body",
            [
                helper.make_tensor_value_info("i", INT64, []), helper.make_tensor_value_info("go", BOOL, []),
                helper.make_tensor_value_info("held", FLOAT, [1, 3]),
            ],
            [
                helper.make_tensor_value_info("on", BOOL, []),
                helper.make_tensor_value_info("next", FLOAT, [1, 3]),
            ],
        )  # fmt: skip
        found = ran(model(node("Loop", ["n", "", "x"], body=body), one=ONE), (0.1, True, 2))
        assert f"lost {what}" in found
