"""A policy of the published size on this machine: made, exported, proven, then proven by a fresh process.

    python benchmarks/fullsize.py smolvla --work WORK
    python benchmarks/fullsize.py pi0 --work WORK
    python benchmarks/fullsize.py groot --work WORK

The classes, the sizes and the arithmetic are the upstream's; the weights are seeded, so nothing is
fetched. Each phase runs in a process of its own, whose wall time and peak resident memory are printed.
``--json`` keeps the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def make_smolvla(work: Path) -> None:
    """450 M parameters: SmolVLM2-500M's sizes and lerobot's default configuration."""
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
    from tiny_lerobot import scatter, tiny_tokenizer
    from transformers import SmolVLMConfig, SmolVLMProcessor
    from transformers.models.smolvlm.image_processing_smolvlm import SmolVLMImageProcessor
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    base = work / "smolvlm2-500m"
    SmolVLMConfig(
        image_token_id=49190,
        scale_factor=4,
        text_config={
            "model_type": "llama",
            "hidden_size": 960,
            "intermediate_size": 2560,
            "num_hidden_layers": 32,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
            "head_dim": 64,
            "vocab_size": 49280,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 8192,
        },
        vision_config={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 512,
            "patch_size": 16,
            "layer_norm_eps": 1e-6,
            "hidden_act": "gelu_pytorch_tanh",
        },
    ).save_pretrained(base)
    SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(),
        tokenizer=tiny_tokenizer(),
        video_processor=SmolVLMVideoProcessor(),
    ).save_pretrained(base)
    config = SmolVLAConfig(vlm_model_name=str(base), load_vlm_weights=False, device="cpu")
    policy = SmolVLAPolicy(config).float().eval()
    scatter(policy, seed=0)
    print(f"{sum(p.numel() for p in policy.parameters()) / 1e6:.1f} M parameters")
    policy.save_pretrained(work / "checkpoint")


def make_pi0(work: Path) -> None:
    """3,501 M parameters: transformers' own default configuration."""
    import torch
    from transformers import PI0Config, PI0ForConditionalGeneration

    from examples.tiny_pi0 import scatter

    torch.set_default_dtype(torch.float32)
    policy = PI0ForConditionalGeneration(PI0Config()).eval()
    scatter(policy, seed=0)
    print(f"{sum(p.numel() for p in policy.parameters()) / 1e6:.1f} M parameters")
    policy.save_pretrained(work / "checkpoint")


def make_groot(work: Path) -> None:
    """1,606 M parameters: the action head of lerobot's N1.7 defaults, which are the published sizes."""
    import torch
    from lerobot.policies.groot.groot_n1_7 import GR00T_N1_7_DEFAULTS, GR00TN17ActionHead, GR00TN17Config
    from safetensors.torch import save_file

    with torch.device("meta"):
        head = GR00TN17ActionHead(GR00TN17Config())
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, weight in head.state_dict().items():
        drawn = torch.randn(weight.shape, generator=generator)
        if name.endswith(".W"):
            drawn /= weight.shape[-2] ** 0.5
        elif weight.ndim > 1:
            drawn /= weight.shape[-1] ** 0.5
        else:
            drawn = 0.1 * drawn + float("norm" in name and name.endswith(".weight"))
        tensors[f"action_head.{name}"] = drawn
    print(f"{sum(t.numel() for t in tensors.values()) / 1e6:.1f} M parameters")
    checkpoint = work / "checkpoint"
    checkpoint.mkdir(exist_ok=True)
    save_file(tensors, checkpoint / "model.safetensors")
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "Gr00tN1d7", **GR00T_N1_7_DEFAULTS}))


MAKERS = {"groot": make_groot, "smolvla": make_smolvla, "pi0": make_pi0}


def export(family: str, work: Path, layout: str | None, fixtures: int) -> None:
    """Load, export, and check strictly; says when each stage began."""
    import exporters

    module: Any = getattr(exporters, family)
    begin = time.perf_counter()

    def tell(stage: str, done: int, total: int) -> None:
        print(f"{time.perf_counter() - begin:8.1f} s  {stage} {done}/{total}", file=sys.stderr, flush=True)

    policy = module.load(work / "checkpoint")
    tell("loaded", 1, 1)
    chosen = {"layout": layout} if layout else {}
    made = module.export(policy, work / "bundle", fixtures=fixtures, strict=True, progress=tell, **chosen)
    print(made.result)


def phase(name: str, *command: str) -> dict[str, Any]:
    """Run one phase in a process of its own."""
    print(f"== {name}", flush=True)
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{name} failed with {os.waitstatus_to_exitcode(status)}")
    return {"phase": name, "seconds": seconds, "peak_bytes": usage.ru_maxrss * 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("family", choices=sorted(MAKERS))
    parser.add_argument("--work", type=Path, required=True, help="a directory with room for two copies")
    parser.add_argument("--layout", help="default: the family's")
    parser.add_argument("--fixtures", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--phase", choices=("make", "export"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    work: Path = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    if options.phase == "make":
        return MAKERS[options.family](work)
    if options.phase == "export":
        return export(options.family, work, options.layout, options.fixtures)

    here = [__file__, options.family, "--work", str(work), "--fixtures", str(options.fixtures)]
    here += ["--layout", options.layout] if options.layout else []
    rows = []
    if not (work / "checkpoint" / "model.safetensors").exists():
        rows.append(phase("make", *here, "--phase", "make"))
    rows.append(phase("export and check", *here, "--phase", "export"))
    rows.append(
        phase(
            "validate", "-m", "pytest_reflex", "validate", "export", str(work / "bundle"),
            "--model", str(work / "checkpoint"), "--strict", "--fixtures", str(options.fixtures),
        )
    )  # fmt: skip
    print(f"{'phase':<20}{'seconds':>10}{'peak MB':>10}")
    for row in rows:
        print(f"{row['phase']:<20}{row['seconds']:>10.1f}{row['peak_bytes'] / 1e6:>10.0f}")
    if options.json:
        manifest = json.loads((work / "bundle" / "reflex.json").read_text())
        proof = manifest["check"]
        table = {
            "family": options.family,
            "layout": manifest["layout"],
            "phases": rows,
            "max_abs_diff": [f["max_abs_diff"] for f in proof["fixtures"]],
            "versions": {name: version(name) for name in ("torch", "transformers", "onnxruntime")},
            "python": platform.python_version(),
            "machine": platform.machine(),
        }
        options.json.write_text(json.dumps(table, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()
