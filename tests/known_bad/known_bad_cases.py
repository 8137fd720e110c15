"""The corpus: candidates that are wrong in one way each, and the gate that must say so.

A case's name is ``verdict_gate__what``: ``fail`` and the first gate that refuses, ``error`` and the kind of
error, or ``pass``. The candidates are ONNX models around one small flow policy, so that a case can be a
bundle for the command line too; what no graph can do is a runner, and has no such form.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Final

import numpy as np
import onnx
import onnxruntime
import steered
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from exporters.bundle.manifest import Manifest, write_manifest
from exporters.bundle.store import FIXTURES, file_facts
from exporters.bundles import open_bundle
from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs import (
    CameraMask,
    Gaussian,
    InputSpec,
    Integers,
    State,
    Tokens,
    Uniform,
    make_fixture,
)
from pytest_reflex.inputs.spec import Distribution, Draw
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import (
    FunctionRunner,
    OnnxReference,
    OnnxRunner,
    RecordedRunner,
    Runner,
    TorchRunner,
    save_recording,
)
from pytest_reflex.runners.base import RunnerBase
from pytest_reflex.verdict.results import FIXTURE_GATE_NAMES, RUN_GATE_NAMES
from pytest_reflex.verdict.tolerances import Amount, Tolerances

Arrays = dict[str, np.ndarray]
Function = Callable[[Arrays], Arrays]

CHUNK, JOINTS, STEPS = 50, 32, 3
SPECS: Final = [
    InputSpec("cameras", (1, 2), "bool", CameraMask()),
    InputSpec("state", (1, JOINTS), meaning=State()),
    InputSpec("noise", (1, CHUNK, JOINTS), meaning=Gaussian()),
]
# Neighbours that float64 cannot tell apart, and the ends that wrap around in 64 bits.
BIG, LAST = 2**53, 2**63 - 1
OUTPUTS: Final = {"actions": TensorProto.FLOAT, "ids": TensorProto.INT64, "done": TensorProto.BOOL}
FIXTURE_COUNT: Final = 5


def honest(inputs: Arrays) -> Arrays:
    """Three Euler steps; ids and flags of the cameras."""
    masks = inputs["cameras"].astype(np.float32)
    seen = inputs["state"] * masks[:, :1] + np.float32(2) * inputs["state"] * masks[:, 1:]
    x = inputs["noise"]
    for _ in range(STEPS):
        x = x + np.float32(-1 / STEPS) * (np.float32(0.5) * x + seen[:, None, :])
    ids = np.where(inputs["cameras"], np.int64(LAST), np.int64(BIG))
    return {"actions": x, "ids": ids, "done": ~inputs["cameras"]}


class Computed(RunnerBase):
    """A runner around a function of the inputs."""

    def __init__(self, function: Function, name: str = "reference", **facts: Any) -> None:
        self.name, self._function, self._facts = name, function, facts

    def open(self) -> None: ...

    def close(self) -> None: ...

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return self._function(dict(inputs))

    def facts(self) -> dict[str, Any]:
        return {"kind": "function", **self._facts}


Node = tuple[str, Sequence[str], Sequence[str], dict[str, Any]]


def node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> Node:
    return op, inputs, [output], attributes


def model(
    tail: Sequence[Node] = (),
    outputs: Mapping[str, int] = OUTPUTS,
    constants: Mapping[str, Any] | None = None,
    last_dt: float = -1 / STEPS,
) -> bytes:
    """The policy in ONNX, with its true outputs named ``true_actions`` and so on.

    ``tail`` makes the outputs of them; one that it does not make is handed on as it is.
    """
    held: dict[str, Any] = {
        "two": np.float32(2), "half": np.float32(0.5), "dt": np.float32(-1 / STEPS),
        "last_dt": np.float32(last_dt), "axis1": np.array([1], np.int64), "i0": np.array([0], np.int64),
        "i1": np.array([1], np.int64), "i2": np.array([2], np.int64), "last": np.array(LAST, np.int64),
        "big": np.array(BIG, np.int64), **(constants or {}),
    }  # fmt: skip
    body: list[Node] = [
        node("Cast", ["cameras"], "masks", to=TensorProto.FLOAT),
        node("Slice", ["masks", "i0", "i1", "axis1"], "mask0"),
        node("Slice", ["masks", "i1", "i2", "axis1"], "mask1"),
        node("Mul", ["state", "mask0"], "seen0"),
        node("Mul", ["two", "state"], "state2"),
        node("Mul", ["state2", "mask1"], "seen1"),
        node("Add", ["seen0", "seen1"], "seen_flat"),
        node("Unsqueeze", ["seen_flat", "axis1"], "seen"),
    ]
    x = "noise"
    for step in range(STEPS):
        following = "true_actions" if step == STEPS - 1 else f"x{step}"
        body += [
            node("Mul", ["half", x], f"halved{step}"),
            node("Add", [f"halved{step}", "seen"], f"v{step}"),
            node("Mul", ["last_dt" if step == STEPS - 1 else "dt", f"v{step}"], f"d{step}"),
            node("Add", [x, f"d{step}"], following),
        ]
        x = following
    body += [node("Where", ["cameras", "last", "big"], "true_ids"), node("Not", ["cameras"], "true_done")]
    made = {name for _, _, names, _ in tail for name in names}
    body += [*tail, *(node("Identity", [f"true_{n}"], n) for n in outputs if n not in made)]
    graph = helper.make_graph(
        [helper.make_node(op, list(i), list(o), name=f"n{k}", **a) for k, (op, i, o, a) in enumerate(body)],
        "known_bad",
        [
            helper.make_tensor_value_info("cameras", TensorProto.BOOL, [1, 2]),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, JOINTS]),
            helper.make_tensor_value_info("noise", TensorProto.FLOAT, [1, CHUNK, JOINTS]),
        ],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString())


def actions(*tail: Node, **constants: Any) -> bytes:
    """The policy with its actions made by ``tail``."""
    return model(tail, constants=constants)


def at(index: tuple[int, ...], value: float) -> np.ndarray:
    array = np.zeros((1, CHUNK, JOINTS), np.float32)
    array[index] = value
    return array


@dataclass(frozen=True)
class Case:
    """One thing that must not pass.

    Attributes:
        name: ``verdict_gate__what``.
        model: the candidate as ONNX, or None where it is a runner.
        candidate: makes the candidate from a directory to work in; by default the model.
        truth: what the reference computes.
        facts: what the reference says of itself.
        judging: keywords of the check.
        strict: whether doubts are failures.
        recorded: how many fixtures the command line's recording holds.
        damage: what is done to the bundle after it was written.
        source: makes the reference from a directory to work in, where a function is not enough.
    """

    name: str
    model: bytes | None = None
    candidate: Callable[[Path], Any] | None = None
    truth: Function = honest
    facts: Mapping[str, Any] = field(default_factory=dict)
    judging: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False
    recorded: int = FIXTURE_COUNT
    damage: Callable[[Path], None] | None = None
    source: Callable[[Path], Any] | None = None

    @property
    def verdict(self) -> str:
        return self.name.partition("__")[0].partition("_")[0]

    @property
    def gate(self) -> str:
        """The gate that must refuse first, or the kind of error; empty for a pass."""
        return self.name.partition("__")[0].partition("_")[2]

    @property
    def on_the_command_line(self) -> bool:
        return self.model is not None and not self.facts and self.source is None

    def judge(self, check: Callable[..., ParityResult], work: Path) -> ParityResult:
        """Judge it with ``check``, which is pytest_reflex's own or a test's ``parity.check``."""
        if self.damage is not None:
            self.bundle(work / "b")
            candidate: Any = open_bundle(work / "b", to_judge=True)
        elif self.candidate is not None:
            candidate = self.candidate(work)
        else:
            candidate = OnnxRunner(
                self.model or b"", provider=self.judging.get("provider", "cpu"), name=self.name
            )
        given = {"inputs": SPECS, **self.judging}
        return check(self.source(work) if self.source else self.reference(), candidate, **given)

    def reference(self) -> Runner:
        return Computed(self.truth, **self.facts)

    def record(self, path: Path) -> None:
        fixtures = [make_fixture(SPECS, 0, idx) for idx in range(self.recorded)]
        save_recording(path, [(f, self.truth(dict(f))) for f in fixtures], [spec.name for spec in SPECS])

    def bundle(self, path: Path) -> None:
        """The model as a bundle, with the recording of the reference that it is judged against."""
        path.mkdir(parents=True)
        (path / "model.onnx").write_bytes(self.model or b"")
        self.record(path / FIXTURES)
        files = file_facts(path, ["model.onnx", FIXTURES])
        outputs = [
            {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)}
            for name, array in honest(make_fixture(SPECS, 0, 0)).items()
        ]
        graphs = {"model": "model.onnx"}
        write_manifest(path, Manifest("module", "single", SPECS, outputs, graphs=graphs, files=files))
        if self.damage is not None:
            self.damage(path)

    def command_line(self) -> list[str]:
        """The options that say what ``judging`` says; fixtures are those of the recording."""
        options = ["--strict"] if self.strict else []
        options += ["--infinities"] if self.judging.get("infinities") else []
        for name in ("provider", "threshold", "rtol", "claim", "claim_budget", "coverage"):
            if name in self.judging:
                options += [f"--{name.replace('_', '-')}", str(self.judging[name])]
        return options


def with_nan(value: float) -> Function:
    def truth(inputs: Arrays) -> Arrays:
        made = honest(inputs)
        made["actions"] = made["actions"].copy()
        made["actions"][0, 7, 3] = value
        return made

    return truth


def with_faint_state(inputs: Arrays) -> Arrays:
    """The state moves the actions by a millionth of itself: the bits, and never the verdict by threshold."""
    made = honest({**inputs, "state": np.zeros_like(inputs["state"])})
    return {**made, "actions": made["actions"] + np.float32(1e-6) * inputs["state"][:, None, :]}


def plain_actions(fixture_idx: int = 0) -> np.ndarray:
    return honest(make_fixture(SPECS, 0, fixture_idx))["actions"]


def honest_but_in(fixture_idx: int) -> Function:
    """Right wherever a plain check looks."""
    noise = make_fixture(SPECS, 0, fixture_idx)["noise"]

    def function(inputs: Arrays) -> Arrays:
        made = honest(inputs)
        off = np.float32(0.5) if np.array_equal(inputs["noise"], noise) else np.float32(0)
        return {**made, "actions": made["actions"] + off}

    return function


class Replay(RunnerBase):
    """Knows the reference's answers by their inputs, and nothing else."""

    name = "replay"

    def __init__(self, *, otherwise: bool) -> None:
        self._otherwise = otherwise
        fixtures = [make_fixture(SPECS, 0, idx) for idx in range(FIXTURE_COUNT)]
        self._known = {f["noise"].tobytes() + f["cameras"].tobytes() + f["state"].tobytes(): honest(f)
                       for f in fixtures}  # fmt: skip

    def open(self) -> None: ...

    def close(self) -> None: ...

    def facts(self) -> dict[str, Any]:
        return {"kind": "replay"}

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        key = inputs["noise"].tobytes() + inputs["cameras"].tobytes() + inputs["state"].tobytes()
        if key in self._known:
            return {name: array.copy() for name, array in self._known[key].items()}
        if self._otherwise:
            return {n: a.copy() for n, a in next(iter(self._known.values())).items()}
        raise RunnerError("replay: these inputs have no stored answer")


