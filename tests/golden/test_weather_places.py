"""Places that are not there, are something else, or cannot be reached: what `sdjob` says of each."""

import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from fakes.faulty_proxy import Fault, FaultyProxy
from fakes.folders import MODEL_FILES
from fakes.weather import GOLDENS, Weather

SERVERS = {"s3": "seaweed", "gs": "gcs_server"}
NOWHERE = "no-such-bucket-anywhere"
NO_HOST = "http://no-such-host.invalid"
ENDPOINTS = {"s3": "AWS_ENDPOINT_URL_S3", "gs": "STORAGE_EMULATOR_HOST", "hf": "HF_ENDPOINT"}


def bucket_in(scheme: str, request: pytest.FixtureRequest, weather: Weather, **files: bytes) -> str:
    """A new one, with these files."""
    return getattr(weather, scheme)(request.getfixturevalue(SERVERS[scheme]), files=files)


@pytest.mark.parametrize(
    ("scheme", "field"),
    [
        *(("s3", field) for field in ("model__source", "data__source", "checkpoint__to", "publish")),
        *(("gs", field) for field in ("checkpoint__to", "publish")),
    ],
)
def test_a_bucket_that_is_not_there(scheme: str, field: str, request, weather):
    bucket_in(scheme, request, weather)
    place = f"{scheme}://{NOWHERE}/some/where"
    weather.job(**{field: [{"to": place}] if field == "publish" else place})
    weather.says(f"bucket-missing-{scheme}-{field.partition('__')[0]}", weather.run(), code=66)


@pytest.mark.parametrize(("scheme", "field"), [("s3", "model"), ("s3", "data"), ("gs", "data")])
def test_a_prefix_that_holds_nothing(scheme: str, field: str, request, weather):
    bucket = bucket_in(scheme, request, weather, **{"elsewhere/a.png": b"1"})
    weather.job(**{f"{field}__source": f"{scheme}://{bucket}/else"})
    weather.says(f"prefix-empty-{scheme}-{field}", weather.run(), code=66)


@pytest.mark.parametrize("words", [("sample", "--prompt", "a cat", "--out", "out"), ("export", "--to", "out"), ("checkpoints",)])
def test_a_prefix_that_holds_no_run(words: tuple[str, ...], seaweed, weather):
    bucket = weather.s3(seaweed, files={"elsewhere/a.png": b"1"})
    verb, *more = words
    told = weather.sdjob(verb, *(["list"] if verb == "checkpoints" else []), f"s3://{bucket}/runs/tiny", *more)
    weather.says(f"prefix-empty-{verb}", told, code=66)
    assert not (weather.folder / "out").exists()


@pytest.mark.parametrize("verb", ["run", "sample"])
def test_a_scheme_that_is_misspelled(verb: str, weather):
    place = "s4://bucket/runs/tiny"
    lines = {
        "run": ("run", weather.job(checkpoint__to=place)),
        "sample": ("sample", place, "--prompt", "a cat", "--out", "out"),
    }
    weather.says(f"scheme-misspelled-{verb}", weather.sdjob(*lines[verb]), code=64)


FILES_FOR_FOLDERS: dict[str, tuple[str, Any, int]] = {
    "model": ("model__source", "a-file", 66),
    "data": ("data__source", "a-file", 65),
    "checkpoint": ("checkpoint__to", "a-file", 64),
    "checkpoint-below": ("checkpoint__to", "a-file/runs", 64),
    "publish": ("publish", [{"to": "a-file/published"}], 64),
}


@pytest.mark.parametrize("case", FILES_FOR_FOLDERS)
def test_a_file_where_a_folder_is_meant(case: str, weather):
    path, value, code = FILES_FOR_FOLDERS[case]
    weather.job(**{path: value})
    (weather.folder / "a-file").write_bytes(b"somebody's letter")
    weather.says(f"file-for-folder-{case}", weather.run(), code=code)


