"""ACT's temporal ensemble: one step of ``select_action``, what it remembers handed in and out as state.

With ``temporal_ensemble_coeff`` ACT plans a whole chunk at every step and carries out a running mean of all
that were planned for this moment. lerobot's ``ACTTemporalEnsembler`` keeps the mean, and of each row how
many chunks are in it. Here both are inputs and outputs, so that a graph needs no memory and
:func:`pytest_reflex.check_sequence` can hand them on::

    from exporters.families import temporal_ensemble

    reference, inputs = temporal_ensemble.reference(policy), temporal_ensemble.inputs(policy)
    made = export(reference, "act", inputs=inputs, whole=temporal_ensemble.TemporalEnsemble(policy))
    check_sequence(reference, made, states=temporal_ensemble.STATES).require()

The reference is the policy's own ``select_action``, whole. An episode begins with zeros in both.
"""

from __future__ import annotations

import copy
import functools
from typing import Any, Final

import torch
from torch import nn

from exporters.families import act
from pytest_reflex.errors import SettingsError
from pytest_reflex.inputs import Gaussian, InputSpec, Integers
from pytest_reflex.runners import TorchRunner

__all__ = ["STATES", "TemporalEnsemble", "inputs", "reference"]

MEAN, COUNT = "ensembled", "ensembled_count"
# For each state the input that it is, and the output that becomes it in the next step.
STATES: Final = {MEAN: f"{MEAN}_out", COUNT: f"{COUNT}_out"}


class TemporalEnsemble(nn.Module):
    """One step as it is traced: lerobot's own update of an ensembler that is made of the inputs.

    Args:
        policy: a live ``ACTPolicy`` with a ``temporal_ensemble_coeff``.

    Raises:
        SettingsError: it has none.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__()
        _ensembler(policy)
        self.policy = policy

    def forward(self, **named: torch.Tensor) -> dict[str, torch.Tensor]:
        """``action`` [B, A], and the state for the next step.

        Without a chunk before it the count is 0, and the mean is taken by the weight 0: what lerobot does
        where it has none yet, to the bit.
        """
        mean, count = named.pop(MEAN), named.pop(COUNT)
        ensembler = copy.copy(_ensembler(self.policy))
        # It writes to the mean.
        ensembler.ensembled_actions, ensembler.ensembled_actions_count = mean.clone(), count
        action = ensembler.update(act.FAMILY.sample(self.policy, named, None))
        return _given(ensembler, action)


def inputs(policy: Any, *, batch: int = 1) -> list[InputSpec]:
    """What a step reads: the policy's own inputs, and the state.

    ``ensembled`` [batch, chunk - 1, A], the mean of what was planned for the coming steps, and
    ``ensembled_count`` [chunk - 1, 1], of how many chunks each row is one.

    Raises:
        SettingsError: the policy has no ``temporal_ensemble_coeff``.
    """
    rows = _ensembler(policy).chunk_size
    (dim,) = policy.config.action_feature.shape
    return [
        *act.FAMILY.inputs(policy, batch=batch),
        InputSpec(MEAN, (batch, rows - 1, dim), "float32", Gaussian()),
        InputSpec(COUNT, (rows - 1, 1), "int64", Integers(1, rows)),
    ]


def reference(policy: Any) -> TorchRunner:
    """One step of the policy's own ``select_action``; what it remembered itself is put back.

    Raises:
        SettingsError: it has no ``temporal_ensemble_coeff``.
    """
    _ensembler(policy)
    return TorchRunner(policy, functools.partial(_selected, policy))


def _selected(policy: Any, /, **named: torch.Tensor) -> dict[str, torch.Tensor]:
    ensembler, count = policy.temporal_ensembler, named[COUNT]
    kept = ensembler.ensembled_actions, ensembler.ensembled_actions_count
    begun = bool(count.any())
    try:
        ensembler.ensembled_actions = named[MEAN].clone() if begun else None
        ensembler.ensembled_actions_count = count if begun else None
        action = policy.select_action(act.FAMILY.batch(policy, named))
        return _given(ensembler, action)
    finally:
        ensembler.ensembled_actions, ensembler.ensembled_actions_count = kept


def _given(ensembler: Any, action: torch.Tensor) -> dict[str, torch.Tensor]:
    mean, count = ensembler.ensembled_actions, ensembler.ensembled_actions_count
    return {"action": action, STATES[MEAN]: mean, STATES[COUNT]: count}


def _ensembler(policy: Any) -> Any:
    found = getattr(policy, "temporal_ensembler", None)
    if found is None:
        raise SettingsError(
            f"{type(policy).__name__} has no temporal_ensemble_coeff, so it carries out a chunk as it is; "
            "set it in the policy's configuration, or export the chunk with exporters.act"
        )
    return found
