"""Prometheus' recording and alerting rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import yaml

from forge_otel.checker.model import Registry

from . import RULE_TESTS, alerts, links, recordings
from .alerts import Alert
from .constants import HEADER
from .recordings import Recording
from .versions import site

FOLDER: Final = "collector-config/prometheus/rules"


def files(registry: Registry) -> dict[str, str]:
    """Return the rule files."""
    groups = {
        "recording": {"name": "forge.recording", "rules": [_recording(rule) for rule in recordings.ALL]},
        "alerting": {"name": "forge.alerting", "rules": [_alert(rule, site(registry)) for rule in alerts.ALL]},
    }
    return {f"{FOLDER}/{name}.yaml": HEADER + _yaml({"groups": [group]}) for name, group in groups.items()}


def test_files(root: Path, registry: Registry) -> dict[str, str]:
    """Return the tests of the rules, with the URLs of runbooks on the registry's site."""
    found = {}
    for file in sorted((root / RULE_TESTS).glob("*.yaml")):
        text = re.sub(
            r"(runbook_url: )\S+(/runbooks/)", rf"\g<1>{site(registry)}\g<2>", file.read_text(encoding="utf-8")
        )
        found[f"{RULE_TESTS}/{file.name}"] = text
    return found


def _recording(rule: Recording) -> dict[str, Any]:
    return {"record": rule.name, "expr": str(rule.expression)}


def _alert(rule: Alert, url: str) -> dict[str, Any]:
    return {
        "alert": rule.name,
        "expr": str(rule.expression),
        **({"for": rule.wait} if rule.wait else {}),
        "labels": {"severity": rule.severity},
        "annotations": {
            "summary": rule.summary,
            "description": rule.description,
            "runbook_url": f"{url}/runbooks/{rule.runbook}.html",
            **(links.in_alert(rule.evidence) if rule.evidence else {}),
        },
    }


class _Dumper(yaml.SafeDumper):
    """Writes multi-line texts as literal blocks."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _yaml(document: Any) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
