"""Deliberate breakages of our own code, each with the tests that must notice: one small edit of one file.

A mutant whose text is no longer found exactly once is stale, and `make mutants` fails and says so.
"""

from dataclasses import dataclass

CKPT = "runner/sdjob/ckpt"
UNIT = "tests/unit/ckpt"
SEEDS = tuple(f"tests/simulator/test_schedules.py::test_schedules_from_seeds[{first}]" for first in (0, 250, 500))
BESIDE = f"{UNIT}/test_beside_a_run.py"
ENGINE_UNIT, DAMAGE, POLICY, HISTORY = (f"{UNIT}/test_{name}.py" for name in ("engine", "damage", "policy", "history"))
SLOT = f"{UNIT}/test_slot.py"
TROUBLES = "tests/simulator/test_schedules.py::test_all_short_histories[troubles]"
# The likeliest first: the first failure is enough.
PRUNE, TROUBLE = f"{UNIT}/test_prune.py", f"{UNIT}/test_trouble.py"
CKPT_TESTS = (ENGINE_UNIT, TROUBLE, PRUNE, BESIDE, *SEEDS, DAMAGE, TROUBLES)
BLOBS_TESTS = (BESIDE, DAMAGE, *SEEDS, ENGINE_UNIT, TROUBLE, PRUNE, TROUBLES)
PRUNE_TESTS = (PRUNE, *SEEDS, ENGINE_UNIT, TROUBLE)
LOCAL_TESTS = ("tests/unit/store/test_local.py", "tests/contract/test_stores.py", "-k", "local")
SAVES_TESTS = ("tests/unit/job/test_saves.py", "tests/simulator/test_schedules.py::test_schedules_from_seeds[0]")
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


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    survives: str = ""
    """Why no test can notice, where that is so."""


def _all(file: str, tests: tuple[str, ...], *mutants: tuple[str, str, str] | tuple[str, str, str, str]) -> list[Mutant]:
    return [Mutant(name, file, old, new, tests, *survives) for name, old, new, *survives in mutants]


STORE = _all(
    "runner/sdjob/store/local.py",
    LOCAL_TESTS,
    ("no fsync of the bytes", "os.fsync(file.fileno())", "file.fileno()"),
    ("no fsync of the name", "                _sync_folder(final.parent)\n", ""),
    ("no fsync of a new folder's name", "        _sync_folder(path.parent)\n", ""),
    ("create by rename", "fill=lambda file: _write_all(file, data), publish=_link)", "fill=lambda file: _write_all(file, data), publish=os.replace)"),
    ("an existing name is a success", "        except _NameTakenError:\n            return False", "        except _NameTakenError:\n            return True"),
    ("the file written aside is left", "                aside.unlink(missing_ok=True)", "                pass"),
    ("a missing key cannot be deleted", "self._path(key).unlink(missing_ok=True)", "self._path(key).unlink()"),
    ("a linked folder lists as empty", "entry.is_dir()", "entry.is_dir(follow_symlinks=False)"),
    ("a folder that may not be read lists as empty", "        except ObjectMissingError:\n            return []", "        except (ObjectMissingError, ObjectDeniedError):\n            return []"),
    ("files of living writers are swept", "> ABANDONED_AFTER_S:", "> -1:"),
    ("what others left is never swept", "                    left.unlink()", "                    pass"),
    ("a busy disk is a broken one", "return TransientStoreError(f\"the file system is busy", "return StorageError(f\"the file system is busy"),
    ("a write's missing folder is a missing object", "if error.errno in MISSING and may_miss:", "if error.errno in MISSING:"),
    ("what is read is not shown", "                if on_chunk is not None:\n                    on_chunk(chunk)\n", ""),
    ("a temporary file is an object", "            if entry.name == TEMPORARY_FOLDER:\n                continue\n", "", "listed_key passes it over as well"),
)  # fmt: skip

