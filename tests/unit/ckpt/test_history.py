"""What a log says: the fold over its slots."""

from sdjob.ckpt.history import DamagedSlot, History
from sdjob.ckpt.slot import ClaimSlot, CommitSlot, DoneSlot, QuarantineSlot, RetireSlot, Stamp


class Story:
    """Writes slots one after the other."""

    def __init__(self) -> None:
        self.history = History()

    def _stamp(self, epoch: int) -> Stamp:
        return Stamp(number=self.history.next_number, epoch=epoch, nonce=str(self.history.next_number), time_s=0.0)

    def claim(self, epoch):
        self.history = self.history.with_slot(ClaimSlot(**self._stamp(epoch), attempt=str(epoch), host="h"))
        return self

    def commit(self, epoch, *steps):
        for step in steps:
            slot = CommitSlot(**self._stamp(epoch), step=step, manifest="m", digest=f"d{step}", size_bytes=1)
            self.history = self.history.with_slot(slot)
        return self

    def retire(self, epoch, *slots):
        self.history = self.history.with_slot(RetireSlot(**self._stamp(epoch), slots=slots, steps=()))
        return self

    def quarantine(self, epoch, slot):
        self.history = self.history.with_slot(QuarantineSlot(**self._stamp(epoch), slot=slot, why="flipped"))
        return self

    def done(self, epoch, step):
        self.history = self.history.with_slot(DoneSlot(**self._stamp(epoch), step=step, digest=f"d{step}", published=()))
        return self

    def damage(self):
        self.history = self.history.with_slot(DamagedSlot(number=self.history.next_number, why="torn"))
        return self

    @property
    def live(self):
        return [commit.step for commit in self.history.live]

    @property
    def states(self):
        return [(commit.step, commit.state) for commit in self.history.commits]


def test_an_empty_log():
    history = History()
    assert (history.head, history.next_number, history.epoch, history.live, history.done) == (-1, 0, 0, (), None)
    assert not history.ends_in_done


def test_newest_first():
    assert Story().claim(1).commit(1, 10, 20, 30).live == [30, 20, 10]


def test_retired_and_quarantined_are_not_live():
    story = Story().claim(1).commit(1, 10, 20, 30).retire(1, 1).quarantine(1, 3)
    assert story.live == [20]
    assert story.states == [(10, "retired"), (20, "live"), (30, "quarantined")]
    assert story.history.commits[2].why == "flipped"


def test_a_step_committed_again_after_a_quarantine():
    story = Story().claim(1).commit(1, 10, 20).claim(2).quarantine(2, 2).commit(2, 20)
    assert story.live == [20, 10]
    assert story.history.live[0].slot == 5


def test_going_back_past_a_live_commit_supersedes_it():
    story = Story().claim(1).commit(1, 10, 20, 30).claim(2).commit(2, 15)
    assert story.live == [15, 10]
    assert story.states == [(10, "live"), (20, "superseded"), (30, "superseded"), (15, "live")]


def test_committing_the_newest_step_again_supersedes_it():
    assert Story().claim(1).commit(1, 10, 10).states == [(10, "superseded"), (10, "live")]


def test_what_is_written_past_a_newer_claim_is_stray():
    story = Story().claim(1).commit(1, 10).claim(2).commit(1, 20).retire(1, 1).quarantine(1, 1).done(1, 20)
    assert story.live == [10]
    assert story.states[1] == (20, "stray")
    assert story.history.done is None
    assert story.history.epoch == 2


def test_done_until_a_commit_reopens_it():
    story = Story().claim(1).commit(1, 10).done(1, 10)
    assert story.history.done.step == 10
    assert story.history.ends_in_done
    story.claim(2)
    assert story.history.done.step == 10
    assert not story.history.ends_in_done
    story.commit(2, 20)
    assert story.history.done is None
    assert story.done(2, 20).history.done.step == 20


def test_done_no_more_when_its_commit_is_damaged():
    assert Story().claim(1).commit(1, 10).done(1, 10).claim(2).quarantine(2, 1).history.done is None


def test_a_damaged_slot_counts_as_an_epoch_that_was_claimed():
    story = Story().claim(1).damage()
    assert (story.history.epoch, story.history.epoch_bound) == (1, 2)
    story.damage().claim(4)
    assert (story.history.epoch, story.history.epoch_bound) == (4, 4)
    assert [slot.number for slot in story.history.damaged] == [1, 2]


def test_commits_behind_a_damaged_slot_stay_live():
    assert Story().claim(1).commit(1, 10).damage().commit(1, 30).live == [30, 10]
    assert Story().claim(1).commit(1, 10).damage().commit(2, 30).live == [30, 10]


def test_a_retire_of_a_damaged_commit_is_no_trouble():
    assert Story().claim(1).damage().commit(1, 20).retire(1, 1).quarantine(1, 1).live == [20]
