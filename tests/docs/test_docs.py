"""What the docs say is what the program does: commands, options, checks, files and links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bench import twin as bench_twin
from burnin.checks import CHECKS
from burnin.cli.app import command
from burnin.rack.load import load_catalogue
from burnin.twin.faults import KINDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def commands(text: str) -> list[list[str]]:
    """Every `burnin ...` of a page, in code blocks and in running text."""
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", text, re.M | re.S))
    found = re.findall(r"^burnin .*$", blocks, re.M) + re.findall(r"`(burnin [^`]+)`", text)
    return [line.split("#")[0].split()[1:] for line in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_docs_exist_with_their_options(page: Path) -> None:
    for words in commands(page.read_text()):
        node: Any = command()
        rest = list(words)
        while rest and hasattr(node, "commands") and rest[0] in node.commands:
            node = node.commands[rest.pop(0)]
        if rest and hasattr(node, "commands") and node.commands:
            assert rest[0].startswith("-"), f"{page.name}: burnin {' '.join(words)}: there is no command {rest[0]}"
        options = {name for param in node.params for name in (*param.opts, *param.secondary_opts)} | {"--help"}
        for word in rest:
            if word.startswith("--"):
                assert word.split("=")[0] in options, f"{page.name}: burnin {' '.join(words)}: there is no {word}"


def test_the_readme_shows_the_commands_people_need() -> None:
    shown = {words[0] for words in commands(README) if words}
    assert shown >= {"lint", "enroll", "doctor", "run", "runs", "show", "judge", "gate", "expect"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), f"{page.name}: {link}"
    for name in re.findall(r"`((?:burnin|docs|bench|inventory|test_suites|tests)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_make_targets_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.M):
            assert target in targets, f"{page.name}: make {target}"


def test_every_check_has_its_section_with_every_measurement() -> None:
    text = (ROOT / "docs/checks.md").read_text()
    sections = dict(re.findall(r"^## ([\w-]+)\n(.*?)(?=^## |^# |\Z)", text, re.M | re.S))
    assert list(sections) == list(CHECKS)
    for name, check in CHECKS.items():
        for quantity in check.quantities:
            assert f"`{quantity.name}`" in sections[name], f"{name}: {quantity.name}"


def test_every_signature_is_named() -> None:
    text = (ROOT / "docs/checks.md").read_text()
    for name in load_catalogue().signatures:
        assert f"`{name}`" in text


def test_the_first_screen_of_the_readme_shows_both_commands_and_a_picture() -> None:
    screen = "\n".join(README.splitlines()[:22])
    assert "make demo" in screen
    assert "make test" in screen
    assert "docs/demo.svg" in screen


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_carries_a_machines_paths(page: Path) -> None:
    assert not re.search(r"/work/|/root/|/home/(?!burnin)\w+/|\.\./shared", page.read_text())


def test_the_matrix_of_faults_and_seams_is_the_kinds_own() -> None:
    page = (ROOT / "docs/twin.md").read_text()
    for line in bench_twin.matrix():
        assert line in page, f"docs/twin.md: {line} (python -m bench.twin writes it)"
    rows = re.findall(r"^\| `(\w+)` \|", page, re.M)
    assert rows == sorted(KINDS) * 2


def test_the_matrix_of_faults_and_signals_is_what_tests_hold_the_twin_to() -> None:
    page = (ROOT / "docs/twin.md").read_text()
    assert "\n".join(bench_twin.signals()) in page, "python -m bench.twin --signals writes it"


def test_the_calibration_table_is_what_the_twin_does_now() -> None:
    """Lines of captures are compared where those are; the others everywhere."""
    page = (ROOT / "docs/twin.md").read_text()
    stale = [line for line in bench_twin.calibration() if line not in page]
    assert not stale, "python -m bench.twin --calibration writes it"
