"""The page: one file that asks nothing of any network, in which nobody's words become markup or script."""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

from sdjob import __version__
from sdjob.ledger.moments import Moments
from sdjob.ledger.read import Record
from sdjob.ledger.seconds import Account, account
from sdjob.report import attempts, body, overview
from sdjob.report.gather import Gathered
from sdjob.report.html import Html, joined, tag
from sdjob.report.overview import Price
from sdjob.report.pictures import Album
from sdjob.report.secrecy import clean, cleaned
from sdjob.report.series import charts_of
from sdjob.report.state import is_silent, standing_of
from sdjob.report.timeline import LABELS
from sdjob.report.words import at


def page(run: Gathered, *, album: Album, price: Price | None, secrets: tuple[str, ...]) -> str:
    """secrets: values to blank out wherever they stand; what looks like a token goes too."""
    run = clean(run, secrets=secrets)
    sums = account(run.ledgers, ended_s=gone(run))
    standing = standing_of(run, sums=sums)
    metrics: dict[int, list[Record]] = {ledger.attempt: ledger.metrics for ledger in run.ledgers}
    charts = charts_of(metrics, sums=sums)
    found = [
        body.curves(charts, num_attempts=len(sums.attempts)),
        body.samples(album),
        attempts.time(run, sums=sums),
        body.digests(run),
        body.job_file(run),
        body.environment(run),
    ]
    sections = [section for section in found if section is not None]
    data = {
        "charts": [chart.fields() for chart in charts],
        **marks(sums),
        "buckets": LABELS,
        "samples": cleaned(album.fields(), secrets=secrets),
    }
    top = [
        overview.header(run, standing=standing, sums=sums),
        overview.contents(sections),
    ]
    main = tag(
        "main",
        overview.tiles(run, standing=standing, sums=sums, charts=charts, price=price),
        overview.notes(run.troubles),
        *(section.html() for section in sections),
    )
    return filled(title=f"{run.name}: {standing.state}", content=joined([*top, main]), data=data, made_s=run.read_s)


def gone(run: Gathered) -> dict[int, float]:
    """The last attempt, where nobody is taken to be there any more: what it had not committed is lost."""
    for moments in (Moments(ledger) for ledger in run.ledgers[-1:]):
        if moments.end is None and moments.last_word_s is not None and is_silent(moments, now_s=run.read_s):
            return {moments.ledger.attempt: moments.last_word_s}
    return {}


def marks(sums: Account) -> dict[str, Any]:
    last = max((attempt.reached_step for attempt in sums.attempts), default=0)
    found = [
        {"a": attempt.attempt, "start": attempt.start_step, "kept": attempt.kept_step, "reached": attempt.reached_step}
        for attempt in sums.attempts
    ]
    return {"attempts": found[-attempts.MOST_ATTEMPTS :], "lastStep": last}


def filled(*, title: str, content: Html, data: Mapping[str, Any], made_s: float) -> str:
    parts = {name: files("sdjob.report").joinpath(f"page.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")}
    own = f"style-src {digest(parts['css'])}; script-src {digest(parts['js'])}"
    policy = f"default-src 'none'; img-src data:; {own}; base-uri 'none'; form-action 'none'"
    return Template(parts["html"]).substitute(
        title=tag("title", title),
        policy=tag("meta", http_equiv="Content-Security-Policy", content=policy),
        css=parts["css"],
        content=content,
        data=in_script(data),
        js=parts["js"],
        made=tag("footer", f"Made by sdjob {__version__} at {at(made_s)}, from the run's own ledger and log."),
    )


def digest(text: str) -> str:
    """As a content security policy names an inline style or script: https://www.w3.org/TR/CSP3/#grammardef-hash-source."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def in_script(data: Mapping[str, Any]) -> str:
    """JSON that no `</script>` or `<!--` in it can end: https://html.spec.whatwg.org/#restrictions-for-contents-of-script-elements."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
