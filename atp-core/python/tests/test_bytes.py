"""Consoles and channels to read and to write, on simulated hosts: a console greets and sends back what it gets, a channel sends it back."""

import asyncio
import re
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from atp_libvirt import AsyncFleet, ByteStream, ClosedError, Fleet, OutcomeError, RequestError, _bytes
from conftest import ATP, Simulated, serving

#: Far more than anything takes here.
SOON = 120


def given_to_fleets(stack: ExitStack, how: str, simulated: Simulated, folder: Path) -> Dict[str, Any]:
    """What a fleet is made of that works on its hosts, or through a service."""
    if how == "hosts":
        return {"config": simulated.config}
    if not ATP:
        pytest.skip("there is no program atp: `cargo xtask python` builds it")
    server, token = stack.enter_context(serving(simulated.config, folder))
    return {"server": server, "token": token}


@pytest.fixture(scope="module", params=["hosts", "service"])
def given(
    request: pytest.FixtureRequest, simulated: Simulated, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Dict[str, Any]]:
    with ExitStack() as stack:
        yield given_to_fleets(stack, request.param, simulated, tmp_path_factory.mktemp("service"))


def read_all(stream: ByteStream, length: int) -> bytes:
    read = b""
    while len(read) < length:
        portion = stream.read(timeout=SOON)
        assert portion
        read += portion
    return read


def test_a_console_is_read_and_written(given: Dict[str, Any]) -> None:
    with Fleet(**given) as fleet:
        with fleet.attach("h1/vm1", timeout=SOON) as console:
            found = console.expect(r"(vm\d) login: ", timeout=SOON)
            assert found.match[1] == b"vm1" and b"Debian" in found.before
            console.write(b"root\nand more\n", timeout=SOON)
            before, match = console.expect(re.compile(b"ROOT\n", re.IGNORECASE), timeout=SOON)
            assert (before, match[0]) == (b"\r\n", b"root\n")
            assert read_all(console, 9) == b"and more\n"
        vm = fleet.vm("h1/vm2")
        with vm.attach(force=True) as console:
            assert b"vm2" in next(console)


def test_bytes_of_a_channel_come_back_as_they_were_sent(given: Dict[str, Any]) -> None:
    sent = bytes(n * 31 % 256 for n in range(600_000))
    with Fleet(**given) as fleet, fleet.vm("h2/vm1").channel("org.example.0", timeout=SOON) as channel:
        channel.write(sent, timeout=SOON)
        assert read_all(channel, len(sent)) == sent
    with Fleet(**given) as fleet, fleet.channel("h2/vm1", "org.example.0") as channel:
        channel.write(b"x")
        assert channel.read(timeout=SOON) == b"x"


def test_one_vm_is_chosen_and_runs(given: Dict[str, Any]) -> None:
    with Fleet(**given) as fleet:
        for selector, count in (("*", 4), ("zz*", 0)):
            with pytest.raises(RequestError, match=f"selects {count} VMs, and not one") as refused:
                fleet.attach(selector)
            assert (refused.value.kind, refused.value.effect) == ("invalid-request", "none") and refused.value.hint
            with pytest.raises(RequestError, match=f"selects {count} VMs, and not one"):
                fleet.channel(selector, "x")
        with pytest.raises(OutcomeError) as raised:
            fleet.attach("h1/vm9")
        assert raised.value.kind == "vm-not-found"
        fleet.destroy("h2/vm2").raise_for_failures()
        try:
            with pytest.raises(OutcomeError) as raised:
                fleet.channel("h2/vm2", "x", timeout=SOON)
            error = raised.value
            assert (error.kind, error.effect, bool(error.hint)) == ("vm-not-running", "none", True), error
        finally:
            fleet.start("h2/vm2").raise_for_failures()


def test_what_does_not_come_leaves_the_stream_as_it_was(given: Dict[str, Any]) -> None:
    with Fleet(**given) as fleet, fleet.channel("h1/vm1", "x") as channel:
        with pytest.raises(OutcomeError, match="nothing came within 0.2 s") as late:
            channel.read(timeout=0.2)
        assert (late.value.kind, late.value.effect, late.value.retryable) == ("condition-not-met", "none", True)
        channel.write(b"one two", timeout=SOON)
        channel.expect("one", timeout=SOON)
        with pytest.raises(OutcomeError, match=r"b'three' did not come within 0.5 s.*' two'"):
            channel.expect("three", timeout=0.5)
        channel.write(b" three", timeout=SOON)
        assert channel.expect("three", timeout=SOON).before == b" two "


def test_a_stream_that_was_closed_has_ended(given: Dict[str, Any]) -> None:
    fleet = Fleet(**given)
    channel = fleet.channel("h1/vm1", "x")
    read: List[bytes] = []
    reader = threading.Thread(target=lambda: read.extend(channel))
    reader.start()
    channel.write(b"x", timeout=SOON)
    until = time.monotonic() + SOON
    while read != [b"x"]:
        assert time.monotonic() < until
        time.sleep(0.01)
    channel.close()
    reader.join(SOON)
    assert not reader.is_alive() and channel.read() == b""
    channel.close()
    with pytest.raises(ClosedError):
        channel.write(b"x")
    with pytest.raises(ClosedError):
        channel.expect("x")
    # It ends with its fleet too.
    channel = fleet.channel("h1/vm1", "x")
    fleet.close()
    assert channel.read() == b""
    with pytest.raises(ClosedError):
        channel.write(b"x")
    with pytest.raises(OutcomeError, match="before the stream ended") as ended:
        channel.expect("x")
    assert not ended.value.retryable and ended.value.hint
    channel.close()
    with pytest.raises(ClosedError):
        fleet.attach("h1/vm1")


