"""Identities that are wrong, missing, expired or may not do enough: what `sdjob` says, and that it says so before it begins."""

import json

import pytest

from fakes.faulty_proxy import Fault, FaultyProxy
from fakes.folders import MODEL_FILES
from fakes.weather import Weather, inside_mounts, read_only

ENDPOINTS = {"s3": "AWS_ENDPOINT_URL_S3", "gs": "STORAGE_EMULATOR_HOST"}
MODEL = {f"model/{name}": data for name, data in MODEL_FILES.items()}
WRONG = "wrong0secret0wrong0secret0wrong0secret0"


def job_in_bucket(seaweed, weather: Weather) -> str:
    bucket = weather.s3(seaweed, files={"letter.txt": b"somebody's letter"})
    weather.job(checkpoint__to=f"s3://{bucket}/run")
    return bucket


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("secret-wrong", {"AWS_SECRET_ACCESS_KEY": WRONG}),
        ("key-unknown", {"AWS_ACCESS_KEY_ID": "AKIANOBODYKNOWSTHIS1", "AWS_SECRET_ACCESS_KEY": WRONG}),
        ("secret-missing", {"AWS_SECRET_ACCESS_KEY": ""}),
        ("keys-missing", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}),
        ("profile-missing", {"AWS_PROFILE": "nobody"}),
        ("session-token-foreign", {"AWS_SESSION_TOKEN": "another0sessions0token0another0sessions0token"}),
    ],
)
def test_keys_of_s3(name: str, keys: dict[str, str], seaweed, weather):
    job_in_bucket(seaweed, weather)
    weather.reach(keys)
    weather.says(f"s3-{name}", weather.run(), code=77)


@pytest.mark.parametrize("who", ["powerless", "reader", "writer"])
def test_an_identity_that_may_not_do_enough(who: str, seaweed, weather):
    """For the run's own place it needs to read, to list and to write."""
    bucket = job_in_bucket(seaweed, weather)
    weather.reach(seaweed.powerless_environment if who == "powerless" else getattr(seaweed, who).environment)
    weather.says(f"s3-identity-{who}-checkpoint", weather.run(), code=77)
    assert list(weather.places[f"s3://{bucket}"]()) == ["letter.txt"]


@pytest.mark.parametrize("field", ["model", "data"])
def test_an_identity_that_may_not_read(field: str, seaweed, weather):
    bucket = weather.s3(seaweed, files={**MODEL, "pictures/a.png": b"1"})
    weather.job(**{f"{field}__source": f"s3://{bucket}/{'model' if field == 'model' else 'pictures'}"})
    weather.reach(seaweed.writer.environment)
    weather.says(f"s3-identity-writer-{field}", weather.run(), code=77)


def test_an_identity_that_may_only_read_is_enough_for_the_sources(seaweed, weather):
    """It comes as far as the pictures, which are none."""
    bucket = weather.s3(seaweed, files={**MODEL, "pictures/a.png": b"1", "pictures/a.txt": b"a cat"})
    weather.job(model__source=f"s3://{bucket}/model", data__source=f"s3://{bucket}/pictures")
    weather.reach(seaweed.reader.environment)
    weather.says("s3-identity-reader-sources", weather.run(), code=65)


@pytest.mark.parametrize(("code", "status"), [("ExpiredToken", 400), ("RequestTimeTooSkewed", 403), ("InvalidToken", 400)])
def test_what_s3_says_of_credentials_that_were_good(code: str, status: int, seaweed, weather):
    job_in_bucket(seaweed, weather)
    reply = f"<Error><Code>{code}</Code><Message>the token is of yesterday</Message></Error>".encode()
    with FaultyProxy(seaweed.endpoint) as proxy:
        proxy.faults.append(Fault("status", status=status, reply=reply, times=100))
        weather.reach({ENDPOINTS["s3"]: proxy.endpoint})
        weather.says(f"s3-{code}", weather.run(), code=77)


# ---- Google Cloud Storage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["missing", "file-missing", "file-broken"])
def test_google_credentials(name: str, weather):
    weather.job(checkpoint__to="gs://bucket/run")
    if name != "missing":
        weather.reach({"GOOGLE_APPLICATION_CREDENTIALS": str(weather.folder / "key.json")})
    if name == "file-broken":
        (weather.folder / "key.json").write_text('{"type": "service_account", "private_key": ')
    weather.says(f"gs-credentials-{name}", weather.run(), code=77)


def test_what_google_says_of_an_identity(gcs_server, weather):
    bucket = weather.gs(gcs_server, files={"letter.txt": b"somebody's letter"})
    weather.job(checkpoint__to=f"gs://{bucket}/run")
    told = "sdjob@project.iam.gserviceaccount.com does not have storage.objects.create access to the Google Cloud Storage object."
    reply = json.dumps({"error": {"code": 403, "message": told}}).encode()
    with FaultyProxy(gcs_server.endpoint) as proxy:
        kind = {"Content-Type": "application/json"}
        proxy.faults.append(Fault("status", method="POST", status=403, reply=reply, headers=kind, times=100))
        weather.reach({ENDPOINTS["gs"]: proxy.endpoint})
        weather.says("gs-denied", weather.run(), code=77)


# ---- this machine ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["checkpoint", "publish"])
def test_a_folder_that_may_only_be_read(field: str, weather):
    """In a mount of the child's own, since root may write whatever modes say."""
    weather.job(**({"checkpoint__to": "shelf/run"} if field == "checkpoint" else {"publish": [{"to": "shelf/published"}]}))
    (weather.folder / "shelf").mkdir()
    (weather.folder / "shelf/letter.txt").write_bytes(b"somebody's letter")
    told = weather.run(inside=inside_mounts(read_only(weather.folder / "shelf")))
    weather.says(f"read-only-{field}", told, code=77)
