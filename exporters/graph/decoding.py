"""Prefill and step of a policy that decodes tokens, each traced once -> one graph with a Loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from exporters.flow.decoding import GOING, DecodingPolicy
from exporters.graph.loop_invariant import HALF_KEY, Encoder, check_fit, dims, qualify
from exporters.graph.traced_halves import CONTEXT, Example, Named, context_of
from exporters.graph.tracing import converted, trace_program, with_lines
from exporters.graph.update_nodes import Scope, typed
from pytest_reflex.errors import TracingError

NEXT = "next."


def traced_decoding(policy: DecodingPolicy, example: Example) -> ir.Model:
    """Both halves, traced and joined.

    Raises:
        TracingError: torch could not trace or convert a half, or they do not fit each other.
    """
    prefill = trace_program(policy, _named(policy.prefill, CONTEXT), example.tensors(), free=example.free)
    blanks, axes = context_of(prefill, example.sizes)
    blanks.pop(CONTEXT + GOING)
    step = trace_program(policy, _named(policy.step, NEXT), blanks, free=axes)
    return joined(converted(prefill), converted(step), policy.outputs, policy.steps)


def _named(half: Callable[..., Named], gives: str) -> Callable[..., Named]:
    """The same half, with ``context.`` before what it reads of the other, and this before what it gives."""
    said = with_lines(half)

    def call(**read: object) -> Named:
        return {
            gives + name: value
            for name, value in said(**{n.removeprefix(CONTEXT): v for n, v in read.items()}).items()
        }

    return call


def joined(prefill: ir.Model, step: ir.Model, outputs: Sequence[str], steps: int) -> ir.Model:
    """The prefill, and an ONNX ``Loop`` around the step while ``going`` is true; both models are consumed.

    Args:
        prefill: inputs -> ``context.*``: states as they begin, and what else the step reads.
        step: ``context.*`` -> ``next.*``: the states after it.
        outputs: the states that the graph gives.
        steps: how many there are at most.

    Raises:
        TracingError: the halves do not fit each other.
    """
    check_fit(prefill, step)
    states = [str(value.name).removeprefix(NEXT) for value in step.graph.outputs]
    _require_states(prefill, step, [*states, *outputs])
    states.remove(GOING)
    qualify(prefill, "prefix")
    qualify(step, "step")
    read = {str(value.name).removeprefix(CONTEXT): value for value in step.graph.inputs}
    encoder = Encoder(prefill, step, [CONTEXT + name for name in states if name in read])
    first = {name: encoder.given[CONTEXT + name] for name in states}

    counter, going = typed("loop/index", ir.DataType.INT64), typed("loop/going", ir.DataType.BOOL)
    held = {n: ir.Value(name=f"loop/{n}", shape=v.shape, type=v.type) for n, v in first.items()}
    body: list[ir.Node] = []
    scope = Scope("loop", body.append, {HALF_KEY: "step"})
    nodes, here = encoder.copied(
        {read[name]: value for name, value in held.items() if name in read}, "loop/step", scope.metadata
    )
    body.extend(nodes)
    made = {str(value.name).removeprefix(NEXT): here[value] for value in step.graph.outputs}
    # A state may be a value from outside of the loop, which its body cannot give as it is.
    ends = [scope.emit("Identity", [made[n]], f"{NEXT}{n}", made[n]) for n in (GOING, *states)]
    inner = ir.Graph([counter, going, *held.values()], ends, nodes=body, name="decoding_step")

    last = {n: ir.Value(name=f"loop/last_{n}", shape=v.shape, type=v.type) for n, v in first.items()}
    most = encoder.constant("loop/most", np.asarray(steps, np.int64))
    feed = [most, encoder.given[CONTEXT + GOING], *first.values()]
    node = ir.node("Loop", feed, {"body": inner}, name="decode", outputs=list(last.values()))
    node.metadata_props.update(scope.metadata)
    encoder.graph.append(node)
    return encoder.close({name: last[name] for name in outputs})


def _require_states(prefill: ir.Model, step: ir.Model, wanted: list[str]) -> None:
    first = {str(value.name).removeprefix(CONTEXT): value for value in prefill.graph.outputs}
    after = {str(value.name).removeprefix(NEXT): value for value in step.graph.outputs}
    for name in (*wanted, GOING):
        one, other = first.get(name), after.get(name)
        if one is None or other is None:
            half = "prefill" if one is None else "step"
            raise TracingError(f"the {half} gives no {name!r}, which is a state; give it from both halves")
        if one.dtype != other.dtype or dims(one) != dims(other):
            raise TracingError(
                f"{name!r} is {one.dtype}{dims(one)} after the prefill and {other.dtype}{dims(other)} after "
                "a step; a state keeps its dtype and its shape"
            )