@pytest.mark.parametrize("field", ["model", "data", "init-from", "job"])
def test_a_relative_path_that_is_not_there(field: str, weather):
    path = {"init-from": "train__init_from"}.get(field, f"{field}__source")
    weather.job(**({} if field == "job" else {path: "some/where"}))
    told = weather.sdjob("run", "jobs.yaml") if field == "job" else weather.run()
    weather.says(f"path-missing-{field}", told, code=66)


def test_a_file_where_pictures_go(weather):
    weather.job()
    (weather.folder / "out").write_bytes(b"somebody's letter")
    told = weather.sdjob("sample", "model", "--prompt", "a cat", "--out", "out")
    weather.says("file-for-folder-out", told, code=64)


@pytest.mark.parametrize("scheme", ENDPOINTS)
@pytest.mark.parametrize("trouble", ["refused", "unknown-host"])
def test_an_endpoint_that_is_not_there(scheme: str, trouble: str, weather):
    with socket.socket() as closed:  # bound and not listening: nobody else can answer there
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}" if trouble == "refused" else NO_HOST
        weather.reach({ENDPOINTS[scheme]: endpoint, "AWS_ACCESS_KEY_ID": "somebody"})
        weather.job(model__source="hf://owner/name" if scheme == "hf" else f"{scheme}://bucket/model")
        weather.says(f"endpoint-{trouble}-{scheme}", weather.run(hurried=True), code=74)


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and answers nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_an_endpoint_that_never_answers(silent, weather):
    weather.reach({ENDPOINTS["s3"]: silent, "AWS_ACCESS_KEY_ID": "somebody"})
    weather.job(model__source="s3://bucket/model")
    weather.says("endpoint-silent-s3", weather.run(hurried=True), code=74)


def test_a_body_that_stops_in_the_middle(seaweed, weather):
    bucket = weather.s3(seaweed, files={f"model/{name}": data for name, data in MODEL_FILES.items()})
    weather.job(model__source=f"s3://{bucket}/model")
    with FaultyProxy(seaweed.endpoint) as proxy:
        proxy.faults.append(Fault("hang", path="unet/model.safetensors", after_bytes=500, times=100))
        weather.reach({ENDPOINTS["s3"]: proxy.endpoint})
        weather.says("body-hangs-s3", weather.run(hurried=True), code=74)
        assert set(proxy.struck) == {"hang"}


S3_ERROR = "<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"


@pytest.mark.parametrize(("code", "status"), [("PermanentRedirect", 301), ("AuthorizationHeaderMalformed", 400)])
def test_a_bucket_in_another_region(code: str, status: int, seaweed, weather):
    bucket = weather.s3(seaweed)
    weather.job(checkpoint__to=f"s3://{bucket}/run")
    reply = S3_ERROR.format(code=code, message="wrong region", more="<Region>eu-north-1</Region>").encode()
    with FaultyProxy(seaweed.endpoint) as proxy:
        for method in ("GET", "HEAD", "PUT"):
            proxy.faults.append(Fault("status", method=method, status=status, reply=reply, times=100))
        weather.reach({ENDPOINTS["s3"]: proxy.endpoint})
        weather.says(f"region-{status}", weather.run(), code=64)


def test_an_object_whose_name_leads_out_of_the_folder(moto, weather):
    bucket = weather.s3(moto, files={"pictures/../../etc/a.png": b"1", "pictures/b.png": b"2"})
    weather.job(data__source=f"s3://{bucket}/pictures")
    weather.says("key-leads-out", weather.run(), code=65)


def test_a_name_that_is_a_file_and_a_folder(moto, weather):
    bucket = weather.s3(moto, files={"pictures/a.png": b"1", "pictures/a.png/b.png": b"2"})
    weather.job(data__source=f"s3://{bucket}/pictures")
    weather.says("key-file-and-folder", weather.run(), code=65)


def test_there_are_enough():
    """And every one of them is said to a person: none is a fault of sdjob."""
    texts = [golden.read_text() for golden in GOLDENS.glob("*.txt")]
    assert len(texts) >= 45
    assert [text for text in texts if not re.match(r"exit \d+\n\S", text) or text.startswith("exit 70\n")] == []
