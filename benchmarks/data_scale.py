"""What pictures and captions cost by their number: seconds and memory of all that grows with it.

    python benchmarks/data_scale.py [--sizes 1000 10000 100000 1000000] [--folder /a/large/disk] [--svg FILE]

The parts are the run's own code, each in a process of its own. Seconds are the processor's (user and system), as other work may
have a share of the machine; memory is the peak of the process less what it was before the part. The folder has a file for each
picture, links to a few contents, and one metadata.jsonl; the index is as a scan writes it, of pictures of many shapes, with
captions of some 60 characters. Pictures are decoded in `scan` alone, which is left out above 10,000: it costs what they cost.
"""

import argparse
import hashlib
import io
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdjob.data.samples import SampleSource
    from sdjob.job.fetch import Here
    from sdjob.spec.job import JobSpec

SIZES = (1_000, 10_000, 100_000, 1_000_000)
PICTURES_A_FOLDER = 1_000
CONTENTS = 64  # of 15,625 names each in a million: ext4 has at most 65,000 links to a file
TRUE_EVERY = 125  # divides an eighth of every size
LARGEST_SCAN = 10_000
DRAWS = 2_000
WORDS = (
    "a",
    "drawing",
    "of",
    "photo",
    "small",
    "red",
    "blue",
    "tiny",
    "dragon",
    "cat",
    "with",
    "wings",
    "on",
    "the",
    "grass",
    "house",
)
SIDES = (512, 640, 768, 1024, 1200, 1536)


@dataclass(frozen=True)
class Cost:
    seconds: float
    mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--folder", type=Path, help="where the files are made; a million are names alone, and 0.3 GB of index")
    parser.add_argument("--svg", type=Path, help="the curves, written to this file")
    arguments = parser.parse_args()
    costs: Costs = {part: {} for part in PARTS}
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            write_data(Path(folder), size=size)
            for part in PARTS:
                if part != "scan" or size <= LARGEST_SCAN:
                    costs[part][size] = measured(part, folder=Path(folder))
                    print(f"{part}, {size}: {costs[part][size]}", file=sys.stderr)
    print(table(costs, sizes=arguments.sizes))
    if arguments.svg:
        arguments.svg.write_text(drawn(costs), encoding="utf-8")


