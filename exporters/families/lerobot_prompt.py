"""lerobot's step that makes tokens of a task, as a bundle has it: a tokenizer's file, and how it is asked.

transformers puts rules of its own around a tokenizer, which its file does not hold: where a text is cut,
whether the words of its special tokens are words. What is in the file is proven on texts that any such rule
would show in, because fixtures are a few texts, and a recording has its own tasks alone.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from exporters.bundle.processors import TASK, TOKENIZER, WORDS, Prompt
from pytest_reflex.errors import ReflexError
from pytest_reflex.runners.base import first_line

__all__ = ["KINDS", "another_vocabulary", "apart", "prompt_of", "require_prompt", "tokenizer_text"]

# The steps that handle text, and what each makes of it.
KINDS: Final = {
    "NewLineTaskProcessorStep": "newline",
    "Pi05PrepareStateTokenizerProcessorStep": "state",
    "TokenizerProcessorStep": "plain",
}
_NEVER: Final = (False, "do_not_truncate")


def prompt_of(step: Any, kind: str, length: int) -> Prompt:
    """How a task becomes so many tokens by lerobot's ``TokenizerProcessorStep``.

    Args:
        step: the step.
        kind: what stands before it, of :data:`KINDS`.
        length: how many tokens the policy reads.
    """
    pad = step.input_tokenizer.pad_token_id or 0
    padded, left = step.padding == "max_length", step.padding_side == "left"
    return Prompt(kind, step.max_length, length, padded, pad, left, step.truncation not in _NEVER)


def tokenizer_text(step: Any) -> str:
    """The tokenizer in its own JSON; see :func:`_to_store`."""
    return str(_to_store(step).to_str())


def _to_store(step: Any) -> Any:
    """The tokenizer with what cuts a long text and without padding, which the prompt says.

    Raises:
        ReflexError: it is none of the package tokenizers.
    """
    named = type(step.input_tokenizer).__name__
    backend = getattr(step.input_tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ReflexError(f"{named} has no {TOKENIZER}; take a fast tokenizer")
    import tokenizers

    again = tokenizers.Tokenizer.from_str(backend.to_str())
    again.no_padding()
    again.no_truncation()
    if step.truncation not in _NEVER:
        again.enable_truncation(step.max_length, direction=step.input_tokenizer.truncation_side)
    return again


def require_prompt(steps: list[Any]) -> None:
    """Refuse a step whose tokens a bundle would not make.

    Args:
        steps: the ``TokenizerProcessorStep`` of a pipeline, or none.

    Raises:
        ReflexError: there are several, the task is read under another name, it fails, or it makes other
            tokens than its tokenizer's file does.
    """
    if len(steps) > 1:
        raise ReflexError(f"{len(steps)} steps make tokens, and a bundle has one tokenizer")
    for step in steps:
        if step.task_key != TASK:
            raise ReflexError(
                f"the task is read as {step.task_key!r}, and a bundle is given it as {TASK!r}; rename it"
            )
        if wrong := apart(step, prompt_of(step, "plain", step.max_length), _to_store(step)):
            raise ReflexError(f"the tokenizer cannot be put into a bundle: of {wrong}")


def apart(step: Any, prompt: Prompt, stored: Any) -> str:
    """Of which text a tokenizer makes other tokens than lerobot's step, in words; empty where of none.

    Args:
        step: lerobot's ``TokenizerProcessorStep``.
        prompt: how a task becomes tokens; what stands before the step is left out.
        stored: the tokenizer, of the package tokenizers.

    Raises:
        ReflexError: lerobot's step fails on a text.
    """
    for text in _texts(step):
        try:
            made = step._tokenize_text([text])
            theirs = [made["input_ids"][0].tolist(), made["attention_mask"][0].bool().tolist()]
        except Exception as error:
            raise ReflexError(
                f"lerobot's tokenizer fails on the task {text[:20]!r}: {first_line(error)}"
            ) from error
        length = max(len(theirs[0]), len(stored.encode(text).ids), prompt.most)
        ours = [array[0].tolist() for array in replace(prompt, length=length).tokens(stored, text)]
        for name, one, other in zip(WORDS, ours, theirs, strict=True):
            known = [*other, *[0] * (length - len(other))]  # False is 0
            for at, (mine, wanted) in enumerate(zip(one, known, strict=True)):
                if mine != wanted:
                    return (
                        f"the task {text[:20]!r} its {TOKENIZER} makes {name}[{at}] {mine}, and lerobot's "
                        f"tokenizer {wanted}"
                    )
    return ""


def another_vocabulary(step: Any, stored: Any) -> str:
    """What of its words a tokenizer has otherwise than lerobot's step, in words; empty where nothing.

    Args:
        step: lerobot's ``TokenizerProcessorStep``.
        stored: the tokenizer, of the package tokenizers.
    """
    own = step.input_tokenizer.backend_tokenizer
    ours, theirs = stored.get_vocab(), own.get_vocab()
    if ours != theirs:
        token = min(ours.keys() ^ theirs.keys() or {t for t, n in ours.items() if n != theirs[t]})
        return (
            f"the token {token!r} its {TOKENIZER} has the number {ours.get(token)}, and lerobot's tokenizer "
            f"{theirs.get(token)}"
        )
    models = [json.loads(one.to_str())["model"] for one in (stored, own)]
    return (
        "" if models[0] == models[1] else f"the same tokens its {TOKENIZER} makes other words than lerobot's"
    )


def _texts(step: Any) -> list[str]:
    """Texts in which a rule shows: none, letters of all kinds, blanks, special tokens' words, too many."""
    special = " ".join(map(str, step.input_tokenizer.all_special_tokens))
    letters = "Pick up the RED cube, no. 0123456789 (_-+*/.:;!?)"
    return ["", letters, " Grüße, 你好 🙂 ", "a\nb\tc  d", f"go {special}", f"{letters} " * step.max_length]
