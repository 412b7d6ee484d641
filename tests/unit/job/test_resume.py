"""What an attempt goes on with: kept values, refused differences, and when going on is exact."""

from dataclasses import replace

import pytest

from fakes.checkpoints import make_job
from sdjob.core.errors import UsageError
from sdjob.job.resume import check_identity, check_length, inexact_because, resolve
from sdjob.spec.hardware import parse_accelerator

FINGERPRINT = {"device": "x86_64", "devices": 1, "threads": 2, "versions": {"torch": "2.13"}}


def resolved(job=None, *, stored=None, accelerator="cpu", cores=8, pictures=100, index="i" * 64, hashes=None, **more):
    return resolve(
        job or make_job(), accelerator=parse_accelerator(accelerator), num_cores=cores, num_pictures=pictures,
        index_sha256=index, model_hashes={"unet/w": "a" * 64} if hashes is None else hashes, stored=stored, **more,
    )  # fmt: skip


def facts(resolution, **changed):
    """Of a commit that such an attempt made."""
    return {
        "identity": resolution.identity,
        "total_steps": resolution.total_steps,
        "precision": resolution.job.train.precision,
        "fingerprint": FINGERPRINT,
        "arithmetic": resolution.arithmetic,
        "inexact": [],
        **changed,
    }


class TestResolve:
    @pytest.mark.parametrize(
        ("accelerator", "precision", "deterministic"),
        [("cpu", "fp32", True), ("nvidia-l4", "bf16", False), ("nvidia-t4", "fp16", False)],
    )
    def test_auto_follows_the_hardware(self, accelerator, precision, deterministic):
        train = resolved(accelerator=accelerator).job.train
        assert (train.precision, train.deterministic) == (precision, deterministic)

    def test_auto_stays_what_the_first_attempt_made_of_it(self):
        stored = facts(resolved(accelerator="nvidia-t4"))
        assert resolved(stored=stored, accelerator="nvidia-l4").job.train.precision == "fp16"

    def test_a_precision_that_is_written_is_not_replaced(self):
        stored = facts(resolved(accelerator="nvidia-t4"))
        job = make_job(train={"precision": "bf16"})
        assert resolved(job, stored=stored, accelerator="nvidia-l4").job.train.precision == "bf16"

    @pytest.mark.parametrize(("accelerator", "threads"), [("cpu", 8), ("cpu:2", 4), ("cpu:3", 2), ("cpu:16", 1)])
    def test_cores_are_shared_among_processes(self, accelerator, threads):
        job = make_job(train={"global_batch": 48})
        assert resolved(job, accelerator=accelerator, cores=8).threads == threads

    def test_threads_are_those_of_the_first_attempt(self):
        assert resolved(stored=facts(resolved()), cores=64).threads == FINGERPRINT["threads"]

    @pytest.mark.parametrize(
        ("stored", "widest", "held"),
        [
            (None, "avx512", "avx512"),
            (None, "avx2", "avx2"),
            ("AVX2", "avx512", "avx2"),
            ("AVX512", "avx512", "avx512"),
            ("AVX512", "avx2", "avx2"),  # to rounding then: the trainer's fingerprint tells
            ("avx2 avx512f fma", "avx512", "avx512"),  # as flax tells it, which a relay begins after
        ],
    )
    def test_instructions_are_those_of_the_first_attempt_where_the_cpu_has_them(self, stored, widest, held):
        before = facts(resolved(), fingerprint={**FINGERPRINT, "isa": stored}) if stored else None
        assert resolved(stored=before, widest_isa=widest).isa == held

    def test_a_gang_of_machines_takes_what_all_of_them_have(self):
        job = make_job(run={"accelerator": "cpu", "nodes": 2}, train={"global_batch": 2})
        assert resolved(job, widest_isa="avx512").isa == "avx2"

    @pytest.mark.parametrize(("epochs", "pictures", "steps"), [(1, 100, 50), (3, 7, 11), (1, 1, 1)])
    def test_epochs_become_steps(self, epochs, pictures, steps):
        job = make_job(train={"steps": None, "epochs": epochs})
        assert resolved(job, pictures=pictures).total_steps == steps  # ceil(epochs * pictures / 2)


