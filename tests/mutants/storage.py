"""Of the commit log, the stores and the parent's saves."""

from mutants.mutant import all_of

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

STORE = all_of(
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

JOURNAL = all_of(
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

BLOBS = all_of(
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

ENGINE = all_of(
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
    *all_of(
        f"{CKPT}/engine.py",
        (f"{UNIT}/test_long_run.py",),
        ("manifests of pruned commits are kept", "        self._forget_pruned()\n", ""),
    ),
    *all_of(
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
    *all_of(
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
    *all_of(
        f"{CKPT}/slot.py",
        (SLOT, DAMAGE),
        ("a slot's checksum is not looked at", "if sealed(fields) == data:", "if True:"),
        ("a slot may lie under another number", 'if fields.get("number") != number:', "if False:"),
        ("a slot of any size", "if len(data) > LARGEST_SLOT_BYTES:", "if False:"),
    ),
    *all_of(
        f"{CKPT}/history.py",
        (HISTORY, ENGINE_UNIT, PRUNE, TROUBLE, *SEEDS),
        ("a stray commit counts", "stray = slot.epoch < fold.epoch", "stray = False"),
        ("a step stands twice", ".step >= slot.step:", ".step > slot.step:"),
        ("a damaged slot is no claim", "        fold.epoch_bound += 1\n", ""),
        ("a run stays done", "        fold.done = None\n        while", "        while"),
        ("the retired are live", "        fold.live.remove(number)", "        pass"),
        ("done with a damaged state", "fold.done.digest == commit.digest:\n        fold.done = None\n", "fold.done.digest == commit.digest:\n        pass\n"),
    ),
    *all_of(
        f"{CKPT}/manifest.py",
        (f"{ENGINE_UNIT}::TestOneAttempt", ENGINE_UNIT, PRUNE, TROUBLE, DAMAGE, *SEEDS),
        ("infinite is finite", " or not math.isfinite(value):", ":"),
        ("a name may lead out", 'if name in {"", ".", ".."} or "/" in name', 'if name in {"", "."} or "|" in name'),
        ("scalars are no part of the state", ' or name == "state.json")', ")"),
        ("the digest forgets names", 'f"{name} {files[name].sha256}\\n"', 'f"{files[name].sha256}\\n"'),
    ),
    *all_of(
        f"{CKPT}/probe.py",
        (BESIDE, f"{TROUBLE}::TestProbe"),
        ("a dishonest store will do", "    if honest:\n", "    if honest or True:\n"),
        ("the first answer counts", "honest = refused and any(", "honest = True and any("),
        ("a turned byte counts", "for _ in range(2))", "for _ in range(1))"),
    ),
    *all_of(
        f"{CKPT}/verify.py",
        (BESIDE, DAMAGE),
        ("a pruned commit is called damaged", "if not damaged or damaged <= {commit.slot for commit in log.replay().live}:", "if True:"),
        ("a blob's damage is told of one commit alone", "if file.blob not in seen:", "if True:", "a blob is then read once for each commit; what is told is the same"),
    ),
    *all_of(
        "runner/sdjob/store/patient.py",
        CKPT_TESTS,
        ("a create is tried once", "return self._patiently(lambda: self._store.create(key, data))", "return self._store.create(key, data)"),
        ("a try's hash goes on from the last", "        def attempt() -> tuple[str, int]:\n            hasher, sizes = hashlib.sha256(), list[int]()\n", "        hasher, sizes = hashlib.sha256(), list[int]()\n\n        def attempt() -> tuple[str, int]:\n"),
        ("an object that changed is an error", "transient=(TransientStoreError, ObjectChangedError)", "transient=(TransientStoreError,)"),
    ),
]  # fmt: skip

SAVES = all_of(
    "runner/sdjob/job/saves.py",
    SAVES_TESTS,
    ("pruned before the commit", "        self._save(save)\n        self.on_over(save.step)\n        if not save.final:\n            self._prune()\n", "        if not save.final:\n            self._prune()\n        self._save(save)\n        self.on_over(save.step)\n"),
    ("told before the commit", "        self._save(save)\n        self.on_over(save.step)\n", "        self.on_over(save.step)\n        self._save(save)\n"),
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
    ("what must be there before a save is done at once", "        \"\"\"Done before any save that is put after this.\"\"\"\n        self._queue.put(work)", "        work()"),
)  # fmt: skip

LEDGER = all_of(
    "runner/sdjob/ledger/write.py",
    ("tests/unit/ledger/test_ledger.py",),
    ("lines that came during a write are forgotten", "        del self._lines[:count]\n", "        self._lines.clear()\n"),
    ("written lines are written again", "        del self._lines[:count]\n", ""),
    ("the next lines go into the same object", "        self._number += 1\n", ""),
    ("a store that fails is asked with each line", "        self._waiting_since_s = now_s\n        self._due_lines = len(self._lines) + FLUSH_LINES\n", "        pass\n"),
    ("a refusal is told to nobody", "        if failure is not None:\n            raise failure\n", ""),
)  # fmt: skip

FEEDER = all_of(
    "runner/sdjob/track/feeder.py",
    ("tests/unit/track/test_feeder.py",),
    ("a row does not wait for its pictures", "            self._awaits = self._held is not None\n", ""),
    ("what waited behind is forgotten", "                self._come(self._behind.popleft())\n", "                self._behind.popleft()\n"),
)  # fmt: skip

NOTICE = all_of(
    "runner/sdjob/job/overdue.py",
    ("tests/unit/job/test_overdue.py",),
    ("the ledger's last line has no time", "> -MERCY_S", "> 0"),
    ("nobody is told why", "        leave(str(error), environment=environment, log=log)\n", ""),
    ("it stays where nobody reads its words", "        with suppress(OSError):  # whoever reads this may be gone\n    ", "        if True:\n    "),
)  # fmt: skip

STORAGE = [*STORE, *JOURNAL, *BLOBS, *ENGINE, *PURE, *SAVES, *LEDGER, *FEEDER, *NOTICE]
