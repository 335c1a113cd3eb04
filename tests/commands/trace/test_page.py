"""The page on a run, in a real browser without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forge_otel.commands.cli import main
from forge_otel.commands.errors import CommandError
from forge_otel.commands.trace import page as pages
from tests.commands.otlp import BEGIN, MS, TRACE, attributes, request, span, write
from tests.support.browser import accessibility, chromium
from tools.browser import Browser

from .test_page_data import RUN, run, sample

EVIL = "</script><script>window.evil = 1</script><img src=x onerror=window.evil=1>&amp;\u2028"
STACK = 'Traceback (most recent call last):\n  File "work.py", line 7, in tag\nValueError: bad'

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(autouse=True)
def window(browser: Browser) -> None:
    """Begin each test with the same window."""
    browser.emulate()


def telemetry(folder: Path, count: int = 59) -> Path:
    """A run in which every twentieth sample fails, one has an evil id, and one is below another one."""
    spans = [run(), *(one for n in range(3, count) for one in sample(n, n, 20 + n, "bad" if n % 20 == 19 else ""))]
    batch = span(7_000_001, 1, "forge.stage.batch tag", (30, 20), forge__run__id=RUN)
    link = {"traceId": TRACE, "spanId": batch["spanId"], "attributes": attributes({"forge.link.type": "batch"})}
    evil = sample(1, 0, 500)
    for each in evil:
        values = {"forge.run.id": RUN, "forge.sample.id": EVIL, "forge.sample.outcome": "ready", EVIL: EVIL}
        each["attributes"] = attributes(values)
    child = sample(2, 5, 400, forge__sample__parent__id="s3")
    child[1]["links"] = [link]
    spans += [batch, *evil, *child]
    failed = {
        "eventName": "forge.stage.exception",
        "timeUnixNano": str(BEGIN + 40 * MS),
        "traceId": TRACE,
        "spanId": f"{191:016x}",
        "severityText": "WARN",
        "body": {"stringValue": f"Stage failed: tag {EVIL}"},
        "attributes": attributes(
            {
                "forge.sample.id": "s19",
                "error.type": "ValueError",
                "exception.type": "ValueError",
                "exception.message": "bad",
                "exception.stacktrace": STACK,
            }
        ),
    }
    requests = [request("Spans", "spans", *spans[begin : begin + 500]) for begin in range(0, len(spans), 500)]
    write(folder / "telemetry.jsonl", *requests, request("Logs", "logRecords", failed))
    return folder


def written(folder: Path, *arguments: str) -> Path:
    file = folder / "run.html"
    assert main(["trace", "page", str(telemetry(folder)), "--html", str(file), *arguments]) == 0
    return file


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return written(tmp_path)


def texts(browser: Browser, selector: str) -> list[str]:
    found: list[str] = browser.evaluate(
        f"[...document.querySelectorAll({json.dumps(selector)})].map((each) => each.textContent)"
    )
    return found


def text(browser: Browser, selector: str) -> str:
    (found,) = texts(browser, selector)
    return found


def current(browser: Browser) -> str:
    return text(browser, "#list .current .id")


def test_it_opens_without_a_network(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.problems == []
    assert browser.requests == [page.as_uri()]
    assert text(browser, "h1") == "corpus"
    assert texts(browser, ".tile") == ["56 ready", "2 dlq"]
    assert text(browser, "#count") == "58 samples"
    stage = "tag|57|2|0|0"
    assert "|".join(texts(browser, "tbody tr:first-child > *")).startswith(stage)
    assert texts(browser, ".legend li") == ["waiting for tag", "tag", "outside of stages"]
    assert browser.evaluate("document.querySelectorAll('svg path').length") == 3


def test_a_link_opens_a_sample(browser: Browser, page: Path) -> None:
    browser.open(page, "#sample=s19")
    assert text(browser, "#detail h2") == "s19"
    assert current(browser) == "s19"
    assert texts(browser, "#spans .label") == ["forge.sample", "forge.stage tag", "POST"]
    assert texts(browser, "#detail .error") == ["ValueError: bad"]
    assert texts(browser, "#detail pre") == [STACK]
    assert texts(browser, "#detail .logs li") == [f"21ms Stage failed: tag {EVIL}"]
    assert texts(browser, "#detail code")[-1] == f"forge show {RUN} s19"
    browser.evaluate(
        "new Promise((resolve) => { addEventListener('hashchange', () => setTimeout(resolve), {once: true});"
        "location.hash = '#sample=s2&span=1' })"
    )
    assert text(browser, "#detail h2") == "s2"
    assert texts(browser, "#spans .label") == ["forge.sample", "forge.stage tag", "POST", "forge.stage.batch tag"]
    assert text(browser, "#span h3") == "forge.stage tag"
    browser.click("#detail .shortcuts button:nth-child(2)")
    assert text(browser, "#detail h2") == "s3"
    assert browser.evaluate("location.hash") == "#sample=s3"
    browser.open(page, "#sample=nope")
    assert text(browser, "#detail") == "There is no sample nope in this page. It may not have been recorded."


def test_data_is_never_markup(browser: Browser, page: Path) -> None:
    browser.open(page, f"#sample={EVIL.replace('&', '%26')}")
    assert text(browser, "#detail h2") == EVIL
    assert EVIL in texts(browser, "#span dd")
    assert browser.evaluate("window.evil") is None
    assert browser.problems == []
    assert browser.requests == [page.as_uri()]
    assert browser.evaluate("document.scripts.length") == 2
    assert EVIL not in page.read_text(encoding="utf-8")


def test_nothing_else_can_run(browser: Browser, page: Path) -> None:
    """The policy of the page allows its own script and style only."""
    browser.open(page)
    browser.evaluate(
        "(() => { const script = document.createElement('script'); script.textContent = 'window.evil = 1';"
        "document.body.append(script); document.body.insertAdjacentHTML('beforeend',"
        "'<img src=x onerror=\"window.evil = 1\">'); return fetch('http://127.0.0.1:1').catch(() => null) })()"
    )
    assert browser.evaluate("window.evil") is None
    assert len(browser.problems) >= 3
    assert all("Content Security Policy" in problem for problem in browser.problems)


def test_search(browser: Browser, page: Path) -> None:
    browser.open(page, "#q=DLQ")
    assert text(browser, "#count") == "2 of 58 samples"
    assert texts(browser, "#list .id") == ["s39", "s19"]  # failed ones come first, the slowest of them at the top
    browser.press("/")
    browser.type("s19 stage")  # replaces the selected text
    assert texts(browser, "#list .id") == ["s19"]
    assert browser.evaluate("location.hash") == "#q=s19+stage"
    browser.press("Enter")
    assert text(browser, "#detail h2") == "s19"
    browser.press("/")
    browser.press("Escape")
    assert text(browser, "#count") == "58 samples"
    assert browser.evaluate("document.activeElement.id") == "list"
    assert browser.evaluate("location.hash") == "#sample=s19"
    for order, first in (("slowest", EVIL), ("started", EVIL), ("failed", "s39")):
        browser.evaluate(
            f"(() => {{ const order = document.getElementById('order'); order.value = '{order}';"
            "order.dispatchEvent(new Event('change')) })()"
        )
        assert texts(browser, "#list .id")[0] == first
    browser.open(page, "#q=work.py")
    assert texts(browser, "#list .id") == ["s19"]  # its stack trace has it


def test_keys(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.press("j")
    assert current(browser) == "s39"
    browser.press("ArrowDown")
    assert current(browser) == "s19"
    assert browser.evaluate("document.getElementById('list').getAttribute('aria-activedescendant')") == "list-1"
    browser.press("Enter")
    assert browser.evaluate("document.activeElement.id") == "spans"
    browser.press("j")
    assert text(browser, "#span h3") == "forge.stage tag"
    assert browser.evaluate("location.hash") == "#sample=s19&span=1"
    browser.press("Escape")
    browser.press("End")
    assert browser.evaluate("document.querySelector('#list .current').getAttribute('aria-posinset')") == "58"
    browser.press("Home")
    assert current(browser) == "s39"
    browser.press("?")
    assert browser.evaluate("document.getElementById('help').open") is True
    browser.press("Escape")
    assert browser.evaluate("document.getElementById('help').open") is False
    for theme in ("dark", "light"):
        browser.press("t")
        assert browser.evaluate("document.documentElement.dataset.theme") == theme


@pytest.mark.parametrize("look", [{}, {"dark": True}, {"width": 380}], ids=["light", "dark", "narrow"])
def test_it_is_accessible(browser: Browser, page: Path, look: dict[str, Any]) -> None:
    browser.emulate(**look)
    browser.open(page)
    assert accessibility(browser) == []
    browser.open(page, "#sample=s19")
    browser.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    assert accessibility(browser) == []
    browser.press("?")
    assert accessibility(browser) == []
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth") is True


def test_it_follows_the_systems_colours(browser: Browser, page: Path) -> None:
    browser.open(page)
    light = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    browser.emulate(dark=True)
    dark = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    browser.press("t")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == light
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(15, 19, 24)")


def test_print(browser: Browser, page: Path, tmp_path: Path) -> None:
    browser.emulate(dark=True)
    browser.open(page, "#sample=s19")
    browser.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate("document.querySelector('#detail details').open") is True


def test_where_samples_are_below_the_pointer(browser: Browser, page: Path) -> None:
    browser.open(page)
    box = browser.evaluate(
        "(({x, y, width}) => [x, y, width])(document.getElementById('plot').getBoundingClientRect())"
    )
    browser.move(box[0] + box[2] / 10, box[1] + 50)
    time, *places = text(browser, "#tip").split("\n")
    assert time.startswith("at ")
    assert [place.rpartition("  ")[2] for place in places] == ["outside of stages", "tag", "waiting for tag"]


def test_a_page_of_fifty_thousand_spans(browser: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """However many samples there are, only the rows in sight are in the document."""
    file = tmp_path / "run.html"
    folder = telemetry(tmp_path, count=17_000)
    assert main(["trace", "page", str(folder), "--html", str(file), "--max-spans", "60000", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["spans"], said["kept_spans"], said["samples"]) == (50_999, 50_999, 16_999)
    assert said["next"] == [f"{file.as_uri()}#sample=s19", f"forge-otel show {RUN}"]
    browser.open(file, "#sample=s16999")
    size = "document.getElementsByTagName('*').length"
    assert browser.evaluate(size) < 500
    assert current(browser) == "s16999"
    browser.press("/")
    browser.type("s169 tag")
    assert text(browser, "#count") == "111 of 16,999 samples"
    browser.press("Escape")
    browser.press("End")
    assert browser.evaluate("document.querySelector('#list .current').getAttribute('aria-posinset')") == "16999"
    assert browser.evaluate(size) < 500


def test_the_chart_says_of_which_samples_it_is(browser: Browser, tmp_path: Path) -> None:
    """With a sampling rate, only some samples have spans; the run's summary counts all."""
    summary = {
        "eventName": "forge.pipeline.summary",
        "timeUnixNano": str(BEGIN),
        "traceId": TRACE,
        "attributes": [
            *attributes({"forge.run.id": RUN}),
            {"key": "forge.summary.ready", "value": {"intValue": "5000"}},
        ],
    }
    folder = telemetry(tmp_path)
    write(folder / "logs.jsonl", request("Logs", "logRecords", summary))
    file = tmp_path / "run.html"
    assert main(["trace", "page", str(folder), "--html", str(file)]) == 0
    browser.open(file)
    assert texts(browser, ".tile") == ["5,000 ready"]
    assert texts(browser, "section:first-child .note") == ["Of the 58 samples with spans; the run had 5,000."]


def test_a_limit_is_said(browser: Browser, tmp_path: Path) -> None:
    browser.open(written(tmp_path, "--max-spans", "10"))
    assert text(browser, "#count") == "3 samples"
    assert text(browser, "header .note") == (
        "58 samples with 176 spans were recorded. 3 samples with 10 spans are in this page: "
        "those that failed, then the slowest."
    )


def test_what_telemetry_lacks_is_said() -> None:
    totals = {"samples": 1_000, "spans": 4_000, "kept_spans": 4_000}
    said = pages.coverage({"totals": totals, "run": {"suppressed": 2_000, "faults": 1}})
    assert said == (
        "1,000 samples with 4,000 spans were recorded. 2,000 spans and events were left out by sampling or a budget. "
        "Faults inside the telemetry: 1."
    )


def test_it_is_not_written_in_parts(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"--html .*/none/x\.html: cannot be written: No such file or directory"):
        pages.write("x", tmp_path / "none" / "x.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CommandError, match="Is a directory"):
        pages.write("x", tmp_path / "folder")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]
    pages.write("\udce9", tmp_path / "x.html")
    assert (tmp_path / "x.html").read_text() == "\\udce9"
    assert (tmp_path / "x.html").stat().st_mode & 0o444 == 0o444