@pytest.mark.parametrize("how", ["hosts", "service"])
def test_a_stream_that_is_lost_says_so_after_what_came_before(how: str, tmp_path: Path) -> None:
    own = Simulated(tmp_path, ["--hosts", "1", "--vms", "1"])
    try:
        with ExitStack() as stack:
            fleet = stack.enter_context(Fleet(**given_to_fleets(stack, how, own, tmp_path / "service")))
            channel, unread = fleet.channel("h1/vm1", "x"), fleet.channel("h1/vm1", "x")
            unread.write(b"x", timeout=SOON)
            channel.write(b"last words", timeout=SOON)
            # It has come, and is read later.
            channel.expect("last", timeout=SOON)
            own.close()
            with pytest.raises(OutcomeError) as raised:
                read_all(channel, 1000)
            error = raised.value
            assert (error.kind, error.effect, error.retryable) == ("connection-lost", "none", True), error
            # Both the daemon and libvirt may be the first to say so.
            assert "the stream was lost: " in str(error) and "connection" in str(error)
            assert channel.read() == b""
            with pytest.raises(OutcomeError) as raised:
                channel.write(b"x", timeout=SOON)
            assert (raised.value.kind, raised.value.effect) == ("connection-lost", "none")
            channel.close()
            if how == "hosts":
                # Nobody has heard of the loss. A service may see that the guest's side is over before it sees why.
                with pytest.raises(OutcomeError) as raised:
                    unread.close()
                assert (raised.value.kind, raised.value.effect) == ("connection-lost", "unknown")
    finally:
        own.close()


def test_more_than_is_kept_for_a_reader_is_no_silent_loss(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet, fleet.channel("h1/vm1", "x") as channel:
        # All of it comes back, and nobody reads it.
        with suppress(OutcomeError):
            channel.write(bytes(8 << 20), timeout=SOON)
        with pytest.raises(OutcomeError) as raised:
            read_all(channel, 8 << 20)
        assert (raised.value.kind, raised.value.retryable) == ("output-too-large", True), raised.value


def test_coroutines_read_and_write(given: Dict[str, Any]) -> None:
    async def work() -> None:
        async with AsyncFleet(**given) as fleet:
            vm = await fleet.vm("h1/vm1")
            async with await vm.attach(timeout=SOON) as console:
                assert (await console.expect(r"(vm\d) login: \r\n", timeout=SOON)).match[1] == b"vm1"
                # A read that is cancelled, or too late, takes nothing with it.
                for kind in ("cancelled", "late"):
                    with pytest.raises((asyncio.TimeoutError, OutcomeError)):
                        if kind == "late":
                            await console.read(timeout=0.1)
                        await asyncio.wait_for(console.read(), 0.1)
                    await console.write(b"one two", timeout=SOON)
                    assert (await console.expect("one", timeout=SOON)).before == b""
                    with pytest.raises(asyncio.TimeoutError):
                        await asyncio.wait_for(console.expect("three"), 0.3)
                    await console.write(b" three", timeout=SOON)
                    assert (await console.expect("three", timeout=SOON)).before == b" two "
            assert await console.read() == b""
            with pytest.raises(ClosedError):
                await console.write(b"x")
            with pytest.raises(RequestError, match="selects 4 VMs"):
                await fleet.channel("*", "x")
            async with await fleet.channel("h2/vm1", "x") as channel:
                await asyncio.gather(*(channel.write(b"ab", timeout=SOON) for _ in range(100)))
                read = b""
                async for portion in channel:
                    read += portion
                    if len(read) == 200:
                        break
                assert read == b"ab" * 100

    asyncio.run(work())


def test_a_task_that_is_cancelled_opens_nothing(given: Dict[str, Any]) -> None:
    async def work() -> None:
        async with AsyncFleet(**given) as fleet:
            vm = await fleet.vm("h1/vm1")
            opening = asyncio.ensure_future(vm.attach())
            await asyncio.sleep(0)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            async with await fleet.attach("h1/vm1", timeout=SOON) as console:
                # A reader in another task is told that it was closed.
                reading = asyncio.ensure_future(console.expect("no such text", timeout=None))
                await asyncio.sleep(0.1)
                await console.aclose()
                with pytest.raises(ClosedError):
                    await asyncio.wait_for(reading, SOON)
            console = await vm.attach(timeout=SOON)
            await console.expect("login: \r\n", timeout=SOON)
            last = asyncio.ensure_future(console.read())
            await asyncio.sleep(0.1)
        # It ends with its fleet.
        assert await asyncio.wait_for(last, SOON) == b""
        assert [portion async for portion in console] == []
        await console.aclose()

    asyncio.run(work())


def test_a_search_keeps_a_bounded_part_of_what_came() -> None:
    search = _bytes._Search("begin.*end")
    assert search.look(b"a beg") is None
    found = search.look(b"in\nend b")
    assert found is not None and (found.before, found.match[0], search.rest) == (b"a ", b"begin\nend", b" b")
    search = _bytes._Search(b"end")
    for _ in range(40):
        assert search.look(bytes(100_000)) is None
    assert len(search.rest) == 1 << 20
    found = search.look(b"end" + bytes(5))
    assert found is not None and (len(found.before), search.rest) == (1 << 20, bytes(5))
