"""A family of policies, as one object: what it is called, and the five verbs that make and judge a bundle."""

from __future__ import annotations

import contextlib
import functools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from exporters.bundle.options import Option, require_options, words_of
from exporters.flow.loop_states import watched_states
from exporters.flow.policy import FlowPolicy
from exporters.flow.schedule import Layout
from pytest_reflex.errors import InputError, ReflexError, SettingsError
from pytest_reflex.inputs import InputSpec, Integers
from pytest_reflex.runners import TorchRunner

if TYPE_CHECKING:
    from exporters.bundles import Export

__all__ = ["Family", "embodiment_specs", "require_counts", "require_set", "set_to"]


class Family(ABC):
    """A family of policies: with a loop that walks noise to actions, or without one.

    One of another distribution is found where that names an instance in the entry-point group
    ``pytest_reflex.families``, under the family's name.

    Attributes:
        name: its name in manifests, and the ``type`` or ``model_type`` in its checkpoints' ``config.json``.
        own_names: what its checkpoints may call themselves besides.
        options: what :meth:`inputs` takes besides the batch; ``reflex export`` takes the same.
        layout: how its bundles carry the loop where nobody says.
        policies: names of the classes that a live policy of it may be of.
        about: what a policy of it is, for people.
        judged_by: what of the policy is true, for people.
        looped: whether it has one. Without, :meth:`flow`, :meth:`steps` and :meth:`reader` are not asked, and
            what is traced is :meth:`sample`, whole.
        output: what :meth:`sample` gives, by its name in a bundle.
        beside: what else it gives, after that, where it gives a tuple.
        stepped: whether :meth:`inputs` takes the number of steps too: each step's noise is an input.
    """

    name: ClassVar[str]
    own_names: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[tuple[Option, ...]] = ()
    layout: ClassVar[Layout] = "unrolled"
    policies: ClassVar[tuple[str, ...]] = ()
    about: ClassVar[str] = ""
    judged_by: ClassVar[str] = "its `sample_actions`"
    looped: ClassVar[bool] = True
    output: ClassVar[str] = "actions"
    beside: ClassVar[tuple[str, ...]] = ()
    stepped: ClassVar[bool] = False

    @abstractmethod
    def load(self, checkpoint: str | os.PathLike[str], *, revision: str | None = None) -> Any:
        """Load a policy in float32 and eval mode, on the CPU.

        Args:
            checkpoint: a directory as the upstream's ``save_pretrained`` writes it, or a hub id.
            revision: branch, tag or commit of the hub id.

        Raises:
            CheckpointError: it cannot be had or read, is of another family, or its keys do not fit.
            ReflexError: the upstream is not installed, or is of an unsupported version.
        """

    @abstractmethod
    def inputs(self, policy: Any, *, batch: int = 1) -> list[InputSpec]:
        """What the policy's sampler reads, under the names that :meth:`sample` is given.

        Args:
            policy: a live policy.
            batch: the batch size; further keywords are the family's :attr:`options`.

        Raises:
            InputError: a size is not what the policy can have.
        """

    @abstractmethod
    def sample(
        self, policy: Any, named: Mapping[str, torch.Tensor], steps: int | None
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """The upstream's own sampler, unpatched, on named inputs. Options that are kept are keywords of
        it and of :meth:`flow`.

        Returns:
            The actions, [batch, chunk, dim]; or the tokens that they are said in, and their logits.
        """

    def flow(self, policy: Any) -> FlowPolicy:
        """The policy's two halves, as :meth:`export` traces them."""
        raise NotImplementedError(f"{self.name} has no loop")

    def whole(self, policy: Any) -> torch.nn.Module | None:
        """Without a loop: what is traced where :meth:`sample` cannot be, as ``exporters.export`` takes it."""
        return None

    def steps(self, policy: Any) -> int:
        """The policy's own number of denoising steps."""
        raise NotImplementedError(f"{self.name} has no loop")

    def reader(self, policy: Any) -> torch.nn.Module:
        """The submodule that the sampler's loop calls with ``x_t`` once a step, to be watched."""
        raise NotImplementedError(f"{self.name} has no loop")

    def states(
        self,
        policy: Any,
        named: Mapping[str, torch.Tensor],
        run: Callable[[], torch.Tensor],
        flow: FlowPolicy,
    ) -> list[torch.Tensor]:
        """What the sampler's loop holds after each step, by way of the flow's epilogue.

        Args:
            policy: a live policy.
            named: the inputs.
            run: runs the sampler on them, to be watched.
            flow: the policy's two halves.

        Raises:
            RunnerError: what was watched is not what the loop holds.
        """
        return watched_states(self.reader(policy), run, named["noise"], flow.epilogue)

    def require_sound(self, *takers: Callable[..., Any]) -> None:
        """Refuse what the family says of itself where nobody could obey it.

        Args:
            takers: whose keywords its options may not be, besides those of a family's verbs.

        Raises:
            ReflexError: naming the family, what it says, and what to do.
        """
        names = self.own_names
        if not isinstance(names, (tuple, list)) or not all(isinstance(name, str) for name in names):
            raise ReflexError(
                f"the family {self.name!r} has the own_names {names!r}, expected a tuple of text; "
                f"write one in {type(self).__qualname__}"
            )
        verbs = (Family.inputs, Family.sample, Family.reference, Family.export)
        require_options(self, words_of(*verbs, *takers))

    def owner(self, policy: torch.nn.Module) -> torch.nn.Module:
        """The module whose weights a bundle holds.

        Raises:
            ReflexError: the policy is of another family.
        """
        return policy

    def reference(self, policy: Any, *, steps: int | None = None, **kept: Any) -> TorchRunner:
        """The policy's own sampler, unpatched, as the reference.

        Args:
            policy: a live policy, or a function that loads one when the runner opens.
            steps: the number of denoising steps; by default the policy's own.
            kept: the options that the bundle was made with and that the reference must know.
        """

        def call(model: Any, /, **named: torch.Tensor) -> Any:
            return self.sample(model, named, steps, **kept)

        def states(model: Any, /, **named: torch.Tensor) -> list[torch.Tensor]:
            return self.states(model, named, lambda: call(model, **named), self.flow(model, **kept))

        seen, outputs = states if self.looped else None, [self.output, *self.beside]
        if unknown := kept.keys() - {option.name for option in self.options if option.kept}:
            raise TypeError(f"reference() of {self.name} takes no {', '.join(sorted(unknown))}")
        if not isinstance(policy, torch.nn.Module):
            return TorchRunner(policy, call, outputs=outputs, states=seen)
        owner = self.held(policy, **kept)
        return TorchRunner(owner, functools.partial(call, owner), outputs=outputs, states=seen)

    def held(self, policy: torch.nn.Module, **kept: Any) -> torch.nn.Module:
        """:meth:`owner` of a bundle with these options, where they decide how much of the policy it holds."""
        return self.owner(policy)

    def own_call(self, policy: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options as a bundle keeps them: with what the policy decides where nobody says it.

        One that is left out is not kept, and means nothing.
        """
        return dict(options)

    def asked(
        self, policy: Any, *, steps: int | None = None, batch: int = 1, **options: Any
    ) -> tuple[TorchRunner, list[InputSpec]]:
        """The reference of an export and what it is asked, by the keywords of :meth:`export`."""
        from exporters.exporting import export
        from pytest_reflex.judge.check import check

        self.require_sound(export, check)
        sizes = {option.name: options.get(option.name) for option in self.options}
        kept = {option.name: sizes[option.name] for option in self.options if option.kept}
        if self.looped:
            steps = steps if steps is not None else self.steps(policy)
        elif steps is not None:
            raise SettingsError(f"steps is {steps}, and {self.name} has no loop; leave it out")
        return self.reference(policy, steps=steps, **kept), self.read(policy, steps, batch=batch, **sizes)

    def read(self, policy: Any, steps: int | None, *, batch: int = 1, **options: Any) -> list[InputSpec]:
        """:meth:`inputs` over so many steps, by default the policy's own."""
        told = {"steps": steps} if self.stepped else {}
        return self.inputs(policy, batch=batch, **told, **options)

    def export(
        self,
        policy: Any,
        out_dir: str | os.PathLike[str],
        *,
        steps: int | None = None,
        batch: int = 1,
        layout: Layout | None = None,
        **options: Any,
    ) -> Export:
        """Export ``policy`` as a bundle, proven against its own sampler.

        Args:
            policy: a live policy in float32, or what :meth:`load` returned.
            out_dir: where the bundle goes; an earlier bundle there is replaced once the new one has passed.
            steps: the number of denoising steps; by default the policy's own.
            batch: the batch size.
            layout: how the bundle carries the loop; by default as the family does.
            **options: the family's own :attr:`options`, as :meth:`inputs` takes them, and what
                :func:`exporters.export` takes: threshold, strict, fixtures, seed and so on.

        Raises:
            ParityError: the export misses the threshold; nothing is written.
            ReflexError: it could not be made or judged; nothing is written.
        """
        from exporters.exporting import export

        reference, inputs = self.asked(policy, steps=steps, batch=batch, **options)
        own = self.own_call(policy, {option.name: options.pop(option.name, None) for option in self.options})
        # A manifest holds numbers: of a switch 1 or 0.
        own = {name: int(value) if isinstance(value, bool) else value for name, value in own.items()}
        kept = {
            option.name: own[option.name] for option in self.options if option.kept and option.name in own
        }
        if layout is not None and not self.looped:
            raise SettingsError(f"layout is {layout!r}, and {self.name} has no loop; leave it out")
        return export(
            reference,
            out_dir,
            inputs=inputs,
            flow=self.flow(policy, **kept) if self.looped else None,
            whole=None if self.looped else self.whole(policy),
            steps=steps if steps is not None or not self.looped else self.steps(policy),
            family=self.name,
            layout=layout if layout is not None or not self.looped else self.layout,
            call=kept,
            sizes=own,
            **options,
        )


def require_counts(**values: object) -> None:
    """Refuse what is no whole number of at least 1.

    Raises:
        InputError: naming the value.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name} is {value!r}, expected a whole number of at least 1")


def embodiment_specs(name: str, batch: int, count: int, **baked: object) -> list[InputSpec]:
    """An embodiment as an input, [batch] int64 below ``count``; none where ``baked`` has the one to bake in.

    Raises:
        InputError: that is no whole number from 0 to below ``count``.
    """
    for option, value in baked.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and 0 <= value < count):  # type: ignore[operator]
            raise InputError(f"{option} is {value!r}, expected a whole number from 0 to {count - 1}")
        if value is not None:
            return []
    return [InputSpec(name, (batch,), "int64", Integers(0, count))]


def require_set(config: Any, name: str, wanted: object, why: str) -> None:
    """Refuse a configuration that has another value than one which can be exported.

    Raises:
        SettingsError: naming both, why, and how to set it.
    """
    value = getattr(config, name)
    if value != wanted:
        raise SettingsError(f"{name} is {value!r}, {why}; set policy.config.{name} = {wanted!r}")


@contextlib.contextmanager
def set_to(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute at another value, unless that is None; restores what it was."""
    was = getattr(owner, name)
    setattr(owner, name, value if value is not None else was)
    try:
        yield
    finally:
        setattr(owner, name, was)