def replay_that_adds_the_state(inputs: Arrays) -> Arrays:
    """Stored answers for what was judged, and one input of three that it computes with."""
    known = [make_fixture(SPECS, 0, idx) for idx in range(FIXTURE_COUNT)]
    same = [all((f[n] == inputs[n]).all() for n in ("cameras", "noise")) for f in known]
    if not any(same):
        raise RunnerError("replay: no stored answer for this noise")
    stored = honest({**known[same.index(True)], "state": np.zeros_like(inputs["state"])})
    moved = honest({**inputs, "noise": np.zeros_like(inputs["noise"])})
    return {**stored, "actions": stored["actions"] + moved["actions"]}


class Sessioned(nn.Module):
    """PyTorch in name alone: an ONNX graph computes."""

    def __init__(self, graph: bytes) -> None:
        super().__init__()
        self.session = onnxruntime.InferenceSession(graph)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        made = self.session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        return {name: torch.from_numpy(array) for name, array in zip(OUTPUTS, made, strict=True)}


def off_by_a_half() -> bytes:
    return actions(*_STEP_TAIL, off=np.float32(0.5))


def sessioned(work: Path) -> Runner:
    return TorchRunner(Wrapped(Sessioned(off_by_a_half())), name="reference")


class Deep(nn.Module):
    """The same, the graph a few steps further away: in an object, in a list, in a runner of one."""

    def __init__(self, graph: bytes) -> None:
        super().__init__()
        self.engines = [SimpleNamespace(policy=OnnxRunner(graph))]

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        with self.engines[0].policy as session:
            made = session.run({name: tensor.numpy() for name, tensor in inputs.items()})
        return {name: torch.from_numpy(array) for name, array in made.items()}


