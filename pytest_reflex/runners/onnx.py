"""Runs an ONNX model under ONNX Runtime, and reports which execution provider did."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from pytest_reflex.errors import RunnerError, a_type
from pytest_reflex.runners.base import FLUSHED, first_line
from pytest_reflex.runners.model_files import FilesRunner, files_of, which_model
from pytest_reflex.settings import PROVIDERS, provider_name
from pytest_reflex.verdict import machine
from pytest_reflex.verdict.naming import call_line, near_path, only_pair

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime

    from pytest_reflex.runners.graph64 import Graph64Runner
    from pytest_reflex.runners.graph_decisions import Decisions
    from pytest_reflex.runners.graph_ranges import Range
    from pytest_reflex.verdict.coverage import Decision

    Array = np.ndarray[Any, Any]

# The session configuration entry that says where ONNX Runtime finds the weights beside a graph.
WEIGHTS_PLACE: Final = "session.model_external_initializers_file_folder_path"

# With it products of bytes are summed in 32 bits everywhere.
WHOLE_SUMS: Final = "session.x64quantprecision"
_SATURATES: Final = (
    "sums of signed 8-bit products saturate on a processor without VNNI; session.x64quantprecision=1, or "
    "unsigned weights, end that"
)
# What a session's configuration may ask for that makes its arithmetic another.
_SWITCHED_ON: Final = {
    "float32 is multiplied in bfloat16 on Arm; mlas.enable_gemm_fastmath_arm64_bfloat16=0 ends that": (
        "mlas.enable_gemm_fastmath_arm64_bfloat16",
        "1",
    ),
    FLUSHED: ("session.set_denormal_as_zero", "1"),
}

# With it a session says which provider each node was given to.
_ASSIGNMENT: Final = "session.record_ep_graph_assignment_info"

# How far ONNX Runtime may rewrite a graph, by its own words. Above "basic" it fuses operators, and a
# fused operator rounds otherwise than the operators it replaces.
Optimization = Literal["disable", "basic", "extended", "all"]
OPTIMIZATIONS: Final[tuple[Optimization, ...]] = get_args(Optimization)
_DTYPES: Final = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    **{f"tensor({name})": name for name in ("float16", "bfloat16", "bool")},
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class _Input(NamedTuple):
    """What a session takes: a name, numpy's dtype (or ONNX's type, where numpy has none), and sizes."""

    name: str
    dtype: str
    shape: Sequence[int | str | None]

    @classmethod
    def of(cls, stated: Any) -> _Input:
        return cls(stated.name, _DTYPES.get(stated.type, stated.type), list(stated.shape))


class OnnxRunner(FilesRunner):
    """Runs an ONNX model.

    Asking for a provider that is not there is no error here: ONNX Runtime falls back, ``providers_used``
    says so, and the verdict refuses it.

    Args:
        model: path of the ``.onnx`` file, or its bytes.
        provider: the execution provider, by short or full name.
        threads: threads within an operator; by default what ONNX Runtime chooses.
        prepack: copy the weights into the layout that runs fastest; without, they stay mapped from the
            file, and the session opens at once and small.
        optimization: how far ONNX Runtime may rewrite the graph: ``disable``, ``basic``, ``extended`` or
            ``all``, which is its default.
        disabled_optimizers: names of its graph transformers that are left out.
        outputs: the names of all its outputs in the order in which they are given; by default the model's.
        config: further session configuration entries, such as
            ``{"mlas.enable_gemm_fastmath_arm64_bfloat16": "1"}``.
        name: for people; by default the path.

    Attributes:
        provider_asked: ONNX Runtime's full name of the provider asked for.
        providers_used: what the session reports, empty before the first open; where no node that computes
            something was given to the provider asked for, what they were given to.
        fell_back: the nodes that compute something and were given to another provider, with that.
        inputs: names of the model's inputs, empty before the first open.
        outputs: names of the outputs, empty before the first open.
        matched: the one input it was given, and what the model calls its one input, where these differ.
        changed: which file, its graph or weights, was written to while it was open, in words; known once it
            is closed, empty when none was. No verdict passes that.

    Raises:
        SettingsError: the provider has no such name.
        RunnerError: ``threads`` is not a whole number above 0, or ``optimization`` is no such level.
    """

    def __init__(
        self,
        model: str | Path | bytes,
        *,
        provider: str = "cpu",
        threads: int | None = None,
        prepack: bool = True,
        optimization: Optimization = "all",
        disabled_optimizers: Sequence[str] = (),
        outputs: Sequence[str] | None = None,
        config: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise RunnerError(f"threads is {threads!r}; give a whole number above 0, or None")
        if optimization not in OPTIMIZATIONS:
            raise RunnerError(f"optimization is {optimization!r}; give one of {', '.join(OPTIMIZATIONS)}")
        self._model = model if isinstance(model, bytes) else Path(model)
        self.name = name or (f"{len(model)} bytes of ONNX" if isinstance(model, bytes) else str(model))
        self.provider_asked = provider_name(provider)
        self.providers_used: tuple[str, ...] = ()
        self.fell_back: tuple[str, ...] = ()
        self.inputs: tuple[str, ...] = ()
        self.outputs: tuple[str, ...] = ()
        self.matched: dict[str, str] = {}
        self._order = None if outputs is None else tuple(outputs)
        self._threads = threads
        self._prepack = prepack
        self._optimization = optimization
        self._disabled = list(disabled_optimizers)
        self._config = dict(config or {})
        self._session: onnxruntime.InferenceSession | None = None
        self._required: list[_Input] = []
        self._optional: dict[str, _Input] = {}
        self._exact: Graph64Runner | None = None
        self._decisions: Decisions | None = None

    @property
    def graphs(self) -> Sequence[Path | bytes]:
        """Its one graph; see :class:`~pytest_reflex.runners.base.HasGraphs`."""
        return (self._model,)

    def open(self) -> None:
        if self._session is not None:
            return
        if isinstance(self._model, Path) and not self._model.is_file():
            wrong = "is a directory" if self._model.is_dir() else "does not exist"
            raise RunnerError(
                f"{self._model} {wrong}{near_path(self._model)}; give the path of an .onnx file"
            )
        try:
            import onnxruntime
        except ImportError as error:
            raise RunnerError(f"{self.name} needs ONNX Runtime; pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails comes as an exception, and a probe may fail unseen
        level = "DISABLE_ALL" if self._optimization == "disable" else f"ENABLE_{self._optimization.upper()}"
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        if not self._prepack:
            options.add_session_config_entry("session.disable_prepacking", "1")
        if os.environ.get(machine.WAITING, "").upper() == "PASSIVE":
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for key, value in self._config.items():
            options.add_session_config_entry(key, value)
        there = self.provider_asked in onnxruntime.get_available_providers()
        provider = self.provider_asked if there else PROVIDERS["cpu"]
        if provider != PROVIDERS["cpu"]:
            options.add_session_config_entry(_ASSIGNMENT, "1")
        model = self._model if isinstance(self._model, bytes) else str(self._model)
        # ONNX Runtime looks for the weights of bare bytes where the process is.
        files, unseen = files_of(self._model, self.name, self._config.get(WEIGHTS_PLACE))
        try:
            # What fails would else be tried again on another provider, at the opening with a print to stdout
            # and at a run after this one was reported.
            session = onnxruntime.InferenceSession(
                model,
                options,
                providers=[provider],
                enable_fallback=0,
                disabled_optimizers=self._disabled or None,
            )
        except Exception as error:
            raise RunnerError(
                f"{self.name} is no model that ONNX Runtime can open: {first_line(error)}"
            ) from error
        # Only now: what no session opens has its own words for why.
        self._watch(files, unseen)
        self._session = session
        self._learn_providers(session)
        try:
            self._learn_names(session)
        except RunnerError:
            self.close()
            raise

    def _learn_providers(self, session: onnxruntime.InferenceSession) -> None:
        """What it runs on: a session names the provider that it was asked for, whoever runs its nodes."""
        self.providers_used, self.fell_back = tuple(session.get_providers()), ()
        asked = getattr(session, "get_provider_graph_assignment_info", None)  # of ONNX Runtime 1.24
        if self.providers_used[:1] == (PROVIDERS["cpu"],) or asked is None:
            return
        from pytest_reflex.runners.graph_precision import MOVES

        given = [(part.ep_name, node) for part in asked() for node in part.get_nodes()]
        computing = [(name, node) for name, node in given if node.op_type not in MOVES]
        if computing and all(name != self.provider_asked for name, _ in computing):
            self.providers_used = (computing[0][0],)
            return
        self.fell_back = tuple(
            f"{node.op_type} {node.name or 'without a name'} on {name}"
            for name, node in computing
            if name != self.provider_asked
        )

    @property
    def stated_inputs(self) -> tuple[tuple[str, str, Sequence[int | str | None]], ...]:
        """Name, dtype and sizes of each input that has to be given, once it is open."""
        return tuple(self._required)

    @property
    def open_axes(self) -> tuple[tuple[str, int, str], ...]:
        """What the graph leaves open of its inputs, once it is open: input, axis, the graph's name for it."""
        return tuple(
            (name, axis, size or f"axis {axis} of {name}")
            for name, _, shape in self._required
            for axis, size in enumerate(shape)
            if not isinstance(size, int)
        )

    def _learn_names(self, session: onnxruntime.InferenceSession) -> None:
        """Asked once: each answer of a session is made anew, and a robot's every run would wait for it."""
        try:
            self._required = [_Input.of(i) for i in session.get_inputs()]
            self._optional = {i.name: _Input.of(i) for i in session.get_overridable_initializers()}
            self.inputs = tuple(i.name for i in self._required)
            self.outputs = tuple(o.name for o in session.get_outputs())
        except UnicodeDecodeError as error:
            raise RunnerError(
                f"{self.name}: an input or output has a name that is no UTF-8 ({error}); export it again"
            ) from error
        twice = [name for name in self.outputs if self.outputs.count(name) > 1]
        if twice:
            raise RunnerError(f"{self.name}: two outputs are named {twice[0]!r}; give each a name of its own")
        if self._order is not None:
            if sorted(self._order) != sorted(self.outputs):
                said = f"outputs={list(self._order)} was given and its outputs are {list(self.outputs)}"
                raise RunnerError(f"{self.name}: {said}; give each of them once, in the order wanted")
            self.outputs = self._order

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import numpy as np

        session = self._opened(self._session)
        if (pair := only_pair(inputs, self.inputs)) is not None and pair[0] not in self._optional:
            self.matched = dict([pair])
            inputs = {pair[1]: inputs[pair[0]]}
        self._require_inputs(inputs)
        # ONNX Runtime reads inputs where they lie; it wants them whole and aligned.
        feed = {name: np.require(array, requirements=["C", "A"]) for name, array in inputs.items()}
        try:
            outputs = session.run(list(self.outputs), feed)
        except Exception as error:
            raise RunnerError(f"{self.name} failed: {first_line(error)}") from error
        made = dict(zip(self.outputs, outputs, strict=True))
        for name, value in made.items():
            if not isinstance(value, np.ndarray | np.generic):
                raise RunnerError(f"{self.name}: output {name!r} is {a_type(value)}, not an array")
        made = {name: np.asarray(value) for name, value in made.items()}
        return made if self._decisions is None else self._decisions.take(made)

    def watching(self, inputs: Mapping[str, Range] | None = None) -> OnnxRunner:
        """A copy that notes the decisions of its graph; see :mod:`.graph_decisions`.

        Args:
            inputs: of inputs of whole numbers and booleans the least and the largest value of each element.

        Raises:
            RunnerError: onnx is not installed, or the graph cannot be read.
        """
        from pytest_reflex.runners.graph_decisions import decisions_of

        found = decisions_of(self._model, inputs)
        place = {} if isinstance(self._model, bytes) else {WEIGHTS_PLACE: str(self._model.parent)}
        copy = self._with({**place, **self._config}, found.model)
        copy._decisions = found
        return copy

    def _with(self, config: Mapping[str, str], model: bytes | None = None) -> OnnxRunner:
        """A copy with further entries of its session's configuration, or of another graph."""
        return OnnxRunner(
            self._model if model is None else model,
            provider=self.provider_asked,
            threads=self._threads,
            prepack=self._prepack,
            optimization=self._optimization,
            disabled_optimizers=self._disabled,
            outputs=self._order if model is None else None,
            config={**self._config, **config},
            name=self.name,
        )

    def without_traps(self) -> Mapping[str, OnnxRunner]:
        """See :class:`~pytest_reflex.runners.base.HasTraps`."""
        found: dict[str, OnnxRunner] = {}
        for words, (key, value) in _SWITCHED_ON.items():
            if self._config.get(key) == value:
                found[words] = self._with({key: "0"})
        saturates = machine.integer_sums(machine.here()) == "saturating"
        if saturates and self._config.get(WHOLE_SUMS) != "1" and self._multiplies_bytes():
            found[_SATURATES] = self._with({WHOLE_SUMS: "1"})
        return found

    def _multiplies_bytes(self) -> bool:
        from pytest_reflex.runners.graph_precision import precision_of

        try:
            return bool(precision_of(self._model).quantized)
        except RunnerError:  # it cannot be read, or not here
            return False

    @property
    def decisions(self) -> Sequence[Decision]:
        """The decisions of a copy that notes them, with the ways that they went so far."""
        return [] if self._decisions is None else self._decisions.found

    def exact(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What the graph says in float64, taken at its word; see :mod:`.graph64`.

        Raises:
            RunnerError: the runner is not open, onnx is not installed, or its evaluator cannot run the graph.
        """
        from pytest_reflex.runners.graph64 import Graph64Runner

        self._opened(self._session)
        if self._exact is None:
            self._exact = Graph64Runner(self._model, whole=True, name=self.name)
            self._exact.open()
        return self._exact.run(inputs)

    def close(self) -> None:
        self._exact = None
        self._leave()
        self._session = None

    def facts(self) -> dict[str, Any]:
        import onnxruntime

        self._opened(self._session)
        return {
            "kind": "onnx",
            "name": self.name,
            "path": None if isinstance(self._model, bytes) else str(self._model),
            "sha256": self._sha256(),
            "provider_asked": self.provider_asked,
            "providers_used": list(self.providers_used),
            **({"fell_back": list(self.fell_back)} if self.fell_back else {}),
            "threads": self._threads,
            "prepack": self._prepack,
            "optimization": self._optimization,
            "config": dict(self._config),
            **({"matched": dict(self.matched)} if self.matched else {}),
            "machine": {**machine.here(), "onnxruntime_build": _build(onnxruntime)},
            "versions": {"onnxruntime": str(onnxruntime.__version__)},
        }

    def _sha256(self) -> str | dict[str, str]:
        """Which model it is: the digest of its one file, or one for each."""
        return which_model(self._model, self.digests())

    def _require_inputs(self, inputs: Mapping[str, Array]) -> None:
        missing = [name for name in self.inputs if name not in inputs]
        # An input with a default may be given or left out.
        extra = [name for name in inputs if name not in self.inputs and name not in self._optional]
        if missing or extra:
            parts = [f"missing {', '.join(map(repr, missing))}"] if missing else []
            parts += [f"unexpected {', '.join(map(repr, extra))}"] if extra else []
            line = call_line(self.inputs, list(inputs))
            advice = f"; name the inputs so, and give {line} where the policy has other names" if line else ""
            raise RunnerError(
                f"{self.name}: inputs are {'; '.join(parts)}; it takes {', '.join(self.inputs)}{advice}"
            )
        given = [i for name, i in self._optional.items() if name in inputs]
        for expected in [*self._required, *given]:
            array = inputs[expected.name]
            same_rank = len(array.shape) == len(expected.shape)
            sizes = zip(array.shape, expected.shape, strict=False)
            # A dimension with a name, or none, takes any length.
            fits = same_rank and not any(isinstance(want, int) and got != want for got, want in sizes)
            if array.dtype.name != expected.dtype or not fits:
                called = f"{self.name}: input {expected.name!r}"
                advice = _FIXED if same_rank and self.name.endswith(".onnx") else ""
                raise RunnerError(f"{called} {_misfit(array, expected.dtype, list(expected.shape), advice)}")


def _misfit(array: np.ndarray[Any, Any], dtype: str, shape: list[Any], advice: str) -> str:
    """What an array is that does not fit an input, and what that takes; ``advice`` is for another size."""
    given = list(array.shape)
    if (array.dtype.kind in "biu" and dtype.startswith("float")) or _in_another_order(given, shape):
        return f"is {array.dtype.name} {given}; it takes {dtype} {shape}{_CONVERTED}"
    if array.dtype.name != dtype:
        narrow = dtype in ("float16", "bfloat16") and array.dtype.name == "float32"
        return f"is {array.dtype.name}; it takes {dtype}{_WIDE if narrow else ''}"
    return f"has shape {given}; it takes {shape}{advice}"


def _in_another_order(given: list[int], taken: list[Any]) -> bool:
    """Whether the same axes are there in another order, as pixels that are [H, W, C] and [C, H, W]."""
    sizes = all(isinstance(size, int) for size in taken)
    return sizes and given != taken and len(given) > 2 and sorted(given) == sorted(taken)


# Of a file from elsewhere, whose inputs somebody else has said.
_FIXED: Final = (
    " alone; where its InputSpec leaves an axis free, export the file with that axis free, or leave free= out"
)
# What to do about a graph before which something else turns what the policy reads into numbers.
_CONVERTED: Final = (
    "; give inputs as the file takes them, and as the reference TorchRunner(policy, call=...) that makes of "
    "them what the policy reads"
)


# What to do about a graph whose inputs and outputs were converted with it.
_WIDE: Final = (
    ", and is judged with inputs and outputs in float32: convert it so (keep_io_types=True of onnxruntime's "
    "converter), or export the policy in float32 and convert that"
)


def _build(onnxruntime: Any) -> str:
    """Branch, commit and build type, where ONNX Runtime says them."""
    asked = getattr(onnxruntime, "get_build_info", None)
    said = str(asked()) if callable(asked) else ""
    return " ".join(said.removeprefix("ORT Build Info:").split()) or machine.UNKNOWN
