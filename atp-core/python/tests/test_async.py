"""The asyncio face, on simulated hosts."""

import asyncio
import fcntl
import socket
from pathlib import Path
from typing import Any, List

import pytest
from atp_libvirt import AsyncFleet, ClosedError, NotFreeError, RequestError, _streams
from conftest import Simulated, is_begun, is_under_way, wait_until


def test_a_verb_is_awaited(simulated: Simulated) -> None:
    async def work() -> None:
        async with AsyncFleet(simulated.config) as fleet:
            outcomes = await fleet.exec("*", ["true"], timeout=30)
            assert len(outcomes.raise_for_failures()) == 4
            with pytest.raises(RequestError):
                await fleet.vms("h9/*")

    asyncio.run(work())


def test_a_vm_that_was_found_is_worked_on_alone(simulated: Simulated) -> None:
    async def work() -> None:
        async with AsyncFleet(simulated.config) as fleet:
            vm = await fleet.vm("h1/vm1")
            assert (await vm.exec(["true"], timeout=60)).unwrap().exit_code == 0
            assert {await vm.state(timeout=60) for _ in range(3)} == {"running"}
            with pytest.raises(RequestError, match="not one"):
                await fleet.vm("h1/*")

    asyncio.run(work())


def test_outcomes_are_iterated_over_as_they_come(simulated: Simulated) -> None:
    async def work() -> None:
        async with AsyncFleet(simulated.config) as fleet:
            seen = [outcome.target async for outcome in fleet.stream.exec("*", ["true"])]
            assert len(set(seen)) == 4
            async with fleet.stream.vms() as stream:
                assert (await stream.__anext__()).ok
            assert [outcome async for outcome in stream] == []

    asyncio.run(work())


def test_events_come_while_vms_are_changed(simulated: Simulated) -> None:
    async def work() -> None:
        async with AsyncFleet(simulated.config) as fleet:
            async with fleet.events("h2/*") as events:
                assert (await events.__anext__()).item == "present"
                (await fleet.suspend("h2/vm2")).raise_for_failures()
                async for event in events:
                    if event.item == "event":
                        assert event.vm == "vm2"
                        break
            (await fleet.resume("h2/vm2")).raise_for_failures()
        # Nothing else holds this fleet.
        async for event in AsyncFleet(simulated.config).events("h1/*"):
            assert event.host == "h1"
            break
        else:
            pytest.fail("there were no events")

    asyncio.run(work())


def test_a_thousand_tasks_share_a_fleet(simulated: Simulated) -> None:
    async def work() -> None:
        async with AsyncFleet(simulated.config) as fleet:
            listings = await asyncio.gather(*(fleet.vms("h1/*", timeout=120) for _ in range(1000)))
            assert {len(listing.ok) for listing in listings} == {2}

    asyncio.run(work())


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_task_that_is_cancelled_ends_its_run(simulated: Simulated, tmp_path: Path, is_stream: bool) -> None:
    journal = tmp_path / "journal"

    async def read(fleet: AsyncFleet) -> None:
        if is_stream:
            async for _ in fleet.stream.exec("h2/*", ["true"], timeout=600, journal=journal):
                pass
        else:
            await fleet.exec("h2/*", ["true"], timeout=600, journal=journal)

    async def work() -> None:
        running = asyncio.get_running_loop()
        async with AsyncFleet(simulated.config) as fleet:
            task = asyncio.create_task(read(fleet))
            await running.run_in_executor(None, wait_until, lambda: is_begun(journal), "no run was begun")
            assert is_under_way(journal)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await running.run_in_executor(None, wait_until, lambda: not is_under_way(journal), "the run goes on")
            # The fleet is as usable as before.
            assert len(await fleet.vms()) == 4

    simulated.fault("h2/vm2", "hung")
    try:
        asyncio.run(work())
    finally:
        simulated.heal("h2/vm2")


def test_a_wait_that_is_cancelled_takes_no_outcome_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Letters(_streams._AsyncIterator[str]):
        def _read(self, portion: Any) -> List[str]:
            return list(portion)

    class Source:
        next_into = None

        def abort(self) -> None:
            pass

    async def work() -> None:
        may_come = asyncio.Event()
        portions = ["ab", "c", ""]

        class Loop:
            async def answer(self, _ask: Any) -> str:
                await may_come.wait()
                return portions.pop(0)

        monkeypatch.setattr(_streams, "loop", Loop)
        source: Any = Source()
        stream = Letters(source, None)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.__anext__(), 0.01)
        may_come.set()
        assert [letter async for letter in stream] == ["a", "b", "c"]
        await stream.aclose()

    asyncio.run(work())


