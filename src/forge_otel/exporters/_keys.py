"""The names and tags of series in StatsD."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from ._points import Origin, StatsDSeries
from ._settings import StatsDSettings
from ._tags import ENTITY_ID, INSTANCE, MAX_TAG
from ._template import ABSENT, placeholders

_NOT_IN_NAMES: Final = {"dogstatsd": re.compile(r"[^A-Za-z0-9_.]+"), "statsd": re.compile(r"[^A-Za-z0-9_.-]+")}
"""Characters that a name cannot have, by flavor: Datadog and Etsy's daemon remove or replace them."""

_NOT_IN_TAGS: Final = {"dogstatsd": re.compile(r"[^\w./-]+"), "statsd": _NOT_IN_NAMES["statsd"]}
"""Characters that a tag cannot have, by flavor: they may end it, or the line."""

_NOT_IN_CONSTANTS: Final = {"dogstatsd": re.compile(r"[^\w./:-]+"), "statsd": _NOT_IN_NAMES["statsd"]}
"""Characters that the value of a constant tag cannot have. Datadog's agent reads colons, but other daemons may not."""

_OTHER_LETTER: Final = re.compile(r"(?![\x00-\x7f])\w")
_NO_LETTER: Final = re.compile(r"[\W\d_]")

_MAX_NAME: Final = MAX_TAG - len(".count")
"""Maximum length of a name in DogStatsD, without the suffix of a summary."""

_MAX_KEY: Final = 100
"""Maximum length in bytes of a tag's key."""


class StatsDKey(NamedTuple):
    """The parts of a line before and after its value."""

    name: str
    tags: str


class Keys:
    """Makes the keys of series.

    Constant tags win over those of the resource, as both describe this process. With `forwarding`, the resource
    describes another one, and wins.
    """

    def __init__(self, settings: StatsDSettings, *, forwarding: bool) -> None:
        self._settings = settings
        self._forwarding = forwarding
        self._dogstatsd = settings.flavor == "dogstatsd"
        self._template = settings.name_template
        self._separate = placeholders(self._template)
        self._constant = self._constant_tags()

    def key(self, series: StatsDSeries, gauge: bool) -> StatsDKey:
        """Return the key of a series."""
        common = self._common(series.origin)
        name = self._name(series, common)
        if self._settings.tag_placement != "tags":
            return StatsDKey(name, "")
        own = dict(self._tag(tag, value) for tag, value in series.tags if value)
        tags = own | common | own  # its own come first, and win
        if gauge and self._settings.instance_tag and series.origin.instance:
            tags |= [self._tag(INSTANCE, series.origin.instance)]
        texts = [f"{tag}:{value}" if value else tag for tag, value in tags.items()]
        return StatsDKey(name, f"|#{','.join(texts)}" if texts else "")

    def _name(self, series: StatsDSeries, common: Mapping[str, str]) -> str:
        placed = {tag: self._segment(common.get(tag, "")) for tag in ("service", "env", "version")}
        placed["instance"] = self._segment(series.origin.instance)
        placed["name"] = self._safe_name(series.name)
        placed["pipeline"] = self._segment(dict(series.tags).get("pipeline", "")) if series.registered else ""
        in_name = self._settings.tag_placement == "name"
        placed["tags"] = ".".join(self._tag_segments(series)) if in_name else ""
        # Without empty segments, such as those of placeholders that stand for nothing.
        name = ".".join(filter(None, self._template.format_map(placed).split("."))) or ABSENT
        if not self._dogstatsd:
            return name
        return (f"x{name}" if _NO_LETTER.match(name) else name)[:_MAX_NAME]

    def _tag_segments(self, series: StatsDSeries) -> Iterator[str]:
        for tag, value in series.tags:
            if not series.registered:
                # Its points may have different attributes: the keys tell which.
                yield self._segment(tag)
                yield self._segment(value)
            elif tag not in self._separate:
                yield self._segment(value)

    def _segment(self, value: str) -> str:
        if not value:
            return ABSENT
        segment = self._safe_name(value).replace(".", "_")
        return segment if segment != ABSENT else ABSENT * 2

    def _safe_name(self, text: str) -> str:
        return _safe(_OTHER_LETTER.sub(_code_point, text[:MAX_TAG]), _NOT_IN_NAMES[self._settings.flavor], MAX_TAG)

    def _common(self, origin: Origin) -> dict[str, str]:
        """Return the tags of all series of a process."""
        named = {"service": origin.service, "env": origin.env, "version": origin.version}
        of_resource = dict(self._tag(tag, value) for tag, value in named.items() if value)
        return self._constant | of_resource if self._forwarding else of_resource | self._constant

    def _constant_tags(self) -> dict[str, str]:
        settings = self._settings
        # A tag without a value exists in DogStatsD only.
        tags = {tag: value for tag, value in settings.tags if value or self._dogstatsd}
        named = {"service": settings.service, "env": settings.env, "version": settings.version}
        if self._dogstatsd:
            named[ENTITY_ID] = settings.entity_id
        tags |= {tag: value for tag, value in named.items() if value}
        return dict(self._tag(tag, value, constant=True) for tag, value in tags.items())

    def _tag(self, tag: str, value: str, *, constant: bool = False) -> tuple[str, str]:
        unsafe = _NOT_IN_TAGS[self._settings.flavor]
        key = _safe(self._ascii(tag), unsafe, _MAX_KEY)
        if _NO_LETTER.match(key):
            key = f"x{key}"
        if not value:
            return key, ""
        if constant:
            unsafe = _NOT_IN_CONSTANTS[self._settings.flavor]
        return key, _safe(self._ascii(value), unsafe, MAX_TAG - len(key.encode()) - 1).rstrip(":") or "_"

    def _ascii(self, text: str) -> str:
        """Return text with no letters that a tag of this flavor cannot have."""
        text = text[:MAX_TAG]
        return text if self._dogstatsd else _OTHER_LETTER.sub(_code_point, text)


def _safe(text: str, unsafe: re.Pattern[str], limit: int) -> str:
    return unsafe.sub("_", text).encode()[:limit].decode(errors="ignore") or "_"


def _code_point(letter: re.Match[str]) -> str:
    return f"_u{ord(letter[0]):04x}"
