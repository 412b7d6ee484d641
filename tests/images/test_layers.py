"""What is in the image, in which layers, and what a change of the code changes."""

import json
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from fakes.podman import HARDENED, ROOT, inspect, podman
from fakes.scripts import script

pytestmark = pytest.mark.containers

CONTEXT = ("LICENSE", "README.md", "constraints.txt", "pyproject.toml", ".dockerignore", "images", "runner/sdjob")
CHANGED = "localhost/sdjob-cpu:changed"
SMALL_BYTES = 20 * 10**6


def test_a_changed_line_changes_the_last_layer_alone(
    cpu_image: str, base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in CONTEXT:
        copy(path, into=tmp_path)
    with (tmp_path / "runner/sdjob/__init__.py").open("a", encoding="utf-8") as code:
        code.write('\n__changed__ = "yes"\n')
    before_s = time.monotonic()
    script("images/build.py", "cpu", f"--base={base}", "--engine=buildah", f"--tag={CHANGED}", root=tmp_path)
    took_s = time.monotonic() - before_s
    try:
        layers, changed = layers_of(cpu_image), layers_of(CHANGED)
        assert layers[:-1] == changed[:-1]
        assert layers[-1] != changed[-1]
        assert in_container("import sdjob; print(sdjob.__changed__)", image=CHANGED) == "yes\n"
    finally:
        podman("rmi", CHANGED)
    with capsys.disabled():
        sys.stdout.write(f"\na changed line was rebuilt in {took_s:.0f} s\n{script('images/sizes.py', cpu_image)}")


def test_the_code_is_the_smallest_part(cpu_image: str) -> None:
    sizes = [layer["size"] for layer in json.loads(podman("history", "--format=json", cpu_image)) if layer["size"]]
    assert sizes[0] < SMALL_BYTES < max(sizes)


def test_it_has_no_compiler_and_no_pip_and_no_cuda(cpu_image: str) -> None:
    found = in_container(
        "import shutil; print([n for n in ('cc', 'gcc', 'c++', 'ld', 'pip') if shutil.which(n)])", image=cpu_image
    )
    assert found == "[]\n"
    assert not [name for name in packages(cpu_image) if name.startswith("nvidia-")]


def test_its_list_of_packages_is_what_is_installed_at_the_versions_of_constraints(cpu_image: str) -> None:
    image = inspect("image", cpu_image)
    listed = json.loads(in_container(f"print(open({image['Labels']['sdjob.sbom']!r}).read())", image=cpu_image))
    installed = packages(cpu_image)
    assert listed["metadata"]["component"]["name"] == "sdjob"
    assert installed.pop("sdjob") == listed["metadata"]["component"]["version"] == version("sdjob")
    assert {c["name"]: c["version"] for c in listed["components"]} == installed
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()[1:])
    assert {name: number.partition("+")[0] for name, number in installed.items()}.items() <= pinned.items()


def test_its_labels_name_version_and_revision(cpu_image: str) -> None:
    labels = inspect("image", cpu_image)["Labels"]
    assert labels["org.opencontainers.image.version"] == version("sdjob")
    assert len(labels["org.opencontainers.image.revision"].removesuffix("-dirty")) == 40


def copy(path: str, *, into: Path) -> None:
    (into / path).parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if (ROOT / path).is_dir() else shutil.copy2)(ROOT / path, into / path)


def layers_of(image: str) -> list[str]:
    return inspect("image", image)["RootFS"]["Layers"]


def packages(image: str) -> dict[str, str]:
    code = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    return json.loads(in_container(code, image=image))


def in_container(code: str, *, image: str) -> str:
    return podman("run", "--rm", *HARDENED, "--entrypoint=python3", image, "-c", code)
