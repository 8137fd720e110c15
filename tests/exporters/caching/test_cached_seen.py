"""The export cache where a key could say too little or too much, and where its directory is not its own."""

from __future__ import annotations

import copy
import importlib
import os
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cached_cases import INPUTS, Counter, in_two_processes
from torch import nn

import exporters
from examples.tiny_pi0 import tiny_pi0
from exporters.bundles import Export
from exporters.caching import cached as once
from exporters.caching.fingerprint import Fingerprint
from pytest_reflex import TorchRunner
from pytest_reflex.errors import SettingsError

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65534


class Tiny(nn.Module):
    """A policy of one layer; its class is what these tests change."""

    gain = 1.0

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"actions": self.linear(x) * self.gain}


def key(model: Any, **options: Any) -> str:
    return once._key(exporters.export, model, options)


def made(cache: Path, export: Callable[..., Any] = exporters.export, **options: Any) -> Any:
    return exporters.cached(export, Tiny(), cache=cache, **{"inputs": INPUTS, "fixtures": 1, **options})


# What is found again though it was used


def test_a_policy_of_transformers_that_was_exported_is_found_again(tmp_path: Path) -> None:
    policy = tiny_pi0(depth=(1, 1, 1), steps=2, chunk=4)
    export = Counter(exporters.pi0.export)
    options: dict[str, Any] = {"layout": "loop", "cameras": 1, "prompt_tokens": 4, "fixtures": 1}
    bundles = [exporters.cached(export, policy, cache=tmp_path, **options) for _ in range(2)]
    equal = tiny_pi0(depth=(1, 1, 1), steps=2, chunk=4)
    bundles.append(exporters.cached(export, equal, cache=tmp_path, **options))
    assert (export.calls, len({bundle.path for bundle in bundles})) == (1, 1)
    equal.config.num_inference_steps = 3
    assert once._key(export, equal, options) != once._key(export, policy, options)


def test_a_flow_policy_and_a_runner_that_were_run_are_found_again(tmp_path: Path) -> None:
    from serve_cases import INPUTS as FLOW_INPUTS
    from serve_cases import policy

    export = Counter(exporters.export)
    flow, model = policy(), Tiny()
    runner = TorchRunner(model, outputs=["actions"])
    for _ in range(2):
        exporters.cached(export, flow, cache=tmp_path, inputs=FLOW_INPUTS, fixtures=1)
        exporters.cached(export, runner, cache=tmp_path, inputs=INPUTS, fixtures=1)
    assert export.calls == 2


def test_the_key_of_a_policy_of_transformers_is_one_in_all_processes(python: list[str]) -> None:
    code = (
        "from examples.tiny_pi0 import tiny_pi0\nimport exporters\n"
        "from exporters.caching import cached as once\n"
        "p = tiny_pi0(depth=(1, 1, 1), steps=2, chunk=4)\n"
        "print(once._key(exporters.pi0.export, p, {'layout': 'loop'}))"
    )
    assert len({said.split()[-1] for said in in_two_processes(python, code)}) == 1


def test_equal_containers_have_one_key_whether_or_not_they_are_shared() -> None:
    shared, apart = Tiny(), Tiny()
    pair = ([1], (2,))
    shared.one, shared.other = pair, pair
    apart.one, apart.other = copy.deepcopy(pair), copy.deepcopy(pair)
    assert key(shared) == key(apart)
    apart.other[0].append(3)
    assert key(shared) != key(apart)


def hook(*_: Any) -> None: ...


def other_hook(*_: Any) -> None: ...


def test_a_hook_counts_by_what_it_does_and_not_by_how_many_came_before() -> None:
    keys = []
    for function in (hook, other_hook, hook):
        model = Tiny()
        model.linear.register_forward_hook(function)
        keys.append(key(model))
    assert keys[0] == keys[2] != keys[1]
    model = Tiny()
    model.linear.register_forward_hook(hook, with_kwargs=True)
    assert key(model) not in keys


# Code as it is loaded


def test_a_class_that_was_changed_in_memory_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {key(Tiny())}
    monkeypatch.setattr(Tiny, "gain", 2.0)
    keys.add(key(Tiny()))
    monkeypatch.setattr(Tiny, "forward", lambda self, x: {"actions": self.linear(x)})
    keys.add(key(Tiny()))
    monkeypatch.undo()
    assert len(keys) == 3
    assert key(Tiny()) in keys


