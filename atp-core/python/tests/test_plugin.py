"""The pytest plugin, in a suite of its own on simulated hosts."""

import os
import subprocess
import sys
from pathlib import Path

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
    assert '<property name="vm" value="h2/vm1"' in (tmp_path / "report.xml").read_text()
