"""The page of a run: what it says, and that nobody's words, secrets or damage get into it."""

import json
import re
from html.parser import HTMLParser

import pytest

from fakes.ledgers import BEGIN_S, MadeUp
from sdjob.core.errors import MissingError, UsageError
from sdjob.report.overview import Price
from unit.report.conftest import finished_run, png, words_of

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"'&${title} \u2028<!--"


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def data_of(page: str):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


# ---- what it says ----------------------------------------------------------------------------------------------------------


def test_a_finished_run(place):
    place.write(finished_run(), job={"name": "pastel", "train": {"steps": 20}})
    words = words_of(place.page())
    assert "pastel done" in words
    assert "All 20 steps are trained." in words
    assert "Lost work 5.0 s" in words
    assert "killed, or its machine went" in words
    assert "name: pastel" in words


def test_goodput_and_money_are_the_account_s(place):
    first, second = finished_run()
    paid_s = sum(first.truth.values()) + sum(second.truth.values())
    place.write([first, second])
    words = words_of(place.page(price=Price(3600.0, "by hand")))
    assert f"Goodput {100 * 20 / paid_s:.1f} %" in words
    assert f"Price ${paid_s:,.2f} $20.00 of it for steps that stand, at $3600 an hour (by hand)" in words
    assert "Price" not in words_of(place.page())


JOB = {
    "apiVersion": "sdjob/v1",
    "name": "tiny",
    "model": {"source": "/models/base"},
    "data": {"source": "/pictures"},
    "train": {"method": "lora", "steps": 10, "global_batch": 4},
}


@pytest.mark.parametrize(
    ("run", "usd", "source"),
    [
        ({"accelerator": "nvidia-l4", "spot": True, "kubernetes": {"flavor": "gke"}}, 0.282, "us-central1, g2-standard-4, spot"),
        ({"accelerator": "nvidia-l4:2", "nodes": 2, "kubernetes": {"flavor": "gke"}}, 4 * 0.707, "g2-standard-4, looked up 20"),
    ],
)
def test_the_price_is_plan_s_where_nobody_names_one(place, run, usd, source):
    place.write(finished_run(), job={**JOB, "run": run})
    words = words_of(place.page())
    assert f"at ${usd:g} an hour (Google Cloud, " in words
    assert source in words


@pytest.mark.parametrize("job", [{**JOB, "run": {"accelerator": "cpu:1"}}, {**JOB, "newer": 1}, JOB, None])
def test_no_price_is_guessed(place, job):
    place.write(finished_run(), job=job)
    assert "Price" not in words_of(place.page())


def test_lost_steps_are_a_curve_of_their_own(place):
    place.write(finished_run())
    data = data_of(place.page())
    (loss,) = [chart for chart in data["charts"] if chart["key"] == "loss"]
    assert [(s["a"], s["lost"], s["x"]) for s in loss["segments"]] == [
        (1, False, [1, 2, 3, 4, 5]), (1, True, [5, 6, 7, 8, 9, 10]), (2, False, list(range(6, 21)))
    ]  # fmt: skip
    assert data["attempts"] == [{"a": 1, "start": 0, "kept": 5, "reached": 10}, {"a": 2, "start": 5, "kept": 20, "reached": 20}]


def test_a_held_out_loss_is_drawn_beside_the_loss(place):
    made = finished_run()
    made[1].metrics[-1]["held_out_loss"] = 0.25
    place.write(made)
    (loss,) = [chart for chart in data_of(place.page())["charts"] if chart["key"] == "loss"]
    assert [(s["x"], s["y"]) for s in loss["extra"]] == [([20], [0.25])]
    assert "Held-out loss 0.25" in words_of(place.page())


@pytest.mark.parametrize(
    ("ago_s", "state"), [(60, "running"), (3600, "silent")],
)  # fmt: skip
def test_without_an_end_it_runs_until_it_has_been_silent_for_long(place, ago_s, state):
    first, _ = finished_run()
    place.write([first])
    place.now_s = first.now_s + ago_s
    words = words_of(place.page())
    assert f"run {state} " in words
    assert ("Lost work" in words) == (state == "silent")
    assert "at step 10 of 20" in words


