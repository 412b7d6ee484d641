"""One optimizer step against torch's plain lines: gradients, clipping, AdamW, EMA, precision, the fp16 scaler."""

import math
from dataclasses import replace

import pytest
import torch
from diffusers.training_utils import EMAModel

from fakes.torch_runs import applied_gradients, make_micro, make_task, make_trainer, norm_of, randomize
from sdjob.core.errors import UnsoundError
from sdjob.train_torch import step as steps
from sdjob.train_torch.setup import lay_out
from sdjob.train_torch.step import MAX_OVERFLOWS, PendingMetrics, buckets, loss_of

METHODS = ["lora", "full"]


def started(model, **parts):
    """A runner whose every parameter has a gradient."""
    trainer = make_trainer(make_task(model, **parts))
    if trainer.task.job.train.method == "lora":
        randomize(trainer.runner.state.parameters.values())
    return trainer.task, trainer.runner


def plain_gradients(runner, micro):
    loss = loss_of(runner.models, micro)
    return loss, torch.autograd.grad(loss, list(runner.state.parameters.values()))


class TestClipping:
    @pytest.mark.parametrize("method", METHODS)
    def test_the_norm_after_it_is_the_limit(self, sd1, method):
        task, runner = started(sd1, method=method, train={"optimizer": {"max_grad_norm": 1e-3}})
        micro = make_micro(task, step=0, rows=range(2))
        before = norm_of(plain_gradients(runner, micro)[1])
        assert before > 2e-3, "else nothing is clipped"
        after = norm_of(applied_gradients(runner, [micro]).values())
        assert after <= 1e-3 * (1 + 1e-6)
        assert after == pytest.approx(1e-3 * before / (before + 1e-6), rel=1e-5)

    def test_below_the_limit_nothing_changes(self, sd1):
        task, runner = started(sd1, train={"optimizer": {"max_grad_norm": 1e6}})
        micro = make_micro(task, step=0, rows=range(2))
        wanted = plain_gradients(runner, micro)[1]
        for gradient, plain in zip(applied_gradients(runner, [micro]).values(), wanted, strict=True):
            assert torch.equal(gradient, plain)

    def test_null_does_not_clip(self, sd1):
        task, runner = started(sd1, train={"optimizer": {"max_grad_norm": None}})
        randomize(runner.state.parameters.values(), scale=3.0)
        micro = make_micro(task, step=0, rows=range(2))
        wanted = plain_gradients(runner, micro)[1]
        assert norm_of(wanted) > 1.0, "the default limit would clip"
        for gradient, plain in zip(applied_gradients(runner, [micro]).values(), wanted, strict=True):
            assert torch.equal(gradient, plain)

    def test_the_metrics_tell_the_norm_before_it(self, sd1):
        task, runner = started(sd1, train={"optimizer": {"max_grad_norm": 1e-3}})
        micro = make_micro(task, step=0, rows=range(2))
        loss, gradients = plain_gradients(runner, micro)
        loss = loss.detach()
        metrics = runner.run([micro], step=0, stop_wanted=False).read()
        assert metrics.loss == pytest.approx(float(loss), rel=1e-6)
        assert metrics.grad_norm == pytest.approx(norm_of(gradients), rel=1e-5)


OPTIMIZER = {"learning_rate": 1e-2, "betas": [0.8, 0.95], "weight_decay": 0.1, "epsilon": 1e-6, "max_grad_norm": 0.01}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_steps_equal_torchs_own_loop(request, family, method):
    """Three AdamW steps with clipping and warm-up, written out with torch's unfused, unvectorised optimizer."""
    model = request.getfixturevalue(family)
    schedule = {"name": "constant_with_warmup", "warmup_steps": 4}
    task, runner = started(model, method=method, train={"optimizer": OPTIMIZER, "schedule": schedule})
    _, plain = started(model, method=method, train={"optimizer": OPTIMIZER})
    parameters = list(plain.state.parameters.values())
    adamw = torch.optim.AdamW(parameters, lr=1.0, betas=(0.8, 0.95), weight_decay=0.1, eps=1e-6, foreach=False, fused=False)
    for step in range(3):
        micro = make_micro(task, step=step, rows=range(2))
        metrics = runner.run([micro], step=step, stop_wanted=False).read()
        assert metrics.learning_rate == pytest.approx(1e-2 * step / 4)
        adamw.param_groups[0]["lr"] = 1e-2 * step / 4
        loss_of(plain.models, micro).backward()
        norm = norm_of(p.grad for p in parameters if p.grad is not None)
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad *= min(1.0, 0.01 / (norm + 1e-6))
        adamw.step()
        adamw.zero_grad()
    for (name, ours), theirs in zip(runner.state.parameters.items(), parameters, strict=True):
        assert ours.detach() == pytest.approx(theirs.detach(), abs=1e-5, rel=1e-4), name


