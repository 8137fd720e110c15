"""lerobot's own tokenizer step against a bundle's, on any text: where it cuts, what it pads, which words."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_reflex.errors import InputError, ReflexError

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

from lerobot.processor.tokenizer_processor import TokenizerProcessorStep  # noqa: E402
from tiny_lerobot import tiny_tokenizer  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from tokenizers.processors import TemplateProcessing  # noqa: E402

from exporters.families.lerobot_prompt import apart, prompt_of, require_prompt, tokenizer_text  # noqa: E402


def step(*, ended: bool = False, side: str = "right", **told: Any) -> Any:
    """lerobot's step; ``ended``, as CLIP's and T5's tokenizers do, with a token that no cut takes away."""
    tokenizer = tiny_tokenizer()
    if ended:
        end = "<end_of_utterance>", tokenizer.convert_tokens_to_ids("<end_of_utterance>")
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"$A {end[0]}", special_tokens=[end]
        )
    tokenizer.truncation_side = side
    return TokenizerProcessorStep(tokenizer=tokenizer, **{"max_length": 24, **told})


@pytest.mark.parametrize(
    "told",
    [
        {"ended": True},
        {"ended": True, "side": "left", "padding_side": "left"},
        {"truncation": False},
        {"truncation": "longest_first", "padding": "longest"},
        {"padding": "do_not_pad", "padding_side": "left"},
    ],
)
def test_tokens_are_lerobots_however_they_are_cut_and_padded(told: dict[str, Any]) -> None:
    require_prompt([step(**told)])


def test_what_is_not_cut_is_refused_where_the_policy_reads_fewer() -> None:
    made = step(truncation=False)
    prompt, stored = prompt_of(made, "plain", 30), Tokenizer.from_str(tokenizer_text(made))
    assert prompt.tokens(stored, "x" * 30)[1].all()
    with pytest.raises(InputError, match="the prompt has 31 tokens, the policy reads 30"):
        prompt.tokens(stored, "x" * 31)


def special_tokens_are_words() -> Any:
    made = step()
    made.input_tokenizer.split_special_tokens = True
    return made


def without_padding() -> Any:
    made = step()
    made.input_tokenizer.pad_token = None
    return made


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (
            lambda: [special_tokens_are_words()],
            r"of the task 'go <unk> .*' its tokenizer\.json makes lang_tok",
        ),
        (lambda: [without_padding()], "lerobot's tokenizer fails on the task '': ValueError: Asking to pad"),
        (lambda: [step(task_key="words")], "the task is read as 'words', and a bundle is given it as 'task'"),
        (lambda: [step(), step()], "2 steps make tokens, and a bundle has one tokenizer"),
    ],
)
def test_a_step_that_a_bundle_does_not_follow_is_refused(steps: Any, said: str) -> None:
    with pytest.raises(ReflexError, match=said) as caught:
        require_prompt(steps())
    assert "\n" not in str(caught.value)


def test_another_tokenizer_is_told_by_the_first_text_that_it_reads_otherwise() -> None:
    made = step(ended=True)
    prompt, other = prompt_of(made, "plain", 24), Tokenizer.from_str(tokenizer_text(step()))
    assert apart(made, prompt, other).startswith(
        "the task '' its tokenizer.json makes lang_tokens[0] 0, and "
    )