@pytest.mark.parametrize(("code", "state"), [(75, "stopped"), (78, "failed"), (74, "interrupted")])
def test_how_an_attempt_ended_is_how_the_run_stands(place, code, state):
    first, _ = finished_run()
    first.end(code, "because of this")
    place.write([first])
    words = words_of(place.page())
    assert f"run {state} " in words
    assert f"exit {code}: because of this" in words


def test_samples_by_prompt_and_step_each_as_it_was_drawn_last(place):
    place.write(finished_run(), job={"validation": {"prompts": ["a red circle"]}})
    place.draw(1, 5, "00-00", "00-01")
    place.draw(1, 20, "00-00", data=png((1, 2, 3)))
    place.draw(2, 20, "00-00", "01-00")
    samples = data_of(place.page())["samples"]
    assert samples["steps"] == [5, 20]
    assert samples["prompts"] == {"0": "a red circle", "1": ""}
    assert [len(samples["cells"]["5"]["0"]), len(samples["cells"]["20"]["0"]), len(samples["cells"]["20"]["1"])] == [2, 1, 1]
    assert samples["cells"]["5"]["0"][0]["src"].startswith("data:image/webp;base64,")


# ---- other people's words --------------------------------------------------------------------------------------------------


def hostile_page(place):
    made = finished_run()
    made[0].events[0]["host"] = HOSTILE
    made[1].events.append({"time_s": made[1].now_s, "kind": "ready", "fingerprint": {HOSTILE: HOSTILE}, "inexact": [HOSTILE]})
    made[1].events[-2]["why"] = HOSTILE
    made[1].events[-2]["exit_code"] = 70
    for event in made[0].events:
        if event["kind"] == "samples":
            event["prompts"] = [HOSTILE]
    place.write(made, job={"name": HOSTILE, "validation": {"prompts": [HOSTILE]}})
    place.draw(1, 5, "00-00")
    return place.page()


def test_hostile_words_become_no_markup(place):
    page = hostile_page(place)
    elements = Elements(page)
    assert len(elements.of("script")) == 2
    assert elements.of("img") == []
    assert all(not name.startswith("on") for _, attributes in elements.found for name in attributes)
    assert "alert(1)" in words_of(page), "they are shown, as words"
    assert data_of(page)["samples"]["prompts"]["0"] == HOSTILE
    assert HOSTILE not in page