class TestIdentity:
    def differs(self, job=None, **options):
        stored = facts(resolved())
        with pytest.raises(UsageError) as caught:
            check_identity(resolved(job, stored=stored, **options), stored=stored)
        assert caught.value.where == "checkpoint.to"
        return str(caught.value)

    def test_the_same_job_goes_on(self):
        stored = facts(resolved())
        check_identity(resolved(stored=stored), stored=stored)

    @pytest.mark.parametrize(
        ("parts", "line"),
        [
            ({"train": {"lora": {"rank": 8}}}, "train.lora.rank: 4 -> 8"),
            ({"train": {"seed": 1}}, "train.seed: 0 -> 1"),
            ({"data": {"flip": True}}, "data.flip: false -> true"),
            ({"train": {"precision": "bf16"}}, 'train.precision: "fp32" -> "bf16"'),
        ],
    )
    def test_another_job_is_refused_with_what_differs(self, parts, line):
        words = self.differs(make_job(**parts), accelerator="cpu")
        assert line in words
        assert "or give checkpoint.to a new place" in words

    def test_another_models_files(self):
        assert "model_files.unet/w" in self.differs(hashes={"unet/w": "b" * 64})

    def test_other_pictures(self):
        assert "index_sha256" in self.differs(index="j" * 64)

    @pytest.mark.parametrize(
        "parts",
        [
            {"model": {"source": "/elsewhere"}},
            {"data": {"source": "/elsewhere"}},
            {"checkpoint": {"every_steps": 7, "keep": 9}},
            {"validation": {"prompts": ["a cat"]}},
            {"publish": [{"to": "/there"}]},
            {"train": {"device_batch": 2}},
            {"train": {"gradient_checkpointing": True}},
            {"train": {"steps": 20}},
        ],
        ids=str,
    )
    def test_what_may_change(self, parts):
        stored = facts(resolved())
        publish = parts.pop("publish", None)
        job = make_job(**parts)
        if publish:
            job = job.model_copy(update={"publish": tuple(publish)})
        check_identity(resolved(job, stored=stored), stored=stored)

    def test_more_steps_where_the_schedule_depends_on_them(self):
        schedule = {"schedule": {"name": "cosine"}}
        stored = facts(resolved(make_job(train=schedule)))
        with pytest.raises(UsageError, match=r"train\.steps: 10 -> 20|cosine depends on the number of steps"):
            check_identity(resolved(make_job(train={**schedule, "steps": 20}), stored=stored), stored=stored)

    def test_another_length_than_the_cosine_was_planned_for(self):
        job = make_job(train={"schedule": {"name": "cosine"}})
        stored = facts(resolved(job), total_steps=11)
        with pytest.raises(UsageError, match=r"planned for 11 steps and the job now says 10.*cosine") as caught:
            check_identity(resolved(job, stored=stored), stored=stored)
        assert caught.value.where == "train.steps"

    def test_fewer_steps_than_the_run_has(self):
        resolution = resolved()
        check_length(resolution, step=10)
        with pytest.raises(UsageError, match="has 11 steps already, more than the 10 asked for"):
            check_length(resolution, step=11)


class TestExactness:
    def reasons(self, *, stored=None, fingerprint=FINGERPRINT, resolution=None):
        return inexact_because(stored or facts(resolved()), fingerprint=fingerprint, resolution=resolution or resolved())

    def test_the_same_machine_is_exact(self):
        assert self.reasons() == []

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({"device": "aarch64"}, "device: x86_64 -> aarch64"),
            ({"devices": 2}, "devices: 1 -> 2"),
            ({"versions": {"torch": "2.14"}}, "versions: {'torch': '2.13'} -> {'torch': '2.14'}"),
        ],
    )
    def test_another_machine_is_not(self, changed, reason):
        assert self.reasons(fingerprint={**FINGERPRINT, **changed}) == [reason]

    def test_another_order_of_additions_is_not(self):
        resolution = resolved(make_job(train={"device_batch": 2}))
        assert self.reasons(resolution=resolution) == ["train.device_batch: 1 -> 2"]

    def test_encodings_that_were_computed_in_other_batches_are_not(self):
        assert self.reasons(resolution=replace(resolved(), encodes_once=True)) == ['train.cache: "not used" -> "used"']

    def test_a_word_for_the_cache_that_changes_nothing_is_exact(self):
        assert self.reasons(resolution=resolved(make_job(train={"cache": "never"}))) == []

    def test_nor_are_kernels_that_are_not_deterministic(self):
        fast = resolved(make_job(train={"deterministic": False}))
        assert self.reasons(stored=facts(fast), resolution=fast) == ["train.deterministic is false"]

    def test_once_inexact_always_inexact(self):
        assert self.reasons(stored=facts(resolved(), inexact=["devices: 1 -> 2"])) == ["devices: 1 -> 2"]

    def test_no_reason_is_told_twice(self):
        stored = facts(resolved(), inexact=["device: x86_64 -> aarch64"])
        assert self.reasons(stored=stored, fingerprint={**FINGERPRINT, "device": "aarch64"}) == ["device: x86_64 -> aarch64"]
