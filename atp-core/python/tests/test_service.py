"""The same face through a service, on simulated hosts."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Iterator, Tuple

import pytest
from atp_libvirt import AsyncFleet, Fleet, NotFreeError, RequestError, ServiceError
from conftest import ATP, Simulated, runs_of, service_process, serving, wait_until, wait_until_ended

pytestmark = pytest.mark.skipif(not ATP, reason="there is no program atp: `cargo xtask python` builds it")


@pytest.fixture(scope="module")
def service(simulated: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuple[str, str]]:
    """The address of a service, and a token."""
    with serving(simulated.config, tmp_path_factory.mktemp("service")) as served:
        yield served


def test_verbs_have_the_same_outcomes(service: Tuple[str, str]) -> None:
    server, token = service
    with Fleet(server=server, token=token) as fleet:
        assert [host.id for host in fleet.hosts()] == ["h1", "h2"]
        outcomes = fleet.exec("*", ["true"], timeout=30).raise_for_failures()
        assert [outcome.target for outcome in outcomes] == ["h1/vm1", "h1/vm2", "h2/vm1", "h2/vm2"]
        assert outcomes[0].unwrap().exit_code == 0
        assert outcomes.statistics is not None
        seen = [outcome.target for outcome in fleet.stream.vms("h1/*")]
        assert sorted(seen) == ["h1/vm1", "h1/vm2"]
        with pytest.raises(RequestError):
            fleet.vms("h9/*")
        vm = fleet.vm("h1/vm2")
        assert (vm.exec(["true"], timeout=30).unwrap().exit_code, vm.state()) == (0, "running")


def test_events_come_while_vms_are_changed(service: Tuple[str, str]) -> None:
    with Fleet(server=service[0], token=service[1]) as fleet:
        with fleet.events("h1/*", exclude="h1/vm2") as events:
            first = next(events)
            assert (first.item, first.host) == ("present", "h1")
            assert [vm["name"] for vm in first.data["domains"]] == ["vm1"]
            fleet.suspend("h1/*").raise_for_failures()
            event = next(event for event in events if event.item == "event")
            assert (event.host, event.vm, event.kind) == ("h1", "vm1", "lifecycle")
        assert list(events) == []
        fleet.resume("h1/*").raise_for_failures()
        with pytest.raises(RequestError) as raised:
            next(fleet.events("h9/*"))
        assert raised.value.kind == "unknown-host"
        with fleet.events(["h1/vm1", "h1/vm9"]) as events:
            missed = next(event for event in events if event.item == "not-found")
        assert missed.data["target"] == "h1/vm9"


def test_statistics_are_those_of_the_hosts(service: Tuple[str, str]) -> None:
    with Fleet(server=service[0], token=service[1]) as fleet:
        statistics = fleet.stats("*", interval=0.5)
        for _ in range(30):  # On a busy machine one may be late for a round.
            if all(vm.stale is None and vm.cpu.percent is not None for vm in statistics):
                break
            statistics = fleet.stats("*", interval=0.5)
        assert [f"{vm.host}/{vm.vm}" for vm in statistics] == ["h1/vm1", "h1/vm2", "h2/vm1", "h2/vm2"]
        assert all(vm.stale is None and vm.cpu.percent is not None for vm in statistics)
        assert fleet.stats("h1/vm9", interval=0.1).not_found == ["h1/vm9"]
        with pytest.raises(RequestError):
            fleet.stats("h9/*")
        with fleet.stream.stats("h1/*", interval=0.1) as samples:
            assert [len(next(samples)) for _ in range(2)] == [2, 2]


def test_consoles_are_captured_in_files_of_this_machine(service: Tuple[str, str], tmp_path: Path) -> None:
    with Fleet(server=service[0], token=service[1]) as fleet:
        captured = fleet.console("*", tmp_path, timeout=8).raise_for_failures().values()
        assert [report.file for report in captured] == [
            str(tmp_path / host / f"{vm}.log") for host in ("h1", "h2") for vm in ("vm1", "vm2")
        ]
        assert all("the console is open" in Path(str(report.file)).read_text() for report in captured)
        with fleet.console_lines("h2/vm1", timeout=600) as lines:
            assert next(lines).vm == "vm1"


def test_files_are_those_of_this_machine(service: Tuple[str, str], tmp_path: Path) -> None:
    with Fleet(server=service[0], token=service[1]) as fleet:
        pictures = fleet.screenshot("*", tmp_path / "screens", timeout=30).raise_for_failures().values()
        assert [Path(picture.file) for picture in pictures] == [
            tmp_path / "screens" / host / f"{vm}.png" for host in ("h1", "h2") for vm in ("vm1", "vm2")
        ]
        assert all(Path(picture.file).stat().st_size == picture.bytes for picture in pictures)
        source = tmp_path / "source"
        source.write_bytes(b"sent" * 1000)
        (pushed,) = fleet.push("h1/vm1", source, "/tmp/x", timeout=30).values()
        assert (pushed.local_path, pushed.bytes) == (str(source), 4000)
        (pulled,) = fleet.pull("h1/vm1", "/tmp/x", tmp_path / "there", timeout=30).values()
        assert pulled.local_path == str(tmp_path / "there" / "h1" / "vm1" / "x")
        assert Path(pulled.local_path).read_bytes() == source.read_bytes()
        with pytest.raises(RequestError):
            fleet.push("h1/vm1", tmp_path / "none", "/tmp/x")


def test_files_of_a_scenario_are_those_of_this_machine(service: Tuple[str, str], tmp_path: Path) -> None:
    for vm in ("vm1", "vm2"):
        (tmp_path / f"{vm}.conf").write_text(f"for {vm}")
    (tmp_path / "common").write_text("for all")
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(
        f"""name: files
