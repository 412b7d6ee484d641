from sdjob.job.parts import Parts

MAIN = {"step": 3, "folder": "/s/3", "loss": 0.5, "stall_s": 0.1}


def test_one_writer_is_heard_at_once():
    assert Parts(1).told(MAIN) == MAIN
    failed = {"step": 3, "folder": "/s/3", "stall_s": 0.1, "why": "full"}
    assert Parts(1).told(failed) == failed


def test_all_are_waited_for_in_any_order_and_of_each_step_apart():
    parts = Parts(3)
    later = {**MAIN, "step": 6}
    assert [parts.told(words) for words in ({"step": 3}, {"step": 6}, MAIN, later)] == [None] * 4
    assert parts.told({"step": 6}) == later
    assert parts.told({"step": 3}) == MAIN


def test_a_part_that_fails_fails_the_save_once_nobody_writes_any_more():
    parts = Parts(3)
    assert parts.told({"step": 3, "why": "No space left"}) is None
    assert parts.told(MAIN) is None
    assert parts.told({"step": 3}) == {**MAIN, "why": "No space left"}
    assert parts.told({**MAIN, "step": 6}) is None, "the next save is another"
