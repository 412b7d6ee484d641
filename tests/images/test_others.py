"""The images of accelerators that are not here: their steps are carried out, and what they hold is looked at from a CPU."""

import json
import sys

import pytest

from fakes.podman import HARDENED, podman
from fakes.scripts import script
from sdjob import __version__

pytestmark = pytest.mark.containers

LOOK = """
import importlib.metadata as m, importlib.util as u, json
print(json.dumps({name: m.version(name) for name in ("torch", "jax", "libtpu") if u.find_spec(name)}))
"""


def test_the_tpu_image_has_libtpu_and_no_torch(base: str, capsys: pytest.CaptureFixture[str]) -> None:
    image = built("tpu", base=base)
    assert look(image).keys() == {"jax", "libtpu"}
    with capsys.disabled():
        sys.stdout.write(f"\nnot checked: {image} on a TPU\n{script('images/sizes.py', image)}")


def test_the_cuda_image_has_torch_and_asks_for_gpus(base: str, capsys: pytest.CaptureFixture[str]) -> None:
    image = built("cuda", base=base)
    found = look(image)
    assert found.keys() == {"torch"}
    environment = podman("run", "--rm", *HARDENED, "--entrypoint=env", image).splitlines()
    assert {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"} <= set(environment)
    without = ", nor with CUDA's libraries: pip found torch's CPU build here" if "+cpu" in found["torch"] else ""
    with capsys.disabled():
        sys.stdout.write(f"\nnot checked: {image} on a GPU{without}\n{script('images/sizes.py', image)}")


def built(kind: str, *, base: str) -> str:
    script("images/build.py", kind, f"--base={base}", "--engine=buildah")
    image = f"localhost/sdjob-{kind}:{__version__}"
    assert podman("run", "--rm", *HARDENED, image, "--version") == f"sdjob {__version__}\n"
    return image


def look(image: str) -> dict[str, str]:
    return json.loads(podman("run", "--rm", *HARDENED, "--entrypoint=python3", image, "-c", LOOK))
