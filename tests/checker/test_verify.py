"""Telemetry is verified against a registry: here against that of a shop, which has nothing to do with Forge."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from forge_otel.checker.load import load
from forge_otel.checker.model import Registry
from forge_otel.checker.otlp_json import MAX_REQUEST_SIZE
from forge_otel.checker.verification import VERIFICATION_RULES, Element, VerificationReport
from forge_otel.checker.verify import verify

SCHEMA = "https://shop.example/telemetry/2.3.0"
CARD = {"key": "shop.payment.method", "value": {"stringValue": "card"}}


@pytest.fixture(scope="module")
def shop() -> Registry:
    return load(Path(__file__).parent / "shop")


def request(signal: str, *records: Any, schema: str = SCHEMA, scope: str = "till") -> dict[str, Any]:
    """An export request with one resource and one scope."""
    key = {"Spans": "spans", "Metrics": "metrics", "Logs": "logRecords"}[signal]
    inner = {"scope": {"name": scope}, key: list(records), "schemaUrl": schema}
    return {f"resource{signal}": [{"resource": {"attributes": []}, f"scope{signal}": [inner]}]}


def attribute(key: str, **value: Any) -> dict[str, Any]:
    return {"key": key, "value": value}


def span(*more: Any, **fields: Any) -> dict[str, Any]:
    """A checkout as it should be, with more attributes or other fields."""
    return {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174",
        "name": "shop.checkout card",
        "kind": 2,
        "attributes": [CARD, *more],
        **fields,
    }


def metric(name: str = "shop.orders", unit: str = "{order}", **data: Any) -> dict[str, Any]:
    """A metric: orders as they should be, unless something else is said."""
    point = {"asInt": "1", "attributes": [CARD] if name == "shop.orders" else []}
    return {"name": name, "unit": unit, **(data or {"sum": {"isMonotonic": True, "dataPoints": [point]}})}


def event(*more: Any, **fields: Any) -> dict[str, Any]:
    attributes = [attribute("shop.order.id", stringValue="o-17"), *more]
    return {"eventName": "shop.order.refused", "severityNumber": 13, "attributes": attributes, **fields}


def points(*each: Sequence[Any]) -> dict[str, Any]:
    return {"dataPoints": [{"attributes": list(attributes)} for attributes in each]}


def written(path: Path, *requests: Any) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in requests))
    return path


def report(shop: Registry, folder: Path, *requests: Any) -> VerificationReport:
    return verify(shop, [written(folder / "x.jsonl", *requests)])


GOOD: Mapping[str, dict[str, Any]] = {
    "span": request("Spans", span()),
    "every type": request(
        "Spans",
        span(
            attribute("shop.order.id", stringValue=""),
            attribute("shop.order.value", doubleValue=3),
            attribute("shop.order.lines", intValue="9223372036854775807"),
            attribute("shop.order.gift", boolValue=False),
            attribute("shop.order.vouchers", arrayValue={"values": [{"stringValue": "a"}, {"stringValue": "b"}]}),
            attribute("shop.label.colour", stringValue="red"),
            attribute("shop.note", kvlistValue={"values": []}),
            attribute("error.type", stringValue="whatever"),
        ),
    ),
    "other spellings": request(
        "Spans",
        span(
            attribute("shop.order.value", doubleValue="NaN"),
            attribute("shop.order.lines", intValue=-3),
            attribute("shop.order.vouchers", arrayValue={}),
            kind="SPAN_KIND_SERVER",
        ),
    ),
    "span without a variable name": request("Spans", {"name": "shop.stock", "kind": 3}),
    "counter": request("Metrics", metric()),
    "up-down counter": request("Metrics", metric("shop.basket.size", "{line}", sum=points(()))),
    "gauge": request("Metrics", metric("shop.queue.depth", gauge=points(()))),
    "histogram with boundaries of its own": request(
        "Metrics",
        metric("shop.checkout.duration", "s", histogram={"dataPoints": [{"count": "1", "explicitBounds": [7]}]}),
    ),
    "exponential histogram": request("Metrics", metric("shop.checkout.duration", "s", exponentialHistogram=points(()))),
    "overflow": request(
        "Metrics", metric(sum={"isMonotonic": True, **points([attribute("otel.metric.overflow", boolValue=True)])})
    ),
    "event": request("Logs", event()),
    "event with a name for its severity": request("Logs", event(severityNumber="SEVERITY_NUMBER_WARN")),
    "log record": request("Logs", {"body": {"stringValue": "hello"}}),
    "of somebody else": request(
        "Spans", span(name="GET /", attributes=[attribute("x", intValue=1)]), schema="", scope="http"
    ),
    "of somebody else with ours": request(
        "Spans", span(attribute("shop.order.id", stringValue="o"), name="GET /"), schema="", scope="http"
    ),
    "nothing": {},
    "profiles": {"resourceProfiles": 1},
}


@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD.keys())
def test_what_keeps_to_the_registry(shop: Registry, tmp_path: Path, good: Any) -> None:
    assert report(shop, tmp_path, good, GOOD["span"]).findings == ()


FOREIGN = {"schema": "", "scope": "http"}
BAD: Mapping[str, tuple[dict[str, Any], str]] = {
    "span": (
        request("Spans", span(name="shop.chekout card")),
        "span/unknown: span shop.chekout: is not in the registry: shop.chekout card",
    ),
    "span in any scope": (
        request("Spans", span(name="shop.return 1"), **FOREIGN),
        "span/unknown: span shop.return: is not in the registry: shop.return 1",
    ),
    "span in a scope of this name": (
        request("Spans", span(name="pay"), schema="", scope="shop.till"),
        "span/unknown: span pay: is not in the registry: pay",
    ),
    "value in the name of a span": (
        request("Spans", span(name="shop.checkout o-17")),
        "span/name: span shop.checkout: is not named shop.checkout {shop.payment.method}: shop.checkout o-17",
    ),
    "name of a span without its value": (
        request("Spans", span(name="shop.checkout")),
        "span/name: span shop.checkout: is not named shop.checkout {shop.payment.method}: shop.checkout",
    ),
    "value in the name of a span that has none": (
        request("Spans", {"name": "shop.stock 7", "kind": 3}),
        "span/name: span shop.stock: is not named shop.stock: shop.stock 7",
    ),
    "kind": (
        request("Spans", span(kind=1)),
        "span/kind: span shop.checkout: does not have the kind server: internal",
    ),
    "metric": (
        request("Metrics", metric("shop.sales")),
        "metric/unknown: metric shop.sales: is not in the registry",
    ),
    "instrument": (
        request("Metrics", metric(gauge=points([CARD]))),
        "metric/instrument: metric shop.orders: does not have the instrument counter: gauge",
    ),
    "monotonic": (
        request("Metrics", metric(sum=points([CARD]))),
        "metric/instrument: metric shop.orders: does not have the instrument counter: updowncounter",
    ),
    "summary": (
        request("Metrics", metric("shop.queue.depth", summary=points(()))),
        "metric/instrument: metric shop.queue.depth: does not have the instrument gauge: summary",
    ),
    "unit": (
        request("Metrics", metric(unit="1")),
        "metric/unit: metric shop.orders: does not have the unit {order}: 1",
    ),
    "id on a metric": (
        request(
            "Metrics",
            metric(sum={"isMonotonic": True, **points([CARD, attribute("shop.order.id", stringValue="o")])}),
        ),
        "metric/attribute: metric shop.orders, shop.order.id: is not allowed on metrics: 'o' (string)",
    ),
    "id on a metric of somebody else": (
        request(
            "Metrics", metric("http.requests", gauge=points([attribute("shop.order.id", stringValue="o")])), **FOREIGN
        ),
        "metric/attribute: metric http.requests, shop.order.id: is not allowed on metrics: 'o' (string)",
    ),
    "attribute that the metric does not list": (
        request("Metrics", metric("shop.queue.depth", gauge=points([attribute("shop.region", intValue=49)]))),
        "attribute/unlisted: metric shop.queue.depth, shop.region: is not listed here: 49 (int)",
    ),
    "attribute that the span does not list": (
        request("Spans", span(attribute("shop.region", intValue=49))),
        "attribute/unlisted: span shop.checkout, shop.region: is not listed here: 49 (int)",
    ),
    "event": (
        request("Logs", event(eventName="shop.order.lost")),
        "event/unknown: event shop.order.lost: is not in the registry",
    ),
    "event of a span": (
        request("Spans", span(events=[{"name": "shop.order.refused"}])),
        "event/unknown: event shop.order.refused: is an event of a span; events are log records",
    ),
    "severity": (
        request("Logs", event(severityNumber=9)),
        "event/severity: event shop.order.refused: does not have the severity WARN: INFO",
    ),
    "attribute": (
        request("Spans", span(attribute("http.route", stringValue="/"))),
        "attribute/unknown: span shop.checkout, http.route: is not in the registry: '/' (string)",
    ),
    "attribute on a span of somebody else": (
        request("Spans", span(attribute("shop.orderid", stringValue="o"), name="GET /"), **FOREIGN),
        "attribute/unknown: span GET, shop.orderid: is not in the registry: 'o' (string)",
    ),
    "attribute on a link": (
        request("Spans", span(links=[{"attributes": [attribute("shop.x", boolValue=True)]}])),
        "attribute/unknown: span shop.checkout, shop.x: is not in the registry: True (boolean)",
    ),
    "attribute on a log record": (
        request("Logs", {"attributes": [attribute("shop.x", doubleValue=0.5)]}),
        "attribute/unknown: event, shop.x: is not in the registry: 0.5 (double)",
    ),
    "attribute on the resource": (
        {"resourceLogs": [{"resource": {"attributes": [attribute("shop.branch", stringValue="x"), CARD]}}]},
        "attribute/unknown: resource, shop.branch: is not in the registry: 'x' (string)",
    ),
    "missing on a span": (
        request("Spans", span(attributes=[])),
        "attribute/missing: span shop.checkout, shop.payment.method: is missing",
    ),
    "missing on a metric": (
        request("Metrics", metric(sum={"isMonotonic": True, **points(())})),
        "attribute/missing: metric shop.orders, shop.payment.method: is missing",
    ),
    "missing on an event": (
        request("Logs", event(attributes=[])),
        "attribute/missing: event shop.order.refused, shop.order.id: is missing",
    ),
    "integer for a double": (
        request("Spans", span(attribute("shop.order.value", intValue="3"))),
        "attribute/type: span shop.checkout, shop.order.value: is not of type double: 3 (int)",
    ),
    "array of other things": (
        request("Spans", span(attribute("shop.order.vouchers", arrayValue={"values": [{"intValue": 1}]}))),
        "attribute/type: span shop.checkout, shop.order.vouchers: is not of type string[]: [1] (int[])",
    ),
    "array of different things": (
        request(
            "Spans",
            span(attribute("shop.order.vouchers", arrayValue={"values": [{"intValue": 1}, {"stringValue": "a"}]})),
        ),
        "attribute/type: span shop.checkout, shop.order.vouchers: is not of type string[]: mixed[]",
    ),
    "empty value": (
        request("Spans", span(attribute("shop.order.gift"))),
        "attribute/type: span shop.checkout, shop.order.gift: is not of type boolean: empty",
    ),
    "type in a template": (
        request("Spans", span(attribute("shop.label.size", intValue=1))),
        "attribute/type: span shop.checkout, shop.label: is not of type string: 1 (int)",
    ),
    "type on a span of somebody else": (
        request("Spans", span(attribute("shop.order.id", intValue=1), name="GET /"), **FOREIGN),
        "attribute/type: span GET, shop.order.id: is not of type string: 1 (int)",
    ),
    "member": (
        request(
            "Logs",
            event(),
            {"eventName": "x", "attributes": [attribute("shop.payment.method", stringValue="cash")]},
            **FOREIGN,
        ),
        "attribute/member: event x, shop.payment.method: is none of card, invoice: 'cash' (string)",
    ),
    "schema": (
        request("Logs", event(), schema="https://shop.example/telemetry/2.2.0"),
        f"scope/schema: scope till: is not of {SCHEMA}: https://shop.example/telemetry/2.2.0",
    ),
}


@pytest.mark.parametrize(("bad", "finding"), BAD.values(), ids=BAD.keys())
def test_what_deviates(shop: Registry, tmp_path: Path, bad: Any, finding: str) -> None:
    found = report(shop, tmp_path, GOOD["span"], bad)
    assert [str(one) for one in found.findings] == [f"{tmp_path / 'x.jsonl'}:2: {finding}"]


MALFORMED: Mapping[str, tuple[bytes, str]] = {
    "no JSON": (b"hello\n", "is not JSON: Expecting value, column 1"),
    "truncated": (
        b'{"resourceSpans": [{"resource": {"attr\n{}\n',
        "is truncated JSON: Unterminated string starting at, column 34",
    ),
    "binary": (b"\x1f\x8b\x08\x00\xff\n", "is not UTF-8"),
    "zeros": (bytes(100), "is not JSON: Expecting value, column 1"),
    "other JSON": (b'{"hello": 1}\n', "has none of resourceSpans, resourceMetrics and resourceLogs"),
    "a number": (b"1e999\n", "is not an object"),
    "a list": (b"[{}]\n", "is not an object"),
    "deep": (b'{"resourceSpans":' + b"[" * 200_000 + b"\n", "is nested too deeply"),
    "digits": (b'{"resourceSpans":' + b"9" * 10_000 + b"}\n", "has a number of too many digits"),
    "resources": (b'{"resourceSpans": 17}\n', "resourceSpans is not a list of objects"),
    "elements": (b'{"resourceLogs": [NaN]}\n', "resourceLogs is not a list of objects"),
    "scope": (b'{"resourceLogs": [{"scopeLogs": [{"scope": []}]}]}\n', "scope is not an object"),
    "name": (json.dumps(request("Spans", {"name": ["x"]})).encode(), "name is not a string"),
    "kind": (json.dumps(request("Spans", span(kind=1.5))).encode(), "kind is neither a number nor a name"),
    "monotonic": (
        json.dumps(request("Metrics", metric(sum={"isMonotonic": "yes", "dataPoints": []}))).encode(),
        "isMonotonic is not a boolean",
    ),
    "value": (
        json.dumps(request("Spans", span(attribute("k", stringValue=7)))).encode(),
        "stringValue is not a string",
    ),
    "integer": (
        json.dumps(request("Spans", span(attribute("k", intValue="0x1")))).encode(),
        "intValue is not a 64-bit integer",
    ),
    "big integer": (
        json.dumps(request("Spans", span(attribute("k", intValue=2**63)))).encode(),
        "intValue is not a 64-bit integer",
    ),
    "infinite integer": (
        b"%b\n" % json.dumps(request("Spans", span(attribute("k", intValue=1e999)))).encode(),
        "intValue is not a 64-bit integer",
    ),
    "double": (
        json.dumps(request("Spans", span(attribute("k", doubleValue=[])))).encode(),
        "doubleValue is not a number",
    ),
    "big double": (
        json.dumps(request("Spans", span(attribute("k", doubleValue=10**400)))).encode(),
        "doubleValue is not a number",
    ),
}


@pytest.mark.parametrize(("content", "problem"), MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_otlp(shop: Registry, tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes(content)
    assert [str(one) for one in verify(shop, [file]).findings] == [f"{file}:1: file/unreadable: file: {problem}"]


def test_the_rest_of_a_request_is_verified_where_a_record_is_malformed(shop: Registry, tmp_path: Path) -> None:
    found = report(shop, tmp_path, request("Spans", span(attributes=7), span(kind=1)), GOOD["event"])
    assert [one.rule for one in found.findings] == ["file/unreadable", "span/kind"]
    assert found.records == {"spans": 1, "points": 0, "events": 1, "others": 0}


def test_every_rule_is_tested() -> None:
    shown = {finding.partition(":")[0] for _, finding in BAD.values()}
    assert shown | {"file/unreadable", "file/empty", "file/foreign"} == VERIFICATION_RULES.keys()


@pytest.mark.parametrize("content", ["", "\n\n", "{}\n", '{"resourceSpans": []}\n', json.dumps(request("Spans"))])
def test_a_file_without_telemetry(shop: Registry, tmp_path: Path, content: str) -> None:
    file, good = tmp_path / "x.jsonl", written(tmp_path / "good.jsonl", GOOD["span"])
    file.write_text(content)

    message = "has no telemetry; expected are export requests in OTLP/JSON, one per line"
    assert [str(one) for one in verify(shop, [good, file, good]).findings] == [f"{file}:1: file/empty: file: {message}"]


def test_a_file_with_telemetry_of_others_only(shop: Registry, tmp_path: Path) -> None:
    others = [request("Spans", span(name="GET", attributes=[]), schema="", scope=f"http{n}") for n in (2, 1)]
    file, good = written(tmp_path / "x.jsonl", *others), written(tmp_path / "good.jsonl", GOOD["span"], others[0])

    message = (
        "none of its 2 records is of this registry; expected are scopes with a schema URL below "
        "https://shop.example/telemetry, or names that begin with `shop.`: scopes 'http1', 'http2'"
    )
    assert [str(one) for one in verify(shop, [good, file]).findings] == [f"{file}:1: file/foreign: file: {message}"]


def test_only_a_few_scopes_of_others_are_named(shop: Registry, tmp_path: Path) -> None:
    others = [request("Spans", span(name="GET", attributes=[]), schema="", scope=f"http{n}") for n in range(9)]
    (finding,) = report(shop, tmp_path, *others).findings

    assert finding.example == "scopes 'http0', 'http1', 'http2', 'http3', 'http4'"


def test_the_same_fault_in_many_spans_is_one_finding(shop: Registry, tmp_path: Path) -> None:
    requests = [
        request("Spans", *(span(attribute("shop.order.id", intValue=number)) for number in range(7))) for _ in range(3)
    ]
    (finding,) = report(shop, tmp_path, GOOD["span"], *requests).findings
    assert (finding.count, finding.place.line, finding.example) == (21, 2, "0 (int)")
    assert str(finding).endswith("shop.order.id: is not of type string: 0 (int) (21 times)")


def test_different_findings_are_bounded(shop: Registry, tmp_path: Path) -> None:
    found = report(shop, tmp_path, *(request("Metrics", metric(f"shop.m{number}")) for number in range(1003)))
    assert (len(found.findings), found.omitted) == (1000, 3)
    assert found.text().splitlines()[-2] == "3 more findings were omitted."


def test_what_a_terminal_would_obey_and_what_is_long_is_not_shown(shop: Registry, tmp_path: Path) -> None:
    found = report(shop, tmp_path, request("Logs", event(eventName="shop.\x1b[2J\ud800" + "x" * 1000)))
    (finding,) = found.findings
    assert finding.name == r"shop.\x1b[2J\ud800" + "x" * 190 + "…"
    assert found.text().isprintable() is False  # its lines
    assert all(line.isprintable() for line in found.text().splitlines())


def test_one_request_over_many_lines(shop: Registry, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(request("Spans", span(), span(kind=1)), indent=2))
    (finding,) = verify(shop, [file]).findings
    assert (finding.rule, finding.place.line) == ("span/kind", 1)
    file.write_text("\n" + json.dumps(GOOD["span"], indent=2)[:-40])
    (finding,) = verify(shop, [file]).findings
    assert (finding.rule, finding.place.line > 20) == ("file/unreadable", True)


def test_broken_lines_between_others(shop: Registry, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    line = json.dumps(GOOD["span"])
    file.write_text(f"{line[:90]}\n\n{line}\r\n{line[30:]}\n{line}")
    found = verify(shop, [file])
    assert [(one.rule, one.place.line, one.message) for one in found.findings] == [
        ("file/unreadable", 1, "is truncated JSON"),
        ("file/unreadable", 4, "is not JSON"),
    ]
    assert found.records["spans"] == 2


def test_gzip(shop: Registry, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl.gz"
    packed = gzip.compress(json.dumps(BAD["kind"][0]).encode() + b"\n")
    file.write_bytes(packed)
    assert [one.rule for one in verify(shop, [file]).findings] == ["span/kind"]
    for broken in (packed[:-20], b"hello", b"", packed[:20] + bytes(20)):
        file.write_bytes(broken)
        assert [one.rule for one in verify(shop, [file]).findings] == (
            ["file/unreadable"] if broken else ["file/empty"]
        )


@pytest.mark.slow
def test_a_line_that_is_too_long_is_skipped(shop: Registry, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    with file.open("wb") as output:
        output.truncate(2 * MAX_REQUEST_SIZE + 7)
        output.seek(0, 2)
        output.write(b"\n" + json.dumps(GOOD["span"]).encode())
    found = verify(shop, [file])
    assert [(one.place.line, one.message) for one in found.findings] == [(1, "is longer than 64 MiB")]
    assert found.records["spans"] == 1


def test_a_file_that_is_not_there(shop: Registry, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        verify(shop, [tmp_path / "x"])
    with pytest.raises(IsADirectoryError):
        verify(shop, [tmp_path])


@pytest.mark.slow
def test_memory_stays_flat(shop: Registry, tmp_path: Path) -> None:
    requests = [request("Spans", *(span(attribute("shop.order.id", intValue=number)) for number in range(100)))]

    def peak(times: int) -> int:
        file = written(tmp_path / "x.jsonl", *requests * times)
        tracemalloc.start()
        try:
            assert verify(shop, [file]).records["spans"] == 100 * times
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)  # fills caches
    assert peak(50) < 2 * peak(2)


def test_what_was_seen(shop: Registry, tmp_path: Path) -> None:
    found = report(shop, tmp_path, *GOOD.values())
    unseen = [str(element) for element in found.unobserved(shop)]
    assert unseen == [
        "attribute shop.payment.method: invoice",
        "attribute shop.region",
    ]
    assert Element("span", "shop.checkout", "shop.label") in found.observed
    assert found.records == {"spans": 4, "points": 6, "events": 2, "others": 3}
    assert found.text() == (
        "No findings in 4 spans, 6 points, 2 events; 3 others were skipped. "
        "Observed: 8 attributes, 2 spans, 4 metrics, 1 events."
    )


def test_json(shop: Registry, tmp_path: Path) -> None:
    found = report(shop, tmp_path, BAD["missing on an event"][0])
    assert json.loads(json.dumps(found.to_json())) == {
        "findings": [
            {
                "rule": "attribute/missing",
                "file": str(tmp_path / "x.jsonl"),
                "line": 1,
                "signal": "event",
                "name": "shop.order.refused",
                "attribute": "shop.order.id",
                "message": "is missing",
                "example": "",
                "count": 1,
            }
        ],
        "omitted": 0,
        "records": {"spans": 0, "points": 0, "events": 1, "others": 0},
        "seen": [{"kind": "event", "name": "shop.order.refused", "part": ""}],
    }
