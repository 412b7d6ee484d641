"""Of the trainers' state, of what decides a step, of held-out losses and of spread state."""

from mutants.mutant import all_of

TORCH_TESTS = ("tests/unit/train_torch/test_state.py",)
SPREAD_TESTS = ("tests/unit/diffusion/test_parts.py", "tests/unit/test_loop_spread.py", "tests/unit/job/test_parts.py")
GANG_TESTS = ("tests/unit/train_torch/test_sharding.py",)
FLAX_TESTS = ("tests/unit/train_flax/test_state.py",)
HELD_OUT_UNIT = (
    "tests/unit/data/test_held_out.py",
    "tests/unit/data/test_roles.py",
    "tests/unit/diffusion/test_held_out_draws.py",
)
HELD_OUT_PARITY = ("tests/parity/test_flax_held_out.py",)
POSITION_TESTS = ("tests/unit/test_loop.py", "tests/unit/data", "tests/unit/core/test_streams.py")

TORCH = all_of(
    "runner/sdjob/train_torch/state.py",
    TORCH_TESTS,
    ("EMA is not saved", '            files[self.file("ema")] = ', '            files[self.file("weights")] = '),
    ("EMA is not restored", '            shadow.copy_(averages[f"ema.{name}"])', "            pass"),
    ("EMA's count is not restored", '        state.ema.optimization_step = scalars["ema_count"]', "        pass"),
    ("the optimizer's count is not saved", '"optimizer_count": optimizers.count_of(state.optimizer),', '"optimizer_count": 0.0,'),
    ("the loss scale is not saved", '"loss_scale": state.scaler.state_dict() if state.scaler else None,', '"loss_scale": None,'),
    ("the loss scale is not restored", '        state.scaler.load_state_dict(scalars["loss_scale"])', "        pass"),
    ("the weights are not restored", "            parameter.copy_(weights[name])", "            pass"),
    ("other parameters are taken", "    if set(own) != set(given):", "    if False:"),
)  # fmt: skip

TORCH_ARENA = all_of(
    "runner/sdjob/train_torch/arena.py",
    TORCH_TESTS,
    ("a snapshot is no copy", "return self._room(name, tensor).copy_(tensor.detach(), non_blocking=True)", "return tensor.detach()"),
    ("a snapshot does not wait for its room", "            self._reserving.result()\n", ""),
)  # fmt: skip

TORCH_OPTIMIZER = all_of(
    "runner/sdjob/train_torch/optimizer.py",
    TORCH_TESTS,
    ("one moment is saved twice", '"v": ("exp_avg_sq", "state2"),', '"v": ("exp_avg", "state2"),'),
    ("one moment is not restored", "placed(tensor, like=parameter) for", "placed(torch.zeros_like(tensor) if short == \"v\" else tensor, like=parameter) for"),
    ("the optimizer's count is one too many", "step = torch.tensor(count,", "step = torch.tensor(count + 1,"),
)  # fmt: skip

FLAX = all_of(
    "runner/sdjob/train_flax/state.py",
    FLAX_TESTS,
    ("flax: EMA is not saved", '        files["ema.safetensors"] = on_host(state.averages, prefix="ema.")', '        files["ema.safetensors"] = on_host(state.parameters, prefix="ema.")'),
    ("flax: EMA is not restored", 'averages = read_in(stored_tensors(folder, "ema"), paths=paths, put=put_average or put, prefix="ema.")', "averages = start.averages"),
    ("flax: one moment is saved twice", 'on_host(tensors, prefix=f"{OPTIMIZER}{slot}.")', 'on_host(next(iter(state.moments.values())), prefix=f"{OPTIMIZER}{slot}.")'),
    ("flax: one moment is not restored", "for slot, own in kept.items()}", "for slot, own in {**kept, \"v\": start.moments[\"v\"]}.items()}"),
    ("flax: the optimizer's count is one too many", 'count=int(scalars["optimizer_count"])', 'count=int(scalars["optimizer_count"]) + 1'),
    ("flax: the count is not saved", '"optimizer_count": float(count)', '"optimizer_count": 0.0'),
    ("flax: the weights are not restored", "state = TrainState(parameters, ", "state = TrainState(start.parameters, "),
    ("flax: layouts are not turned", "torchs = slot_to_torch(slot, values, path=self.paths[without_kind(name)])", "torchs = values"),
    ("flax: other parameters are taken", "    if stored.keys() != start.parameters.keys():", "    if False:"),
)  # fmt: skip

