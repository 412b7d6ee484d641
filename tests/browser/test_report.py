"""The page of a run as a person meets it: with eyes and a mouse, with a keyboard, on a phone, in the dark."""

import itertools

import pytest

pytestmark = pytest.mark.browser

STORIES = ("finished", "running", "failed", "tiny")
LOOKS = [(1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")]


@pytest.mark.parametrize(("story", "width", "scheme"), [(s, *one) for s, one in itertools.product(STORIES, LOOKS)])
def test_nobody_is_kept_out(look, story, width, scheme):
    seen = look(story, width=width, scheme=scheme)
    assert seen.barriers() == []
    for summary in seen.page.locator("summary").all():
        summary.click()
    assert seen.barriers() == [], "with all that can be unfolded"
    assert seen.complaints == []


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
@pytest.mark.parametrize("story", ["finished", "long"])
def test_nothing_sticks_out(look, story, width):
    seen = look(story, width=width)
    assert seen.page.evaluate("document.documentElement.scrollWidth") == width


def test_no_figure_is_too_odd_to_be_drawn(look):
    seen = look("odd")
    assert seen.complaints == []
    assert seen.page.locator("[data-chart=grad_norm] path").count() > 0
    assert "No number at 120 steps, first at step 3." in seen.text("main")


def test_it_asks_for_nothing_but_itself(look):
    seen = look("finished")
    seen.page.locator("summary", has_text="side by side").click()
    assert [address for address in seen.asked if not address.startswith("data:")] == [seen.page.url]


# ---- the slider of the curves ------------------------------------------------------------------------------------------------


def test_the_slider_tells_each_curve_at_its_step(look):
    seen = look("finished")
    assert seen.text("#scrub-step") == "3,000"
    slider = seen.page.locator("#scrub")
    slider.focus()
    seen.page.keyboard.press("Home")
    assert seen.text("#scrub-step") == "0"
    for _ in range(3):
        seen.page.keyboard.press("ArrowRight")
    assert seen.text("#scrub-step") == "3"
    readouts = seen.page.locator(".readout").all_inner_texts()
    assert len(readouts) == 5
    assert all("attempt 1" in readout for readout in readouts)
    assert slider.get_attribute("aria-valuetext").startswith("step 3; Loss step "), "and to who hears it"
    assert "; Learning rate step " in slider.get_attribute("aria-valuetext")


def test_lost_work_is_told_where_it_lies(look):
    seen = look("failed")
    seen.page.locator("#scrub").fill("800")
    assert all(readout.startswith("step 800: ") for readout in seen.page.locator(".readout").all_inner_texts())
    seen = look("finished")
    seen.page.locator("#scrub").fill("1300")
    assert "attempt 2" in seen.text(".readout"), "of two who trained it, the one whose work stands"


def test_the_cursor_goes_with_the_slider(look):
    seen = look("finished")
    at = "() => [...document.querySelectorAll('.cursor')].map((line) => Number(line.getAttribute('x1')))"
    ends = seen.page.evaluate(at)
    seen.page.locator("#scrub").fill("1500")
    middles = seen.page.evaluate(at)
    assert all(middle == pytest.approx((52 + end) / 2, abs=1) for middle, end in zip(middles, ends, strict=True))


# ---- the pointer -------------------------------------------------------------------------------------------------------------


def test_a_curve_tells_what_is_under_the_pointer(look):
    seen = look("finished")
    tip = seen.page.locator("#tip")
    assert tip.is_hidden()
    plot = seen.page.locator("[data-chart=loss]").bounding_box()
    seen.page.mouse.move(plot["x"] + plot["width"] / 2, plot["y"] + plot["height"] / 2)
    assert tip.is_visible()
    title, step, mean, held, attempt = tip.inner_text().split("\n")
    assert (title, attempt) == ("Loss", "attempt 2")
    assert step.startswith("step 1,4"), "near the middle, but for the axis"
    assert mean.startswith("mean 0.1")
    assert held.startswith("held out 0.1")
    assert seen.text("#scrub-step").startswith("1,4"), "the slider goes along"
    seen.page.mouse.move(5, 5)
    assert tip.is_hidden()


def test_a_tip_never_leaves_the_window(look):
    seen = look("finished", width=390)
    plot = seen.scroll_to("[data-chart=loss]").bounding_box()
    for share in (0.2, 0.5, 0.98):
        seen.page.mouse.move(plot["x"] + share * plot["width"], plot["y"] + 3)
        tip = seen.page.locator("#tip").bounding_box()
        assert tip["x"] >= 0
        assert tip["x"] + tip["width"] <= 390


def test_a_bar_tells_what_a_moment_went_to(look):
    seen = look("finished")
    box = seen.scroll_to(".attempts .bar").bounding_box()
    seen.page.mouse.move(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
    title, lasted, when = seen.text("#tip").split("\n")
    assert (title, lasted) == ("Lost work", "37.8 s"), "90 steps of 0.42 s"
    assert when.startswith("from 11 min ")


# ---- samples -----------------------------------------------------------------------------------------------------------------


def test_the_slider_of_the_samples_shows_each_step_s_pictures(look):
    seen = look("finished")
    pictures = seen.page.locator("#sample-grid img")
    assert seen.page.locator("#sample-grid figcaption").all_inner_texts()[0].startswith("a cute dragon creature")
    last = [picture.get_attribute("src") for picture in pictures.all()]
    assert len(last) == 6
    seen.page.locator("#sample").focus()
    for _ in range(2):
        seen.page.keyboard.press("ArrowLeft")
    assert seen.text("#sample-step") == "2,000"
    assert seen.page.locator("#sample").get_attribute("aria-valuetext") == "step 2000"
    now = pictures.all()
    assert now[1].get_attribute("alt") == "a cute dragon creature, soft pastel colours, step 2000, picture 2"
    assert not {picture.get_attribute("src") for picture in now} & {*last}
    assert seen.page.evaluate("[...document.querySelectorAll('#sample-grid img')].every((one) => one.naturalWidth > 0)")


def test_all_samples_lie_in_one_grid_of_prompts_and_steps(look):
    seen = look("finished")
    seen.page.locator("summary", has_text="side by side").click()
    heads = seen.page.locator("#sample-strip thead th").all_inner_texts()
    assert heads == ["Prompt", *(f"Step {step:,}" for step in range(500, 3001, 500))]
    assert seen.page.locator("#sample-strip tbody tr").count() == 3
    assert seen.page.locator("#sample-strip img.now").count() == 3, "the step of the slider is marked"


# ---- the keyboard, no script, many steps -------------------------------------------------------------------------------------


def test_a_keyboard_comes_everywhere_and_shows_where_it_is(look):
    seen = look("finished")
    outline = "() => parseFloat(getComputedStyle(document.activeElement).outlineWidth)"
    reached = set[str]()
    for _ in range(40):
        seen.page.keyboard.press("Tab")
        name = seen.page.evaluate("() => document.activeElement.id || document.activeElement.tagName.toLowerCase()")
        if name == "body":
            break
        assert seen.page.evaluate(outline) >= 2, name
        reached.add(name)
    assert {"a", "scrub", "sample", "summary", "pre"} <= reached


def test_a_page_of_100_000_steps_is_small(look, written_pages):
    assert written_pages("long").stat().st_size < 5_000_000
    seen = look("long")
    assert seen.page.evaluate("document.querySelectorAll('*').length") < 20_000, "or it opens slowly"
    assert seen.text("#scrub-step") == "100,000"
    assert seen.page.locator(".attempts li").count() == 40
    assert seen.barriers() == []
