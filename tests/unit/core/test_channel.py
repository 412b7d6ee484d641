"""JSON lines over pipes: whole messages, whatever pieces they come in."""

import os
import threading

import pytest

from sdjob.core.channel import ENVIRONMENT_NAME, Channel, inherited_channel


@pytest.fixture
def pair():
    """Two ends; what a test closes itself stays closed."""
    (left_read, right_write), (right_read, left_write) = os.pipe(), os.pipe()
    ends = Channel(read_fd=left_read, write_fd=left_write), Channel(read_fd=right_read, write_fd=right_write)
    yield ends
    for fd in (left_read, left_write, right_read, right_write):
        try:
            os.close(fd)
        except OSError:
            continue


def test_both_directions(pair):
    left, right = pair
    assert left.send({"event": "ready", "step": 3})
    assert right.receive() == [{"event": "ready", "step": 3}]
    assert right.send({"event": "stop"})
    assert left.receive() == [{"event": "stop"}]


def test_several_messages_in_one_read(pair):
    left, right = pair
    for number in range(3):
        left.send({"number": number})
    assert right.receive() == [{"number": 0}, {"number": 1}, {"number": 2}]


def test_a_message_in_pieces(pair):
    left, right = pair
    line = '{"text": "zwölf"}\n{"text": "dreizehn"}\n'.encode()
    for byte in line[:-1]:
        os.write(left._write_fd, bytes([byte]))
    heard = right.receive()
    os.write(left._write_fd, line[-1:])
    while len(heard) < 2:
        heard += right.receive()
    assert heard == [{"text": "zwölf"}, {"text": "dreizehn"}]


def test_a_message_larger_than_a_pipe(pair):
    left, right = pair
    message = {"text": "x" * 300_000}
    sender = threading.Thread(target=left.send, args=(message,))
    sender.start()
    heard = []
    while not heard:
        heard += right.receive()
    sender.join()
    assert heard == [message]


def test_threads_do_not_mix_their_lines(pair):
    left, right = pair
    senders = [threading.Thread(target=left.send, args=({"who": who, "text": "y" * 100_000},)) for who in range(4)]
    for sender in senders:
        sender.start()
    heard = []
    while len(heard) < 4:
        heard += right.receive()
    for sender in senders:
        sender.join()
    assert sorted(message["who"] for message in heard) == [0, 1, 2, 3]
    assert {message["text"] for message in heard} == {"y" * 100_000}


def test_floats_come_back_bit_for_bit(pair):
    left, right = pair
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, float("inf")]
    left.send({"values": values})
    assert right.receive() == [{"values": values}]


def test_the_end_of_the_other_side(pair):
    left, right = pair
    left.send({"last": "words"})
    left.close()
    assert list(right) == [{"last": "words"}]
    assert right.receive() is None
    assert right.send({"to": "nobody"}) is False


def test_who_asks_for_one_message_leaves_the_others(pair):
    left, right = pair
    for number in range(4):
        left.send({"number": number})
    assert [right.receive_one(), right.receive_one()] == [{"number": 0}, {"number": 1}]
    left.close()
    assert list(right) == [{"number": 2}, {"number": 3}]
    assert right.receive_one() is None


def test_a_torn_last_line_is_no_message(pair):
    """A process that is killed in the middle of a write."""
    left, right = pair
    os.write(left._write_fd, b'{"whole": 1}\n{"torn": ')
    left.close()
    assert list(right) == [{"whole": 1}]


def test_a_process_that_a_person_started_has_none(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_NAME, raising=False)
    assert inherited_channel() is None


def test_an_inherited_channel_is_not_passed_on(monkeypatch, pair):
    left, right = pair
    os.set_inheritable(left.read_fd, True)
    os.set_inheritable(left._write_fd, True)
    monkeypatch.setenv(ENVIRONMENT_NAME, f"{left.read_fd},{left._write_fd}")
    child = inherited_channel()
    assert not os.get_inheritable(left.read_fd)
    assert not os.get_inheritable(left._write_fd)
    child.send({"event": "ready"})
    assert right.receive() == [{"event": "ready"}]
