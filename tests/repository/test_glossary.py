"""The glossary: names what there is, and is linked where its words are used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import forge
import forge.runner
import forge.storage
from forge_otel.semconv import attributes, events, metrics, spans

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GLOSSARY = DOCS / "glossary.md"
HOUSE_WORDS = re.compile(
    r"\b(settle[sd]?|dead letters?|tail-kept|deferred spans?|held up|derived|seams?|(fast|slow) path)\b", re.IGNORECASE
)
APART = ("docs/reference", "docs/adr/0", "docs/performance.md", "docs/glossary.md")
"""Pages that are generated, and records, which are not rewritten."""
PAGES = [
    page
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
    if not page.relative_to(ROOT).as_posix().startswith(APART)
]


def rows() -> list[list[str]]:
    """The word, the meaning and the places of each row."""
    found = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \| (.+) \|$", GLOSSARY.read_text(), re.MULTILINE)
    return [list(row) for row in found]


def test_words_are_explained_once_in_a_sentence_or_two() -> None:
    words = [word for word, _, _ in rows()]
    assert len(set(words)) == len(words)
    assert {"settled", "held up", "used", "use", "admitted", "derived", "split", "unchanged"} <= set(words)
    assert {"dead letter", "tail-kept", "deferred span", "fast path", "light span", "scope", "step"} <= set(words)
    for word, meaning, _ in rows():
        assert meaning[0].isupper(), word
        assert meaning.endswith("."), word
        assert 1 <= len(re.findall(r"[.](?: |$)", meaning)) <= 3, word


def test_names_are_those_that_there_are() -> None:
    known = {each.name for each in (*metrics.ALL, *events.ALL)} | {span.type for span in spans.ALL}
    known |= {value for value in vars(attributes).values() if isinstance(value, str)}
    named = re.findall(r"`(forge\.[\w.]+\w)(\.\*)?`", GLOSSARY.read_text())
    assert len(named) > 20
    assert [name for name, rest in named if not (rest or name in known)] == []


def test_fields_are_those_that_there_are() -> None:
    for owner, field in re.findall(r"`([A-Z]\w+)\.(\w+)`", GLOSSARY.read_text()):
        classes = [getattr(module, owner) for module in (forge, forge.runner, forge.storage) if owner in dir(module)]
        assert classes, owner
        assert any(field in {*dir(found), *getattr(found, "__annotations__", {})} for found in classes), (owner, field)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_that_use_its_words_link_to_it(page: Path) -> None:
    text = page.read_text()
    assert not HOUSE_WORDS.search(text) or "glossary" in text
