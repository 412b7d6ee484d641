"""A flax batch holds what the torch trainer's micro-batches hold, in its own layout."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from jax.tree_util import tree_leaves_with_path

from fakes.flax_runs import in_flax, make_flax_trainer
from fakes.pictures import write_picture_folder
from fakes.tiny_sdxl import write_family
from fakes.torch_runs import make_task, make_trainer
from sdjob.data.index import scan
from sdjob.data.records import list_records
from sdjob.train_flax.batches import build_batches, rows_of_process
from sdjob.train_flax.step import stacked
from sdjob.train_torch.batches import build_batches as build_torch_batches
from sdjob.train_torch.batches import rows_of_rank


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def task(request, tmp_path_factory):
    scratch, pictures = tmp_path_factory.mktemp("scratch"), tmp_path_factory.mktemp("pictures")
    write_family(scratch / "model", family=request.param)
    write_picture_folder(pictures, count=10)
    data = {"crop": "random", "flip": True, "caption_dropout": 0.3}
    task = make_task(
        scratch / "model", scratch=scratch, data=data, run={"workers": 2}, train={"global_batch": 4, "device_batch": 2}
    )
    records = list_records(pictures, image_column="image", caption_column="text")
    task.index.write_bytes(scan(pictures, records=records, workers=0).index.to_jsonl())
    return replace(task, pictures=pictures, total_steps=4)


def test_the_same_rows_as_on_torch(task):
    with build_torch_batches(task, trainer=make_trainer(task)) as batches:
        theirs = [stacked([in_flax(micro) for micro in micros]) for micros in batches]
    trainer = make_flax_trainer(task)
    with build_batches(task, trainer=trainer) as batches:
        ours = list(batches)
    with build_batches(replace(task, start_step=2), trainer=trainer) as batches:
        resumed = list(batches)
    assert len(ours) == 4
    for straight, expected in [*zip(ours, theirs, strict=True), *zip(resumed, theirs[2:], strict=True)]:
        assert jax.tree.structure(straight) == jax.tree.structure(expected)
        for (path, values), other in zip(tree_leaves_with_path(straight), jax.tree.leaves(expected), strict=True):
            assert np.array_equal(values, other), path


@pytest.mark.parametrize(("processes", "rows"), [(1, 2), (2, 2), (3, 4)])
def test_processes_have_the_rows_that_torchs_ranks_have(processes, rows):
    shape = {"global_batch": 2 * processes * rows}
    for index in range(processes):
        ours = rows_of_process(index, num_processes=processes, rows_of_micro=rows, **shape)
        assert ours == rows_of_rank(index, num_ranks=processes, device_batch=rows, **shape)