JOURNAL = _all(
    f"{CKPT}/journal.py",
    CKPT_TESTS,
    ("nonce ignored, not ours", "return isinstance(found, Slot) and found.nonce == slot.nonce", "return False"),
    ("nonce ignored, ours", "return isinstance(found, Slot) and found.nonce == slot.nonce", "return True"),
    ("a newer claim does not fence", "if self.history.epoch > claim.epoch:", "if False:"),
    ("a damaged slot cannot be a claim", "if damaged.number > claim.number:", "if False:"),
    ("a gap is the end", "if self.history.head < last_named:", "if False:"),
    ("blobs without a log are a fresh run", "if has_blobs and not self.history.slots:", "if False:"),
    ("no epoch of one's own", "else self.history.epoch_bound + 1", "else max(1, self.history.epoch_bound)"),
    ("damaged slots do not count as claims", "else self.history.epoch_bound + 1", "else self.history.epoch + 1"),
    ("a slot is read once", "        for _ in range(2):\n            try:\n                return decode", "        for _ in range(1):\n            try:\n                return decode"),
    ("a hint that cannot be written ends the run", "except (StorageError, DeniedError) as error:  # the slot", "except ZeroDivisionError as error:  # the slot"),
    ("a damaged hint ends the run", "except (ObjectMissingError, DamagedSlotError):", "except ObjectMissingError:"),
    ("a number is passed over", "number, time_s = self.history.next_number, round", "number, time_s = self.history.next_number + 1, round"),
    ("what others wrote is not read", "                return slot\n            self.catch_up()\n", "                return slot\n            raise StorageError(\"refused\")\n"),
    ("the holder is not asked for before a try", "                self.require_holder(holder)\n", "                pass\n"),
    ("the history is not read anew", "        self.history = History()\n        if last_named", "        if last_named"),
)  # fmt: skip

BLOBS = _all(
    f"{CKPT}/blobs.py",
    BLOBS_TESTS,
    ("a download is believed", "            if (sha256, size_bytes) == (file.sha256, file.size_bytes):\n                return", "            if sha256:\n                return"),
    ("only the size of a download counts", "            if (sha256, size_bytes) == (file.sha256, file.size_bytes):\n                return", "            if size_bytes == file.size_bytes:\n                return"),
    ("a manifest is believed", "if hashlib.sha256(data).hexdigest() == commit.manifest:", "if data:"),
    ("slot and manifest may differ", "if (manifest.digest, manifest.step) != (commit.digest, commit.step) or", "if"),
    ("files need not add up to the digest", " or snapshot_digest(manifest.files) != commit.digest:", ":"),
    ("an upload is believed", "            if self._has(key, size_bytes=size_bytes):\n                return", "            if True:\n                return"),
    ("an upload is tried once", "        for _ in range(2):\n            write()", "        for _ in range(1):\n            write()"),
    ("a blob of another size is reused", "return info is not None and info.size_bytes == size_bytes", "return info is not None"),
    ("a blob is reused unseen", "if key is not None and self._has(key, size_bytes=file.size_bytes):", "if key is not None and (key != own_key or self._has(key, size_bytes=file.size_bytes)):"),
    ("a blob is read once", "        for _ in range(2):\n            try:\n                sha256, size_bytes =", "        for _ in range(1):\n            try:\n                sha256, size_bytes ="),
    ("a manifest is read once", "        for _ in range(2):\n            try:\n                data =", "        for _ in range(1):\n            try:\n                data ="),
    ("a deleted key is used again", "        while key in self._deleted:", "        while False:"),
    ("all uploads are of the first epoch", "    return f\"blob/{epoch}/{sha256}\"", "    return f\"blob/1/{sha256}\""),
    ("a damaged download is left in its folder", "            for path in paths.values():\n                path.unlink(missing_ok=True)\n            raise", "            raise"),
)  # fmt: skip

