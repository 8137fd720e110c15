"""The export cache: found by content, made once, never served when it is not what was proven."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import pytest
import torch
from cached_cases import INPUTS, Counter, in_two_processes, made
from torch import nn

import exporters
from exporters.bundles import Export
from exporters.caching import cached as once
from exporters.caching.fingerprint import Fingerprint, Unstable
from pytest_reflex import InputSpec, check
from pytest_reflex.errors import ParityError, SettingsError
from pytest_reflex.inputs.distributions import Uniform

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[3]


class Small(nn.Module):
    """Everything that a key must see, in one module."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3, eps=1e-5)
        self.register_buffer("shift", torch.zeros(3), persistent=False)
        self.gain = 1.0
        self.settings = {"clip": [1.0, 2.0]}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"actions": self.norm(self.linear(x)) * self.gain + self.shift}


@pytest.fixture
def export() -> Counter:
    return Counter()


def test_the_second_is_found_and_is_as_good_as_the_first(export: Counter, tmp_path: Path) -> None:
    first = made(export, Small(), tmp_path)
    second = made(export, Small(), tmp_path)
    assert export.calls == 1
    assert (second.path, second.manifest) == (first.path, first.manifest)
    assert first.path.parent == tmp_path
    assert check(Small(), second, inputs=INPUTS, fixtures=2).passed
    # What it was told meanwhile is told to the export alone, and no key hears of it.
    made(export, Small().eval(), tmp_path, progress=lambda *_: None)
    assert export.calls == 1


CHANGES = {
    "a weight": lambda m: m.linear.weight.data[0, 0].add_(1e-7),
    "a buffer that no state dict has": lambda m: m.shift.add_(1e-7),
    "a submodule's number": lambda m: setattr(m.norm, "eps", 1e-6),
    "its own number": lambda m: setattr(m, "gain", 2.0),
    "deep in a setting": lambda m: m.settings["clip"].__setitem__(1, 3.0),
    "a dtype": lambda m: setattr(m, "shift", m.shift.double()),
    "a hook": lambda m: m.linear.register_forward_hook(lambda *_: None),
    "a submodule of another class": lambda m: setattr(m, "norm", nn.Identity()),
    "a method": lambda m: setattr(m, "forward", lambda x: {"actions": m.linear(x)}),
    "a tied weight": lambda m: setattr(m.norm, "bias", m.norm.weight),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changes_in_the_model_is_another_key(change: Any) -> None:
    plain, changed = Small(), Small()
    # Two biases of one content, so that tying them changes nothing but that.
    for model in (plain, changed):
        model.norm.bias.data.copy_(model.norm.weight.data)
    before = once._key(exporters.export, changed, {})
    assert before == once._key(exporters.export, plain, {})
    change(changed)
    assert before != once._key(exporters.export, changed, {})


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 1e-5},
        {"strict": True},
        {"fixtures": 3},
        {"seed": 1},
        {"inputs": [InputSpec("x", (1, 4), meaning=Uniform(-1.0, 1.0))]},
        {"inputs": [*INPUTS, *INPUTS]},
        {"outputs": ["actions"]},
        {"outputs": ("actions",)},
        {"call": {"steps": 2}},
        {"call": {"steps": 2.0}},
        {"call": {"steps": True}},
    ],
    ids=str,
)
def test_every_option_counts(options: dict[str, Any]) -> None:
    plain = {"inputs": INPUTS, "call": {"steps": 1}}
    assert once._key(exporters.export, Small(), {**plain, **options}) != once._key(
        exporters.export, Small(), plain
    )


def test_the_function_the_versions_and_our_own_source_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(reference: Any, out_dir: Any, **options: Any) -> Export:
        return exporters.export(reference, out_dir, **options)

    keys = {once._key(exporters.export, Small(), {}), once._key(other, Small(), {})}
    keys |= {once._key(exporters.pi0.export, Small(), {})}
    seen = dict(once.surroundings(once.PACKAGES))
    assert {"torch", "onnxruntime", "python", "arch", "source", "pytest-reflex"} <= seen.keys()
    for name in ("torch", "source"):
        monkeypatch.setattr(once, "surroundings", lambda _, name=name: {**seen, name: "other"})
        keys.add(once._key(exporters.export, Small(), {}))
    assert len(keys) == 5


def test_an_edited_source_is_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    keys = []
    for i, factor in enumerate((1, 2, 1)):
        file = tmp_path / "edited_policy.py"
        file.write_text(
            f"from torch import nn\nFACTOR = {factor}\nclass P(nn.Module):\n"
            "    def forward(self, x): return x * FACTOR\n"
        )
        os.utime(file, (1e9 + i, 1e9 + i))
        module = importlib.import_module("edited_policy")
        module = importlib.reload(module)
        keys.append(once._key(exporters.export, module.P(), {}))
    assert keys[0] == keys[2] != keys[1]


