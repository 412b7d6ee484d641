"""Prints an image's layers with their sizes, uncompressed: `python images/sizes.py NAME`, by podman."""

import json
import subprocess
import sys

MB = 10**6


def main() -> None:
    name = sys.argv[1]
    listed = subprocess.run(["podman", "history", "--format=json", name], check=True, capture_output=True, text=True).stdout
    layers = [layer for layer in json.loads(listed) if layer["size"]]
    lines = [f"{layer['size'] / MB:8.1f} MB  {command(layer)}" for layer in reversed(layers)]
    total = sum(layer["size"] for layer in layers) / MB
    sys.stdout.write("\n".join([*lines, f"{total:8.1f} MB  {name}"]) + "\n")


def command(layer: dict[str, str]) -> str:
    """What made the layer, shortened."""
    made = " ".join(layer["CreatedBy"].removeprefix("/bin/sh -c ").removeprefix("#(nop) ").split())
    return made if len(made) <= 80 else f"{made[:77]}..."


if __name__ == "__main__":
    main()
