"""pi0-FAST: the tokens of its own sampler, and the actions that the policy makes of them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx_ir as ir
import pytest
import torch

from pytest_reflex import ParityResult, check
from pytest_reflex.errors import CheckpointError, ReflexError, SettingsError
from pytest_reflex.inputs import make_fixture
from pytest_reflex.runners import TorchRunner

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

from floors import require_rounding  # noqa: E402
from lerobot.policies.pi0_fast import modeling_pi0_fast  # noqa: E402
from tiny_pi0_fast import COUNT, save_checkpoint, small_parts, tiny_policy  # noqa: E402

from exporters import export, open_bundle, pi0_fast  # noqa: E402
from exporters.bundle.registry import family_of  # noqa: E402
from exporters.families.kv_cache import FixedLayer  # noqa: E402
from exporters.families.one_call import family_of_policy  # noqa: E402

Decoding = pi0_fast.PI0FastDecoding
FIXTURES = 8


@pytest.fixture(scope="module")
def policy() -> Any:
    return tiny_policy()


@pytest.fixture(scope="module")
def exported(policy: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Its bundle for two robots at once, judged strictly."""
    place = tmp_path_factory.mktemp("bundles") / "b"
    return pi0_fast.export(policy, place, batch=2, fixtures=FIXTURES, strict=True, floor=True)


def given(policy: Any, fixture_idx: int, batch: int = 2) -> dict[str, np.ndarray]:
    return make_fixture(pi0_fast.inputs(policy, batch=batch), 0, fixture_idx)


def test_an_export_says_the_same_tokens(exported: Any, policy: Any) -> None:
    made = exported
    require_rounding(made.result)
    assert (made.layout, made.manifest["family"], made.manifest["steps"]) == ("single", "pi0_fast", None)
    assert made.manifest["outputs"] == [
        {"name": "tokens", "dtype": "int64", "shape": [2, COUNT]},
        {"name": "scores", "dtype": "float32", "shape": [2, COUNT]},
    ]
    assert made.result.candidate["live_inputs"] == [spec.name for spec in made.inputs]


def test_some_end_early_and_some_do_not(policy: Any) -> None:
    """Else nobody would see whether the end is heeded: of two robots the later one decides."""
    end = policy._paligemma_tokenizer.convert_tokens_to_ids("|")
    with pi0_fast.reference(policy) as runner:
        said = [runner.run(given(policy, index))["tokens"] for index in range(FIXTURES)]
    begun = [(tokens == end).any(axis=1) for tokens in said]
    stopped = [bool((tokens[:, -1] == 0).all()) for tokens in said]
    assert any(one.sum() == 1 for one in begun), begun
    assert len({tokens.tobytes() for tokens in said}) == FIXTURES
    assert set(stopped) == {True, False}, said


def test_a_fault_that_no_token_shows_is_caught_by_the_logits(policy: Any) -> None:
    """A thousandth of every logit leaves the order of all as it was."""

    class Fainter(Decoding):
        def said(self, *given: Any) -> Any:
            logits, cache = super().said(*given)
            return logits * 0.999, cache

    result = judged(policy, TorchRunner(Fainter(policy)))
    assert {answer.gate for _, answer in result.refusals} == {"threshold"}


def test_the_watch_on_the_head_is_taken_away(policy: Any) -> None:
    with pi0_fast.reference(policy) as runner:
        runner.run(given(policy, 0))
    assert not policy.model.paligemma_with_expert.paligemma.lm_head._forward_hooks


def test_the_actions_are_the_policys_own(exported: Any, policy: Any) -> None:
    """From the batch that a robot gives to the actions that ``predict_action_chunk`` makes of it."""
    rng = np.random.default_rng(5)
    keys = list(policy.config.image_features)
    images = torch.from_numpy(rng.integers(0, 257, (2, 2, 3, 28, 28)).astype(np.float32) / 256)
    tokens, masks = torch.from_numpy(rng.integers(0, 20, (2, 5))), torch.ones(2, 5, dtype=torch.bool)
    batch = {key: images[index] for index, key in enumerate(keys)}
    batch |= {"observation.language.tokens": tokens, "observation.language.attention_mask": masks}
    expected = policy.predict_action_chunk(batch)
    assert expected.any(), "what FAST cannot read would be zeros on both sides"
    named = {f"image_{index}": image.numpy() * 2 - 1 for index, image in enumerate(images)}
    named |= {f"image_mask_{index}": np.ones(2, bool) for index in range(2)}
    with exported.runner() as runner:
        said = runner.run({**named, "lang_tokens": tokens.numpy(), "lang_masks": masks.numpy()})["tokens"]
    assert torch.equal(pi0_fast.actions(policy, said), expected)


def test_the_cache_has_one_size(exported: Any) -> None:
    graph = ir.load(exported.path / "model.onnx").graph
    (loop,) = [node for node in graph if node.op_type == "Loop"]
    body = loop.attributes["body"].as_graph()
    shapes = {str(v.name): list(v.shape or ()) for v in body.inputs[2:]}
    # Two images of four tokens each, five of a prompt, one to begin with, and all but the last that are said.
    assert shapes["loop/keys.0"] == [2, 1, 14 + COUNT - 1, 8]
    assert [list(v.shape or ()) for v in body.outputs[1:]] == list(shapes.values())


