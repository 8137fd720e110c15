"""lerobot's pi0-FAST, live and tiny: real code, seeded weights, tokenizers that are made here.

lerobot writes the sizes of its PaliGemma into its code and takes the tokenizer of its actions from the hub;
:func:`small_parts` puts smaller ones there while a policy is made, and puts them back. No method of a policy
is touched.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.pi0_fast import modeling_pi0_fast
from lerobot.policies.pi0_fast.configuration_pi0_fast import PI0FastConfig
from lerobot.policies.pi_gemma import PaliGemmaForConditionalGenerationWithPiGemma
from tiny_lerobot import scatter
from torch import nn
from transformers import CONFIG_MAPPING

VOCABULARY: Final = 24
COUNT: Final = 6
# With these weights the end of an action comes up among the tokens of a handful of fixtures.
SEED: Final = 4
_SPECIAL: Final = ("<pad>", "<eos>", "<bos>", "<unk>", "Action", ":", "|")


def tiny_policy(*, seed: int = SEED, cameras: int = 2, **overrides: Any) -> Any:
    """A policy with seeded weights; ``overrides`` are fields of its configuration."""
    images = {
        f"observation.images.camera_{index}": PolicyFeature(FeatureType.VISUAL, (3, 28, 28))
        for index in range(cameras)
    }
    fields = {
        "device": "cpu", "chunk_size": 3, "n_action_steps": 3, "max_decoding_steps": COUNT,
        "image_resolution": (28, 28), "tokenizer_max_length": 5, "fast_skip_tokens": 2,
        "text_tokenizer_name": text_tokenizer(), "validate_action_token_prefix": False,
        "input_features": {**images, "observation.state": PolicyFeature(FeatureType.STATE, (4,))},
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (2,))},
        **overrides,
    }  # fmt: skip
    with small_parts():
        policy = modeling_pi0_fast.PI0FastPolicy(PI0FastConfig(**fields))
    scatter(policy, seed)
    return policy.float().eval()


def save_checkpoint(directory: Path, **options: Any) -> Path:
    """A tiny policy as lerobot's ``save_pretrained`` writes it."""
    tiny_policy(**options).save_pretrained(directory)
    return directory


@contextlib.contextmanager
def small_parts() -> Iterator[None]:
    """While open, lerobot's pi0-FAST is made small, and its actions have a tokenizer without the hub."""

    class Small(modeling_pi0_fast.PI0FastPaliGemma):  # type: ignore[misc]
        """One submodule of other sizes; every method is the upstream's."""

        def __init__(self, vlm_config: Any, use_adarms: Any = None, precision: str = "float32") -> None:
            nn.Module.__init__(self)
            self.paligemma = PaliGemmaForConditionalGenerationWithPiGemma(_paligemma())
            self.to_bfloat16_for_selected_params(precision)

    fast = SimpleNamespace(from_pretrained=lambda *_, **__: action_tokenizer())
    with (
        mock.patch.object(modeling_pi0_fast, "PI0FastPaliGemma", Small),
        mock.patch.object(modeling_pi0_fast, "AutoProcessor", fast),
    ):
        yield


@functools.cache
def text_tokenizer() -> str:
    """A directory with a tokenizer that knows PaliGemma's own words and little else."""
    place = tempfile.mkdtemp()
    words = [*_SPECIAL, *(f"<loc{index:04}>" for index in range(VOCABULARY - len(_SPECIAL)))]
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    _word_level(words, **special).save_pretrained(place)
    return place


def action_tokenizer() -> Any:
    """What lerobot reads of FAST's: a character is a coefficient of the cosine transform, less the least."""
    letters = [chr(ord("A") + index) for index in range(VOCABULARY)]
    return SimpleNamespace(
        bpe_tokenizer=_word_level(letters, unk_token="A"), min_token=-ord("A") - 10, scale=10
    )


def _word_level(words: list[str], **special: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def _paligemma() -> Any:
    config = CONFIG_MAPPING["paligemma"](
        vision_config={
            "model_type": "siglip_vision_model", "vision_use_head": False, "hidden_size": 16,
            "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 14,
            "image_size": 28, "projection_dim": 16, "projector_hidden_act": "gelu_fast",
        },
        text_config={
            "model_type": "gemma", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 16,
            "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8,
            "num_key_value_heads": 1, "vocab_size": VOCABULARY, "use_adarms": False, "adarms_cond_dim": None,
        },
        projection_dim=16,
        image_token_index=VOCABULARY,
    )  # fmt: skip
    config.text_config.use_adarms = False
    config.text_config.adarms_cond_dim = None
    return config
