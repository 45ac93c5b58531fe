"""Journals: runs that are resumed, by this package and by the command line."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator, List

import pytest
from atp_libvirt import AsyncFleet, Fleet, RequestError, read_journal
from conftest import ATP, Simulated, serving

needs_atp = pytest.mark.skipif(not ATP, reason="there is no program atp: `cargo xtask python` builds it")


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Simulated]:
    """Two hosts with a VM each, of which the second has no agent: what is done there fails without an effect."""
    fleet = Simulated(tmp_path, ["--hosts", "2", "--vms", "1"])
    fleet.fault("h2/vm1", "agent-absent")
    yield fleet
    fleet.close()


def programs(simulated: Simulated) -> List[int]:
    """How many programs were run in the VM of each host."""
    hosts = simulated.report()["hosts"]
    vms = [hosts[host]["vms"].get("vm1", {}) for host in ("h1", "h2")]
    return [sum(vm.get("programs", {}).values()) for vm in vms]


def atp(simulated: Simulated, *arguments: str) -> Any:
    """What the command line prints."""
    command = [ATP, "--config", str(simulated.config), "-o", "json", *arguments]
    return json.loads(subprocess.run(command, capture_output=True, text=True).stdout)


def test_a_run_is_resumed_and_repeats_nothing(two: Simulated, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with Fleet(two.config) as fleet:
        begun = fleet.exec("*", ["true"], journal=journal, timeout=20)
        assert [(one.target, one.ok, one.effect) for one in begun] == [("h1/vm1", True, "done"), ("h2/vm1", False, "none")]
        with pytest.raises(RequestError) as raised:
            fleet.exec("*", ["true"], journal=journal)
        assert raised.value.kind == "journal-unusable" and raised.value.effect == "none"
        two.heal("h2/vm1")
        left = fleet.exec("*", ["true"], resume=journal, timeout=60).raise_for_failures()
        assert ([one.target for one in left], left.done_before) == (["h2/vm1"], 1)
        # All is done: nothing is an error, and nothing is done.
        again = fleet.exec("*", ["true"], resume=str(journal), timeout=60).raise_for_failures()
        assert (len(again), again.done_before) == (0, 2)
        with pytest.raises(RequestError) as raised:
            fleet.exec("*", ["false"], resume=journal)
        assert raised.value.kind == "journal-of-another-operation"
    assert programs(two) == [1, 1]
    read = read_journal(journal)
    assert (read.op, read.has_lost, read.torn_bytes, len(read.resumed_at)) == ("exec", False, 0, 2)
    assert [(one.target, one.progress) for one in read.targets] == [("h1/vm1", "finished"), ("h2/vm1", "finished")]
    outcome = read.targets[0].outcome
    assert outcome is not None and outcome.unwrap().exit_code == 0


def test_a_host_that_could_not_be_listed_is_left_to_do(two: Simulated, tmp_path: Path) -> None:
    two.heal("h2/vm1")
    two.fault("h2", "refused")
    with Fleet(two.config) as fleet:
        assert [one.ok for one in fleet.exec("*", ["true"], journal=tmp_path / "journal", timeout=20)] == [True, False]
    assert read_journal(tmp_path / "journal").unresolved == ["h2"]
    two.heal("h2")
    # Another fleet, which has no connection under way to the host as it was.
    with Fleet(two.config) as fleet:
        left = fleet.exec("*", ["true"], resume=tmp_path / "journal", timeout=60).raise_for_failures()
        assert [one.target for one in left] == ["h2/vm1"]


def test_streams_and_tasks_have_journals(two: Simulated, tmp_path: Path) -> None:
    async def resumed() -> List[str]:
        async with AsyncFleet(two.config) as fleet:
            return [one.target for one in await fleet.exec("*", ["true"], resume=tmp_path / "journal", timeout=60)]

    with Fleet(two.config) as fleet:
        assert len(list(fleet.stream.exec("*", ["true"], journal=tmp_path / "journal", timeout=60))) == 2
    two.heal("h2/vm1")
    assert asyncio.run(resumed()) == ["h2/vm1"]
    assert programs(two) == [1, 1]


@needs_atp
def test_the_command_line_resumes_what_python_began(two: Simulated, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with Fleet(two.config) as fleet:
        fleet.exec("*", ["true"], journal=journal, timeout=60)
    two.heal("h2/vm1")
    left = atp(two, "exec", "*", "--resume", str(journal), "--", "true")
    assert [(one["host"], one["vm"], one["status"]) for one in left] == [("h2", "vm1", "ok")]
    shown = atp(two, "journal", "show", str(journal))
    read = read_journal(journal)
    assert [one["progress"] for one in shown["targets"]] == [one.progress for one in read.targets]
    assert shown["begun_at"] == read.begun_at
    assert programs(two) == [1, 1]


@needs_atp
def test_python_resumes_what_the_command_line_began(two: Simulated, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    atp(two, "exec", "*", "--journal", str(journal), "--", "true")
    two.heal("h2/vm1")
    with Fleet(two.config) as fleet:
        left = fleet.exec("*", ["true"], resume=journal, timeout=60).raise_for_failures()
    assert ([one.target for one in left], left.done_before) == (["h2/vm1"], 1)
    assert programs(two) == [1, 1]


@needs_atp
def test_a_run_of_a_service_is_resumed_by_its_number(two: Simulated, tmp_path: Path) -> None:
    with serving(two.config, tmp_path / "service") as served, Fleet(server=served[0], token=served[1]) as fleet:
        begun = fleet.exec("*", ["true"], timeout=60)
        assert [one.ok for one in begun] == [True, False]
        assert begun.run_number is not None and begun.failed.run_number == begun.run_number
        two.heal("h2/vm1")
        left = fleet.exec("*", ["true"], resume=begun.run_number, timeout=60).raise_for_failures()
        assert [one.target for one in left] == ["h2/vm1"]
        with fleet.stream.vms("*") as stream:
            assert len(list(stream)) == 2 and stream.run_number not in (None, begun.run_number)
        for options, message in (
            ({"journal": "j"}, "journal= is for runs without a service"),
            ({"resume": "j"}, "a service continues runs that it has itself"),
        ):
            with pytest.raises(RequestError, match=message):
                fleet.operate("*", {"op": "vm-list"}, **options)  # type: ignore[arg-type]
    assert programs(two) == [1, 1]


def test_what_cannot_be_meant_is_refused(simulated: Simulated, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no journal\n")
    with Fleet(simulated.config) as fleet:
        with pytest.raises(RequestError, match="only a service has runs with a number"):
            fleet.vms("*", resume=1)
        with pytest.raises(RequestError, match="are not for one run"):
            fleet.vms("*", journal=tmp_path / "j", resume=tmp_path / "j")
        with pytest.raises(RequestError, match="not the journal of a run"):
            fleet.vms("*", resume=tmp_path / "text")
        with pytest.raises(TypeError, match="journal is for runs over targets"):
            fleet.reserve("*", file=tmp_path / "file", **{"journal": "j"})  # type: ignore[arg-type]
    with pytest.raises(RequestError) as raised:
        read_journal(tmp_path / "none")
    assert raised.value.kind == "journal-unusable"


#: Runs a program on all VMs, with a journal.
RUN = """
import sys
from atp_libvirt import Fleet
with Fleet(sys.argv[1]) as fleet:
    fleet.exec("*", ["true"], journal=sys.argv[2], timeout=600)
