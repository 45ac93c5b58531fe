"""The pytest plugin: virtual machines for tests.

The fixture ``vms`` gives a test the VMs that its marker asks for, and ``vm`` one of them. No two tests on this machine have a VM at
the same time: workers of pytest-xdist wait for each other.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Callable, Dict, Generator, Iterator, List, Optional, Sequence, Tuple

import pytest

from ._data import ConsoleReport, ExecReport
from ._errors import AtpError
from ._fleet import Fleet
from ._outcomes import Outcome, Outcomes
from ._reservations import attempt
from ._verbs import escaped
from ._streams import Stream

#: How often it is looked whether VMs have become free, seconds.
_INTERVAL = 0.2

#: How long a snapshot of a VM may take to be made, reverted to or removed, seconds.
_SNAPSHOT_TIMEOUT = 120

#: How long a console is captured at most, seconds.
_CONSOLE_TIMEOUT = 86400

#: How long a test waits for its consoles to be open, seconds.
_CONSOLE_PATIENCE = 5

#: How long a picture may take, seconds.
_SCREENSHOT_TIMEOUT = 10

_KEY: pytest.StashKey[_Hold] = pytest.StashKey()

#: What no test gets any more: VMs of failed tests that are kept as they are. Locks end with this process, reservations with their time.
_kept: List[_Hold] = []


@dataclass
class Vm:
    """A virtual machine that a test has to itself."""

    #: The fleet that it is in.
    fleet: Fleet = field(repr=False)
    #: The host that it is on.
    host: str
    #: Its name.
    name: str
    #: Its identity.
    uuid: str
    #: What the test has run in it, for the report of a failure.
    log: List[str] = field(repr=False)

    @property
    def target(self) -> str:
        """The selector of this VM alone, for the verbs of the fleet."""
        return f"{self.host}/{escaped(self.name)}"

    def exec(self, argv: Sequence[str], *, check: bool = True, **options: Any) -> ExecReport:
        """Runs a program in the guest; see :meth:`Fleet.exec`.

        :param check: Whether an exit code that is not 0 is an error.
        :raises OutcomeError: It could not be run, or has failed.
        """
        return self._ran(" ".join(argv), self.fleet.exec(self.target, argv, **options)[0], check)

    def shell(self, line: str, *, check: bool = True, **options: Any) -> ExecReport:
        """Runs a line of the guest's shell; see :meth:`exec`."""
        return self._ran(line, self.fleet.shell(self.target, line, **options)[0], check)

    def _ran(self, shown: str, outcome: Outcome[ExecReport], check: bool) -> ExecReport:
        data = outcome.data
        written = outcome.status if data is None else data.stdout.text + data.stderr.text
        self.log.append(f"$ {shown}\n{written}")
        if data is not None and (outcome.ok or not check):
            return data
        return outcome.unwrap()


