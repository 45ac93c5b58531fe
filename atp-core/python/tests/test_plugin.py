"""The pytest plugin, in a suite of its own on simulated hosts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from atp_libvirt import Fleet, NotFreeError
from atp_libvirt.pytest_plugin import _file_name
from conftest import FLEET, Simulated

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
    options = [f"--atp-reservations={tmp_path}/reservations", "--atp-reserve-for=600"] if with_file else []
    command = [sys.executable, "-m", "pytest", "-n", "1", "-q", f"--atp-config={simulated.config}", *options]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert "1 failed, 1 passed" in result.stdout, result.stdout + result.stderr
    assert "crashed" in result.stdout
    # The reservation of the one that died was taken over, and has ended.
    assert re.search(r"h1/vm1 was taken back to its snapshot atp-test-\w+: a test has left it changed", result.stdout)
    with Fleet(simulated.config) as fleet:
        assert not with_file or fleet.reservations(tmp_path / "reservations") == []


def test_a_vm_that_others_may_have_had_since_is_not_taken_back(simulated: Simulated, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(DYING)
    reservations = tmp_path / "reservations"
    command = [sys.executable, "-m", "pytest", "-q", f"--atp-config={simulated.config}", "--atp-wait=1"]
    reserving = f"--atp-reservations={reservations}"
    dies = subprocess.run([*command, reserving, "-k", "dies"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert dies.returncode == 1, dies.stdout + dies.stderr
    with Fleet(simulated.config) as fleet:
        try:
            (left,) = fleet.reservations(reservations)
            # Another job has the VM, and gives it back.
            fleet.release(left.owner, reservations)
            fleet.reserve("h1/vm1", file=reservations).release()
            for options in ([reserving], []):
                later = subprocess.run(
                    [*command, *options, "-k", "finds"], cwd=tmp_path, capture_output=True, text=True, timeout=120
                )
                assert f"had reserved it as {left.owner} until" in later.stdout, later.stdout + later.stderr
                assert "others may have used it since" in later.stdout
                assert fleet.vms("h1/vm1").values()[0].state == "paused"
            given_back = re.search(r"truncate -s 0 \S+\.lock", later.stdout)
            assert given_back is not None, later.stdout
        finally:
            for snapshot in fleet.snapshot_list("h1/vm1").values()[0].snapshots:
                fleet.snapshot_delete("h1/vm1", snapshot.name).raise_for_failures()
            fleet.resume("h1/vm1").raise_for_failures()
    subprocess.run(given_back.group(0), shell=True, check=True)
    later = subprocess.run([*command, "-k", "finds"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "1 passed" in later.stdout, later.stdout + later.stderr


HALF_MADE = """
import os
import pytest
from atp_libvirt import pytest_plugin

if "HANGS" in os.environ:
    # The call is to be sent by then.
    pytest_plugin._SNAPSHOT_TIMEOUT = 10
    pytest_plugin._AGENT_PATIENCE = 2

@pytest.mark.vms("h2/vm2", isolate="snapshot")
def test_1_has_no_snapshot(vm):
    pass

@pytest.mark.vms("h2/vm2")
def test_2_does_not_get_what_is_not_clear(vm):
    pass
"""


@pytest.mark.parametrize("with_file", [False, True])
def test_a_vm_whose_snapshot_is_not_clear_goes_to_no_test(
    simulated: Simulated, tmp_path: Path, with_file: bool
) -> None:
    (tmp_path / "test_suite.py").write_text(HALF_MADE)
    command = [sys.executable, "-m", "pytest", "-q", f"--atp-config={simulated.config}"]
    if with_file:
        command.append(f"--atp-reservations={tmp_path}/reservations")
    simulated.fault("h2/vm2", "hung")
    try:
        environment = {**os.environ, "HANGS": "1"}
        hanging = [*command, "--atp-wait=1"]
        result = subprocess.run(hanging, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    finally:
        simulated.heal("h2/vm2")
    assert "2 errors" in result.stdout, result.stdout + result.stderr
    assert "only 0 became free" in result.stdout
    assert re.search(r"not taken back: the next test does that, or a person -+\nh2/vm2\n", result.stdout)
    # When it answers again, a later session takes it back first, though it is still reserved.
    result = subprocess.run([*command, "-k", "not_clear"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "1 passed" in result.stdout, result.stdout + result.stderr


LATE = """
import os, time
from datetime import datetime, timedelta, timezone
import pytest

