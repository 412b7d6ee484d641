"""A base image out of Debian's packages alone, for machines that do not reach Docker Hub: prints its name.

Needs root, debootstrap and podman. The tree is kept as a tar in the user's cache: three minutes the first time, seconds later.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import which

SUITE = "bookworm"  # its Python is the 3.11 that the Dockerfiles' own base has
PACKAGES = ("ca-certificates", "python3", "python3-venv")
NAME = f"localhost/sdjob-debian:{SUITE}"
# Of no use in an image, and a third of its size.
DISPENSABLE = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale", "var/log")


def main() -> None:
    if subprocess.run(["podman", "image", "exists", NAME], check=False).returncode:
        tar = kept_tar()
        if not tar.exists():
            make(tar)
        subprocess.run(["podman", "import", "--quiet", tar, NAME], check=True, stdout=subprocess.DEVNULL)
    sys.stdout.write(NAME + "\n")


def kept_tar() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "sdjob" / f"debian-{SUITE}.tar"


def make(tar: Path) -> None:
    """In place only when whole."""
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=tar.parent) as folder:
        root, part = Path(folder, "root"), Path(folder, "part.tar")
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, root, *mirror()]
        subprocess.run(command, check=True, stdout=sys.stderr)
        excluded = [f"--exclude=./{path}/*" for path in (*DISPENSABLE, "dev", "proc", "sys")]
        subprocess.run(["tar", "--create", "--numeric-owner", f"--file={part}", *excluded, "--directory", root, "."], check=True)
        part.rename(tar)


def mirror() -> list[str]:
    """Where this machine's own apt finds the suite; debootstrap's default elsewhere."""
    if not which("apt-get"):
        return []
    wanted = [
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI)",
        f"Codename: {SUITE}",
        "Created-By: Packages",
        "Component: main",
    ]
    found = subprocess.run(wanted, check=True, capture_output=True, text=True).stdout.split()
    return found[:1]


if __name__ == "__main__":
    main()
