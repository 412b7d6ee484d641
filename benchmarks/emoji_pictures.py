"""Some hundred real pictures with captions, for the benchmarks: 3D emoji of 256 x 256 pixels, named by their Unicode labels.

    python benchmarks/emoji_pictures.py FOLDER --count 600

Two npm packages, both under the MIT licence, fetched once into a cache outside the repository: the pictures (Fluent Emoji,
https://github.com/microsoft/fluentui-emoji) and the labels (https://github.com/milesj/emojibase).
"""

import argparse
import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

FEWEST = 500  # fewer pictures say little about a held-out loss
VARIATION_SELECTOR = "fe0f"  # "show as a picture": file names and labels disagree on where it is written out


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    sha256: str
    """Of the archive: the figures in the README hold for these very pictures."""

    @property
    def archive_name(self) -> str:
        """As `npm pack` names it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


PICTURES = Package("@lobehub/fluent-emoji-3d", "1.1.0", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58")
LABELS = Package("emojibase-data", "17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a")


def write_emoji_folder(folder: Path, *, count: int, cache: Path) -> int:
    """Writes `count` pictures and metadata.jsonl into a new or empty folder, and returns the count.

    The choice is the first `count` by a hash of the emoji: the same everywhere, and spread over faces, flags and food.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; give a new folder")
    labels = read_labels(fetched(LABELS, cache=cache))
    members = picture_members(fetched(PICTURES, cache=cache))
    chosen = sorted(labels.keys() & members.keys(), key=lambda code: hashlib.sha256(code.encode()).digest())[:count]
    if len(chosen) < count:
        raise ValueError(f"only {len(chosen)} pictures have a label; {count} were asked for")
    unpack(fetched(PICTURES, cache=cache), wanted={members[code]: folder / f"{code}.webp" for code in chosen})
    rows = [{"file_name": f"{code}.webp", "text": caption(labels[code])} for code in sorted(chosen)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


def fetched(package: Package, *, cache: Path) -> Path:
    """The package's archive, from the cache or by `npm pack`; a download becomes visible only when it is whole."""
    archive = cache / package.archive_name
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            command = ["npm", "pack", "--silent", "--pack-destination", scratch, f"{package.name}@{package.version}"]
            subprocess.run(command, check=True, cwd=scratch, stdout=subprocess.DEVNULL)
            (Path(scratch) / package.archive_name).rename(archive)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise ValueError(f"{archive} has SHA-256 {found}, not {package.sha256}; remove it and try again")
    return archive


def read_labels(archive: Path) -> dict[str, str]:
    """English labels by emoji, without skin tones and without the letters that flags are spelled from (no group)."""
    with tarfile.open(archive) as package:
        stored = package.extractfile("package/en/data.json")
        assert stored is not None, "data.json is a file in the archive whose hash was checked"
        emoji = json.load(stored)
    return {plain_code(one["hexcode"]): one["label"] for one in emoji if "group" in one}


def picture_members(archive: Path) -> dict[str, str]:
    """Names within the archive by emoji."""
    with tarfile.open(archive) as package:
        names = sorted(name for name in package.getnames() if name.endswith(".webp"))
    return {plain_code(Path(name).stem): name for name in names}


def unpack(archive: Path, *, wanted: dict[str, Path]) -> None:
    """Contents alone are read, under names of our own: no path or link of the archive reaches the disk."""
    with tarfile.open(archive) as package:
        for member in package:
            if member.name in wanted and (stored := package.extractfile(member)):
                wanted[member.name].write_bytes(stored.read())


def plain_code(code: str) -> str:
    """Code points as in "1f468-200d-1f680"."""
    return "-".join(point for point in code.lower().split("-") if point != VARIATION_SELECTOR)


def caption(label: str) -> str:
    article = "an" if label[0].lower() in "aeiou" else "a"
    return f"a 3d emoji of {article} {label}"


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdjob-benchmarks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where pictures and metadata.jsonl are written")
    parser.add_argument("--count", type=int, default=600, help=f"at least {FEWEST} (default: 600)")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where downloads are kept (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.count < FEWEST:
        parser.error(f"--count is at least {FEWEST}")
    written = write_emoji_folder(arguments.folder, count=arguments.count, cache=arguments.cache)
    print(f"{written} pictures in {arguments.folder}")


if __name__ == "__main__":
    main()
