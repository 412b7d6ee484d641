"""The script's arguments to values, by argparse's own rules, since that is what the scripts read them with.

https://docs.python.org/3/library/argparse.html: `--flag value` and `--flag=value`, unambiguous beginnings of names, the last of
several counts, and a value may begin with a hyphen only as a negative number.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sdjob.convert.flags import FILES, FLAGS, Flag, Script, Value, flags_of
from sdjob.convert.words import Word, shown, value_of
from sdjob.core.errors import UsageError
from sdjob.spec.problems import nearest_name
from sdjob.spec.secrecy import secret_kind

# argparse's _negative_number_matcher
NEGATIVE_NUMBER = re.compile(r"-\d+|-\d*\.\d+")
NEVER_COPIED = "hub_token"


@dataclass(frozen=True)
class Given:
    """A flag of the command, and the words that are its value."""

    flag: Flag
    words: tuple[Word, ...]


@dataclass
class Arguments:
    script: Script
    given: list[Given] = field(default_factory=list[Given])
    problems: list[str] = field(default_factory=list[str])


def read_arguments(words: Sequence[Word], *, script: Script) -> Mapping[str, Value]:
    """The values of the flags that are given; UsageError with all that is wrong with them."""
    arguments = Arguments(script)
    rest = list(words)
    while rest:
        take_one(arguments, rest)
    values: dict[str, Value] = {}
    for given in arguments.given:
        try:
            values[given.flag.name] = converted(given)
        except UsageError as error:
            arguments.problems.append(str(error))
    arguments.problems += missing(values, arguments)
    if arguments.problems:
        raise UsageError(told(arguments))
    return values


def told(arguments: Arguments) -> str:
    problems = list(dict.fromkeys(arguments.problems))
    return problems[0] if len(problems) == 1 else "\n".join([f"{FILES[arguments.script]} would not take these:", *problems])


def take_one(arguments: Arguments, rest: list[Word]) -> None:
    """The next flag and its value, or one word that is neither."""
    word = rest.pop(0)
    if not is_flag(word):
        last = arguments.given[-1].flag if arguments.given else None
        hint = "" if last is None else "; put quotes around a value with spaces"
        hint = f"; --{last.name} takes no value" if last and last.kind == "switch" else hint
        arguments.problems.append(f"{shown(word.text)} belongs to no flag{hint}.")
        return
    spelled, equals, behind = word.text.partition("=")
    flag = named_flag(arguments, spelled)
    values = [Word(behind, word.line, word.unset)] if equals else []
    if flag is None or (flag.kind != "switch" and not equals):
        many = flag is None or flag.kind == "texts"
        while rest and not is_flag(rest[0]) and (many or not values):
            values.append(rest.pop(0))
    if flag is not None:
        arguments.given.append(Given(flag, tuple(values)))


def is_flag(word: Word) -> bool:
    """A word with a space in it is none for argparse, whatever it begins with."""
    return (
        len(word.text) > 1
        and word.text[0] == "-"
        and not NEGATIVE_NUMBER.fullmatch(word.text)
        and " " not in word.text.partition("=")[0]
    )


def named_flag(arguments: Arguments, spelled: str) -> Flag | None:
    known = flags_of(arguments.script)
    name = spelled.removeprefix("--") if spelled.startswith("--") else ""
    if name in known:
        return known[name]
    begun = [flag for key, flag in known.items() if name and key.startswith(name)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        among = ", ".join(f"--{flag.name}" for flag in begun)
        arguments.problems.append(f"{shown(spelled)} is the beginning of several flags: {among}.")
    else:
        arguments.problems.append(unknown(arguments.script, spelled))
    return None


def unknown(script: Script, spelled: str) -> str:
    name = spelled.lstrip("-").replace("-", "_")
    others = [FILES[other] for flag in FLAGS if flag.name == name for other in flag.scripts if other != script]
    if others and name not in flags_of(script):
        return f"--{name}: {FILES[script]} has no such flag ({' and '.join(others)} has)."
    known = flags_of(script)
    near = next((flag for flag in known if name.endswith(f"_{flag}")), None) or nearest_name(name, among=known)
    hint = f"; did you mean '--{near}'?" if near else "."
    return f"{shown(spelled)[1:-1]}: {FILES[script]} has no such flag{hint}"


def converted(given: Given) -> Value:
    flag, what = given.flag, f"--{given.flag.name}"
    if flag.name == NEVER_COPIED:
        return ""
    texts = [value_of(word, what=what) for word in given.words]
    if flag.kind == "switch":
        if texts:
            raise UsageError(f"{what} takes no value, and {shown(texts[0])} is given; leave the flag out to switch it off.")
        return True
    if not texts:
        raise UsageError(f"{what} has no value.")
    for text in texts:
        check_secret(text, what=what)
    return tuple(texts) if flag.kind == "texts" else one_value(flag, texts[0], what=what)


def check_secret(text: str, *, what: str) -> None:
    kind = secret_kind(text)
    if kind:
        raise UsageError(f"{what}: this looks like {kind}; a job file holds no secrets, so put it into the environment.")


def one_value(flag: Flag, text: str, *, what: str) -> Value:
    if flag.choices and text not in flag.choices:
        near = nearest_name(text, among=flag.choices)
        hint = f"; did you mean '{near}'?" if near else "."
        raise UsageError(f"{what} {shown(text)}: allowed: {', '.join(flag.choices)}{hint}")
    try:
        return int(text) if flag.kind == "int" else float(text) if flag.kind == "float" else text
    except ValueError as error:
        needed = "a whole number is needed" if flag.kind == "int" else "a number is needed"
        empty = "; was a variable empty?" if not text.strip() else "."
        raise UsageError(f"{what} {shown(text)}: {needed}{empty}") from error


def missing(values: Mapping[str, Value], arguments: Arguments) -> Iterator[str]:
    seen = {given.flag.name for given in arguments.given}
    if "pretrained_model_name_or_path" not in seen:
        yield "--pretrained_model_name_or_path is missing, and the script needs it."
    if not seen & {"dataset_name", "train_data_dir"}:
        yield "--dataset_name or --train_data_dir is missing, and the script needs one of them."
    for name in ("pretrained_model_name_or_path", "dataset_name", "train_data_dir", "output_dir"):
        if values.get(name) == "":
            yield f"--{name} is empty; was a variable empty?"
