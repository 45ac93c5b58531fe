"""Outcomes as the files of reports that the command line writes."""

import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest
from atp_libvirt import Fleet
from conftest import ATP, Simulated


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    """A host with two VMs, one of which has no agent, and a host that refuses connections."""
    fleet = Simulated(tmp_path_factory.mktemp("mixed"), ["--hosts", "2", "--vms", "2"])
    fleet.fault("h1/vm2", "agent-absent")
    fleet.fault("h2", "refused")
    yield fleet
    fleet.close()


def cases(file: Path) -> List[Tuple[str, ...]]:
    """The suite's name and numbers, and each case with what it is if it is no success."""
    (suite,) = ElementTree.parse(file).getroot()
    numbers = [suite.attrib[name] for name in ("name", "tests", "failures", "errors", "skipped")]
    return [
        tuple(numbers),
        *(
            (case.attrib["classname"], case.attrib["name"], *(f"{part.tag}: {part.text}" for part in case))
            for case in suite
        ),
    ]


def test_outcomes_are_written_as_junit_and_as_a_page(mixed: Simulated, tmp_path: Path) -> None:
    with Fleet(mixed.config) as fleet:
        outcomes = fleet.exec("*", ["echo", "<b>&"], timeout=60)
    outcomes.to_junit(tmp_path / "report.xml")
    suite, *own = cases(tmp_path / "report.xml")
    assert suite == ("exec", "3", "1", "1", "0")
    assert own[0] == ("h1", "vm1", "system-out: <b>&\n")
    assert [case[:2] for case in own] == [("h1", "vm1"), ("h1", "vm2"), ("h2", "h2")]
    outcomes.failed.to_junit(str(tmp_path / "failed.xml"), title="nightly")
    assert cases(tmp_path / "failed.xml")[0] == ("nightly", "2", "1", "1", "0")

    outcomes.to_html(tmp_path / "report.html", title="a & b")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>\n<html") and page.rstrip().endswith("</html>")
    for text in ("<h1>a &amp; b</h1>", "h1/vm1", "&lt;b&gt;&amp;", "The bars show how long each target took."):
        assert text in page, text
    outcomes[:0].to_html(tmp_path / "none.html")
    assert "No targets." in (tmp_path / "none.html").read_text(encoding="utf-8")
    with pytest.raises(FileNotFoundError):
        outcomes.to_junit(tmp_path / "none" / "report.xml")


@pytest.mark.skipif(not ATP, reason="there is no program atp: `cargo xtask python` builds it")
def test_the_command_line_writes_the_same(mixed: Simulated, tmp_path: Path) -> None:
    command = [ATP, "--config", str(mixed.config), "exec", "*", "--junit", str(tmp_path / "atp.xml"), "--", "echo", "x"]
    subprocess.run(command, capture_output=True)
    with Fleet(mixed.config) as fleet:
        fleet.exec("*", ["echo", "x"]).to_junit(tmp_path / "own.xml")
    # Hints are in the words of the command line, and causes of a connection that is refused are as it went.
    first_lines = [
        [tuple(part.split("\n")[0] for part in case) for case in cases(tmp_path / name)]
        for name in ("atp.xml", "own.xml")
    ]
    assert first_lines[0] == first_lines[1]


def test_a_scenario_has_a_case_for_each_step(mixed: Simulated, tmp_path: Path) -> None:
    (tmp_path / "smoke.yaml").write_text("name: smoke\ntargets: h1/vm1\nsteps:\n  - exec: [echo, one]\n  - exec: [false]\n")
    with Fleet(mixed.config) as fleet:
        outcomes = fleet.run(tmp_path / "smoke.yaml", timeout=60)
    outcomes.to_junit(tmp_path / "report.xml")
    suite, *own = cases(tmp_path / "report.xml")
    assert suite == ("smoke", "2", "1", "0", "0")
    assert [case[0] for case in own] == ["h1/vm1", "h1/vm1"]
    outcomes.to_html(tmp_path / "report.html")
    assert "<h1>smoke</h1>" in (tmp_path / "report.html").read_text(encoding="utf-8")
