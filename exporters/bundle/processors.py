"""A bundle's processors: from what a robot sees to what its policy reads, and from its answer to the joints.

    preprocess.onnx    cameras uint8 [height, width, 3] and the joints in; the policy's inputs out
    postprocess.onnx   the policy's actions and the joints in; actions in the robot's units out
    tokenizer.json     where the policy reads a prompt: the one step for which ONNX has no operator

This file needs neither torch, transformers nor lerobot; a prompt needs the package tokenizers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from exporters.bundle.said import Said
from pytest_reflex.errors import InputError, MissingPackageError, ReflexError, a_type
from pytest_reflex.inputs import InputSpec
from pytest_reflex.result import POSTPROCESS, PREPROCESS
from pytest_reflex.runners import OnnxRunner
from pytest_reflex.runners.base import first_line
from pytest_reflex.runners.external_data import FileFacts
from pytest_reflex.runners.opened_files import file_digest
from pytest_reflex.verdict.units import UNITS, InUnits

__all__ = [
    "POSTPROCESS", "PREPROCESS", "SPOKEN", "TASK", "TOKENIZER", "WORDS", "OpenProcessors", "Processors",
    "Prompt", "fitting", "require_fits", "tokenizer_of",
]  # fmt: skip

Array = np.ndarray[Any, Any]

TOKENIZER: Final = "tokenizer.json"
TASK: Final = "task"
# A prompt's tokens and which of them are there, which a policy that looks back reads of the last one alone.
WORDS: Final = ("lang_tokens", "lang_masks")
# The normalised state that a prompt says in words; an output of the first graph, and no input of the policy.
SPOKEN: Final = "spoken_state"
# So many stretches of [-1, 1] it is said in: openpi's ``PaligemmaTokenizer.tokenize``, as lerobot has it.
_BINS: Final = 256
_KINDS: Final = ("plain", "newline", "state")


@dataclass(frozen=True)
class Prompt:
    """How a task becomes tokens.

    Attributes:
        kind: ``plain``; ``newline``, ended by one; or ``state``, with the state in words behind it.
        most: tokens beyond this many are cut.
        length: so many tokens the policy reads, those that are missing masked.
        padded: whether the tokenizer's own padding fills it up to ``most``, else zeros do.
        pad: the tokenizer's padding.
        left: whether that padding stands before the prompt.
        cut: whether more than ``most`` are cut, as the tokenizer's file says how; else they are refused where
            the policy reads fewer.
    """

    kind: str
    most: int
    length: int
    padded: bool
    pad: int
    left: bool = False
    cut: bool = True

    @classmethod
    def from_json(cls, said: Said) -> Prompt:
        flags = {"padded": said.at("padded"), "left": said.at("left"), "cut": said.at("cut", True)}
        for flag in flags.values():
            flag.such(isinstance(flag.value, bool), "true or false")
        return cls(
            said.at("kind").one_of(_KINDS),
            said.at("most").whole(1),
            said.at("length").whole(1),
            bool(flags["padded"].value),
            said.at("pad").whole(0),
            bool(flags["left"].value),
            bool(flags["cut"].value),
        )

    def text(self, task: str, spoken: Array | None) -> str:
        """The prompt in words, of a task and the normalised state, ``[dim]``."""
        if self.kind == "newline":
            return task if task.endswith("\n") else f"{task}\n"
        if self.kind == "plain" or spoken is None:
            return task
        cleaned = task.strip().replace("_", " ").replace("\n", " ")
        bins = np.digitize(spoken, bins=np.linspace(-1, 1, _BINS + 1)[:-1]) - 1
        return f"Task: {cleaned}, State: {' '.join(map(str, bins))};\nAction: "

    def tokens(self, tokenizer: Any, text: str) -> tuple[Array, Array]:
        """Ids int64 and mask bool, ``[1, length]`` each."""
        ids = list(tokenizer.encode(text).ids)[: self.most if self.cut else None]
        mask = [True] * len(ids)
        if self.padded:
            missing = self.most - len(ids)
            ids = [self.pad] * missing + ids if self.left else ids + [self.pad] * missing
            mask = [False] * missing + mask if self.left else mask + [False] * missing
        if len(ids) > self.length:
            raise InputError(
                f"the prompt has {len(ids)} tokens, the policy reads {self.length}; export with a larger "
                "prompt_tokens"
            )
        rest = self.length - len(ids)
        return np.array([ids + [0] * rest], np.int64), np.array([mask + [False] * rest], bool)


@dataclass(frozen=True)
class Processors:
    """What a manifest says of a bundle's processors.

    Attributes:
        raw: what a robot gives, by the policy's own feature names; ``task`` where it reads one.
        read: the inputs of the policy that the first graph gives, in the policy's order.
        graphs: the files of the two graphs, by their roles.
        prompt: how a task becomes tokens; None where the policy reads none.
        history: how many observations the policy looks back on; 0 where it sees one.
        actions: what the policy's output is called.
        names: what each element of an action is called, where somebody said it.
        units: the unit of each element of an action, one of :data:`~pytest_reflex.verdict.units.UNITS`, empty
            where nobody said it.
        scale: how much of its unit one of the policy's own is, by element of an action; empty where what is
            behind the policy is more than a factor and a shift.
        checks: the verdict on each stage that they were put in under, as JSON, by its name.
    """

    raw: Sequence[InputSpec]
    read: Sequence[str]
    graphs: Mapping[str, str]
    prompt: Prompt | None = None
    history: int = 0
    actions: str = "actions"
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    scale: tuple[float, ...] = ()
    checks: Mapping[str, Any] = field(default_factory=dict)

    def robot_units(self, name: str, *, behind: bool) -> dict[str, InUnits]:
        """What the elements of an action are in the robot's units, under an output's name.

        Args:
            name: the output.
            behind: whether it is what the processors give, and not the policy.
        """
        count = (len(self.scale) or len(self.units)) if behind else len(self.scale)
        scale = (1.0,) * count if behind else self.scale
        units = self.units or ("",) * count
        return {name: InUnits(units, scale, self.names)} if count else {}

    @property
    def numbers(self) -> list[InputSpec]:
        """What the first graph reads: all but the task."""
        return [spec for spec in self.raw if spec.name != TASK]

    @classmethod
    def from_json(cls, said: Said, files: Mapping[str, FileFacts]) -> Processors:
        """What :meth:`to_json` wrote.

        Raises:
            BundleError: it is not as that wrote it, or names a file that has no digest.
        """
        raw = []
        for one in said.at("raw").each():
            try:
                raw.append(InputSpec.from_json(one.mapping()))
            except ReflexError as error:
                raise one.error(f"which is no input ({error})") from error
        graphs = said.at("graphs").fields()
        said.at("graphs").such(graphs.keys() == {PREPROCESS, POSTPROCESS}, "a preprocess and a postprocess")
        for name in graphs.values():
            name.such(name.text() in files, "a name that files has a digest for")
        prompt = said.at("prompt")
        if prompt.value is not None:
            prompt.such(TOKENIZER in files, f"none, as there is no {TOKENIZER}")
        names = [name.text() for name in said.at("names").each()]
        said.at("names").such(len({*names}) == len(names), "different names")
        counts = {len(said.at(key, []).each()) for key in ("names", "units", "scale")} - {0}
        said.at("scale", []).such(len(counts) < 2, "as many as there are names and units")
        return cls(
            raw,
            [name.text() for name in said.at("read").each()],
            {role: name.text() for role, name in graphs.items()},
            None if prompt.value is None else Prompt.from_json(prompt),
            said.at("history").whole(0),
            said.at("actions").text(),
            tuple(names),
            tuple(unit.one_of(("", *UNITS)) for unit in said.at("units", []).each()),
            tuple(factor.finite() for factor in said.at("scale", []).each()),
            said.at("checks", {}).mapping(),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "raw": [spec.to_json() for spec in self.raw],
            "read": list(self.read),
            "graphs": dict(self.graphs),
            "prompt": None if self.prompt is None else asdict(self.prompt),
            "history": self.history,
            "actions": self.actions,
            "names": list(self.names),
            "units": list(self.units),
            "scale": list(self.scale),
            "checks": dict(self.checks),
        }


def require_fits(
    said: Said, around: Processors, inputs: Sequence[InputSpec], outputs: Sequence[str]
) -> Processors:
    """Refuse processors that are of another policy than the one they stand around.

    Args:
        said: what the manifest says of them.
        around: the same, read.
        inputs: what the policy reads.
        outputs: what it gives.

    Raises:
        BundleError: they hand on what the policy does not read, or not all of it, or what it gives nobody.
    """
    known = {spec.name: spec for spec in inputs}
    needed = [name for name in known if not name.endswith("noise")]
    expected = f"each of {', '.join(needed)}, which the policy reads"
    said.at("read").such(sorted(around.read) == sorted(needed), expected)
    said.at("actions").such(around.actions in outputs, f"one of {', '.join(outputs)}, which the policy gives")
    raw = [spec.name for spec in around.raw]
    said.at("raw").such(bool(raw) and len({*raw}) == len(raw), "inputs of different names, and at least one")
    said.at("raw").such((TASK in raw) is (around.prompt is not None), f"{TASK!r} where there is a prompt")
    if around.history:
        shapes = [known[name].shape for name in needed if name not in WORDS]
        looks_back = all(len(shape) > 2 and shape[1] == around.history for shape in shapes)
        said.at("history").such(looks_back, "as many observations as the policy reads of each input")
    if around.prompt is not None and "lang_tokens" in known:
        length = known["lang_tokens"].shape[1]
        said.at("prompt").at("length").such(around.prompt.length == length, f"{length}, as the policy reads")
    return around


class OpenProcessors:
    """Processors under ONNX Runtime.

    Args:
        path: the bundle's directory.
        said: what its manifest says of them.
        provider: the execution provider.
    """

    def __init__(self, path: Path, said: Processors, provider: str = "cpu") -> None:
        self.said = said
        self._path = path
        self.before, self.after = (
            OnnxRunner(path / said.graphs[role], provider=provider) for role in (PREPROCESS, POSTPROCESS)
        )
        self._tokenizer: Any = None
        # SHA-256, in hex, of the tokenizer's file as it was opened; empty where none was.
        self.tokenizer_digest = ""

    def open(self) -> None:
        if self.said.prompt is not None and self._tokenizer is None:
            self._tokenizer = tokenizer_of(self._path / TOKENIZER)
            self.tokenizer_digest = file_digest(self._path / TOKENIZER)
        self.before.open()
        self.after.open()

    def close(self) -> None:
        self.before.close()
        self.after.close()

    def scale_apart(self, shape: Sequence[int]) -> str:
        """Whether the scale that the manifest states is not what the second graph does, in words.

        By it thresholds in the robot's units are counted, also where the policy is judged without what is
        behind it.

        Args:
            shape: the shape of the policy's output.
        """
        if not (stated := self.said.scale):
            return ""
        known = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.said.numbers}
        file = self.said.graphs[POSTPROCESS]
        with OnnxRunner(self._path / file) as behind:
            beside = {name: known[name] for name in behind.inputs if name in known}
            gave = [behind.run({"actions": np.full(shape, x, np.float32), **beside}) for x in (0.0, 1.0)]
        still, moved = (one["action"].reshape(-1, one["action"].shape[-1]) for one in gave)
        found = moved.astype(np.float64) - still
        # It is in float32, and what it adds may be much larger than what it multiplies by.
        near = 1e-4 * np.abs(found) + 8 * np.spacing(np.maximum(np.abs(still), np.abs(moved)))
        if found.shape[-1] == len(stated) and (np.abs(found - np.asarray(stated)) <= near).all():
            return ""
        return (
            f"its manifest says that one of the policy's own units is {list(stated)} of the robot's, and "
            f"{file} makes {[float(f'{one:.6g}') for one in found[0]]} of it; export the bundle again"
        )

    def preprocess(self, raw: Mapping[str, Any]) -> dict[str, Array]:
        """The policy's inputs but its noise, of one observation.

        Args:
            raw: by the policy's own feature names: cameras uint8 [height, width, 3], joints float32 [dim] in
                the robot's units, ``task`` as text or as the bytes of its UTF-8.

        Raises:
            InputError: something is missing, unknown, of another dtype or shape, or not finite.
        """
        if not isinstance(raw, Mapping):
            raise InputError(f"the observation is {a_type(raw)}; give what is seen by its name")
        given = {spec.name: fitting(spec, raw) for spec in self.said.raw}
        if unknown := raw.keys() - given.keys():
            raise InputError(
                f"{sorted(unknown, key=str)[0]!r} is not known; the policy sees {', '.join(given)}"
            )
        found = dict(self.before.run({spec.name: given[spec.name] for spec in self.said.numbers}))
        spoken, prompt = found.pop(SPOKEN, None), self.said.prompt
        if prompt is not None:
            text = prompt.text(bytes(given[TASK]).decode(), None if spoken is None else spoken[0])
            found |= zip(WORDS, prompt.tokens(self._tokenizer, text), strict=True)
        return {name: found[name] for name in self.said.read}

    def postprocess(self, actions: Array, raw: Mapping[str, Any]) -> Array:
        """Actions in the robot's units, ``[batch, chunk, dim]``, of what the policy gave."""
        known = {
            spec.name: fitting(spec, raw) for spec in self.said.numbers if spec.name in self.after.inputs
        }
        return self.after.run({"actions": actions, **known})["action"]


