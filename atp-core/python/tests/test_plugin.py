"""The pytest plugin, in a suite of its own on simulated hosts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from atp_libvirt import Fleet, NotFreeError
from atp_libvirt.pytest_plugin import _file_name
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
    vm.suspend()
    vm.resume()
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
    assert re.search(r"\$ echo evidence\n(.*\n)?\[exit code 0\]\nvm-suspend: ok\nvm-resume: ok", result.stdout)
    assert "screen of h2/vm1" in result.stdout
    # The end of the console is there to be read at once.
    assert re.search(r"console of h2/vm1 -+\n.*\.log\n+--- .*the console is open", result.stdout), result.stdout
    report = (tmp_path / "report.xml").read_text()
    assert '<property name="vm" value="h2/vm1"' in report
    files = re.findall(r'name="evidence" value="([^"]+)"', report)
    assert sorted(Path(file).suffix for file in files) == [".log", ".png", ".txt"]
    assert all(Path(file).stat().st_size > 0 for file in files), files
    # What was collected of tests that passed is gone.
    (folder,) = (tmp_path / "evidence").iterdir()
    assert folder.name.startswith("test_suite.py__test_fails-")


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
            with pytest.raises(NotFreeError):
                fleet.reserve("h1/vm2", file=reservations)
            (kept,) = fleet.vms("h1/vm2").values()
            assert kept.state == "paused"
            (name,) = [snapshot.name for snapshot in fleet.snapshot_list("h1/vm2").values()[0].snapshots]
            assert f"atp snapshot revert h1/vm2 {name}" in result.stdout
            owner = re.search(r"atp release --owner (\S+) --file (\S+)", result.stdout)
            assert owner is not None and owner.group(2) == str(reservations)
            assert [one.vm for one in fleet.release(owner.group(1), reservations)] == ["vm2"]
            # It is kept from later sessions too, until somebody says that it is as it was.
            later = [sys.executable, "-m", "pytest", "-q", f"--atp-config={simulated.config}", "--atp-wait=1", "-k", "kept"]
            result_of_later = subprocess.run(later, cwd=tmp_path, capture_output=True, text=True, timeout=120)
            assert "h1/vm2 is kept as a failed test has left it" in result_of_later.stdout, result_of_later.stdout
            given_back = re.search(r"^truncate .*$", result.stdout, re.MULTILINE)
            assert given_back is not None
            subprocess.run(given_back.group(0), shell=True, check=True)
            result_of_later = subprocess.run(later, cwd=tmp_path, capture_output=True, text=True, timeout=120)
            assert "1 passed" in result_of_later.stdout, result_of_later.stdout
            fleet.reserve("h1/*", count=2, file=reservations).release()
        finally:
            for snapshot in fleet.snapshot_list("h1/vm2").values()[0].snapshots:
                fleet.snapshot_delete("h1/vm2", snapshot.name).raise_for_failures()
            fleet.resume("h1/vm2").raise_for_failures()


DYING = """
import os
import pytest

@pytest.mark.vms("h1/vm1", isolate="snapshot")
def test_1_dies(vm):
    vm.suspend().unwrap()
    os._exit(1)

@pytest.mark.vms("h1/vm1")
def test_2_finds_it_as_it_was(vm, fleet):
    assert vm.state() == "running"
    assert vm.snapshot_list().unwrap().snapshots == []
"""


@pytest.mark.parametrize("with_file", [False, True])
def test_a_vm_of_a_worker_that_died_is_taken_back_first(
    simulated: Simulated, tmp_path: Path, with_file: bool
) -> None:
    (tmp_path / "test_suite.py").write_text(DYING)
    options = [f"--atp-reservations={tmp_path}/reservations", "--atp-reserve-for=15"] if with_file else []
    command = [sys.executable, "-m", "pytest", "-n", "1", "-q", f"--atp-config={simulated.config}", *options]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert "1 failed, 1 passed" in result.stdout, result.stdout + result.stderr
    assert "crashed" in result.stdout


HALF_MADE = """
import os
import pytest
from atp_libvirt import pytest_plugin

if "HANGS" in os.environ:
    pytest_plugin._SNAPSHOT_TIMEOUT = 2

@pytest.mark.vms("h2/vm2", isolate="snapshot")
def test_1_has_no_snapshot(vm):
    pass

@pytest.mark.vms("h2/vm2")
def test_2_does_not_get_what_is_not_clear(vm):
    pass
"""


def test_a_vm_whose_snapshot_is_not_clear_goes_to_no_test(simulated: Simulated, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(HALF_MADE)
    command = [sys.executable, "-m", "pytest", "-q", f"--atp-config={simulated.config}"]
    simulated.fault("h2/vm2", "hung")
    try:
        environment = {**os.environ, "HANGS": "1"}
        hanging = [*command, "--atp-wait=1"]
        result = subprocess.run(hanging, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    finally:
        simulated.heal("h2/vm2")
    assert "2 errors" in result.stdout, result.stdout + result.stderr
    assert "only 0 became free" in result.stdout
    # When it answers again, a later session takes it back first.
    result = subprocess.run([*command, "-k", "not_clear"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "1 passed" in result.stdout, result.stdout + result.stderr


LATE = """
import time
import pytest

@pytest.mark.vms("h1/vm1")
def test_takes_too_long(vm):
    time.sleep(4)
"""


def test_a_reservation_that_ends_before_its_test_is_an_error(simulated: Simulated, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(LATE)
    command = [sys.executable, "-m", "pytest", "-q", f"--atp-config={simulated.config}", "--atp-reserve-for=3"]
    result = subprocess.run(
        [*command, f"--atp-reservations={tmp_path}/reservations"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "1 passed, 1 error" in result.stdout, result.stdout + result.stderr
    assert "the reservation ended while the test went on" in result.stdout


def test_no_two_tests_have_one_folder_of_evidence() -> None:
    assert _file_name("t[a/b]") != _file_name("t[a_b]")
    assert len(_file_name("ä" * 1000).encode()) < 120


def test_a_count_of_no_vms_is_refused(simulated: Simulated, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(
        "import pytest\n\n@pytest.mark.vms(count=0)\ndef test_none(vm):\n    pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", f"--atp-config={simulated.config}"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "at least one VM is wanted" in result.stdout, result.stdout + result.stderr
