"""What the documents say is run, loaded or looked up here; their figures come from the commands they name."""

import dataclasses
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from common.bundle import Bundle
from common.config import TierConfig, load_config, resolve
from common.limits import Limits
from offramp.cli import EXAMPLES, app

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "AGENTS.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = {"curl", "docker"}  # beside offramp and make: not checked
FILES = re.compile(r"(bundles|deploy|examples|recipes)/\S+")


def blocks(language: str) -> list[tuple[str, str]]:
    """Every fenced block of a language, with the document it is in."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [(path.name, block) for path in DOCUMENTS for block in pattern.findall(path.read_text())]


def console_lines() -> list[tuple[str, str]]:
    return [
        (name, line.removeprefix("$ "))
        for name, block in blocks("console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def test_there_is_something_to_check() -> None:
    assert len(console_lines()) > 15 and blocks("python") and len(blocks("yaml")) > 1


@pytest.mark.timeout(600)  # some import torch and train: seconds, or minutes where the cores are busy
@pytest.mark.parametrize(("document", "code"), blocks("python"))
def test_python_runs(document: str, code: str) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=590)


@pytest.mark.parametrize(("document", "text"), [block for block in blocks("yaml") if "tiers:" in block[1]])
def test_a_configuration_is_one(document: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "tiers.yaml").write_text(text)
    file = load_config(tmp_path / "tiers.yaml", {})
    manifest = Bundle(file.bundle).manifest
    resolve(file, num_stages=len(manifest.stages), operating_points=manifest.operating_points)


@pytest.mark.parametrize(("document", "line"), console_lines())
def test_a_command_exists_with_its_options(document: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    program, arguments = words[0].rpartition("/")[2], words[1:]
    if program == "offramp":
        command = get_command(app).commands[arguments[0]]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in arguments[1:] if word.startswith("-")} <= known
    elif program == "make":
        targets = [word for word in arguments if "=" not in word]
        for target in targets:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program not in PROGRAMS:
        assert program in ("pytest", "pip")
    for found in FILES.finditer(" ".join(arguments)):
        assert list(ROOT.glob(found[0])), f"{document} names {found[0]}, which is not there"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text()
    headings = {
        re.sub(r"[^\w\- ]", "", line).strip().replace(" ", "-").lower() for line in re.findall(r"^#+ (.*)$", text, re.M)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings
        elif not target.startswith(("http://", "https://")):
            assert (path.parent / target.partition("#")[0]).exists(), f"{path.name} links to {target}"


def table_keys(path: Path, heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    part = path.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("| `")
    ]
    return [[cell.strip("`") for cell in row] for row in rows]


def test_every_limit_is_documented_with_its_default() -> None:
    documented = {row[0]: int(row[1]) for row in table_keys(ROOT / "docs" / "configuration.md", "`limits`")}
    assert documented == dataclasses.asdict(Limits())


def test_every_key_of_a_tier_is_documented_with_its_default() -> None:
    documented = {row[0]: row[1] for row in table_keys(ROOT / "docs" / "configuration.md", "One tier")}
    fields = {f.name: f.default for f in dataclasses.fields(TierConfig)}
    inner = {"name", "first", "start", "stop"}
    assert set(documented) == set(fields) - inner | {"stages"}
    for key in ("upstream_timeout_ms", "upstream_protocol", "runtime", "threads", "workers"):
        assert documented[key] == str(fields[key])
    assert float(documented["drain_seconds"]) == fields["drain_seconds"]


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    assert [name for name in (command.__name__ for command in EXAMPLES) if f"offramp {name} " not in text] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_nothing_was_left_open(path: Path) -> None:
    assert not re.search(r"\b(TODO|FIXME|TBD|DEMO|PREDICT)\b", path.read_text())
