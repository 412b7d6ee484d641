import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from sdjob.core.errors import DataError, UnsoundError
from sdjob.diffusion import tensor_file
from sdjob.diffusion.tensor_file import StoredTensor, read_tensors, refuse_torn, scalar, write_tensors


def test_what_the_library_wrote_comes_back_under_other_names(tmp_path):
    arrays = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.arange(4, dtype=np.float16),
        "e": np.zeros((0, 2), np.int64),
    }
    save_file(arrays, tmp_path / "from")
    renamed = {f"x.{name}": tensor for name, tensor in read_tensors(tmp_path / "from").items()}
    write_tensors(tmp_path / "to", tensors={**renamed, "alpha": scalar(0.5)}, metadata={"format": "pt", "key": 'ünï " \\'})
    loaded = load_file(tmp_path / "to")
    assert sorted(loaded) == ["alpha", "x.a", "x.b", "x.e"]
    assert all(np.array_equal(loaded[f"x.{name}"], array) for name, array in arrays.items())
    assert loaded["alpha"].shape == ()
    assert loaded["alpha"] == 0.5
    with safe_open(tmp_path / "to", framework="numpy") as file:
        assert file.metadata() == {"format": "pt", "key": 'ünï " \\'}


def test_pieces_smaller_than_a_tensor_make_the_same_file(tmp_path, monkeypatch):
    save_file({"w": np.random.default_rng(0).standard_normal(1000).astype(np.float32)}, tmp_path / "from")
    write_tensors(tmp_path / "whole", tensors=read_tensors(tmp_path / "from"), metadata={})
    monkeypatch.setattr(tensor_file, "PIECE_BYTES", 7)
    write_tensors(tmp_path / "pieces", tensors=read_tensors(tmp_path / "from"), metadata={})
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "pieces").read_bytes()


def test_the_order_of_names_and_metadata_does_not_matter(tmp_path):
    one, two = scalar(1.0), scalar(2.0)
    write_tensors(tmp_path / "a", tensors={"x": one, "y": two}, metadata={"p": "1", "q": "2"})
    write_tensors(tmp_path / "b", tensors={"y": two, "x": one}, metadata={"q": "2", "p": "1"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_another_process_writes_the_same_bytes(tmp_path):
    program = (
        "import sys; from pathlib import Path; from sdjob.diffusion.tensor_file import *;"
        "write_tensors(Path(sys.argv[1]), tensors={'x': scalar(1.0)}, metadata={c: c for c in 'abcdefgh'})"
    )
    for seed in ("1", "2"):
        subprocess.run([sys.executable, "-c", program, tmp_path / seed], check=True, env={**os.environ, "PYTHONHASHSEED": seed})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_the_first_tensor_begins_at_a_multiple_of_eight(tmp_path):
    for length in range(1, 9):
        write_tensors(tmp_path / "f", tensors={"n" * length: scalar(1.0)}, metadata={})
        assert int.from_bytes((tmp_path / "f").read_bytes()[:8], "little") % 8 == 0


@pytest.mark.parametrize("keep", [0, 7, 20, -1])
def test_a_file_that_ends_early_is_refused(tmp_path, keep):
    write_tensors(tmp_path / "f", tensors={"x": scalar(1.0)}, metadata={"format": "pt"})
    (tmp_path / "f").write_bytes((tmp_path / "f").read_bytes()[:keep])
    with pytest.raises(UnsoundError, match="early"):
        write_tensors(tmp_path / "g", tensors=read_tensors(tmp_path / "f"), metadata={})


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 a pickle in a zip, as torch.save makes them", (5).to_bytes(8, "little") + b"hello"]
)
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(UnsoundError, match="not a safetensors file"):
        read_tensors(tmp_path / "f")


def test_bytes_in_memory_are_a_tensor_too():
    assert list(StoredTensor(dtype="U8", shape=(3,), size_bytes=3, content=b"abc").pieces()) == [b"abc"]


class TestTorn:
    """Held against what the library itself takes."""

    def test_whole(self, tmp_path: Path):
        save_file({"a": np.zeros((3, 2), np.float32), "b": np.zeros((0,), np.float16)}, tmp_path / "x", metadata={"format": "pt"})
        refuse_torn(tmp_path / "x", where="x")

    @pytest.mark.parametrize("cut", [-1, -24, 12, 4, 0])
    def test_cut_short(self, cut: int, tmp_path: Path):
        save_file({"a": np.zeros((3, 2), np.float32)}, tmp_path / "x")
        (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:cut])
        with pytest.raises(SafetensorError):
            load_file(tmp_path / "x")
        with pytest.raises(DataError, match=r"^there: "):
            refuse_torn(tmp_path / "x", where="there")

    @pytest.mark.parametrize("data", [b"", (4).to_bytes(8, "little") + b"[7 ]", (13).to_bytes(8, "little") + b'{"a":{"b":1}}'])
    def test_another_file(self, data: bytes, tmp_path: Path):
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(DataError, match=r"^there: "):
            refuse_torn(tmp_path / "x", where="there")

    def test_more_than_the_header_says(self, tmp_path: Path):
        save_file({"a": np.zeros((3, 2), np.float32)}, tmp_path / "x")
        (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes() + b" ")
        with pytest.raises(DataError, match="1 bytes longer"):
            refuse_torn(tmp_path / "x", where="x")

    def test_a_pointer_of_git_lfs(self, tmp_path: Path):
        (tmp_path / "x").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        with pytest.raises(DataError, match="git lfs pull"):
            refuse_torn(tmp_path / "x", where="x")
