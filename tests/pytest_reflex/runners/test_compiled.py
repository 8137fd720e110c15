"""The policy itself compiled, and what was made of it that is no graph, beside the runtimes of graphs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from floors import require_rounding
from torch import nn

import exporters
from exporters.bundles import Bundle
from pytest_reflex import FunctionRunner, InputSpec, TorchRunner, check
from pytest_reflex.errors import ReflexError, RunnerError, SettingsError
from pytest_reflex.inputs import Gaussian
from pytest_reflex.judge.matrix import matrix
from pytest_reflex.judge.on_runtimes import on_runtimes
from pytest_reflex.result import ParityResult
from pytest_reflex.runners.compiled import CompiledRunner
from pytest_reflex.runners.packaged import AotInductorRunner, ExecuTorchRunner

INPUTS = [InputSpec("seen", (2, 16), meaning=Gaussian()), InputSpec("told", (2, 16), meaning=Gaussian())]


class Net(nn.Module):
    """Wide enough that rounding is no luck, and otherwise for its two inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.see, self.say = nn.Linear(16, 64), nn.Linear(64, 32)

    def forward(self, seen: torch.Tensor, told: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"actions": self.say(torch.tanh(self.see(seen - 0.5 * told)))}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exporters.export(Net().eval(), tmp_path_factory.mktemp("net") / "b", inputs=INPUTS)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What was compiled in one test is compiled anew in the next."""
    yield
    torch._dynamo.reset()


def judged(policy: nn.Module, backend: Any = "eager", **told: Any) -> ParityResult:
    return check(policy, CompiledRunner(TorchRunner(policy), backend=backend), inputs=INPUTS, **told)


def refused(result: ParityResult) -> dict[str, str]:
    return {answer.gate: answer.said for _, answer in result.refusals}


def test_the_compiled_policy_stands_beside_the_runtimes_of_its_graph(bundle: Bundle) -> None:
    policy = Net().eval()
    candidates = on_runtimes(bundle, ["onnxruntime", "torch.compile"], policy)
    made = matrix(policy, candidates, name="net", fixtures=20)
    assert (made.passed, made.odd) == (True, ())
    result = made.columns[1].result
    assert result is not None
    require_rounding(result)
    assert result.candidate["kind"] == "torch.compile"
    assert result.candidate["providers_used"] == ["torch.compile, inductor"]
    assert (result.candidate["compiled_graphs"], result.candidate["graph_breaks"]) == (1, [])


def test_a_compiler_that_is_wrong_in_one_node_is_the_odd_one(bundle: Bundle) -> None:
    def wrong(graph: Any, examples: Any) -> Callable[..., Any]:
        for node in graph.graph.nodes:
            if node.target in (torch.tanh, "tanh"):
                node.target = torch.sigmoid if node.op == "call_function" else "sigmoid"
        graph.recompile()
        made: Callable[..., Any] = graph.forward
        return made

    policy = Net().eval()
    crooked = CompiledRunner(TorchRunner(policy), backend=wrong)  # type: ignore[arg-type]
    made = matrix(policy, {"ort": bundle, "crooked": crooked}, inputs=INPUTS)
    assert (made.exit_code, made.odd) == (1, ("crooked",))


@pytest.mark.parametrize(("others", "odd"), [(["evaluator"], ("reference",)), ([], ())])
def test_it_has_no_vote_on_a_graph_that_is_wrong(
    others: list[str], odd: tuple[str, ...], bundle: Bundle
) -> None:
    """It agrees with the policy that it is, whoever is wrong about the graph."""
    policy = Net().eval()
    with torch.no_grad():
        policy.say.weight *= 1.1
    compiled = CompiledRunner(TorchRunner(policy), backend="eager")
    candidates = {"ort": bundle, **{name: bundle.on(name) for name in others}, "compiled": compiled}
    made = matrix(policy, candidates, inputs=INPUTS)
    assert (made.exit_code, made.odd) == (1, odd)


def test_one_that_falls_back_to_running_it_eagerly_is_refused() -> None:
    with torch.compiler.set_stance("force_eager"):
        said = refused(judged(Net().eval(), threshold=1.0))
    asked = "not on torch.compile, eager as asked"
    assert said == {"provider": f"ran on eager PyTorch, of which nothing was compiled, {asked}"}


def test_what_is_compiled_too_often_is_an_error_and_not_run_eagerly() -> None:
    class Counts(Net):
        turns = 0

        def forward(self, seen: torch.Tensor, told: torch.Tensor) -> dict[str, torch.Tensor]:
            self.turns += 1
            return super().forward(seen * min(self.turns, 100) / min(self.turns, 100), told)

    policy = Counts().eval()
    runner = CompiledRunner(TorchRunner(policy), backend="eager")
    inputs = {spec.name: np.ones(spec.shape, np.float32) for spec in INPUTS}
    with (
        torch._dynamo.config.patch(recompile_limit=2),
        runner,
        pytest.raises(RunnerError, match=r"^Counts failed on .*FailOnRecompileLimitHit") as caught,
    ):
        [runner.run(inputs) for _ in range(5)]
    assert "\n" not in str(caught.value)


def test_python_between_compiled_graphs_is_named() -> None:
    class Broken(Net):
        def forward(self, seen: torch.Tensor, told: torch.Tensor) -> dict[str, torch.Tensor]:
            torch._dynamo.graph_break()
            return super().forward(seen, told)

    result = judged(Broken().eval())
    assert result.passed
    (why,) = result.candidate["graph_breaks"]
    assert any("Python runs between them: " + why in note for note in result.notes)


def test_it_is_no_reference_and_not_the_policy_over_again() -> None:
    policy = Net().eval()
    compiled = CompiledRunner(TorchRunner(policy), backend="eager")
    assert "reference" in refused(check(compiled, FunctionRunner(lambda **given: given), inputs=INPUTS))
    assert not TorchRunner(policy).same_model(compiled)


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config

    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/nowhere/g++",))
    said = (
        r"^Net: torch.compile needs a C\+\+ compiler, and there is none on the PATH; install g\+\+, or name"
    )
    with pytest.raises(RunnerError, match=said):
        CompiledRunner(TorchRunner(Net().eval())).open()


def test_what_compiles_the_policy_or_opens_another_file_opens_no_bundle(bundle: Bundle) -> None:
    with pytest.raises(
        RunnerError, match=r"'torch.compile' runs the policy itself, and no graph; ask for it"
    ):
        bundle.on("torch.compile")
    with pytest.raises(
        RunnerError, match=r"'executorch' opens a .pte, and no graph; say which, as executorch="
    ):
        on_runtimes(bundle, ["executorch"], Net().eval())
    with pytest.raises(SettingsError, match=r"'torch.compile=x.pt2' names a file, and that runtime runs the"):
        on_runtimes(bundle, ["onnxruntime", "torch.compile=x.pt2"], Net().eval())
    with pytest.raises(
        SettingsError, match=r"torch.compile compiles the policy itself, and the reference is "
    ):
        on_runtimes(bundle, ["onnxruntime", "torch.compile"], bundle.recording())


def test_what_judges_nothing_of_the_candidate_is_no_verdict_on_it(bundle: Bundle) -> None:
    for alone in (["torch.compile"], ["torch.compile", "executorch=net.pte"]):
        with pytest.raises(
            SettingsError, match=r"^runtimes: none of torch.compile.* opens the candidate; name"
        ):
            on_runtimes(bundle, alone, Net().eval())


# --- what was made ahead of time --------------------------------------------------------------------


class _Package:
    """What ``aoti_load_package`` gives, with the policy in place of what was compiled of it."""

    def __init__(self, by_name: bool) -> None:
        self.by_name = by_name
        self.loader = self

    def get_call_spec(self) -> list[str]:
        named = {"seen": 0, "told": 0} if self.by_name else {}
        given = ((), named) if self.by_name else ((0, 0), {})
        return [torch.utils._pytree.treespec_dumps(torch.utils._pytree.tree_structure(given)), ""]

    def __call__(self, *args: torch.Tensor, **given: torch.Tensor) -> Any:
        assert bool(given) is self.by_name
        return Net().eval()(*args, **given)


@pytest.mark.parametrize("by_name", [True, False])
def test_a_package_of_aotinductor_is_judged(
    by_name: bool, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor

    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: _Package(by_name))
    file = tmp_path / "net.pt2"
    file.write_bytes(b"a package")
    made = matrix(Net().eval(), on_runtimes(bundle, ["onnxruntime", f"aotinductor={file}"], Net().eval()))
    assert made.passed
    result = made.columns[1].result
    assert result is not None
    assert result.candidate["kind"] == "aotinductor"
    assert len(result.candidate["sha256"]) == 64


@pytest.fixture
def executorch(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in of its runtime: a program is the policy, off by so much, and writes into one memory."""
    said = SimpleNamespace(methods={"forward"}, off=0.0, memory=torch.empty(2, 32))

    def execute(given: list[torch.Tensor]) -> list[torch.Tensor]:
        said.memory.copy_(Net().eval()(*given)["actions"] + said.off)
        return [said.memory]

    program = SimpleNamespace(
        method_names=said.methods, load_method=lambda name: SimpleNamespace(execute=execute)
    )
    runtime = ModuleType("executorch.runtime")
    runtime.Runtime = SimpleNamespace(  # type: ignore[attr-defined]
        get=lambda: SimpleNamespace(load_program=lambda path: program)
    )
    monkeypatch.setitem(sys.modules, "executorch", ModuleType("executorch"))
    monkeypatch.setitem(sys.modules, "executorch.runtime", runtime)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.5.1")
    return said


