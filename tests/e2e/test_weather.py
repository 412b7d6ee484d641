"""Bad weather in the middle of a run: what is committed stands, and the end is the one that there would have been without it."""

import random
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fakes.faulty_proxy import Asked, Fault, FaultyProxy
from fakes.pictures import write_picture_folder
from fakes.running import HANG_S, Workshop
from fakes.weather import Weather, inside_mounts, small_disk
from sdjob.ckpt.engine import CommitLog
from sdjob.core.clock import SystemClock
from sdjob.core.log import Log
from sdjob.spec.places import parse_place
from sdjob.store.open import open_store

METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")
ALWAYS = 10**9
LONG = 24  # steps, where something is to happen before the end
FEWER_PICTURES = 1000  # asked for, where there are seven


def small(workshop: Workshop, **fields: Any) -> dict[str, Any]:
    places = {"model__source": str(workshop.model()), "data__source": str(workshop.pictures)}
    rest = {"data__max_samples": FEWER_PICTURES, "train__optimizer": {"learning_rate": 0.01}, "checkpoint__every_steps": 1}
    return {**places, **rest, "checkpoint__keep": 100, **fields}


ROOM_FOR_SHARDS_KIB = 48  # of 2 KiB a picture and 10 KiB a caption, and some files of an attempt, but not all of these


def undisturbed(workshop: Workshop, *, steps: int) -> str:
    """The digest of the same job in good weather."""
    fields = {**small(workshop), "validation": None, "publish": [], "train__steps": steps}
    return workshop.finished(f"good-weather-{steps}", **fields).done_digest()


def log_of(bucket: str, server: Any, monkeypatch: pytest.MonkeyPatch) -> CommitLog:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(parse_place(f"s3://{bucket}/run", base=Path("/")))
    return CommitLog(store, clock=SystemClock(), log=Log(mode="text", secrets=()))


def check_end(log: CommitLog, *, steps: int, digest: str) -> list[int]:
    """The steps that were committed: none of them twice (one is left out where the save before it was still on its way), and
    the last as it should be."""
    history = log.replay()
    committed = [commit.step for commit in history.commits]
    assert committed == sorted(set(committed))
    assert committed[-1] == steps
    assert history.done is not None
    assert history.done.digest == digest
    return committed


@pytest.fixture
def proxy(seaweed) -> Iterator[FaultyProxy]:
    with FaultyProxy(seaweed.endpoint) as proxy:
        yield proxy


def through(proxy: FaultyProxy, weather: Weather) -> None:
    weather.reach({"AWS_ENDPOINT_URL_S3": proxy.endpoint})


def test_three_of_ten_requests_are_refused(seaweed, proxy, workshop, weather, monkeypatch):
    bucket = weather.s3(seaweed)
    weather.job(**small(workshop, checkpoint__to=f"s3://{bucket}/run"))
    rng, lock = random.Random(0), threading.Lock()

    def at_times(asked: Asked) -> bool:
        with lock:
            return rng.random() < 0.3

    proxy.faults += [Fault("status", method=method, when=at_times, times=ALWAYS) for method in METHODS]
    through(proxy, weather)
    ended = weather.start().end()
    assert ended.code == 0, ended.output
    assert len(proxy.struck) > 10
    check_end(log_of(bucket, seaweed, monkeypatch), steps=4, digest=undisturbed(workshop, steps=4))


def test_the_reply_to_a_commit_is_lost(seaweed, proxy, workshop, weather, monkeypatch):
    """The slot lands and nobody hears of it."""
    bucket = weather.s3(seaweed)
    weather.job(**small(workshop, checkpoint__to=f"s3://{bucket}/run"))
    proxy.faults.append(Fault("drop_reply", method="PUT", path="/log/000000000002.json"))
    through(proxy, weather)
    ended = weather.start().end()
    assert ended.code == 0, ended.output
    assert proxy.struck == ["drop_reply"]
    committed = check_end(log_of(bucket, seaweed, monkeypatch), steps=4, digest=undisturbed(workshop, steps=4))
    assert committed == ended.committed


def test_the_credentials_are_revoked(seaweed, proxy, workshop, weather, monkeypatch):
    """And are good again for the next attempt, which goes on from what was committed."""
    bucket = weather.s3(seaweed)
    weather.job(**small(workshop, checkpoint__to=f"s3://{bucket}/run", train__steps=LONG))
    reply = b"<Error><Code>InvalidAccessKeyId</Code><Message>it was deleted</Message></Error>"

    def revoke() -> None:
        proxy.faults += [Fault("status", method=method, status=403, reply=reply, times=ALWAYS) for method in METHODS]

    proxy.faults.append(Fault("slow", method="PUT", path="/log/000000000002.json", then=revoke))  # this slot still goes through
    through(proxy, weather)
    told = weather.told_by(weather.start().end())
    weather.says("revoked-in-mid-run", told, code=77)
    log, stands = log_of(bucket, seaweed, monkeypatch), weather.contents()
    step = log.replay().live[0].step
    weather.reach(seaweed.environment)
    after = weather.start().end()
    assert after.code == 0, after.output
    assert after.start_step == step
    weather.nothing_is_lost(stands, told)
    check_end(log, steps=LONG, digest=undisturbed(workshop, steps=LONG))


