"""The Python modules of `forge_otel.semconv`: constants and definitions of all names."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from textwrap import fill

from forge_otel.checker import prometheus_names
from forge_otel.checker.model import Attribute, Definition, Event, Metric, Registry, Span
from forge_otel.semconv import attributes as a

FOLDER = "src/forge_otel/semconv"
WIDTH = 120
HEADER = "# Generated from registry/*.yaml by `make generate`. Do not edit.\n"


def files(registry: Registry) -> dict[str, str]:
    """Return the modules of `forge_otel.semconv`."""
    modules = {
        "__init__": _package(registry),
        "attributes": _attributes(registry),
        "spans": _spans(registry.spans.values()),
        "metrics": _metrics(registry.metrics.values()),
        "events": _events(registry.events.values()),
        "statsd": _statsd(registry.metrics.values()),
    }
    return {f"{FOLDER}/{module}.py": _formatted(HEADER + text) for module, text in modules.items()}


def constant(name: str) -> str:
    """Return the name of the constant for a name."""
    return name.upper().replace(".", "_")


def _package(registry: Registry) -> str:
    return f'''
"""Semantic conventions of Forge: the names of all attributes, metrics, events and spans."""

from typing import Final

VERSION: Final = "{registry.version}"
"""The version of the conventions; it changes when a name, unit or meaning does."""

SCHEMA_URL: Final = "{registry.schema_url}"
"""The schema URL of the tracer, the meter and the logger, which identifies this version of the names."""
'''


def _attributes(registry: Registry) -> str:
    upstream = sorted(registry.upstream.values(), key=lambda attribute: attribute.key)
    stable = [attribute for attribute in upstream if _stable_module(attribute)]
    modules = sorted({_stable_module(attribute) for attribute in stable})
    own = [_attribute(attribute) for attribute in registry.attributes.values()]
    return "\n".join(
        [
            '\n"""Attributes, and the values of those that are enumerations."""\n',
            "from enum import StrEnum",
            "from typing import Final",
            f"\nfrom opentelemetry.semconv.attributes import {', '.join(modules)}\n" if modules else "",
            *(_upstream(attribute, f"{_stable_module(attribute)}.{constant(attribute.key)}") for attribute in stable),
            "# Not stable upstream: OpenTelemetry asks libraries to copy such names instead of importing them.\n",
            *(_upstream(attribute, f'"{attribute.key}"') for attribute in upstream if attribute not in stable),
            *own,
        ]
    )


def _stable_module(attribute: Attribute) -> str:
    """Return the module of the official package with a stable attribute, or an empty string."""
    module = f"{attribute.key.partition('.')[0]}_attributes"
    try:
        found = importlib.import_module(f"opentelemetry.semconv.attributes.{module}")
    except ModuleNotFoundError:
        return ""
    return module if hasattr(found, constant(attribute.key)) else ""


def _upstream(attribute: Attribute, value: str) -> str:
    brief = attribute.brief or "Defined by OpenTelemetry."
    return f"{constant(attribute.key)}: Final = {value}\n{_docstring(brief)}\n"


def _attribute(attribute: Attribute) -> str:
    name = constant(attribute.key)
    kind = _class_name(attribute) if attribute.members else attribute.type
    facts = f"Type: `{kind}`."
    if attribute.unit:
        facts += f" Unit: `{attribute.unit}`."
    if attribute.examples:
        facts += f" Examples: {', '.join(f'`{example}`' for example in attribute.examples)}."
    text = f'{name}: Final = "{attribute.key}"\n{_docstring(_described(attribute), facts)}\n'
    if attribute.members:
        text += f'\n\nclass {_class_name(attribute)}(StrEnum):\n    """Values of `{attribute.key}`."""\n\n'
        for member in attribute.members:
            text += f'    {member.id.upper()} = "{member.value}"\n{_docstring(member.brief, indent="    ")}\n'
        text += "\n"
    return text


def _class_name(attribute: Attribute) -> str:
    return "".join(word.capitalize() for word in re.split(r"[._]", attribute.key))


def _spans(spans: Iterable[Span]) -> str:
    text = '''
"""Spans."""

from typing import Final

from opentelemetry.trace import SpanKind

from . import attributes as a
from .definitions import Span
'''
    for span in spans:
        start = [reference.attribute.key for reference in span.attributes if reference.sampling_relevant]
        in_name = re.findall(r"\{([a-z._0-9]+)\}", span.name)
        arguments = [f'"{span.type}"', f"SpanKind.{span.kind.upper()}", _string(span.brief), _keys(start)]
        if in_name:
            arguments.append(_keys(in_name))
        text += f"\n{constant(span.type)}: Final = Span({', '.join(arguments)})\n{_docstring(_described(span))}\n"
    return text + _all(span.type for span in spans)


def _metrics(metrics: Iterable[Metric]) -> str:
    text = '''
"""Metrics."""

from typing import Final

from . import attributes as a
from .definitions import Instrument, Metric
'''
    for metric in metrics:
        arguments = [
            f'"{metric.name}"',
            f"Instrument.{metric.instrument.upper()}",
            f'"{metric.unit}"',
            _string(metric.brief),
            _keys(reference.attribute.key for reference in metric.attributes),
        ]
        if metric.observable:
            arguments.append("observable=True")
        if metric.boundaries:
            arguments.append(f"boundaries=({', '.join(f'{bound!r}' for bound in metric.boundaries)})")
        elsewhere = f"In Prometheus `{prometheus_names.name(metric)}`"
        if metric.statsd:
            elsewhere += f", in StatsD `{metric.statsd.name}`"
        text += f"\n{constant(metric.name)}: Final = Metric({', '.join(arguments)})\n"
        text += _docstring(_described(metric), f"{elsewhere}.") + "\n"
    return text + _all(metric.name for metric in metrics)


def _events(events: Iterable[Event]) -> str:
    text = '''
"""Events: log records that have an event name."""

from typing import Final

from opentelemetry._logs import SeverityNumber

from .definitions import Event
'''
    for event in events:
        arguments = [f'"{event.name}"', f"SeverityNumber.{event.severity}", _string(event.brief)]
        if not event.default:
            arguments.append("default=False")
        if any(reference.attribute.key == a.FORGE_DURATION for reference in event.attributes):
            arguments.append("timed=True")
        body = event.annotations.get("body")
        format_ = f"Body: `{body}`." if body else ""
        text += f"\n{constant(event.name)}: Final = Event({', '.join(arguments)})\n"
        text += _docstring(_described(event), format_) + "\n"
    return text + _all(event.name for event in events)


def _statsd(metrics: Iterable[Metric]) -> str:
    text = '''
"""Names of metrics in StatsD. Metrics without an entry are not sent to StatsD."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from . import attributes as a
from . import metrics as m
from .definitions import StatsD

