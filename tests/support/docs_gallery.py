"""The gallery of failures, with a page of each: ``python tests/support/docs_gallery.py`` makes it again.

Each is a real export of a small policy in which one thing was changed, judged against the policy as it is.
What is written into ``docs/gallery.md`` is what the verdicts said.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from exporters import FlowPolicy, export
from pytest_reflex import check
from pytest_reflex.inputs import Gaussian, Image, InputSpec, PromptMask, State, Tokens
from pytest_reflex.judge.diagnose import diagnosed
from pytest_reflex.report import html
from pytest_reflex.report.json import document
from pytest_reflex.report.text.divergence import where_line
from pytest_reflex.report.text.rounding import word_line
from pytest_reflex.report.text.terminal import first_refusal, headline
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import TorchRunner

DOCS = Path(__file__).resolve().parents[2] / "docs"
WORDS, DEEP = 8, 32
INPUTS = [
    InputSpec("image", (1, 3, 16, 16), meaning=Image()),
    InputSpec("mask", (1, WORDS), "bool", meaning=PromptMask()),
    InputSpec("tokens", (1, WORDS), "int64", meaning=Tokens(50, mask="mask")),
    InputSpec("state", (1, 7), meaning=State()),
    InputSpec("noise", (1, 16, 7), meaning=Gaussian()),
]


class Reach(FlowPolicy):
    """A camera, a prompt and the joint state in; a chunk of 16 joint targets out."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.GELU(), nn.Flatten(), nn.Linear(128, DEEP))
        self.words = nn.Embedding(50, DEEP)
        self.score = nn.Linear(DEEP, 1)
        self.feel = nn.Linear(7, DEEP)
        self.embed = nn.Linear(7 + DEEP, DEEP)
        self.norm = nn.LayerNorm(DEEP)
        self.head = nn.Sequential(nn.SiLU(), nn.Linear(DEEP, DEEP), nn.SiLU(), nn.Linear(DEEP, 7))

    def prefix(
        self, image: torch.Tensor, mask: torch.Tensor, tokens: torch.Tensor, state: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        return {"seen": self.see(image) + self.read(tokens, mask) + self.felt(state)}  # [B, D]

    def read(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        words = self.words(tokens)  # [B, W, D]
        scores = self.score(words)[..., 0].masked_fill(~mask, -torch.inf)
        return (scores.softmax(-1)[..., None] * words).sum(1)

    def felt(self, state: torch.Tensor) -> torch.Tensor:
        return self.feel(state / (state.norm(dim=-1, keepdim=True) + 1e-6))

    def clock(self, time: torch.Tensor) -> torch.Tensor:
        steps = torch.linspace(0, 1, DEEP // 2, dtype=torch.float64)
        angle = 2 * math.pi * time.double()[:, None] / (4e-3 * 1e3**steps)
        return torch.cat([angle.sin(), angle.cos()], -1).float()  # [B, D]

    def velocity(self, x_t: torch.Tensor, time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        when = self.clock(time)[:, None].expand(-1, x_t.shape[1], -1)
        return self.head(self.norm(self.embed(torch.cat([x_t, when], -1)) + seen[:, None]))  # [B, T, 7]


class FastGelu(Reach):
    def __init__(self) -> None:
        super().__init__()
        self.see[1] = nn.GELU(approximate="tanh")


class NineSteps(Reach):
    steps = 9


class NoMask(Reach):
    def read(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return super().read(tokens, torch.ones_like(mask))


class OneJoint(Reach):
    def velocity(self, x_t: torch.Tensor, time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        scale = torch.tensor([1.0, 1.0, 1.0, 1.01, 1.0, 1.0, 1.0])
        return super().velocity(x_t, time, seen) * scale


class NoEpsilon(Reach):
    def felt(self, state: torch.Tensor) -> torch.Tensor:
        return self.feel(state / state.norm(dim=-1, keepdim=True))


class ShortClock(Reach):
    def clock(self, time: torch.Tensor) -> torch.Tensor:
        return super().clock(time.to(torch.bfloat16))


class WrongEpsilon(Reach):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(DEEP, eps=1e-3)


@dataclass(frozen=True)
class Failure:
    """One thing that was changed.

    Attributes:
        name: what its page is called.
        title: what is wrong, for people.
        story: how it comes about, and what gives it away.
        policy: what was exported.
        gate: which gate has to refuse it.
    """

    name: str
    title: str
    story: str
    policy: Callable[[], Reach]
    gate: str


FAILURES = (
    Failure(
        "activation",
        "Another activation",
        "The policy was rebuilt for export with the GELU that its runtime is quick at. Every fixture "
        "differs a little, "
        "and the place is the one operator that is not what it was.",
        FastGelu,
        "threshold",
    ),
    Failure(
        "epsilon",
        "Another epsilon",
        "A framework's default: 1e-3 for 1e-5 in a norm. It is in every step, so the error is there "
        "after the first one "
        "and grows evenly.",
        WrongEpsilon,
        "threshold",
    ),
    Failure(
        "steps",
        "Nine steps for ten",
        "The export took its number of steps from somewhere else. Everything differs by much, and no "
        "operator is wrong: "
        "what is computed is another function.",
        NineSteps,
        "threshold",
    ),
    Failure(
        "mask",
        "The prompt's mask is ignored",
        "Padding is read as words. Only prompts shorter than the longest differ, so a check on one "
        "full prompt passes; "
        "the table shows which fixtures fail, and the inputs what they have in common.",
        NoMask,
        "threshold",
    ),
    Failure(
        "joint",
        "One joint's scale",
        "One dark column in the heat map: the statistics of another robot for one joint. The cosine of such "
        "a chunk is 1.000000 to six digits.",
        OneJoint,
        "threshold",
    ),
    Failure(
        "rest",
        "An arm at rest divides by zero",
        "A norm without its epsilon. All is well until the state is all zeros, which no recording of "
        "a moving arm holds and "
        "one of the drawn fixtures always does.",
        NoEpsilon,
        "finite",
    ),
    Failure(
        "clock",
        "Time in bfloat16",
        "The whole policy was cast, its clock too: 0.9 became 0.8984, and the sine of a large multiple of "
        "that is another sine. This is why an export in half precision keeps the clock as it is.",
        ShortClock,
        "threshold",
    ),
)


def seeded(policy: Callable[[], Reach]) -> Reach:
    torch.manual_seed(0)
    return policy().eval()


def ten_steps(policy: Reach, noise: torch.Tensor, **observation: torch.Tensor) -> torch.Tensor:
    """The policy's own sampler."""
    x, held = noise, policy.prefix(**observation)
    for step in range(10):
        x = x - policy.velocity(x, torch.full(x.shape[:1], 1 - step / 10), **held) / 10
    return x


def judged(failure: Failure) -> ParityResult:
    """The verdict on one export, made and judged in the current directory."""
    made = export(seeded(failure.policy), failure.name, inputs=INPUTS, verify=False)
    reference: Any = seeded(Reach)
    if made.manifest["steps"] != reference.steps:
        # A policy in two halves takes as many steps as its export; one with a sampler of its own has its own.
        reference = TorchRunner(reference, partial(ten_steps, reference), outputs=["actions"])
    told: dict[str, Any] = {"fixtures": 5, "floor": True, "trajectory": True}
    result = check(reference, made, name=failure.title, threshold=1e-5, **told)
    return diagnosed(result, reference, made, seconds=60)


def words(result: ParityResult) -> str:
    """The lines that a failing test begins with."""
    where = where_line(result.located) if result.located is not None else ""
    return "\n".join(line for line in (headline(result), word_line(result), where) if line)


def gallery(found: Iterable[tuple[Failure, ParityResult]]) -> str:
    """The page that leads to all of them."""
    parts = [
        "# A gallery of failures",
        "Each of these is a real export of a small policy in which one thing was changed, judged "
        "against the policy as it "
        "is: what the first lines say, and the page that `--reflex-report` writes, to be looked at "
        "in a browser. They are "
        "made by `tests/support/docs_gallery.py`. How one gets from such lines to a fix is "
        "[a page of its own](howto/failure.md).",
    ]
    for failure, result in found:
        parts += [
            f"## {failure.title}",
            f"{failure.story} [Its page](gallery/{failure.name}.html).",
            f"```text\n{words(result)}\n```",
        ]
    return "\n\n".join(parts) + "\n"


@contextlib.contextmanager
def elsewhere(place: str | Path) -> Any:
    """In another directory, so that a page has no path of this machine in it."""
    before = Path.cwd()
    os.chdir(place)
    try:
        yield
    finally:
        os.chdir(before)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place, elsewhere(place):
        found = [(failure, judged(failure)) for failure in FAILURES]
    folder = DOCS / "gallery"
    folder.mkdir(exist_ok=True)
    for failure, result in found:
        if first_refusal(result)[1].gate != failure.gate:
            sys.exit(f"{failure.name}: {headline(result)}")
        (folder / f"{failure.name}.html").write_text(html.page(document([result])), encoding="utf-8")
    (DOCS / "gallery.md").write_text(gallery(found), encoding="utf-8")


if __name__ == "__main__":
    main()