def test_the_bucket_is_deleted(seaweed, workshop, weather):
    bucket = weather.s3(seaweed)
    weather.job(**small(workshop, checkpoint__to=f"s3://{bucket}/run", train__steps=100))
    running = weather.start()
    running.wait_for("commit", step=1)
    del weather.places[f"s3://{bucket}"]
    running.signal(signal.SIGSTOP)  # one that still wrote would see its objects go one by one
    remove(seaweed, bucket)
    running.signal(signal.SIGCONT)
    weather.says("bucket-deleted-in-mid-run", weather.told_by(running.end()), code=66)


def remove(server: Any, bucket: str) -> None:
    """What a request that was under way leaves makes it a race, which ends once the bucket is gone."""
    while bucket in {entry["Name"] for entry in server.client.list_buckets()["Buckets"]}:
        for page in server.client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for entry in page.get("Contents", []):
                server.client.delete_object(Bucket=bucket, Key=entry["Key"])
        with suppress(server.client.exceptions.ClientError):  # not empty again
            server.client.delete_bucket(Bucket=bucket)


def test_the_server_dies_and_comes_back(tmp_path, workshop, weather, monkeypatch):
    """A server of this test's own; it is away for as long as it takes somebody to notice, and to start it."""
    from fakes.servers import start_seaweed

    server = start_seaweed(tmp_path / "seaweed")
    try:
        bucket = weather.s3(server)
        weather.job(**small(workshop, checkpoint__to=f"s3://{bucket}/run", train__steps=LONG))
        with FaultyProxy(server.endpoint) as proxy:
            through(proxy, weather)
            running = weather.start()
            running.wait_for("commit", step=1)
            server.process.kill()
            assert proxy.away.wait(HANG_S)
            server.process.start()
            ended = running.end()
        assert ended.code == 0, ended.output
        check_end(log_of(bucket, server, monkeypatch), steps=LONG, digest=undisturbed(workshop, steps=LONG))
    finally:
        server.kill()


def test_the_disk_of_the_checkpoints_is_full(workshop, weather):
    """There is room for one of two files; the training goes on, and the last step cannot be kept."""
    weather.job(**small(workshop), train__cache="never")
    (weather.folder / "run").mkdir()
    ended = weather.start(inside=inside_mounts(small_disk(weather.folder / "run", size_kib=96))).end()
    assert ended.of("commit") == []
    weather.says("checkpoint-disk-full", weather.told_by(ended), code=74)


def test_scratch_is_full_while_the_encoders_run(workshop, weather):
    """There is room for the shards, and for no more than them; with more room the next attempt computes nothing anew."""
    weather.job(**small(workshop), train__cache="always")
    scratch = weather.folder / "scratch"
    scratch.mkdir()
    ended = weather.start(inside=inside_mounts(small_disk(scratch, size_kib=ROOM_FOR_SHARDS_KIB))).end()
    assert not ended.of("encoded")
    assert ended.of("encode")
    weather.says("encodings-disk-full", weather.told_by(ended), code=74)
    again = weather.start().end()
    assert again.code == 0, again.output
    assert again.one("encoded")["computed"] == 0


# ---- what only the trainer sees ---------------------------------------------------------------------------------------------


def test_a_picture_is_replaced_in_its_folder(workshop, weather):
    """Between two attempts, the first of which ended for another reason. It is read where it stands, when it is trained on."""
    write_picture_folder(weather.folder / "set", count=2)
    fields = {**small(workshop), "data__source": "set"}
    weather.job(**fields, train__init_from="lora.safetensors")
    assert "lora.safetensors does not exist" in weather.run().error
    weather.job(**fields)
    del weather.places["folder"]
    first, second = sorted((weather.folder / "set").glob("picture-*"))
    for picture in (first, second):
        picture.write_bytes(picture.read_bytes() + b" ")
    weather.words |= {first.name: "PICTURE", second.name: "PICTURE"}
    weather.says("data-picture-replaced-in-folder", weather.run(), code=65)


def test_weights_that_do_not_fit_their_configuration(workshop, weather):
    shutil.copytree(workshop.model(), weather.folder / "base")
    config = weather.folder / "base/unet/config.json"
    config.write_text(config.read_text().replace('"cross_attention_dim": 32', '"cross_attention_dim": 48'))
    weather.job(**{**small(workshop), "model__source": "base", "train__cache": "never"})
    weather.says("model-weights-do-not-fit", weather.run(), code=65)
