"""Bodies that break off, hang or arrive damaged, replies that are lost: the bytes are right all the same, or it is said so."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from contract.rows import IN_ONE_BYTES, RANGE_BYTES, S3_PART_BYTES, gcs_store, reach, s3_store
from fakes.faulty_proxy import Asked, Fault, FaultyProxy
from sdjob.core.clock import SystemClock
from sdjob.core.retry import Backoff
from sdjob.store import gcs, s3
from sdjob.store.base import ObjectChangedError, ObjectDeniedError, ObjectMissingError, ObjectStore, TransientStoreError
from sdjob.store.patient import PatientStore

SERVERS = {"s3": ("seaweed", "AWS_ENDPOINT_URL_S3", s3_store), "gcs": ("gcs_server", "STORAGE_EMULATOR_HOST", gcs_store)}
SIZE = 5 * RANGE_BYTES + 1000
MIDDLE = RANGE_BYTES // 2
HANG_S = 0.5  # how long a body may be silent: real time, since it is the socket's


@dataclass(frozen=True)
class Behind:
    """A store that reaches its server through the proxy, and one that reaches it directly."""

    kind: str
    proxy: FaultyProxy
    store: ObjectStore
    direct: ObjectStore
    bucket: str

    @property
    def patient(self) -> PatientStore:
        return PatientStore(self.store, backoff=Backoff(attempts=4, base_s=0.001))

    @property
    def upload(self) -> str:
        """The method of a small upload."""
        return "PUT" if self.kind == "s3" else "POST"


@pytest.fixture(params=SERVERS)
def behind(request: pytest.FixtureRequest) -> Iterator[Behind]:
    fixture, variable, make = SERVERS[request.param]
    server = request.getfixturevalue(fixture)
    bucket = server.new_bucket()
    with FaultyProxy(server.endpoint) as proxy:
        reach(request, server.environment)
        direct = make(bucket)
        direct.write("warm", b"1")  # the SDKs take their endpoint when the client is made
        reach(request, {variable: proxy.endpoint})
        store = make(bucket, read_timeout_s=HANG_S)
        assert store.read("warm") == b"1"
        proxy.asked.clear()
        yield Behind(request.param, proxy, store, direct, bucket)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "file"
    path.write_bytes(b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(SIZE // 32 + 1))[:SIZE])
    return path


def first(asked: Asked) -> bool:
    return "range" not in asked.headers


def later(asked: Asked) -> bool:
    return "range" in asked.headers


def fourth(asked: Asked) -> bool:
    return asked.headers.get("range", "").startswith(f"bytes={3 * RANGE_BYTES}-")


class TestReading:
    @pytest.mark.parametrize("when", [first, later, fourth])
    @pytest.mark.parametrize(
        "make",
        [
            lambda when: Fault("reset", when=when, after_bytes=MIDDLE, times=2),
            lambda when: Fault("truncate", when=when, after_bytes=MIDDLE, times=2),
            lambda when: Fault("hang", when=when, after_bytes=MIDDLE),
            lambda when: Fault("hang", when=when),
            lambda when: Fault("refuse", when=when, times=2),
            lambda when: Fault("status", when=when, times=2, status=503),
            lambda when: Fault("status", when=when, status=500),
        ],
        ids=["reset", "truncate", "hang", "hang-at-once", "refuse", "503", "500"],
    )
    def test_every_byte_once_and_in_order(self, behind, source, tmp_path, make, when):
        behind.direct.write_file("a", source)
        behind.proxy.faults.append(make(when))
        seen = bytearray()
        behind.store.read_to("a", tmp_path / "target", on_chunk=seen.extend)
        assert bytes(seen) == (tmp_path / "target").read_bytes() == source.read_bytes()
        assert behind.proxy.struck

    @pytest.mark.parametrize("kind", ["reset", "truncate", "hang"])
    def test_one_connection_that_breaks_is_gone_on_from_in_ranges(self, behind, source, tmp_path, kind):
        middling = tmp_path / "middling"
        middling.write_bytes(source.read_bytes()[:IN_ONE_BYTES])
        behind.direct.write_file("a", middling)
        behind.proxy.faults.append(Fault(kind, after_bytes=RANGE_BYTES + MIDDLE))
        seen = bytearray()
        behind.store.read_to("a", tmp_path / "target", on_chunk=seen.extend)
        assert bytes(seen) == (tmp_path / "target").read_bytes() == middling.read_bytes()
        assert behind.proxy.struck == [kind]
        asked = [asked.headers["range"] for asked in behind.proxy.asked if "range" in asked.headers]
        assert asked
        # What had come is not fetched again; only a reset takes from the client also what it has not yet looked at.
        assert kind == "reset" or not any(span.startswith("bytes=0-") for span in asked)

    def test_one_connection_is_enough_for_a_few_ranges(self, behind, source, tmp_path):
        middling = tmp_path / "middling"
        middling.write_bytes(source.read_bytes()[:IN_ONE_BYTES])
        behind.direct.write_file("a", middling)
        behind.proxy.asked.clear()
        behind.store.read_to("a", tmp_path / "target")
        assert [asked.method for asked in behind.proxy.asked] == ["GET"]
        assert (tmp_path / "target").read_bytes() == middling.read_bytes()

    @pytest.mark.parametrize("kind", ["reset", "truncate", "hang", "flip"])
    def test_a_small_object(self, behind, kind):
        behind.direct.write("log/0", b"0123456789")
        behind.proxy.faults.append(Fault(kind, after_bytes=5))
        assert behind.store.read("log/0") == b"0123456789"
        assert behind.proxy.struck == [kind]

    @pytest.mark.parametrize("when", [first, fourth])
    def test_a_flipped_bit_of_a_large_object_is_said_so_and_read_again(self, behind, source, tmp_path, when):
        behind.direct.write_file("a", source)
        behind.proxy.faults.append(Fault("flip", when=when, after_bytes=MIDDLE, times=2))
        with pytest.raises(TransientStoreError, match="does not have the CRC"):
            behind.store.read_to("a", tmp_path / "target")
        sha256, size = behind.patient.read_hashed("a", tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == source.read_bytes()
        assert (sha256, size) == (hashlib.sha256(source.read_bytes()).hexdigest(), SIZE)
        assert behind.proxy.struck == ["flip", "flip"]

    def test_trouble_that_does_not_pass_is_said_so(self, behind, source, tmp_path):
        behind.direct.write_file("a", source)
        behind.proxy.faults.append(Fault("truncate", when=fourth, after_bytes=MIDDLE, times=1000))
        with pytest.raises(TransientStoreError, match=r"broke off|short of"):
            behind.store.read_to("a", tmp_path / "target")

    def test_an_object_that_is_replaced_meanwhile_is_never_a_mixture(self, behind, source, tmp_path):
        behind.direct.write_file("a", source)
        (tmp_path / "other").write_bytes(bytes(SIZE))
        replace = Fault("slow", when=fourth, then=lambda: behind.direct.write_file("a", tmp_path / "other"))
        behind.proxy.faults.append(replace)
        with pytest.raises(ObjectChangedError, match="replaced while it was being read"):
            behind.store.read_to("a", tmp_path / "target")
        behind.direct.write_file("a", source)
        replace.times = 1
        assert behind.patient.read_hashed("a", tmp_path / "target") == (hashlib.sha256(bytes(SIZE)).hexdigest(), SIZE)

    def test_a_small_read_is_one_request(self, behind):
        behind.direct.write("log/0", b"1")
        behind.store.read("log/0")
        assert [asked.method for asked in behind.proxy.asked] == ["GET"]

    def test_an_absent_slot_is_one_request_after_the_first(self, behind):
        for _ in range(3):
            with pytest.raises(ObjectMissingError, match="no such object"):
                behind.store.read("log/0")
        assert len([asked for asked in behind.proxy.asked if "log" in asked.path]) == 3
        assert len(behind.proxy.asked) == 4, [(a.method, a.path) for a in behind.proxy.asked]


class TestWriting:
    def test_what_is_small_is_sent_without_asking_first(self, behind, tmp_path):
        (tmp_path / "small").write_bytes(b"1" * 1000)
        behind.store.write("a", b"1")
        assert behind.store.create("b", b"1")
        behind.store.write_file("c", tmp_path / "small")
        assert len(behind.proxy.asked) >= 3
        assert not [asked for asked in behind.proxy.asked if "expect" in asked.headers]

    @pytest.mark.parametrize("fault", ["refuse", "status", "drop_reply"])
    def test_a_file_in_parts_arrives(self, behind, source, tmp_path, fault):
        data = source.read_bytes() * 2  # the SDK for GCS sends up to 8 MiB at once
        (tmp_path / "large").write_bytes(data)
        behind.proxy.faults.append(Fault(fault, method="PUT", status=503))  # either server's method for a part
        behind.patient.write_file("a", tmp_path / "large")
        assert behind.direct.read("a") == data
        assert behind.proxy.struck == [fault]

    @pytest.mark.parametrize("fault", ["refuse", "status", "drop_reply"])
    def test_a_create_whose_reply_is_lost_is_ones_own(self, behind, fault):
        behind.proxy.faults.append(Fault(fault, method=behind.upload, status=503))
        behind.patient.create("log/0", b"mine")
        assert behind.direct.read("log/0") == b"mine"
        assert behind.proxy.struck == [fault]
        assert behind.patient.create("log/0", b"other") is False

    def test_an_upload_that_is_not_what_it_says_is_refused(self, behind, source, monkeypatch):
        wrong = {"s3": (s3, "_base64_crc64", "AAAAAAAAAAA="), "gcs": (gcs, "_base64_crc32c", "AAAAAA==")}
        module, name, value = wrong[behind.kind]
        monkeypatch.setattr(module, name, lambda crc: value)
        calls: list[Callable[[], object]] = [
            lambda: behind.store.write("a", b"other"),
            lambda: behind.store.create("b", b"other"),
            lambda: behind.store.write_file("c", source),
        ]
        for call in calls:
            with pytest.raises(TransientStoreError, match=r"not what was sent|other bytes than were sent"):
                call()
        if behind.kind == "s3":  # the server looked; fake-gcs-server does not, and only its answer was compared
            assert [info.key for info in behind.direct.list("")] == ["warm"]


class TestMultipart:
    def test_one_that_fails_is_aborted(self, seaweed, request, tmp_path):
        reach(request, seaweed.environment)
        bucket = seaweed.new_bucket()
        with FaultyProxy(seaweed.endpoint) as proxy:
            reach(request, {"AWS_ENDPOINT_URL_S3": proxy.endpoint})
            refusal = b"<Error><Code>AccessDenied</Code></Error>"
            proxy.faults.append(Fault("status", method="PUT", path="partNumber=2", status=403, reply=refusal))
            (tmp_path / "file").write_bytes(bytes(2 * S3_PART_BYTES + 1))
            with pytest.raises(ObjectDeniedError):
                s3_store(bucket).write_file("a", tmp_path / "file")
        assert "Uploads" not in seaweed.client.list_multipart_uploads(Bucket=bucket)


class TestServer:
    @pytest.mark.parametrize("kind", SERVERS)
    def test_one_that_was_killed_is_waited_for(self, request, kind):
        fixture, _, make = SERVERS[kind]
        server = request.getfixturevalue(fixture)
        reach(request, server.environment)
        store = make(server.new_bucket())
        store.create("log/0", b"kept")
        server.kill()
        with pytest.raises(TransientStoreError, match="cannot be reached"):
            store.read("log/0")

        class RestartsInTheFirstPause(SystemClock):
            pauses = 0

            def sleep(self, seconds: float) -> None:
                self.pauses += 1
                if self.pauses == 1:
                    server.restart()
                else:  # SeaweedFS answers before it has found its volumes again, and is out of order until then
                    super().sleep(seconds)

        patient = PatientStore(store, backoff=Backoff(clock=RestartsInTheFirstPause()))
        assert patient.read("log/0") == b"kept"
        assert patient.create("log/0", b"other") is False