targets: ['h1/*']
steps:
  - cp: {{push: {tmp_path}/common, to: /tmp/common}}
  - cp: {{push: '{tmp_path}/${{vm}}.conf', to: /tmp/conf}}
  - cp: {{pull: /tmp/conf, to: {tmp_path}/there}}
  - screenshot: {tmp_path}/screens
"""
    )
    with Fleet(server=service[0], token=service[1]) as fleet:
        outcomes = fleet.run(scenario, timeout=60).raise_for_failures()
        for outcome in outcomes:
            steps = outcome.unwrap().steps
            assert [step.status for step in steps] == ["ok"] * 4
            assert (tmp_path / "there" / "h1" / str(outcome.vm) / "conf").read_text() == f"for {outcome.vm}"
            picture = tmp_path / "screens" / "h1" / f"{outcome.vm}.png"
            assert (steps[3].data["file"], picture.stat().st_size) == (str(picture), steps[3].data["bytes"])
        assert len(outcomes) == 2
        (tmp_path / "vm2.conf").unlink()
        (failed,) = fleet.run(scenario, timeout=60).failed
        assert failed.vm == "vm2"
        (tmp_path / "common").unlink()
        with pytest.raises(RequestError):
            fleet.run(scenario)


def test_files_that_a_scenario_includes_are_those_of_this_machine(service: Tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text("- exec: echo ${a}\n")
    (tmp_path / "main.yaml").write_text(
        "name: s\ntargets: ['h1/vm1']\nvariables: {a: b}\nsteps:\n  - include: part.yaml\n"
    )
    with Fleet(server=service[0], token=service[1]) as fleet:
        (report,) = fleet.run(tmp_path / "main.yaml", variables={"a": "c"}).raise_for_failures().values()
        assert [step.status for step in report.steps] == ["ok"]


def test_coroutines_use_it_too(service: Tuple[str, str]) -> None:
    async def work() -> None:
        async with AsyncFleet(server=service[0], token=service[1]) as fleet:
            listings = await asyncio.gather(*(fleet.vms("h1/*") for _ in range(5)))
            assert {len(listing.ok) for listing in listings} == {2}
            assert len(await fleet.stats("h1/*", interval=0.2)) == 2
            assert [host.id for host in await fleet.hosts()] == ["h1", "h2"]
            assert await fleet.reservations() == []
            async with fleet.events("h2/*") as events:
                assert (await events.__anext__()).host == "h2"

    asyncio.run(work())


def test_a_run_that_is_left_is_ended_in_the_service(simulated: Simulated, service: Tuple[str, str]) -> None:
    simulated.fault("h2/vm2", "hung")
    try:
        with Fleet(server=service[0], token=service[1]) as fleet:
            with fleet.stream.exec("h2/*", ["true"], timeout=600) as stream:
                assert next(stream).target == "h2/vm1"
            # It would go on for ten minutes.
            wait_until_ended(*service)
        # Nothing else holds this fleet.
        stream = Fleet(server=service[0], token=service[1]).stream.exec("h2/*", ["true"], timeout=600)
        assert next(stream).target == "h2/vm1"
        del stream
        wait_until_ended(*service)
    finally:
        simulated.heal("h2/vm2")


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_task_that_is_cancelled_ends_its_run_in_the_service(
    simulated: Simulated, service: Tuple[str, str], is_stream: bool
) -> None:
    async def read(fleet: AsyncFleet) -> None:
        if is_stream:
            async for _ in fleet.stream.exec("h2/*", ["true"], timeout=600):
                pass
        else:
            await fleet.exec("h2/*", ["true"], timeout=600)

    async def work() -> None:
        running = asyncio.get_running_loop()
        async with AsyncFleet(server=service[0], token=service[1]) as fleet:
            task = asyncio.create_task(read(fleet))
            await running.run_in_executor(None, wait_until, lambda: bool(runs_of(*service)), "no run was begun")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await running.run_in_executor(None, wait_until_ended, *service)

    simulated.fault("h2/vm2", "hung")
    try:
        asyncio.run(work())
    finally:
        simulated.heal("h2/vm2")


def test_a_fleet_that_is_closed_ends_its_runs_in_the_service(
    simulated: Simulated, service: Tuple[str, str]
) -> None:
    simulated.fault("h2/vm2", "hung")
    try:
        fleet = Fleet(server=service[0], token=service[1])
        stream = fleet.stream.exec("h2/*", ["true"], timeout=600)
        assert next(stream).target == "h2/vm1"
        fleet.close()
        wait_until_ended(*service)
    finally:
        simulated.heal("h2/vm2")


def test_each_target_has_an_outcome_although_its_service_is_lost(simulated: Simulated, tmp_path: Path) -> None:
    simulated.fault("h2/vm2", "hung")
    try:
        with service_process(simulated.config, tmp_path) as (process, server, token), Fleet(
            server=server, token=token
        ) as fleet:
            with fleet.stream.exec("*", ["true"], timeout=600) as stream:
                told = [next(stream) for _ in range(3)]
                process.kill()
                # Until then it is tried for a minute to reach the service again.
                (last,) = stream
            assert all(outcome.ok for outcome in told)
            assert last.error is not None
            assert (last.target, last.error.kind, last.error.effect) == ("h2/vm2", "outcome-unknown", "unknown")
    finally:
        simulated.heal("h2/vm2")


def test_a_run_that_has_ended_can_be_stopped_and_what_is_to_be_known_of_it_is_told(
    simulated: Simulated, service: Tuple[str, str]
) -> None:
    with Fleet(server=service[0], token=service[1]) as fleet:
        with fleet.stream.exec("*", ["true"], timeout=60) as stream:
            first = next(stream)
            wait_until_ended(*service)
            stream.stop()
            assert sorted(outcome.target for outcome in [first, *stream]) == ["h1/vm1", "h1/vm2", "h2/vm1", "h2/vm2"]
        outcomes = fleet.exec("*", ["true"], exclude="h1/nothing", timeout=60).raise_for_failures()
        assert any("h1/nothing" in notice for notice in outcomes.notices), outcomes.notices


def test_a_wrong_token_or_address_is_told(service: Tuple[str, str]) -> None:
    with Fleet(server=service[0], token="atp_wrong") as fleet:
        with pytest.raises(ServiceError) as raised:
            fleet.vms()
        assert raised.value.kind == "not-authenticated"
    with Fleet(server="http://127.0.0.1:1", token="x") as fleet:
        with pytest.raises(ServiceError, match="cannot be reached"):
            fleet.hosts()
        with pytest.raises(ServiceError) as raised:
            fleet.release("job-1")
        # Nothing was sent.
        assert raised.value.effect == "none"
    with pytest.raises(TypeError):
        Fleet(server="http://127.0.0.1:1")


def test_jobs_that_use_one_service_never_have_one_vm(service: Tuple[str, str], tmp_path: Path) -> None:
    server, token = service
    with Fleet(server=server, token=token) as fleet, Fleet(server=server, token=token) as other:
        with fleet.reserve("h1/*", count=2, time=600) as reserved:
            assert reserved.targets == ["h1/vm1", "h1/vm2"]
            with pytest.raises(NotFreeError, match="0 of the 2 selected are free") as raised:
                other.reserve("h1/*", wait=0.1)
            assert raised.value.retryable
            with other.reserve("*", owner="job-1", exclude="h2/vm1") as others:
                assert (others.targets, others[0].owner) == (["h2/vm2"], "job-1")
                more = other.reserve("h2/*", owner="job-1")
                assert [one.target for one in more.release()] == ["h2/vm1"]
                assert [one.target for one in fleet.release("job-1")] == ["h2/vm2"]
            assert reserved[0].until.year > 2000
        assert fleet.release("job-1") == []
        other.reserve("h2/*", owner="job-2", count=2)
        assert [(one.target, one.owner) for one in fleet.reservations()] == [("h2/vm1", "job-2"), ("h2/vm2", "job-2")]
        assert fleet.release("job-2", targets=[]) == []
        assert [one.target for one in fleet.release("job-2", targets="h2/vm1")] == ["h2/vm1"]
        assert len(fleet.release("job-2")) == 1
        with pytest.raises(NotFreeError, match="9 VMs are wanted, and 4 are selected"):
            fleet.reserve("*", count=9)
        granted = fleet.reserve("h1/*", count=2)
        later = threading.Timer(0.2, granted.release)
        later.start()
        with other.reserve("h1/vm1", wait=60) as reserved:
            assert len(reserved) == 1
        later.join()
        with pytest.raises(RequestError):
            fleet.reserve("h9/*")
        with pytest.raises(TypeError, match="file is for a fleet without a service"):
            fleet.reserve("*", file=tmp_path / "vms")
        with pytest.raises(TypeError, match="exclude, state and labels"):
            fleet.reserve("*", timeout=10)
        with pytest.raises(ValueError, match="time"):
            fleet.reserve("*", time=0)


def test_what_a_cancelled_task_has_reserved_is_given_back(service: Tuple[str, str]) -> None:
    async def work() -> None:
        async with AsyncFleet(server=service[0], token=service[1]) as fleet:
            for _ in range(5):
                task = asyncio.create_task(fleet.reserve("*", count=4))
                # It sends its request in its first step.
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            async with await fleet.reserve("*", count=4, wait=120) as reserved:
                assert len(reserved) == 4
            assert await fleet.release(reserved[0].owner) == []

    asyncio.run(work())


SUITE = """
import pytest
from atp_libvirt import NotFreeError