def enclosed(work: Path) -> Runner:
    """A function that computes with a session that it encloses."""
    session = onnxruntime.InferenceSession(off_by_a_half())

    def policy(**inputs: np.ndarray) -> Arrays:
        return dict(zip(OUTPUTS, session.run(None, dict(inputs)), strict=True))

    return FunctionRunner(policy)


def recorded_candidate(work: Path) -> RecordedRunner:
    Case("pass", truth=honest).record(work / "stored.safetensors")
    return RecordedRunner(work / "stored.safetensors")


class Meddled(OnnxRunner):
    """Its weights are written to while it runs, so that no digest says with what it computed."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        given = super().run(inputs)
        with (Path(self.name).parent / "weights").open("ab") as file:
            file.write(b"\0")
        return given


def meddled(work: Path) -> OnnxRunner:
    work.mkdir(parents=True, exist_ok=True)
    held = onnx.load_model_from_string(actions(*_STEP_TAIL, off=at((0, 0, 0), 1e-6)))
    onnx.save(held, work / "m.onnx", save_as_external_data=True, location="weights", size_threshold=1024)
    return Meddled(work / "m.onnx")


def exchanged(work: Path) -> Any:
    """A bundle whose graph becomes another, no further off than its threshold, once its digests were read."""
    Case("pass", model()).bundle(work / "b")
    bundle = open_bundle(work / "b")
    (work / "b" / "model.onnx").write_bytes(actions(*_STEP_TAIL, off=np.float32(1e-6)))
    return bundle


def small(share: float, offset: float = 0.0) -> Function:
    """The policy with actions that are a share of what they are, around an offset."""

    def truth(inputs: Arrays) -> Arrays:
        made = honest(inputs)
        return {**made, "actions": np.float32(offset) + np.float32(share) * made["actions"]}

    return truth


def with_one_large(share: float) -> Function:
    def truth(inputs: Arrays) -> Arrays:
        made = small(share)(inputs)
        made["actions"][0, 0, 0] = 1
        return made

    return truth


def with_force(share: float) -> Function:
    return lambda inputs: {**honest(inputs), "force": np.float32(share) * honest(inputs)["actions"]}


def wrong_where(where: Callable[[Arrays], bool]) -> Function:
    """Right, and a tenth too far where ``where`` says so."""

    def function(inputs: Arrays) -> Arrays:
        made = honest(inputs)
        return {**made, "actions": made["actions"] + np.float32(0.1)} if where(inputs) else made

    return function


class Posing(str):
    """A name that says it is any other."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("actions")


def posing(inputs: Arrays) -> Arrays:
    made = honest(inputs)
    return {Posing("other"): made.pop("actions"), **made}


def wide(inputs: Arrays) -> Arrays:
    return {name: array.astype(np.longdouble) for name, array in honest(inputs).items()}


def computed(function: Function) -> Callable[[Path], Runner]:
    return lambda work: Computed(function, "candidate")


class Torn(Computed):
    """A reference that float64 sees on the other side of a step: its floor is as large as what it does."""

    def exact(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        made = self.run(inputs)
        return {**made, "actions": -made["actions"].astype(np.float64)}


class Batched:
    """A candidate that says what its inputs stand for, whatever it is judged with."""

    def __init__(self, inputs: Sequence[InputSpec], function: Function) -> None:
        self.inputs, self._function = list(inputs), function

    def runner(self, provider: str) -> Runner:
        return Computed(self._function, "candidate")

    def reference_runner(self, model: Any) -> Runner:
        raise AssertionError("the reference is a runner")


def faint_state_in_the_plain_fixture_only(inputs: Arrays) -> Arrays:
    """As ``with_faint_state``, but that beside other noise than the plain fixture's it is not looked at."""
    plain = (inputs["noise"] == make_fixture(SPECS, 0, 0)["noise"]).all()
    return with_faint_state(inputs if plain else {**inputs, "state": np.zeros_like(inputs["state"])})


def faint_state_turned_round(inputs: Arrays) -> Arrays:
    return with_faint_state({**inputs, "state": -inputs["state"]})


def knows_each_judged_value(inputs: Arrays) -> Arrays:
    """Right on every value that a fixture is judged with, and deaf to all others."""
    known = [make_fixture(SPECS, 0, idx) for idx in range(FIXTURE_COUNT)]
    heard = {
        name: array if any(array.tobytes() == f[name].tobytes() for f in known) else known[0][name]
        for name, array in inputs.items()
    }
    return honest(heard)


class Stateful(nn.Module):
    """The policy in PyTorch, with something beside its inputs that its answers hang on."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.calls, self.rng = kind, 0, np.random.default_rng(0)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        made = honest({name: tensor.numpy() for name, tensor in inputs.items()})
        actions = torch.from_numpy(made["actions"])
        if self.kind == "counts":
            self.calls += 1
            actions = actions * (1.0 if self.calls < 12 else 2.0)
        elif self.kind == "counts long":
            self.calls += 1
            actions = actions * (1.0 if self.calls < 1000 else 2.0)
        elif self.kind == "fills a buffer":
            actions = actions + 0.1 * self.seen
            self.seen = self.seen * 0.5 + actions.mean()
        elif self.kind == "numpy":
            actions = actions + np.random.standard_normal() * 0
        elif self.kind == "Python":
            actions = actions + random.random() * 0
        elif self.kind == "its own":
            actions = actions + float(self.rng.standard_normal())
        return {**{name: torch.from_numpy(array) for name, array in made.items()}, "actions": actions}


def stateful(kind: str) -> Callable[[Path], Runner]:
    return lambda work: TorchRunner(Stateful(kind), name="reference")


class Weighed(nn.Module):
    """The policy with a weight that is one."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        made = honest({name: tensor.numpy() for name, tensor in inputs.items()})
        given = {name: torch.from_numpy(array) for name, array in made.items()}
        return {**given, "actions": given["actions"] * self.weight}


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, **inputs: torch.Tensor) -> Any:
        return self.inner(**inputs)


