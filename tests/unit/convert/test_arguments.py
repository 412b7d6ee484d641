"""Arguments are read as argparse reads them, which is what the scripts use."""

import argparse
from collections.abc import Sequence
from typing import Never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdjob.convert.arguments import read_arguments
from sdjob.convert.flags import SCRIPTS, Script, flags_of
from sdjob.convert.words import Word
from sdjob.core.errors import UsageError

TYPES = {"text": str, "int": int, "float": float, "texts": str}
BASE = ["--pretrained_model_name_or_path=a/b", "--train_data_dir=p"]


class Strict(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        raise UsageError(message)


def theirs(words: Sequence[str], *, script: Script) -> dict[str, object]:
    """What a parser with the script's flags makes of the words: only what is given."""
    parser = Strict(argument_default=argparse.SUPPRESS)
    for flag in flags_of(script).values():
        if flag.kind == "switch":
            parser.add_argument(f"--{flag.name}", action="store_true")
        else:
            choices = flag.choices if flag.name in {"mixed_precision", "image_interpolation_mode"} else None
            parser.add_argument(
                f"--{flag.name}", type=TYPES[flag.kind], nargs="+" if flag.kind == "texts" else None, choices=choices
            )
    read = vars(parser.parse_args([*BASE, *words]))
    return {name: tuple(value) if isinstance(value, list) else value for name, value in read.items()}


def ours(words: Sequence[str], *, script: Script) -> dict[str, object]:
    return dict(read_arguments([Word(word) for word in [*BASE, *words]], script=script))


@pytest.mark.parametrize(
    "words",
    [
        ["--seed", "-1"],
        ["--seed=-1"],
        ["--learning_rate", "-.5"],
        ["--learning_rate", "1e-5", "--adam_eps=1_0.5"],
        ["--seed", " 7 "],
        ["--random_flip", "--center_crop"],
        ["--validation_prompts", "a", "b c", "--seed", "1"],
        ["--validation_prompts", "a", "--seed", "1", "--validation_prompts", "b"],
        ["--validation_prompts=a"],
        ["--validation_prompts", "- a b"],
        ["--output_dir", "x=y"],
        ["--output_dir=x=y"],
        ["--output_dir="],
        ["--output_dir", "-"],
        ["--output_dir", "a", "--output_d", "b"],
        ["--resol", "64", "--train_b=2"],
        ["--revision", "a", "--non_ema", "b"],
    ],
    ids=" ".join,
)
def test_values_are_argparses(words: list[str]):
    if words != ["--output_dir="]:  # an empty folder is refused here
        assert ours(words, script="full") == theirs(words, script="full")


@pytest.mark.parametrize(
    "words",
    [
        ["--seed"],
        ["--seed", "--random_flip"],
        ["--seed", "x"],
        ["--seed", "1.0"],
        ["--seed="],
        ["--learning_rate", "fast"],
        ["--output_dir", "-x"],
        ["--validation_prompts"],
        ["--random_flip=true"],
        ["--random_flip", "true"],
        ["--no_such_flag", "1"],
        ["--validation"],
        ["--mixed_precision", "fp8"],
        ["-seed", "1"],
        ["stray"],
    ],
    ids=" ".join,
)
def test_what_argparse_refuses_is_refused(words: list[str]):
    with pytest.raises(UsageError):
        theirs(words, script="full")
    with pytest.raises(UsageError):
        ours(words, script="full")


WORDS = st.sampled_from(
    [
        "--seed",
        "--rank=3",
        "--rank",
        "7",
        "-2",
        "--random_flip",
        "--use_8",
        "--val",
        "a b",
        "--report_to",
        "wandb",
        "--max_train_s",
        "1e3",
    ]
)


@given(st.lists(WORDS, max_size=5), st.sampled_from(SCRIPTS))
def test_any_words_are_read_or_refused_alike(words: list[str], script: Script):
    try:
        expected: dict[str, object] | None = theirs(words, script=script)
    except UsageError:
        expected = None
    try:
        read: dict[str, object] | None = ours(words, script=script)
    except UsageError:
        read = None
    assert read == expected


def test_all_problems_are_told_at_once():
    with pytest.raises(UsageError) as caught:
        ours(["--sed=1", "--rank", "four", "--max_train_steps", "x"], script="lora")
    told = str(caught.value)
    assert "did you mean '--seed'?" in told
    assert "--rank 'four': a whole number is needed." in told
    assert "--max_train_steps 'x'" in told


def test_a_secret_is_refused_and_not_repeated():
    with pytest.raises(UsageError) as caught:
        ours(["--output_dir", "hf_abcdefghijklmno", "hf_abcdefghijklmno", "--rank", "hf_abcdefghijklmno"], script="lora")
    assert "--output_dir: this looks like a Hub token" in str(caught.value)
    assert "hf_abc" not in str(caught.value)


def test_the_token_flag_needs_no_value_of_its_variable():
    words = [*map(Word, BASE), Word("--hub_token", 1), Word("", 1, ("HF_TOKEN",))]
    assert read_arguments(words, script="lora")["hub_token"] == ""