@pytest.mark.vms("h1/vm1")
def test_takes_too_long(vm, fleet):
    (reserved,) = fleet.reservations(os.environ["RESERVATIONS"])
    # There is time to take it back.
    assert reserved.until > datetime.now(timezone.utc) + timedelta(minutes=4)
    time.sleep(4)
"""


def test_a_test_that_takes_longer_than_its_reservation_is_an_error(simulated: Simulated, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(LATE)
    reservations = f"{tmp_path}/reservations"
    command = [sys.executable, "-m", "pytest", "-q", f"--atp-config={simulated.config}", "--atp-reserve-for=3"]
    result = subprocess.run(
        [*command, f"--atp-reservations={reservations}"],
        cwd=tmp_path,
        env={**os.environ, "RESERVATIONS": reservations},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "1 passed, 1 error" in result.stdout, result.stdout + result.stderr
    assert "the test took longer than its VMs are reserved for" in result.stdout


TEARDOWN = """
import pytest

@pytest.fixture
def service(vm):
    yield vm
    vm.shell("echo evidence of the teardown")
    vm.suspend().unwrap()
    assert False, "the service did not end"

@pytest.mark.vms("h2/vm1", isolate="snapshot")
def test_passes_and_its_fixture_fails(service):
    assert service.state() == "running"
"""


@pytest.mark.parametrize("keep", [False, True])
def test_a_failure_in_a_teardown_has_evidence_and_is_kept(simulated: Simulated, tmp_path: Path, keep: bool) -> None:
    (tmp_path / "test_suite.py").write_text(TEARDOWN)
    command = [sys.executable, "-m", "pytest", "-q", "--junit-xml=report.xml", "--atp-evidence=evidence"]
    command += [f"--atp-config={simulated.config}", *(["--atp-keep"] if keep else [])]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    with Fleet(simulated.config) as fleet:
        try:
            assert "1 passed, 1 error" in result.stdout, result.stdout + result.stderr
            assert "the service did not end" in result.stdout
            assert re.search(r"commands in h2/vm1 -+\n\$ echo evidence of the teardown", result.stdout)
            assert "vm-suspend: ok" in result.stdout
            files = re.findall(r'name="evidence" value="([^"]+)"', (tmp_path / "report.xml").read_text())
            assert sorted(Path(file).suffix for file in files) == [".log", ".png", ".txt"]
            assert all(Path(file).stat().st_size > 0 for file in files), files
            snapshots = fleet.snapshot_list("h2/vm1").values()[0].snapshots
            left = (fleet.vms("h2/vm1").values()[0].state, len(snapshots))
            assert left == (("paused", 1) if keep else ("running", 0))
            given_back = re.search(r"kept as they are -+\n(?:.*\n)*?(truncate .*)\n", result.stdout)
            assert (given_back is not None) == keep, result.stdout
            if given_back is not None:
                subprocess.run(given_back.group(1), shell=True, check=True)
        finally:
            for snapshot in fleet.snapshot_list("h2/vm1").values()[0].snapshots:
                fleet.snapshot_delete("h2/vm1", snapshot.name).raise_for_failures()
            fleet.resume("h2/vm1").raise_for_failures()


FULL = """
import resource
import pytest

@pytest.fixture
def full_disk(vm):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)

@pytest.mark.vms("h2/vm1")
def test_1_fails_when_the_disk_is_full(vm, full_disk):
    vm.shell("echo evidence")
    assert False

@pytest.mark.vms("h2/vm1")
def test_2_goes_on(vm):
    pass
"""


def test_a_full_disk_of_evidence_is_told_and_ends_nothing(simulated: Simulated, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(FULL)
    # What pytest itself captures would be in a file.
    command = [sys.executable, "-m", "pytest", "-q", "--capture=no", f"--atp-config={simulated.config}"]
    result = subprocess.run(
        [*command, "--atp-evidence=evidence"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert "1 failed, 1 passed" in result.stdout, result.stdout + result.stderr
    assert re.search(r"commands in h2/vm1 -+\n\$ echo evidence", result.stdout)
    assert re.search(r"evidence of h2/vm1 -+\n.*File too large", result.stdout), result.stdout
    # No folder can be made below a file.
    (tmp_path / "file").touch()
    result = subprocess.run(
        [*command, "--atp-evidence=file/evidence", "-k", "goes_on"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert re.search("1 passed.*, 1 warning", result.stdout), result.stdout + result.stderr
    assert "no evidence can be collected" in result.stdout


AGAIN = """
import pytest

times = []