POSITION = [
    *all_of(
        "runner/sdjob/loop.py",
        POSITION_TESTS,
        ("a resumed run begins one step late", "enumerate(batches, start=self.plan.start_step)", "enumerate(batches, start=self.plan.start_step + 1)"),
        ("a save bears the step before", "metrics=metrics), step=done, metrics", "metrics=metrics), step=done - 1, metrics"),
        ("a save that is still on its way is run over", "        elif self.is_busy:", "        elif False:"),
        ("the last save is not waited for", "        self.saver.finish()\n        return \"finished\"", "        return \"finished\""),
        ("a peer's stop is not heard", "                stop = self._report(unread).stop\n", "                self._report(unread)\n"),
    ),
    *all_of(
        "runner/sdjob/core/streams.py",
        POSITION_TESTS,
        ("every step draws the same", "counter = [0, *counters, *([0] * (3 - len(counters)))]", "counter = [0, 0, *counters[1:], *([0] * (3 - len(counters)))]"),
        ("every name draws the same", 'hashlib.sha256(name.encode())', 'hashlib.sha256(b"name")'),
    ),
    *all_of(
        "runner/sdjob/data/order.py",
        POSITION_TESTS,
        ("every epoch has the same order", 'stream(seed, name, epoch)', 'stream(seed, name, 0)'),
    ),
    *all_of(
        "runner/sdjob/data/batch_order.py",
        POSITION_TESTS,
        ("batches are sorted by size", 'stream(seed, "bucket order", epoch).permutation(np.column_stack((buckets, numbers)))', "np.column_stack((buckets, numbers))"),
        ("a bucket's remainder is dropped", "spans = [(epoch * count // global_batch, (epoch + 1) * count // global_batch)", "spans = [(epoch * (count // global_batch), (epoch + 1) * (count // global_batch))"),
    ),
    *all_of(
        "runner/sdjob/data/prefetch.py",
        POSITION_TESTS,
        ("batches begin one step late", "self._steps = iter(range(start, stop))", "self._steps = iter(range(start + 1, stop + 1))"),
    ),
]  # fmt: skip

HELD_OUT = [
    *all_of(
        "runner/sdjob/data/held_out.py",
        HELD_OUT_UNIT,
        ("what fills a held-out batch up counts", "counts=number < len(pool) * self.num_levels)", "counts=True)"),
        ("held-out captions are dropped", "caption_choice=0,", "caption_choice=None,"),
        ("held-out pictures are mirrored", "flipped=False)", "flipped=True)"),
    ),
    *all_of(
        "runner/sdjob/data/roles.py",
        HELD_OUT_UNIT,
        ("a copy of a held-out picture is trained on", "own & ~np.isin(index.content, index.content[held_out]) if len(held_out) else own", "own & ~apart"),
    ),
    *all_of(
        "runner/sdjob/diffusion/held_out_draws.py",
        HELD_OUT_UNIT,
        ("held-out noise is the run's own", "stream(0, name,", "stream(self.plan.seed, name,"),
        ("held-out noise is the same at every level", '"held-out noise", key.content, key.level,', '"held-out noise", key.content,'),
        ("held-out levels are the beginnings of their parts", "(level + 0.5)", "level"),
    ),
    *all_of(
        "runner/sdjob/encodings/held_out.py",
        HELD_OUT_PARITY,
        ("the held-out loss is the mean of batches", "total * self.order.global_batch / self.order.num_rows", "total / self.order.num_batches"),
        ("held-out noise goes by the picture's number", "HeldOutKey(int(index.content[row.picture]),", "HeldOutKey(row.picture,"),
    ),
    *all_of(
        "runner/sdjob/train_torch/held_out.py",
        HELD_OUT_PARITY,
        ("the held-out loss is not of the averaged weights", "with trainer.averaged_weights(), accelerator.autocast(), ", "with accelerator.autocast(), "),
    ),
    *all_of(
        "runner/sdjob/train_flax/held_out.py",
        HELD_OUT_PARITY,
        ("flax: the held-out loss is not of the averaged weights", "runner.state.parameters if runner.state.averages is None else runner.state.averages", "runner.state.parameters"),
    ),
]  # fmt: skip

SPREAD = [
    *all_of(
        "runner/sdjob/diffusion/parts.py",
        SPREAD_TESTS,
        ("parts in the wrong order", "for name in names], file=whole.name)", "for name in names[::-1]], file=whole.name)"),
        ("a missing part is not noticed", "    if not names or names != wanted:", "    if not names:"),
    ),
    *all_of(
        "runner/sdjob/loop.py",
        SPREAD_TESTS,
        ("each rank has a clock of its own", "self._every_seconds_told() if self.plan.is_spread else self._every_seconds()", "self._every_seconds()"),
        ("each rank asks its own parent", "SaveWord.BUSY in self.heard if self.plan.is_spread else self.link.saving", "self.link.saving"),
    ),
    *all_of(
        "runner/sdjob/job/parts.py",
        SPREAD_TESTS,
        ("a save is whole with its first part", "if len(told) < self.num_writers:", 'if "folder" not in fields:'),
        ("a part that failed is committed without", "if failed is None else {**of_all", "if True else {**of_all"),
    ),
    *all_of(
        "runner/sdjob/train_torch/sharding.py",
        GANG_TESTS,
        ("each rank clips by its own norm", "        torch.distributed.all_reduce(squared)\n", ""),
        ("all ranks read the first one's rows", "stored.rows(self.rows[name].start, self.rows[name].stop)", "stored.rows(0, self.rows[name].stop - self.rows[name].start)"),
        ("of the moments one rank's alone are saved", "part_file(kind, rank=self.rank,", 'part_file(kind, rank=0 if kind == "optimizer" else self.rank,'),
        ("gradients are added to those of the step before", "spread_one.grad.to_local(), None", "spread_one.grad.to_local().clone(), spread_one.grad"),
    ),
]  # fmt: skip

TRAINING = [*TORCH, *TORCH_ARENA, *TORCH_OPTIMIZER, *FLAX, *POSITION, *HELD_OUT, *SPREAD]