ENGINE = _all(
    f"{CKPT}/engine.py",
    CKPT_TESTS,
    ("the oldest is restored", "commit = self._journal.history.live[0]", "commit = self._journal.history.live[-1]"),
    ("damage ends the restore", "                self._quarantine(commit, why=str(damage))", "                raise"),
    ("nothing whole is a fresh start", "if self._journal.history.commits or self._journal.history.damaged:", "if False:"),
    ("a loss that is not finite is committed", "        refuse_unsound(facts, step=step)\n", ""),
    ("the slot before the manifest", "sha256, manifest_bytes = self.blobs.upload_manifest(manifest, epoch=claim.epoch)", "sha256, manifest_bytes = __import__(\"hashlib\").sha256(manifest.to_bytes()).hexdigest(), 0"),
    ("deleted before retired", "        self._retire(retiring, claim=claim)\n        self._clock", "        left = {c: self.manifest_of(c) for c in self._journal.history.live if c not in retiring}\n        doomed = orphans(self._store.keys(\"blob/\"), manifests=left, epoch=claim.epoch)\n        sweep(doomed, blobs=self.blobs, still_owner=self.still_owner)\n        self._retire(retiring, claim=claim)\n        self._clock"),
    ("nothing is retired", "        self._retire(retiring, claim=claim)\n        self._clock", "        self._clock"),
    ("no retire slot settles the number", "range(0, max(len(retiring), 1), RETIRED_PER_SLOT)", "range(0, len(retiring), RETIRED_PER_SLOT)"),
    ("blobs of retired commits are reused", "        for commit in self._journal.history.live:\n            try:\n                files", "        for commit in self._journal.history.commits:\n            try:\n                files"),
    ("done without its commit", "if newest is None or (newest.step, newest.digest) != (step, digest):", "if newest is None:"),
    ("the owner is not looked for", "        self._journal.catch_up()\n        self._journal.require_holder(claim)", "        self._journal.require_holder(claim)"),
    ("a swept zombie blames the store", "            self.still_owner()  # a newer", "            pass  # a newer"),
    ("what was pruned is called damaged", " if slot in live}:", "}:"),
    ("a reader takes no older commit", "[c for c in self.replay().live if c.slot not in damage and step in {None, c.step}]", "[c for c in self.replay().live if not damage and step in {None, c.step}]"),
    ("a quarantined commit is named wrongly", "QuarantineSlot(**stamp, slot=commit.slot, why=reason)", "QuarantineSlot(**stamp, slot=commit.slot + 1, why=reason)"),
    ("the step of a commit is one too many", "CommitSlot(**stamp, step=step, manifest=sha256", "CommitSlot(**stamp, step=step + 1, manifest=sha256"),
    ("an unreadable manifest names nothing", "            return []\n        return orphans", "            manifests = {}\n        return orphans"),
    ("claimed without a look", "        self.replay()\n        self._claim = ", "        self._claim = ", "a claim that is refused reads on to the end of the log, so it needs no look before"),
)  # fmt: skip

