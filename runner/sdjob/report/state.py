"""How a run stands: one word and one sentence, from its ledger and its commit log. Pure."""

from dataclasses import dataclass
from typing import Literal

from sdjob.core.errors import FINAL_EXIT_CODES
from sdjob.ledger.moments import Moments
from sdjob.ledger.seconds import Account
from sdjob.report.gather import Gathered
from sdjob.report.words import counted, lasted

State = Literal["done", "running", "stopped", "failed", "interrupted", "silent", "unknown"]

# No word for so long, and for so many of its own steps: then nobody is taken to be there any more.
QUIET_S, QUIET_STEPS = 30 * 60.0, 20


@dataclass(frozen=True, kw_only=True)
class Standing:
    state: State
    sentence: str
    step: int
    total_steps: int | None
    committed_step: int

    @property
    def progress(self) -> float | None:
        """0 to 1."""
        return min(1.0, self.step / self.total_steps) if self.total_steps else None


def is_silent(moments: Moments, *, now_s: float) -> bool:
    """Without an end, and without a word for longer than any step explains."""
    last_s = moments.last_word_s
    return last_s is None or now_s - last_s > max(QUIET_S, QUIET_STEPS * moments.pace_s())


def standing_of(run: Gathered, *, sums: Account) -> Standing:
    attempts = [moments for ledger in run.ledgers if (moments := Moments(ledger)).is_training and moments.last_word_s is not None]
    if not attempts:
        words = "Nothing of its ledger can be read."
        return Standing(state="unknown", sentence=words, step=0, total_steps=None, committed_step=0)
    total = next((total for moments in reversed(attempts) if (total := moments.total_steps)), None)
    committed = max([commit.step for commit in run.history.live] + [moments.committed_step or 0 for moments in attempts[-1:]])
    step = max(sums.attempts[-1].reached_step, committed) if sums.attempts[-1].is_over else sums.attempts[-1].reached_step
    state = state_of(run, attempts[-1])
    sentence = sentence_of(run, attempts[-1], state=state, step=step, total=total, committed=committed)
    return Standing(state=state, sentence=sentence, step=step, total_steps=total, committed_step=committed)


def state_of(run: Gathered, last: Moments) -> State:
    if run.history.ends_in_done or last.exit_code == 0:
        return "done"
    if last.end is None:
        return "silent" if is_silent(last, now_s=run.read_s) else "running"
    if last.exit_code == 75:
        return "stopped"
    return "failed" if last.exit_code in FINAL_EXIT_CODES else "interrupted"


def sentence_of(run: Gathered, last: Moments, *, state: State, step: int, total: int | None, committed: int) -> str:
    of_all = f"{step:,} of {total:,}" if total else f"{step:,}"
    stands = f"step {committed:,} is committed" if committed else "nothing is committed yet"
    why = str((last.end or {}).get("why", ""))
    why = why[:1].upper() + why[1:]
    ago = lasted(max(0.0, run.read_s - (last.last_word_s or run.read_s)))
    match state:
        case "done":
            where = f" and published to {counted(len(run.published), 'place')}" if run.published else ""
            return f"All {counted(total or step, 'step')} are trained{where}."
        case "running":
            return (
                f"It is at step {of_all}{left(last, step=step, total=total)}; {stands}. Its last word was {ago} before this page."
            )
        case "stopped":
            return f"It was stopped on request at step {of_all}; {stands}. The same command goes on from there."
        case "silent":
            gone = "without an end: it was killed, or is cut off"
            return f"Its last word was {ago} ago, at step {of_all}, {gone}; {stands}."
        case "failed":
            return f"Attempt {last.ledger.attempt} ended with exit code {last.exit_code} at step {of_all}; {stands}. {why}"
        case _:
            return f"Attempt {last.ledger.attempt} ended at step {of_all} and may be run again; {stands}. {why}"


def left(last: Moments, *, step: int, total: int | None) -> str:
    pace_s = last.pace_s()
    return f", {lasted((total - step) * pace_s)} of steps are left" if total and pace_s and total > step else ""
