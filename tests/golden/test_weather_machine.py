"""What this machine lacks: room, permission, packages, an accelerator, a key."""

import io

import numpy as np
import pytest
from PIL import Image

from fakes.data_sets import Pair, as_parquet, drawn_pairs, write_objects
from fakes.folders import MODEL_FILES
from fakes.weather import Weather, inside_mounts, read_only, small_disk

LARGE = 2 * 2**20
WEIGHTS = (LARGE - 8).to_bytes(8, "little") + b"{}".ljust(LARGE - 8)
MODEL = {f"model/{name}": data for name, data in {**MODEL_FILES, "unet/model.safetensors": WEIGHTS}.items()}


def png(*, size: int) -> bytes:
    """A picture that no compression makes smaller."""
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    return file.getvalue()


# ---- scratch ---------------------------------------------------------------------------------------------------------------


def on_small_disk(weather: Weather, *, size_kib: int) -> tuple[str, ...]:
    (weather.folder / "scratch").mkdir()
    return inside_mounts(small_disk(weather.folder / "scratch", size_kib=size_kib))


def test_scratch_has_no_room_for_the_model(seaweed, weather):
    bucket = weather.s3(seaweed, files=MODEL)
    weather.job(model__source=f"s3://{bucket}/model")
    weather.says("scratch-small-model", weather.run(inside=on_small_disk(weather, size_kib=1024)), code=74)


def test_scratch_has_no_room_for_the_pictures(seaweed, weather):
    files = as_parquet([Pair(png(size=600), "a cat")])
    bucket = weather.s3(seaweed, files={f"set/{name}": data for name, data in files.items()})
    weather.job(data__source=f"s3://{bucket}/set")
    weather.says("scratch-small-pictures", weather.run(inside=on_small_disk(weather, size_kib=1024)), code=74)


def test_scratch_fills_up_on_the_way(seaweed, weather):
    """The file has room there, and its pictures beside it have none."""
    files = as_parquet([Pair(png(size=440), "a cat")])
    bucket = weather.s3(seaweed, files={f"set/{name}": data for name, data in files.items()})
    weather.job(data__source=f"s3://{bucket}/set")
    weather.says("scratch-full-pictures", weather.run(inside=on_small_disk(weather, size_kib=1024)), code=74)


def test_scratch_has_next_to_nothing(weather):
    """Model and pictures stay where they are; the attempt's own small files find no room."""
    weather.job()
    weather.says("scratch-full-attempt", weather.run(inside=on_small_disk(weather, size_kib=4)), code=74)


def test_scratch_that_may_only_be_read_is_told_when_drawing(seaweed, weather):
    bucket = weather.s3(seaweed, files={f"model/{name}": data for name, data in MODEL_FILES.items()})
    (weather.folder / "scratch").mkdir()
    inside = inside_mounts(read_only(weather.folder / "scratch"))
    told = weather.sdjob("sample", f"s3://{bucket}/model", "--prompt", "a cat", "--out", "out", inside=inside)
    weather.says("scratch-read-only-sample", told, code=74)


@pytest.mark.parametrize("source", ["folder", "bucket"])
def test_scratch_that_may_only_be_read(source: str, seaweed, weather):
    bucket = weather.s3(seaweed, files={f"model/{name}": data for name, data in MODEL_FILES.items()})
    weather.job(**({"model__source": f"s3://{bucket}/model"} if source == "bucket" else {}))
    (weather.folder / "scratch").mkdir()
    told = weather.run(inside=inside_mounts(read_only(weather.folder / "scratch")))
    weather.says(f"scratch-read-only-{source}", told, code=74)


def test_scratch_is_a_file(weather):
    weather.job(run__scratch=str(weather.folder / "letter.txt"))
    (weather.folder / "letter.txt").write_bytes(b"somebody's letter")
    weather.says("scratch-is-a-file", weather.run(), code=74)


def test_mended_it_goes_on(seaweed, weather):
    """On a larger disk, as far as the next thing that is wrong."""
    bucket = weather.s3(seaweed, files=MODEL)
    weather.job(model__source=f"s3://{bucket}/model", train__init_from="lora.safetensors")
    assert "scratch has" in weather.run(inside=on_small_disk(weather, size_kib=1024)).error
    assert "lora.safetensors does not exist" in weather.run().error


# ---- packages, keys, devices -----------------------------------------------------------------------------------------------

PLACES = {
    "boto3": ("checkpoint__to", "s3://bucket/run"),
    "google.auth": ("checkpoint__to", "gs://bucket/run"),
    "huggingface_hub": ("model__source", "hf://owner/name"),
    "pyarrow": ("data__source", "set"),
    "datasets": ("data__source", "set"),
}


@pytest.mark.parametrize("package", PLACES)
def test_a_place_whose_package_is_missing(package: str, weather):
    path, place = PLACES[package]
    weather.job(**{path: place})
    write_objects(weather.folder / "set", as_parquet(drawn_pairs(2)))
    weather.says(f"package-missing-{package}", weather.run(without=package), code=69)


@pytest.mark.parametrize("package", ["wandb", "tensorboard"])
def test_a_tracker_whose_package_is_missing(package: str, weather):
    weather.job(track=[package])
    weather.says(f"package-missing-{package}", weather.run(without=package), code=69)
    assert not (weather.folder / "run").exists()


def test_weights_and_biases_without_a_key(weather):
    weather.job(track=["wandb"])
    weather.reach({"WANDB_API_KEY": ""})
    weather.says("wandb-key-missing", weather.run(), code=77)
    assert not (weather.folder / "run").exists()


def test_weights_and_biases_in_a_mode_that_does_not_exist(weather):
    weather.job(track=["wandb"])
    weather.reach({"WANDB_MODE": "off"})
    weather.says("wandb-mode", weather.run(), code=64)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("nvidia", {"run__accelerator": "nvidia-l4"}),
        ("xformers", {"train__attention": "xformers", "train__deterministic": False, "run__accelerator": None}),
    ],
)
def test_what_the_machine_does_not_have(name: str, fields: dict[str, object], weather):
    weather.job(**fields)
    weather.says(f"machine-lacks-{name}", weather.run(), code=69)


# ---- doctor ----------------------------------------------------------------------------------------------------------------


def failed(stdout: str) -> str:
    """What doctor found wrong; the rest of its lines is about this very machine."""
    return "".join(line + "\n" for line in stdout.splitlines() if line.startswith("failed"))


def test_doctor_finds_three_places_that_are_wrong_at_once(seaweed, hub, weather):
    """The exit code is that of the first."""
    weather.s3(seaweed)
    hub.forget()
    weather.hub(hub, token=hub.read_token)
    weather.job(
        model__source="s3://no-such-bucket-anywhere/model",
        data__source="some/where",
        publish=[{"to": "hf://me/tiny-lora"}],
    )
    told = weather.sdjob("doctor", "job.yaml")
    weather.says("doctor-three-places", told, code=66, stdout=failed(told.stdout))
    assert len(failed(told.stdout).splitlines()) == 3
    assert not (weather.folder / "run").exists()


def test_doctor_looks_at_folders(weather):
    weather.job(model__source="a-file", data__source="b-file", checkpoint__to="c-file", publish=[{"to": "d-file/published"}])
    for name in "abcd":
        (weather.folder / f"{name}-file").write_bytes(b"somebody's letter")
    told = weather.sdjob("doctor", "job.yaml")
    weather.says("doctor-files-for-folders", told, code=66, stdout=failed(told.stdout))