class TestAccumulation:
    @pytest.mark.parametrize("method", METHODS)
    def test_two_micro_steps_of_two_are_one_of_four(self, sd1, method):
        options = {"method": method, "train": {"optimizer": {"max_grad_norm": None}}}
        task, whole = started(sd1, **options)
        _, parts = started(sd1, **options)
        at_once = applied_gradients(whole, [make_micro(task, step=0, rows=range(4))])
        halves = [make_micro(task, step=0, rows=range(2)), make_micro(task, step=0, rows=range(2, 4))]
        in_two = applied_gradients(parts, halves)
        assert norm_of(at_once.values()) > 1e-3
        for name, gradient in at_once.items():
            assert in_two[name] == pytest.approx(gradient, abs=1e-6), name

    def test_the_loss_is_their_mean(self, sd1):
        task, runner = started(sd1)
        halves = [make_micro(task, step=0, rows=range(2)), make_micro(task, step=0, rows=range(2, 4))]
        with torch.no_grad():
            wanted = sum(float(loss_of(runner.models, half)) for half in halves) / 2
        assert runner.run(halves, step=0, stop_wanted=False).read().loss == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_gradient_checkpointing_changes_memory_and_not_gradients(sd1, method):
    wanted, gradients = (
        plain_gradients(runner, make_micro(task, step=0, rows=range(2)))[1]
        for task, runner in (
            started(sd1, method=method),
            started(sd1, method=method, train={"gradient_checkpointing": True}),
        )
    )
    assert norm_of(wanted) > 1e-3
    for checkpointed, plain in zip(gradients, wanted, strict=True):
        assert checkpointed == pytest.approx(plain, abs=1e-6)


def test_gradient_checkpointing_is_on_where_it_is_asked_for(sd1):
    on, off = (started(sd1, train={"gradient_checkpointing": asked})[1].models.unet for asked in (True, False))
    assert on.is_gradient_checkpointing
    assert on.training, "diffusers checkpoints in training mode alone"
    assert not off.is_gradient_checkpointing


class TestDropout:
    def gradients(self, model, *, step, micro_steps=1, dropout=0.5, dirt=0):
        task, runner = started(model, train={"lora": {"dropout": dropout}})
        torch.manual_seed(dirt)  # what the process did before must not matter
        micro = make_micro(task, step=0, rows=range(2))  # the same pictures and draws: only the dropout differs
        found = applied_gradients(runner, [micro] * micro_steps, step=step)
        return torch.cat([gradient.flatten() for gradient in found.values()])

    def test_a_step_is_the_same_again_and_another_step_is_not(self, sd1):
        first = self.gradients(sd1, step=5)
        assert torch.equal(first, self.gradients(sd1, step=5, dirt=1))
        assert not torch.equal(first, self.gradients(sd1, step=6))

    def test_micro_steps_differ(self, sd1):
        """Twice the same pictures: equal masks would give the gradients of one micro-step again."""
        assert not torch.allclose(self.gradients(sd1, step=5), self.gradients(sd1, step=5, micro_steps=2), rtol=1e-4, atol=0)

    def test_without_dropout_all_steps_are_alike(self, sd1):
        assert torch.equal(self.gradients(sd1, step=5, dropout=0.0), self.gradients(sd1, step=6, dropout=0.0, dirt=1))


@pytest.mark.parametrize("method", METHODS)
def test_ema_equals_diffusers_stepping_by_hand(sd1, method):
    task, runner = started(sd1, method=method, train={"optimizer": {"learning_rate": 1e-2}})
    parameters = list(runner.state.parameters.values())
    by_hand, runner.state.ema = (
        EMAModel([torch.nn.Parameter(p.detach().clone()) for p in parameters], decay=0.3) for _ in range(2)
    )
    for step in range(5):
        runner.run([make_micro(task, step=step, rows=range(2))], step=step, stop_wanted=False)
        by_hand.step([torch.nn.Parameter(p.detach().clone()) for p in parameters])
    moved = 0
    for ours, theirs, live in zip(runner.state.ema.shadow_params, by_hand.shadow_params, parameters, strict=True):
        assert torch.equal(ours, theirs)
        moved += not torch.equal(ours, live)
    assert moved > 0, "the average must lag behind the weights"
    assert runner.state.ema.optimization_step == 5


