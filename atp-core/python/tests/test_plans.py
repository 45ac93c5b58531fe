"""Plans: what verbs would do, on simulated hosts and through a service."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest
from atp_libvirt import AsyncFleet, Fleet, Plan, RequestError
from conftest import ATP, Simulated, serving


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    """Two hosts, of which one refuses connections; a VM of the other is shut off."""
    fleet = Simulated(tmp_path_factory.mktemp("two"), ["--hosts", "2", "--vms", "2"])
    with Fleet(fleet.config) as setting:
        setting.destroy("h1/vm2").raise_for_failures()
    fleet.fault("h2", "refused")
    yield fleet
    fleet.close()


@pytest.fixture(scope="module")
def service(two: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuple[str, str]]:
    with serving(two.config, tmp_path_factory.mktemp("service")) as served:
        yield served


def told(plan: Plan) -> List[Tuple[str, str, Optional[str]]]:
    """A plan in the words of the command line."""
    status = {"proceed": "skipped", "unchanged": "unchanged", "not-running": "skipped"}
    targets = [
        (one.target, status[one.expected], None if one.error is None else one.error.message) for one in plan.targets
    ]
    return targets + [(one.target, one.status, None) for one in plan.settled]


def check(plan: Plan) -> None:
    """The plan of a command of the guest on all VMs."""
    assert (plan.op, plan.disruptive) == ("exec", False)
    assert [one.target for one in plan.to_do] == ["h1/vm1"]
    (refused,) = plan.refused
    assert refused.target == "h1/vm2" and refused.listed is not None and refused.listed.state == "shut off"
    assert refused.error is not None and refused.error.effect == "none"
    assert refused.error.message.startswith("it would fail: ")
    (lost,) = plan.settled
    assert (lost.host, lost.vm, lost.status) == ("h2", None, "unreachable")


def test_a_plan_tells_what_would_be_done_and_does_nothing(two: Simulated) -> None:
    with Fleet(two.config) as fleet:
        check(fleet.plan.exec("*", ["reboot"], timeout=60))
        plan = fleet.plan.start("h1/*")
        assert [one.target for one in plan.unchanged] == ["h1/vm1"]
        assert [one.target for one in plan.to_do] == ["h1/vm2"]
        assert fleet.plan.destroy("h1/*").disruptive
        assert fleet.plan.check("h1").targets[0].vm is None
        assert {vm.target: vm.data.state for vm in fleet.vms("h1/*") if vm.data} == {
            "h1/vm1": "running",
            "h1/vm2": "shut off",
        }
        # What is wrong with the request is told as it is of a run.
        with pytest.raises(RequestError) as raised:
            fleet.plan.exec("h9/*", ["true"])
        assert raised.value.kind == "unknown-host"
        with pytest.raises(RequestError, match="journal= is for runs"):
            fleet.plan.vms("*", journal="j")
    assert "reboot" not in json.dumps(two.report()["hosts"]["h1"]["vms"])


def test_a_plan_is_awaited(two: Simulated) -> None:
    async def plan() -> Plan:
        async with AsyncFleet(two.config) as fleet:
            return await fleet.plan.exec("*", ["reboot"], timeout=60)

    check(asyncio.run(plan()))


@pytest.mark.skipif(not ATP, reason="there is no program atp: `cargo xtask python` builds it")
def test_the_command_line_tells_the_same(two: Simulated) -> None:
    command = [ATP, "--config", str(two.config), "vm", "start", "*", "--dry-run", "-o", "json"]
    printed: List[Dict[str, Any]] = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    own = [
        (
            f"{one['host']}/{one['vm'] or ''}",
            one["status"],
            one["error"]["message"] if one["vm"] and one["error"] else None,
        )
        for one in printed
    ]
    with Fleet(two.config) as fleet:
        assert sorted(told(fleet.plan.start("*"))) == sorted(own)


@pytest.mark.skipif(not ATP, reason="there is no program atp: `cargo xtask python` builds it")
def test_a_service_plans_the_same(service: Tuple[str, str]) -> None:
    server, token = service
    with Fleet(server=server, token=token) as fleet:
        check(fleet.plan.exec("*", ["reboot"], timeout=60))
        with pytest.raises(RequestError, match="what is left of a run of a service"):
            fleet.plan.vms("*", resume=1)

    async def plan() -> Plan:
        async with AsyncFleet(server=server, token=token) as fleet:
            return await fleet.plan.exec("*", ["reboot"], timeout=60)

    check(asyncio.run(plan()))


def test_a_plan_shows_what_is_left_of_a_journal(two: Simulated, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with Fleet(two.config) as fleet:
        fleet.exec("h1/vm1", ["true"], journal=journal).raise_for_failures()
        plan = fleet.plan.exec("h1/vm1", ["true"], resume=journal)
        assert (plan.targets, plan.done_before) == ([], 1)