"""


def test_a_process_that_was_killed_is_continued(two: Simulated, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    two.heal("h2/vm1")
    two.fault("h2/vm1", "hung")
    with subprocess.Popen([sys.executable, "-c", RUN, str(two.config), str(journal)]) as process:
        try:
            until = time.monotonic() + 120
            while not journal.exists() or progress(journal) != ["finished", "started"]:
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.05)
        finally:
            process.kill()
    two.heal("h2/vm1")
    with Fleet(two.config) as fleet:
        left = fleet.exec("*", ["true"], resume=journal, timeout=60)
        # What was begun may have been done: it is told, and not repeated.
        assert [(one.target, one.effect, one.from_earlier_run) for one in left] == [("h2/vm1", "unknown", True)]
        with fleet.stream.exec("*", ["true"], resume=journal, timeout=60) as stream:
            assert [one.from_earlier_run for one in stream] == [True]
            assert stream.done_before == 1


def progress(journal: Path) -> List[str]:
    """How far each target of a journal got, if its head is there."""
    try:
        return [target.progress for target in read_journal(journal).targets]
    except RequestError:
        return []


#: Runs a program with a journal of which no more than the head fits on the disk.
FULL = """
import resource, sys
from atp_libvirt import Fleet
with Fleet(sys.argv[1]) as fleet:
    fleet.exec("*", ["true"], journal=sys.argv[2], timeout=60)
    with open(sys.argv[2]) as journal:
        head = len(journal.readline()) + len(journal.readline())
    resource.setrlimit(resource.RLIMIT_FSIZE, (head + 100, head + 100))
    outcomes = fleet.exec("*", ["true"], journal=sys.argv[2] + "2", timeout=60)
    assert len(outcomes) == 2 and not outcomes.ok, list(outcomes)
    assert any("cannot be written" in notice for notice in outcomes.notices), outcomes.notices
    with fleet.stream.exec("*", ["true"], journal=sys.argv[2] + "3", timeout=60) as stream:
        assert len(list(stream)) == 2
        assert any("cannot be written" in notice for notice in stream.notices), stream.notices
"""


def test_a_full_disk_is_told_and_starts_no_more(two: Simulated, tmp_path: Path) -> None:
    two.heal("h2/vm1")
    command = [sys.executable, "-c", FULL, str(two.config), str(tmp_path / "journal")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert programs(two) == [1, 1]


def test_a_journal_that_cannot_be_written_is_told(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet, pytest.raises(RequestError, match="cannot be made"):
        fleet.exec("h1/*", ["true"], journal="/proc/journal")

