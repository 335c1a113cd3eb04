"""The API of a Prometheus."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen


class Prometheus:
    """A server that runs; `otlp` is where it takes metrics."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.otlp = f"{url}/api/v1/otlp/v1/metrics"

    def ask(self, what: str, **parameters: str) -> Any:
        """The answer of the API. Raises `AssertionError` with Prometheus' own words if it refuses."""
        try:
            with urlopen(f"{self.url}/api/v1/{what}?{urlencode(parameters)}") as response:
                return json.load(response)["data"]
        except HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def query(self, expression: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The values of an expression now, by the values of these labels, of which the result has no others."""
        found = {}
        for series in self.ask("query", query=expression)["result"]:
            names = set(series["metric"]) - ({"__name__"} - set(labels))
            assert names <= set(labels), f"{expression} has {names}"
            found[tuple(series["metric"].get(label, "") for label in labels)] = float(series["value"][1])
        return found