class TestPrecision:
    @pytest.mark.parametrize("method", METHODS)
    def test_bf16_computes_narrow_and_keeps_wide(self, sd1, method):
        task, runner = started(sd1, method=method, train={"precision": "bf16", "ema": {"decay": 0.5}})
        dtypes = set()
        hook = runner.models.unet.conv_in.register_forward_hook(lambda _module, _inputs, out: dtypes.add(out.dtype))
        gradients = applied_gradients(runner, [make_micro(task, step=0, rows=range(2))])
        hook.remove()
        assert dtypes == {torch.bfloat16}
        state = runner.state
        assert {g.dtype for g in gradients.values()} == {torch.float32}
        assert {p.dtype for p in state.parameters.values()} == {torch.float32}
        assert {t.dtype for s in state.optimizer.state.values() for t in s.values()} == {torch.float32}
        assert runner.models.vae.dtype == runner.models.text.parts["text_encoder"].dtype == torch.bfloat16

    @pytest.mark.parametrize("method", METHODS)
    def test_bf16_gradients_are_those_of_fp32_to_its_rounding(self, sd1, method):
        narrow, wide = (
            applied_gradients(runner, [make_micro(task, step=0, rows=range(2))])
            for task, runner in (started(sd1, method=method, train={"precision": p}) for p in ("bf16", "fp32"))
        )
        difference = norm_of(narrow[name] - wide[name] for name in wide)
        assert 0 < difference < 0.1 * norm_of(wide.values())

    def test_full_in_bf16_moves_masters_by_less_than_bf16_could(self, sd1):
        task, runner = started(sd1, method="full", train={"precision": "bf16", "optimizer": {"learning_rate": 1e-7}})
        name, parameter = next((n, p) for n, p in runner.state.parameters.items() if n.endswith("norm1.weight"))
        before = parameter.detach().clone()
        runner.run([make_micro(task, step=0, rows=range(2))], step=0, stop_wanted=False)
        assert not torch.equal(parameter, before), name
        assert torch.equal(parameter.bfloat16(), before.bfloat16())


def too_large(task):
    """A micro-batch whose loss is finite, but times 2^127 no longer is."""
    micro = make_micro(task, step=0, rows=range(2))
    return replace(micro, loss_weight_B=1e4 * micro.loss_weight_B)


class TestLossScaling:
    """fp16 itself needs an accelerator; its scaler is plain arithmetic, so it runs here over float32 gradients."""

    def runner(self, model, *, scale):
        task, runner = started(model, train={"optimizer": {"learning_rate": 1e-3}})
        runner.state.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=100)
        return task, runner

    def weights(self, runner):
        return {name: p.detach().clone() for name, p in runner.state.parameters.items()}

    def test_a_scale_that_fits_changes_nothing(self, sd1):
        task, scaled = self.runner(sd1, scale=2.0**10)
        _, plain = started(sd1, train={"optimizer": {"learning_rate": 1e-3}})
        for step in range(2):
            micro = make_micro(task, step=step, rows=range(2))
            ours = scaled.run([micro], step=step, stop_wanted=False).read()
            theirs = plain.run([micro], step=step, stop_wanted=False).read()
            assert (ours.loss, ours.overflows) == (theirs.loss, 0)
            assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-6)
        for name, values in self.weights(scaled).items():
            assert values == pytest.approx(plain.state.parameters[name].detach(), abs=1e-7)

    def test_an_overflow_skips_the_step_halves_the_scale_and_is_counted(self, sd1):
        task, runner = self.runner(sd1, scale=2.0**127)
        before = self.weights(runner)
        micro = too_large(task)
        first = runner.run([micro], step=0, stop_wanted=False).read()
        second = runner.run([micro], step=1, stop_wanted=False).read()
        assert (first.overflows, second.overflows) == (1, 2)
        assert runner.state.scaler is not None
        assert runner.state.scaler.get_scale() == 2.0**125
        assert all(torch.equal(values, before[name]) for name, values in self.weights(runner).items())
        # What a save would carry: a sound state, whose step applied no gradient.
        assert math.isfinite(first.loss)
        assert first.grad_norm == 0.0

    def test_a_good_step_ends_the_count(self, sd1):
        task, runner = self.runner(sd1, scale=2.0**127)
        assert runner.run([too_large(task)], step=0, stop_wanted=False).read().overflows == 1
        micro = make_micro(task, step=0, rows=range(2))
        runner.state.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
        before = self.weights(runner)
        assert runner.run([micro], step=1, stop_wanted=False).read().overflows == 0
        assert any(not torch.equal(values, before[name]) for name, values in self.weights(runner).items())

    def test_fifty_in_a_row_end_the_run(self, sd1):
        task, runner = self.runner(sd1, scale=2.0**127)
        runner.overflows = MAX_OVERFLOWS - 1
        with pytest.raises(UnsoundError, match=r"50 steps in a row.*bf16"):
            runner.run([too_large(task)], step=0, stop_wanted=False)


