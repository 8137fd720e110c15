"""Whose fault it is: the graph's, the split's, ONNX Runtime's, or nobody's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from exporters.bundle.runner import BundleRunner
from exporters.divergence.local_error import ULPS, apart, spacing
from pytest_reflex.errors import ReflexError

if TYPE_CHECKING:
    from exporters.bundle.store import StoredBundle
    from exporters.divergence.walk import Walked
    from pytest_reflex.verdict.divergence import Cause, Location

Array = np.ndarray[Any, Any]

# Further than this many floors is no rounding; see pytest_reflex.verdict.rounding.
TIMES: Final = 2.0

# ONNX Runtime's graph transformers on the CPU, by the names that its `disabled_optimizers` takes. One that is
# missing here is still found out as "its optimizers", without its name.
OPTIMIZERS: Final = (
    "CastChainElimination", "CastElimination", "CommonSubexpressionElimination", "ConstantFolding",
    "ConstantSharing", "DivMulFusion", "DoubleQDQPairsRemover", "EliminateDropout", "EliminateIdentity",
    "EliminateSlice", "ExpandElimination", "GatherSliceToSplitFusion", "GatherToSliceFusion",
    "GeluFusionL1", "GeluFusionL2", "GemmSumFusion", "GemmTransposeFusion", "LayerNormFusionL1",
    "LayerNormFusionL2", "MatMulAddFusion", "MatMul_BatchNormalization_Fusion", "NoopElimination",
    "NotWhereFusion", "PadFusion", "PreShapeNodeElimination", "QDQFinalCleanupTransformer",
    "QDQPropagationTransformer", "ReshapeFusion", "SimplifiedLayerNormFusion", "TransposeOptimizer",
    "UnsqueezeElimination", "WhereDummyDq", "AttentionFusion", "BiasGeluFusion", "BiasSoftmaxFusion",
    "BiasSkipLayerNormFusion", "ConvActivationFusion", "ConvAddActivationFusion", "ConvAddFusion",
    "ConvBNFusion", "ConvMulFusion", "DynamicQuantizeMatMulFusion", "EmbedLayerNormFusion", "FastGeluFusion",
    "GemmActivationFusion", "GeluApproximation", "MatMulActivationFusion", "MatMulIntegerToFloatFusion",
    "MatMulNBitsFusion", "MatMulScaleFusion", "MatmulTransposeFusion", "NchwcTransformer", "NhwcTransformer",
    "QuickGeluFusion", "SkipLayerNormFusion",
)  # fmt: skip


def explain(
    bundle: StoredBundle,
    walked: Walked,
    fixture: Mapping[str, Array],
    expected: Array,
    truth: Callable[[], Array],
    search_split: Callable[[], str],
) -> tuple[Cause, str]:
    """The cause, and the answer in one sentence.

    Args:
        bundle: the bundle.
        walked: what the walk saw.
        fixture: the inputs.
        expected: what the reference gives, whole and as it is.
        truth: the reference in float64.
        search_split: which module the traced halves and the reference first differ in.
    """
    place = walked.place
    if place is not None:
        return "graph", said_of(place)
    got = _candidate(bundle, fixture)
    bound = _Bound(expected, truth)
    split = _distance(walked.expected, expected)
    if not bound.holds(split):
        where = search_split()
        return "split", (
            f"{where}: the graph computes what was traced, and what was traced is {split:.1e} from the policy"
        )
    runtime = _distance(walked.output, got)
    if not bound.holds(runtime):
        setting = _setting(bundle, fixture, walked.output, bound)
        return "runtime", (
            f"ONNX Runtime's {setting}: node by node the graph computes what the policy computes, and the "
            f"session as it is opened is {runtime:.1e} from that"
        )
    strange = np.flatnonzero(~np.isfinite(expected))
    if strange.size:
        at = [int(i) for i in np.unravel_index(strange[0], expected.shape)]
        return "reference", (
            f"the reference itself gives {expected[tuple(at)]} at {at} ({strange.size} of {expected.size} "
            "elements are not finite), and the graph follows it: look at PyTorch's side"
        )
    return "rounding", (
        f"nothing is further from PyTorch than float32 explains ({_distance(got, expected):.1e} in the end)"
    )


def said_of(place: Location) -> str:
    """What is wrong in one sentence; *by itself* of one operator alone, that is the same on both sides."""
    off = f"{place.error:.1e}"
    if place.together:
        what = place.operators
        verb = "together are" if len(set(place.together)) > 1 else "is"
        return f"{place.where}: {place.span}, {what} {verb} {off} off; {place.unpaired}"
    against = f", where PyTorch rounds by {place.rounding:.1e}" if place.rounding is not None else ""
    if place.unpaired:
        return f"{place.where}: {place.unpaired}, and fed alike they are {off} apart{against}"
    return f"{place.where}: {place.operator} is {off} off by itself{against}"


def _candidate(bundle: StoredBundle, fixture: Mapping[str, Array], **changes: Any) -> Array:
    with BundleRunner(bundle, **changes) as runner:
        return next(iter(runner.run(fixture).values()))


def _distance(a: Array | None, b: Array | None) -> float:
    if a is None or b is None or a.shape != b.shape:
        return float("inf")
    return apart(a, b).error


class _Bound:
    """How far the ends of two runs may be apart: what float32 explains, by PyTorch's own error.

    The whole policy is run in float64 when a distance is more than some units in the last place, and then
    once; where it does not run there, these units are all.
    """

    def __init__(self, expected: Array, truth: Callable[[], Array]) -> None:
        self._expected, self._truth = expected, truth
        self._plain = TIMES * ULPS * spacing(apart(expected, expected).scale)
        self._rounding: float | None = None

    def holds(self, distance: float) -> bool:
        if distance <= self._plain:
            return True
        if self._rounding is None:
            try:
                exact = self._truth()
            except ReflexError:
                self._rounding = 0.0
            else:
                self._rounding = apart(exact, self._expected.astype(np.float64)).error
        return distance <= TIMES * self._rounding


def _setting(bundle: StoredBundle, fixture: Mapping[str, Array], wanted: Array | None, bound: _Bound) -> str:
    """The one setting of the session that makes the difference, found by switching off halves of them."""

    def agrees(**changes: Any) -> bool:
        try:
            got = _candidate(bundle, fixture, **changes)
        except ReflexError:
            return False
        return bound.holds(_distance(wanted, got))

    if agrees(disabled_optimizers=OPTIMIZERS):
        return f"optimizer {_culprit(OPTIMIZERS, lambda off: agrees(disabled_optimizers=off))}"
    if agrees(optimization="disable"):
        return "optimizers (none of those known by name)"
    if agrees(config={}):
        stated = (f"{key}={value}" for key, value in bundle.stated.config.items())
        return f"session options {', '.join(stated)}"
    if agrees(prepack=False):
        return "packed weights (session.disable_prepacking=1 agrees)"
    if agrees(threads=1):
        return "number of threads (1 agrees)"
    return "settings (none of those tried alone)"


def _culprit(names: Sequence[str], cures: Callable[[Sequence[str]], bool]) -> str:
    """The one name whose absence cures; several where only together they do."""
    left = list(names)
    while len(left) > 1:
        half = len(left) // 2
        for kept in (left[:half], left[half:]):
            if cures(kept):
                left = kept
                break
        else:
            return f"one of {', '.join(left)}"
    return left[0]
