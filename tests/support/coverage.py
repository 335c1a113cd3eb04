"""A look at what all tests together emitted, after the last of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from forge_otel.checker.verification import Element

from . import vocabulary

if TYPE_CHECKING:
    from pathlib import Path

_KEY = "vocabulary"


class Coverage:
    """Plug-in of pytest: a run of all tests fails unless they emitted all of the vocabulary.

    Each worker of pytest-xdist sees a part of what is emitted, and hands it to the process that has started it.
    """

    def __init__(self, tests: Path) -> None:
        self.tests = tests
        self.deselected = False
        self.files: set[str] = set()
        """Those with tests that were to be run."""
        self.findings: list[str] = []

    def pytest_deselected(self) -> None:
        self.deselected = True

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if not self.deselected:
            self.files = {str(item.path) for item in session.items}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        seen, self.files = getattr(node, "workeroutput", {}).get(_KEY, ([], set()))
        vocabulary.SEEN.update(Element(*each) for each in seen)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[_KEY] = [tuple(each) for each in vocabulary.SEEN], self.files
        elif not session.testsfailed and self.files.issuperset(self._all_files()):
            unseen, seen = vocabulary.coverage()
            self.findings += [f"no test emits {each}" for each in unseen]
            self.findings += [f"a test emits {each}: take it out of NOT_YET" for each in seen]
            if self.findings:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.findings:
            terminalreporter.section("vocabulary", red=True)
            terminalreporter.write_line("\n".join(self.findings))

    def _all_files(self) -> set[str]:
        return {str(file) for file in self.tests.rglob("test_*.py") if self.tests / "stack" not in file.parents}
