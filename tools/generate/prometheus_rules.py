"""Prometheus' recording and alerting rules."""

from __future__ import annotations

from typing import Any, Final

import yaml

from forge_otel.checker.model import Registry

from . import alerts, recordings
from .alerts import Alert
from .constants import HEADER
from .recordings import Recording

FOLDER: Final = "collector-config/prometheus/rules"
RUNBOOKS: Final = "https://forge-otel.dev/docs/runbooks"
"""The URL of the published pages of `docs/runbooks`."""


def files(registry: Registry) -> dict[str, str]:  # noqa: ARG001 - the common signature of generators
    """Return the rule files."""
    groups = {
        "recording": {"name": "forge.recording", "rules": [_recording(rule) for rule in recordings.ALL]},
        "alerting": {"name": "forge.alerting", "rules": [_alert(rule) for rule in alerts.ALL]},
    }
    return {f"{FOLDER}/{name}.yaml": HEADER + _yaml({"groups": [group]}) for name, group in groups.items()}


def _recording(rule: Recording) -> dict[str, Any]:
    return {"record": rule.name, "expr": str(rule.expression)}


def _alert(rule: Alert) -> dict[str, Any]:
    return {
        "alert": rule.name,
        "expr": str(rule.expression),
        **({"for": rule.wait} if rule.wait else {}),
        "labels": {"severity": rule.severity},
        "annotations": {
            "summary": rule.summary,
            "description": rule.description,
            "runbook_url": f"{RUNBOOKS}/{rule.runbook}.html",
        },
    }


class _Dumper(yaml.SafeDumper):
    """Writes multi-line texts as literal blocks."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _yaml(document: Any) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
