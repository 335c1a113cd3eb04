"""Every code block of the README and of docs/ runs.

Python blocks of a page run one after the other in one process, in an empty folder. Shell blocks run in an empty folder,
too, with the tools of this environment on the PATH; those of `make` are run in the checkout.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from forge import ExitCode
from forge_otel.semconv import SCHEMA_URL

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECIPES = ROOT / "docs" / "recipes"
UNRUN = [ROOT / name for name in ("CHANGELOG.md", "RELEASING.md", "SECURITY.md", "changes/README.md")]
"""Pages whose links are checked, too; the commands of a release run in `test_repository.py`."""
BLOCK = re.compile(r"^```(\{?[\w-]*\}?)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KNOWN = {"diff", "dockerfile", "python", "sh", "yaml", "text", "promql", "{eval-rst}", "{toctree}"}


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a page in a language, to be run here. Many recipes need more than an empty folder: they have a test
    of their own in `tests/recipes`.
    """
    if page.parent == RECIPES and (ROOT / f"tests/recipes/test_{page.stem.replace('-', '_')}.py").exists():
        return []
    return [code for kind, code in BLOCK.findall(page.read_text()) if kind == language]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "FORGE_", "MAKE"))}
    return clean | {"PATH": path, "PYTHONWARNINGS": "error::ResourceWarning"}


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_python_blocks(page: Path, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("\n\n".join([*blocks(page, "python"), "open('end', 'w').close()"]))
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "end").exists(), "a block has ended the process: those after it have not run"


COMMANDS = [(page, code) for page in PAGES for code in blocks(page, "sh")]
LONG = "python -m benchmarks --quick"
"""Takes minutes; another block has one part of it."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "code"),
    [
        pytest.param(page, code, id=f"{page.name}-{index}", marks=[pytest.mark.soak] if LONG in code else [])
        for index, (page, code) in enumerate(COMMANDS)
    ],
)
def test_shell_blocks(page: Path, code: str, tmp_path: Path) -> None:
    # The tests cannot run themselves, nor install what they already run in, nor hooks in this repository, nor start
    # containers; `make stack-demo` has a test of its own.
    left_out = "test-fast|test|soak|coverage|lint|hooks|up|ready|stack-demo"
    code = re.sub(rf"^make ({left_out})\b.*$", r"make -n \1 >/dev/null", code, flags=re.MULTILINE)
    # Some of the demo's samples fail, which is not what is tested here.
    code = f'forge-otel() {{ command forge-otel "$@" || test "$1 $?" = "demo {ExitCode.SAMPLES_FAILED}"; }}\n{code}'
    code = re.sub(r"^(git clone|cd|pip install)\b.*$", "", code, flags=re.MULTILINE)
    in_checkout = "make" in code or "examples/" in code
    # A page's shell blocks use the scripts that its Python blocks show, by the name in their first line.
    for script in blocks(page, "python"):
        if name := re.match(r"# (\w+\.py)\n", script):
            (tmp_path / name.group(1)).write_text(script)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=ROOT if in_checkout else tmp_path,
        env=environment() | {"ARGS": f"--limit 40 --out {tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr


HAD_AT = {
    "forge-otel": "../install.md",
    "prometheus": "https://prometheus.io/download/",
    "otelcol-contrib": "https://github.com/open-telemetry/opentelemetry-collector-releases/releases",
}
"""Where programs and packages are had that no registry of packages has under these names."""


@pytest.mark.parametrize(
    "page", [page for page in sorted(RECIPES.glob("*.md")) if page.stem != "index"], ids=lambda page: page.stem
)
def test_recipes_say_where_their_programs_are_had(page: Path) -> None:
    text = page.read_text()
    lines = [line for kind, code in BLOCK.findall(text) if kind == "sh" for line in code.splitlines()]
    assert not [line for line in lines if line.startswith("pip install") and "forge-otel" in line]  # not on PyPI yet
    programs = {line.split()[0] for line in lines if line.strip()} & HAD_AT.keys()
    for program in {"forge-otel", *programs}:
        assert f"({HAD_AT[program]})" in text, program
    imported = {"logfire": "logfire", "traceloop": "traceloop-sdk", "openlit": "openlit"}
    for package, distribution in imported.items():
        if f"import {package}\n" in text or f"from {package}." in text:
            assert f"pip install {distribution}" in lines, package


def test_every_block_is_of_a_kind_that_is_looked_at() -> None:
    kinds = {(page.name, kind) for page in PAGES for kind, _ in BLOCK.findall(page.read_text())}
    assert {(name, kind) for name, kind in kinds if kind not in KNOWN} == set()
    assert ("README.md", "python") in kinds
    assert ("README.md", "sh") in kinds


@pytest.mark.parametrize("page", [*PAGES, *UNRUN], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text())
    targets = [(page.parent / target if target else page, anchor) for target, anchor in links if "://" not in target]
    assert [str(target) for target, _ in targets if not target.exists()] == []
    pages = [(target, anchor) for target, anchor in targets if anchor and target.suffix == ".md"]
    assert [f"{target.name}#{anchor}" for target, anchor in pages if anchor not in anchors(target)] == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = BLOCK.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.slow
def test_the_site_builds_without_a_warning(site: Path) -> None:
    assert (site / "search.html").exists()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        assert (site / page.relative_to(ROOT / "docs")).with_suffix(".html").exists()


@pytest.mark.slow
def test_the_site_has_what_urls_lead_to(site: Path) -> None:
    """Schema files and runbooks, at their path below the site's root."""
    root, _, version = SCHEMA_URL.partition("/schemas/")
    schema = yaml.safe_load((site / "schemas" / version).read_text())
    assert schema["schema_url"] == SCHEMA_URL
    assert next(iter(schema["versions"])) == version
    rules = (ROOT / "collector-config" / "prometheus" / "rules" / "alerting.yaml").read_text()
    runbooks = re.findall(r"runbook_url: (\S+)", rules)
    assert runbooks
    for url in runbooks:
        assert url.startswith(f"{root}/")
        assert (site / url.removeprefix(f"{root}/")).is_file(), url


def test_decision_records_have_one_form_and_are_listed() -> None:
    folder = ROOT / "docs" / "adr"
    row = re.compile(r"^\| \[(\d{4})\]\(([\w-]+\.md)\) \| .+ \| (\d{4}-\d{2}-\d{2}) \|$", re.MULTILINE)
    listed = row.findall((folder / "index.md").read_text())
    records = sorted(path.name for path in folder.glob("0*.md"))
    assert [name for _, name, _ in listed] == records
    for number, name, date in listed:
        text = (folder / name).read_text()
        assert name.startswith(number)
        assert text.startswith(f"# {number}: ")
        assert date in text.partition("## ")[0]
        headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert [heading for heading in headings if heading not in ("Requirements", "Differences")] == [
            "Context",
            *(["Decision"] if number != "0007" else []),
            "Alternatives",
            "Consequences",
        ]
