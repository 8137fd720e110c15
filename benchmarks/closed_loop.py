"""What a fault does to an arm, beside what it does to a figure: the table of closed loops.

``python benchmarks/closed_loop.py --work DIR`` trains the example's policies there (minutes, once), drives
two arms by them and by random weights, and writes ``parity_reports/closed_loop.md`` and its JSON. It
needs ``pytest-reflex[export,sim]``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "tests" / "support")]

import reach  # noqa: E402
from serve_cases import serving  # noqa: E402

from exporters import export  # noqa: E402
from pytest_reflex import FunctionRunner  # noqa: E402
from pytest_reflex.judge.rollout.closed_loop import closed_loops  # noqa: E402
from pytest_reflex.judge.rollout.rounded import Rounded  # noqa: E402
from pytest_reflex.judge.rollout.shown import RolloutResult  # noqa: E402
from pytest_reflex.runners import ServedRunner  # noqa: E402
from pytest_reflex.verdict.rollout import CANDIDATE  # noqa: E402

Array = np.ndarray[Any, Any]
REPORTS = ROOT / "parity_reports"
BIASES = (1e-4, 0.008)
# Control periods that the honest export's chunks are late.
LATE = (1, 3)


def policies(work: Path) -> dict[str, tuple[str, reach.Reach]]:
    """Each policy by its name, with its arm: trained ones are trained once, random ones are seeded."""
    made = {}
    for env in reach.STATES:
        for camera in (False, True):
            kind = "camera" if camera else "state"
            torch.manual_seed(0)
            made[f"{env}, random, {kind}"] = (env, reach.Reach(env, camera).eval())
            place = work / f"{env}-{kind}.safetensors"
            if place.is_file():
                policy = reach.Reach(env, camera)
                policy.load_state_dict(load_file(place))
                made[f"{env}, trained, {kind}"] = (env, policy.eval())
    return made


def train(work: Path, env: str, camera: bool, **told: Any) -> None:
    """One of the trained policies, where it is not there yet."""
    place = work / f"{env}-{'camera' if camera else 'state'}.safetensors"
    if not place.is_file():
        work.mkdir(parents=True, exist_ok=True)
        save_file(reach.trained(env, camera, **told).state_dict(), place)


def asked(
    policy: reach.Reach, change: Callable[[Array], Array], given: Callable[..., Any] | None = None
) -> Any:
    """The policy but for what is made of its actions, or of what it sees."""
    runner = policy.own_runner()

    def run(**inputs: Array) -> dict[str, Array]:
        runner.open()
        return {"actions": change(runner.run(inputs if given is None else given(inputs))["actions"])}

    return FunctionRunner(run, name="planted")


def unseeing(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {**inputs, "image": np.zeros_like(inputs["image"])}


def stale(actions: Array) -> Array:
    return np.concatenate([actions[:, :1], actions[:, :-1]], axis=1)


def candidates(policy: reach.Reach, place: Path) -> dict[str, Any]:
    """What is judged, by name: exports that are meant to be right, and what is planted."""
    specs = policy.inputs
    made: dict[str, Any] = {
        "ONNX": export(policy, place / "onnx", inputs=specs),
        "fp16": export(policy, place / "fp16", inputs=specs, precision="float16", verify=False),
        "bf16": Rounded(policy.own_runner(), "bfloat16", specs),
        "int8": export(policy, place / "int8", inputs=specs, precision="int8-dynamic", verify=False),
    }
    for bias in BIASES:
        made[f"bias {bias:g}"] = asked(policy, lambda actions, bias=bias: actions + np.float32(bias))
    made["nine steps"] = export(policy, place / "nine", inputs=specs, steps=9, verify=False)
    made["stale action"] = asked(policy, stale)
    if policy.camera:
        made["dropped camera"] = asked(policy, lambda actions: actions, unseeing)
    return made


def driven(policy: reach.Reach, env: str, place: Path, **driving: Any) -> dict[str, RolloutResult]:
    """Every candidate's drift; the honest export's once more over a socket, and late."""
    every = candidates(policy, place)
    given = {"inputs": policy.inputs, **driving}
    made = closed_loops(policy, every, env, **given)
    with serving(place / "onnx") as running:
        made["served"] = closed_loops(policy, {"served": ServedRunner(running.url)}, env, **given)["served"]
    for late in LATE:
        name = f"{late} period{'s' * (late > 1)} late"
        made[name] = closed_loops(policy, {name: every["ONNX"]}, env, latency=late, **given)[name]
    return made


def row(name: str, made: RolloutResult) -> dict[str, Any]:
    """One line of the table: figures of all starts."""
    tip, joints = (q.name for q in made.quantities[:2])
    loop, found = made.open_loop, made.success
    assert loop is not None
    assert found is not None
    far = [start.drift(CANDIDATE, tip) for start in made.starts]
    return {
        "candidate": name,
        "open_loop": loop.candidate,
        "open_loop_float64": loop.float64,
        "word": made.word,
        "tip_mm": made.largest(CANDIDATE, tip),
        "tip_median_mm": made.typical(CANDIDATE, tip),
        "tip_end_mm": max(drift.end for drift in far),
        "at_s": [drift.at_s for drift in far],
        "joints_mrad": made.largest(CANDIDATE, joints),
        "growth": made.growth(CANDIDATE, tip),
        "floors": max(made.ratio(start, tip) for start in made.starts),
        "own_floors": [start.drift(CANDIDATE, tip).largest / start.floor(tip) for start in made.starts],
        "diverged": made.diverged(CANDIDATE, tip),
        "success": [round(found.reference * found.starts), round(found.candidate * found.starts)],
    }


def table(name: str, rows: list[dict[str, Any]], floor: dict[str, Any]) -> str:
    """One policy's table in Markdown."""
    lines = [
        f"## {name}", "",
        f"Rounding alone: float64 {floor['float64']:.3g} mm, inputs one ulp off {floor['jitter']:.3g} mm;"
        f" visible (1 mm) in {floor['parted']} of {floor['starts']} starts. The reference succeeds in "
        f"{rows[0]['success'][0]} of {floor['starts']}.", "",
        "| candidate | open loop | tip mm | median | at end | largest at s | joints mrad | floors "
        "| visible from | succeeds | word |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]  # fmt: skip
    for one in rows:
        count, first = one["diverged"]
        seen = "never" if first is None else f"{first:.2f} ({count} starts)"
        lines.append(
            f"| {one['candidate']} | {one['open_loop']:.2e} | {one['tip_mm']:.3g} | "
            f"{one['tip_median_mm']:.3g} | {one['tip_end_mm']:.3g} | {np.median(one['at_s']):.1f} | "
            f"{one['joints_mrad']:.3g} | {one['floors']:.3g} | {seen} | {one['success'][1]} | {one['word']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="where policies and bundles lie")
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--only", nargs="*", default=None, help="words that a policy's name has to have")
    told = parser.parse_args()
    torch.set_num_threads(1)
    for env in reach.STATES:
        train(told.work, env, False)
    train(told.work, "panda-reach", True)
    found: dict[str, Any] = {}
    store = REPORTS / "closed_loop.json"
    if told.only is not None and store.is_file():
        found = json.loads(store.read_text(encoding="utf-8"))["policies"]
    for name, (env, policy) in policies(told.work).items():
        if told.only is not None and not all(word in name for word in told.only):
            continue
        began = time.perf_counter()
        place = told.work / name.replace(", ", "-")
        made = driven(policy, env, place, seconds=told.seconds, starts=told.starts)
        one = next(iter(made.values()))
        tip = one.quantities[0].name
        floor = {
            **{side: one.largest(side, tip) for side in ("float64", "jitter")},
            "parted": sum(start.parted(tip) is not None for start in one.starts),
            "starts": len(one.starts),
        }
        found[name] = {"floor": floor, "rows": [row(word, of) for word, of in made.items()]}
        print(table(name, found[name]["rows"], floor), f"\n{time.perf_counter() - began:.0f} s", flush=True)
        write(store, found, told.seconds)


def write(store: Path, found: Mapping[str, Any], seconds: float) -> None:
    told = {"seconds": seconds, "hz": reach.HZ, "execute": reach.EXECUTE, "policies": dict(found)}
    store.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    head = (
        "# Closed loops\n\nTwo simulated arms, each driven by a policy and by candidates of it from the same "
        f"starts, {seconds:g} s at {reach.HZ:g} Hz, {reach.EXECUTE} actions of each chunk. Made by "
        "`python benchmarks/closed_loop.py --work DIR`; how to read it: "
        "[closed loops](../docs/howto/closed-loop.md). A floor is what rounding alone does to the same arm.\n"
    )
    tables = [table(name, one["rows"], one["floor"]) for name, one in found.items()]
    store.with_suffix(".md").write_text("\n\n".join([head.rstrip(), *tables]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