PURE = [
    *_all(
        f"{CKPT}/engine.py",
        (f"{UNIT}/test_long_run.py",),
        ("manifests of pruned commits are kept", "        self._forget_pruned()\n", ""),
    ),
    *_all(
        f"{CKPT}/prune.py",
        PRUNE_TESTS,
        ("pruned without a look", "        still_owner()\n", ""),
        ("blobs of every epoch are pruned", "(blob_epoch(key) or 0) in range(1, epoch + 1)]", "True]"),
        ("live manifests are pruned", "named = {blob_key(commit.manifest, epoch=commit.epoch) for commit in manifests}", "named = set[str]()"),
        ("live files are pruned", "    named.update(file.blob for manifest in manifests.values() for file in manifest.files.values())\n", ""),
        ("superseded commits stay", 'if commit.state == "superseded" or (commit', 'if False or (commit'),
        ("the final step is not known", "final_step = history.done.step if history.done else None", "final_step = None", "a run that is done ends in its newest commit, which is kept anyway"),
        ("only the first batch goes", "range(0, len(keys), BATCH)", "range(0, min(len(keys), 1), BATCH)"),
    ),
    *_all(
        f"{CKPT}/policy.py",
        (POLICY,),
        ("the oldest are kept", "kept = set(steps[-max(keep, 1) :])", "kept = set(steps[: max(keep, 1)])"),
        ("one more is kept", "steps[-max(keep, 1) :]", "steps[-max(keep, 1) - 1 :]"),
        ("none may be kept", "steps[-max(keep, 1) :]", "steps[len(steps) - keep :]"),
        ("every Nth is not kept", "step % keep_every == 0)", "False)"),
        ("the final one may go", " and step != final_step]", "]"),
        ("saves one step late", "any(step % multiple == 0", "any((step - 1) % multiple == 0"),
        ("the last step is not saved", "    if step >= total_steps:\n        return True\n", ""),
        ("a step is saved twice", "    if step <= last_saved_step:\n        return False\n", ""),
        ("the whole notice is used", "SHARE_OF_NOTICE = 0.7", "SHARE_OF_NOTICE = 1.0"),
    ),
    *_all(
        f"{CKPT}/slot.py",
        (SLOT, DAMAGE),
        ("a slot's checksum is not looked at", "if sealed(fields) == data:", "if True:"),
        ("a slot may lie under another number", 'if fields.get("number") != number:', "if False:"),
        ("a slot of any size", "if len(data) > LARGEST_SLOT_BYTES:", "if False:"),
    ),
    *_all(
        f"{CKPT}/history.py",
        (HISTORY, ENGINE_UNIT, PRUNE, TROUBLE, *SEEDS),
        ("a stray commit counts", "stray = slot.epoch < fold.epoch", "stray = False"),
        ("a step stands twice", ".step >= slot.step:", ".step > slot.step:"),
        ("a damaged slot is no claim", "        fold.epoch_bound += 1\n", ""),
        ("a run stays done", "        fold.done = None\n        while", "        while"),
        ("the retired are live", "        fold.live.remove(number)", "        pass"),
        ("done with a damaged state", "fold.done.digest == commit.digest:\n        fold.done = None\n", "fold.done.digest == commit.digest:\n        pass\n"),
    ),
    *_all(
        f"{CKPT}/manifest.py",
        (f"{ENGINE_UNIT}::TestOneAttempt", ENGINE_UNIT, PRUNE, TROUBLE, DAMAGE, *SEEDS),
        ("infinite is finite", " or not math.isfinite(value):", ":"),
        ("a name may lead out", 'if name in {"", ".", ".."} or "/" in name', 'if name in {"", "."} or "|" in name'),
        ("scalars are no part of the state", ' or name == "state.json")', ")"),
        ("the digest forgets names", 'f"{name} {files[name].sha256}\\n"', 'f"{files[name].sha256}\\n"'),
    ),
    *_all(
        f"{CKPT}/probe.py",
        (BESIDE, f"{TROUBLE}::TestProbe"),
        ("a dishonest store will do", "    if honest:\n", "    if honest or True:\n"),
        ("the first answer counts", "honest = refused and any(", "honest = True and any("),
        ("a turned byte counts", "for _ in range(2))", "for _ in range(1))"),
    ),
    *_all(
        f"{CKPT}/verify.py",
        (BESIDE, DAMAGE),
        ("a pruned commit is called damaged", "if not damaged or damaged <= {commit.slot for commit in log.replay().live}:", "if True:"),
        ("a blob's damage is told of one commit alone", "if file.blob not in seen:", "if True:", "a blob is then read once for each commit; what is told is the same"),
    ),
    *_all(
        "runner/sdjob/store/patient.py",
        CKPT_TESTS,
        ("a create is tried once", "return self._patiently(lambda: self._store.create(key, data))", "return self._store.create(key, data)"),
        ("a try's hash goes on from the last", "        def attempt() -> tuple[str, int]:\n            hasher, sizes = hashlib.sha256(), list[int]()\n", "        hasher, sizes = hashlib.sha256(), list[int]()\n\n        def attempt() -> tuple[str, int]:\n"),
        ("an object that changed is an error", "transient=(TransientStoreError, ObjectChangedError)", "transient=(TransientStoreError,)"),
    ),
]  # fmt: skip

SAVES = _all(
    "runner/sdjob/job/saves.py",
    SAVES_TESTS,
    ("pruned before the commit", "                self._save(save)\n                self.on_over(save.step)\n                if not save.final:\n                    self._prune()\n", "                if not save.final:\n                    self._prune()\n                self._save(save)\n                self.on_over(save.step)\n"),
    ("told before the commit", "                self._save(save)\n                self.on_over(save.step)\n", "                self.on_over(save.step)\n                self._save(save)\n"),
    ("metrics are not safe before their commit", "            self.ledger.flush()\n            commit = ", "            commit = "),
    ("a failing store ends the training", "            if save.final:\n                raise\n", "            raise\n"),
    ("the last save may fail", "            if save.final:\n                raise\n", ""),
    ("the last commit is not remembered", "self.committed_step, self.committed_digest = save.step, commit.digest", "self.committed_step, self.committed_digest = save.step, \"\""),
    ("a save that does not fit is begun", "        self.ledger.event(\"save-skipped\", step=save.step, why=\"would not fit the notice\", stall_s=round(save.stall_s, 4))\n        return False", "        self.ledger.event(\"save-skipped\", step=save.step, why=\"would not fit the notice\", stall_s=round(save.stall_s, 4))\n        return True"),
    ("a rival's claim is not told", "                self.failure = error\n", "                pass\n"),
    ("nobody is woken", "                self.on_failure()\n", ""),
    ("pruned within the notice", "        if self.stop.requested:\n            return\n        try:", "        try:"),
    ("a prune that fails ends the training", "        except StorageError as error:\n            self.log.warning(\"prune-failed\"", "        except ZeroDivisionError as error:\n            self.log.warning(\"prune-failed\""),
    ("what was committed fills the disk", "        else:\n            shutil.rmtree(save.folder)", "        else:\n            pass"),
)  # fmt: skip