@pytest.mark.vms("h2/vm1")
def test_is_run_again(vm):
    times.append(1)
    vm.shell(f"echo time {len(times)}")
    assert len(times) == 4
"""


@pytest.mark.parametrize("reruns", [2, 3])
def test_evidence_of_a_test_that_is_run_again_is_of_one_time(
    simulated: Simulated, tmp_path: Path, reruns: int
) -> None:
    (tmp_path / "test_suite.py").write_text(AGAIN)
    command = [sys.executable, "-m", "pytest", "-q", f"--reruns={reruns}", "--junit-xml=report.xml"]
    result = subprocess.run(
        [*command, "--atp-evidence=evidence", f"--atp-config={simulated.config}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    passes = reruns == 3
    assert ("1 passed, 3 rerun" if passes else "1 failed, 2 rerun") in result.stdout, result.stdout + result.stderr
    # Each time that failed has a folder of its own.
    texts = [file.read_text() for file in (tmp_path / "evidence").glob("*/*.commands.txt")]
    assert sorted(re.findall(r"\$ echo (time \d)", "".join(texts))) == ["time 1", "time 2", "time 3"]
    assert len(texts) == 3
    # What is reported of a time is of that time.
    cases = re.findall(r"<testcase .*?</testcase>", (tmp_path / "report.xml").read_text(), re.DOTALL)
    assert len(cases) == reruns + 1
    for number, case in enumerate(cases, 1):
        assert case.count('<property name="vm" value="h2/vm1"') == 1
        files = [Path(file) for file in re.findall(r'name="evidence" value="([^"]+)"', case)]
        assert sorted(file.suffix for file in files) == ([] if number == 4 else [".log", ".png", ".txt"])
        assert len({file.relative_to(tmp_path / "evidence").parts[0] for file in files}) == (number < 4)
        assert all(f"time {number}" in file.read_text() for file in files if file.suffix == ".txt")


SILENT = """
import os, subprocess
from pathlib import Path
import pytest

@pytest.mark.vms("h2/vm1", isolate="snapshot")
def test_1_leaves_an_absent_agent(vm):
    fleet, port = os.environ["FLEET"], os.environ["PORT"]
    subprocess.run([fleet, "fault", "--port", port, vm.target, "agent-absent"], check=True)
    heals = f"sleep 4; touch answers; exec {fleet} heal --port {port} {vm.target}"
    subprocess.Popen(heals, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

@pytest.mark.vms("h2/vm1")
def test_2_begins_when_the_agent_answers(vm):
    assert Path("answers").exists()
"""


def test_the_agent_of_a_vm_that_was_taken_back_answers_before_the_next_test(
    simulated: Simulated, tmp_path: Path
) -> None:
    (tmp_path / "test_suite.py").write_text(SILENT)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--atp-config={simulated.config}"],
        cwd=tmp_path,
        env={**os.environ, "FLEET": FLEET, "PORT": str(simulated.port)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "2 passed" in result.stdout, result.stdout + result.stderr


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


SECRETS = '''
import asyncio, os
from atp_libvirt import AsyncFleet, Fleet

WORD = os.environ["WORD"]

def test_types(fleet):
    fleet.type("no-such-host/*", WORD)

def test_types_one_by_one(fleet):
    list(fleet.stream.type("no-such-host/*", WORD))

def test_plans(fleet):
    fleet.plan.exec("no-such-host/*", ["true"], env={"TOKEN": WORD})

def test_is_refused(fleet):
    fleet.type("h1/*", WORD + chr(7))

def test_runs(fleet):
    fleet.exec("no-such-host/*", ["login", WORD], stdin=WORD)

def test_runs_in_one(vm):
    vm.exec([], stdin=WORD)

def test_awaits(pytestconfig):
    async def work():
        async with AsyncFleet(pytestconfig.getoption("--atp-config")) as fleet:
            await fleet.shell("no-such-host/*", WORD)
    asyncio.run(work())

def test_has_a_token():
    Fleet(server="no url", token=WORD)
'''


def test_what_is_given_to_verbs_is_in_no_report(simulated: Simulated, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SECRETS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junit-xml=report.xml"]
    result = subprocess.run(
        [*command, f"--atp-config={simulated.config}"],
        cwd=tmp_path,
        env={**os.environ, "WORD": "hunter2"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "8 failed" in result.stdout, result.stdout + result.stderr
    for report in (result.stdout, result.stderr, (tmp_path / "report.xml").read_text()):
        assert "hunter2" not in report, report
