"""A view that is drawn over itself on a real terminal."""

from fakes.terminal import terminal
from sdjob.cli.screen import Screen


def test_the_last_drawing_is_all_that_stands_there():
    with terminal(columns=40) as there:
        screen = Screen(there.stream)
        screen.draw(["run: training", "  step 1/20", "  a note", "  another"])
        screen.draw(["run: saving, now", "  step 20/20"])
    assert there.seen() == ["run: saving, now", "  step 20/20"]


def test_what_somebody_else_wrote_stays_above():
    with terminal(columns=40) as there:
        screen = Screen(there.stream)
        screen.draw(["one", "two"])
        screen.leave()
        there.stream.write("warning: away\n")
        screen.draw(["three"])
        screen.draw(["four"])
    assert there.seen() == ["one", "two", "warning: away", "four"]


def test_nothing_wraps_and_nothing_scrolls():
    with terminal(columns=12, rows=4) as there:
        screen = Screen(there.stream)
        for _ in range(3):
            screen.draw(["a line that is far too long", "b", "c", "d", "e"])
    assert there.seen() == ["a line that", "b", "c"]