TORCH = _all(
    "runner/sdjob/train_torch/state.py",
    TORCH_TESTS,
    ("EMA is not saved", '        files[state.file("ema")] = ', '        files[state.file("weights")] = '),
    ("EMA is not restored", '            shadow.copy_(averages[f"ema.{name}"])', "            pass"),
    ("EMA's count is not restored", '        state.ema.optimization_step = scalars["ema_count"]', "        pass"),
    ("the optimizer's count is not saved", '"optimizer_count": optimizers.count_of(state.optimizer),', '"optimizer_count": 0.0,'),
    ("the loss scale is not saved", '"loss_scale": state.scaler.state_dict() if state.scaler else None,', '"loss_scale": None,'),
    ("the loss scale is not restored", '        state.scaler.load_state_dict(scalars["loss_scale"])', "        pass"),
    ("the weights are not restored", "            parameter.copy_(weights[name])", "            pass"),
    ("a snapshot is no copy", "return self._copies[name].copy_(tensor.detach(), non_blocking=True)", "return tensor.detach()"),
    ("other parameters are taken", "    if set(own) != set(given):", "    if False:"),
)  # fmt: skip

TORCH_OPTIMIZER = _all(
    "runner/sdjob/train_torch/optimizer.py",
    TORCH_TESTS,
    ("one moment is saved twice", '"v": ("exp_avg_sq", "state2"),', '"v": ("exp_avg", "state2"),'),
    ("one moment is not restored", "placed(tensor, like=parameter) for", "placed(torch.zeros_like(tensor) if short == \"v\" else tensor, like=parameter) for"),
    ("the optimizer's count is one too many", "step = torch.tensor(count,", "step = torch.tensor(count + 1,"),
)  # fmt: skip

FLAX = _all(
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
    *_all(
        "runner/sdjob/loop.py",
        POSITION_TESTS,
        ("a resumed run begins one step late", "enumerate(batches, start=self.plan.start_step)", "enumerate(batches, start=self.plan.start_step + 1)"),
        ("a save bears the step before", "metrics=metrics), step=done, metrics", "metrics=metrics), step=done - 1, metrics"),
        ("a save that is still on its way is run over", "        elif self.is_busy:", "        elif False:"),
        ("the last save is not waited for", "        self.saver.finish()\n        return \"finished\"", "        return \"finished\""),
        ("a peer's stop is not heard", "                stop = self._report(unread).stop\n", "                self._report(unread)\n"),
    ),
    *_all(
        "runner/sdjob/core/streams.py",
        POSITION_TESTS,
        ("every step draws the same", "counter = [0, *counters, *([0] * (3 - len(counters)))]", "counter = [0, 0, *counters[1:], *([0] * (3 - len(counters)))]"),
        ("every name draws the same", 'hashlib.sha256(name.encode())', 'hashlib.sha256(b"name")'),
    ),
    *_all(
        "runner/sdjob/data/order.py",
        POSITION_TESTS,
        ("every epoch has the same order", 'stream(seed, name, epoch)', 'stream(seed, name, 0)'),
    ),
    *_all(
        "runner/sdjob/data/batch_order.py",
        POSITION_TESTS,
        ("batches are sorted by size", 'stream(seed, "bucket order", epoch).permutation(np.column_stack((buckets, numbers)))', "np.column_stack((buckets, numbers))"),
        ("a bucket's remainder is dropped", "spans = [(epoch * count // global_batch, (epoch + 1) * count // global_batch)", "spans = [(epoch * (count // global_batch), (epoch + 1) * (count // global_batch))"),
    ),
    *_all(
        "runner/sdjob/data/prefetch.py",
        POSITION_TESTS,
        ("batches begin one step late", "self._steps = iter(range(start, stop))", "self._steps = iter(range(start + 1, stop + 1))"),
    ),
]  # fmt: skip

