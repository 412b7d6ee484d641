"""Micro-batches: every row of the global batch once, whatever the layout; rows do not depend on who draws them."""

from dataclasses import fields, replace

import pytest
import torch
from transformers import CLIPTokenizer

from fakes.pictures import write_picture_folder
from fakes.torch_runs import make_task, make_trainer
from sdjob.data.index import scan
from sdjob.data.prefetch import SampleBatches
from sdjob.data.records import list_records
from sdjob.data.samples import SampleSource
from sdjob.train_torch.batches import BatchMaker, batch_draws, build_batches, rows_of_rank
from sdjob.train_torch.conditioning import token_ids
from sdjob.train_torch.step import MicroBatch

DRAWS = [field.name for field in fields(MicroBatch) if field.name not in {"pictures", "captions"}]


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("device_batch", [1, 2])
@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_ranks_cover_the_global_batch_once(num_ranks, device_batch, accumulation):
    global_batch = num_ranks * device_batch * accumulation
    rows = [
        rows_of_rank(rank, num_ranks=num_ranks, device_batch=device_batch, global_batch=global_batch) for rank in range(num_ranks)
    ]
    assert sorted(row for of_rank in rows for row in of_rank) == list(range(global_batch))
    assert {len(of_rank) for of_rank in rows} == {device_batch * accumulation}


def test_a_micro_step_has_the_same_rows_on_one_device_and_on_two():
    alone = rows_of_rank(0, num_ranks=1, device_batch=4, global_batch=8)
    pair = [rows_of_rank(rank, num_ranks=2, device_batch=2, global_batch=8) for rank in range(2)]
    for micro in range(2):
        together = [row for of_rank in pair for row in of_rank[2 * micro : 2 * micro + 2]]
        assert together == alone[4 * micro : 4 * micro + 4]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_picture_folder(folder, count=10)
    return folder


def stacked(micros):
    """Every tensor by its name, of all micro-batches."""
    named = [{**micro.pictures, **micro.captions, **{name: getattr(micro, name) for name in DRAWS}} for micro in micros]
    return {name: torch.cat([tensors[name] for tensors in named]) for name in named[0]}


class TestBatches:
    def task(self, model, pictures, tmp_path, **train):
        parts = {"data": {"crop": "random", "flip": True, "caption_dropout": 0.3}, "run": {"workers": 0}}
        task = make_task(model, scratch=tmp_path, **parts, train={"global_batch": 4, "device_batch": 2, **train})
        records = list_records(pictures, image_column="image", caption_column="text")
        task.index.write_bytes(scan(pictures, records=records, workers=0).index.to_jsonl())
        return replace(task, pictures=pictures, total_steps=4)

    def test_the_stream_of_a_job(self, sd1, pictures, tmp_path):
        task = self.task(sd1, pictures, tmp_path)
        with build_batches(task, trainer=make_trainer(task)) as batches:
            steps = list(batches)
        assert [len(micros) for micros in steps] == [2, 2, 2, 2]
        micro = steps[0][0]
        assert micro.pictures["pixels_BCHW"].shape == (2, 3, 64, 64)
        assert micro.noise_BCHW.shape == (2, 4, 8, 8)
        assert micro.captions["ids_BET"].shape == (2, 1, 16)
        assert len({micro.noise_BCHW.numpy().tobytes() for micros in steps for micro in micros}) == 8

    def test_it_starts_at_any_step(self, sd1, pictures, tmp_path):
        task = self.task(sd1, pictures, tmp_path)
        trainer = make_trainer(task)
        with build_batches(task, trainer=trainer) as batches:
            straight = list(batches)[2:]
        with build_batches(replace(task, start_step=2), trainer=trainer) as batches:
            resumed = list(batches)
        for one, other in zip(straight, resumed, strict=True):
            for name, values in stacked(one).items():
                assert torch.equal(stacked(other)[name], values), name

    @pytest.mark.parametrize(("num_ranks", "device_batch"), [(1, 1), (1, 4), (2, 1), (2, 2), (4, 1)])
    def test_a_row_is_the_same_in_every_layout(self, sd1, pictures, tmp_path, num_ranks, device_batch):
        task = self.task(sd1, pictures, tmp_path)
        trainer = make_trainer(task)
        whole = stacked(self.maker(task, trainer, rows=range(4), device_batch=4)(1))
        for rank in range(num_ranks):
            rows = rows_of_rank(rank, num_ranks=num_ranks, device_batch=device_batch, global_batch=4)
            own = stacked(self.maker(task, trainer, rows=rows, device_batch=device_batch)(1))
            for name, values in own.items():
                assert torch.equal(values, whole[name][rows]), name

    def maker(self, task, trainer, *, rows, device_batch):
        index = scan(
            task.pictures, records=list_records(task.pictures, image_column="image", caption_column="text"), workers=0
        ).index
        source = SampleSource(index, task.folders, data=task.job.data, seed=task.job.train.seed)
        samples = SampleBatches(source, global_batch=4, members=list(rows), workers=0)
        return BatchMaker(samples, device_batch, trainer.tokenizers, batch_draws(task, trainer, source=source), pin=False)

    def test_threads_change_nothing(self, sd1, pictures, tmp_path):
        task = self.task(sd1, pictures, tmp_path)
        threaded = replace(task, job=task.job.model_copy(update={"run": task.job.run.model_copy(update={"workers": 3})}))
        trainer = make_trainer(task)
        with build_batches(task, trainer=trainer) as batches:
            plain = [stacked(micros) for micros in batches]
        with build_batches(threaded, trainer=trainer) as batches:
            for wanted, micros in zip(plain, batches, strict=True):
                assert all(torch.equal(values, wanted[name]) for name, values in stacked(micros).items())

    def test_validation_cannot_disturb_the_prefetch_threads_tokenizer(self, sd1, pictures, tmp_path, monkeypatch):
        """A tokenizer keeps the padding of its last call, so one that two threads share gives either of them a wrong one."""
        task = self.task(sd1, pictures, tmp_path)
        trainer = make_trainer(task)
        monkeypatch.setattr(trainer, "tokenizers", None)
        with build_batches(task, trainer=trainer) as batches:
            assert next(batches)[0].captions["ids_BET"].shape == (2, 1, 16)


def test_captions_are_padded_and_cut_to_the_models_length(sd1):
    tokenizer = CLIPTokenizer.from_pretrained(sd1, subfolder="tokenizer")
    ids = token_ids(tokenizer, ["", "a red circle", "red " * 100])
    assert ids.shape == (3, 16)
    assert ids.dtype == torch.int64
    assert (ids[:, 0] == tokenizer.bos_token_id).all()
    assert (ids[:, -1] == tokenizer.eos_token_id).all()
    assert len({tuple(row.tolist()) for row in ids}) == 3
