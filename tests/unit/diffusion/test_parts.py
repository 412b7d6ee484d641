import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sdjob.core.errors import UnsoundError
from sdjob.diffusion.parts import has_tensors, part_file, stored_tensors
from sdjob.diffusion.tensor_file import StoredTensor, read_tensors, write_tensors

ARRAYS = {"w": np.arange(42, dtype=np.float32).reshape(7, 3, 2), "b": np.arange(4, dtype=np.float32)}
CUTS = {"w": (0, 3, 6, 7), "b": (0, 2, 4, 4)}  # the last of three has nothing of b


def write_parts(folder, *, kind="weights", change=lambda rank, arrays: arrays):
    for rank in range(3):
        own = {name: values[CUTS[name][rank] : CUTS[name][rank + 1]] for name, values in ARRAYS.items()}
        save_file(change(rank, own), folder / part_file(kind, rank=rank, of=3))


def array_of(tensor: StoredTensor):
    data = b"".join(tensor.pieces())
    assert len(data) == tensor.size_bytes
    return np.frombuffer(data, np.float32).reshape(tensor.shape)


def test_parts_are_what_one_file_would_be(tmp_path):
    write_parts(tmp_path)
    save_file(ARRAYS, tmp_path / "whole")
    write_tensors(tmp_path / "joined", tensors=stored_tensors(tmp_path, "weights"), metadata={"format": "pt"})
    write_tensors(tmp_path / "copied", tensors=read_tensors(tmp_path / "whole"), metadata={"format": "pt"})
    assert (tmp_path / "joined").read_bytes() == (tmp_path / "copied").read_bytes()
    assert all(np.array_equal(load_file(tmp_path / "joined")[name], values) for name, values in ARRAYS.items())


def test_any_rows_of_parts_of_a_file_and_of_bytes_are_read_alone(tmp_path):
    write_parts(tmp_path)
    save_file(ARRAYS, tmp_path / "whole")
    in_memory = StoredTensor("F32", ARRAYS["w"].shape, ARRAYS["w"].nbytes, ARRAYS["w"].tobytes())
    for tensor in (stored_tensors(tmp_path, "weights")["w"], read_tensors(tmp_path / "whole")["w"], in_memory):
        for start in range(8):
            for stop in range(start, 8):
                rows = tensor.rows(start, stop)
                assert np.array_equal(array_of(rows), ARRAYS["w"][start:stop])
                if stop - start > 2:
                    assert np.array_equal(array_of(rows.rows(1, 3)), ARRAYS["w"][start + 1 : start + 3])


def test_one_file_stays_one(tmp_path):
    save_file(ARRAYS, tmp_path / "ema.safetensors")
    assert {name: tensor.shape for name, tensor in stored_tensors(tmp_path, "ema").items()} == {"w": (7, 3, 2), "b": (4,)}
    assert has_tensors(tmp_path, "ema")
    assert not has_tensors(tmp_path, "weights")


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_part_that_is_missing_is_told(tmp_path, lost):
    write_parts(tmp_path)
    assert has_tensors(tmp_path, "weights")
    (tmp_path / part_file("weights", rank=lost, of=3)).unlink()
    with pytest.raises(UnsoundError, match=r"in parts that are not all there: weights-0000[12]-of-00003"):
        stored_tensors(tmp_path, "weights")


def test_nothing_at_all_is_told(tmp_path):
    with pytest.raises(UnsoundError, match=r"the checkpoint's ema.safetensors .*: nothing"):
        stored_tensors(tmp_path, "ema")


@pytest.mark.parametrize(
    "change",
    [
        lambda rank, arrays: {"w": arrays["w"]} if rank == 1 else arrays,
        lambda rank, arrays: {**arrays, "b": arrays["b"].astype(np.float16)} if rank == 1 else arrays,
        lambda rank, arrays: {**arrays, "b": arrays["b"][:, None]} if rank == 1 else arrays,
        lambda _rank, arrays: {**arrays, "b": np.float32(1.0)[...]},
    ],
    ids=["a name", "a type", "a shape", "a scalar"],
)
def test_parts_that_do_not_fit_are_told(tmp_path, change):
    write_parts(tmp_path, change=change)
    with pytest.raises(UnsoundError, match=r"parts of the checkpoint's weights.safetensors do not fit together \(such as b\)"):
        stored_tensors(tmp_path, "weights")
