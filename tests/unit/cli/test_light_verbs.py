"""Light verbs stay light: what they import is looked at in a fresh interpreter, since a linter cannot see all ways to import."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("numpy", "torch", "jax", "transformers", "diffusers", "boto3", "google.cloud", "kubernetes")
GOOD = Path(__file__).parents[2] / "golden" / "templates" / "lora.yaml"
TRAINING = ("train_text_to_image_lora.py", "--pretrained_model_name_or_path=a/b", "--train_data_dir=pictures", "--rank=8")
REPORT = """
import sys
from sdjob.cli.main import main
code = main(sys.argv[1:])
print(*sorted(sys.modules), file=sys.stderr)
sys.exit(code)
"""


def modules_of(*arguments: str, folder: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", REPORT, *arguments], capture_output=True, text=True, check=True, cwd=folder, timeout=120
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["validate", str(GOOD)],
        ["validate", "--help"],
        ["schema"],
        ["render", str(GOOD)],
        ["plan", str(GOOD), "--budget", "1000", "--set", "run.accelerator=nvidia-l4"],
        ["init", "new.yaml"],
        ["completion", "bash"],
        ["convert", "--", *TRAINING],
        ["convert", "--flags"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(arguments: list[str], tmp_path: Path):
    imported = modules_of(*arguments, folder=tmp_path)
    assert not imported & set(HEAVY)


@pytest.mark.parametrize("arguments", [["--help"], ["init", "new.yaml"]], ids=" ".join)
def test_some_need_not_even_the_models(arguments: list[str], tmp_path: Path):
    assert not {"pydantic", "yaml"} & modules_of(*arguments, folder=tmp_path)


def test_help_imports_no_verb(tmp_path: Path):
    verbs = {name for name in modules_of("--help", folder=tmp_path) if name.startswith("sdjob.cli.")}
    assert verbs == {"sdjob.cli.main", "sdjob.cli.parser"}
