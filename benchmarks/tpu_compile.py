"""What a training step of Stable Diffusion 1.5 at 512 px needs on TPU v5e 2x4, from the TPU's own compiler; no TPU is there.

    python benchmarks/tpu_compile.py [PROGRAM ...] [--width 4] [--finish PROGRAM ...] [--out FOLDER] [--list]

Prints a Markdown table, the rivals' figures below ours. By default every program's compilation is ended where its memory is
settled, about 100 CPU seconds in; --finish compiles the programs it names to the end, which gives traffic as well and takes
1,000 CPU seconds and 4 GB each. --width 4 makes every layer a quarter as wide, for experiments. --out keeps each forecast as
JSON; what is there already is not compiled again.

"UNet alone" is what the rivals' programs hold: latents and text states come with the batch, as from a cache of them.
"With encoders" has the VAE's encoder and the text encoder in the same program.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sdjob.spec.load import parse_job
from sdjob.spec.task import TrainTask
from sdjob.train_flax.forecast import QUIET, Forecast, forecast

ACCELERATOR = "tpu-v5e:2x4@8t"
NUM_CHIPS = 8
NOWHERE = Path("/nowhere")
# https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5: unet, vae and text_encoder, each config.json. What is
# not here is their classes' default.
UNET_WIDTHS, VAE_WIDTHS = (320, 640, 1280, 1280), (128, 256, 512, 512)
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}

# Measured elsewhere, with the same compiler (libtpu 0.0.52, jax 0.10.2) and the same slice: full fine-tune with AdamW, bf16
# compute, float32 parameters on every chip, the UNet alone. Decimal GB, but for totals.
RIVALS = """\
| diffusers 0.34, Flax UNet | 1 | 10.35 | 2.81 | 12.26 | 2.67 | 111 |
| diffusers 0.34, Flax UNet | 8 | | | out of memory: 20.1 | | |
| MaxDiffusion, dot-product attention | 1 | 10.35 | 4.33 | 13.67 | 2.66 | 126 |
| MaxDiffusion, dot-product attention | 4 | | | out of memory: 16.5 | | |
| MaxDiffusion, dot-product attention | 8 | | | out of memory: 18.1 | | |
| MaxDiffusion, splash attention at 64 x 64 | 1 | 10.35 | 1.78 | 11.30 | | |
| MaxDiffusion, splash attention at 64 x 64 | 8 | 10.35 | 5.03 | 14.32 | | |"""
HEAD = """\
| program | images a chip | arguments, GB | temporaries, GB | total, GiB | TFLOP | traffic, GB |
|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Variant:
    title: str
    batch: int = 1
    method: str = "full"
    fsdp: bool = True
    checkpointing: bool = True
    encoders: bool = False


