"""What a store says when it will not: each trouble its own class and sentence, and none with a secret in it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.rows import gcs_store, reach, s3_store
from contract.test_faults import SERVERS
from fakes.faulty_proxy import Fault, FaultyProxy
from sdjob.core.errors import DataError, MissingError, StorageError, UsageError
from sdjob.store.base import ObjectDeniedError, ObjectMissingError, ObjectStore, TransientStoreError
from sdjob.store.gcs import GcsStore
from sdjob.store.s3 import S3Store

Call = Callable[[ObjectStore, Path], object]
CALLS: dict[str, Call] = {
    "read": lambda store, folder: store.read("a"),
    "read_to": lambda store, folder: store.read_to("a", folder / "x"),
    "write": lambda store, folder: store.write("a", b"1"),
    "write_file": lambda store, folder: store.write_file("a", folder / "source"),
    "create": lambda store, folder: store.create("a", b"1"),
    "list": lambda store, folder: list(store.list("")),
    "stat": lambda store, folder: store.stat("a"),
    "delete": lambda store, folder: store.delete(["a"]),
}


@pytest.fixture(params=CALLS)
def call(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[ObjectStore], object]:
    (tmp_path / "source").write_bytes(b"1")
    return lambda store: CALLS[request.param](store, tmp_path)


def xml(code: str, message: str = "") -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


class TestBucket:
    @pytest.mark.parametrize("kind", SERVERS)
    def test_one_that_is_missing_is_never_a_missing_object(self, request, kind, call):
        fixture, _, make = SERVERS[kind]
        reach(request, request.getfixturevalue(fixture).environment)
        with pytest.raises(MissingError, match="no such bucket") as caught:
            call(make("no-bucket-of-this-name"))
        assert not isinstance(caught.value, ObjectMissingError)
        assert "no-bucket-of-this-name/runs/x" in str(caught.value)

    @pytest.mark.parametrize("kind", SERVERS)
    def test_neighbours_of_a_prefix_are_not_seen(self, request, kind):
        fixture, _, make = SERVERS[kind]
        server = request.getfixturevalue(fixture)
        reach(request, server.environment)
        bucket = server.new_bucket()
        for prefix in ("runs/x", "runs/xy", "runs", "run", ""):
            make(bucket, prefix=prefix).write("a", prefix.encode())
        assert [info.key for info in make(bucket, prefix="runs/x").list("")] == ["a"]
        assert {info.key for info in make(bucket, prefix="runs").list("x")} == {"x/a", "xy/a"}
        assert {info.key for info in make(bucket, prefix="").list("")} == {"runs/x/a", "runs/xy/a", "runs/a", "run/a", "a"}
        assert make(bucket, prefix="runs/xy").read("a") == b"runs/xy"

    @pytest.mark.parametrize("name", ["../b", "a//b", "a\\b", "/a", "a/./b", "a/"])
    def test_an_object_whose_name_could_leave_is_named(self, moto, request, name):
        reach(request, moto.environment)
        store = s3_store(bucket := moto.new_bucket())
        moto.client.put_object(Bucket=bucket, Key=f"runs/x/{name}", Body=b"1")
        with pytest.raises(DataError, match=re.escape(repr(name))):
            list(store.list(""))

    def test_folder_markers_are_passed_over(self, moto, request):
        reach(request, moto.environment)
        store = s3_store(bucket := moto.new_bucket())
        for name in ("", "sub/", ".sdjob-tmp/left"):
            moto.client.put_object(Bucket=bucket, Key=f"runs/x/{name}", Body=b"")
        store.write("sub/a", b"1")
        assert [info.key for info in store.list("")] == ["sub/a"]

    @pytest.mark.parametrize("make", [s3_store, gcs_store])
    def test_a_name_that_is_none(self, request, seaweed, gcs_server, make, call):
        reach(request, seaweed.environment | gcs_server.environment)
        with pytest.raises((UsageError, MissingError)):
            call(make("Not A Bucket!"))


class TestS3Identity:
    def test_without_rights(self, seaweed, request, call):
        bucket = seaweed.new_bucket()
        reach(request, seaweed.powerless_environment)
        with pytest.raises(ObjectDeniedError, match="may not do that") as caught:
            call(s3_store(bucket))
        assert "s3:ListBucket" in str(caught.value)
        assert seaweed.powerless_secret_key not in str(caught.value)

    def test_with_a_wrong_secret(self, seaweed, request, call):
        reach(request, seaweed.environment | {"AWS_SECRET_ACCESS_KEY": "not-the-secret"})
        with pytest.raises(ObjectDeniedError) as caught:
            call(s3_store("any-bucket"))
        assert "not-the-secret" not in str(caught.value)

    def test_of_an_unknown_key(self, seaweed, request, call):
        reach(request, seaweed.environment | {"AWS_ACCESS_KEY_ID": "unknown"})
        with pytest.raises(ObjectDeniedError):
            call(s3_store("any-bucket"))

    def test_none(self, seaweed, request, call, monkeypatch):
        reach(request, seaweed.environment)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        store = s3_store("any-bucket")
        for asked in (lambda: call(store), store.credentials):
            with pytest.raises(ObjectDeniedError, match=r"no AWS credentials were found.*AWS_PROFILE"):
                asked()

    def test_a_profile_that_is_not_there(self, request, seaweed, call):
        reach(request, seaweed.environment | {"AWS_PROFILE": "nowhere"})
        with pytest.raises(ObjectDeniedError, match="AWS_PROFILE names is not there"):
            call(s3_store("any-bucket"))

    def test_an_endpoint_that_is_no_address(self, request, seaweed, call):
        reach(request, seaweed.environment | {"AWS_ENDPOINT_URL_S3": "no address"})
        with pytest.raises(UsageError, match="AWS_ENDPOINT_URL_S3"):
            call(s3_store("any-bucket"))

    def test_an_endpoint_where_nobody_is(self, request, seaweed, call):
        reach(request, seaweed.environment | {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"})
        with pytest.raises(TransientStoreError, match="cannot be reached"):
            call(s3_store("any-bucket"))

    def test_is_told_without_its_secret(self, request, seaweed):
        reach(request, seaweed.environment)
        told = s3_store("any-bucket").credentials()
        assert told == f"access key ...{seaweed.access_key[-4:]} from the environment"


class TestS3Replies:
    @pytest.mark.parametrize(
        ("status", "code", "kind", "says"),
        [
            (400, "ExpiredToken", ObjectDeniedError, "have expired"),
            (403, "RequestTimeTooSkewed", ObjectDeniedError, "clock"),
            (403, "SignatureDoesNotMatch", ObjectDeniedError, "does not belong to the access key"),
            (403, "InvalidAccessKeyId", ObjectDeniedError, "does not know this access key"),
            (403, "InvalidObjectState", StorageError, "archived"),
            (400, "AuthorizationHeaderMalformed", UsageError, "AWS_REGION"),
            (409, "OperationAborted", TransientStoreError, "busy"),
            (429, "TooManyRequests", TransientStoreError, "busy"),
            (503, "SlowDown", TransientStoreError, "busy"),
            (500, "InternalError", TransientStoreError, "busy"),
            (507, "XMinioStorageFull", StorageError, "full"),
            (403, "QuotaExceeded", StorageError, "quota"),
            (418, "Teapot", StorageError, r"answers Teapot \(418\)"),
        ],
    )
    def test_each_code_has_its_sentence(self, on_s3, status, code, kind, says):
        store, proxy = on_s3
        proxy.faults.append(Fault("status", status=status, reply=xml(code), times=1000))
        with pytest.raises(kind, match=says) as caught:
            store.read("a")
        assert type(caught.value) is kind
        assert str(caught.value).startswith(f"{store.uri}/a: ")

    @pytest.mark.parametrize(("status", "kind"), [(403, ObjectDeniedError), (400, ObjectDeniedError), (503, TransientStoreError)])
    def test_a_reply_without_a_body(self, on_s3, status, kind):
        store, proxy = on_s3
        proxy.faults.append(Fault("status", method="HEAD", status=status, times=1000))
        with pytest.raises(kind):
            store.stat("a")

    def test_who_was_refused_what_is_passed_on(self, on_s3):
        store, proxy = on_s3
        message = "User: arn:aws:iam::1:user/x is not authorized to perform: s3:PutObject"
        proxy.faults.append(Fault("status", method="PUT", status=403, reply=xml("AccessDenied", message)))
        with pytest.raises(ObjectDeniedError, match="is not authorized to perform: s3:PutObject"):
            store.write("a", b"1")

    @pytest.mark.parametrize("times", [1, 3])
    def test_a_conflict_of_two_creates_is_tried_again(self, on_s3, times):
        store, proxy = on_s3
        conflict = Fault("status", method="PUT", status=409, reply=xml("ConditionalRequestConflict"), times=times)
        proxy.faults.append(conflict)
        assert store.create("log/0", b"mine") is True
        assert store.read("log/0") == b"mine"
        conflict.times = times
        assert store.create("log/0", b"other") is False

    def test_one_key_of_a_batch_that_was_refused(self, on_s3):
        store, proxy = on_s3
        refused = b"<DeleteResult><Error><Key>runs/x/b</Key><Code>AccessDenied</Code></Error></DeleteResult>"
        proxy.faults.append(Fault("status", method="POST", path="delete", status=200, reply=refused))
        with pytest.raises(ObjectDeniedError, match="runs/x/b"):
            store.delete(["a", "b"])

    @pytest.fixture
    def on_s3(self, seaweed, request) -> Iterator[tuple[S3Store, FaultyProxy]]:
        reach(request, seaweed.environment)
        with FaultyProxy(seaweed.endpoint) as proxy:
            reach(request, {"AWS_ENDPOINT_URL_S3": proxy.endpoint})
            yield s3_store(seaweed.new_bucket()), proxy


class TestGcsReplies:
    @pytest.mark.parametrize(
        ("status", "told", "kind", "says"),
        [
            (403, "x@y.iam does not have storage.objects.get access", ObjectDeniedError, "storage.objects.get"),
            (403, "The rate limit exceeded", TransientStoreError, "busy"),
            (403, "The quota was exceeded", StorageError, "quota"),
            (408, "", TransientStoreError, "busy"),
            (429, "", TransientStoreError, "busy"),
            (503, "", TransientStoreError, "busy"),
            (507, "", StorageError, "full"),
            (418, "", StorageError, "answers 418"),
        ],
    )
    def test_each_status_has_its_sentence(self, on_gcs, status, told, kind, says):
        """Both ways: a download's plain text, and the API's JSON."""
        store, proxy = on_gcs
        for method, reply in (("GET", told), ("POST", f'{{"error": {{"code": {status}, "message": "{told}"}}}}')):
            proxy.faults = [Fault("status", method=method, status=status, reply=reply.encode(), times=1000)]
            with pytest.raises(kind, match=says) as caught:
                store.read("a") if method == "GET" else store.write("a", b"1")
            assert type(caught.value) is kind
            assert str(caught.value).startswith(f"{store.uri}/a: ")

    def test_a_page_is_not_passed_on(self, on_gcs):
        store, proxy = on_gcs
        proxy.faults.append(Fault("status", status=403, reply=b"<html>a page of a proxy on the way</html>"))
        with pytest.raises(ObjectDeniedError) as caught:
            store.read("a")
        assert "html" not in str(caught.value)

    def test_no_address_of_an_upload_session_is_passed_on(self, on_gcs, tmp_path):
        store, proxy = on_gcs
        (tmp_path / "large").write_bytes(bytes(9 * 1024 * 1024))
        proxy.faults.append(Fault("status", method="PUT", status=403, times=1000))
        with pytest.raises(ObjectDeniedError) as caught:
            store.write_file("a", tmp_path / "large")
        assert "upload_id" not in str(caught.value)
        assert "uploadType" not in str(caught.value)

    def test_an_endpoint_where_nobody_is(self, request, call):
        reach(request, {"STORAGE_EMULATOR_HOST": "http://127.0.0.1:9"})
        with pytest.raises(TransientStoreError, match="cannot be reached"):
            call(gcs_store("any-bucket"))

    def test_no_credentials(self, request, call, monkeypatch, tmp_path):
        reach(request, {"NO_GCE_CHECK": "true", "CLOUDSDK_CONFIG": str(tmp_path)})
        for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
            monkeypatch.delenv(name, raising=False)
        store = gcs_store("any-bucket")
        for asked in (lambda: call(store), store.credentials):
            with pytest.raises(ObjectDeniedError, match=r"no Google credentials were found.*GOOGLE_APPLICATION_CREDENTIALS"):
                asked()

    @pytest.fixture
    def on_gcs(self, gcs_server, request) -> Iterator[tuple[GcsStore, FaultyProxy]]:
        with FaultyProxy(gcs_server.endpoint) as proxy:
            reach(request, {"STORAGE_EMULATOR_HOST": proxy.endpoint})
            yield gcs_store(gcs_server.new_bucket()), proxy


class TestExpiry:
    def test_a_rule_of_the_bucket_is_told(self, moto, request):
        reach(request, moto.environment)
        bucket = moto.new_bucket()
        rules = [
            {"ID": "clean", "Status": "Enabled", "Filter": {"Prefix": "runs/"}, "Expiration": {"Days": 30}},
            {"ID": "other", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 1}},
        ]
        moto.client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
        assert s3_store(bucket).expiry_rules() == [
            "The rule clean deletes objects below 'runs/' 30 days after they were written."
        ]

    @pytest.mark.parametrize("kind", SERVERS)
    def test_of_a_bucket_that_is_not_there(self, request, kind):
        fixture, _, make = SERVERS[kind]
        reach(request, request.getfixturevalue(fixture).environment)
        with pytest.raises(MissingError, match="no such bucket"):
            make("no-bucket-of-this-name").expiry_rules()
