"""Lerobot's own policy classes at the sizes of ``tests/golden``: real code, real arithmetic, small tensors.

SmolVLA takes its sizes from the configuration of the model that ``vlm_model_name`` names, which may be
a local directory: nothing is stood in for. pi0 and pi0.5 write theirs into two names of their modeling
files; :func:`small_sizes` puts smaller ones there while a policy is made, and puts them back. No method
of a policy is touched.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.policies.pi0 import modeling_pi0
from lerobot.policies.pi05 import modeling_pi05
from lerobot.policies.pi_gemma import PaliGemmaForConditionalGenerationWithPiGemma, PiGemmaForCausalLM
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from safetensors.torch import load_file
from torch import nn
from transformers import CONFIG_MAPPING

GOLDEN = Path(__file__).parents[1] / "golden"
FAMILIES = ("smolvla", "pi0", "pi05")
# For whoever asks for no golden figure: a layer of each kind, which take turns, in half the time of a trace.
SHALLOW: dict[str, dict[str, Any]] = {"smolvla": {"num_vlm_layers": 2}, "pi0": {}, "pi05": {}}
# Sizes that are no field of the policies' configurations.
_SIZES = ("vlm_config", "expert_config", "paligemma_config")
_MODULES: dict[str, Any] = {"pi0": modeling_pi0, "pi05": modeling_pi05}


def golden_policy(family: str, work: Path) -> Any:
    """The policy whose weights and outputs are in ``tests/golden``."""
    policy = tiny_policy(family, work)
    if family == "smolvla":
        # The golden expert's MLP is narrower than the multiple of 256 that the constructor rounds to.
        expert = policy.model.vlm_with_expert.lm_expert
        expert.config.intermediate_size = _fields(family)["expert_config"]["intermediate_size"]
        for layer in expert.layers:
            layer.mlp = type(layer.mlp)(expert.config)
    policy.load_state_dict(load_file(GOLDEN / family / "model.safetensors"))
    return policy.eval()


def tiny_policy(family: str, work: Path, *, seed: int = 0, cameras: int = 0, **overrides: Any) -> Any:
    """A policy with seeded weights.

    Args:
        family: ``smolvla``, ``pi0`` or ``pi05``.
        work: a directory in which SmolVLA's vision-language model may be described.
        seed: what the weights are drawn with.
        cameras: how many cameras its configuration names; 0 names none.
        **overrides: fields of the policy's configuration.
    """
    fields = {key: value for key, value in _fields(family).items() if key not in _SIZES}
    fields.pop("type")
    fields.update(overrides)
    config = PreTrainedConfig.get_choice_class(family)(**_typed(fields, cameras, family))
    with small_sizes(family):
        if family == "smolvla":
            config.vlm_model_name = str(overrides.get("vlm_model_name") or smolvlm_directory(work))
            policy = SmolVLAPolicy(config)
        else:
            module = _MODULES[family]
            policy = (module.PI0Policy if family == "pi0" else module.PI05Policy)(config)
    scatter(policy, seed)
    return policy.float().eval()


def save_checkpoint(family: str, directory: Path, work: Path, **options: Any) -> Path:
    """A tiny policy as lerobot's ``save_pretrained`` writes it, and lerobot's loader reads it."""
    tiny_policy(family, work, **options).save_pretrained(directory)
    return directory


@contextlib.contextmanager
def small_sizes(family: str) -> Iterator[None]:
    """While open, lerobot's pi0 or pi0.5 is made at the golden sizes; SmolVLA needs no such thing."""
    if family not in _MODULES:
        yield
        return
    module, fields = _MODULES[family], _fields(family)
    expert = fields["expert_config"]
    width = module.GemmaConfig(
        width=expert["hidden_size"],
        depth=expert["num_hidden_layers"],
        mlp_dim=expert["intermediate_size"],
        num_heads=expert["num_attention_heads"],
        num_kv_heads=expert["num_key_value_heads"],
        head_dim=expert["head_dim"],
    )

    class Small(module.PaliGemmaWithExpertModel):  # type: ignore[name-defined, misc]
        """Two submodules of other sizes; every method is the upstream's."""

        def __init__(
            self, vlm: Any, action_expert: Any, use_adarms: Any = None, precision: str = "float32", **kw: Any
        ) -> None:
            nn.Module.__init__(self)
            self.freeze_vision_encoder = kw.get("freeze_vision_encoder", False)
            self.train_expert_only = kw.get("train_expert_only", False)
            self.paligemma = PaliGemmaForConditionalGenerationWithPiGemma(_paligemma(fields))
            adaptive = bool(use_adarms and use_adarms[1])
            config = CONFIG_MAPPING["gemma"](
                **expert,
                hidden_activation="gelu_pytorch_tanh",
                use_adarms=adaptive,
                adarms_cond_dim=expert["hidden_size"] if adaptive else None,
            )
            self.gemma_expert = PiGemmaForCausalLM(config)
            self.gemma_expert.model.embed_tokens = None
            self.to_bfloat16_for_selected_params(precision)
            self._set_requires_grad()

    with (
        mock.patch.object(module, "PaliGemmaWithExpertModel", Small),
        mock.patch.object(module, "get_gemma_config", return_value=width),
    ):
        yield