@dataclass
class _Hold:
    """The VMs of one test, from the time that it gets them until it gives them back."""

    fleet: Fleet
    vms: List[Vm]
    #: Gives them back.
    free: Callable[[], Any]
    #: The folder of the test's evidence, if any is collected.
    folder: Optional[Path] = None
    #: The snapshot that the VMs go back to, and whether the test has made it.
    snapshot: Optional[Tuple[str, bool]] = None
    consoles: Optional[Stream[ConsoleReport]] = None
    has_failed: bool = False
    #: Whether the VMs were given back.
    is_over: bool = False
    #: Files that were collected.
    evidence: List[str] = field(default_factory=lambda: [])

    @property
    def targets(self) -> List[str]:
        return [vm.target for vm in self.vms]

    def begin(self, isolate: Optional[str]) -> None:
        """Makes the VMs ready for the test."""
        if isolate is not None:
            kind, _, name = isolate.partition(":")
            if kind != "snapshot":
                raise pytest.UsageError(f"isolate={isolate!r}: 'snapshot' and 'snapshot:NAME' are known")
            if name:
                self._revert(name)
                self.snapshot = (name, False)
            else:
                name = f"atp-test-{uuid.uuid4().hex[:12]}"
                made = self.fleet.snapshot_create(self.targets, name, timeout=_SNAPSHOT_TIMEOUT)
                if made.failed:
                    self._delete(name)
                made.raise_for_failures()
                self.snapshot = (name, True)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.consoles = self.fleet.stream.console(self.targets, self.folder, timeout=_CONSOLE_TIMEOUT)
            self._wait_for_consoles(self.folder)

    def collect(self) -> List[Tuple[str, str]]:
        """What is known of the VMs of a failed test, as sections of its report."""
        sections = [(f"commands in {vm.target}", "\n".join(vm.log) or "none") for vm in self.vms]
        if self.folder is None:
            return sections
        for vm in self.vms:
            sections.append((f"screen of {vm.target}", self._screen(vm, self.folder)))
        sections.extend(self._consoles())
        for (name, text), vm in zip(sections, self.vms):
            file = self.folder / f"{_file_name(vm.target)}.commands.txt"
            file.write_text(f"{name}\n{text}\n", encoding="utf-8", errors="replace")
            self.evidence.append(str(file))
        return sections

    def end(self, keep: bool) -> None:
        """Gives the VMs back: as they were, if the test is isolated."""
        self.is_over = True
        # Nothing is written any more when the capture has ended.
        for _ in self._consoles():
            pass
        if self.folder is not None and not self.has_failed:
            shutil.rmtree(self.folder, ignore_errors=True)
        if keep and self.has_failed:
            _kept.append(self)
            return
        try:
            if self.snapshot is not None:
                name, is_own = self.snapshot
                self._revert(name)
                if is_own:
                    self._delete(name).raise_for_failures()
        except BaseException:
            # No other test gets a VM that is not as it was.
            _kept.append(self)
            raise
        self.free()

    def _revert(self, name: str) -> None:
        self.fleet.snapshot_revert(self.targets, name, timeout=_SNAPSHOT_TIMEOUT).raise_for_failures()

    def _delete(self, name: str) -> Outcomes[Any]:
        return self.fleet.snapshot_delete(self.targets, name, timeout=_SNAPSHOT_TIMEOUT)

    def _screen(self, vm: Vm, folder: Path) -> str:
        """Takes a picture; says where it is, or why there is none."""
        try:
            file = self.fleet.screenshot(vm.target, folder, timeout=_SCREENSHOT_TIMEOUT)[0].unwrap().file
        except AtpError as error:
            return str(error)
        self.evidence.append(file)
        return file

    def _wait_for_consoles(self, folder: Path) -> None:
        """Waits until the consoles are open: what a VM writes before is not seen. One that cannot be opened is told at the end."""
        latest = time.monotonic() + _CONSOLE_PATIENCE
        while time.monotonic() < latest:
            # The first line of a file says that its console is open.
            if sum(file.stat().st_size > 0 for file in folder.glob("*/*.log")) >= len(self.vms):
                return
            time.sleep(0.05)

    def _consoles(self) -> Iterator[Tuple[str, str]]:
        """Ends the capture; says where the files are, or why there are none."""
        if self.consoles is None:
            return
        captures, self.consoles = self.consoles, None
        try:
            captures.stop()
            for outcome in captures:
                report = outcome.data
                text = str(outcome.error or "")
                if report is not None and report.file is not None:
                    self.evidence.append(report.file)
                    faults = "".join(f"\n{fault.fault}: {fault.line}" for fault in report.first_faults)
                    text = f"{report.file}{faults}" + (f"\n{text}" if text else "")
                yield f"console of {outcome.target}", text
        except AtpError as error:
            yield "consoles", str(error)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("atp", "virtual machines (atp_libvirt)")
    group.addoption("--atp-config", metavar="FILE", help="settings file of the fleet, instead of atp's own files")
    group.addoption(
        "--atp-evidence",
        metavar="FOLDER",
        help="collect the consoles, pictures of the screens and commands of VMs whose test failed in FOLDER",
    )
    group.addoption(
        "--atp-keep",
        action="store_true",
        help="leave the VMs of a failed test as they are: no other test of this process gets them",
    )
    group.addoption(
        "--atp-reservations",
        metavar="FILE",
        help="reserve VMs in FILE, as `atp reserve` does, and not only among tests of this user",
    )
    group.addoption(
        "--atp-reserve-for",
        metavar="SECONDS",
        type=float,
        default=3600.0,
        help="for how long a test reserves its VMs at most (default: 3600)",
    )
    group.addoption(
        "--atp-wait", metavar="SECONDS", type=float, default=300.0, help="how long a test waits for free VMs (default: 300)"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "vms(selector, ..., count=1, isolate=None, state='running', labels={}): the virtual machines that the fixtures vms and vm"
        " are taken from; isolate='snapshot' takes them back to what they were before the test, 'snapshot:NAME' to a snapshot that"
        " they have",
    )


@pytest.fixture(scope="session")
def fleet(pytestconfig: pytest.Config) -> Iterator[Fleet]:
    """The fleet of ``--atp-config``, or else of atp's own files and environment."""
    with Fleet(pytestconfig.getoption("--atp-config")) as opened:
        yield opened


