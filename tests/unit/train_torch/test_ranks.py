"""Real gloo processes: they train as one does on the whole batch, and a resumed gang as the straight one, bit for bit."""

from safetensors.torch import load_file

from fakes.torch_gang import Phase, run_gang
from fakes.torch_runs import applied_gradients, make_micro, make_task, make_trainer, norm_of, randomize

TRAIN = {"global_batch": 12, "optimizer": {"learning_rate": 1e-3, "max_grad_norm": None}, "ema": {"decay": 0.9}}


def bytes_of(files):
    return {file.name: file.read_bytes() for file in files}


def test_a_gang_trains_as_one_process_and_resumes_bit_for_bit(sd1, tmp_path):
    """Three ranks: with two, the order of an addition cannot matter."""
    ranks, method = 3, "full"
    task = make_task(sd1, method=method, train={**TRAIN, "device_batch": 2})  # two micro-steps
    straight = tmp_path / "straight"
    run_gang(Phase(task, straight, 0, 2), ranks=ranks)

    # The mean over the ranks is the gradient of the whole batch, and the same on every rank.
    alone = make_trainer(make_task(sd1, method=method, train={**TRAIN, "device_batch": 12}))
    randomize(alone.runner.state.parameters.values())
    wanted = applied_gradients(alone.runner, [make_micro(task, step=0, rows=range(12))])
    of_ranks = [load_file(straight / f"gradients-0-{rank}.safetensors") for rank in range(ranks)]
    scale = norm_of(wanted.values())
    for name, gradient in wanted.items():
        for found in of_ranks:
            assert norm_of([found[name] - gradient]) <= 1e-5 * norm_of([gradient]) + 1e-6 * scale, name
        assert all(found[name].equal(of_ranks[0][name]) for found in of_ranks), name

    resumed = tmp_path / "resumed"
    run_gang(Phase(task, resumed, 1, 2, straight / "state-1"), ranks=ranks)
    assert bytes_of((resumed / "state-2").iterdir()) == bytes_of((straight / "state-2").iterdir())
    gradients = bytes_of(straight.glob("gradients-1-*"))
    assert bytes_of(resumed.glob("gradients-1-*")) == gradients
    assert len(gradients) == ranks
    assert bytes_of((straight / "state-1").iterdir()) != bytes_of((straight / "state-2").iterdir())
