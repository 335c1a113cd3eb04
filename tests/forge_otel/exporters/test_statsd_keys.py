"""Names and tags in StatsD: of the metric, of the process, constant ones, and those of a template."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_otel.exporters._lines import Encoder
from forge_otel.exporters.statsd import StatsDSettings
from forge_otel.semconv.statsd import NAMES
from tests.support.otlp import Attributes, counter, gauge, histogram, measured, request
from tests.support.statsd import read

RESOURCE = {
    "service.name": "labels",
    "deployment.environment.name": "prod",
    "service.version": "1.4",
    "service.instance.id": "i-1",
}
PLAIN: dict[str, Any] = {"flavor": "statsd"}
TAGGED: dict[str, Any] = {"flavor": "statsd", "dimensions": "tags"}
EXECUTED = {"forge.stage.name": "decode", "forge.stage.outcome": "success"}


def line(
    attributes: Attributes,
    *,
    name: str = "forge.stage.executions",
    resource: Attributes | None = None,
    forwarding: bool = False,
    **settings: Any,
) -> str:
    """The line of a counter of 1, without its value."""
    found = StatsDSettings(**settings)
    sent = request(counter(name, (1, attributes)), resource=resource)
    [packet], refused = Encoder(found, forwarding=forwarding).encode(sent)
    assert not refused
    read([packet], found.flavor)
    return packet.decode().replace(":1|c", "", 1)


def tags(attributes: Attributes | None = None, **options: Any) -> str:
    """The tags of another instrumentation's counter."""
    return line(attributes or {}, name="n", **options).removeprefix("n").removeprefix("|#")


def test_the_process_is_in_tags() -> None:
    assert line(EXECUTED | {"forge.pipeline.name": "words"}, resource=RESOURCE) == (
        "forge.stage.executions|#pipeline:words,stage:decode,outcome:success,service:labels,env:prod,version:1.4"
    )
    assert tags({"a": "b"}, resource=RESOURCE, **TAGGED) == "a:b,service:labels,env:prod,version:1.4"
    assert tags(resource={"service.name": "unknown_service"}) == ""
    assert tags(resource={"service.name": "unknown_service:python3"}) == ""


def test_constant_tags() -> None:
    constant: dict[str, Any] = {"tags": "team:ml,region:eu,canary,url:http://a/b:1", "entity_id": "pod-1"}
    assert tags(**constant) == "team:ml,region:eu,canary,url:http://a/b:1,dd.internal.entity_id:pod-1"
    # What neither Etsy's daemon nor Graphite has: tags without a value, colons and slashes, Datadog's own.
    assert tags(**constant, **TAGGED) == "team:ml,region:eu,url:http_a_b_1"
    assert line(EXECUTED, **constant, **PLAIN) == "forge.stage.executions._.decode.success"


def test_what_wins_of_several_tags_with_a_key() -> None:
    assert tags({"team": "own"}, tags="team:ml") == "team:own"
    assert tags(tags="service:b,env:b", service="a", resource=RESOURCE) == "service:a,env:b,version:1.4"
    # The bridge's variables describe the bridge.
    assert tags(tags="env:b,team:b", service="a", resource={"service.name": "c"}, forwarding=True) == (
        "env:b,team:b,service:c"
    )
    assert tags(service="a", forwarding=True) == "service:a"


def test_a_name_has_a_place_for_every_tag() -> None:
    letter = {"forge.pipeline.name": "words", "forge.dlq.source": "stage", "error.type": "timeout"}
    assert line(letter | {"forge.stage.name": "x"}, name="forge.dlq.enqueued", **PLAIN) == (
        "forge.dlq.enqueued.words.stage.x._.timeout"
    )
    assert line(letter | {"forge.measurement.key": "x"}, name="forge.dlq.enqueued", **PLAIN) == (
        "forge.dlq.enqueued.words.stage._.x.timeout"
    )
    assert line(EXECUTED, **PLAIN) == "forge.stage.executions._.decode.success"
    assert line(EXECUTED | {"forge.pipeline.name": "?"}, **PLAIN) == "forge.stage.executions.__.decode.success"
    assert line({"b": "1", "a.c": "2"}, name="http.requests", **PLAIN) == "http.requests.a_c.2.b.1"


