"""Folders by the names and bytes of their files; what a model's folder consists of, with nothing in its weights."""

from collections.abc import Mapping
from pathlib import Path

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
WEIGHTS = ("unet", "vae", "text_encoder")
# A whole safetensors file of 1000 bytes without a tensor: the length of its header, and the header, filled up with spaces.
EMPTY_WEIGHTS = (992).to_bytes(8, "little") + b"{}".ljust(992)
MODEL_FILES: dict[str, bytes] = {
    "model_index.json": b"{}",
    **{f"{part}/config.json": b"{}" for part in PARTS},
    **{f"{part}/model.safetensors": EMPTY_WEIGHTS for part in WEIGHTS},
}


def write_files(files: Mapping[str, bytes], folder: Path) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