@pytest.mark.parametrize("number", range(4))
@pytest.mark.vms("h1/*", isolate="snapshot")
def test_has_a_vm_that_no_other_job_gets(vm, fleet, number):
    assert vm.exec(["true"]).exit_code == 0
    with pytest.raises(NotFreeError):
        fleet.reserve(vm.target)
"""


def test_settings_that_name_a_service_are_enough_for_a_suite(
    service: Tuple[str, str], simulated: Simulated, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(service[1])
    config = tmp_path / "service.toml"
    config.write_text(f'server = "{service[0]}"\nserver_token_file = "{tmp_path}/token"\ntimeout = "30s"\n')
    (tmp_path / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-n", "2", "-q", f"--atp-config={config}", "-p", "no:cacheprovider"]
    with Fleet(config) as fleet:
        with fleet.reserve("h1/vm1", wait=60):
            result = subprocess.run(
                [*command, "--atp-wait=120"], cwd=tmp_path, capture_output=True, text=True, timeout=240
            )
        assert "4 passed" in result.stdout, result.stdout + result.stderr
        # What the suite had is free, and as it was.
        with fleet.reserve("*", count=4, wait=60):
            assert all(listed.snapshots == [] for listed in fleet.snapshot_list("*").values())
        result = subprocess.run(
            [*command, "--atp-reservations=there"], cwd=tmp_path, capture_output=True, text=True, timeout=240
        )
        assert "the service has the reservations itself" in result.stdout, result.stdout + result.stderr
