"""The UNet of Stable Diffusion 1.5 at its full size (860 million parameters), flax against torch, in float32 on the CPU.

    python benchmarks/flax_full_size_parity.py --work DIR [--latent 16] [--chunk 128]

torch writes a UNet of random weights into DIR (3.4 GB) in diffusers' format and computes a prediction; then another
process reads the same folder with the flax model. Printed: max |d| of max |y|, and each one's memory and CPU seconds.
`--chunk` makes the flax model attend in blocks of so many tokens, as it does by itself from 64 x 64 latents on.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TEXT_SHAPE = (1, 77, 768)
LIMIT = 1e-4
GIB = 2**30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--latent", type=int, default=16, help="height and width of the latents")
    parser.add_argument("--chunk", type=int, help="tokens of a block of attention")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        figures = PARTS[arguments.part](arguments)
        print(json.dumps({**figures, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB}))
        return 0
    try:
        return compare(arguments)
    finally:
        shutil.rmtree(arguments.work / "unet", ignore_errors=True)


def compare(arguments: argparse.Namespace) -> int:
    """One process after the other: both models at once would be twice the memory, and one's peak would hide the other's."""
    arguments.work.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        done = subprocess.run([sys.executable, *sys.argv, "--part", part], stdout=subprocess.PIPE, text=True, check=True)
        figures = json.loads(done.stdout.splitlines()[-1])
        print(f"{part}: " + ", ".join(f"{name} {value:.2f}" for name, value in figures.items()), flush=True)
    theirs, ours = (np.load(arguments.work / f"{part}.npy") for part in PARTS)
    off = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f"max |d| of max |y|: {off:.2e} (limit {LIMIT:.0e})")
    return 0 if off <= LIMIT else 1


def inputs(latent: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """(latents B, C, H, W; timesteps B; text B, T, D)"""
    random = np.random.default_rng(0)
    latents_BCHW = random.standard_normal((1, 4, latent, latent), dtype=np.float32)
    return latents_BCHW, np.array([501]), random.standard_normal(TEXT_SHAPE, dtype=np.float32)


def run_torch(arguments: argparse.Namespace) -> dict[str, float]:
    import torch  # noqa: PLC0415 - the flax process does without it
    from diffusers import UNet2DConditionModel  # noqa: PLC0415

    torch.manual_seed(0)
    unet = UNet2DConditionModel(cross_attention_dim=TEXT_SHAPE[-1]).eval()
    unet.save_pretrained(arguments.work / "unet")
    latents_BCHW, timesteps_B, text_BTD = map(torch.from_numpy, inputs(arguments.latent))
    with torch.no_grad():
        predicted, seconds = timed(lambda: unet(latents_BCHW, timesteps_B, text_BTD).sample)
    np.save(arguments.work / "torch.npy", predicted.numpy())
    return {"parameters_M": sum(p.numel() for p in unet.parameters()) / 1e6, "forward_cpu_s": seconds}


def run_flax(arguments: argparse.Namespace) -> dict[str, float]:
    import jax  # noqa: PLC0415 - the torch process does without it
    from flax import nnx  # noqa: PLC0415

    from sdjob.train_flax.models.attention import attend, chunked_attention  # noqa: PLC0415
    from sdjob.train_flax.models.folder import read_unet  # noqa: PLC0415
    from sdjob.train_flax.models.layers import Compute  # noqa: PLC0415

    attention = partial(chunked_attention, block=arguments.chunk) if arguments.chunk else attend
    unet, load_s = timed(lambda: read_unet(arguments.work / "unet", compute=Compute(attention=attention)))
    graph, params = nnx.split(unet)
    latents_BCHW, timesteps_B, text_BTD = inputs(arguments.latent)
    forward = jax.jit(lambda params, *given: nnx.merge(graph, params)(*given))
    given = (params, latents_BCHW.transpose(0, 2, 3, 1), timesteps_B, text_BTD)
    compiled, compile_s = timed(lambda: forward.lower(*given).compile())
    compiled(*given)
    predicted, seconds = timed(lambda: np.asarray(compiled(*given)))
    np.save(arguments.work / "flax.npy", predicted.transpose(0, 3, 1, 2))
    return {"load_cpu_s": load_s, "compile_cpu_s": compile_s, "forward_cpu_s": seconds}


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """(its result, CPU seconds): on a machine that others use too, the clock on the wall would tell of them."""
    started = time.process_time()
    return function(), time.process_time() - started


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {"torch": run_torch, "flax": run_flax}

if __name__ == "__main__":
    sys.exit(main())
