"""Every place that pictures come from, in the order of the index, and captions as they are trained."""

import pytest

from sdjob.spec.load import job_from_text, resolved_yaml
from sdjob.spec.sources import data_sources, prior_source, sources_of
from unit.spec.jobs import job

SEVERAL = """\
apiVersion: sdjob/v1
name: emoji
model: {source: models/base}
data:
  sources:
    - {source: "hf://a/b@v1", caption_column: caption, repeats: 2}
    - {source: others}
  prior: {source: "hf://c/d", caption: a dog}
  held_out: {source: "hf://e/f", split: validation}
train: {method: lora, steps: 100}
"""


def test_a_single_source_is_one():
    (only,) = data_sources(job("data.split=test", "data.trigger_word=sks").data)
    assert (only.field, only.role, only.source, only.split, only.trigger_word) == ("data", "train", "pictures", "test", "sks")
    assert prior_source(job().data) is None


def test_several_have_numbers_in_a_fixed_order():
    data = job(text=SEVERAL).data
    assert [(source.field, source.role, source.source) for source in data_sources(data)] == [
        ("data.sources.0", "train", "hf://a/b"),
        ("data.sources.1", "train", "others"),
        ("data.prior", "prior", "hf://c/d"),
        ("data.held_out", "held_out", "hf://e/f"),
    ]
    assert [source.revision for source in data_sources(data)] == ["v1", None, "main", "main"]
    assert (sources_of(data, role="train"), prior_source(data), sources_of(data, role="held_out")) == ((0, 1), 2, (3,))


def test_the_resolved_file_is_a_job_file_again():
    made = job(text=SEVERAL)
    assert job_from_text(resolved_yaml(made), source="job.yaml", environment={}) == made


@pytest.mark.parametrize(
    ("fields", "found", "told"),
    [
        ({}, "a cat", "a cat"),
        ({"trigger_word": "sks"}, "a cat", "sks, a cat"),
        ({"trigger_word": "sks"}, "photo of SKS cat", "photo of SKS cat"),
        ({"trigger_word": "sks"}, "two masks", "sks, two masks"),
        ({"caption_prefix": "masterpiece, ", "trigger_word": "sks"}, "a cat", "masterpiece, sks, a cat"),
    ],
)
def test_captions_as_they_are_trained(fields: dict[str, str], found: str, told: str):
    (source,) = data_sources(job(*(f"data.{name}='{value}'" for name, value in fields.items())).data)
    assert source.captions((found, found)) == (told, told)


def test_prior_pictures_have_one_caption_whatever_they_have():
    prior = data_sources(job(text=SEVERAL).data)[2]
    assert (prior.captions(()), prior.captions(("x", "y")), prior.caption_column) == (("a dog",), ("a dog",), None)