def test_a_class_that_encloses_another_value_is_another() -> None:
    def policy(factor: float) -> nn.Module:
        class Enclosing(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * factor

        return Enclosing()

    assert key(policy(1.0)) == key(policy(1.0)) != key(policy(2.0))


POLICY = """
import more_of_mine
from helpers_of_mine import act
from torch import nn
FACTOR = {factor}
def scaled(x): return x * {scale}
class P(nn.Module):
    def forward(self, x): return more_of_mine.act(act(scaled(x))) * FACTOR
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., types.ModuleType]]:
    """Writes a policy and its helpers and gives the module; edits keep the files' length."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    clock = iter(range(10**9, 2 * 10**9))

    def write(*, load: bool = True, add: int = 1, more: int = 1, **values: int) -> types.ModuleType | None:
        files = {
            "helpers_of_mine": f"def act(x): return x + {add}\n",
            "more_of_mine": f"def act(x): return x + {more}\n",
            "policy_seen": POLICY.format(**{"factor": 1, "scale": 1, **values}),
        }
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
            now = next(clock)
            os.utime(tmp_path / f"{name}.py", (now, now))
        if not load:
            return None
        for name in files:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module("policy_seen")

    return write


@pytest.mark.parametrize("edit", [{"factor": 2}, {"scale": 2}, {"add": 2}], ids=str)
def test_old_code_does_not_leave_its_bundle_under_the_key_of_an_edit(written: Any, edit: Any) -> None:
    old = written()
    before = key(old.P())
    written(load=False, **edit)
    meanwhile = key(old.P())  # the files are new, the code that runs is not
    after = key(written(**edit).P())
    assert len({before, meanwhile, after}) == 3
    assert key(written(**edit).P()) == after


def test_a_helper_that_is_named_through_its_module_counts(written: Any) -> None:
    before = key(written().P())
    assert before != key(written(more=2).P())
    assert before == key(written(more=1).P())


def test_what_an_installed_package_does_with_its_settings_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "site-packages"
    place.mkdir()
    (place / "installed_policy.py").write_text(
        "from torch import nn\nSHOWN = 0\n"
        "class P(nn.Module):\n    def forward(self, x): return x if SHOWN else x\n"
    )
    monkeypatch.syspath_prepend(place)
    module = importlib.import_module("installed_policy")
    monkeypatch.delitem(sys.modules, "installed_policy", raising=False)
    monkeypatch.setitem(sys.modules, "installed_policy", module)
    before = key(module.P())
    module.SHOWN = 1
    assert key(module.P()) == before
    module.P.forward = lambda self, x: x
    assert key(module.P()) != before


def test_a_setting_and_a_helper_that_were_replaced_in_memory_count(written: Any) -> None:
    module = written()
    keys = {key(module.P())}
    module.FACTOR = 7
    keys.add(key(module.P()))
    module.act = lambda x: x
    keys.add(key(module.P()))
    assert len(keys) == 3


NOTEBOOK = """
STEPS = {steps}
def helper(x): return x + {helper}
class P(nn.Module):
    pair = {pair}
    @property
    def size(self): return {size}
    @staticmethod
    def still(x): return x * {still}
    def forward(self, x): return helper(x) * STEPS["n"]
"""


@pytest.mark.parametrize("changed", ["steps", "helper", "pair", "size", "still"])
def test_of_a_notebook_all_that_a_class_holds_and_names_counts(changed: str) -> None:
    def policy(**values: str) -> Any:
        space: dict[str, Any] = {"__name__": "no_such_notebook", "nn": nn}
        plain = {"steps": "{'n': 1}", "helper": "1", "pair": "(1, 2)", "size": "1", "still": "1"}
        exec(NOTEBOOK.format(**{**plain, **values}), space)
        return space["P"]()

    other = {"steps": "{'n': 2}", "pair": "(1, 3)"}.get(changed, "2")
    assert key(policy()) == key(policy()) != key(policy(**{changed: other}))


def test_our_own_source_that_was_edited_meanwhile_has_a_key_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from exporters.caching import fingerprint as digest

    keys = {key(Tiny())}
    monkeypatch.setattr(digest, "own_source", lambda: "edited")
    keys.add(key(Tiny()))
    monkeypatch.setattr(digest, "LOADED", "edited")  # what the next process has
    keys.add(key(Tiny()))
    assert len(keys) == 3


# What has no plain form


def test_a_circle_through_a_set_ends() -> None:
    model, other = Tiny(), Tiny()
    model.parts, other.parts = {model}, {other}
    assert key(model) == key(other) != key(Tiny())


@pytest.mark.parametrize(
    "tensor",
    [torch.eye(3).to_sparse(), torch.view_as_complex(torch.ones(2, 2)).conj()],
    ids=["sparse", "conjugate"],
)
def test_a_tensor_of_another_layout_counts_by_its_values(tensor: torch.Tensor) -> None:
    assert Fingerprint().add(tensor).hexdigest() == Fingerprint().add(tensor.clone()).hexdigest()
    assert Fingerprint().add(tensor).hexdigest() != Fingerprint().add(tensor * 2).hexdigest()


def test_what_no_walk_ends_in_and_what_is_not_loaded_is_refused() -> None:
    model = Tiny()
    nest: list[Any] = []
    for _ in range(20_000):
        nest = [nest]
    model.nest = nest
    with pytest.raises(SettingsError, match=r"the model holds too deep a nest, .* call the export function"):
        key(model)
    with pytest.raises(SettingsError, match=r"mine has still to be loaded, .* open it first"):
        key(TorchRunner(lambda: Tiny(), name="mine"))


# The directory


def test_what_the_cache_has_not_made_is_not_removed_however_old(tmp_path: Path) -> None:
    mine = tmp_path / "my-robot-v1"
    exporters.export(Tiny(), mine, inputs=INPUTS, fixtures=1)
    month = time.time() - 31 * 24 * 3600
    os.utime(mine / "reflex.json", (month, month))
    leftover = tmp_path / ".my-robot-v2.reflex-1-killed"
    leftover.mkdir()
    made(tmp_path)
    assert mine.is_dir()
    assert leftover.is_dir()


def test_a_function_that_proves_nothing_leaves_nothing(tmp_path: Path) -> None:
    def unproven(reference: Any, out_dir: Any, **options: Any) -> Export:
        return exporters.export(reference, out_dir, verify=False, **options)

    with pytest.raises(SettingsError, match=r"unproven made a bundle without a check that passed"):
        made(tmp_path, unproven)
    assert [place for place in tmp_path.iterdir() if place.is_dir()] == []


@pytest.mark.parametrize("what", ["a file", "an empty directory", "a link to nowhere", "a part of a bundle"])
def test_what_stands_where_a_bundle_goes_makes_room(tmp_path: Path, what: str) -> None:
    place = made(tmp_path).path
    if what == "a part of a bundle":
        (place / "reflex.json").unlink()
    else:
        place.rename(tmp_path / "away")
        if what == "a file":
            place.write_text("")
        elif what == "an empty directory":
            place.mkdir()
        else:
            place.symlink_to(tmp_path / "nowhere")
    again = made(tmp_path)
    assert again.path == place
    assert not place.is_symlink()
    assert not list(tmp_path.glob(".*.reflex-*"))


def test_a_directory_is_named_when_it_takes_nothing() -> None:
    # Not below tmp_path, which is closed to everyone else.
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "cache")
        root = os.geteuid() == 0
        if root:
            os.chown(folder, NOBODY, -1)
            os.seteuid(NOBODY)
        try:
            os.chmod(folder, 0o500)
            with pytest.raises(
                SettingsError, match=r"export cache .*/cache cannot be written to: Permission"
            ):
                made(place)
        finally:
            os.chmod(folder, 0o700)
            if root:
                os.seteuid(0)


def test_a_lock_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    locked = tmp_path / f"{made(tmp_path).path.name}.lock"
    locked.unlink()
    locked.mkdir()
    with pytest.raises(SettingsError, match=r"the export cache .* cannot be written to: "):
        made(tmp_path)


def test_a_home_is_looked_up_in_a_name_and_needed_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("REFLEX_CACHE", "~/of-mine")
    assert once._root(None) == tmp_path / "of-mine"
    monkeypatch.setenv("REFLEX_CACHE", "")
    assert once._root(None) == tmp_path / ".cache" / "pytest-reflex"

    def homeless(_: Any) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    assert once._root(tmp_path / "given") == tmp_path / "given"