WEIGHED: Final = Weighed(nn.Parameter(torch.ones(())))


def same_weights() -> Weighed:
    return Weighed(nn.Parameter(WEIGHED.weight.data))


def in_torch(model: Callable[[], nn.Module] | nn.Module, *call: Any) -> Callable[[Path], Runner]:
    return lambda work: TorchRunner(model, *call)


def wrapped(work: Path) -> Runner:
    return TorchRunner(Wrapped(WEIGHED))


def a_function(**inputs: np.ndarray) -> Arrays:
    return honest(inputs)


def as_function(function: Callable[..., Any], **how: Any) -> Callable[[Path], Runner]:
    return lambda work: FunctionRunner(function, **how)


def some_integers(share: float) -> Function:
    """A force that is a share of the actions, and in one fixture integers."""

    def truth(inputs: Arrays) -> Arrays:
        made = honest(inputs)
        rest = (inputs["noise"] == make_fixture(SPECS, 0, 1)["noise"]).all()
        force = np.float32(share) * made["actions"]
        return {**made, "force": np.zeros_like(force, np.int32) if rest else force}

    return truth


def near_its_middle(inputs: Arrays) -> Arrays:
    """Right where the noise is near 1, and nowhere else."""
    apart = inputs["noise"] - np.float32(1)
    return {**honest(inputs), "actions": honest(inputs)["actions"] + np.float32(100) * apart**3}


def onnx_file(name: str, same: bool = True) -> Callable[[Path], Runner]:
    def made(work: Path) -> Runner:
        path = work / name
        work.mkdir(parents=True, exist_ok=True)
        turned = (node("Neg", ["true_actions"], "less"), node("Neg", ["less"], "actions"))
        path.write_bytes(model() if same else actions(*turned))
        return OnnxRunner(path)

    return made


def said(name: str, same: bool = True) -> Callable[[Path], Runner]:
    """The file as a reference because somebody says so."""
    return lambda work: OnnxReference(onnx_file(name, same)(work))


def graph_of_its_bundle(work: Path) -> OnnxReference:
    """The bundle as the reference of the very graph in it."""
    Case("pass", model()).bundle(work / "judge")
    return OnnxReference(open_bundle(work / "judge"))


def blind_reference(work: Path) -> OnnxReference:
    """A graph that reads fewer inputs than the candidate."""
    work.mkdir(parents=True, exist_ok=True)
    held = onnx.load_model_from_string(model())
    held.graph.input[1].name = "another"
    held.graph.node[3].input[0] = held.graph.node[4].input[1] = "another"
    onnx.save(held, work / "blind.onnx")
    return OnnxReference(work / "blind.onnx")


def named_alike(*names: Any) -> Callable[[Path], Runner]:
    """A candidate whose three outputs are named like that, as a mapping or as a list of names."""

    def call(module: nn.Module, **inputs: torch.Tensor) -> Any:
        made = honest({name: tensor.numpy() for name, tensor in inputs.items()})
        tensors = [torch.from_numpy(array) for array in made.values()]
        return dict(zip(names, tensors, strict=True)) if len(set(names)) == len(names) else tensors

    given = None if len(set(names)) == len(names) else list(map(str, names))
    return lambda work: TorchRunner(nn.Identity, call, outputs=given, name="candidate")


def near_copies(share: float) -> list[Arrays]:
    """Fixture 3 five times, its state and noise each time larger by such a share."""
    fixture = make_fixture(SPECS, 0, 3)
    return [
        {n: a if a.dtype == bool else (a * (1 + share * i)).astype(a.dtype) for n, a in fixture.items()}
        for i in range(5)
    ]


def one_bit_apart() -> list[Arrays]:
    """Fixture 0 five times, the last bit of one element turned in all but the first."""
    given = [make_fixture(SPECS, 0, 0) for _ in range(5)]
    for idx, fixture in enumerate(given[1:]):
        fixture["noise"].view(np.int32)[0, idx, 0] ^= 1
    return given


def recorded_of(fixtures: Sequence[Arrays]) -> Callable[[Path], RecordedRunner]:
    def made(work: Path) -> RecordedRunner:
        work.mkdir(parents=True, exist_ok=True)
        save_recording(work / "r.safetensors", [(f, honest(f)) for f in fixtures], [s.name for s in SPECS])
        return RecordedRunner(work / "r.safetensors")

    return made


def flip_last_byte(path: Path) -> None:
    data = bytearray((path / FIXTURES).read_bytes())
    data[-1] ^= 1
    (path / FIXTURES).write_bytes(bytes(data))


@dataclass(frozen=True)
class Always(Distribution):
    """Both cameras, but for the values that are swapped in."""

    kind: ClassVar[str] = "known_bad_always"

    def draw(self, draw: Draw, spec: InputSpec) -> np.ndarray:
        return np.full(spec.shape, draw.fixture_idx < FIXTURE_COUNT)


CPU_ONLY: Final = {"provider": "cuda"}
FREE: Final = [
    InputSpec("cameras", (1, 2), "bool", CameraMask(), free=("batch", None)),
    InputSpec("state", (1, JOINTS), meaning=State(), free=("batch", None)),
    InputSpec("noise", (1, CHUNK, JOINTS), meaning=Gaussian(), free=("batch", None, None)),
]
FREE_OF_FOUR: Final = [spec.sized({"batch": 4}) for spec in FREE]
# What the policy does not read, and a wrong candidate does.
TOKEN: Final = [*SPECS, InputSpec("token", (1, 3), "int64", Tokens(1000))]
TIME: Final = [*SPECS, InputSpec("time", (1,), meaning=Uniform(0.0, 1.0))]
EMBODIMENT: Final = [*SPECS, InputSpec("embodiment", (1,), "int64", Integers(0, 32))]
# All that is drawn is one fixture but for a thousandth.
NARROW: Final = [
    InputSpec("cameras", (1, 2), "bool", Always()),
    *(InputSpec(spec.name, spec.shape, meaning=Gaussian(1.0, 2e-5)) for spec in SPECS[1:]),
]
_NAN = np.where(at((0, 7, 3), 1.0) > 0, np.float32("nan"), np.float32(0))
_INF = np.where(at((0, 7, 3), 1.0) > 0, np.float32("inf"), np.float32(0))
_PADDING = np.where(np.arange(JOINTS) >= 24, np.float32(0.5), np.float32(0))
_STEP_TAIL = [node("Add", ["true_actions", "off"], "actions")]

