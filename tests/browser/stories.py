"""Runs for a page to tell of: a finished, a running and a failed one, one of 100,000 steps, one of a single step. Their ledgers
are made up; their commit logs are written by the real engine."""

import math
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from fakes.clock import FakeClock
from fakes.ledgers import BEGIN_S, MadeUp, written
from fakes.runs import snapshot
from sdjob.ckpt.engine import CommitLog
from sdjob.core.log import Log
from sdjob.report.overview import Price
from sdjob.report.write import write_report
from sdjob.spec.load import load_job, resolved_yaml
from sdjob.store.local import LocalStore

JOB = Path(__file__).parents[2] / "jobspecs/sd15-lora-l4-spot.yaml"
PROMPTS = (
    "a cute dragon creature, soft pastel colours",
    "a lighthouse above a calm sea at dawn",
    "portrait of a fox in the snow",
)
FINGERPRINT = {
    "backend": "torch", "device": "NVIDIA L4", "devices": 1, "threads": 4,
    "versions": {"torch": "2.13.0", "diffusers": "0.42.1", "peft": "0.21.2", "python": "3.11.7"},
}  # fmt: skip


def attempt(number: int, *, after: MadeUp | None, wait_s: float = 0.0, total: int, step_s: float) -> MadeUp:
    now_s = after.now_s + wait_s if after else BEGIN_S
    kept = max((event["step"] for event in after.events if event["kind"] == "commit"), default=after.step) if after else 0
    made = MadeUp(number, now_s, step=kept, total_steps=total, step_s=step_s)
    made.start(imports_s=4.0, stage_s=2.0 if after else 0.0)
    made.prepare(stage_s=6.0 if after else 75.0, restore_s=3.5, load_s=21.0)
    made.events[-1]["fingerprint"] = FINGERPRINT
    made.warm_up(compile_s=0.0, other_s=5.0)
    return made


def train(made: MadeUp, *, until: int, save_every: int, draw_every: int, pictures: bool = True) -> None:
    while made.step < until:
        made.train(1)
        if made.step % draw_every == 0:
            made.validate(18.0 if pictures else 0.01, prompts=PROMPTS)
        if made.step % save_every == 0 and made.step < made.total_steps:
            made.save(stall_s=1.6)


def weathered(attempts: Sequence[MadeUp], *, diverges: bool = False) -> None:
    """Figures as a run has them: noise, a warm-up, a slow start, now and then a slow batch."""
    for made in attempts:
        chance = random.Random(made.attempt)
        for count, record in enumerate(made.metrics):
            step, total = record["step"], made.total_steps
            noise = chance.gauss(0, 0.016) + (chance.random() < 0.01) * chance.random() * 0.08
            fall = 0.065 * math.exp(-4 * step / total)
            burst = math.exp((step - 0.93 * made.metrics[-1]["step"]) / 12) if diverges else 0.0
            rate = 1e-4 * min(1.0, step / (0.04 * total)) * 0.5 * (1 + math.cos(math.pi * step / total))
            record["loss"] = max(0.02, 0.118 + fall + noise) + min(burst, 3e4)
            record["learning_rate"] = rate
            record["grad_norm"] = abs(0.32 + fall * 6 + chance.gauss(0, 0.05)) + min(burst * 5, 1e5)
            record["images_per_s"] = 4 / made.step_s * (1 - 0.5 * math.exp(-count / 8)) * (1 + chance.gauss(0, 0.012))
            record["device_memory_mib"] = 15_812 + 214 * (count > 40) + 96 * (count > 300)
            record["data_wait_s"] = 0.004


def drawn(attempts: Sequence[MadeUp], *, place: Path, images: int = 2) -> None:
    for made in attempts:
        for event in (event for event in made.events if event["kind"] == "samples"):
            share = event["step"] / made.total_steps
            for prompt in range(len(PROMPTS)):
                for image in range(images):
                    path = place / f"attempts/{made.attempt:04d}/samples/{event['step']:08d}/{prompt:02d}-{image:02d}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    scene(prompt, image, share=share).save(path)