@pytest.fixture
def vms(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[List[Vm]]:
    """As many VMs as the test's marker says, of those that it selects. No other test has them meanwhile."""
    marker = request.node.get_closest_marker("vms")
    wanted: Dict[str, Any] = {} if marker is None else dict(marker.kwargs)
    selectors = ["*"] if marker is None or not marker.args else list(marker.args)
    isolate = wanted.pop("isolate", None)
    hold = _take(request, fleet, selectors, wanted.pop("count", 1), {"state": "running", **wanted})
    evidence = request.config.getoption("--atp-evidence")
    if evidence is not None:
        hold.folder = Path(evidence).absolute() / _file_name(request.node.nodeid)
    request.node.stash[_KEY] = hold
    request.node.user_properties.extend(("vm", vm.target) for vm in hold.vms)
    try:
        hold.begin(isolate)
        yield hold.vms
    finally:
        hold.end(bool(request.config.getoption("--atp-keep")))


@pytest.fixture
def vm(vms: List[Vm]) -> Vm:
    """The first of ``vms``."""
    return vms[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    hold = item.stash.get(_KEY, None)
    if hold is not None and report.failed and not hold.is_over:
        hold.has_failed = True
        report.sections.extend(hold.collect())
        item.user_properties.extend(("evidence", file) for file in hold.evidence)
        if item.config.getoption("--atp-keep"):
            report.sections.append(("kept as they are", _kept_as(hold)))
        report.user_properties = list(item.user_properties)
    return report


def _kept_as(hold: _Hold) -> str:
    """How a person gives kept VMs back."""
    if hold.snapshot is None:
        return "\n".join(hold.targets)
    name, is_own = hold.snapshot
    lines = [f"atp snapshot revert {target} {name}" for target in hold.targets]
    if is_own:
        lines += [f"atp snapshot delete {target} {name}" for target in hold.targets]
    return "\n".join(lines)


def _take(
    request: pytest.FixtureRequest, fleet: Fleet, selectors: List[str], count: int, options: Dict[str, Any]
) -> _Hold:
    """Waits until enough VMs are free, and takes them."""
    patience: Any = request.config.getoption("--atp-wait")
    until = time.monotonic() + float(patience)
    while True:
        listed = fleet.vms(selectors, **options)
        vms = [
            Vm(fleet, outcome.host, outcome.vm, outcome.uuid, [])
            for outcome in listed.ok
            if outcome.host is not None and outcome.vm is not None and outcome.uuid is not None
        ]
        vms = list({vm.uuid: vm for vm in reversed(vms)}.values())[::-1]
        wanted = f"{count} VMs of {selectors} are wanted"
        if len(vms) < count:
            # One that another test just takes back to its snapshot is in no state for a moment.
            in_any_state = fleet.vms(selectors, **{key: value for key, value in options.items() if key != "state"})
            if len(in_any_state.ok) < count or time.monotonic() > until:
                pytest.fail(f"{wanted}, and there are {len(vms)}: {listed!r}", pytrace=False)
            time.sleep(_INTERVAL)
            continue
        file: Any = request.config.getoption("--atp-reservations")
        if file is None:
            hold, free = _lock_first(fleet, vms, count)
        else:
            time_of_test: Any = request.config.getoption("--atp-reserve-for")
            owner = f"pytest-{os.getpid()}-{uuid.uuid4().hex[:8]}"
            trying = attempt(list(listed.ok), file, count, owner, float(time_of_test))
            reserved = trying.try_once()
            free = trying.free
            hold = None
            if reserved is not None:
                of_uuid = {vm.uuid: vm for vm in vms}
                hold = _Hold(fleet, [of_uuid[one.uuid] for one in reserved], reserved.release)
        if hold is not None:
            return hold
        if time.monotonic() > until:
            pytest.fail(f"{wanted}, and only {free} became free", pytrace=False)
        time.sleep(_INTERVAL)


def _lock_first(fleet: Fleet, vms: List[Vm], count: int) -> Tuple[Optional[_Hold], int]:
    """Locks the first that are free: all that are wanted, or none. Tells how many were."""
    taken: List[Vm] = []
    locks: List[IO[str]] = []
    for vm in vms:
        lock = _lock(vm.uuid) if len(taken) < count else None
        if lock is not None:
            locks.append(lock)
            taken.append(vm)

    def free() -> None:
        for lock in locks:
            lock.close()

    if len(taken) == count:
        return _Hold(fleet, taken, free), count
    free()
    return None, len(taken)


def _lock(uuid: str) -> Optional[IO[str]]:
    """Has a VM for this process, until the file is closed. None if another one has it."""
    folder = Path(tempfile.gettempdir()) / f"atp-libvirt-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = open(folder / f"{uuid}.lock", "w", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _file_name(text: str) -> str:
    return "".join(char if char.isalnum() or char in "._-" else "_" for char in text)
