"""The Hub: repositories that are gated, private, missing or gone, tokens that are wrong, a Hub that is out of order."""

from typing import Any

import pytest

from fakes.folders import EMPTY_WEIGHTS, MODEL_FILES
from fakes.hub import Hub
from fakes.weather import Weather

MODEL, DATA = "owner/model", "owner/pictures"


@pytest.fixture
def at_hub(hub: Hub, weather: Weather) -> Hub:
    hub.forget()
    hub.repositories.clear()
    weather.hub(hub, token=None)
    return hub


def log_in(weather: Weather, token: str | None) -> None:
    weather.environment["HF_TOKEN"] = token or ""


class TestReading:
    @pytest.mark.parametrize("who", ["nobody", "stranger"])
    def test_a_gated_model(self, who: str, at_hub, weather):
        at_hub.new_repo("models", MODEL, MODEL_FILES, gated=True)
        log_in(weather, at_hub.stranger_token if who == "stranger" else None)
        weather.job(model__source=f"hf://{MODEL}")
        weather.says(f"hub-gated-{who}", weather.run(), code=77)

    @pytest.mark.parametrize("who", ["nobody", "stranger"])
    def test_a_private_data_set(self, who: str, at_hub, weather):
        """The Hub does not tell it from one that is missing."""
        at_hub.new_repo("datasets", DATA, {"a.png": b"1"}, private=True)
        log_in(weather, at_hub.stranger_token if who == "stranger" else None)
        weather.job(data__source=f"hf://{DATA}")
        weather.says(f"hub-private-{who}", weather.run(), code=66)

    @pytest.mark.parametrize("place", ["hf://lambdalabs/pokemon-blip-captions", "hf://me/no-pictures"])
    def test_a_data_set_that_is_not_there(self, place: str, at_hub, weather):
        log_in(weather, at_hub.write_token)
        weather.job(data__source=place)
        weather.says("hub-missing-" + place.rpartition("/")[2], weather.run(), code=66)

    @pytest.mark.parametrize(
        "place", ["hf://stabilityai/stable-diffusion-2-1", "hf://runwayml/stable-diffusion-v1-5", "hf://me/no-model"]
    )
    def test_a_model_that_is_not_there(self, place: str, at_hub, weather):
        weather.job(model__source=place)
        weather.says("hub-missing-" + place.rpartition("/")[2], weather.run(), code=66)

    @pytest.mark.parametrize(("field", "kind", "name"), [("model", "models", MODEL), ("data", "datasets", DATA)])
    def test_a_revision_that_is_not_there(self, field: str, kind: Any, name: str, at_hub, weather):
        at_hub.new_repo(kind, name, {**MODEL_FILES, "a.png": b"1"})
        weather.job(**{f"{field}__source": f"hf://{name}@fp16"})
        weather.says(f"hub-revision-missing-{field}", weather.run(), code=66)

    def test_a_token_that_the_hub_does_not_know(self, at_hub, weather):
        """With it not even what is public opens."""
        at_hub.new_repo("models", MODEL, MODEL_FILES)
        log_in(weather, at_hub.invalid_token)
        weather.job(model__source=f"hf://{MODEL}")
        weather.says("hub-token-unknown", weather.run(), code=77)

    def test_a_commit_of_the_run_that_is_gone(self, at_hub, weather):
        """The first attempt ends for another reason; then the repository is made anew, with another history."""
        at_hub.new_repo("models", MODEL, MODEL_FILES)
        weather.job(model__source=f"hf://{MODEL}", train__init_from="lora.safetensors")
        assert weather.run().code == 66
        del weather.places["hub"]
        at_hub.new_repo("models", MODEL, {**MODEL_FILES, "README.md": b"retrained"})
        weather.says("hub-pinned-commit-gone", weather.run(), code=66)

    def test_a_branch_that_moves_on_between_attempts(self, at_hub, weather):
        """A later attempt, on another machine, takes what the first one took."""
        repository = at_hub.new_repo("models", MODEL, MODEL_FILES)
        first = repository.branches["main"]
        weather.job(model__source=f"hf://{MODEL}", train__init_from="lora.safetensors")
        weather.says("hub-branch-moves", weather.run(), code=66)
        repository.commit({"unet/config.json": b"no longer a model"}, title="retrained")
        at_hub.forget()
        weather.says("hub-branch-moved", weather.run(f"--set=run.scratch={weather.folder / 'scratch/2'}"), code=66)
        asked = at_hub.sent("tree|resolve")
        assert asked
        assert all(first in request.path for request in asked)

    def test_a_file_that_never_arrives_whole(self, at_hub, weather):
        repository = at_hub.new_repo("models", MODEL, {**MODEL_FILES, "unet/model.safetensors": EMPTY_WEIGHTS + b" "})
        sha256 = repository.commits[repository.branches["main"]].files["unet/model.safetensors"].sha256
        at_hub.fail("GET", f"/lfs/.*{sha256}", kind="flip", times=1000)
        weather.job(model__source=f"hf://{MODEL}")
        weather.says("hub-file-damaged", weather.run(hurried=True), code=74)

    @pytest.mark.parametrize("status", [429, 503])
    def test_a_hub_that_is_out_of_order(self, status: int, at_hub, weather):
        at_hub.new_repo("models", MODEL, MODEL_FILES)
        at_hub.fail("GET", "/api/", status=status, times=1000, headers={"Retry-After": "1"})
        weather.job(model__source=f"hf://{MODEL}")
        weather.says(f"hub-{status}", weather.run(hurried=True), code=74)

    @pytest.mark.parametrize(("name", "value", "code"), [("HF_HUB_OFFLINE", "1", 74), ("HF_ENDPOINT", "my-mirror", 64)])
    def test_what_the_environment_says_of_the_hub(self, name: str, value: str, code: int, at_hub, weather):
        weather.job(model__source=f"hf://{MODEL}")
        weather.reach({name: value})
        weather.says(f"hub-environment-{name}", weather.run(), code=code)

    def test_checkpoints_do_not_go_there(self, at_hub, weather):
        weather.job(checkpoint__to="hf://me/checkpoints")
        weather.says("hub-checkpoints", weather.run(), code=64)


class TestPublishing:
    """What is known before the training is said before the training."""

    @pytest.mark.parametrize("who", ["nobody", "unknown", "reader", "stranger"])
    def test_a_token_that_may_not_publish(self, who: str, at_hub, weather):
        at_hub.new_repo("models", "me/tiny-lora")
        tokens = {"unknown": at_hub.invalid_token, "reader": at_hub.read_token, "stranger": at_hub.stranger_token}
        log_in(weather, tokens.get(who))
        weather.job(publish=[{"to": "hf://me/tiny-lora", "private": False}])
        weather.says(f"hub-publish-{who}", weather.run(), code=77)
        assert not (weather.folder / "run").exists()

    def test_a_public_repository_where_private_is_asked_for(self, at_hub, weather):
        at_hub.new_repo("models", "me/tiny-lora")
        log_in(weather, at_hub.write_token)
        weather.job(publish=[{"to": "hf://me/tiny-lora", "private": True}])
        weather.says("hub-publish-public", weather.run(), code=64)

    def test_a_branch_that_is_not_there(self, at_hub, weather):
        at_hub.new_repo("models", "me/tiny-lora")
        log_in(weather, at_hub.write_token)
        weather.job(publish=[{"to": "hf://me/tiny-lora@release", "private": False}])
        weather.says("hub-publish-branch-missing", weather.run(), code=66)
