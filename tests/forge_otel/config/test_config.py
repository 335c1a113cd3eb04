"""The configuration and where it comes from."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from forge_otel import ForgeConfig
from forge_otel.config.config import OPT_IN, FileEntries

EVERYTHING = frozenset({"runner", "stage", "measurement", "storage", "datatrove", "ray_data"})
NAMES = "runner, stage, measurement, storage, datatrove, ray_data"


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="forge_otel")
    return caplog


def test_defaults() -> None:
    assert ForgeConfig() == ForgeConfig(
        components=EVERYTHING,
        events="default",
        exceptions="logs",
        trace_per_sample=False,
        parent_from_environment=False,
        sampling_rate=1.0,
        slow_threshold=None,
        span_budget=10_000,
        event_budget=1_000,
        zero_points=True,
        zero_point_timeout=1.0,
        on_run_start=None,
        on_run_end=None,
        on_stage_start=None,
        on_stage_end=None,
        on_measurement_start=None,
        on_measurement_end=None,
    )
    assert ForgeConfig.from_environment({}) == ForgeConfig()


def test_components_may_be_any_collection() -> None:
    components: Any = ["stage", "runner", "stage"]
    assert ForgeConfig(components=components).components == frozenset({"runner", "stage"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"components": ["stages"]},
            f"components=['stages']: it must be a collection of one or more of {NAMES}",
        ),
        (
            {"components": "stage"},
            f"components='stage': it must be a collection of one or more of {NAMES}",
        ),
        (
            {"components": []},
            f"components=[]: it must be a collection of one or more of {NAMES}",
        ),
        (
            {"components": [["stage"]]},
            f"components=[['stage']]: it must be a collection of one or more of {NAMES}",
        ),
        (
            {"components": None},
            f"components=None: it must be a collection of one or more of {NAMES}",
        ),
        (
            {"exceptions": "spans"},
            "exceptions='spans': it must be one of logs, span_events, both",
        ),
        ({"events": "some"}, "events='some': it must be one of default, all, none"),
        ({"events": ["all"]}, "events=['all']: it must be one of default, all, none"),
        ({"trace_per_sample": "yes"}, "trace_per_sample='yes': it must be true or false"),
        ({"zero_points": 1}, "zero_points=1: it must be true or false"),
        ({"zero_point_timeout": -1}, "zero_point_timeout=-1: it must be a number of seconds from 0 to 4000000"),
        (
            {"zero_point_timeout": float("nan")},
            "zero_point_timeout=nan: it must be a number of seconds from 0 to 4000000",
        ),
        ({"zero_point_timeout": True}, "zero_point_timeout=True: it must be a number of seconds from 0 to 4000000"),
        ({"sampling_rate": 1.5}, "sampling_rate=1.5: it must be a number from 0 to 1"),
        ({"sampling_rate": "all"}, "sampling_rate='all': it must be a number from 0 to 1"),
        ({"sampling_rate": True}, "sampling_rate=True: it must be a number from 0 to 1"),
        ({"slow_threshold": -1}, "slow_threshold=-1: it must be a number of seconds from 0 to 4000000, or auto"),
        ({"slow_threshold": "p99"}, "slow_threshold='p99': it must be a number of seconds from 0 to 4000000, or auto"),
        (
            {"zero_point_timeout": 1e10},
            "zero_point_timeout=10000000000.0: it must be a number of seconds from 0 to 4000000",
        ),
        (
            {"slow_threshold": 10**400},
            f"slow_threshold={10**400}: it must be a number of seconds from 0 to 4000000, or auto",
        ),
        ({"span_budget": 2**63}, "span_budget=9223372036854775808: it must be a whole number from 0 to 1000000000"),
        ({"span_budget": -1}, "span_budget=-1: it must be a whole number from 0 to 1000000000"),
        ({"span_budget": 1.5}, "span_budget=1.5: it must be a whole number from 0 to 1000000000"),
        ({"event_budget": True}, "event_budget=True: it must be a whole number from 0 to 1000000000"),
        ({"on_stage_end": "print"}, "on_stage_end='print': it must be a function"),
    ],
)
def test_a_bad_value_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole message is compared
        ForgeConfig(**settings)
    assert str(raised.value) == message


def test_every_variable() -> None:
    assert ForgeConfig.from_environment(
        {
            "FORGE_OTEL_COMPONENTS": "runner, stage",
            "FORGE_OTEL_EVENTS": "All",
            "FORGE_OTEL_EXCEPTIONS": "Span_Events",
            "FORGE_OTEL_TRACE_PER_SAMPLE": "TRUE",
            "FORGE_OTEL_ZERO_POINTS": "false",
            "FORGE_OTEL_ZERO_POINT_TIMEOUT": "0.25",
            "FORGE_OTEL_SAMPLING_RATE": "0.01",
            "FORGE_OTEL_SLOW_THRESHOLD": "2.5",
            "FORGE_OTEL_SPAN_BUDGET": "500",
            "FORGE_OTEL_EVENT_BUDGET": "0",
            "FORGE_OTEL_SDK_FAST_PATHS": "off",
            "OTEL_SERVICE_NAME": "not ours",
            "FORGE_OTEL_RAISE_FAULTS": "0",
        }
    ) == ForgeConfig(
        components=frozenset({"runner", "stage"}),
        events="all",
        exceptions="span_events",
        trace_per_sample=True,
        zero_points=False,
        zero_point_timeout=0.25,
        sampling_rate=0.01,
        slow_threshold=2.5,
        span_budget=500,
        event_budget=0,
    )
    assert ForgeConfig.from_environment({"FORGE_OTEL_SLOW_THRESHOLD": "Auto"}).slow_threshold == "auto"


@pytest.mark.parametrize(
    ("environ", "exceptions"),
    [
        ({}, "logs"),
        ({OPT_IN: "logs"}, "logs"),
        ({OPT_IN: " Logs/Dup "}, "both"),
        ({OPT_IN: ""}, "logs"),
        ({OPT_IN: "spans"}, "logs"),
        ({OPT_IN: "logs/dup", "FORGE_OTEL_EXCEPTIONS": "span_events"}, "span_events"),
        ({OPT_IN: "logs/dup", "FORGE_OTEL_EXCEPTIONS": "logs"}, "logs"),
        ({OPT_IN: "logs/dup", "FORGE_OTEL_EXCEPTIONS": " "}, "both"),
    ],
)
def test_the_signal_of_exceptions_may_be_that_of_opentelemetry(
    environ: dict[str, str], exceptions: str, warnings: pytest.LogCaptureFixture
) -> None:
    assert ForgeConfig.from_environment(environ).exceptions == exceptions
    assert warnings.messages == []


def test_an_empty_variable_is_not_set(warnings: pytest.LogCaptureFixture) -> None:
    empty = {"FORGE_OTEL_COMPONENTS": "", "FORGE_OTEL_EVENTS": " ", "FORGE_OTEL_TRACE_PER_SAMPLE": ""}
    assert ForgeConfig.from_environment(empty) == ForgeConfig()
    assert warnings.messages == []


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        (
            "FORGE_OTEL_COMPONENTS",
            "stage,stages",
            (f"FORGE_OTEL_COMPONENTS='stage,stages' is ignored: it must be a collection of one or more of {NAMES}"),
        ),
        ("FORGE_OTEL_EVENTS", "some", "FORGE_OTEL_EVENTS='some' is ignored: it must be one of default, all, none"),
        (
            "FORGE_OTEL_TRACE_PER_SAMPLE",
            "1",
            "FORGE_OTEL_TRACE_PER_SAMPLE='1' is ignored: it must be true or false",
        ),
        (
            "FORGE_OTEL_ZERO_POINT_TIMEOUT",
            "soon",
            "FORGE_OTEL_ZERO_POINT_TIMEOUT='soon' is ignored: it must be a number of seconds from 0 to 4000000",
        ),
        (
            "FORGE_OTEL_EVENT",
            "all",
            "FORGE_OTEL_EVENT='all' is ignored: there is no such setting; did you mean events?",
        ),
        (
            "FORGE_OTEL_ON_STAGE_END",
            "print",
            (
                "FORGE_OTEL_ON_STAGE_END='print' is ignored: there is no such setting; "
                "there are components, events, exceptions, trace_per_sample, parent_from_environment, sampling_rate, "
                "slow_threshold, span_budget, event_budget, zero_points, zero_point_timeout, shutdown_timeout"
            ),
        ),
    ],
)
def test_a_bad_variable_is_logged_and_the_default_used(
    variable: str, text: str, message: str, warnings: pytest.LogCaptureFixture
) -> None:
    environ = {variable: text, "FORGE_OTEL_ZERO_POINTS": "false"}

    assert ForgeConfig.from_environment(environ) == ForgeConfig(zero_points=False)

    assert [(record.levelname, record.getMessage()) for record in warnings.records] == [("WARNING", message)]


def test_settings_replace_fields() -> None:
    config = ForgeConfig(events="all", zero_points=False)

    assert config.with_settings({"events": "none", "components": ["stage"]}) == ForgeConfig(
        events="none", zero_points=False, components=frozenset({"stage"})
    )
    assert config.with_settings({}) == config


def test_a_setting_that_does_not_exist_is_named() -> None:
    with pytest.raises(TypeError, match=r"^there is no setting 'event'; there are components, events, "):
        ForgeConfig().with_settings({"event": "all"})


def test_file_entries(warnings: pytest.LogCaptureFixture) -> None:
    entries = FileEntries(
        components=["runner"], events="all", trace_per_sample=True, zero_points="false", zero_point_timeout=2
    )

    assert vars(entries) == {
        "components": frozenset({"runner"}),
        "events": "all",
        "trace_per_sample": True,
        "zero_points": False,
        "zero_point_timeout": 2.0,
    }
    assert warnings.messages == []


def test_bad_file_entries_are_logged_and_left_out(warnings: pytest.LogCaptureFixture) -> None:
    entries = FileEntries(events="some", trace_per_sample=None, zero_points=False, sampling="all", on_run_end="print")

    assert vars(entries) == {"zero_points": False}
    assert entries.events is None
    known = (
        "there are components, events, exceptions, trace_per_sample, parent_from_environment, sampling_rate, "
        "slow_threshold, span_budget, event_budget, zero_points, zero_point_timeout, shutdown_timeout"
    )
    meant = "there is no such setting; did you mean sampling_rate?"
    assert warnings.messages == [
        "events: 'some' of forge in the configuration file is ignored: it must be one of default, all, none",
        f"sampling: 'all' of forge in the configuration file is ignored: {meant}",
        f"on_run_end: 'print' of forge in the configuration file is ignored: there is no such setting; {known}",
    ]


def test_every_setting_but_the_hooks_can_be_in_a_file() -> None:
    settings = set(ForgeConfig.__dataclass_fields__)
    assert settings - set(FileEntries.__dataclass_fields__) == {name for name in settings if name.startswith("on_")}
