"""What needs real guests: those of a testbed, which `cargo xtask python --testbed` runs these tests in."""

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Callable

import pytest
from atp_libvirt import ByteStream, Fleet, OutcomeError, read_journal
from conftest import ATP, serving

#: The program `testbed`.
TESTBED = os.environ.get("ATP_TEST_TESTBED", "")

#: The worked example of the guide.
SUITE = Path(__file__).parent.parent / "examples" / "suite" / "test_guests.py"

pytestmark = pytest.mark.skipif(not TESTBED, reason="there is no testbed: see `cargo xtask python --testbed`")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of the testbed."""
    file = tmp_path_factory.mktemp("testbed") / "testbed.toml"
    file.write_text(subprocess.run([TESTBED, "config"], check=True, capture_output=True, text=True).stdout)
    return file


def test_a_file_goes_into_a_guest_and_comes_back(config: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 16)
    with Fleet(config) as fleet:
        pushed = fleet.push("*", source, "/tmp/x", timeout=60).raise_for_failures()
        assert {report.bytes for report in pushed.values()} == {4096}
        pulled = fleet.pull("*", "/tmp/x", tmp_path / "there", timeout=60).raise_for_failures()
        assert {Path(report.local_path).read_bytes() for report in pulled.values()} == {source.read_bytes()}


def test_a_folder_goes_into_a_guest_and_comes_back(config: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "empty").mkdir(parents=True)
    (source / "below" / "further").mkdir(parents=True)
    files = {"a": b"", "below/b": bytes(range(256)) * 16, "below/further/c": b"c\n"}
    for name, content in files.items():
        (source / name).write_bytes(content)
    (source / "below" / "b").chmod(0o755)
    with Fleet(config) as fleet:
        targets = [vm.target for vm in fleet.vms()][:2]
        pushed = fleet.push(targets, source, "/tmp/folder", recursive=True, timeout=120).raise_for_failures()
        assert {report.local_path for report in pushed.values()} == {str(source)}
        line = "cd /tmp/folder && find . -type f | sort && test -x below/b && test -d empty && cat below/further/c"
        listed = fleet.shell(targets, line, timeout=60).raise_for_failures().values()
        assert {report.stdout.text for report in listed} == {"./a\n./below/b\n./below/further/c\nc\n"}
        pulled = fleet.pull(targets, "/tmp/folder", tmp_path / "there", recursive=True, timeout=120)
        for report in pulled.raise_for_failures().values():
            there = Path(report.local_path)
            found = {str(file.relative_to(there)): file.read_bytes() for file in there.rglob("*") if file.is_file()}
            assert found == files
            assert (there / "empty").is_dir() and os.access(there / "below" / "b", os.X_OK)


def test_a_console_has_what_the_guest_says(config: Path) -> None:
    with Fleet(config) as fleet:
        fleet.wait("*", timeout=120).raise_for_failures()
        target = fleet.vms()[0].target
        with fleet.console_lines(target, timeout=120) as lines:
            assert "the console is open" in next(lines).text
            fleet.shell(target, "echo said by the guest > /dev/ttyS0", timeout=60).raise_for_failures()
            said = next(line for line in lines if "said by the guest" in line.text or line.error is not None)
            assert said.error is None
        (sample,) = fleet.stats(target, interval=1)
        assert sample.stale is None and sample.cpu.percent is not None and sample.memory.resident_kib


def test_a_run_is_planned_recorded_resumed_and_reported(config: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with Fleet(config) as fleet:
        fleet.wait("*", timeout=120).raise_for_failures()
        plan = fleet.plan.reboot("*", timeout=60)
        assert plan.disruptive and len(plan.to_do) == len(plan.targets) == len(fleet.vms())
        first, *others = [target.target for target in plan.to_do]
        assert [one.target for one in fleet.plan.resume(first, timeout=60).unchanged] == [first]
        fleet.exec(first, ["sh", "-c", "echo once >> /tmp/recorded"], journal=journal, timeout=60).raise_for_failures()
        left = fleet.exec("*", ["sh", "-c", "echo once >> /tmp/recorded"], resume=journal, timeout=60)
        assert (len(left), left.done_before) == (0, 1)
        assert others and [(one.target, one.progress) for one in read_journal(journal).targets] == [(first, "finished")]
        outcomes = fleet.exec(first, ["cat", "/tmp/recorded"], timeout=60).raise_for_failures()
        assert outcomes[0].unwrap().stdout.text == "once\n"
        outcomes.to_junit(tmp_path / "report.xml")
        assert "<system-out>once" in (tmp_path / "report.xml").read_text()


def opened(attempt: Callable[[], ByteStream]) -> ByteStream:
    """Opens what may have been open a moment ago: the daemon may not have noticed yet that it was closed."""
    until = time.monotonic() + 120
    while True:
        try:
            return attempt()
        except OutcomeError as error:
            assert error.kind == "channel-in-use" and time.monotonic() < until, error
        time.sleep(0.1)


def comes(again: Callable[[], object], console: ByteStream, pattern: str) -> None:
    """Something comes. Until QEMU has noticed that the console is open it drops what is written."""
    until = time.monotonic() + 120
    while True:
        again()
        try:
            console.expect(pattern, timeout=3)
            return
        except OutcomeError as error:
            assert error.kind == "condition-not-met" and error.retryable and time.monotonic() < until, error


@pytest.mark.parametrize(
    "how",
    ["hosts", pytest.param("service", marks=pytest.mark.skipif(not ATP, reason="there is no program atp"))],
)
def test_consoles_and_channels_are_read_and_written(config: Path, tmp_path: Path, how: str) -> None:
    with nullcontext() if how == "hosts" else serving(config, tmp_path) as served:
        fleet = Fleet(config) if served is None else Fleet(server=served[0], token=served[1])
        with fleet:
            fleet.wait("*", timeout=120).raise_for_failures()
            target = fleet.vms()[0].target
            vm = fleet.vm(target)
            # All values of bytes, in more than one packet.
            fleet.exec(target, ["channel-peer", "bytes"], timeout=60).raise_for_failures()
            sent = bytes(n * 31 % 256 for n in range(300_000))
            name = "org.atp.test.channel"
            with opened(lambda: vm.channel(name, timeout=60)) as channel:
                channel.write(sent, timeout=120)
                read = b""
                while len(read) < len(sent):
                    read += channel.read(timeout=120)
                assert read == sent
                with pytest.raises(OutcomeError) as taken:
                    fleet.channel(target, name, timeout=60)
                error = taken.value
                assert (error.kind, error.effect, error.retryable) == ("channel-in-use", "none", True), error
                with fleet.channel(target, name, force=True, timeout=60) as second:
                    second.write(b"mine", timeout=120)
                    assert second.expect("mine", timeout=120).before == b""
                    ends(channel)

            vm.shell('while read -r line; do echo "got $line"; done < /dev/ttyS0 > /dev/ttyS0 2> /dev/null &', timeout=60).unwrap()
            with opened(lambda: fleet.attach(target, timeout=60)) as console:
                comes(lambda: vm.shell("echo said by the guest > /dev/ttyS0", timeout=60).unwrap(), console, "said by the guest")
                comes(lambda: console.write(b"typed here\r", timeout=60), console, "got typed here")
                fleet.destroy(target, timeout=60).raise_for_failures()
                ends(console)
            with pytest.raises(OutcomeError) as off:
                fleet.attach(target, timeout=60)
            assert off.value.kind == "vm-not-running", off.value
            fleet.start(target, wait="agent", timeout=120).raise_for_failures()


def ends(stream: ByteStream) -> None:
    """Its other side has ended it: by a word, or without one."""
    try:
        while stream.read(timeout=120):
            pass
    except OutcomeError as error:
        assert error.kind != "condition-not-met", error
    assert stream.read() == b""


def test_programs_run_in_guests_and_screens_are_seen(config: Path, tmp_path: Path) -> None:
    with Fleet(config) as fleet:
        fleet.wait("*", timeout=120).raise_for_failures()
        kernels = fleet.exec("*", ["uname", "-s"], timeout=60).raise_for_failures()
        assert list(kernels.grouped()) == ["Linux"]
        (echoed,) = fleet.exec(kernels[0].target, ["cat"], stdin=b"\xff\x00", timeout=60)
        assert echoed.unwrap().stdout.base64 or echoed.unwrap().stdout.encoding == "base64"
        failed = fleet.shell(kernels[0].target, "exit 3", timeout=60)[0]
        assert failed.error is not None
        assert (failed.status, failed.error.kind, failed.error.effect) == ("failed", "exit-nonzero", "done")
        assert failed.data is not None and failed.data.exit_code == 3
        picture = fleet.screenshot(kernels[0].target, tmp_path).values()[0]
        assert Path(picture.file).read_bytes().startswith(b"\x89PNG")
        report = fleet.info(kernels[0].target, timeout=60).values()[0]
        assert report.guest is not None and report.guest.os is not None


#: Hides the libraries of libvirt from the program that it starts.
HIDE = 'for file in /usr/lib/*/libvirt*.so*; do mount --bind /dev/null "$file"; done; exec "$@"'

WITHOUT_LIBVIRT = '''
import asyncio, ctypes, sys
import atp_libvirt
from atp_libvirt import AsyncFleet, Fleet

try:
    ctypes.CDLL("libvirt.so.0")
except OSError:
    pass
else:
    sys.exit("libvirt is here")

with Fleet(sys.argv[1]) as fleet:
    frame = fleet.exec("*", ["uname", "-s"], timeout=60).raise_for_failures().to_polars()
    assert set(frame["stdout"]) == {"Linux\\n"}, frame
    vm = fleet.vms()[0].target
    fleet.snapshot_create(vm, "here", timeout=120).raise_for_failures()
    assert [one.name for one in fleet.snapshot_list(vm).values()[0].snapshots] == ["here"]
    fleet.snapshot_delete(vm, "here", timeout=120).raise_for_failures()
    assert fleet.screenshot(vm, sys.argv[2], timeout=60).ok
    assert fleet.stats(vm, interval=1)[0].stale is None
    with fleet.events(vm) as events:
        assert next(events).item == "present"
        fleet.suspend(vm, timeout=60).raise_for_failures()
        assert next(event.kind for event in events if event.item == "event") == "lifecycle"
    fleet.resume(vm, timeout=60).raise_for_failures()

async def listed():
    async with AsyncFleet(sys.argv[1]) as fleet:
        return (await fleet.vms()).raise_for_failures()

assert len(asyncio.run(listed())) == 4
'''


def test_no_library_of_libvirt_is_needed(config: Path, tmp_path: Path) -> None:
    with Fleet(config) as fleet:
        fleet.wait("*", timeout=120).raise_for_failures()
    program = [sys.executable, "-c", WITHOUT_LIBVIRT, str(config), str(tmp_path)]
    command = ["unshare", "--mount", "sh", "-ec", HIDE, "sh", *program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stdout + result.stderr


REVERTED = '''
import os
import pytest

@pytest.mark.vms(os.environ["TARGET"], isolate="snapshot")
def test_1_is_taken_back(vm):
    assert vm.exec(["uname"], timeout=60, retries=0).stdout.text == "Linux\\n"
    # The agent's channel is closed, and opened by the snapshot.
    vm.destroy().unwrap()

@pytest.mark.vms(os.environ["TARGET"], isolate="snapshot:ready")
def test_2_begins_with_a_snapshot(vm):
    assert vm.exec(["uname"], timeout=60, retries=0).stdout.text == "Linux\\n"

@pytest.mark.vms(os.environ["TARGET"])
def test_3_uses_the_agent_at_once(vm):
    assert vm.exec(["uname"], timeout=60, retries=0).stdout.text == "Linux\\n"
'''


def test_the_first_command_after_a_vm_was_taken_back_succeeds(config: Path, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(REVERTED)
    with Fleet(config) as fleet:
        fleet.wait("*", timeout=120).raise_for_failures()
        target = fleet.vms()[0].target
        fleet.snapshot_create(target, "ready", timeout=120).raise_for_failures()
        try:
            result = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", f"--atp-config={config}"],
                cwd=tmp_path,
                env={**os.environ, "TARGET": target},
                capture_output=True,
                text=True,
                timeout=400,
            )
        finally:
            fleet.snapshot_delete(target, "ready", timeout=120).raise_for_failures()
    assert "3 passed" in result.stdout, result.stdout + result.stderr


BROKEN = '''
import pytest

@pytest.mark.vms("*", isolate="snapshot")
def test_is_broken(vm):
    vm.shell("echo what the guest says > /dev/ttyS0")
    assert False
'''


def test_a_suite_shares_four_vms_among_four_workers(config: Path, tmp_path: Path) -> None:
    shutil.copy(SUITE, tmp_path)
    (tmp_path / "test_broken.py").write_text(BROKEN)
    command = [sys.executable, "-m", "pytest", "-n", "4", "-q", "--junit-xml=report.xml", "--atp-evidence=evidence"]
    with Fleet(config) as fleet:
        fleet.wait("*", timeout=120).raise_for_failures()
        result = subprocess.run(
            [*command, f"--atp-config={config}"], cwd=tmp_path, capture_output=True, text=True, timeout=400
        )
        assert "1 failed, 6 passed" in result.stdout, result.stdout + result.stderr
        report = (tmp_path / "report.xml").read_text()
        files = [Path(file) for file in re.findall(r'name="evidence" value="([^"]+)"', report)]
        assert sorted(file.suffix for file in files) == [".log", ".png", ".txt"]
        (console,) = [file for file in files if file.suffix == ".log"]
        assert "what the guest says" in console.read_text(errors="replace")
        # Nothing is left of any test.
        assert all(listed.snapshots == [] for listed in fleet.snapshot_list("*").values())
        assert {vm.state for vm in fleet.vms().values()} == {"running"}