def fitting(spec: InputSpec, raw: Mapping[str, Any]) -> Array:
    """What a robot gives for one input, float64 as float32 and text as its bytes.

    Raises:
        InputError: it is missing, of another dtype or shape, or not finite.
    """
    if spec.name not in raw:
        there = ", ".join(map(str, raw)) or "nothing"
        raise InputError(f"{spec.name!r} is missing from the observation; it has {there}")
    value = raw[spec.name]
    if spec.name == TASK:
        return _words(value)
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        seen = f"{spec.dtype} {list(spec.shape)}"
        raise InputError(
            f"{spec.name!r} is no array ({first_line(error)}); the policy sees {seen}"
        ) from error
    if array.dtype == np.float64 and spec.dtype == "float32":
        with np.errstate(over="ignore"):  # what float32 has no number for is refused below
            array = array.astype(np.float32)
    if array.dtype != np.dtype(spec.dtype) or array.shape != spec.shape:
        raise InputError(
            f"{spec.name!r} is {array.dtype} {list(array.shape)}; the policy sees {spec.dtype} "
            f"{list(spec.shape)}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        at = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise InputError(f"{spec.name}{at} is {array[tuple(at)]}; every value must be finite")
    return array


def _words(task: object) -> Array:
    """A task as the bytes of its UTF-8."""
    if isinstance(task, np.ndarray) and task.dtype.kind == "U" and task.size == 1:
        task = str(task.item())
    if isinstance(task, np.ndarray) and task.dtype == np.uint8 and task.ndim == 1:
        task = task.tobytes()
    try:
        words = task.encode() if isinstance(task, str) else task
        if isinstance(words, bytes):
            words.decode()
            return np.frombuffer(words, np.uint8)
    except UnicodeError as error:
        raise InputError(f"{TASK!r} is no UTF-8 text ({error}); give the task as text") from error
    raise InputError(f"{TASK!r} is {a_type(task)}; give the task as text")


def tokenizer_of(file: Path) -> Any:
    """The tokenizer of a file.

    Raises:
        ReflexError: it is none, or the package tokenizers is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingPackageError(
            "tokenizers is not installed, which turns a task into tokens; install 'pytest-reflex[processors]'"
        ) from None
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # whatever a damaged file leads to
        raise ReflexError(f"{file} is no tokenizer: {str(error).splitlines()[0]}") from error
