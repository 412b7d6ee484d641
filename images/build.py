"""Builds images: `python images/build.py cpu cuda tpu [--base IMAGE]`, with buildah, podman or docker, whichever is here.

What this machine's pip is told (indexes, folders, proxy, certificates) is lent to the build: as secrets and read-only folders,
so that none of it is in an image or its history. Where pip is told nothing, the Dockerfiles are built as they stand.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from pip_here import PipHere, pip_here

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("cpu", "cuda", "tpu")
ENGINES = ("buildah", "podman", "docker")


@dataclass(frozen=True)
class Build:
    """One image to be."""

    kind: str
    version: str
    revision: str
    base: str | None = None
    """Instead of the Dockerfile's own, which is on Docker Hub."""
    tag: str | None = None
    pip_options: str = ""
    root: Path = ROOT

    @property
    def name(self) -> str:
        return self.tag or f"sdjob-{self.kind}:{self.version}"


def main() -> None:
    args = parser().parse_args()
    for kind in args.kinds:
        build = Build(kind, version=version(), revision=revision(), base=args.base, tag=args.tag, pip_options=args.pip_options)
        run(build, engine=args.engine)
        sys.stdout.write(f"built {build.name}\n")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description="Build sdjob's images.")
    found.add_argument("kinds", nargs="+", choices=KINDS, metavar="KIND", help=f"of {', '.join(KINDS)}")
    found.add_argument("--base", metavar="IMAGE", help="the base image, instead of the Dockerfiles' own")
    found.add_argument("--tag", metavar="NAME", help="the image's name; sdjob-KIND:VERSION")
    found.add_argument("--pip-options", default=os.environ.get("PIP_OPTIONS", ""), help="more options for pip install")
    found.add_argument("--engine", choices=ENGINES, default=next(filter(which, ENGINES), "docker"))
    return found


def run(build: Build, *, engine: str) -> None:
    """subprocess.CalledProcessError where the engine fails; it has said why."""
    with tempfile.TemporaryDirectory() as folder:
        lent = pip_here()
        Path(folder, "pip.conf").write_text(lent.configuration, encoding="utf-8")
        subprocess.run(command(build, engine=engine, lent=lent, folder=Path(folder)), cwd=build.root, check=True)


def command(build: Build, *, engine: str, lent: PipHere, folder: Path) -> list[str]:
    arguments = {"VERSION": build.version, "REVISION": build.revision, "PIP_OPTIONS": build.pip_options}
    arguments |= {"BASE_IMAGE": build.base} if build.base else {}
    return [
        engine,
        "build",
        *(["--layers"] if engine != "docker" else []),
        *(f"--build-arg={name}={value}" for name, value in arguments.items()),
        f"--secret=id=pip,src={folder / 'pip.conf'}",
        *([f"--secret=id=ca,src={lent.certificates}"] if lent.certificates else []),
        *lent_folders(lent, engine=engine),
        f"--file=images/{build.kind}/Dockerfile",
        f"--tag={build.name}",
        ".",
    ]


def lent_folders(lent: PipHere, *, engine: str) -> list[str]:
    if lent.folders and engine == "docker":
        sys.exit(f"pip is configured to read {', '.join(map(str, lent.folders))}, which docker cannot lend a build: use buildah.")
    return [f"--volume={folder}:{folder}:ro" for folder in lent.folders]


def version() -> str:
    text = (ROOT / "runner/sdjob/__init__.py").read_text(encoding="utf-8")
    return text.split('__version__ = "')[1].split('"')[0]


def revision() -> str:
    """The commit, "-dirty" where the tree differs from it; "unknown" where this is no clone."""
    git = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    done = subprocess.run(git, cwd=ROOT, check=False, capture_output=True, text=True)
    return "unknown" if done.returncode else done.stdout.strip()


if __name__ == "__main__":
    main()