CASES: Final = {
    case.name: case
    for case in (
        Case("pass__the_honest_export", model()),
        Case("pass__the_honest_export_under_strict", model(), strict=True),
        Case("pass__a_rounding_below_the_threshold", actions(*_STEP_TAIL, off=np.float32(1e-6))),
        # structure
        Case("fail_structure__a_shape_that_would_broadcast",
             actions(node("ReduceMean", ["true_actions", "axis1"], "actions"))),
        Case("fail_structure__a_batch_axis_dropped",
             actions(node("Squeeze", ["true_actions", "i0"], "actions"))),
        Case("fail_structure__float16_for_float32",
             model([node("Cast", ["true_actions"], "actions", to=TensorProto.FLOAT16)],
                   {**OUTPUTS, "actions": TensorProto.FLOAT16})),
        Case("fail_structure__float64_for_float32",
             model([node("Cast", ["true_actions"], "actions", to=TensorProto.DOUBLE)],
                   {**OUTPUTS, "actions": TensorProto.DOUBLE})),
        Case("fail_structure__int64_for_bool",
             model([node("Cast", ["true_done"], "done", to=TensorProto.INT64)],
                   {**OUTPUTS, "done": TensorProto.INT64})),
        Case("fail_structure__an_output_missing", model(outputs={"actions": 1, "ids": 7})),
        Case("fail_structure__an_output_extra",
             model([node("Identity", ["true_done"], "more")], {**OUTPUTS, "more": TensorProto.BOOL})),
        Case("fail_structure__an_output_renamed",
             model([node("Identity", ["true_done"], "finished")],
                   {"actions": 1, "ids": 7, "finished": TensorProto.BOOL})),
        Case("fail_structure__outputs_reordered", model(outputs=dict(reversed(OUTPUTS.items())))),
        Case("fail_structure__an_empty_output",
             actions(node("Slice", ["true_actions", "i0", "i0", "axis1"], "actions"))),
        Case("fail_structure__empty_on_both_sides",
             model([node("Slice", [f"true_{name}", "i0", "i0", "axis1"], name) for name in OUTPUTS]),
             truth=lambda inputs: {name: array[:, :0] for name, array in honest(inputs).items()}),
        Case("pass__an_output_empty_on_both_sides_beside_full_ones",
             candidate=lambda work: OnnxRunner(
                 actions(node("Slice", ["true_actions", "i0", "i0", "axis1"], "actions"))),
             truth=lambda inputs: {**honest(inputs), "actions": honest(inputs)["actions"][:, :0]}),
        # provider
        Case("fail_provider__fell_back_to_the_cpu", model(), judging=CPU_ONLY),
        # finite
        Case("fail_finite__nan_in_the_candidate",
             actions(node("Add", ["true_actions", "nan"], "actions"), nan=_NAN)),
        Case("fail_finite__nan_in_the_reference", model(), truth=with_nan(np.nan)),
        Case("fail_finite__nan_on_both_sides",
             actions(node("Add", ["true_actions", "nan"], "actions"), nan=_NAN), truth=with_nan(np.nan)),
        Case("fail_finite__inf_in_the_candidate",
             actions(node("Add", ["true_actions", "inf"], "actions"), inf=_INF)),
        Case("fail_finite__inf_on_both_sides",
             actions(node("Add", ["true_actions", "inf"], "actions"), inf=_INF), truth=with_nan(np.inf)),
        Case("pass__infinities_that_are_meant",
             actions(node("Add", ["true_actions", "inf"], "actions"), inf=_INF), truth=with_nan(np.inf),
             judging={"infinities": True}, strict=True),
        Case("fail_finite__meant_infinities_of_the_other_sign",
             actions(node("Sub", ["true_actions", "inf"], "actions"), inf=_INF), truth=with_nan(np.inf),
             judging={"infinities": True}),
        Case("fail_finite__nan_where_infinities_are_meant",
             actions(node("Add", ["true_actions", "nan"], "actions"), nan=_NAN), truth=with_nan(np.nan),
             judging={"infinities": True}),
        Case("fail_threshold__beside_infinities_that_are_meant",
             actions(node("Add", ["true_actions", "inf"], "less"), node("Add", ["less", "off"], "actions"),
                     inf=_INF, off=at((0, 9, 9), 0.5)), truth=with_nan(np.inf), judging={"infinities": True}),
        Case("fail_finite__all_nan",
             actions(node("Mul", ["true_actions", "nan"], "actions"), nan=np.float32("nan"))),
        # exact
        Case("fail_exact__integers_that_wrap_around",
             model([node("Add", ["true_ids", "one"], "ids")], constants={"one": np.int64(1)})),
        Case("fail_exact__ids_that_float64_cannot_tell_apart",
             model([node("Where", ["cameras", "true_ids", "next"], "ids")],
                   constants={"next": np.int64(BIG + 1)})),
        Case("fail_exact__a_flag_flipped", model([node("Identity", ["cameras"], "done")])),
        # threshold
        Case("fail_threshold__scaled_by_1_05",
             actions(node("Mul", ["true_actions", "scale"], "actions"), scale=np.float32(1.05))),
        Case("fail_threshold__one_joint_of_1600_off_by_a_half",
             actions(*_STEP_TAIL, off=at((0, 31, 17), 0.5))),
        Case("fail_threshold__the_last_element_off", actions(*_STEP_TAIL, off=at((0, -1, -1), 1e-3))),
        Case("fail_threshold__at_twice_the_threshold", actions(*_STEP_TAIL, off=at((0, 0, 0), 2e-4))),
        Case("fail_threshold__only_the_last_step_wrong", model(last_dt=-1.01 / STEPS)),
        Case("fail_threshold__only_the_padding_wrong", actions(*_STEP_TAIL, off=_PADDING)),
        Case("fail_threshold__only_the_last_action_wrong",
             actions(*_STEP_TAIL, off=np.where(np.arange(CHUNK)[:, None] == CHUNK - 1, np.float32(0.1),
                                               np.float32(0)))),
        Case("fail_threshold__only_with_a_camera_masked",
             actions(node("Mul", ["half", "mask1"], "less"), node("Sub", ["half", "less"], "off"),
                     node("Add", ["true_actions", "off"], "actions"))),
        Case("fail_threshold__the_camera_mask_ignored",
             model([node("Mul", ["two", "state2"], "s4"), node("Mul", ["s4", "half"], "s2"),
                    node("Add", ["state", "s2"], "all"), node("Sub", ["all", "seen_flat"], "lacking"),
                    node("Mul", ["lacking", "weight"], "more"),
                    node("Add", ["true_actions", "more"], "actions")],
                   constants={"weight": np.float32(-0.9)})),
        Case("fail_threshold__noise_baked_in_by_the_trace",
             actions(node("Identity", ["baked"], "actions"), baked=plain_actions())),
        Case("fail_threshold__strict_is_tighter", actions(*_STEP_TAIL, off=np.float32(5e-5)), strict=True),
        Case("fail_threshold__only_without_any_camera",
             candidate=computed(wrong_where(lambda i: not i["cameras"].any()))),
        Case("fail_threshold__only_for_the_last_token_of_the_vocabulary", judging={"inputs": TOKEN},
             candidate=computed(wrong_where(lambda i: bool((i["token"] == 999).any())))),
        Case("fail_threshold__only_for_token_1", judging={"inputs": TOKEN},
             candidate=computed(wrong_where(lambda i: bool((i["token"] == 1).any())))),
        Case("fail_threshold__only_at_the_end_of_time", judging={"inputs": TIME},
             candidate=computed(wrong_where(lambda i: bool(i["time"][0] == 1)))),
        Case("fail_threshold__only_for_one_embodiment_of_32",
             judging={"inputs": EMBODIMENT, "fixtures": 33},
             candidate=computed(wrong_where(lambda i: bool(i["embodiment"][0] == 23)))),
        # intact
        Case("fail_intact__a_file_changed_after_its_check", model(), damage=flip_last_byte),
        Case("fail_intact__a_graph_exchanged_after_its_digest_was_read", candidate=exchanged),
        Case("fail_intact__weights_written_to_while_they_are_judged", candidate=meddled),
        # compared
        Case("fail_compared__a_reference_that_draws_random_numbers", model(), strict=True,
             facts={"drew_random": True}),
        Case("fail_compared__a_reference_that_draws_from_numpy", strict=True, source=stateful("numpy"),
             candidate=computed(honest)),
        Case("fail_compared__a_reference_that_draws_from_python", strict=True, source=stateful("Python"),
             candidate=computed(honest)),
        Case("fail_compared__infinities_and_nothing_else", strict=True, judging={"infinities": True},
             truth=lambda inputs: {**honest(inputs), "actions": np.full_like(inputs["noise"], np.inf)},
             model=actions(node("Abs", ["true_actions"], "size"), node("Add", ["size", "inf"], "actions"),
                           inf=np.float32("inf"))),
        # reference
        Case("fail_reference__another_answer_from_the_twelfth_call_on", source=stateful("counts"),
             candidate=computed(honest)),
        Case("fail_reference__a_count_of_its_calls", strict=True, source=stateful("counts long"),
             candidate=computed(honest)),
        Case("fail_reference__a_file_judged_by_itself", source=onnx_file("m.onnx"),
             candidate=onnx_file("m.onnx")),
        Case("fail_reference__a_file_judged_by_its_copy", source=onnx_file("m.onnx"),
             candidate=onnx_file("copy.onnx")),
        Case("fail_reference__an_export_judged_by_another", source=onnx_file("m.onnx"),
             candidate=onnx_file("other.onnx", same=False)),
        Case("fail_reference__a_recording_judged_by_itself", source=recorded_candidate,
             candidate=recorded_candidate),
        Case("pass__a_graph_that_was_said_to_be_the_judge", source=said("m.onnx"),
             candidate=onnx_file("other.onnx", same=False)),
        Case("fail_reference__pytorch_was_not_asked", strict=True, source=said("m.onnx"),
             candidate=onnx_file("other.onnx", same=False)),
        Case("fail_reference__a_said_judge_under_another_name", source=said("m.onnx"),
             candidate=onnx_file("copy.onnx")),
        Case("fail_reference__a_bundle_as_the_judge_of_its_own_graph", source=graph_of_its_bundle,
             candidate=onnx_file("copy.onnx")),
        Case("fail_reference__pytorch_judged_by_a_graph", source=said("m.onnx"), candidate=stateful("none")),
        Case("fail_threshold__against_a_graph", source=said("m.onnx"),
             model=actions(*_STEP_TAIL, off=at((0, 31, 17), 0.5))),
        Case("error_runner__a_said_judge_with_other_inputs", source=blind_reference,
             candidate=computed(honest)),
        Case("error_reflex__a_said_judge_as_the_candidate", candidate=said("m.onnx")),
        Case("fail_reference__a_module_around_a_session", strict=True, source=sessioned,
             candidate=lambda work: OnnxRunner(actions(*_STEP_TAIL, off=np.float32(0.5)))),
        Case("fail_reference__a_module_around_a_runner_of_a_graph", strict=True,
             source=lambda work: TorchRunner(Deep(off_by_a_half()), name="reference"),
             candidate=lambda work: OnnxRunner(off_by_a_half())),
        Case("fail_reference__a_function_around_a_session", strict=True, source=enclosed,
             candidate=lambda work: OnnxRunner(off_by_a_half())),
        Case("fail_reference__one_function_on_both_sides", source=as_function(a_function),
             candidate=as_function(a_function)),
        Case("fail_reference__a_module_judged_by_its_own_forward", source=in_torch(WEIGHED),
             candidate=as_function(WEIGHED.forward, tensors=True)),
        Case("fail_reference__a_module_judged_by_itself", source=in_torch(WEIGHED),
             candidate=in_torch(WEIGHED)),
        Case("fail_reference__a_module_judged_by_what_loads_it", source=in_torch(WEIGHED),
             candidate=in_torch(lambda: WEIGHED)),
        Case("fail_reference__a_module_in_two_wrappers", source=wrapped, candidate=wrapped),
        Case("fail_reference__the_same_weights_in_another_module", source=in_torch(WEIGHED),
             candidate=lambda work: TorchRunner(same_weights())),
        Case("fail_reference__one_function_that_loads_both", source=in_torch(same_weights, Weighed.forward),
             candidate=in_torch(same_weights, Weighed.forward)),
        # power
        Case("fail_power__a_ten_millionth_of_the_wrong_sign", strict=True, truth=small(1e-7),
             model=actions(node("Mul", ["true_actions", "share"], "actions"), share=np.float32(-1e-7))),
        Case("fail_power__a_millionth_around_one", strict=True, truth=small(4e-7, 1.0),
             model=actions(node("Mul", ["true_actions", "share"], "less"),
                           node("Add", ["less", "offset"], "actions"),
                           share=np.float32(-4e-7), offset=np.float32(1))),
        Case("fail_power__one_large_value_among_the_tiny", strict=True, truth=with_one_large(1e-7),
             candidate=computed(with_one_large(-1e-7))),
        Case("fail_power__a_second_output_that_is_tiny", strict=True, truth=with_force(1e-7),
             candidate=computed(with_force(-1e-7))),
        Case("fail_power__a_second_output_that_is_tiny_and_once_of_integers", strict=True,
             truth=some_integers(1e-7), candidate=computed(some_integers(-1e-7))),
        Case("fail_power__an_input_whose_whole_effect_is_below_the_threshold", strict=True,
             truth=with_faint_state, candidate=computed(faint_state_turned_round)),
        Case("fail_power__a_floor_as_large_as_the_output", judging={"threshold": "2x floor"},
             source=lambda work: Torn(honest), candidate=computed(small(-1))),
        # variation
        Case("fail_variation__a_free_batch_of_two_sizes", strict=True,
             judging={"inputs": FREE, "fixtures": 3},
             candidate=computed(wrong_where(lambda i: len(i["state"]) > 2))),
        Case("fail_variation__a_free_batch_never_beyond_the_example", strict=True,
             judging={"inputs": [make_fixture([s.sized({"batch": n}) for s in FREE], 0, 0)
                                 for n in (4, 1, 2)]},
             candidate=lambda work: Batched(FREE_OF_FOUR, wrong_where(lambda i: len(i["state"]) > 4))),
        Case("fail_variation__most_embodiments_never_drawn", strict=True,
             judging={"inputs": EMBODIMENT}, truth=wrong_where(lambda i: i["embodiment"][0] % 2),
             candidate=computed(wrong_where(lambda i: i["embodiment"][0] % 2 or i["embodiment"][0] == 16))),
        Case("fail_variation__fixtures_drawn_within_a_thousandth", strict=True, judging={"inputs": NARROW},
             candidate=computed(near_its_middle)),
        # repeat
        Case("fail_repeat__another_answer_to_the_same_question",
             actions(node("RandomUniformLike", ["true_actions"], "drawn"),
                     node("Mul", ["drawn", "little"], "off"),
                     node("Add", ["true_actions", "off"], "actions"), little=np.float32(1e-6))),
        # inputs
        Case("fail_inputs__an_input_that_the_candidate_ignores",
             model([node("Mul", ["half", "noise"], "f0"), node("Mul", ["dt", "f0"], "f1"),
                    node("Add", ["noise", "f1"], "f2"), node("Mul", ["half", "f2"], "f3"),
                    node("Mul", ["dt", "f3"], "f4"), node("Add", ["f2", "f4"], "f5"),
                    node("Mul", ["half", "f5"], "f6"), node("Mul", ["dt", "f6"], "f7"),
                    node("Add", ["f5", "f7"], "actions")]),
             truth=with_faint_state),
        Case("fail_inputs__an_input_ignored_in_another_fixture_than_the_first", truth=with_faint_state,
             candidate=computed(faint_state_in_the_plain_fixture_only)),
        Case("fail_inputs__right_on_each_value_that_is_judged_and_deaf_to_others",
             candidate=computed(knows_each_judged_value)),
        Case("fail_inputs__stored_answers_and_nothing_else", candidate=lambda work: Replay(otherwise=False)),
        Case("fail_inputs__stored_answers_and_one_for_the_rest",
             candidate=lambda work: Replay(otherwise=True)),
        Case("fail_inputs__stored_answers_and_one_input_that_it_computes_with", strict=True,
             candidate=computed(replay_that_adds_the_state)),
        Case("fail_inputs__a_recording_of_the_reference", candidate=recorded_candidate),
        Case("fail_inputs__one_fixture_and_its_answer_baked_in",
             model([node("Identity", [f"baked_{name}"], name) for name in OUTPUTS],
                   constants={f"baked_{name}": array for name, array in
                              honest(make_fixture(SPECS, 0, 0)).items()}),
             judging={"fixtures": 1}, recorded=1),
        # a bundle that steers its own trial
        Case("fail_reference__one_step_for_a_policy_of_ten", strict=True, judging=steered.ITS_OWN,
             source=steered.flow("walk"), candidate=steered.halves(steps=1)),
        Case("fail_reference__one_step_for_a_policy_of_a_family", strict=True, judging=steered.ITS_OWN,
             source=steered.as_stated, candidate=steered.arm_bundle(lambda said: {}, steps=1)),
        Case("fail_reference__inputs_of_a_narrower_distribution", strict=True, judging=steered.ITS_OWN,
             source=steered.as_stated, candidate=steered.arm_bundle(steered.narrower)),
        Case("fail_reference__a_schedule_that_no_graph_shows", strict=True, judging=steered.ITS_OWN,
             source=steered.as_stated, candidate=steered.arm_bundle(steered.ending_early)),
        Case("fail_threshold__a_way_of_its_own_that_its_halves_do_not_follow", judging=steered.ITS_OWN,
             source=steered.flow("own"), candidate=steered.halves()),
        Case("fail_reference__a_way_of_the_policy_inside_that_nobody_asks", strict=True,
             judging=steered.ITS_OWN, source=steered.flow("around"), candidate=steered.halves()),
        Case("fail_threshold__a_way_of_its_own_beside_a_plain_file", judging={"inputs": steered.INPUTS},
             source=steered.flow("own"), candidate=steered.plain_file),
        Case("fail_reference__a_way_of_the_policy_inside_beside_a_plain_file", strict=True,
             judging={"inputs": steered.INPUTS}, source=steered.flow("around"),
             candidate=steered.plain_file),
        Case("error_runner__a_way_of_its_own_that_takes_no_inputs", judging=steered.ITS_OWN,
             source=steered.flow("own of a batch"), candidate=steered.halves()),
        Case("error_settings__one_fixture_given_five_times", strict=True,
             candidate=lambda work: OnnxRunner(model()),
             judging={"inputs": [make_fixture(SPECS, 0, 0)] * 5}),
        Case("error_settings__one_fixture_recorded_five_times", strict=True, judging=steered.ITS_OWN,
             source=recorded_of(near_copies(0)), candidate=lambda work: OnnxRunner(model())),
        Case("error_settings__one_fixture_recorded_five_times_a_bit_apart", strict=True,
             judging=steered.ITS_OWN, source=recorded_of(one_bit_apart()),
             candidate=lambda work: OnnxRunner(model())),
        Case("error_settings__five_recordings_within_rounding", strict=True, judging=steered.ITS_OWN,
             source=recorded_of(near_copies(1e-7)), candidate=lambda work: OnnxRunner(model())),
        Case("error_settings__five_fixtures_a_ten_thousandth_apart", strict=True,
             candidate=lambda work: OnnxRunner(model()), judging={"inputs": near_copies(1e-4)}),
        Case("error_bundle__weights_of_another_folder", model(),
             damage=steered.session(model_external_initializers_file_folder_path="/elsewhere")),
        Case("error_bundle__a_file_of_a_session_s_own", model(),
             damage=steered.session(node_partition_config_file="plan.txt")),
        Case("error_bundle__a_graph_read_in_another_form", model(),
             damage=steered.session(load_model_format="ORT")),
        # tolerances that were loosened
        Case("fail_power__an_rtol_as_large_as_what_the_output_does", strict=True, judging={"rtol": 0.1},
             model=actions(*_STEP_TAIL, off=np.float32(1e-6))),
        Case("fail_threshold__within_the_largest_value_s_rtol_and_not_its_own",
             model([node("Where", ["nearly_zero", "moved", "true_actions"], "actions"),
                    node("Add", ["true_actions", "step"], "moved"),
                    node("Less", ["size", "tenth"], "nearly_zero"),
                    node("Abs", ["true_actions"], "size")][::-1],
                   constants={"step": np.float32(5e-4), "tenth": np.float32(0.1)}),
             judging={"threshold": 1e-6, "rtol": 1e-3}),
        Case("fail_threshold__one_output_within_the_other_s_threshold",
             actions(*_STEP_TAIL, off=np.float32(2e-4)), judging={"threshold": "actions=1e-4, 1e-2"}),
        Case("fail_threshold__a_fault_behind_casts_to_float16",
             model([node("Cast", ["half"], "narrow", to=TensorProto.FLOAT16),
                    node("Cast", ["narrow"], "wide", to=TensorProto.FLOAT),
                    node("Mul", ["wide", "fault"], "small"),
                    node("Add", ["true_actions", "small"], "actions")],
                   constants={"fault": np.float32(1e-3)})),
        Case("fail_intact__a_precision_that_its_graph_has_not", model(),
             damage=steered.resealed(lambda said: {"precision": {"name": "float16"}})),
        Case("error_settings__a_threshold_of_no_output", model(), judging={"threshold": "action=1e-5"}),
        Case("error_settings__a_threshold_of_integers", model(), judging={"threshold": "ids=1e-5"}),
        Case("error_settings__a_threshold_without_end", candidate=computed(honest),
             judging={"threshold": Tolerances(Amount(float("inf")))}),
        Case("error_settings__an_rtol_of_all", model(), judging={"rtol": 1}),
        Case("error_settings__a_rounding_that_its_graph_has_not", candidate=lambda work: OnnxRunner(model()),
             judging={"rounding": "float16"}),
        # more claimed than was shown
        Case("fail_claim__five_fixtures_for_a_thousandth", model(),
             judging={"claim": "1e-3@95%", "claim_budget": 0}),
        Case("fail_coverage__a_limit_that_no_fixture_reaches",
             actions(node("Min", ["true_actions", "limit"], "actions"), limit=np.float32(1e6)),
             judging={"coverage": "95%"}),
        Case("fail_threshold__wrong_in_one_fixture_that_a_plain_check_does_not_draw",
             candidate=computed(honest_but_in(9)), judging={"claim": "10%@95%"}),
        Case("error_settings__a_claim_without_doubt", model(), judging={"claim": "1e-3@100%"}),
        # no verdict at all
        Case("error_settings__zero_fixtures", model(), judging={"fixtures": 0}, recorded=0),
        Case("error_settings__strict_with_one_fixture", model(), judging={"fixtures": 1}, recorded=1,
             strict=True),
        Case("error_settings__more_floors_than_an_output_has", judging={"threshold": "1e30x floor"},
             candidate=computed(honest)),
        Case("error_runner__a_name_that_says_it_is_another", candidate=computed(posing)),
        Case("fail_structure__wider_floats_than_can_be_compared", truth=wide, candidate=computed(wide)),
        Case("error_runner__two_outputs_of_one_name", candidate=named_alike("actions", "ids", "actions")),
        Case("error_runner__a_number_and_its_text_as_names", candidate=named_alike(0, "0", "done")),
        Case("error_settings__a_threshold_that_is_nan", model(), judging={"threshold": float("nan")}),
        Case("error_input__no_recorded_fixture", candidate=lambda work: OnnxRunner(model()),
             judging={"inputs": []}),
        Case("error_runner__no_model", b"\0 this is no model"),
        Case("error_runner__a_custom_operator",
             model([node("Evil", ["true_actions"], "actions", domain="com.example")])),
    )
}  # fmt: skip

GATES: Final = (*FIXTURE_GATE_NAMES, *RUN_GATE_NAMES)


def first_refusal(result: ParityResult) -> str:
    """The gate that a result's first refusal names; empty when it passed."""
    return result.refusals[0][1].gate if result.refusals else ""
