"""Whether both sides are one model: the same object or memory, asked by the same code; all else makes two."""

from __future__ import annotations

import copy
import functools
import gc

import torch
from policy_cases import SPECS, only_refusal
from torch import nn

from pytest_reflex.judge.check import check
from pytest_reflex.runners import TorchRunner
from pytest_reflex.runners.one_model import same_call, same_module


class Policy(nn.Module):
    def __init__(self, steps=3, weight=None, keep=None):
        super().__init__()
        self.steps, self.keep = steps, keep
        self.weight = nn.Parameter(torch.linspace(1, 2, 8)) if weight is None else weight
        self.register_buffer("offset", torch.ones(8))

    def forward(self, x, mask):
        return {"actions": x * self.weight + self.steps * mask}

    def sample_actions(self, x, mask):
        return self.forward(x, mask)


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, **inputs):
        return self.inner(**inputs)


class Other(Wrapped):
    def forward(self, **inputs):
        return {"actions": self.inner(**inputs)["actions"] * 1}


def shared(policy, **changes):
    """A policy over the memory of another one."""
    made = Policy(policy.steps, policy.weight, **changes)
    made.offset = policy.offset
    return made


def test_modules_are_one_by_their_memory_and_their_code():
    policy = Policy()
    assert same_module(policy, policy)
    assert same_module(policy, shared(policy))
    assert same_module(Wrapped(policy), Wrapped(shared(policy)))
    detached = shared(policy)
    detached.weight = nn.Parameter(policy.weight.data)
    assert same_module(policy, detached)


def test_another_class_attribute_weight_hook_or_copy_makes_two():
    policy = Policy()
    more = shared(policy)
    more.steps = 4
    hooked = shared(policy)
    hooked.register_forward_hook(lambda module, given, gave: {"actions": gave["actions"] * 2})
    reversed_ = shared(policy)
    reversed_.weight = nn.Parameter(policy.weight.data.as_strided((4,), (2,)))
    larger = shared(policy)
    larger.extra = nn.Linear(1, 1)
    for other in (
        Policy(), copy.deepcopy(policy), more, hooked, reversed_, larger, Wrapped(policy),
        shared(policy, keep=object()), shared(policy, keep=torch.ones(2)),
    ):  # fmt: skip
        assert not same_module(policy, other)
    assert not same_module(Wrapped(policy), Other(policy))
    assert not same_module(nn.Identity(), nn.Identity())  # nothing says that they are
    assert not same_module(shared(policy, keep=torch.ones(2).to_sparse()),
                           shared(policy, keep=torch.ones(2).to_sparse()))  # fmt: skip


def test_calls_are_one_by_their_code_and_what_it_is_over():
    policy, other = Policy(), Policy()

    def maker(steps, model=policy):
        def call(x, scale=steps):
            return model, steps

        return call

    assert same_call(None, None)
    assert same_call(maker(3), maker(3))
    assert same_call(policy.sample_actions, policy.sample_actions)
    assert same_call(functools.partial(maker(3), 1, scale=2), functools.partial(maker(3), 1, scale=2))
    for one, another in (
        (None, maker(3)), (maker(3), maker(4)), (maker(3), maker(3, other)),
        (policy.sample_actions, policy.forward), (policy.sample_actions, other.sample_actions),
        (functools.partial(maker(3), 1), functools.partial(maker(3), 2)), (maker(3), lambda x: 3),
        (maker([1, 2]), maker([1])),
    ):  # fmt: skip
        assert not same_call(one, another)


def test_a_function_that_holds_itself_is_looked_at_no_deeper_than_it_takes():
    def maker():
        def call():
            return call

        return call

    assert not same_call(maker(), maker())

    def early():
        def call():
            return late

        if False:
            late = 1
        return call

    assert same_call(early(), early())


def test_a_check_of_one_model_against_itself_is_refused():
    policy = Policy()
    said = only_refusal(check(policy, TorchRunner(policy, name="again"), inputs=SPECS), "reference")
    assert said == "both sides are Policy, which is no comparison; give what was made of it"


def test_a_policy_is_judged_in_another_way_of_asking_it():
    policy = Policy()
    for candidate in (
        TorchRunner(policy, policy.sample_actions),
        TorchRunner(copy.deepcopy(policy)),
        TorchRunner(Other(policy)),
    ):
        assert check(policy, candidate, inputs=SPECS).passed


def test_a_model_that_was_let_go_is_not_the_next_one_at_its_place():
    class Slow(TorchRunner):
        def run(self, inputs):
            return super().run(inputs)

    def loader():
        return Policy()

    def loads_another():
        return Policy()

    one, other = TorchRunner(loader, name="one"), TorchRunner(loads_another, name="other")
    with one:
        pass
    gc.collect()
    with other:
        assert not one.same_model(other)
        assert one.same_model(TorchRunner(loader))
        assert not one.same_model(Slow(loader))
        assert not one.same_model("one")
