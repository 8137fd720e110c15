"""What lerobot keeps of its two pipelines in a checkpoint: looked at before anything of it is made.

lerobot makes a step by a name that it has registered, or by whatever class or function the file names: of a
file that somebody else wrote that may be anything. So nothing is made but the steps that are known here. This
file needs neither torch nor lerobot.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from exporters import checkpoints
from pytest_reflex.errors import CheckpointError, ReflexError, a_type

__all__ = ["KNOWN_STEPS", "PIPELINES", "can_be_put_in", "has_pipelines", "require_known_steps"]

PIPELINES: Final = ("policy_preprocessor.json", "policy_postprocessor.json")
# What lerobot calls in a checkpoint the steps that :mod:`.lerobot_processors` takes.
KNOWN_STEPS: Final = frozenset(
    (
        "absolute_actions_processor",
        "device_processor",
        "normalizer_processor",
        "pi05_prepare_state_tokenizer_processor_step",
        "relative_actions_processor",
        "rename_observations_processor",
        "smolvla_new_line_processor",
        "to_batch_processor",
        "tokenizer_processor",
        "unnormalizer_processor",
    )
)


def has_pipelines(source: object) -> bool:
    """Whether lerobot's two pipelines are in a checkpoint's directory, or are at hand."""
    if isinstance(source, tuple):
        return True
    return isinstance(source, (str, os.PathLike)) and all(Path(source, name).is_file() for name in PIPELINES)


def can_be_put_in(directory: Path) -> bool:
    """Whether a checkpoint's directory has lerobot's two pipelines, of steps alone that go into a bundle."""
    try:
        require_known_steps(directory)
    except ReflexError:  # none, a step of one's own, or what is no such file
        return False
    return True


def require_known_steps(directory: Path) -> tuple[frozenset[str], frozenset[str]]:
    """The steps before a policy and behind it, by the names that lerobot registers them under.

    Raises:
        CheckpointError: there are no such files, or one is none.
        ReflexError: a step is none that goes into a bundle.
    """
    before, behind = (_steps(directory / name) for name in PIPELINES)
    return before, behind


def _steps(file: Path) -> frozenset[str]:
    if not file.is_file():
        raise CheckpointError(f"no {file.name} in {file.parent}: it holds no processors of lerobot's")
    checkpoints.require_no_pointer(file)
    try:
        steps = [_step(one) for one in json.loads(file.read_text(encoding="utf-8"))["steps"]]
        names = frozenset(str(step.get("registry_name", step.get("class"))) for step in steps)
        kept = [file.parent / str(step["state_file"]) for step in steps if step.get("state_file")]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else checkpoints.said(error)
        raise CheckpointError(
            f"the processors of {file.parent} cannot be made: {file.name} is no pipeline ({said})"
        ) from error
    if unknown := sorted(names - KNOWN_STEPS):
        raise ReflexError(
            f"the step {unknown[0]} cannot be put into a bundle; these can: {', '.join(sorted(KNOWN_STEPS))}"
        )
    for state in kept:
        if state.is_file():
            checkpoints.require_no_pointer(state)
    return names


def _step(said: Any) -> Mapping[str, Any]:
    if not isinstance(said, Mapping):
        raise TypeError(f"a step is {a_type(said)}")
    return said
