"""The table of flags against the scripts' own, and against what the conversion does with each."""

import json
from pathlib import Path

import pytest

from sdjob.convert.arguments import read_arguments
from sdjob.convert.conversion import Circumstances, convert_words
from sdjob.convert.flag_table import markdown_table
from sdjob.convert.flags import FILES, FLAGS, SCRIPTS, Flag, Script, flags_of
from sdjob.convert.words import Word
from sdjob.core.errors import UsageError

# name -> [type, default], as `parse_args` of each script has them (diffusers 58eb52c, see convert/flags.py)
SCRIPT_FLAGS = json.loads((Path(__file__).parent / "script_flags.json").read_text(encoding="utf-8"))
KINDS = {"str": "text", "int": "int", "float": "float", "switch": "switch", "str+": "texts"}
NOWHERE = Circumstances({}, lambda _: False)
BASE = ("--pretrained_model_name_or_path=a/b", "--dataset_name=c/d")

# A value for each flag that differs from its default, and what else the command must have for the flag to matter.
VALUES: dict[str, tuple[str, ...]] = {
    "pretrained_model_name_or_path": ("x/y",),
    "dataset_name": ("x/y",),
    "seed": ("5",),
    "resolution": ("256",),
    "mixed_precision": ("bf16",),
    "lr_scheduler": ("cosine",),
    "image_interpolation_mode": ("bicubic",),
    "prediction_type": ("epsilon",),
    "report_to": ("wandb",),
    "hub_model_id": ("me/it",),
    "hub_token": ("hf_notatokenatall",),
    "validation_prompts": ("one", "two"),
    "checkpointing_steps": ("123",),
}
BESIDE: dict[str, tuple[str, ...]] = {
    "offload_ema": ("--use_ema",),
    "lr_warmup_steps": ("--lr_scheduler=cosine", "--max_train_steps=9999"),
    "hub_model_id": ("--push_to_hub",),
    "push_to_hub": ("--hub_model_id=me/it",),
    "train_data_dir": ("--dataset_name=imagefolder", "--train_data_dir=another"),
    "num_validation_images": ("--validation_prompt=one",),
}
CASES = [(script, flag) for script in SCRIPTS for flag in flags_of(script).values()]


def words_of(flag: Flag) -> tuple[str, ...]:
    if flag.kind == "switch":
        return (f"--{flag.name}",)
    ordinary = {"text": "some", "int": "3", "float": "0.5", "texts": "some"}[flag.kind]
    return (f"--{flag.name}", *VALUES.get(flag.name, (ordinary,)))


def convert(script: Script, *words: str):
    return convert_words([FILES[script], *BASE, *words], circumstances=NOWHERE)


def beside(script: Script, flag: Flag) -> tuple[str, ...]:
    if flag.name == "validation_epochs":
        name = "validation_prompts" if script == "full" else "validation_prompt"
        return (f"--{name}=one", "--max_train_samples=100")
    return tuple(word for word in BESIDE.get(flag.name, ()) if not (script == "flax" and "lr_" in word))


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_table_has_the_scripts_flags_and_no_others(script: Script):
    ours = {flag.name: [flag.kind, flag.default_of(script)] for flag in FLAGS if script in flag.scripts}
    theirs = {name: [KINDS[kind], default] for name, (kind, default) in SCRIPT_FLAGS[script].items()}
    assert ours == theirs


def test_no_flag_has_two_rows():
    assert len({flag.name for flag in FLAGS}) == len(FLAGS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_flag_has_fields_or_a_reason(script: Script):
    for flag in flags_of(script).values():
        assert flag.becomes or flag.why_none(script), flag.name


@pytest.mark.parametrize(("script", "flag"), CASES, ids=lambda one: getattr(one, "name", one))
def test_every_flag_changes_the_file_or_is_told(script: Script, flag: Flag):
    others = beside(script, flag)
    without, given = convert(script, *others), convert(script, *others, *words_of(flag))
    told = [remark for remark in given.remarks if remark.startswith(f"--{flag.name}: ")]
    if reason := flag.why_none(script):
        assert told == [f"--{flag.name}: {reason}."]
        assert given.job_file.replace("\n#   ", " ").count(told[0]) == 1
    else:
        assert fields(given.job_file) != fields(without.job_file)
        assert not told


def fields(job_file: str) -> list[str]:
    """Its lines without comments."""
    return [line.partition(" #")[0].rstrip() for line in job_file.splitlines() if not line.lstrip().startswith("#")]


def test_what_every_job_does_anyway_is_not_told():
    assert convert("full", "--image_interpolation_mode=lanczos") == convert("full")


def test_a_token_is_never_shown():
    converted = convert("lora", "--hub_token", "hf_notatokenatall")
    assert "notatoken" not in converted.job_file + "".join(converted.remarks)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_markdown_has_a_row_of_five_cells_for_every_flag(script: Script):
    rows = [line for line in markdown_table().splitlines() if line.startswith("| `--")]
    assert len(rows) == len(FLAGS)
    column = 2 + SCRIPTS.index(script)
    having = {row.split("|")[1].strip(" `-") for row in rows if row.split("|")[column].strip() != "—"}
    assert having == set(SCRIPT_FLAGS[script])
    assert all(row.count(" | ") == 4 and row.rstrip(" |").split("| ")[-1] for row in rows)


def test_another_scripts_flag_names_that_script():
    with pytest.raises(
        UsageError, match=r"--rank: train_text_to_image\.py has no such flag \(train_text_to_image_lora\.py has\)"
    ):
        read_arguments([*map(Word, BASE), Word("--rank=4")], script="full")
