"""The models and operators of ``whole_models.py``: each a module with seeded weights, and what it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pytest_reflex.inputs import Bernoulli, Gaussian, InputSpec, Integers, Uniform

WORDS = 60


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        name: what it is called, its library first.
        make: gives the module.
        inputs: what it reads.
        free: whether the batch is left free.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Sequence[InputSpec]
    free: bool = False


def cases() -> Iterator[Case]:
    yield from _transformers()
    yield from _vision()
    yield from _operators()


def _ids(name: str = "input_ids", length: int = 8, batch: int = 2) -> InputSpec:
    return InputSpec(name, (batch, length), "int64", meaning=Integers(3, WORDS))


def _pixels(size: int = 32, channels: int = 3, batch: int = 2, name: str = "pixel_values") -> InputSpec:
    return InputSpec(name, (batch, channels, size, size), meaning=Gaussian())


SMALL: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
SEEN = {"image_size": 32, "patch_size": 8, "num_channels": 3}
# Of transformers, by the class of the configuration: what is special, and what of the model is taken.
TEXT: dict[str, dict[str, Any]] = {
    "Bert": {},
    "Roberta": {"max_position_embeddings": 66},
    "Albert": {"embedding_size": 16},
    "Electra": {"embedding_size": 16},
    "DebertaV2": {},
    "MPNet": {},
    "RoFormer": {},
    "Ernie": {},
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "FNet": {},
    "Nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 8},
    "MobileBert": {"embedding_size": 16},
    "XLMRoberta": {"max_position_embeddings": 66},
    "SqueezeBert": {"embedding_size": 32},
    "ModernBert": {},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "GPTNeoX": {},
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "Bloom": {"n_layer": 2, "n_head": 4},
    "Llama": GROUPED,
    "Mistral": GROUPED,
    "Qwen2": GROUPED,
    "Qwen3": GROUPED,
    "Gemma": GROUPED,
    "Gemma2": GROUPED,
    "Gemma3Text": GROUPED,
    "Phi": {},
    "Phi3": {"num_key_value_heads": 2},
    "StableLm": GROUPED,
    "Olmo": GROUPED,
    "Cohere": GROUPED,
    "Starcoder2": GROUPED,
    "Falcon": {},
    "T5Encoder": {},
    "SmolLM3": GROUPED,
}
VISION: dict[str, dict[str, Any]] = {
    "ViT": SEEN,
    "DeiT": SEEN,
    "Beit": SEEN,
    "Dinov2": SEEN,
    "SiglipVision": SEEN,
    "CLIPVision": SEEN,
    "Swin": {
        **SEEN,
        "patch_size": 4,
        "embed_dim": 16,
        "num_attention_heads": None,
        "hidden_size": None,
        "num_hidden_layers": None,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 4,
    },
    "ConvNext": {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]},
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]},
    "Segformer": {
        "hidden_sizes": [8, 16, 16, 32],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 2, 4],
    },
    "MobileNetV2": {"depth_multiplier": 0.25},
    "Yolos": {**SEEN, "image_size": [32, 32], "num_detection_tokens": 4},
    "PoolFormer": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
}


def _of_config(name: str, special: dict[str, Any], model: str = "Model") -> nn.Module:
    import transformers

    if name == "T5Encoder":
        config = transformers.T5Config(
            vocab_size=WORDS, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4
        )
        return transformers.T5EncoderModel(config)
    config_class = getattr(transformers, f"{name}Config")
    told = {**SMALL, **special}
    config = config_class(**{key: value for key, value in told.items() if value is not None})
    return getattr(transformers, f"{name}{model}")(config)


def _transformers() -> Iterator[Case]:
    for index, (name, special) in enumerate(TEXT.items()):
        call = lambda name=name, special=special: _of_config(name, special)  # noqa: E731
        mask = InputSpec("attention_mask", (2, 8), "int64", meaning=Integers(1, 2))
        yield Case(f"transformers {name}", call, [_ids(), mask][: 1 + index % 2], free=index % 2 == 0)
    for index, (name, special) in enumerate(VISION.items()):
        call = lambda name=name, special=special: _of_config(name, special)  # noqa: E731
        yield Case(f"transformers {name}", call, [_pixels()], free=index % 2 == 0)
    yield Case("transformers CLIP", _clip, [_ids(), _pixels()])
    yield Case("transformers Siglip", _siglip, [_ids(), _pixels()])
    yield Case("transformers RTDetr", _rt_detr, [_pixels(64, batch=1)])
    yield Case("transformers Detr", _detr, [_pixels(64, batch=1)])
    yield Case("transformers Bart", _bart, [_ids(), _ids("decoder_input_ids", 6)])
    yield Case(
        "transformers Whisper",
        _whisper,
        [InputSpec("input_features", (2, 8, 40)), _ids("decoder_input_ids", 6)],
    )
    yield Case("transformers Wav2Vec2", _wav2vec2, [InputSpec("input_values", (2, 800))])
    past = [
        InputSpec(f"past_key_values.{layer}.{of}", (2, 2, 5, 8))
        for layer in (0, 1)
        for of in ("key", "value")
    ]
    yield Case(
        "transformers Llama with its cache", lambda: _of_config("Llama", GROUPED), [_ids(length=3), *past]
    )
    yield Case(
        "transformers Qwen3 for text",
        lambda: _of_config("Qwen3", GROUPED, "ForCausalLM"),
        [_ids()],
        free=True,
    )
    hidden = {"output_hidden_states": True, "output_attentions": True, "attn_implementation": "eager"}
    yield Case("transformers Bert, all it shows", lambda: _of_config("Bert", hidden), [_ids()], free=True)


def _clip() -> nn.Module:
    import transformers as t

    text = {**SMALL, "projection_dim": 16}
    config = t.CLIPConfig(
        text_config=text, vision_config={**SMALL, **SEEN, "projection_dim": 16}, projection_dim=16
    )
    return t.CLIPModel(config)


def _siglip() -> nn.Module:
    import transformers as t

    return t.SiglipModel(t.SiglipConfig(text_config=SMALL, vision_config={**SMALL, **SEEN}))


def _rt_detr() -> nn.Module:
    import transformers as t

    backbone = t.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
    )
    return t.RTDetrModel(
        t.RTDetrConfig(
            backbone_config=backbone,
            encoder_hidden_dim=16,
            encoder_in_channels=[8, 16, 16],
            encoder_ffn_dim=16,
            encoder_attention_heads=2,
            d_model=16,
            decoder_ffn_dim=16,
            decoder_in_channels=[16, 16, 16],
            decoder_layers=1,
            decoder_attention_heads=2,
            num_queries=6,
            num_denoising=0,
            anchor_image_size=None,
            feat_strides=[8, 16, 32],
        )
    )


def _detr() -> nn.Module:
    import transformers as t

    backbone = t.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    return t.DetrModel(
        t.DetrConfig(
            backbone_config=backbone,
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            num_queries=5,
            backbone=None,
        )
    )


def _bart() -> nn.Module:
    import transformers as t

    return t.BartModel(
        t.BartConfig(
            vocab_size=WORDS,
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_position_embeddings=64,
        )
    )


def _whisper() -> nn.Module:
    import transformers as t

    return t.WhisperModel(
        t.WhisperConfig(
            vocab_size=WORDS,
            num_mel_bins=8,
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_source_positions=20,
            max_target_positions=20,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            begin_suppress_tokens=None,
            suppress_tokens=None,
        )
    )


def _wav2vec2() -> nn.Module:
    import transformers as t

    return t.Wav2Vec2Model(
        t.Wav2Vec2Config(
            **SMALL,
            conv_dim=(16, 16),
            conv_stride=(5, 2),
            conv_kernel=(10, 3),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=4,
            mask_time_prob=0.0,
        )
    )


def _vision() -> Iterator[Case]:
    whole = (
        "resnet18",
        "mobilenet_v3_small",
        "shufflenet_v2_x0_5",
        "squeezenet1_1",
        "mnasnet0_5",
        "regnet_y_400mf",
    )
    for index, name in enumerate(whole):
        yield Case(
            f"torchvision {name}",
            lambda name=name: _torchvision(name),
            [_pixels(name="x")],
            free=index % 2 == 0,
        )
    yield Case("torchvision vit", lambda: _small_vit(), [_pixels(name="x")], free=True)
    segments = lambda: _torchvision("segmentation.lraspp_mobilenet_v3_large")  # noqa: E731
    yield Case("torchvision lraspp", segments, [_pixels(64, name="input")])


def _torchvision(name: str) -> nn.Module:
    import torchvision

    found: Any = torchvision.models
    for part in name.split("."):
        found = getattr(found, part)
    return found(weights=None, **({"weights_backbone": None} if "segmentation" in name else {}))


def _small_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=48
    )


class Calls(nn.Module):
    """A function of ``x`` as a module, with one layer before it, so that it has weights."""

    def __init__(self, function: Callable[[torch.Tensor], Any], width: int) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(width, width), function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.layer(x))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module], **more: Any) -> None:
        super().__init__()
        self.cell = kind(8, 6, batch_first=True, **more)

    def forward(self, x: torch.Tensor) -> Any:
        return self.cell(x)


class Masked(nn.Module):
    """Attention under an additive mask whose rows may be all minus infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(keep.shape, dtype=x.dtype).masked_fill(~keep, float("-inf"))
        q = self.layer(x)
        return F.scaled_dot_product_attention(q, q, q, attn_mask=mask[:, :, None].expand(-1, -1, 4))