class TestDivergence:
    @pytest.mark.parametrize("figures", [(math.nan, 0.0, 0.0, 1.0), (0.1, 0.0, 0.0, math.inf), (math.inf, 0.0, 0.0, math.nan)])
    def test_what_is_not_finite_ends_the_run(self, figures):
        pending = PendingMetrics(torch.tensor(figures, dtype=torch.float64), learning_rate=0.1, step=6, overflows=0)
        with pytest.raises(UnsoundError, match="at step 7: training has diverged"):
            pending.read()

    def test_an_infinite_learning_rate_is_noticed_in_the_next_step(self, sd1):
        task, runner = started(sd1, train={"optimizer": {"learning_rate": 1e38, "max_grad_norm": None}})
        runner.run([make_micro(task, step=0, rows=range(2))], step=0, stop_wanted=False).read()
        with pytest.raises(UnsoundError, match="diverged"):
            runner.run([make_micro(task, step=1, rows=range(2))], step=1, stop_wanted=False).read()


@pytest.mark.parametrize(("sizes", "limit"), [([3, 3, 3, 3], 6), ([10, 1, 1], 4), ([1], 4), ([], 4), ([2, 5, 1, 9], 100)])
def test_buckets_keep_the_order_and_lose_nothing(monkeypatch, sizes, limit):
    monkeypatch.setattr(steps, "BUCKET_NUMEL", limit)
    tensors = [torch.full((size,), float(number)) for number, size in enumerate(sizes)]
    made = list(buckets(tensors))
    assert [id(t) for bucket in made for t in bucket] == [id(t) for t in tensors]
    assert all(sum(t.numel() for t in bucket) >= limit for bucket in made[:-1])
    assert all(sum(t.numel() for t in bucket[:-1]) < limit for bucket in made)


def test_a_stop_request_travels_with_the_figures(sd1):
    task, runner = started(sd1)
    micro = make_micro(task, step=0, rows=range(2))
    assert not runner.run([micro], step=0, stop_wanted=False).read().stop
    assert runner.run([micro], step=1, stop_wanted=True).read().stop


class TestFigures:
    def test_on_the_cpu_they_are_here(self, sd1):
        task, runner = started(sd1)
        assert runner.run([make_micro(task, step=0, rows=range(2))], step=0, stop_wanted=False).is_here

    def test_those_on_their_way_are_waited_for_and_nothing_else_is(self):
        """As from a GPU: the host's copy is filled when its own event says so, whatever else is queued by then."""
        on_host = torch.full((4,), math.nan, dtype=torch.float64)

        class Arrival:
            def synchronize(self):
                on_host.copy_(torch.tensor([0.5, 1.0, 0.0, 0.25]))

        pending = PendingMetrics(on_host, learning_rate=0.1, step=6, overflows=0, arrival=Arrival())
        assert not pending.is_here
        metrics = pending.read()
        assert (metrics.loss, metrics.stop, metrics.grad_norm) == (0.5, True, 0.25)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_memory_changes_nothing_but_rounding_and_resumes(sd1, tmp_path, method):
    """Channels last as on CUDA: the same state after three steps, one of them after a restore."""
    options = {"method": method, "train": {"optimizer": {"learning_rate": 1e-3, "epsilon": 1e-4}, "ema": {"decay": 0.5}}}
    task = make_task(sd1, **options)
    plain, straight, resumed = (make_trainer(task) for _ in range(3))
    micros = [make_micro(task, step=step, rows=range(2)) for step in range(3)]

    def train(trainer, steps):
        for step in steps:
            metrics = trainer.step([micros[step]], step=step, stop_wanted=False).read()
        return metrics

    plain.runner.models.unet.to(memory_format=torch.contiguous_format)
    for trainer in (straight, resumed):
        lay_out(trainer.runner.models.unet)
    assert straight.runner.models.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    train(plain, range(3))
    metrics = train(straight, range(2))
    straight.snapshot(step=2, metrics=metrics).write_into(tmp_path)
    resumed.load(checkpoint=tmp_path, init_from=None)
    train(straight, [2])
    train(resumed, [2])
    for name, parameter in straight.runner.state.parameters.items():
        assert torch.equal(parameter, resumed.runner.state.parameters[name]), name
        assert parameter.detach() == pytest.approx(plain.runner.state.parameters[name].detach(), abs=1e-5), name
