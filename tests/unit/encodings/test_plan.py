"""Which shards a job needs: their names follow from content alone, their batches from the index alone."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakes.checkpoints import make_job
from fakes.encoded import encoding_job, made_up_index, plan_of
from sdjob.core.errors import UsageError
from sdjob.data.entries import Entry
from sdjob.data.index import Index
from sdjob.data.samples import SampleSource
from sdjob.encodings.plan import SHARD_ENTRIES, make_plan, runs_once


def names(plan, kind=None):
    return [shard.name for shard in plan.shards if kind in {None, shard.group.kind}]


def test_every_picture_and_every_caption_has_one_place():
    plan = plan_of(made_up_index(150), job=encoding_job(flip=True))
    plain, flipped, captions = plan.groups
    for group in (plain, flipped):
        assert [m for shard in plan.of_group(group) for m in shard.members_E] == list(range(150))
    assert [len(shard.members_E) for shard in plan.of_group(plain)] == [64, 64, 22]
    assert len(captions.members_E) == 101  # two of three have their own, and the empty one
    assert len(set(names(plan))) == len(plan.shards) == 3 + 3 + 2


def test_the_empty_caption_is_an_entry_before_all():
    plan = plan_of(made_up_index(2))
    assert plan.captions.of(1, choice=None) == 0
    assert plan.captions.of(0, choice=0) == 1


def test_captions_of_pictures_with_several():
    one, two, three = made_up_index(3).entries
    index = Index((replace(one, captions=("x", "y")), replace(two, captions=("y",)), replace(three, captions=("z", "x", "y"))))
    numbers = plan_of(index).captions
    assert [numbers.of(2, choice=choice) for choice in range(3)] == [3, 1, 2]
    assert numbers.of(1, choice=0) == 2


class TestNames:
    index = made_up_index(100)

    def changed(self, **changes):
        return names(plan_of(self.index)), names(plan_of(**{"index": self.index, **changes}))

    @pytest.mark.parametrize("train", [{"optimizer": {"learning_rate": 0.5}}, {"seed": 9}, {"steps": 77}, {"backend": "flax"}])
    def test_the_training_is_not_in_them(self, train):
        job = make_job(train={"precision": "fp32", **train}, run={"workers": 0})
        old, new = self.changed(job=job)
        assert old == new

    @pytest.mark.parametrize(
        ("file", "kind"), [("vae/w", "pictures"), ("text_encoder/w", "captions"), ("tokenizer/vocab.json", "captions")]
    )
    def test_an_encoders_files_are_in_its_own(self, file, kind):
        old, new = plan_of(self.index), plan_of(self.index, **{file: "e" * 64})
        other = {"pictures": "captions", "captions": "pictures"}[kind]
        assert not set(names(old, kind)) & set(names(new, kind))
        assert names(old, other) == names(new, other)

    def test_the_unet_is_in_none(self):
        assert names(plan_of(self.index)) == names(plan_of(self.index, **{"unet/w": "e" * 64}))

    def test_a_second_text_encoder_counts(self):
        old, new = plan_of(self.index), plan_of(self.index, **{"text_encoder_2/w": "e" * 64})
        assert not set(names(old, "captions")) & set(names(new, "captions"))

    @pytest.mark.parametrize("job", [encoding_job(resolution=128), make_job(train={"precision": "bf16"})])
    def test_size_and_precision_are_in_them(self, job):
        old, new = self.changed(job=job)
        assert not set(old[:2]) & set(new[:2])

    def test_a_picture_changes_the_shard_that_holds_it(self):
        entries = list(self.index.entries)
        entries[70] = replace(entries[70], sha256="f" * 64)
        old, new = self.changed(index=Index(tuple(entries)))
        assert [one == other for one, other in zip(old, new, strict=True)] == [True, False, True, True]

    def test_more_pictures_leave_whole_shards_as_they_are(self):
        assert names(plan_of(made_up_index(SHARD_ENTRIES + 1)))[0] == names(plan_of(self.index))[0]

    def test_a_flip_is_a_second_entry(self):
        assert names(plan_of(self.index))[:2] == names(plan_of(self.index, job=encoding_job(flip=True)))[:2]


@pytest.mark.parametrize(("resolution", "batch"), [(64, 8), (512, 4), (768, 1), (1024, 1), ({"width": 512, "height": 768}, 2)])
def test_a_batch_is_about_a_megapixel(resolution, batch):
    assert plan_of(made_up_index(3), job=encoding_job(resolution=resolution)).groups[0].batch == batch


def test_numbers_are_all_that_is_kept_of_a_picture():
    """`members_E`, where its captions begin, which they are, and where each of them lies in the index."""
    plan = plan_of(made_up_index(1000))
    kept = [*(group.members_E for group in plan.groups), plan.captions.first_N, plan.captions.numbers]
    kept += [plan.captions.begins_C, plan.captions.lengths_C]
    assert sum(values.nbytes for values in kept) <= 40 * 1000
    assert all(isinstance(values, np.ndarray) for values in kept)


class TestRunsOnce:
    @pytest.mark.parametrize(
        ("crop", "size", "cache", "expected"),
        [
            ("center", (100, 70), "auto", True),
            ("random", (64, 64), "auto", True),
            ("random", (32, 32), "auto", True),
            ("random", (65, 64), "auto", False),
            ("center", (100, 70), "never", False),
            ("center", (100, 70), "always", True),
        ],
    )
    def test_where_every_picture_has_one_window(self, crop, size, cache, expected):
        job = make_job(data={"crop": crop}, train={"cache": cache})
        assert runs_once(job, index=made_up_index(3, size=size)) is expected

    def test_one_picture_that_is_cropped_anew_is_enough(self):
        mixed = Index((*made_up_index(2).entries, replace(made_up_index(1, size=(80, 64)).entries[0], id="wide.png")))
        assert not runs_once(make_job(data={"crop": "random"}), index=mixed)

    def test_always_is_held_to_or_refused(self):
        job = encoding_job().model_copy(update={"train": make_job(train={"cache": "always", "text_encoder": "frozen"}).train})
        random = job.model_copy(update={"data": make_job(data={"crop": "random"}).data})
        assert runs_once(random, index=made_up_index(2))
        with pytest.raises(UsageError, match=r"train\.cache: always cannot be held to"):
            runs_once(random, index=made_up_index(2, size=(80, 64)))

    def test_pictures_alone_while_the_text_encoder_is_trained(self):
        job = make_job(train={"precision": "fp32", "text_encoder": "lora"})
        assert runs_once(job, index=made_up_index(2))
        plan = plan_of(made_up_index(2), job=job)
        assert {shard.group.kind for shard in plan.shards} == {"pictures"}
        assert plan.captions is None

    def test_auto_counts_with_dropped_captions(self):
        assert runs_once(make_job(data={"caption_dropout": 0.5}), index=made_up_index(2))


def test_a_plan_is_the_same_every_time():
    job = encoding_job(flip=True)
    one, other = (make_plan(made_up_index(90), job=job, model_hashes={"vae/w": "1" * 64}) for _ in range(2))
    assert names(one) == names(other)


SHAPES = ((64, 64), (200, 90), (91, 333), (640, 641), (128, 64))
WORDS = ("a cat", 'says "no",', "größer 猫", "tab\tand \\ and \x7f", "a cat")


def many_kinds(number: int) -> Entry:
    """Of many shapes, with one to three captions in all kinds of letters, some of them of several pictures."""
    width, height = SHAPES[number % 5]
    captions = [f"{WORDS[(number + more) % 5]} {number % 40 if more else ''}" for more in range(1 + number % 3)]
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    return Entry(f"{number}.png", sha256, width, height, tuple(captions), source=number % 2)


@pytest.mark.parametrize(
    ("data", "pinned"),
    [
        ({"resolution": 64, "flip": True}, "6d4970c6ec70b554496d20588a55af391233be422d315e644b9bcc8aa0289651"),
        (
            {"resolution": 128, "buckets": {"step": 64, "min": 64, "max": 256}},
            "c6828f07c4814230a686bef3e31a0c842df824dee2c1ac1b3c103e3e8c9b71a9",
        ),
        ({"resolution": {"width": 136, "height": 64}}, "bba02ea986dbac65a4ad3eb0ed12eafbbbb05b8af2736b91bf8f267906474d0f"),
    ],
)
def test_names_are_those_of_every_version(data, pinned):
    """What was computed by an older sdjob is found by this one."""
    index = Index(tuple(map(many_kinds, range(150))))
    plan = plan_of(index, job=encoding_job(**data))
    assert hashlib.sha256(" ".join(names(plan)).encode()).hexdigest() == pinned


class TestPriorPicturesOfManyShapes:
    """With buckets a prior picture stands beside pictures of another shape, where none of the priors has that."""

    data = {  # noqa: RUF012
        "resolution": 128, "buckets": {"step": 64, "min": 64, "max": 256}, "prior": {"source": "file:///p", "caption": "a cat"},
    }  # fmt: skip

    def index(self):
        own = [replace(many_kinds(number), source=0) for number in range(0, 20, 2)]
        return Index((*own, *(replace(many_kinds(number), source=1) for number in (20, 21, 25, 26))))

    def test_each_is_encoded_in_every_size_that_it_is_asked_for_in_and_no_other(self):
        job, index = encoding_job(**self.data), self.index()
        assert runs_once(job, index=index)
        source = SampleSource(index, (Path(), Path()), data=job.data, seed=0)
        chosen = [source.chosen(step, place, global_batch=2) for step in range(300) for place in range(4)]
        asked = {(one.target, one.number) for one in chosen}
        groups = [group for group in plan_of(index, job=job).groups if group.target is not None]
        assert {(group.target, number) for group in groups for number in group.members_E.tolist()} == asked
        assert len(groups) > 2
        assert all(np.array_equal(group.members_E, np.unique(group.members_E)) for group in groups)

    def test_with_random_crops_the_encoders_run_at_every_step(self):
        assert not runs_once(encoding_job(**self.data, crop="random"), index=self.index())