@pytest.mark.parametrize(
    ("template", "ours", "others"),
    [
        ("{name}.{tags}", "forge.stage.executions.words.decode.success", "http.requests.a.b"),
        ("{pipeline}.{name}.{tags}", "words.forge.stage.executions.decode.success", "http.requests.a.b"),
        (
            "ml-{env}.{service}.{version}.{name}.{tags}.{instance}",
            "ml-prod.labels.1_4.forge.stage.executions.words.decode.success.i-1",
            "ml-prod.labels.1_4.http.requests.a.b.i-1",
        ),
        ("{name}", "forge.stage.executions", "http.requests"),
    ],
)
def test_templates(template: str, ours: str, others: str) -> None:
    settings = {**PLAIN, "name_template": template, "resource": RESOURCE}
    assert line(EXECUTED | {"forge.pipeline.name": "words"}, **settings) == ours
    assert line({"a": "b"}, name="http.requests", **settings) == others


def test_a_template_without_tags_in_the_name() -> None:
    """It is a prefix there."""
    assert line({"a": "b"}, name="n", name_template="ml.{service}.{name}.{tags}") == "ml._.n|#a:b"
    assert line({"a": "b"}, name="n", name_template="ml.{name}.{tags}", dimensions="drop") == "ml.n"


def test_gauges_have_the_process_in_the_name_or_are_not_sent() -> None:
    sent = request(gauge("depth", (1, {})), resource=RESOURCE)
    assert Encoder(StatsDSettings(**PLAIN)).encode(sent).packets == []
    assert Encoder(StatsDSettings(**PLAIN, name_template="{name}.{instance}")).encode(sent).packets == [
        b"depth.i-1:1|g"
    ]


def test_letters_of_other_alphabets_stay_apart() -> None:
    stages = {"größe", "保存", "デコード"}
    in_tags = {line({"forge.stage.name": stage}) for stage in stages}
    assert in_tags == {f"forge.stage.executions|#stage:{stage}" for stage in stages}
    assert line({"forge.stage.name": "größe"}, **PLAIN) == "forge.stage.executions._.gr_u00f6_u00dfe._"
    assert len({line({"forge.stage.name": stage}, **PLAIN) for stage in stages}) == 3
    assert tags({"größe": "保存"}, **TAGGED) == "gr_u00f6_u00dfe:_u4fdd_u5b58"


def test_what_does_not_begin_with_a_letter() -> None:
    assert line({"2nd": "x", "_a": "-"}, name="9 lives") == "x9_lives|#x2nd:x,x_a:-"
    assert line({}, name="...", **PLAIN) == "_"


def test_long_names_and_tags_are_cut() -> None:
    name, found = line({"k" * 300: "v" * 300}, name="n" * 300).split("|#")
    assert name == "n" * 194
    assert found == f"{'k' * 100}:{'v' * 99}"


VALUE = st.sampled_from(["", "decode", "success", "_", "a", "words"])


@pytest.mark.slow
@given(
    metric=st.sampled_from(sorted(NAMES)),
    values=st.lists(st.tuples(*[VALUE] * 7), min_size=2, max_size=4, unique=True),
    settings=st.sampled_from([{}, PLAIN, TAGGED, {"dimensions": "name"}]),
)
def test_different_series_have_different_names(
    metric: str, values: list[tuple[str, ...]], settings: dict[str, Any]
) -> None:
    """Also where attributes are absent, or have the value of another one."""
    keys = NAMES[metric].tags.values()
    series = {tuple(zip(keys, each, strict=False)) for each in values}
    for one, other in combinations(series, 2):
        assert line(dict(one), name=metric, **settings) != line(dict(other), name=metric, **settings)