def scene(prompt: int, image: int, *, share: float, side: int = 256) -> Image.Image:
    """A hill, a sky and a ball, out of noise as the run goes on."""
    chance = random.Random(10 * prompt + image)
    sky = tuple(chance.randrange(120, 230) for _ in range(3))
    hill = tuple(int(0.55 * part) for part in sky)
    picture = Image.new("RGB", (side, side), sky)
    pen = ImageDraw.Draw(picture)
    left = chance.randrange(60, 160)
    pen.ellipse((left, 40, left + 70, 110), fill=tuple(255 - part // 2 for part in sky))
    pen.polygon([(0, side), (0, 190), (90, 130 + 20 * image), (190, 200), (side, 150), (side, side)], fill=hill)
    noise = Image.effect_noise((side // 4, side // 4), 160).resize((side, side)).convert("RGB")
    return Image.blend(noise, picture.filter(ImageFilter.GaussianBlur(10 * (1 - share))), min(1.0, 0.25 + share))


def log_of(attempts: Sequence[MadeUp], *, place: Path, published: Sequence[str] = ()) -> None:
    """The commits that the ledger tells of, as the engine writes them."""
    clock = FakeClock(unix_s=BEGIN_S)
    for made in attempts:
        log = CommitLog(LocalStore(place), clock=clock, log=Log(mode="json", stream=sys.stderr, clock=clock), keep=3)
        clock.advance(made.events[0]["time_s"] - clock.unix_s())
        log.claim(attempt=f"pod-{made.attempt}", host="pod-a")
        last = None
        for event in (event for event in made.events if event["kind"] == "commit"):
            clock.advance(max(0.0, event["time_s"] - clock.unix_s()))
            last = log.commit(snapshot(place.parent / "states", step=event["step"]), step=event["step"], facts={})
            log.prune()
            event["digest"] = last.digest
        if last is not None and made.step == made.total_steps:
            log.finish(step=last.step, digest=last.digest, published=published)


# ---- the stories ---------------------------------------------------------------------------------------------------------------


def finished(place: Path) -> float:
    """Two spot nodes were taken away, once with ten seconds' notice."""
    first = attempt(1, after=None, total=3000, step_s=0.42)
    train(first, until=1340, save_every=250, draw_every=500)
    first.kill()
    second = attempt(2, after=first, wait_s=140.0, total=3000, step_s=0.42)
    train(second, until=2110, save_every=250, draw_every=500)
    second.stop(upload_s=2.0)
    third = attempt(3, after=second, wait_s=65.0, total=3000, step_s=0.42)
    train(third, until=3000, save_every=250, draw_every=500)
    third.finish(stall_s=1.6, upload_s=3.0, publish_s=24.0)
    attempts = [first, second, third]
    weathered(attempts)
    for made in attempts:
        for record in made.metrics:
            if record["step"] % 250 == 0:
                record["held_out_loss"] = 0.126 + 0.06 * math.exp(-4 * record["step"] / 3000)
    drawn(attempts, place=place)
    log_of(attempts, place=place, published=["hf://me/sd15-lora-l4-spot", "gs://my-bucket/models/dragons"])
    return filed(place, attempts, job=True) + 3600


def running(place: Path) -> float:
    first = attempt(1, after=None, total=15_000, step_s=0.42)
    train(first, until=2300, save_every=500, draw_every=1000)
    first.kill()
    second = attempt(2, after=first, wait_s=95.0, total=15_000, step_s=0.42)
    train(second, until=6212, save_every=500, draw_every=1000)
    weathered([first, second])
    drawn([first, second], place=place)
    log_of([first, second], place=place)
    return filed(place, [first, second], job=True) + 4


def failed(place: Path) -> float:
    """The loss left the numbers, and the ledger's last line is half-written."""
    made = attempt(1, after=None, total=3000, step_s=0.42)
    train(made, until=874, save_every=250, draw_every=500)
    weathered([made], diverges=True)
    made.metrics[-1]["loss"] = float("nan")
    made.end(78, "the loss is not finite at step 874 (nan). Step 750 is the last that is committed: lower the learning rate.")
    drawn([made], place=place)
    log_of([made], place=place)
    now_s = filed(place, [made], job=True)
    torn = sorted((place / "attempts/0001").glob("metrics-*.jsonl"))[-1]
    torn.write_bytes(torn.read_bytes() + b'{"time_s": 17639')
    return now_s + 600


def long(place: Path) -> float:
    """100,000 steps of forty attempts, each killed on its way."""
    attempts: list[MadeUp] = []
    for number in range(1, 41):
        made = attempt(number, after=attempts[-1] if attempts else None, wait_s=60.0, total=100_000, step_s=0.1)
        last = number == 40
        train(made, until=100_000 if last else 2500 * number + 130, save_every=500, draw_every=2000, pictures=False)
        if last:
            made.finish()
        else:
            made.kill()
        attempts.append(made)
    weathered(attempts)
    drawn(attempts[::2], place=place, images=4)
    return filed(place, attempts, job=True) + 60


def tiny(place: Path) -> float:
    """One step, no pictures, no job file, no commit."""
    made = MadeUp(1, BEGIN_S, total_steps=10)
    made.start()
    made.prepare()
    made.warm_up()
    made.train(1)
    return filed(place, [made], job=False) + 2


def odd(place: Path) -> float:
    """Figures as nobody expects them."""
    made = MadeUp(1, BEGIN_S, total_steps=300)
    made.start()
    made.prepare()
    made.train(300, learning_rate=0.0, images_per_s=1e-300, device_memory_mib=-5)
    for position, record in enumerate(made.metrics):
        record["loss"] = [1e300, -1e300, float("nan"), 0.0, float("inf")][position % 5]
        record["grad_norm"] = {200: sys.float_info.max, 201: -sys.float_info.max, 202: "large"}.get(position, 0)
    return filed(place, [made], job=False)


def filed(place: Path, attempts: Sequence[MadeUp], *, job: bool) -> float:
    written([made.ledger() for made in attempts], place=place)
    if job:
        (place / "job.yaml").write_text(resolved_yaml(load_job(JOB, environment={})), encoding="utf-8")
    return attempts[-1].now_s


STORIES: dict[str, Callable[[Path], float]] = {
    "finished": finished, "running": running, "failed": failed, "long": long, "tiny": tiny, "odd": odd,
}  # fmt: skip


def page_of(story: str, *, folder: Path, price: Price | None = None) -> Path:
    """The story's page, written the way `sdjob report` writes it."""
    place, out = folder / story, folder / f"{story}.html"
    place.mkdir(parents=True)
    clock = FakeClock(unix_s=STORIES[story](place))
    log = Log(mode="json", stream=sys.stderr, clock=clock)
    write_report(LocalStore(place), out=out, price=price, clock=clock, log=log)
    return out