def _operators() -> Iterator[Case]:
    x = InputSpec("x", (2, 4, 8), meaning=Gaussian())
    image = InputSpec("x", (2, 3, 8, 8), meaning=Gaussian())
    functions: dict[str, Callable[[torch.Tensor], Any]] = {
        "cumsum": lambda x: x.cumsum(1),
        "topk": lambda x: tuple(x.topk(3, -1)),
        "sort": lambda x: x.sort(-1)[0],
        "argmax": lambda x: x.argmax(-1),
        "einsum": lambda x: torch.einsum("bij,bkj->bik", x, x),
        "logsumexp": lambda x: x.logsumexp(-1),
        "roll": lambda x: x.roll(2, 1),
        "flip": lambda x: x.flip(1),
        "tril": lambda x: x[:, :, :4].tril(),
        "gather": lambda x: x.gather(-1, x[..., :3].argsort(-1)),
        "where": lambda x: torch.where(x > 0, x, x.exp()),
        "clamp": lambda x: x.clamp(-0.5, 0.5),
        "norm": lambda x: F.normalize(x, dim=-1),
        "gelu": lambda x: F.gelu(x, approximate="tanh"),
        "var_mean": lambda x: torch.var_mean(x, -1),
        "erf and log1p": lambda x: (x.erf(), x.abs().log1p()),
        "one_hot": lambda x: F.one_hot(x.argmax(-1), 8),
        "scatter": lambda x: x.scatter(1, x.argsort(1)[:, :1], 0.0),
        "index_put": lambda x: x.index_put((torch.tensor([0]),), x[0] * 2),
        "unfold": lambda x: x.unfold(-1, 3, 2),
        "cdist": lambda x: torch.cdist(x, x + 1),
        "chunks": lambda x: x.chunk(3, -1),
        "diff": lambda x: x.diff(dim=-1),
        "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
        "meshgrid": lambda x: torch.meshgrid(x[0, 0], x[0, 1], indexing="ij"),
        "nested": lambda x: {"a": [x, (x + 1, None)], "b": {"c": x.sum(-1)}},
        "remainder": lambda x: x % 0.3,
        "trigonometry": lambda x: torch.atan2(x.sin(), x.cos()),
        "round": lambda x: (x * 4).round(),
        "bucketize": lambda x: torch.bucketize(x, torch.linspace(-1, 1, 9)),
    }
    for index, (name, function) in enumerate(functions.items()):
        yield Case(f"torch {name}", lambda f=function: Calls(f, 8), [x], free=index % 2 == 0)
    images: dict[str, Callable[[torch.Tensor], Any]] = {
        "interpolate bilinear": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
        "interpolate bicubic": lambda x: F.interpolate(x, size=(5, 5), mode="bicubic"),
        "interpolate nearest": lambda x: F.interpolate(x, scale_factor=2),
        "grid_sample": lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1).tanh(), align_corners=False),
        "pixel_shuffle": lambda x: F.pixel_shuffle(x[:, :1].expand(-1, 4, -1, -1), 2),
        "adaptive pooling": lambda x: F.adaptive_avg_pool2d(x, 2),
        "reflection": lambda x: F.pad(x, (1, 1, 1, 1), "reflect"),
    }
    for index, (name, function) in enumerate(images.items()):
        yield Case(f"torch {name}", lambda f=function: Calls(f, 8), [image], free=index % 2 == 0)
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        yield Case(f"torch {kind.__name__}", lambda kind=kind: Recurrent(kind), [x], free=kind is nn.GRU)
    yield Case("torch LSTM both ways", lambda: Recurrent(nn.LSTM, bidirectional=True, num_layers=2), [x])
    encoder = lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)  # noqa: E731
    yield Case("torch TransformerEncoder", encoder, [InputSpec("src", (2, 4, 8))], free=True)
    rows = InputSpec("keep", (2, 4), "bool", meaning=Bernoulli(0.5))
    yield Case("torch attention with masked rows", Masked, [x, rows])
    yield Case(
        "torch Conv1d and GroupNorm",
        lambda: nn.Sequential(nn.Conv1d(4, 8, 3), nn.GroupNorm(2, 8)),
        [InputSpec("input", (2, 4, 8))],
        free=True,
    )
    yield Case(
        "torch ConvTranspose2d",
        lambda: nn.ConvTranspose2d(3, 4, 3, stride=2),
        [InputSpec("input", (2, 3, 8, 8), meaning=Uniform())],
    )
    yield Case("torch EmbeddingBag", lambda: nn.EmbeddingBag(WORDS, 8), [_ids("input")])