def test_a_checkpoint_is_read_by_lerobots_own_loader(policy: Any, tmp_path: Path) -> None:
    place = save_checkpoint(tmp_path / "c")
    assert family_of(place) == "pi0_fast"
    with small_parts():
        loaded = pi0_fast.load(place)
    assert family_of_policy(loaded) is pi0_fast.FAMILY
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), policy.parameters(), strict=True))
    without = mock.Mock(from_pretrained=mock.Mock(side_effect=OSError("no network")))
    said = "takes its tokenizers from .* and lerobot/fast-action-tokenizer, which are neither"
    with contextlib.ExitStack() as stack:
        stack.enter_context(small_parts())
        stack.enter_context(mock.patch.object(modeling_pi0_fast, "AutoProcessor", without))
        stack.enter_context(pytest.raises(CheckpointError, match=said))
        pi0_fast.load(place)


def test_what_is_no_greedy_decoding_is_refused(policy: Any) -> None:
    with pytest.raises(SettingsError, match=r"temperature is 0\.5, and each token is drawn"):
        pi0_fast.inputs(tiny_policy(temperature=0.5))
    with pytest.raises(SettingsError, match="use_kv_cache is False, and that sampler goes on"):
        pi0_fast.inputs(tiny_policy(use_kv_cache=False))
    with pytest.raises(ReflexError, match=r"was given as pi0_fast, and its model .* has no config"):
        pi0_fast.inputs(torch.nn.Linear(1, 1))


def _copied(policy: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A decoding whose transformer is called with other arguments."""
    other = copy.deepcopy(policy)
    transformer = other.model.paligemma_with_expert
    call = transformer.forward
    transformer.forward = lambda **arguments: call(**change(arguments))
    return Decoding(other)


def _changed(policy: Any, half: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A decoding of which a half reads something else."""

    class Changed(Decoding):
        def prefill(self, **read: torch.Tensor) -> Any:
            return super().prefill(**(change(read) if half == "prefill" else read))

        def step(self, **read: torch.Tensor) -> Any:
            return super().step(**(change(read) if half == "step" else read))

    return Changed(policy)


def _in_steps(**changes: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], Any]:
    def change(arguments: dict[str, Any]) -> dict[str, Any]:
        step = arguments["past_key_values"] is not None
        return arguments | ({name: made(arguments[name]) for name, made in changes.items()} if step else {})

    return lambda policy: _copied(policy, change)


def the_place_after(policy: Any) -> Any:
    """Keys written one place late: over the next token's, and the mask hides them from the step itself."""

    class Late(Decoding):
        def said(self, *given: Any) -> Any:
            *rest, cache, here = given if len(given) == 5 else (*given, None)
            return super().said(*rest, cache, None if here is None else torch.roll(here, 1, 0))

    return Late(policy)


def cameras_all_there(policy: Any) -> Any:
    return _changed(
        policy,
        "prefill",
        lambda read: {n: torch.ones_like(v) if n.startswith("image_mask") else v for n, v in read.items()},
    )


def padding_read(policy: Any) -> Any:
    return _changed(
        policy, "prefill", lambda read: {**read, "lang_masks": torch.ones_like(read["lang_masks"])}
    )


def an_earlier_token_read_again(policy: Any) -> Any:
    return _changed(policy, "step", lambda read: {**read, "token": read["tokens"][:, :1]})


def the_end_not_heeded(policy: Any) -> Any:
    decoding = Decoding(policy)
    decoding.end = -1
    return decoding


def the_first_to_end_ends_all(policy: Any) -> Any:
    class Hasty(Decoding):
        def _states(self, *given: Any) -> Any:
            held = super()._states(*given)
            return {**held, "going": held["going"] & ~held["finished"].any()}

    return Hasty(policy)


FAULTS: dict[str, Callable[[Any], Any]] = {
    "position_off_by_one": _in_steps(position_ids=lambda positions: positions + 1),
    "empty_places_seen": _in_steps(attention_mask=torch.zeros_like),
    "the_place_after": the_place_after,
    "cameras_all_there": cameras_all_there,
    "padding_read": padding_read,
    "an_earlier_token_read_again": an_earlier_token_read_again,
    "the_end_not_heeded": the_end_not_heeded,
    "the_first_to_end_ends_all": the_first_to_end_ends_all,
}


def judged(policy: Any, candidate: Any) -> ParityResult:
    inputs = pi0_fast.inputs(policy, batch=2)
    return check(pi0_fast.reference(policy), candidate, inputs=inputs, fixtures=FIXTURES, strict=True)


def require_caught(result: ParityResult) -> None:
    assert not result.passed
    gates = {answer.gate for _, answer in result.refusals}
    assert gates <= {"exact", "threshold", "inputs"}
    assert "exact" in gates


def test_without_a_fault_the_halves_say_the_same(policy: Any) -> None:
    result = judged(policy, TorchRunner(Decoding(policy)))
    assert result.passed, str(result)


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_is_caught(fault: str, policy: Any) -> None:
    require_caught(judged(policy, TorchRunner(FAULTS[fault](policy))))


def test_a_fault_is_caught_in_a_bundle(policy: Any, tmp_path: Path) -> None:
    export(
        pi0_fast.reference(policy), tmp_path / "b", inputs=pi0_fast.inputs(policy, batch=2),
        whole=the_place_after(policy), family="pi0_fast", verify=False,
    )  # fmt: skip
    require_caught(judged(policy, open_bundle(tmp_path / "b")))


def test_a_token_fills_its_place_and_no_other() -> None:
    keys, values = torch.arange(8.0).reshape(1, 1, 4, 2), torch.zeros(1, 1, 4, 2)
    layer = FixedLayer(keys, values, (torch.arange(4) == 2)[:, None])
    made, other = layer.update(torch.full((1, 1, 1, 2), 9.0), torch.ones(1, 1, 1, 2))
    assert made[0, 0].tolist() == [[0, 1], [2, 3], [9, 9], [6, 7]]
    assert other[0, 0].sum(-1).tolist() == [0, 0, 2, 0]
    assert keys[0, 0, 2].tolist() == [4, 5], "what it was made of stays as it is"
