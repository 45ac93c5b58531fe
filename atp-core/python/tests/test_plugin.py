"""The pytest plugin, in a suite of its own on simulated hosts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from atp_libvirt import Fleet, NotFreeError
from conftest import Simulated

SUITE = '''
import os, time
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range(6))
@pytest.mark.vms("h1/*", count=1)
def test_has_a_vm_alone(vm, number):
    mark = Path(os.environ["MARKS"]) / vm.uuid
    mark.touch(exist_ok=False)
    vm.exec(["true"])
    time.sleep(0.2)
    mark.unlink()

@pytest.mark.vms("*", count=4)
def test_has_four_vms(vms, fleet):
    assert len({vm.uuid for vm in vms}) == 4
    assert len(fleet.vms()) == 4

@pytest.mark.vms("h1/*", count=3)
def test_there_are_not_so_many(vms):
    pass

@pytest.mark.vms("h2/vm1")
def test_fails(vm):
    vm.shell("echo evidence")
    assert False
'''

ISOLATED = '''
import pytest

@pytest.mark.vms("h1/vm1", isolate="snapshot")
def test_changes_its_vm(vm, fleet):
    (listed,) = fleet.snapshot_list(vm.target).values()
    assert [snapshot.current for snapshot in listed.snapshots] == [True]
    fleet.suspend(vm.target).raise_for_failures()

@pytest.mark.vms("h1/vm1")
def test_finds_it_as_it_was(vm, fleet):
    assert fleet.vms(vm.target)[0].data.state == "running"
    assert fleet.snapshot_list(vm.target).values()[0].snapshots == []

@pytest.mark.vms("h1/vm2", isolate="snapshot:none-such")
def test_has_no_such_snapshot(vm):
    pass

@pytest.mark.vms("h1/vm2", isolate="snapshot")
def test_fails(vm, fleet):
    fleet.suspend(vm.target).raise_for_failures()
    assert False

@pytest.mark.vms("h1/vm2", state="any")
def test_does_not_get_what_is_kept(vm):
    pass
'''


def test_workers_never_share_a_vm_and_failures_have_evidence(simulated: Simulated, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    marks = tmp_path / "marks"
    marks.mkdir()
    command = [sys.executable, "-m", "pytest", "-n", "4", "-q", "--junit-xml=report.xml", "--atp-evidence=evidence"]
    environment = {**os.environ, "MARKS": str(marks)}
    result = subprocess.run(
        [*command, f"--atp-config={simulated.config}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "1 failed, 7 passed, 1 error" in result.stdout, result.stdout + result.stderr
    assert "3 VMs of ['h1/*'] are wanted, and there are 2" in result.stdout
    assert "commands in h2/vm1" in result.stdout
    assert "$ echo evidence" in result.stdout
    assert "screen of h2/vm1" in result.stdout
    assert "console of h2/vm1" in result.stdout
    report = (tmp_path / "report.xml").read_text()
    assert '<property name="vm" value="h2/vm1"' in report
    files = re.findall(r'name="evidence" value="([^"]+)"', report)
    assert sorted(Path(file).suffix for file in files) == [".log", ".png", ".txt"]
    assert all(Path(file).stat().st_size > 0 for file in files), files
    # What was collected of tests that passed is gone.
    assert [folder.name for folder in (tmp_path / "evidence").iterdir()] == ["test_suite.py__test_fails"]


def test_isolated_tests_leave_vms_as_they_were_unless_they_are_kept(simulated: Simulated, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(ISOLATED)
    reservations = tmp_path / "reservations"
    command = [sys.executable, "-m", "pytest", "-q", "--atp-keep", f"--atp-reservations={reservations}", "--atp-wait=1"]
    result = subprocess.run(
        [*command, f"--atp-config={simulated.config}"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    with Fleet(simulated.config) as fleet:
        try:
            assert "1 failed, 2 passed, 2 errors" in result.stdout, result.stdout + result.stderr
            assert "snapshot-not-found" in result.stdout
            assert "only 0 became free" in result.stdout
            # The VM of the failed test is as the test has left it, and is still reserved.
            (kept,) = fleet.vms("h1/vm2").values()
            assert kept.state == "paused"
            (name,) = [snapshot.name for snapshot in fleet.snapshot_list("h1/vm2").values()[0].snapshots]
            assert f"atp snapshot revert h1/vm2 {name}" in result.stdout
            with pytest.raises(NotFreeError):
                fleet.reserve("h1/vm2", file=reservations)
            fleet.reserve("h1/vm1", file=reservations).release()
        finally:
            for snapshot in fleet.snapshot_list("h1/vm2").values()[0].snapshots:
                fleet.snapshot_delete("h1/vm2", snapshot.name).raise_for_failures()
            fleet.resume("h1/vm2").raise_for_failures()
