"""`make demo`: validates and runs jobspecs/quickstart.yaml, then shows and counts what the LoRA changed.

The count is by pixels (meter.py): of a fixed list of prompts that are not among the training captions, how many pictures
show the new style, and how many the shape and the colours that the prompt names, before and after.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from meter import Reading, read
from shapes import SIZE_PX, Scene, all_subjects

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BASE = "jobspecs/quickstart/base"
JOB = ROOT / "jobspecs" / "quickstart.yaml"
SHOWN = 8
ZOOM = 2
TEXT_PX = 14


def unseen_scenes() -> list[Scene]:
    """Every subject that no training picture shows."""
    lines = (HERE / "pictures" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    seen = {json.loads(line)["text"] for line in lines}
    return [Scene(*subject) for subject in all_subjects() if Scene(*subject).caption not in seen]


def sdjob(*arguments: str) -> None:
    """Runs the command as a user would; its exit code ends the demo where it is not 0."""
    print(
        "$ sdjob",
        " ".join(a if " " not in a else repr(a) for a in arguments[:6]),
        "..." if len(arguments) > 6 else "",
        flush=True,
    )
    command = [Path(sys.executable).parent / "sdjob", *arguments]
    quiet = subprocess.DEVNULL if arguments[0] == "sample" else None  # it prints every picture's path
    finished = subprocess.run(command, cwd=ROOT, stdout=quiet, check=False)
    if finished.returncode:
        sys.exit(finished.returncode)


def sample(source: str, *, scenes: Sequence[Scene], out: Path) -> list[Image.Image]:
    prompts = [argument for scene in scenes for argument in ("--prompt", scene.caption)]
    size = ("--width", str(SIZE_PX), "--height", str(SIZE_PX), "--inference-steps", "20", "--guidance-scale", "1")
    base = ("--model", BASE) if source != BASE else ()
    sdjob("sample", source, "--out", str(out), *base, *size, *prompts)
    return [Image.open(out / f"{number:02d}-00.png") for number in range(len(scenes))]


def shares(readings: Sequence[Reading], *, scenes: Sequence[Scene]) -> dict[str, float]:
    """In percent of the prompts."""
    pairs = list(zip(readings, scenes, strict=True))
    hits = {
        "new style": [r.style == "pastel" for r in readings],
        "shape right": [r.shape == s.shape for r, s in pairs],
        "colour right": [r.colour == s.colour for r, s in pairs],
        "background right": [r.background == s.background for r, s in pairs],
    }
    return {name: 100 * sum(found) / len(pairs) for name, found in hits.items()}


def grid(before: Sequence[Image.Image], after: Sequence[Image.Image], *, scenes: Sequence[Scene]) -> Image.Image:
    """One row a prompt in two columns of pairs: before and after side by side, the prompt beneath."""
    side, gap = SIZE_PX * ZOOM, 10
    cell_width, cell_height = 2 * side + 3 * gap, side + TEXT_PX + 2 * gap
    columns = 2
    rows = -(-len(scenes) // columns)
    sheet = Image.new("RGB", (columns * cell_width, rows * cell_height + TEXT_PX + gap), "white")
    pen = ImageDraw.Draw(sheet)
    for column in range(columns):
        pen.text((column * cell_width + gap, gap), "before", fill="black")
        pen.text((column * cell_width + 2 * gap + side, gap), "after", fill="black")
    for number, scene in enumerate(scenes):
        left, top = (number % columns) * cell_width + gap, (number // columns) * cell_height + TEXT_PX + 2 * gap
        for offset, picture in ((0, before[number]), (side + gap, after[number])):
            sheet.paste(picture.resize((side, side), Image.Resampling.NEAREST), (left + offset, top))
        pen.text((left, top + side + 2), scene.caption, fill="black")
    return sheet


def settings_of(out: Path, given: Sequence[str]) -> list[str]:
    """For --set; the job file's own places are those of the default folder."""
    places = [f"checkpoint.to={out}/run", f"publish.0.to={out}/published"] if out != ROOT / "demo" else []
    return [argument for setting in (*places, *given) for argument in ("--set", setting)]


def shown(path: Path) -> Path:
    """As a person in the repository's root would type it."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def spread(items: Sequence[Scene], *, count: int) -> list[int]:
    return [round(i * (len(items) - 1) / (count - 1)) for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "demo", help="folder of the run, the pictures and the figures")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="FIELD=VALUE", help="as for `sdjob run`")
    args = parser.parse_args()
    scenes, out = unseen_scenes(), args.out.resolve()
    job = [str(JOB.relative_to(ROOT)), *settings_of(out, args.settings)]
    sdjob("validate", *job)
    before = sample(BASE, scenes=scenes, out=out / "before")
    sdjob("run", *job)
    after = sample(str(shown(out / "published")), scenes=scenes, out=out / "after")
    chosen = spread(scenes, count=SHOWN)
    picture = out / "grid.png"
    grid([before[i] for i in chosen], [after[i] for i in chosen], scenes=[scenes[i] for i in chosen]).save(picture)
    base, tuned = (shares([read(p) for p in pictures], scenes=scenes) for pictures in (before, after))
    print(f"\nof {len(scenes)} prompts that were not in training:")
    for name, share in tuned.items():
        print(f"  {name:17s} before {base[name]:5.1f} %   after {share:5.1f} %")
    (out / "figures.json").write_text(json.dumps({"before": base, "after": tuned}, indent=1) + "\n", encoding="utf-8")
    print(f"\nLook at {shown(picture)}: each prompt before and after.")
    print("Next: put your own pictures and captions into a folder, then `sdjob init my-job.yaml` and `sdjob run my-job.yaml`.")


if __name__ == "__main__":
    main()
