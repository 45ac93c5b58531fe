"""A suite that shares four VMs among four workers. Their disks have to keep snapshots (qcow2).

    pip install target/python/wheels/atp_libvirt-*.whl pytest pytest-xdist     # the wheel of `cargo xtask python`
    pytest -n 4 --atp-config fleet.toml --atp-evidence evidence --junit-xml report.xml
"""

import pytest
from atp_libvirt import Fleet
from atp_libvirt.pytest_plugin import Vm

#: Each test goes back to what its VMs were before it: what it does to them is seen by no other test.
pytestmark = pytest.mark.vms("*", isolate="snapshot")


@pytest.mark.parametrize("number", range(4))
def test_finds_nothing_of_others(vm: Vm, number: int) -> None:
    assert vm.shell("cat /tmp/mark", check=False).exit_code != 0
    vm.shell(f"echo {number} > /tmp/mark")
    assert vm.shell("cat /tmp/mark").stdout.text == f"{number}\n"


def test_pauses_its_vm(vm: Vm, fleet: Fleet) -> None:
    fleet.suspend(vm.target).raise_for_failures()
    assert fleet.vms(vm.target, state="paused")[0].ok


@pytest.mark.vms("*", count=2, isolate="snapshot")
def test_has_two_vms(vms: "list[Vm]", fleet: Fleet) -> None:
    targets = [vm.target for vm in vms]
    outcomes = fleet.exec(targets, ["cat", "/proc/sys/kernel/random/boot_id"], timeout=60).raise_for_failures()
    assert len(outcomes.grouped()) == 2
