"""What lies on the Hub for the tests of this folder, and how it is read."""

from pathlib import Path

from sdjob.spec.places import parse_place
from sdjob.store.hub import HubStore

WEIGHTS = bytes(range(256)) * 12_000  # 3 MB: several chunks
FILES = {
    "model_index.json": b"{}",
    "unet/config.json": b'{"in_channels": 4}',
    "unet/w.safetensors": WEIGHTS,
    "empty.txt": b"",
    **{f"samples/{number}.txt": b"s" for number in range(7)},
}


def store_of(text: str) -> HubStore:
    return HubStore.of(parse_place(text, base=Path("/")))


def read_file(store: HubStore, key: str, path: Path) -> tuple[bytes, bytes]:
    """The file that was made, and what `on_chunk` saw."""
    seen = bytearray()
    store.read_to(key, path, on_chunk=seen.extend)
    return path.read_bytes(), bytes(seen)