def test_the_page_asks_nothing_of_a_network(place):
    page = hostile_page(place)
    elements = Elements(page)
    (policy,) = [meta["content"] for meta in elements.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    links = [value for _, attributes in elements.found for name, value in attributes.items() if name in ("src", "href", "srcset")]
    assert links
    assert all(link.startswith("#") for link in links), "places of the page itself"
    assert elements.of("link") == elements.of("iframe") == []
    assert not any("style" in attributes for _, attributes in elements.found), "the policy would not apply them"


@pytest.mark.parametrize("secret", ["hf_abcdefghijklmnop", "pass<w>\"&'word", "zwölf und mehr"])
def test_no_secret_gets_into_it(place, secret):
    place.secrets = (secret,)
    made = finished_run()
    made[1].events[-1]["why"] = f"could not reach it with {secret}."
    made[1].events[-1]["exit_code"] = 74
    made[0].events[0]["host"] = secret
    for event in made[0].events:
        if event["kind"] == "samples":
            event["prompts"] = [f"a {secret}"]
    place.write(made, job={"name": "x", "data": {"source": f"s3://{secret}/a"}})
    place.draw(1, 5, "00-00")
    page = place.page()
    for spelled in (secret, json.dumps(secret)[1:-1], secret.replace("&", "&amp;").replace("<", "&lt;")):
        assert spelled not in page
    assert "could not reach it with ***." in words_of(page)


def test_what_looks_like_a_token_is_hidden_though_nobody_named_it(place):
    place.write(finished_run(), job={"name": "x", "data": {"source": "https://me:hunter22@example.com/a"}})
    page = place.page()
    assert "hunter22" not in page
    assert "***" in page


# ---- bad input -------------------------------------------------------------------------------------------------------------


def test_a_place_without_a_run(place):
    place.run.mkdir()
    with pytest.raises(MissingError, match="no run is here: it would have a ledger"):
        place.page()


def test_a_folder_is_no_page(place):
    place.write(finished_run())
    (place.folder / "report.html").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        place.page()


def test_a_ledger_that_is_all_damage_is_still_told(place):
    place.write(finished_run())
    for path in (place.run / "attempts").rglob("*.jsonl"):
        path.write_bytes(b"\xff\xfe\x00 no json\n" * 3)
    words = words_of(place.page())
    assert "Nothing of its ledger can be read." in words
    assert "12 lines of its ledger are damaged or half-written" in words


def test_a_half_written_line_costs_itself_alone(place):
    place.write(finished_run())
    path = place.run / "attempts/0002/metrics-000001.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    words = words_of(place.page())
    assert "1 line of its ledger is damaged or half-written, and left out" in words
    assert "All 20 steps are trained." in words


def test_values_that_are_no_numbers_are_marked_and_not_drawn(place):
    made = finished_run()
    made[1].metrics[3]["loss"] = float("nan")  # written as null, and named in not_finite
    made[1].metrics[4]["learning_rate"] = "fast"
    made[1].metrics[5]["grad_norm"] = 10**400  # JSON has whole numbers of any length
    place.write(made)
    data = data_of(place.page())
    charts = {chart["key"]: chart for chart in data["charts"]}
    assert charts["loss"]["notFinite"] == [9]
    assert 9 not in charts["loss"]["segments"][-1]["x"]
    assert charts["grad_norm"]["segments"][0]["y"] == [1e300]
    assert "No number at 1 step, first at step 9." in words_of(place.page())


def test_a_ledger_of_a_newer_version_says_so(place):
    place.write(finished_run(), schema=9)
    assert "A newer sdjob wrote the ledger of attempt 1 and 1 more (schema 9)" in words_of(place.page())


@pytest.mark.parametrize("text", ["{]", "- a list", "name: [1, 2", "!!python/object/apply:os.system ['true']", "a: &a [*a]"])
def test_a_job_file_of_another_kind(place, text):
    place.write(finished_run())
    (place.run / "job.yaml").write_text(text)
    assert "All 20 steps are trained." in words_of(place.page())


def test_what_is_nested_too_deep_to_look_into_is_left_out(place):
    made = finished_run()
    deep = []
    for _ in range(400):
        deep = [deep]
    made[1].events.append({"time_s": made[1].now_s, "kind": "ready", "fingerprint": {"backend": "torch", "deep": deep}})
    place.write(made)
    assert "backend torch" in words_of(place.page())


def test_a_damaged_log_and_damaged_pictures(place):
    place.write(finished_run())
    (place.run / "log").mkdir()
    (place.run / "log" / "000000000000.json").write_bytes(b"\x00")
    place.draw(1, 5, "00-00", data=b"no picture")
    place.draw(2, 20, "00-00", data=png((9, 9, 9))[:60])
    words = words_of(place.page())
    assert "2 pictures could not be read." in words


def test_an_attempt_that_never_came_to_a_step(place):
    made = MadeUp(1, BEGIN_S)
    made.start()
    place.write([made])
    place.now_s = made.now_s + 5
    words = words_of(place.page())
    assert "It is at step 0; nothing is committed yet. Its last word was 5.0 s before this page." in words
    assert "No step is told of yet." in words
    assert "The run has not stored its job file yet." in words
    assert "Take care" not in words


def test_a_hundred_thousand_steps_fit_into_a_page(place):
    made = MadeUp(1, BEGIN_S, total_steps=100_000, step_s=0.25)
    made.start()
    made.prepare()
    made.warm_up()
    for _ in range(100):
        made.train(1000, grad_norm=0.5, device_memory_mib=9000)
        made.save()
    made.metrics[54_321]["loss"] = 77.0
    made.finish()
    place.write([made])
    page = place.page()
    assert len(page.encode()) < 5_000_000
    (loss,) = [chart for chart in data_of(page)["charts"] if chart["key"] == "loss"]
    assert 77.0 in loss["segments"][0]["y"], "no spike is lost"
    assert loss["segments"][0]["x"][0] == 1
    assert loss["segments"][0]["x"][-1] == 100_000