def measured(part: str, *, folder: Path) -> Cost:
    command = [sys.executable, __file__, f"--part={part}", str(folder)]
    return Cost(**json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def be_part(part: str, folder: Path) -> None:
    """Imports are no cost of the data."""
    run = PARTS[part](folder)
    before_mib, begun_s = peak_mib(), time.process_time()
    run()
    print(json.dumps({"seconds": time.process_time() - begun_s, "mib": peak_mib() - before_mib}))


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux: man 2 getrusage


# ---- the data --------------------------------------------------------------------------------------------------------------


def write_data(folder: Path, *, size: int) -> None:
    """`pictures/` with metadata.jsonl, and `run/data/index.jsonl` as if they had been scanned in shapes of their own."""
    from PIL import Image  # noqa: PLC0415 (the parts import what they need and no more)

    contents = [folder / f"content-{number}.png" for number in range(CONTENTS)]
    for number, path in enumerate(contents):
        Image.new("RGB", (96, 64 + number % 3), (number, 100, 200)).save(path)
    (folder / "run/data").mkdir(parents=True)
    with (folder / "rows.jsonl").open("w") as rows, (folder / "run/data/index.jsonl").open("w") as index:
        print(json.dumps({"pictures": size, "sdjob_index": 1}, separators=(",", ":")), file=index)
        for number in range(size):
            name = name_of(number)
            if number % PICTURES_A_FOLDER == 0:
                (folder / "pictures" / name).parent.mkdir(parents=True)
            os.link(contents[number % CONTENTS], folder / "pictures" / name)
            print(json.dumps({"file_name": name, "text": caption_of(number)}), file=rows)
            print(index_line(number, content=contents[number % CONTENTS]), file=index)
    (folder / "rows.jsonl").rename(folder / "pictures/metadata.jsonl")


def name_of(number: int) -> str:
    return f"{number // PICTURES_A_FOLDER:05d}/{number:08d}.png"


def caption_of(number: int) -> str:
    return " ".join(WORDS[(number * step + step) % len(WORDS)] for step in range(3, 15)) + f" {number}"


def index_line(number: int, *, content: Path) -> str:
    """Every picture has a hash of its own, but for those by which a later attempt knows the folder, which have the true one."""
    own = content.read_bytes() if number % TRUE_EVERY == 0 else str(number).encode()
    sha256 = hashlib.sha256(own).hexdigest()
    height, width = SIDES[number % 5], SIDES[number % 6]
    fields = {"captions": [caption_of(number)], "height": height, "id": name_of(number), "sha256": sha256, "width": width}
    return json.dumps(fields, separators=(",", ":"))


# ---- the parts -------------------------------------------------------------------------------------------------------------

Part = Callable[[Path], Callable[[], object]]
"""Of the data's folder, after its imports: what is measured."""

Costs = dict[str, dict[int, Cost]]
"""Part, then number of pictures."""


def job_of(folder: Path, **data: object) -> "JobSpec":
    from sdjob.spec.load import parse_job  # noqa: PLC0415

    pictures = {"source": str(folder / "pictures"), **data}
    train = {"method": "lora", "steps": 10**6, "global_batch": 8, "device_batch": 8}
    return parse_job({"apiVersion": "sdjob/v1", "name": "scale", "model": {"source": "base"}, "data": pictures, "train": train})


def here_of(folder: Path) -> "Here":
    from sdjob.core.clock import SystemClock  # noqa: PLC0415
    from sdjob.core.log import Log  # noqa: PLC0415
    from sdjob.job.fetch import Here  # noqa: PLC0415

    return Here(folder / "scratch", check_stop=lambda: None, clock=SystemClock(), log=Log(mode="json", stream=io.StringIO()))


def listed(folder: Path) -> Callable[[], object]:
    """The first attempt's records: a walk through the folder, and the captions."""
    from sdjob.data.gather import gather  # noqa: PLC0415
    from sdjob.job.pins import data_place  # noqa: PLC0415
    from sdjob.spec.sources import data_sources  # noqa: PLC0415
    from sdjob.store.open import open_store  # noqa: PLC0415

    (source,), here = data_sources(job_of(folder).data), here_of(folder)
    options = {"open_store": open_store, "data": source, "scratch": here.scratch, "check_stop": here.check_stop, "log": here.log}
    return lambda: len(list(gather(data_place(source), index=None, **options).records))


def scanned(folder: Path) -> Callable[[], object]:
    """All of the first attempt's work: the records, each picture decoded, the index written."""
    from sdjob.job.stage_data import stage_index  # noqa: PLC0415
    from sdjob.store.local import LocalStore  # noqa: PLC0415

    return lambda: stage_index(job_of(folder), store=LocalStore(folder / "new"), may_write=True, here=here_of(folder))


def started(folder: Path) -> Callable[[], object]:
    """What a later attempt's parent does before its trainers start."""
    from sdjob.data.roles import roles_of  # noqa: PLC0415
    from sdjob.job.stage_data import stage_index, stage_pictures  # noqa: PLC0415
    from sdjob.store.local import LocalStore  # noqa: PLC0415

    job, here = job_of(folder), here_of(folder)

    def run() -> None:
        index = stage_index(job, store=LocalStore(folder / "run"), may_write=True, here=here).index
        len(roles_of(index, data=job.data).train)
        index.sha256  # noqa: B018
        (folder / "index.jsonl").write_bytes(index.to_jsonl())
        stage_pictures(job, index=index, here=here)

    return run


def trained(**data: object) -> Part:
    """What a trainer does before its first sample: the index, the order, the first choice."""

    def prepared(folder: Path) -> Callable[[], object]:
        source_of = opened(folder, **data)
        return lambda: source_of().chosen(123_456, 0, global_batch=8)

    return prepared


def opened(folder: Path, **data: object) -> Callable[[], "SampleSource"]:
    from sdjob.data.index import read_index  # noqa: PLC0415
    from sdjob.data.samples import SampleSource  # noqa: PLC0415

    job = job_of(folder, **data)
    return lambda: SampleSource(read_index(folder / "run/data/index.jsonl"), (folder,), data=job.data, seed=0)


def drew(folder: Path) -> Callable[[], object]:
    """Samples in the middle of an epoch, but for their pictures' bytes."""
    source = opened(folder)()
    source.chosen(0, 0, global_batch=8)
    return lambda: [source.chosen(step, place, global_batch=8) for step in range(DRAWS // 8) for place in range(8)]


def planned(folder: Path) -> Callable[[], object]:
    """Which encodings there are, in which shards, where the encoders run once."""
    from sdjob.data.index import read_index  # noqa: PLC0415
    from sdjob.encodings.plan import make_plan  # noqa: PLC0415

    job = job_of(folder)
    job = job.model_copy(update={"train": job.train.model_copy(update={"precision": "fp32"})})
    return lambda: make_plan(read_index(folder / "run/data/index.jsonl"), job=job, model_hashes={})


PARTS: dict[str, Part] = {
    "list": listed,
    "scan": scanned,
    "start": started,
    "trainer": trained(),
    "trainer, buckets": trained(buckets={"min": 256, "max": 1024}),
    "trainer, held out": trained(held_out={"share": 0.01}),
    "cache": planned,
    "draw": drew,
}
WHAT = {
    "list": "first attempt: folder and captions listed",
    "scan": "first attempt, whole: listed, every picture decoded, index written",
    "start": "every later attempt: index read and checked, folder found",
    "trainer": "each trainer process: index, order, first choice",
    "trainer, buckets": "the same with buckets",
    "trainer, held out": "the same with held-out pictures",
    "cache": "encoders run once: their entries and shards planned",
    "draw": f"{DRAWS} samples chosen in an epoch",
}


# ---- how it is shown -------------------------------------------------------------------------------------------------------


def table(costs: Costs, *, sizes: Sequence[int]) -> str:
    """Seconds and MiB."""
    lines = [f"| | {' | '.join(f'{size:,}' for size in sizes)} |", f"|---|{'---|' * len(sizes)}"]
    for part, of_sizes in costs.items():
        cells = [f"{cost.seconds:.2f} s, {cost.mib:.0f} MiB" if (cost := of_sizes.get(size)) else "" for size in sizes]
        lines.append(f"| {WHAT[part]} | {' | '.join(cells)} |")
    return "\n".join(lines)


WIDTH, HEIGHT, LEFT, TOP, RIGHT = 400, 300, 65, 30, 35
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#9c6b4e")


def drawn(costs: Costs) -> str:
    """Two diagrams with the same lines, all axes logarithmic: a line that grows in proportion goes up one decade in each."""
    parts = [panel(costs, "seconds", floor=0.01, unit="s", left=0), panel(costs, "mib", floor=1.0, unit="MiB", left=WIDTH)]
    parts += [
        text(30 + 250 * (number % 3), HEIGHT + 22 * (number // 3) + 14, part, colour=COLOURS[number])
        for number, part in enumerate(costs)
    ]
    size = f'width="{2 * WIDTH}" height="{HEIGHT + 75}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def panel(costs: Costs, field: str, *, floor: float, unit: str, left: int) -> str:
    sizes = sorted({size for of_sizes in costs.values() for size in of_sizes})
    values = [max(floor, getattr(cost, field)) for of_sizes in costs.values() for cost in of_sizes.values()]
    decades = range(math.floor(math.log10(floor)), math.ceil(math.log10(max(values))) + 1)

    def x(size: int) -> float:
        return left + LEFT + (WIDTH - LEFT - RIGHT) * math.log(size / sizes[0]) / max(1e-9, math.log(sizes[-1] / sizes[0]))

    def y(value: float) -> float:
        return HEIGHT - TOP - (HEIGHT - 2 * TOP) * (math.log10(max(floor, value)) - decades[0]) / (len(decades) - 1)

    lines = [text(x(size), HEIGHT - 10, f"{size:,}", anchor="middle") for size in sizes]
    for decade in decades:
        lines.append(text(left + LEFT - 6, y(10**decade) + 4, f"{10**decade:g} {unit}", anchor="end"))
        lines.append(f'<path d="M{x(sizes[0]):.1f} {y(10**decade):.1f}H{x(sizes[-1]):.1f}" stroke="#ddd"/>')
    for colour, of_sizes in zip(COLOURS, costs.values(), strict=False):
        points = " ".join(f"{x(size):.1f},{y(getattr(cost, field)):.1f}" for size, cost in of_sizes.items())
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return "\n".join(lines)


def text(x: float, y: float, words: str, *, anchor: str = "start", colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("--part="):
        be_part(sys.argv[1].partition("=")[2], Path(sys.argv[2]))
    else:
        main()
