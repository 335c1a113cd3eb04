"""The files that make a repository: workflows, forms, hooks, the changelog and the release.

What is hosted elsewhere is checked against its published schema; what runs here is run, in a copy of the checkout.
"""

from __future__ import annotations

import ast
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from .checkout import ROOT, run, tool, tracked
from .test_docs import BLOCK

GITHUB = ROOT / ".github"
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

SCHEMAS = [
    ("vendor.github-workflows", sorted((GITHUB / "workflows").glob("*.yml"))),
    ("vendor.github-issue-forms", FORMS),
    ("vendor.github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
    ("vendor.dependabot", [GITHUB / "dependabot.yml"]),
]
"""The schemas come with check-jsonschema, so nothing is fetched."""


def load(path: Path) -> Any:
    return yaml.load(path.read_text(), yaml.BaseLoader)  # as text: YAML 1.1 takes the key `on` for true


@pytest.mark.slow
@pytest.mark.parametrize(("schema", "files"), SCHEMAS, ids=[schema for schema, _ in SCHEMAS])
def test_files_for_github_follow_their_schema(schema: str, files: list[Path]) -> None:
    assert files
    done = run(tool("check-jsonschema"), "--builtin-schema", schema, *files)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_workflow_that_breaks_its_schema_is_found(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text("on: push\njobs:\n  check:\n    runs-on: ubuntu-latest\n    step: []\n")
    done = run(tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", broken)
    assert done.returncode == 1
    assert "step" in done.stdout


def test_the_workflow_runs_the_steps_of_ci() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    steps = re.findall(r"^((?:\.ci/|make )[\w/ -]+?) *(?:#.*)?$", script, re.MULTILINE)
    job = load(GITHUB / "workflows" / "ci.yml")["jobs"]["check"]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert [command for command in commands if not command.startswith("git config")] == steps
    assert steps == [".ci/packages", "make lint", "make stack-tools", "make test"]
    assert all(os.access(ROOT / ".ci" / name, os.X_OK) for name in ("run", "packages"))


def test_the_workflow_runs_every_supported_version_of_python() -> None:
    versions = load(GITHUB / "workflows" / "ci.yml")["jobs"]["check"]["strategy"]["matrix"]["python"]
    assert versions == ["3.11", "3.12", "3.13", "3.14"]
    assert PYPROJECT["project"]["requires-python"] == f">={versions[0]}"


def test_dependabot_knows_every_manifest() -> None:
    kinds = {
        "pyproject.toml": "pip",
        "Dockerfile": "docker",
        "go.mod": "gomod",
        "package.json": "npm",
        "requirements.txt": "pip",
    }
    there = {
        (kinds[path.name], "/" + path.parent.relative_to(ROOT).as_posix().removeprefix("."))
        for path in tracked()
        if path.name in kinds
    }
    updates = load(GITHUB / "dependabot.yml")["updates"]
    known = {
        (update["package-ecosystem"], folder)
        for update in updates
        for folder in update.get("directories", [update.get("directory")])
    }
    assert known == there | {("github-actions", "/")}


def _command(line: str) -> tuple[str, ...]:
    """Return the program and the subcommand of a command line, without options and the current folder."""
    return tuple(word for word in line.split() if not word.startswith("-") and word != ".")


def test_hooks_run_what_lint_runs() -> None:
    done = run(tool("pre-commit"), "validate-config", ".pre-commit-config.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    lint = [_command(line.replace("$(BIN)", ".venv/bin")) for line in recipe[1].splitlines()]
    assert (".venv/bin/ruff", "check") in lint
    hooks = [hook for repo in load(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert [_command(hook["entry"]) for hook in hooks] == lint
    assert {hook["language"] for hook in hooks} == {"system"}


@pytest.mark.slow
def test_a_hook_refuses_a_file_that_lint_refuses(copy: Path) -> None:
    (copy / "src" / "forge" / "fresh.py").write_text('"""Fresh."""\n\nprint(undefined)\n')
    done = run(
        tool("pre-commit"),
        *("run", "ruff-check", "--files", "src/forge/fresh.py"),
        cwd=copy,
        PRE_COMMIT_HOME=str(copy / ".pre-commit"),
    )
    assert done.returncode == 1
    assert "F821 Undefined name `undefined`" in done.stdout


def test_fragments_have_names_that_the_changelog_takes() -> None:
    kinds = {kind["directory"] for kind in PYPROJECT["tool"]["towncrier"]["type"]}
    for path in (ROOT / "changes").iterdir():
        assert path.name == "README.md" or re.fullmatch(rf"(\d+|\+[\w-]+)\.({'|'.join(kinds)})\.md", path.name)
    table = (ROOT / "changes" / "README.md").read_text()
    assert kinds == set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


def test_fragments_are_sentences() -> None:
    for path in (ROOT / "changes").glob("*.*.md"):
        text = path.read_text()
        assert re.fullmatch(r"[A-Z`][^\n]*[.]\n", text), path.name


@pytest.mark.slow
def test_a_release_is_built_as_the_page_says(copy: Path) -> None:
    fragments = {path: path.read_text().strip() for path in (copy / "changes").glob("*.*.md")}
    (copy / "changes" / "17.fixed.md").write_text("Count failed batch calls.\n")
    (script,) = (code for kind, code in BLOCK.findall((copy / "RELEASING.md").read_text()) if kind == "sh")
    script = re.sub(r"^make (lint|test|soak)$", r"make -n \1 >/dev/null", script, flags=re.MULTILINE)
    script = script.replace("VERSION=0.2.0", "VERSION=7.8.9")

    done = run("bash", "-euo", "pipefail", "-c", script, cwd=copy, MAKEFLAGS="")

    assert done.returncode == 0, done.stdout + done.stderr
    changelog = (copy / "CHANGELOG.md").read_text()
    assert re.search(r"^## 7\.8\.9 – \d{4}-\d{2}-\d{2}$", changelog, re.MULTILINE)
    for text in [*fragments.values(), "Count failed batch calls. (#17)"]:
        assert f"- {text}" in changelog
    assert [path.name for path in (copy / "changes").iterdir()] == ["README.md"]
    assert run("git", "describe", "--exact-match", cwd=copy).stdout == "v7.8.9\n"
    assert run("git", "status", "--porcelain", cwd=copy).stdout == ""
    assert sorted(path.name for path in (copy / "dist").iterdir()) == [
        "forge_otel-7.8.9-py3-none-any.whl",
        "forge_otel-7.8.9.tar.gz",
    ]


OF_EXCEPTIONS = {
    *("__cause__", "__context__", "__notes__", "__suppress_context__", "__traceback__"),
    *("add_note", "with_traceback"),
}


def _looks_at_exceptions(node: ast.AST) -> bool:
    """True for an attribute of an exception, and for `isinstance(error, …)`, which asks for its `__class__`."""
    if isinstance(node, ast.Attribute):
        return node.attr in OF_EXCEPTIONS
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance"):
        return False
    name = node.args[0].attr if isinstance(node.args[0], ast.Attribute) else getattr(node.args[0], "id", "")
    return name.strip("_") in {"error", "fault", "interrupt", "raised"}


@pytest.mark.slow
def test_exceptions_are_looked_at_in_one_place() -> None:
    """A user's exception may raise when it is looked at, so in each package one module does that, guarded."""
    source = ROOT / "src"
    folders = [
        source / "forge",
        *(source / "forge_otel" / name for name in ("engine", "instrumentors", "patching", "signals", "support")),
    ]
    found = {
        file.relative_to(source).as_posix()
        for folder in folders
        for file in folder.rglob("*.py")
        if any(map(_looks_at_exceptions, ast.walk(ast.parse(file.read_text()))))
    }
    # Those of databases are no strangers.
    assert found - {"forge/storage/engine.py", "forge/storage/faults.py"} == {
        "forge/pipeline/exceptions.py",
        "forge_otel/support/exceptions.py",
    }