@pytest.mark.parametrize("settings", [{}, PLAIN, TAGGED, {"dimensions": "name"}])
def test_pipelines_with_a_stage_of_the_same_name_stay_apart(settings: dict[str, Any]) -> None:
    for metric, form in NAMES.items():
        shared = {key: "x" for tag, key in form.tags.items() if tag != "pipeline"}
        names = {line(shared | {"forge.pipeline.name": name}, name=metric, **settings) for name in ("a", "b")}
        assert len(names) == 2, metric


def test_the_documented_lines() -> None:
    page = (Path(__file__).parents[3] / "docs" / "statsd.md").read_text()
    tagged, plain = re.findall(r"```text\n(forge\.stage.+?)\n```", page, re.DOTALL)
    resource = {"service.name": "labels", "deployment.environment.name": "prod", "service.instance.id": "0b2f"}
    stage = {"forge.pipeline.name": "annotation", "forge.stage.name": "decode"}
    sent = request(
        counter("forge.stage.executions", (12, stage | {"forge.stage.outcome": "success"})),
        histogram("forge.stage.duration", measured([0.03125], [0.05], stage), unit="s"),
        gauge("forge.stage.active", (4, stage)),
        resource=resource,
    )

    def lines(**settings: Any) -> list[str]:
        return Encoder(StatsDSettings(**settings)).encode(sent).packets[0].decode().split("\n")

    assert sorted(lines(tags="team:ml")) == sorted(tagged.split("\n"))
    assert lines(**PLAIN) == plain.split("\n")


GOOD = [
    "forge.stage.executions:12|c|#stage:decode,outcome:success",
    "a:-2.5|g|#x",
    "a:1|h|@0.5|#x:y:z,ü:ß",
    "a:0.25|d",
]
BAD = [
    *("", "a", "a:", "a:1", "a:1|", "a:1|x", ":1|c", "1a:1|c", "a-b:1|c", "a b:1|c", "ä:1|c", f"{'a' * 201}:1|c"),
    *("a:x|c", "a:1e3|c", "a:nan|c", "a:+1|c", "a:01|c", "a:1:2|c", "a:1|c|@2", "a:1|c|@0", "a:1|g|@0.5", "a:1|c|@x"),
    *("a:1|c|#", "a:1|c|#1", "a:1|c|#x:", "a:1|c|#x,,y", "a:1|c|#x:1,x:2", "a:1|c|#x y", "a:1|c|#x|@0.5", "a:1|c|x"),
    f"a:1|c|#x:{'y' * 199}",
]
GOOD_FOR_ETSY = ["a.b-c_d:12|c", "a:1|ms|@0.5", "a:0|g\na:-1|g", "a:1|c|#x:y,z:1.5"]
BAD_FOR_ETSY = [
    *("", "a", "a:1", "a..b:1|c", ".a:1|c", "a/b:1|c", "a b:1|c", "ä:1|c", "a:1|h", "a:1|d", "a:1|s", "a:1:2|c"),
    *("a:-1|ms", "a:-1|g", "a:0|g\nb:-1|g", "a:1|g|@0.5", "a:1|c|@2", "a:1|c|#x", "a:1|c|#x:y:z", "a:1|c|#x:y/z"),
    *("a:1|c|#x:ü", "a:1|c|#", "a:1|c|#x:1,x:2", "a:1e3|c"),
]


@pytest.mark.parametrize(("flavor", "good", "bad"), [("dogstatsd", GOOD, BAD), ("statsd", GOOD_FOR_ETSY, BAD_FOR_ETSY)])
def test_the_grammars_of_these_tests(flavor: str, good: list[str], bad: list[str]) -> None:
    for text in good:
        read([text.encode()], flavor)
    for text in bad:
        with pytest.raises(ValueError, match=r": '"):
            read([text.encode()], flavor)
