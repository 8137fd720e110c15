"""Runs the policy itself under ``torch.compile``, beside the runtimes of graphs.

What is judged is what the compiler made of the module, against the module itself, run eagerly: no export is
in it, and a robot that has PyTorch has the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners.torch import TorchRunner

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["CompiledRunner"]

BACKEND: Final = "inductor"
_EAGER: Final = "eager PyTorch, of which nothing was compiled"


class CompiledRunner(TorchRunner):
    """Runs what a :class:`~pytest_reflex.runners.TorchRunner` runs, compiled at its first run.

    Where a function is compiled too often, for other shapes or values each time, PyTorch falls back to
    running it eagerly and says nothing; here that is an error. Where Python runs between compiled graphs,
    ``facts`` say why. A run in which no compiled graph ran is refused by the gate *provider*.

    Args:
        policy: what runs it eagerly.
        backend: a backend of ``torch.compile``, such as ``inductor``, which needs a C++ compiler on a CPU.
        name: for people; by default the policy's.

    Attributes:
        provider_asked: the compiler, in words.
        providers_used: the same once something was compiled; empty before it was run.
    """

    OPENS: ClassVar[str] = "policy"

    def __init__(self, policy: TorchRunner, *, backend: str = BACKEND, name: str | None = None) -> None:
        super().__init__(
            policy._given,
            policy._call,
            outputs=policy._outputs,
            states=policy._states,
            name=name or policy.name,
            apart=policy._apart,
        )
        self.provider_asked = f"torch.compile, {backend}"
        self.providers_used: tuple[str, ...] = ()
        self._backend = backend
        self._compiled: Callable[..., Any] | None = None
        self._compiling = False
        self._graphs = self._ran = 0
        self._breaks: dict[str, None] = {}

    def open(self) -> None:
        super().open()
        if self._backend == BACKEND and self._device().type == "cpu":
            _require_compiler(self.name)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import torch
        from torch._dynamo.utils import counters

        ran, before = self._ran, dict(counters["graph_break"])
        self._compiling = True
        try:
            with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True, suppress_errors=False):
                outputs = super().run(inputs)
        except RunnerError as error:
            # What the C++ compiler says is far below the first line.
            lines = str(error.__cause__).splitlines()
            why = next(
                (line.strip() for line in lines if "error: " in line and line.strip() not in str(error)), ""
            )
            raise RunnerError(f"{error}; {why}" if why else str(error)) from error.__cause__
        finally:
            self._compiling = False
        for why, count in counters["graph_break"].items():
            if count > before.get(why, 0):
                self._breaks[str(why).strip().splitlines()[0]] = None
        eagerly = self._ran == ran
        if eagerly or not self.providers_used:
            self.providers_used = (_EAGER if eagerly else self.provider_asked,)
        return outputs

    def _counted(self, graph: Any, examples: Any) -> Callable[..., Any]:
        """The backend, which counts how often what it makes is run."""
        from torch._dynamo.backends.registry import lookup_backend

        made = lookup_backend(self._backend)(graph, examples)
        self._graphs += 1

        def run(*given: Any) -> Any:
            self._ran += 1
            return made(*given)

        return run

    def _gave(self, bound: Callable[..., Any], given: Mapping[str, Any]) -> Any:
        if not self._compiling:  # in float64 or rounded it is the module itself that is asked
            return super()._gave(bound, given)
        if self._compiled is None:
            import torch

            self._compiled = torch.compile(bound, backend=self._counted)
        return self._compiled(**given)

    def close(self) -> None:
        super().close()
        if self.model is None:  # what is loaded anew is compiled anew
            self._compiled = None

    def facts(self) -> dict[str, Any]:
        return {
            **super().facts(),
            "kind": "torch.compile",
            "runtime": "torch.compile",
            "runs_policy": True,
            "provider_asked": self.provider_asked,
            "providers_used": list(self.providers_used),
            "compiled_graphs": self._graphs,
            "graph_breaks": list(self._breaks),
        }


def _require_compiler(name: str) -> None:
    """See that inductor has a C++ compiler, before it fails in the middle of a run.

    Raises:
        RunnerError: there is none.
    """
    from torch._inductor import cpp_builder

    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:
        raise RunnerError(
            f"{name}: torch.compile needs a C++ compiler, and there is none on the PATH; install g++, or "
            "name one by CXX"
        ) from error
