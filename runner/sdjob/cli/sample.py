"""`sdjob sample FILE-or-PLACE --prompt ... --out DIR`: pictures from a run, a published folder or a base model."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sdjob.core.clock import SystemClock
from sdjob.core.log import Log

if TYPE_CHECKING:
    from sdjob.spec.task import SampleTask

NOTICE_S = 1.0  # pictures need no save


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FILE-or-PLACE", help="a job file, a run's place, a published folder or a model folder")
    parser.add_argument("--prompt", action="append", required=True, help="what to draw; may be given several times")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder for the pictures, PROMPT-IMAGE.png")
    parser.add_argument("--images", type=positive, default=1, metavar="N", help="pictures of each prompt")
    parser.add_argument("--inference-steps", type=positive, default=30, metavar="N", help="denoising steps")
    parser.add_argument("--guidance-scale", type=float, default=7.5, metavar="X", help="how strongly to follow the prompt")
    parser.add_argument("--width", type=positive, metavar="PIXELS", help="absent: the run's, else the model's own")
    parser.add_argument("--height", type=positive, metavar="PIXELS", help="absent: the run's, else the model's own")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same pictures")
    parser.add_argument("--model", metavar="PLACE", help="the base model, for a published LoRA")
    parser.add_argument("--step", type=int, metavar="N", help="the checkpoint of a run; absent: the newest")
    parser.add_argument("--weights", choices=["ema", "raw"], help="absent: ema where the run keeps moving averages")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def execute(args: argparse.Namespace, *, log: Log) -> int:
    from sdjob.job.sample import Choice, sample
    from sdjob.job.stop import StopRequest

    clock = SystemClock()
    stop = StopRequest(clock, notice_s=NOTICE_S)
    stop.install()
    pictures = sample(
        place_of(args.source),
        task=task_of(args),
        choice=Choice(model=args.model, step=args.step, weights=args.weights),
        stop=stop,
        clock=clock,
        log=log,
    )
    for picture in pictures:
        print(picture)
    return 0


def place_of(source: str) -> str:
    """A job file stands for its run."""
    from sdjob.spec.load import load_job

    if source.endswith((".yaml", ".yml")):
        return load_job(Path(source), environment=os.environ).checkpoint.to
    return source


def task_of(args: argparse.Namespace) -> "SampleTask":
    """Its model is found from the source."""
    from sdjob.job.machine import gpu_names, num_cores
    from sdjob.spec.task import SampleTask

    return SampleTask(
        model=Path(),
        lora=None,
        prompts=tuple(args.prompt),
        images=args.images,
        inference_steps=args.inference_steps,
        guidance_scale=args.guidance_scale,
        width=args.width,
        height=args.height,
        seed=args.seed,
        out=args.out.resolve(),
        device="cuda" if gpu_names() else "cpu",
        threads=num_cores(),
    )
