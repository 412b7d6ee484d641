"""How much memory one large object takes on its way up and down: the peak of a child process of its own (ru_maxrss).

    python benchmarks/transfer_memory.py --place s3 --gib 4 [--folder /a/large/disk]

Servers are real ones on this machine; what is measured is the client alone. The figures are in README.md.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests"
KEY = "blob/1/large"
PIECE_BYTES = 4 * 1024 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", choices=["s3", "gs"], default="s3")
    parser.add_argument("--gib", type=float, default=4.0)
    parser.add_argument("--folder", type=Path, help="for the server's objects and the file; twice the size must be free")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measured = measure(arguments.place, size_bytes=int(arguments.gib * 1024**3), folder=Path(folder))
    print(json.dumps(measured, indent=2))


def measure(place: str, *, size_bytes: int, folder: Path) -> dict[str, float]:
    """Two children, one after the other, so that each peak is its own."""
    sys.path.insert(0, str(TESTS))
    from fakes.servers import start_gcs, start_seaweed  # noqa: PLC0415 (found only now)

    server = {"s3": start_seaweed, "gs": start_gcs}[place](folder / "server")
    try:
        uri = f"{place}://{server.new_bucket()}/runs/x"
        source, target = folder / "source", folder / "target"
        digest = write_source(source, size_bytes=size_bytes)
        environment = {**os.environ, **server.environment}
        up = child("up", uri=uri, path=source, environment=environment)
        source.unlink()
        down = child("down", uri=uri, path=target, environment=environment)
        if down["sha256"] != digest:
            raise SystemExit("what came back is not what was sent")
    finally:
        server.kill()
    rates = {f"{way}_mib_per_s": size_bytes / 1024**2 / said["seconds"] for way, said in (("up", up), ("down", down))}
    return {"gib": size_bytes / 1024**3, "up_peak_mib": up["peak_mib"], "down_peak_mib": down["peak_mib"], **rates}


def write_source(path: Path, *, size_bytes: int) -> str:
    """No two pieces alike, so that no range can stand in for another; its sha256."""
    hasher, piece = hashlib.sha256(), os.urandom(PIECE_BYTES)
    with path.open("wb") as file:
        for number in range(-(-size_bytes // PIECE_BYTES)):
            data = (number.to_bytes(8, "big") + piece[8:])[: size_bytes - number * PIECE_BYTES]
            hasher.update(data)
            file.write(data)
    return hasher.hexdigest()


def child(way: str, *, uri: str, path: Path, environment: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, __file__, f"--child={way}", uri, str(path)]
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def be_child(way: str, uri: str, path: str) -> None:
    from sdjob.core.retry import Backoff  # noqa: PLC0415 (only the child's imports are measured)
    from sdjob.spec.places import parse_place  # noqa: PLC0415
    from sdjob.store.open import open_store  # noqa: PLC0415
    from sdjob.store.patient import PatientStore  # noqa: PLC0415

    store = PatientStore(open_store(parse_place(uri, base=Path("/"))), backoff=Backoff())
    begun, sha256 = time.monotonic(), ""
    if way == "up":
        store.write_file(KEY, Path(path))
    else:
        sha256, _ = store.read_hashed(KEY, Path(path))
    seconds = time.monotonic() - begun
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux: man 2 getrusage
    print(json.dumps({"peak_mib": peak_mib, "seconds": seconds, "sha256": sha256}))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("--child="):
        be_child(sys.argv[1].partition("=")[2], *sys.argv[2:])
    else:
        main()
