import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sdjob.core.errors import MissingError, UsageError
from sdjob.spec.document import LARGEST_BYTES
from sdjob.spec.job import JobSpec
from sdjob.spec.load import load_job, parse_job, resolved_json, resolved_yaml
from sdjob.spec.problems import JobFileError, dotted
from sdjob.spec.translate import field_paths
from unit.spec.jobs import SMALLEST, job, problems


def test_defaults_are_the_contracts():
    expected = yaml.safe_load(Path(__file__).with_name("defaults.yaml").read_text(encoding="utf-8"))
    resolved = json.loads(resolved_json(job()))
    run = expected.pop("run")
    assert {part: resolved[part] for part in expected} == expected
    assert {field: resolved["run"][field] for field in run} == run


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["train.method=full"],
        ["train.schedule={name: cosine, warmup_steps: 10}", "validation.prompts=[a, '1e4', 'no']"],
        ["checkpoint.every=auto"],
        ["model.source=hf://a/b@v1"],
        ["model.source=hf://a/b", "publish=[{to: 'hf://me/x', private: false}]"],
        ["run.accelerator='nvidia-l4:4'", "train.device_batch=2"],
        ["name='1e4'"],
    ],
)
def test_the_resolved_job_is_a_job_file_again(overrides: list[str]):
    first = job(*overrides)
    assert job(text=resolved_yaml(first)) == first
    assert parse_job(json.loads(resolved_json(first))) == first
    assert parse_job(first.model_dump(mode="json")) == first
    assert resolved_json(parse_job(json.loads(resolved_json(first)))) == resolved_json(first)


def test_a_stored_job_of_another_shape_is_refused():
    stored = json.loads(resolved_json(job()))
    stored["train"]["rank"] = 4
    with pytest.raises(JobFileError, match=r"stored job.*train\.rank: there is no such field"):
        parse_job(stored)


def test_derived_defaults():
    assert job("run.accelerator='cpu:4'", "train.device_batch=2").train.global_batch == 8
    assert job("run.accelerator='nvidia-l4:2'", "run.nodes=3").train.global_batch == 6
    assert job("train.lora.rank=16").train.lora.alpha == 16
    assert job("train.lora.rank=16", "train.lora.alpha=4").train.lora.alpha == 4
    assert job("checkpoint.every=auto").checkpoint.every_steps is None


def test_a_revision_stands_at_its_field_however_it_was_written():
    behind = job("model.source=hf://a/b@v1")
    beside = job("model.source=hf://a/b", "model.revision=v1")
    assert behind.model == beside.model
    assert job("model.source=hf://a/b").model.revision == "main"


def test_resolution_takes_both_spellings():
    assert job("data.resolution=256").data.resolution == job("data.resolution={width: 256, height: 256}").data.resolution


def test_whole_floats_are_whole_numbers():
    assert job("train.steps=1e4").train.steps == 10_000


def test_problems_stand_in_the_order_of_the_file():
    text = SMALLEST.replace("emoji", "Emoji").replace("steps: 100", "steps: 0") + "runn: 1\n"
    lines = [line.split(":")[1] for line in problems(text=text)]
    assert lines == ["2", "5", "6"]


def test_a_misspelling_hides_no_other_mistake():
    told = problems(text=SMALLEST.replace("steps: 100", "precison: fp32"))
    assert [line.split(": ")[1] for line in told] == ["train", "train.precison"]


def test_a_misspelled_field_is_not_missing_too():
    assert len(problems(text=SMALLEST.replace("steps: 100", "step: 100"))) == 1
    assert len(problems(text=SMALLEST.replace("method: lora", "metod: lora"))) == 1


def test_aliases_and_anchors_may_be_used():
    text = SMALLEST + "publish: [&first {to: out}]\nvalidation: {prompts: [&cat a cat, *cat]}\n"
    assert job(text=text).validation.prompts == ("a cat", "a cat")  # pyright: ignore[reportOptionalMemberAccess]


def test_a_byte_order_mark_is_no_letter(tmp_path: Path):
    path = tmp_path / "job.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALLEST.encode())
    assert load_job(path, environment={}) == job()


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(MissingError, match="no such file"):
        load_job(tmp_path / "none.yaml", environment={})
    with pytest.raises(UsageError, match="is a folder"):
        load_job(tmp_path, environment={})
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (LARGEST_BYTES + 1))
    with pytest.raises(JobFileError, match="at most"):
        load_job(large, environment={})


YAMLISH = st.text(
    alphabet=st.one_of(st.sampled_from("abxtrue0123 \n\t:-#{}[],&*!|>'\"%@`?~\\$.<=eE+_u"), st.characters(codec="utf-8")),
    max_size=120,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [*(dotted(path) for path in field_paths(JobSpec)), "publish.0", "publish.0.to", "data.resolution.width"]


@settings(max_examples=300, deadline=None)
@given(YAMLISH)
def test_no_text_makes_anything_but_a_job_file_error(text: str):
    assert problems(text=text)
    for line in problems(text=SMALLEST + text):
        assert line


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4))
def test_no_values_make_anything_but_a_job_file_error(values: dict[str, object]):
    told = problems(*(f"{path}={json.dumps(value)}" for path, value in values.items()))
    assert "pydantic" not in "".join(told)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_any_document_is_refused_in_plain_words(value: object):
    told = problems(text=yaml.safe_dump(value))
    assert told
    assert "pydantic" not in "".join(told)