def test_what_waits_is_answered_when_the_fleet_is_closed(hung: Simulated, tmp_path: Path) -> None:
    async def close(journal: Path) -> bool:
        """Whether the outcomes came."""
        fleet = AsyncFleet(hung.config)
        waiting = asyncio.ensure_future(fleet.exec("*", ["true"], timeout=600, journal=journal))
        running = asyncio.get_running_loop()
        await running.run_in_executor(None, wait_until, lambda: is_begun(journal), "no run was begun")
        await fleet.aclose()
        with pytest.raises(ClosedError):
            await fleet.vms()
        try:
            outcomes = await asyncio.wait_for(waiting, 60)
        except ClosedError as error:
            # On a slow machine they do not come within the second that they have.
            assert error.effect == "unknown"
            return False
        assert len({outcome.target for outcome in outcomes}) == len(outcomes) == 20
        assert {outcome.status for outcome in outcomes} <= {"cancelled", "skipped", "unreachable"}
        return True

    assert any(asyncio.run(close(tmp_path / f"journal-{number}")) for number in range(5))


def test_hosts_are_asked_for_without_holding_up_the_loop(simulated: Simulated) -> None:
    async def work() -> None:
        async with AsyncFleet(simulated.config) as fleet:
            assert [host.id for host in await fleet.hosts()] == ["h1", "h2"]
        # A service that accepts connections and says nothing.
        with socket.create_server(("127.0.0.1", 0)) as silent:
            async with AsyncFleet(server=f"http://127.0.0.1:{silent.getsockname()[1]}", token="x") as fleet:
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(fleet.hosts(), 0.2)

    asyncio.run(work())


def test_statistics_and_consoles_are_streams(simulated: Simulated) -> None:
    async def work() -> None:
        async with AsyncFleet(simulated.config) as fleet:
            assert len(await fleet.stats("*", interval=0.2)) == 4
            with pytest.raises(ValueError, match="count"):
                await fleet.stats("*", count=0)
            async with fleet.stream.stats("h1/*", interval=0.1) as samples:
                assert len(await samples.__anext__()) == 2
            async with fleet.console_lines("h1/vm1", timeout=600) as lines:
                assert (await lines.__anext__()).vm == "vm1"

    asyncio.run(work())


def test_reservations_end_with_their_block(simulated: Simulated, tmp_path: Path) -> None:
    async def work() -> None:
        async with AsyncFleet(simulated.config) as fleet:
            async with await fleet.reserve("h1/*", file=tmp_path / "vms", count=2) as reserved:
                with pytest.raises(NotFreeError):
                    await fleet.reserve("h1/*", file=tmp_path / "vms")
            assert reserved.targets == ["h1/vm1", "h1/vm2"]
            await fleet.reserve("h1/*", file=tmp_path / "vms", count=2)

    asyncio.run(work())


def test_a_release_that_waits_for_the_lock_leaves_the_loop_free(simulated: Simulated, tmp_path: Path) -> None:
    file = tmp_path / "vms"

    async def work() -> None:
        async with AsyncFleet(simulated.config) as fleet:
            await fleet.reserve("h1/vm1", file=file, owner="job-1")
            with open(f"{file}.lock", "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                releasing = asyncio.create_task(fleet.release("job-1", file))
                await asyncio.sleep(0.2)
                assert not releasing.done()
            assert [one.target for one in await releasing] == ["h1/vm1"]

    asyncio.run(work())


def test_a_reservation_that_waits_for_the_lock_leaves_the_loop_free(simulated: Simulated, tmp_path: Path) -> None:
    file = tmp_path / "vms"

    async def work() -> None:
        async with AsyncFleet(simulated.config) as fleet:
            async with await fleet.reserve("h1/*", file=file, count=2, owner="job-1"):
                assert [one.owner for one in await fleet.reservations(file)] == ["job-1"] * 2
                assert len(await fleet.release("job-1", file, targets="h1/vm2")) == 1
            with open(f"{file}.lock", "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                reserving = asyncio.create_task(fleet.reserve("h1/*", file=file, count=2))
                cancelled = asyncio.create_task(fleet.reserve("h2/*", file=file, count=2))
                await asyncio.sleep(1)
                assert not reserving.done() and not cancelled.done()
                cancelled.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await cancelled
            assert len(await reserving) == 2
            # What the cancelled one reserves when it gets the lock is given back.
            async with await fleet.reserve("h2/*", file=file, count=2, wait=120) as reserved:
                assert len(reserved) == 2

    asyncio.run(work())
