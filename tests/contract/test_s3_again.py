"""The shorter way of small objects, taken already, under the same troubles: the same bytes, and the same words."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from contract.rows import PREFIX, RANGE_BYTES, reach, s3_store
from fakes.faulty_proxy import Asked, Fault, FaultyProxy
from sdjob.store import s3
from sdjob.store.base import ObjectDeniedError, ObjectMissingError, TransientStoreError
from sdjob.store.s3 import S3Store
from sdjob.store.transfer import download_tree, upload_tree

HANG_S = 0.5  # real time, since it is the socket's
DATA = bytes(range(256)) * 40
NAMES = ["a", "b c/+d", "ü/%20", "e=f&g?h#i", "~(1)'!*", "j:k@l,m;n"]


@dataclass(frozen=True)
class Warm:
    """A store that has read and written one object through the proxy."""

    store: S3Store
    proxy: FaultyProxy

    def by_the_sdk(self, method: str) -> list[bool]:
        return ["amz-sdk-invocation-id" in asked.headers for asked in self.proxy.asked if asked.method == method]


@pytest.fixture
def warm(seaweed, request, tmp_path) -> Iterator[Warm]:
    bucket = seaweed.new_bucket()
    with FaultyProxy(seaweed.endpoint) as proxy:
        reach(request, {**seaweed.environment, "AWS_ENDPOINT_URL_S3": proxy.endpoint})
        store = s3_store(bucket, read_timeout_s=HANG_S)
        store.write("warm", b"1")
        store.read_to("warm", tmp_path / "warm")
        proxy.asked.clear()
        yield Warm(store, proxy)


def test_a_batch_there_and_back(warm, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    for name in NAMES:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(name.encode() * 1000)
    upload_tree(warm.store, files={name: source / name for name in NAMES}, check_stop=lambda: None)
    listed = [info for info in warm.store.list("") if info.key != "warm"]
    assert {info.key for info in listed} == set(NAMES)
    download_tree(warm.store, infos=listed, into=target, check_stop=lambda: None)
    assert all((target / name).read_bytes() == (source / name).read_bytes() for name in NAMES)
    assert warm.by_the_sdk("PUT") == [False] * len(NAMES)
    of_objects = [
        asked for asked in warm.proxy.asked if asked.method == "GET" and PREFIX in asked.path and "list-type" not in asked.path
    ]
    assert ["amz-sdk-invocation-id" in asked.headers for asked in of_objects] == [False] * len(NAMES)


@pytest.mark.parametrize("size", [len(DATA), 2 * RANGE_BYTES, 5 * RANGE_BYTES], ids=["small", "in-one", "ranges"])
@pytest.mark.parametrize(
    "fault",
    [
        lambda: Fault("reset", after_bytes=5000, times=2),
        lambda: Fault("truncate", after_bytes=5000, times=2),
        lambda: Fault("hang", after_bytes=5000),
        lambda: Fault("hang"),
        lambda: Fault("refuse", times=2),
        lambda: Fault("status", status=503, times=2),
        lambda: Fault("status", status=500),
    ],
    ids=["reset", "truncate", "hang", "hang-at-once", "refuse", "503", "500"],
)
def test_reading(warm, tmp_path, fault, size):
    data = (DATA * (size // len(DATA) + 1))[:size]
    warm.store.write("a", data)
    warm.proxy.faults.append(fault())
    seen = bytearray()
    warm.store.read_to("a", tmp_path / "target", on_chunk=seen.extend)
    assert bytes(seen) == (tmp_path / "target").read_bytes() == data
    assert warm.proxy.struck
    assert warm.by_the_sdk("GET")[0] is False


def test_a_flipped_bit_is_never_passed_over(warm, tmp_path):
    warm.store.write("a", DATA)
    warm.proxy.faults.append(Fault("flip", after_bytes=5, times=100))
    with pytest.raises(TransientStoreError, match="CRC64NVME"):
        warm.store.read_to("a", tmp_path / "target")
    assert warm.by_the_sdk("GET") == [False] * 4


@pytest.mark.parametrize("fault", ["refuse", "status", "drop_reply"])
def test_writing(warm, fault):
    warm.proxy.faults.append(Fault(fault, method="PUT", status=503))
    warm.store.write("a", DATA)
    assert warm.store.read("a") == DATA
    assert warm.proxy.struck == [fault]
    assert warm.by_the_sdk("PUT") == [False, True]


def test_a_write_that_is_not_what_it_says_is_refused(warm, monkeypatch):
    monkeypatch.setattr(s3, "_base64_crc64", lambda crc: "AAAAAAAAAAA=")
    with pytest.raises(TransientStoreError, match="not what was sent"):
        warm.store.write("a", DATA)
    assert warm.by_the_sdk("PUT") == [False, True]
    assert warm.store.stat("a") is None


def test_one_that_is_missing(warm, tmp_path):
    with pytest.raises(ObjectMissingError, match="no such object"):
        warm.store.read_to("never", tmp_path / "target")


def test_who_is_refused_is_told_by_whom(warm):
    message = "User: arn:aws:iam::1:user/x is not authorized to perform: s3:PutObject"
    reply = f"<Error><Code>AccessDenied</Code><Message>{message}</Message></Error>".encode()
    warm.proxy.faults.append(Fault("status", method="PUT", status=403, reply=reply, times=2))
    with pytest.raises(ObjectDeniedError, match="not authorized to perform: s3:PutObject"):
        warm.store.write("a", DATA)


def test_what_is_large_asks_before_it_is_sent(warm):
    def asks(asked: Asked) -> bool:
        return "expect" in asked.headers

    warm.store.write("a", bytes(s3.ASK_BYTES - 1))
    warm.store.write("b", bytes(s3.ASK_BYTES))
    assert [asks(asked) for asked in warm.proxy.asked if asked.method == "PUT"] == [False, True]