NAMES: Final[Mapping[str, StatsD]] = MappingProxyType({
'''
    for metric in metrics:
        if metric.statsd is None:
            continue
        tags = ", ".join(f'"{tag}": a.{constant(key)}' for tag, key in metric.statsd.tags.items())
        scale = ", factor=1000" if metric.statsd.unit == "ms" else ""
        text += f'    m.{constant(metric.name)}.name: StatsD("{metric.statsd.name}", "{metric.statsd.type}", '
        text += f"{{{tags}}}{scale}),\n"
    return text + '})\n"""StatsD forms, by name of the metric."""\n'


def _all(names: Iterable[str]) -> str:
    return f"\nALL: Final = ({' '.join(f'{constant(name)},' for name in names)})\n"


def _keys(keys: Iterable[str]) -> str:
    names = [f"a.{constant(key)}" for key in keys]
    return f"({names[0]},)" if len(names) == 1 else f"({', '.join(names)})"


def _described(definition: Definition) -> str:
    return f"{definition.brief} {definition.note}".strip()


def _string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _docstring(*paragraphs: str, indent: str = "") -> str:
    """Return a docstring with its first sentence on the first line."""
    first, *more = [paragraph for paragraph in paragraphs if paragraph]
    first = first.replace("\\", "\\\\")
    if not more and len(indent) + len(first) + 6 <= WIDTH:
        return f'{indent}"""{first}"""'
    text = "\n\n".join(
        fill(paragraph, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False)
        for paragraph in (f'"""{first}', *more)
    )
    return f'{text}\n{indent}"""'


def _formatted(code: str) -> str:
    """Return code in the project's format."""
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff is None:
        raise ModuleNotFoundError("ruff is not installed", name="ruff")
    command = [ruff, "format", f"--config=line-length = {WIDTH}", "--isolated", "--stdin-filename=generated.py", "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True, check=True)
    return done.stdout