@torch.no_grad()
def scatter(policy: nn.Module, seed: int) -> None:
    """Draw every weight anew, so that none is a constant that a wrong export could leave out unseen."""
    generator = torch.Generator().manual_seed(seed)
    plain_norm = re.compile(r"(norm|layernorm|layer_norm\d)\.weight$")
    for name, weight in sorted(policy.named_parameters()):
        drawn = torch.randn(weight.shape, generator=generator)
        if weight.ndim > 1:
            weight.copy_(drawn / math.sqrt(weight.shape[-1]))
        else:
            # Scales sit around 1, except where the model itself adds the 1; biases around 0.
            gemma = "language_model" in name or "gemma_expert" in name
            weight.copy_(0.1 * drawn + float(bool(plain_norm.search(name)) and not gemma))


def smolvlm_directory(work: Path) -> Path:
    """A vision-language model of SmolVLM's kind in a directory: configuration and processor, no weights."""
    from transformers import SmolVLMConfig, SmolVLMProcessor
    from transformers.models.smolvlm.image_processing_smolvlm import SmolVLMImageProcessor
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    directory = work / "tiny-smolvlm"
    if (directory / "config.json").is_file():
        return directory
    SmolVLMConfig(**_fields("smolvla")["vlm_config"]).save_pretrained(directory)
    SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(),
        tokenizer=tiny_tokenizer(),
        video_processor=SmolVLMVideoProcessor(),
    ).save_pretrained(directory)
    return directory


def tiny_tokenizer(vocab: int = 90) -> Any:
    """A byte-like tokenizer of at most ``vocab`` ids that knows SmolVLM's special tokens."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789 \n.,:;-TSA"]
    ids = {token: index for index, token in enumerate([*special, *letters][:vocab])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
        extra_special_tokens={
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
    )


def _paligemma(fields: Mapping[str, Any]) -> Any:
    sizes = fields["paligemma_config"]
    vocab = sizes["text_config"]["vocab_size"]
    config = CONFIG_MAPPING["paligemma"](
        vision_config={
            **sizes["vision_config"], "model_type": "siglip_vision_model", "vision_use_head": False,
        },
        text_config={
            **sizes["text_config"], "model_type": "gemma", "hidden_activation": "gelu_pytorch_tanh",
        },
        projection_dim=sizes["vision_config"]["projection_dim"],
        image_token_index=vocab,
    )  # fmt: skip
    config.text_config.use_adarms = False
    config.text_config.adarms_cond_dim = None
    return config


def _fields(family: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((GOLDEN / family / "config.json").read_text())
    return fields


def _typed(fields: dict[str, Any], cameras: int, family: str) -> dict[str, Any]:
    from lerobot.configs import NormalizationMode

    size = fields.get("image_resolution") or fields.get("resize_imgs_with_padding")
    state, action = fields["max_state_dim"] - 2, fields["max_action_dim"] - 2
    features = {
        f"observation.images.camera_{index}": PolicyFeature(FeatureType.VISUAL, (3, *size))
        for index in range(cameras)
    }
    if cameras:
        features["observation.state"] = PolicyFeature(FeatureType.STATE, (state,))
        fields["output_features"] = {"action": PolicyFeature(FeatureType.ACTION, (action,))}
        fields["input_features"] = features
    fields["normalization_mapping"] = {
        key: NormalizationMode(mode) for key, mode in fields["normalization_mapping"].items()
    }
    for key in ("image_resolution", "resize_imgs_with_padding"):
        if key in fields:
            fields[key] = tuple(fields[key])
    return fields