HELD_OUT = [
    *_all(
        "runner/sdjob/data/held_out.py",
        HELD_OUT_UNIT,
        ("what fills a held-out batch up counts", "counts=number < len(pool) * self.num_levels)", "counts=True)"),
        ("held-out captions are dropped", "caption_choice=0,", "caption_choice=None,"),
        ("held-out pictures are mirrored", "flipped=False)", "flipped=True)"),
    ),
    *_all(
        "runner/sdjob/data/roles.py",
        HELD_OUT_UNIT,
        ("a copy of a held-out picture is trained on", "own & ~np.isin(index.content, index.content[held_out]) if len(held_out) else own", "own & ~apart"),
    ),
    *_all(
        "runner/sdjob/diffusion/held_out_draws.py",
        HELD_OUT_UNIT,
        ("held-out noise is the run's own", "stream(0, name,", "stream(self.plan.seed, name,"),
        ("held-out noise is the same at every level", '"held-out noise", key.content, key.level,', '"held-out noise", key.content,'),
        ("held-out levels are the beginnings of their parts", "(level + 0.5)", "level"),
    ),
    *_all(
        "runner/sdjob/encodings/held_out.py",
        HELD_OUT_PARITY,
        ("the held-out loss is the mean of batches", "total * self.order.global_batch / self.order.num_rows", "total / self.order.num_batches"),
        ("held-out noise goes by the picture's number", "HeldOutKey(int(index.content[row.picture]),", "HeldOutKey(row.picture,"),
    ),
    *_all(
        "runner/sdjob/train_torch/held_out.py",
        HELD_OUT_PARITY,
        ("the held-out loss is not of the averaged weights", "with trainer.averaged_weights(), accelerator.autocast():", "with accelerator.autocast():"),
    ),
    *_all(
        "runner/sdjob/train_flax/held_out.py",
        HELD_OUT_PARITY,
        ("flax: the held-out loss is not of the averaged weights", "runner.state.parameters if runner.state.averages is None else runner.state.averages", "runner.state.parameters"),
    ),
]  # fmt: skip

SPREAD = [
    *_all(
        "runner/sdjob/diffusion/parts.py",
        SPREAD_TESTS,
        ("parts in the wrong order", "for name in names], file=whole.name)", "for name in names[::-1]], file=whole.name)"),
        ("a missing part is not noticed", "    if not names or names != wanted:", "    if not names:"),
    ),
    *_all(
        "runner/sdjob/loop.py",
        SPREAD_TESTS,
        ("each rank has a clock of its own", "self._every_seconds_told() if self.plan.is_spread else self._every_seconds()", "self._every_seconds()"),
        ("each rank asks its own parent", "SaveWord.BUSY in self.heard if self.plan.is_spread else self.link.saving", "self.link.saving"),
    ),
    *_all(
        "runner/sdjob/job/parts.py",
        SPREAD_TESTS,
        ("a save is whole with its first part", "if len(told) < self.num_writers:", 'if "folder" not in fields:'),
        ("a part that failed is committed without", "if failed is None else {**of_all", "if True else {**of_all"),
    ),
    *_all(
        "runner/sdjob/train_torch/sharding.py",
        GANG_TESTS,
        ("each rank clips by its own norm", "        torch.distributed.all_reduce(squared)\n", ""),
        ("all ranks read the first one's rows", "stored.rows(self.rows[name].start, self.rows[name].stop)", "stored.rows(0, self.rows[name].stop - self.rows[name].start)"),
        ("of the moments one rank's alone are saved", "part_file(kind, rank=self.rank,", 'part_file(kind, rank=0 if kind == "optimizer" else self.rank,'),
        ("gradients are added to those of the step before", "spread_one.grad.to_local(), None", "spread_one.grad.to_local().clone(), spread_one.grad"),
    ),
]  # fmt: skip

MUTANTS = [*STORE, *JOURNAL, *BLOBS, *ENGINE, *PURE, *SAVES, *TORCH, *TORCH_OPTIMIZER, *FLAX, *POSITION, *HELD_OUT, *SPREAD]