def test_a_class_without_a_file_is_told_by_its_code() -> None:
    def policy(body: str) -> Any:
        space: dict[str, Any] = {"__name__": "no_such_module", "nn": nn}
        exec(f"class P(nn.Module):\n    def forward(self, x): return {body}", space)
        return space["P"]()

    keys = [once._key(exporters.export, policy(body), {}) for body in ("x + 1", "x + 2", "x + 1", "x - 1")]
    assert keys[0] == keys[2]
    assert len(set(keys)) == 3


def test_the_same_key_in_another_process(python: list[str]) -> None:
    code = (
        "import sys; sys.path[:0] = ['tests/exporters/caching', 'tests/support']\n"
        "import test_cached as t, exporters\nfrom exporters.caching import cached as once\n"
        "m = t.Small(); m.names = {'b', 'a', 'c'}; m.last = t.deque([1], 3)\n"
        "m.more = t.OrderedDict(a=t.InputSpec('x', (1, 4)))\n"
        "print(once._key(exporters.export, m, {'inputs': t.INPUTS}))"
    )
    assert len({said.split()[-1] for said in in_two_processes(python, code)}) == 1


TENSORS = {
    "bfloat16": torch.arange(6, dtype=torch.bfloat16),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "a number": torch.tensor(3.0),
    "empty": torch.zeros(0, 3),
    "bool": torch.tensor([True, False]),
    "a part": torch.arange(9.0)[2:5],
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_a_tensor_counts_by_its_values(tensor: torch.Tensor) -> None:
    whole = Fingerprint().add(tensor).hexdigest()
    assert whole == Fingerprint().add(tensor.clone().contiguous()).hexdigest()
    assert whole != Fingerprint().add(tensor[None]).hexdigest()
    if tensor.numel():
        changed = tensor.clone(memory_format=torch.contiguous_format)
        changed.reshape(-1)[-1] = ~changed.reshape(-1)[-1] if tensor.dtype == torch.bool else 77
        assert whole != Fingerprint().add(changed).hexdigest()


def test_values_of_one_content_have_one_digest_and_no_two_contents_have_it() -> None:
    def function(x: int = 1) -> int:
        return x

    values: list[Any] = [
        1, 1.0, True, "1", b"1", None, (), [], {}, [[]], [1, [2]], [[1], 2], {"a": 1}, {"a": "1"}, {1: "a"},
        {1, 2}, frozenset({1}), deque([1]), OrderedDict(a=1), Path("a"), torch.float32, torch.device("cpu"),
        function, len, torch.relu, "a".join, INPUTS[0], dataclasses.replace(INPUTS[0], name="y"), Small,
        complex(1, 2), float("nan"), slice(1), range(3), 10**400,
    ]  # fmt: skip
    digests = [Fingerprint(strict=True).add(value).hexdigest() for value in values]
    assert digests == [Fingerprint(strict=True).add(value).hexdigest() for value in values]
    assert len(set(digests)) == len(values)
    circle: list[Any] = [1]
    circle.append(circle)
    assert Fingerprint().add(circle).hexdigest() != Fingerprint().add([1, [1]]).hexdigest()
    assert Fingerprint().add({2, 1, "b", "a"}).hexdigest() == Fingerprint().add({"a", "b", 1, 2}).hexdigest()


def test_what_cannot_be_told_is_refused_in_an_option_and_seen_by_its_type_in_a_model(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"call holds _thread\.lock, .* call the export function itself"):
        made(exporters.export, Small(), tmp_path, call={"lock": threading.Lock()})
    model = Small()
    plain = once._key(exporters.export, model, {})
    model.lock = threading.Lock()
    assert plain != once._key(exporters.export, model, {})
    with pytest.raises(SettingsError, match="without data"):
        made(exporters.export, Small().to("meta"), tmp_path)
    with pytest.raises(Unstable):
        Fingerprint(strict=True).add(x for x in ())


@pytest.mark.parametrize("name", ["model.onnx", "fixtures.safetensors", "reflex.json"])
def test_a_damaged_bundle_is_made_again(export: Counter, tmp_path: Path, name: str) -> None:
    first = made(export, Small(), tmp_path)
    whole = bytearray((first.path / name).read_bytes())
    whole[len(whole) // 2] ^= 1
    (first.path / name).write_bytes(whole)
    again = made(export, Small(), tmp_path)
    assert export.calls == 2
    assert check(Small(), again, inputs=INPUTS, fixtures=2).passed


def test_what_was_not_proven_is_not_kept(export: Counter, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="proven bundles alone"):
        made(export, Small(), tmp_path, verify=False)
    with pytest.raises(SettingsError, match="out_dir"):
        made(export, Small(), tmp_path, out_dir=tmp_path / "a")
    with pytest.raises(ParityError):
        made(export, Small(), tmp_path, threshold=1e-30)
    assert [p for p in tmp_path.iterdir() if p.is_dir()] == []
    # Somebody puts an unproven bundle in its place.
    first = made(export, Small(), tmp_path)
    manifest = json.loads((first.path / "reflex.json").read_text())
    exporters.export(Small(), first.path, inputs=INPUTS, verify=False)
    assert made(export, Small(), tmp_path).manifest["check"]["passed"] is True
    assert manifest["check"]["passed"] is True
    assert export.calls == 3


def test_a_bundle_is_kept_while_it_is_used(export: Counter, tmp_path: Path) -> None:
    old, used = made(export, Small(), tmp_path), made(export, Small(), tmp_path, seed=1)
    month = time.time() - 31 * 24 * 3600
    for bundle in (old, used):
        os.utime(bundle.path / "reflex.json", (month, month))
    made(export, Small(), tmp_path, seed=1)
    leftover = tmp_path / f".{old.path.name}.reflex-1-killed"
    leftover.mkdir()
    with once._locked(tmp_path, old.path.name):
        made(export, Small(), tmp_path, seed=2)
        assert old.path.is_dir()
    made(export, Small(), tmp_path, seed=3)
    assert not old.path.exists()
    assert used.path.is_dir()
    assert not leftover.exists()


def test_where_the_cache_lies(export: Counter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("REFLEX_CACHE", str(tmp_path / "named"))
    assert exporters.cached(export, Small(), inputs=INPUTS, fixtures=1).path.parent == tmp_path / "named"
    monkeypatch.delenv("REFLEX_CACHE")
    found = exporters.cached(export, Small(), inputs=INPUTS, fixtures=1)
    assert found.path.parent == tmp_path / "xdg" / "pytest-reflex"
    (tmp_path / "file").write_text("")
    with pytest.raises(
        SettingsError, match=r"the export cache .*file/cache cannot be written to: .*REFLEX_CACHE"
    ):
        made(export, Small(), tmp_path / "file" / "cache")


WORKER = """
import sys, time
sys.path[:0] = ["tests/exporters/caching", "tests/support"]
import exporters, test_cached as t

class Slow:
    def __reduce__(self): return "Slow"
    def __call__(self, reference, out_dir, **options):
        open(sys.argv[2], "a").write("exported\\n")
        print("begun", flush=True)
        time.sleep(float(sys.argv[3]))
        return exporters.export(reference, out_dir, **options)

print(t.made(Slow(), t.Small(), t.Path(sys.argv[1])).path, flush=True)
"""


def worker(python: list[str], cache: Path, log: Path, seconds: float) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*python, "-c", WORKER, str(cache), str(log), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)


@pytest.mark.once
def test_of_two_processes_one_exports_and_a_killed_one_holds_nobody_up(
    tmp_path: Path, python: list[str]
) -> None:
    cache, log = tmp_path / "cache", tmp_path / "log"
    killed = worker(python, cache, log, 60)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "begun\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    both = [worker(python, cache, log, 1.0) for _ in range(2)]
    said = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(map(len, said)) == [1, 2]
    assert said[0][-1] == said[1][-1]
    assert log.read_text() == "exported\n" * 2  # the killed one, and one of the two


@pytest.mark.once
def test_a_suite_on_two_workers_exports_once(
    plugin_args: list[str], tmp_path: Path, python: list[str]
) -> None:
    log = tmp_path / "log"
    (tmp_path / "policy_of_mine.py").write_text(
        "import torch\nfrom torch import nn\nclass Mine(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        torch.manual_seed(0)\n        self.linear = nn.Linear(4, 3)\n"
        "    def forward(self, x): return {'actions': self.linear(x)}\n\n"
        "def export(reference, out_dir, **options):\n    import exporters\n"
        f"    open({str(log)!r}, 'a').write('exported\\n')\n"
        "    return exporters.export(reference, out_dir, **options)\n"
    )
    for half in "ab":
        (tmp_path / f"test_{half}.py").write_text(
            "import exporters, pytest\nimport policy_of_mine as mine\nimport pytest_reflex as reflex\n"
            "INPUTS = [reflex.InputSpec('x', (1, 4))]\n"
            "@pytest.mark.parametrize('again', range(3))\n@reflex.parity(fixtures=2)\n"
            "def test_parity(parity, again):\n"
            "    bundle = exporters.cached(mine.export, mine.Mine(), inputs=INPUTS)\n"
            "    parity.check(mine.Mine(), bundle, inputs=INPUTS)\n"
        )
    env = {**os.environ, "REFLEX_CACHE": str(tmp_path / "cache"), "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    command = [*python, "-m", "pytest", *plugin_args, "-n", "2", "--dist", "loadfile", "-q"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert "6 passed" in done.stdout, done.stdout + done.stderr
    assert log.read_text() == "exported\n"
