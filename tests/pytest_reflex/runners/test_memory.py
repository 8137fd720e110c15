"""Letting go of mapped weights: memory comes back, and no value is lost."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pytest_reflex.runners import TorchRunner, memory
from pytest_reflex.runners.memory import release_mapped

MB = 1 << 20
SIZE = 2048  # one float32 weight of 16 MB


def resident() -> int:
    """Bytes of files that this process has in memory."""
    found = re.search(r"^RssFile:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        pytest.skip("this kernel does not count the pages of files")
    return int(found[1]) * 1024


@pytest.fixture
def mapped(tmp_path: Path) -> nn.Linear:
    """A layer whose weight is mapped from a file."""
    torch.manual_seed(0)
    save_file({"weight": torch.randn(SIZE, SIZE)}, tmp_path / "w.safetensors")
    with torch.device("meta"):
        layer = nn.Linear(SIZE, SIZE, bias=False)
    layer.load_state_dict(load_file(tmp_path / "w.safetensors"), assign=True)
    return layer.requires_grad_(False)


def test_a_runner_that_closes_gives_back_what_its_policy_has_read(mapped: nn.Linear) -> None:
    inputs = {"input": np.ones((1, SIZE), np.float32)}
    runner = TorchRunner(mapped)
    with runner:
        first = runner.run(inputs)
        read = resident()
    assert read - resident() > 12 * MB
    # The policy is as it was, and reads its file again.
    with runner:
        again = runner.run(inputs)
    assert np.array_equal(first["output"], again["output"])


def test_a_weight_that_was_written_to_is_never_let_go(mapped: nn.Linear) -> None:
    with torch.no_grad():
        mapped.weight[7, 7] = 12345.0
    assert release_mapped([mapped.weight.data_ptr()]) == 0
    assert mapped.weight[7, 7] == 12345.0


def test_memory_that_is_no_file_s_is_never_let_go() -> None:
    weight = torch.full((SIZE, SIZE), 3.0)
    assert release_mapped([weight.data_ptr(), 0, 1 << 62]) == 0
    assert (weight == 3.0).all()


def test_where_mappings_cannot_be_read_nothing_is_let_go(
    mapped: nn.Linear, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_SMAPS", tmp_path / "none")
    assert release_mapped([mapped.weight.data_ptr()]) == 0
    monkeypatch.undo()
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert release_mapped([mapped.weight.data_ptr()]) == 0
