"""A bundle with all that it can be asked for: a runner, its reference, and where the two part."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from exporters.bundle import registry
from exporters.bundle.runner import BundleRunner
from exporters.bundle.store import StoredBundle, verified
from pytest_reflex.errors import BundleError, ReflexError, a_type
from pytest_reflex.runners import Runner
from pytest_reflex.runners.runtimes import DEFAULT, full_name, graph_runtime

if TYPE_CHECKING:
    import onnx_ir as ir

    from exporters.divergence import Search
    from pytest_reflex.inputs import InputSpec
    from pytest_reflex.judge.pipeline import Stages
    from pytest_reflex.progress import Progress
    from pytest_reflex.result import Located, ParityResult, PipelineResult

__all__ = ["Bundle", "Export", "locate", "open_bundle"]


@dataclass(frozen=True, repr=False)
class Bundle(StoredBundle):
    """A bundle on disk.

    Attributes:
        path: the directory.
        manifest: the contents of ``reflex.json``.
        shown: what reports call it; by default its path.
        changed: what was changed since its check, in words; empty when every digest holds. A verdict
            refuses a bundle with anything here, whatever its figures.
        runtime: what opens its graphs.
    """

    runtime: str = field(default=DEFAULT, kw_only=True)

    def __repr__(self) -> str:
        """One line; the manifest is long."""
        return f"<{type(self).__name__} {self._summary()}>"

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f"<tr><td><code>{escape(spec.name)}</code></td><td>{escape(str(list(spec.shape)))}</td>"
            f"<td>{escape(spec.dtype)}</td><td>{escape(spec.meaning.kind)}</td></tr>"
            for spec in self.inputs
        )
        head = "<tr><th>input</th><th>shape</th><th>dtype</th><th>meaning</th></tr>"
        changed = f"<p>{escape(self.changed)}</p>" if self.changed else ""
        return f"<p><bdi>{escape(self._summary())}</bdi></p>{changed}<table>{head}{rows}</table>"

    def _summary(self) -> str:
        """``p0: pi0, unrolled, 10 steps, checked: pass``."""
        steps = f", {self.stated.steps} steps" if self.stated.steps else ""
        check = self.stated.check
        checked = "not checked" if check is None else f"checked: {'pass' if check.get('passed') else 'fail'}"
        changed = ", changed since" if self.changed else ""
        return f"{' '.join(self.called.split())}: {self.family}, {self.layout}{steps}, {checked}{changed}"

    def on(self, runtime: str) -> Self:
        """The same bundle on another runtime, such as ``openvino``, to be judged there.

        Raises:
            RunnerError: nobody knows the runtime.
        """
        graph_runtime(runtime)
        return replace(self, runtime=full_name(runtime))

    def runner(self, provider: str = "cpu") -> BundleRunner:
        """The bundle as a runner, whatever its layout."""
        return BundleRunner(self, provider=provider, runtime=self.runtime)

    def reference_runner(
        self, model: Any, steps: int | None = None, inputs: Sequence[InputSpec] = ()
    ) -> Runner:
        """``model``, a policy of this bundle's family or a function that loads one, as the reference.

        With ``steps``, so many are meant, whatever the policy says. With ``inputs``, what a policy's own file
        says that it reads, the result doubts a bundle that reads another thing. See
        :func:`registry.reference_runner`.
        """
        return registry.reference_runner(self.stated, model, steps, inputs)

    def stages(
        self,
        policy: Any,
        source: Any = None,
        *,
        seed: int = 0,
        provider: str = "cpu",
        steps: int | None = None,
    ) -> Stages:
        """Both sides of every stage from the camera to the joint; see :mod:`pytest_reflex.judge.pipeline`.

        Args:
            policy: the live policy that it was made from.
            source: what lerobot runs around it; by default that of the checkpoint it was loaded from.
            seed: what noise is drawn with.
            provider: the execution provider.
            steps: the denoising steps that are meant, where they are not the policy's own.

        Raises:
            BundleError: it has no processors.
        """
        made: Stages = registry.stages_of(self, policy, source, seed=seed, provider=provider, steps=steps)
        return made

    def search(
        self,
        reference: Any,
        *,
        seed: int = 0,
        inputs: Sequence[Mapping[str, Any]] | None = None,
        progress: Progress | None = None,
    ) -> Search:
        """A search for where it and its reference part, to be walked through with several fixtures.

        Args:
            reference: the policy it was made from, a function that loads one, or a runner of it.
            seed: what fixtures are drawn with.
            inputs: recorded inputs, to take fixtures from instead of drawing them.
            progress: called with (stage, done, total).

        Raises:
            ReflexError: the reference is no PyTorch policy that can be traced.
        """
        from exporters.divergence import Search

        runner = reference if isinstance(reference, Runner) else self.reference_runner(reference)
        flow = functools.partial(registry.flow_of, self.stated)
        return Search(self, runner, flow, seed=seed, inputs=inputs, progress=progress)

    def locate_on(
        self,
        runtime: str,
        *,
        fixture_idx: int = 0,
        seed: int = 0,
        inputs: Sequence[Mapping[str, Any]] | None = None,
        progress: Progress | None = None,
    ) -> Located:
        """Find the first node that a runtime computes otherwise than onnx's own evaluator.

        The policy is not asked: what parts from the graph is the runtime. Nodes that it gives no values of
        are reached by cutting the graph.

        Args:
            runtime: its name, such as ``openvino``.
            fixture_idx: which fixture is walked through.
            seed: what fixtures are drawn with.
            inputs: recorded inputs, to take fixture ``fixture_idx`` from instead of drawing it.
            progress: called with (stage, done, total).

        Raises:
            RunnerError: nobody knows the runtime, or it or the evaluator cannot run a part of a graph.
        """
        from exporters.divergence.across import parted_on
        from exporters.divergence.search import fixture_of

        fixture = fixture_of(self, fixture_idx, seed, inputs)
        return parted_on(self, runtime, fixture, fixture_idx=fixture_idx, progress=progress)

    def locate(
        self,
        reference: Any,
        *,
        fixture_idx: int = 0,
        seed: int = 0,
        inputs: Sequence[Mapping[str, Any]] | None = None,
        budget_bytes: int | None = None,
        models: Mapping[str, ir.Model] | None = None,
        seconds: float | None = None,
        progress: Progress | None = None,
    ) -> Located:
        """Find the first module that computes something else in the bundle than in PyTorch.

        The reference is traced again and run value by value; each value is compared with the graph's twice:
        as the graph gets there on its own way, and with the one node fed with PyTorch's own inputs. Where the
        bundle is on another runtime than ONNX Runtime, that is asked first, as by :meth:`locate_on`.

        Args:
            reference: the policy it was made from, a function that loads one, or a runner of it.
            fixture_idx: which fixture to walk through.
            seed: what fixtures are drawn with.
            inputs: recorded inputs, to take fixture ``fixture_idx`` from instead of drawing it.
            budget_bytes: how much memory the values of one chunk may take.
            models: graphs to look into in place of those on disk, by role.
            seconds: how long it may take.
            progress: called with (stage, done, total).

        Raises:
            ReflexError: the reference is no PyTorch policy that can be traced, the fixture is none, or the
                time is over.
        """
        from exporters.divergence.search import BUDGET_BYTES, Deadline

        drawn_with = seed if inputs is None else None
        deadline = None if seconds is None else Deadline(seconds, self, fixture_idx, drawn_with)
        if self.runtime != DEFAULT and models is None:
            from exporters.divergence.across import parted_on
            from exporters.divergence.search import fixture_of

            fixture = fixture_of(self, fixture_idx, seed, inputs)
            told: dict[str, Any] = {"fixture_idx": fixture_idx, "progress": progress, "deadline": deadline}
            parted = parted_on(self, self.runtime, fixture, **told)
            if parted.place is not None:
                return parted
        search = self.search(reference, seed=seed, inputs=inputs, progress=progress)
        budget = BUDGET_BYTES if budget_bytes is None else budget_bytes
        return search.walk(fixture_idx, budget_bytes=budget, models=models, deadline=deadline)


@dataclass(frozen=True, repr=False)
class Export(Bundle):
    """A bundle just made, with the verdict it was made under.

    Attributes:
        result: the verdict, or None when it was made with ``verify=False``.
        replaced: in what it differs from the bundle whose place it took, in words; a note of the result too.
        pipeline: the verdict on it with its processors, or None where it was made without.
    """

    result: ParityResult | None = None
    replaced: str = ""
    pipeline: PipelineResult | None = None

    def _repr_html_(self) -> str:
        shown = self.result._repr_html_() if self.result is not None else "<p>not verified</p>"
        return super()._repr_html_() + shown


def locate(reference: Any, bundle: Bundle, **options: Any) -> Located:
    """Where a reference and its bundle part, in the order of ``check``; see :meth:`Bundle.locate`.

    Raises:
        ReflexError: the second is no bundle.
    """
    if not isinstance(bundle, Bundle):
        turned = "; they are turned round" if isinstance(reference, Bundle) else ""
        path = (
            f"; open it, open_bundle({os.fspath(bundle)!r})" if isinstance(bundle, str | os.PathLike) else ""
        )
        raise ReflexError(
            f"the bundle is {a_type(bundle)}{turned}{path}; give locate(reference, bundle), in check's order"
        )
    return bundle.locate(reference, **options)


def require_bundle(given: object) -> Bundle:
    """A bundle that was given as one.

    Raises:
        BundleError: it is something else.
    """
    if isinstance(given, Bundle):
        return given
    raise BundleError(f"{a_type(given)} is no bundle; give open_bundle(DIRECTORY)")


def open_bundle(directory: str | os.PathLike[str], *, to_judge: bool = False) -> Bundle:
    """Open a bundle after checking every file against the manifest.

    Args:
        directory: the bundle.
        to_judge: open it also when its weights or fixtures were changed since its check, so that a verdict
            can say by how much it is wrong; :attr:`Bundle.changed` then names the file and the verdict is
            a fail. A graph that was changed is nothing to run.

    Raises:
        BundleError: the directory, the manifest or a file is missing, unreadable, of another size or
            digest than the manifest says, or of a format this version does not know; or a graph takes
            weights from a file that is none of the bundle's.
    """
    path, manifest, changed = verified(directory, to_judge=to_judge)
    return Bundle(path, manifest, changed=changed)
