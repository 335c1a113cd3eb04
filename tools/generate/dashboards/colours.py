"""Colours with the same meaning on all dashboards."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models import dashboard as models

from forge_otel.semconv.attributes import (
    ForgeCostUse,
    ForgeMeasurementOutcome,
    ForgeRunOutcome,
    ForgeSampleOutcome,
    ForgeStageOutcome,
    ForgeStorageWriteResult,
)

GREEN = "green"
BLUE = "blue"
LIGHT_BLUE = "super-light-blue"
PURPLE = "purple"
YELLOW = "yellow"
ORANGE = "orange"
RED = "red"
GREY = "#8e8e8e"

OUTCOMES: dict[str, str] = {
    ForgeRunOutcome.COMPLETED: GREEN,
    ForgeRunOutcome.FAILED: RED,
    ForgeRunOutcome.CANCELLED: GREY,
    ForgeSampleOutcome.READY: GREEN,
    ForgeSampleOutcome.SKIPPED: BLUE,
    ForgeSampleOutcome.UNCHANGED: LIGHT_BLUE,
    ForgeSampleOutcome.SPLIT: PURPLE,
    ForgeSampleOutcome.DLQ: ORANGE,
    ForgeSampleOutcome.FAILED: RED,
    ForgeStageOutcome.SUCCESS: GREEN,
    ForgeStageOutcome.SKIP: BLUE,
    ForgeStageOutcome.ERROR: RED,
    ForgeStageOutcome.CANCELLED: GREY,
    ForgeMeasurementOutcome.COMPUTED: GREEN,
    ForgeMeasurementOutcome.CACHED: LIGHT_BLUE,
    ForgeMeasurementOutcome.ERROR: RED,
    ForgeStorageWriteResult.INSERTED: GREEN,
    ForgeStorageWriteResult.UPDATED: PURPLE,
    ForgeStorageWriteResult.UNCHANGED: LIGHT_BLUE,
    ForgeCostUse.USEFUL: GREEN,
    ForgeCostUse.SKIPPED: BLUE,
    ForgeCostUse.FAILED: RED,
    ForgeCostUse.RETRIED: YELLOW,
    ForgeCostUse.REPEATED: PURPLE,
}


def fixed(colour: str) -> models.DynamicConfigValue:
    """Return the property for a fixed colour of a series."""
    return models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})


def mappings(outcomes: Iterable[StrEnum]) -> list[models.ValueMapping]:
    """Return the mappings from outcomes to colours, for tables."""
    results = {
        outcome.value: models.ValueMappingResult(color=OUTCOMES[outcome], index=index)
        for index, outcome in enumerate(outcomes)
    }
    return [models.ValueMap(results)]


def thresholds(base: str, *steps: tuple[float, str]) -> ThresholdsConfig:
    """Return a base colour, and further colours from the given values on."""
    return (
        ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(None, base), *(models.Threshold(value, colour) for value, colour in steps)])
    )


SUCCESSES = ((0.9, YELLOW), (0.99, GREEN))
"""Steps for a ratio of successes, above red."""
FAILURES = ((0.01, YELLOW), (0.05, RED))
"""Steps for a ratio of errors, above green; the last one is the threshold of the alert."""
LETTERS = ((0.01, YELLOW), (0.1, RED))
"""Steps for the ratio of dead letters."""
WASTE = ((0.2, YELLOW), (0.5, RED))
"""Steps for the ratio of wasted costs."""