def test_a_program_of_executorch_is_judged(
    executorch: SimpleNamespace, bundle: Bundle, tmp_path: Path
) -> None:
    file = tmp_path / "net.pte"
    file.write_bytes(b"a program")
    names = ["onnxruntime", "evaluator", f"executorch={file}"]
    made = matrix(Net().eval(), on_runtimes(bundle, names, Net().eval()))
    assert (made.passed, made.odd) == (True, ())
    executorch.off = 0.5
    made = matrix(Net().eval(), on_runtimes(bundle, names, Net().eval()))
    assert (made.passed, made.odd) == (False, (f"executorch={file}",))
    executorch.methods.clear()
    with pytest.raises(ReflexError, match="has the methods none, and no forward; save a program with one"):
        ExecuTorchRunner(file).open()


def test_without_its_package_and_without_its_file_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "net.pte"
    with pytest.raises(RunnerError, match=r"net.pte does not exist; give the path of a .pte$"):
        ExecuTorchRunner(file).open()
    file.write_bytes(b"no program")
    monkeypatch.setitem(sys.modules, "executorch", None)
    with pytest.raises(
        RunnerError, match=r"needs ExecuTorch \(.*\); pip install 'pytest-reflex\[executorch\]'$"
    ):
        ExecuTorchRunner(file).open()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch._inductor", None)
        with pytest.raises(RunnerError, match=r"net.pte needs PyTorch \(.*\); pip install torch$"):
            AotInductorRunner(file).open()
    with pytest.raises(RunnerError, match=r"net.pte is no .pt2 that aotinductor can open: .*") as caught:
        AotInductorRunner(file).open()
    assert "\n" not in str(caught.value)
