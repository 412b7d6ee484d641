from dataclasses import replace

import pytest
import yaml

from fakes.checkpoints import make_job
from sdjob.job.card import CARD_MARK, CardFacts, SamplePicture, escaped, model_card
from sdjob.job.licence import Licence, base_licence

FACTS = CardFacts(step=10, digest="abc123", precision="bf16", num_pictures=28, sdjob_version="0.1.0", resume="exact")
HUB = {"source": "hf://owner/base@main"}
OPENRAIL = Licence("creativeml-openrail-m")
NASTY = 'x: [y]\n---\n| <b>*z*</b> `"'


def card(job, *, licence: Licence | None = OPENRAIL, **facts) -> tuple[dict, str]:
    """(front matter, text below it)"""
    text = model_card(job, facts=replace(FACTS, **facts), licence=licence)
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_a_loras_front_matter_is_what_the_hub_reads():
    front, _ = card(make_job(model=HUB, data={"source": "hf://datasets/owner/pictures"}))
    assert front == {
        "license": "creativeml-openrail-m",
        "base_model": "owner/base",
        "base_model_relation": "adapter",
        "datasets": ["owner/pictures"],
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["diffusers", "lora", "sdjob", "stable-diffusion", "stable-diffusion-diffusers", "text-to-image"],
    }


def test_a_full_model_is_a_finetune_without_the_lora_tag():
    front, body = card(make_job("full", model=HUB))
    assert front["base_model_relation"] == "finetune"
    assert "lora" not in front["tags"]
    assert "load_lora_weights" not in body
    assert "kohya" not in body


def test_places_off_the_hub_are_not_named():
    job = make_job(model={"source": "/home/somebody/base"}, data={"source": "s3://secret/pictures"})
    text = model_card(job, facts=FACTS, licence=None)
    assert "somebody" not in text
    assert "secret" not in text
    assert "base_model" not in text


def test_training_facts_stand_in_the_card():
    _, body = card(make_job(train={"global_batch": 4, "optimizer": {"learning_rate": 1e-4}, "ema": {"decay": 0.999}}))
    for fact in (
        "lora, rank 4, alpha 4",
        "adamw, learning rate 0.0001",
        "| 4 |",
        "64 x 64",
        "decay 0.999",
        "28",
        "abc123",
        "bf16",
        "0.1.0",
    ):
        assert fact in body


@pytest.mark.parametrize(("resume", "words"), [("exact", "bit for bit"), ("rounding", "correct to rounding, not bit-exact")])
def test_the_card_says_whether_the_run_was_exact(resume, words):
    assert words in card(make_job(), resume=resume)[1]


def test_prompts_are_examples_and_pictures_are_shown_once():
    job = make_job(validation={"prompts": ["a cat", "a dog"]})
    front, body = card(job, samples=(SamplePicture("samples/a b.png", "a cat"),))
    assert front["widget"] == [{"text": "a cat", "output": {"url": "samples/a%20b.png"}}, {"text": "a dog"}]
    assert "| a cat | ![](samples/a%20b.png) |" in body


def test_without_pictures_there_is_no_table_of_them():
    assert "## Samples" not in card(make_job())[1]


def test_a_trigger_caption_is_named_and_used():
    front, body = card(make_job(), trigger_caption="photo of sks dog")
    assert front["instance_prompt"] == "photo of sks dog"
    assert 'pipeline("photo of sks dog")' in body


def test_no_caption_can_break_out_of_yaml_markdown_or_code():
    job = make_job(validation={"prompts": [NASTY, "```"]})
    front, body = card(job, trigger_caption=NASTY, samples=(SamplePicture("a.png", NASTY),))
    assert front["instance_prompt"] == " ".join(NASTY.split())
    assert [entry["text"] for entry in front["widget"]] == [" ".join(NASTY.split()), "```"]
    rows = [line for line in body.splitlines() if line.endswith("| ![](a.png) |")]
    assert rows == ['| x: \\[y\\] --- \\| \\<b\\>\\*z\\*\\</b\\> \\`" | ![](a.png) |']
    assert body.count("```") == 2


def test_escaped_text_is_one_line():
    assert escaped("a\n\n# b\t_c_") == "a \\# b \\_c\\_"


@pytest.mark.parametrize(("method", "says_so"), [("lora", True), ("full", False)])
def test_a_lora_of_zero_terminal_snr_is_drawn_with_its_schedule(method, says_so):
    """A full model's own scheduler/ says it."""
    _, body = card(make_job(method, train={"loss": {"zero_terminal_snr": True}}))
    assert ("DDIMScheduler.from_config(pipeline.scheduler.config, rescale_betas_zero_snr=True" in body) is says_so
    assert ("from diffusers import DDIMScheduler" in body) is says_so
    assert "DDIMScheduler" not in card(make_job(method))[1]


def test_code_in_the_card_is_python():
    for method in ("lora", "full"):
        body = card(make_job(method, model=HUB), trigger_caption=NASTY)[1]
        compile(body.split("```python\n")[1].split("```")[0], "card", "exec")


def test_the_card_carries_the_mark_that_publish_looks_for():
    assert CARD_MARK in card(make_job())[1]


def test_an_unknown_licence_is_said_to_be_unknown():
    front, body = card(make_job(), licence=None)
    assert "license" not in front
    assert "names no licence" in body


def test_a_licence_of_its_own_keeps_name_and_link():
    front, _ = card(make_job(), licence=Licence("other", name="my-terms", link="https://example.org/terms"))
    assert (front["license"], front["license_name"], front["license_link"]) == ("other", "my-terms", "https://example.org/terms")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"README.md": "---\nlicense: creativeml-openrail-m\ntags: [a]\n---\n# Base"}, Licence("creativeml-openrail-m")),
        ({"README.md": "---\nlicense:\n- mit\n- apache-2.0\n---\n"}, Licence("mit")),
        (
            {"README.md": "---\nlicense: other\nlicense_name: terms\nlicense_link: LICENSE\n---\n"},
            Licence("other", name="terms"),
        ),
        ({"README.md": "# no front matter", "LICENSE": "                Apache License\n   Version 2.0"}, Licence("apache-2.0")),
        ({"README.md": "---\n: [\n---\n", "LICENSE.md": "CreativeML Open RAIL++-M License"}, Licence("openrail++")),
        ({"LICENSE": "Copyright (c) 2022\n\nCreativeML Open RAIL-M\ndated August 22, 2022"}, Licence("creativeml-openrail-m")),
        ({"LICENSE": "all rights reserved"}, None),
        ({}, None),
    ],
)
def test_the_base_models_licence_is_read_where_it_stands(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert base_licence(tmp_path) == expected