PROGRAMS = {
    "plain": Variant("full, everything on every chip", fsdp=False, checkpointing=False),
    "fsdp": Variant("full, fsdp", checkpointing=False),
    "fsdp-remat": Variant("full, fsdp, checkpointing"),
    "fsdp-remat-8": Variant("full, fsdp, checkpointing", batch=8),
    "fsdp-remat-16": Variant("full, fsdp, checkpointing", batch=16),
    "fsdp-remat-32": Variant("full, fsdp, checkpointing", batch=32),
    "encoders-8": Variant("full, fsdp, checkpointing, with encoders", batch=8, encoders=True),
    "encoders-16": Variant("full, fsdp, checkpointing, with encoders", batch=16, encoders=True),
    "lora-8": Variant("LoRA, rank 4", batch=8, method="lora", checkpointing=False),
    "lora-remat-16": Variant("LoRA, rank 4, checkpointing", batch=16, method="lora"),
    "lora-remat-32": Variant("LoRA, rank 4, checkpointing", batch=32, method="lora"),
    "lora-remat-48": Variant("LoRA, rank 4, checkpointing", batch=48, method="lora"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", help="all that are listed, where none is named")
    parser.add_argument("--width", type=int, default=1, help="divides the width of every layer")
    parser.add_argument("--finish", nargs="*", default=[], metavar="PROGRAM")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--list", action="store_true", help="name the programs")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--dump", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        be_child(PROGRAMS[asked.child], width=asked.width, dump=asked.dump)
    elif asked.list:
        print("\n".join(f"{name}: {variant.title}, {variant.batch} a chip" for name, variant in PROGRAMS.items()))
    else:
        compare(asked)


def compare(asked: argparse.Namespace) -> None:
    print(HEAD, flush=True)
    for name in dict.fromkeys([*asked.programs, *asked.finish]) or PROGRAMS:
        found = cached_forecast(name, width=asked.width, finish=name in asked.finish, out=asked.out)
        print(row(PROGRAMS[name], found), flush=True)
    print(RIVALS)


def cached_forecast(name: str, *, width: int, finish: bool, out: Path | None) -> Forecast:
    kept = out / f"{name}-width{width}-{'whole' if finish else 'memory'}.json" if out else None
    if kept and kept.is_file():
        return Forecast.from_json(kept.read_text(encoding="utf-8"))
    found = forecast([sys.executable, __file__, "--child", name, "--width", str(width)], memory=not finish)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(asdict(found), indent=1), encoding="utf-8")
    return found


def row(variant: Variant, found: Forecast) -> str:
    total = f"{found.needed_bytes / 2**30:.2f}" if found.fits else f"out of memory: {found.needed_bytes / 2**30:.1f}"
    arguments, temporaries, traffic = (
        f"{figure / 1e9:.2f}" if figure else "" for figure in (found.argument_bytes, found.temporary_bytes, found.accessed_bytes)
    )
    return f"| {variant.title} | {variant.batch} | {arguments} | {temporaries} | {total} | {found.flops / 1e12:.2f} | {traffic} |"


# ---- the compiling process -------------------------------------------------------------------------------------------------


def be_child(variant: Variant, *, width: int, dump: Path | None) -> None:
    from sdjob.spec.hardware import parse_accelerator  # noqa: PLC0415 (jax is for the child alone)
    from sdjob.train_flax.mesh import Layout  # noqa: PLC0415
    from sdjob.train_flax.setup import build_models, build_program  # noqa: PLC0415
    from sdjob.train_flax.shapes import batch_shapes, shapes_of  # noqa: PLC0415
    from sdjob.train_flax.tpu_compiler import devices_of, print_forecast  # noqa: PLC0415

    layout = Layout.of_hosts(devices_of(parse_accelerator(ACCELERATOR)), num_hosts=1 if variant.fsdp else NUM_CHIPS)
    with TemporaryDirectory() as folder:
        task = make_task(variant, model=write_configs(Path(folder), width=width))
        models = build_models(task, layout=layout, shapes_alone=True)
        batch = batch_shapes(task, models=models, layout=layout)
        if not variant.encoders:
            models, batch = without_encoders(models, batch)
        shapes = shapes_of(build_program(task, models=models, layout=layout), batch=batch, layout=layout)
        print_forecast(shapes, layout=layout, accelerator=ACCELERATOR, dump=dump)


def make_task(variant: Variant, *, model: Path) -> TrainTask:
    job: dict[str, Any] = {
        "apiVersion": "sdjob/v1",
        "name": "benchmark",
        "model": {"source": str(model)},
        "data": {"source": str(NOWHERE), "resolution": 512},
        "train": {
            "backend": "flax",
            "method": variant.method,
            "steps": 1,
            "device_batch": variant.batch,
            "global_batch": variant.batch * NUM_CHIPS,
            "precision": "bf16",
            "gradient_checkpointing": variant.checkpointing,
        },
        "run": {"accelerator": ACCELERATOR},
    }
    return TrainTask(
        job=parse_job(job), model=model, pictures=NOWHERE, index=NOWHERE, scratch=NOWHERE, total_steps=1, start_step=0,
        restore_from=None, init_from=None, device="cpu", threads=1,
    )  # fmt: skip


def write_configs(folder: Path, *, width: int) -> Path:
    """A model's folder without weights."""
    unet = {"block_out_channels": divided(UNET_WIDTHS, by=width), "cross_attention_dim": 768, "attention_head_dim": 8 // width}
    vae: dict[str, Any] = {"block_out_channels": divided(VAE_WIDTHS, by=width), "layers_per_block": 2}
    vae |= {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    groups = {"norm_num_groups": 32 // width}
    parts = {"unet": unet | groups, "vae": vae | groups, "text_encoder": TEXT}
    for part, config in {**{f"{name}/config.json": parts[name] for name in parts}, SCHEDULER_FILE: SCHEDULER}.items():
        (folder / part).parent.mkdir(exist_ok=True)
        (folder / part).write_text(json.dumps(config), encoding="utf-8")
    return folder


SCHEDULER_FILE = "scheduler/scheduler_config.json"


def divided(widths: Sequence[int], *, by: int) -> list[int]:
    return [width // by for width in widths]


def without_encoders(models: Any, batch: Any) -> tuple[Any, Any]:
    """As where the encoders have run before the training: moments in the pictures' place, and states in the tokens'."""
    import jax  # noqa: PLC0415
    import jax.numpy as jnp  # noqa: PLC0415

    moment, ids = batch.noise_MBHWC, batch.captions["ids_MBET"]
    states = jax.ShapeDtypeStruct((*ids.shape[:2], ids.shape[3], TEXT["hidden_size"]), jnp.float32, sharding=ids.sharding)
    pictures = {"mean_MBHWC": moment, "log_variance_MBHWC": moment}
    without = replace(models, vae=None, text=replace(models.text, parts={}))
    return without, replace(batch, pictures=pictures, captions={"states_MBTD": states})


if __name__ == "__main__":
    os.environ.update(QUIET)
    main()
