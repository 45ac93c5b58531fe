"""The pytest plugin: virtual machines for tests.

The fixture ``vms`` gives a test the VMs that its marker asks for, and ``vm`` one of them. No two tests of this user on this machine have
a VM at the same time: workers of pytest-xdist wait for each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import sys
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Generator, Iterator, List, Optional, Sequence, Tuple, TypeVar, cast

import pytest

from ._data import ConsoleReport, ExecReport
from ._errors import AtpError, NotFreeError
from ._faces import VmVerbs
from ._fleet import Fleet
from ._outcomes import Outcome, Outcomes
from ._reservations import Reserved
from ._streams import Stream
from ._verbs import Operation, Options, VmOptions, escaped

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

D = TypeVar("D")

#: How soon it is looked again whether VMs have become free, seconds; each further look comes later.
_INTERVAL = 0.2

#: How long it is at most until the next look, seconds.
_LONGEST_INTERVAL = 2.0

#: How long a snapshot of a VM may take to be made, reverted to or removed, seconds.
_SNAPSHOT_TIMEOUT = 120

#: How long a console is captured at most, seconds.
_CONSOLE_TIMEOUT = 86400

#: How long a test waits for its consoles to be open, seconds.
_CONSOLE_PATIENCE = 5

#: How many lines of a console are in a report. The file has all.
_CONSOLE_LINES = 50

#: How much of the end of a console's file is read for them, bytes.
_CONSOLE_TAIL = 65536

#: How long a picture may take, seconds.
_SCREENSHOT_TIMEOUT = 10

_KEY: pytest.StashKey[_Hold] = pytest.StashKey()

#: What no other test of this process gets any more: their locks end with it.
_kept: List[_Hold] = []


@dataclass(eq=False)
class Vm(VmVerbs):
    """A virtual machine that a test has to itself. Its verbs are those of :class:`atp_libvirt.Vm`, but :meth:`exec` and :meth:`shell`
    return the report at once."""

    #: The fleet that it is in.
    fleet: Fleet = field(repr=False)
    #: The host that it is on.
    host: str
    #: Its name.
    name: str
    #: Its identity.
    uuid: str
    #: What the test has done with it, for the report of a failure.
    log: List[str] = field(default_factory=lambda: [], repr=False)

    @property
    def target(self) -> str:
        """The selector of this VM alone, for the verbs of the fleet."""
        return f"{self.host}/{escaped(self.name)}"

    def exec(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, argv: Sequence[str], *, check: bool = True, **options: Any
    ) -> ExecReport:
        """Runs a program in the guest; see :meth:`Fleet.exec`.

        :param check: Whether an exit code that is not 0 is an error.
        :raises OutcomeError: It could not be run, or has failed.
        """
        return self._ran(shlex.join(argv), super().exec(argv, **options), check)

    def shell(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, line: str, *, check: bool = True, **options: Any
    ) -> ExecReport:
        """Runs a line of the guest's shell; see :meth:`exec`."""
        return self._ran(line, super().shell(line, **options), check)

    def state(self, **options: Unpack[VmOptions]) -> str:
        """Its state now, such as ``running``.

        :raises OutcomeError: It cannot be asked for.
        """
        return self.fleet.vms(self.target, **options)[0].unwrap().state

    def _run(self, operation: Operation[D], options: VmOptions) -> Outcome[D]:
        outcome = self.fleet._run(operation, cast("Options", options))[0]
        if outcome.op != "exec":
            self.log.append(f"{outcome.op}: {outcome.error or outcome.status}")
        return outcome

    def _ran(self, shown: str, outcome: Outcome[ExecReport], check: bool) -> ExecReport:
        data = outcome.data
        if data is None:
            self.log.append(f"$ {shown}\n{outcome.error or outcome.status}")
        else:
            code = f"exit code {data.exit_code}" if data.signal is None else f"signal {data.signal}"
            self.log.append(f"$ {shown}\n{data.stdout.text}{data.stderr.text}[{code}]")
        if data is not None and (outcome.ok or not check):
            return data
        return outcome.unwrap()


@dataclass
class _Lock:
    """A VM that this process has, among those of this user on this machine.

    Its file has what is to be done with the VM before another test may have it, also when this process has died.
    """

    descriptor: int
    file: Path

    @classmethod
    def take(cls, uuid: str) -> Optional[_Lock]:
        """None if another one has the VM."""
        file = _folder() / f"{uuid}.lock"
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise pytest.UsageError(
                f"locks of VMs are files in {file.parent}: {error} (hint: XDG_STATE_HOME names another folder)"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(descriptor, file)

    def note(self, vm: Vm, *, snapshot: Optional[str] = None, is_own: bool = False, is_kept: bool = False) -> None:
        """Writes down how the VM is taken back, and whether a person does that."""
        note = {"target": vm.target, "snapshot": snapshot, "is_own": is_own, "is_kept": is_kept}
        self._write(json.dumps(note))

    def clear(self) -> None:
        """Writes down that the next test may have it."""
        self._write("")

    def noted(self) -> Optional[Dict[str, Any]]:
        """What was written down, if anything. What cannot be read is left to a person."""
        text = os.pread(self.descriptor, 4096, 0)
        if not text.strip():
            return None
        try:
            note = json.loads(text)
            return {
                "target": str(note["target"]),
                "snapshot": note["snapshot"],
                "is_own": bool(note["is_own"]),
                "is_kept": bool(note["is_kept"]),
            }
        except (KeyError, TypeError, ValueError):
            return {"target": None, "snapshot": None, "is_own": False, "is_kept": True}

    def free(self) -> None:
        """Another one may have the VM."""
        # A process that was forked may still have the file open.
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        os.close(self.descriptor)

    def _write(self, text: str) -> None:
        # At no time is it empty that was not meant to be: what cannot be read is left to a person.
        data = text.encode()
        if os.pwrite(self.descriptor, data, 0) != len(data):
            raise OSError(f"{self.file}: it was not written whole")
        os.ftruncate(self.descriptor, len(data))


@dataclass
class _Hold:
    """The VMs of one test, from the time that it gets them until it gives them back."""

    fleet: Fleet
    vms: List[Vm]
    locks: List[_Lock]
    #: The same VMs in the file, or the service, that other jobs use too.
    reserved: Optional[Reserved] = None
    #: The folder of the test's evidence, if any is collected.
    folder: Optional[Path] = None
    #: The snapshot that the VMs go back to, and whether the test has made it.
    snapshot: Optional[Tuple[str, bool]] = None
    #: Whether the VMs may be changed in a way that is not known.
    is_unclear: bool = False
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
            self._isolate(name or f"atp-test-{uuid.uuid4().hex[:12]}", is_own=not name)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.consoles = self.fleet.stream.console(self.targets, self.folder, timeout=_CONSOLE_TIMEOUT)
            self._wait_for_consoles(self.folder)

    def _isolate(self, name: str, is_own: bool) -> None:
        """Makes the snapshot that the VMs go back to, or takes them to one that they have."""
        for vm, lock in zip(self.vms, self.locks):
            lock.note(vm, snapshot=name, is_own=is_own)
        # Until it is known how it went.
        self.is_unclear = True
        prepare = self.fleet.snapshot_create if is_own else self.fleet.snapshot_revert
        try:
            done: Outcomes[Any] = prepare(self.targets, name, timeout=_SNAPSHOT_TIMEOUT)
        except AtpError as error:
            self.is_unclear = error.effect != "none"
            raise
        self.is_unclear = any(outcome.effect != "none" for outcome in done.failed)
        if not done.failed:
            self.snapshot = (name, is_own)
        elif not self.is_unclear and is_own and done.ok:
            made = {outcome.uuid for outcome in done.ok}
            targets = [vm.target for vm in self.vms if vm.uuid in made]
            self.is_unclear = len(_delete(self.fleet, targets, name).ok) != len(made)
        done.raise_for_failures()

    def collect(self) -> List[Tuple[str, str]]:
        """What is known of the VMs of a failed test, as sections of its report."""
        sections = [(f"commands in {vm.target}", "\n".join(vm.log) or "none") for vm in self.vms]
        if self.folder is None:
            return sections
        for vm in self.vms:
            sections.append((f"screen of {vm.target}", self._screen(vm, self.folder)))
        sections.extend(self._consoles())
        for (name, text), vm in list(zip(sections, self.vms)):
            file = self.folder / f"{_file_name(vm.target)}.commands.txt"
            try:
                file.write_text(f"{name}\n{text}\n", encoding="utf-8", errors="replace")
            except OSError as error:
                sections.append((f"evidence of {vm.target}", str(error)))
            else:
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
        try:
            if keep and self.has_failed:
                _kept.append(self)
                name, is_own = self.snapshot or (None, False)
                for vm, lock in zip(self.vms, self.locks):
                    lock.note(vm, snapshot=name, is_own=is_own, is_kept=True)
                return
            self._check_time()
            if self.is_unclear:
                # Whoever has them next takes them back; this error is told already.
                _kept.append(self)
                return
            if self.snapshot is not None:
                _take_back(self.fleet, self.targets, *self.snapshot)
        except BaseException:
            # No other test gets a VM that is not as it was.
            if self not in _kept:
                _kept.append(self)
            raise
        for lock in self.locks:
            lock.clear()
        self.free()

    def _check_time(self) -> None:
        """What another job may have by now is left alone."""
        if self.reserved is None:
            return
        now = datetime.now(timezone.utc)
        late = [f"{one.target}, {(now - one.until).total_seconds():.0f} s ago" for one in self.reserved if one.until <= now]
        if late:
            raise NotFreeError(
                f"the reservation ended while the test went on, and others may have had the VM: {'; '.join(late)}",
                kind="not-free",
                effect="unknown",
                hint="--atp-reserve-for=SECONDS is how long a test may have its VMs",
            )

    def free(self) -> None:
        try:
            if self.reserved is not None:
                self.reserved.release()
        finally:
            for lock in self.locks:
                lock.free()

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
        """Ends the capture; says where the files are and how they end, or why there are none."""
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
                    text = f"{report.file}{faults}\n{_tail(Path(report.file))}" + (f"\n{text}" if text else "")
                yield f"console of {outcome.target}", text
        except AtpError as error:
            yield "consoles", str(error)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("atp", "virtual machines (atp_libvirt)")
    group.addoption(
        "--atp-config", metavar="FILE", help="settings file of the fleet, or of its service, instead of atp's own files"
    )
    group.addoption(
        "--atp-evidence",
        metavar="FOLDER",
        help="collect the consoles, pictures of the screens and commands of VMs whose test failed in FOLDER",
    )
    group.addoption(
        "--atp-keep",
        action="store_true",
        help="leave the VMs of a failed test as they are: no other test gets them until somebody gives them back",
    )
    group.addoption(
        "--atp-reservations",
        metavar="FILE",
        help="reserve VMs in FILE, as `atp reserve` does, and not only among tests of this user; a service does so without it",
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
    """The fleet of ``--atp-config``, or else of atp's own files and environment: its hosts, or the service that they name."""
    with Fleet(pytestconfig.getoption("--atp-config")) as opened:
        yield opened


@pytest.fixture
def vms(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[List[Vm]]:
    """As many VMs as the test's marker says, of those that it selects. No other test has them meanwhile."""
    marker = request.node.get_closest_marker("vms")
    wanted: Dict[str, Any] = {} if marker is None else dict(marker.kwargs)
    selectors = ["*"] if marker is None or not marker.args else list(marker.args)
    isolate = wanted.pop("isolate", None)
    count = wanted.pop("count", 1)
    if count < 1:
        raise pytest.UsageError(f"count={count!r}: at least one VM is wanted")
    hold = _take(request.config, fleet, selectors, count, {"state": "running", **wanted})
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


# The newer kind of wrapper is an error for the pytest 7 of distributions.
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    result = yield
    report = cast("pytest.TestReport", result.get_result())
    hold = item.stash.get(_KEY, None)
    if hold is not None and report.failed and not hold.is_over:
        hold.has_failed = True
        report.sections.extend(hold.collect())
        item.user_properties.extend(("evidence", file) for file in hold.evidence)
        if item.config.getoption("--atp-keep"):
            report.sections.append(("kept as they are", _kept_as(hold, item.config)))
        report.user_properties = list(item.user_properties)


def _kept_as(hold: _Hold, config: pytest.Config) -> str:
    """How a person gives kept VMs back, as commands of a shell."""
    lines: List[str] = []
    if hold.snapshot is not None:
        name, is_own = hold.snapshot
        commands = ["revert", "delete"] if is_own else ["revert"]
        lines += [
            f"atp snapshot {command} {shlex.quote(target)} {shlex.quote(name)}"
            for command in commands
            for target in hold.targets
        ]
    if hold.reserved is not None:
        file = config.getoption("--atp-reservations")
        place = "" if file is None else f" --file {shlex.quote(os.path.abspath(str(file)))}"
        lines.append(f"atp release --owner {hold.reserved[0].owner}{place}")
    lines += [f"truncate -s 0 {shlex.quote(str(lock.file))}" for lock in hold.locks]
    return "\n".join([*hold.targets, *lines])


@dataclass
class _Wanted:
    """What a test asks for, and by which means it is taken."""

    fleet: Fleet
    selectors: List[str]
    count: int
    options: Dict[str, Any]
    #: The file of reservations, if one is used.
    file: Optional[str]
    #: For how many seconds VMs are reserved.
    time: float
    owner: str
    #: VMs that could not be taken back, and why: they are not tried again.
    spoiled: Dict[str, str] = field(default_factory=lambda: {})
    #: How many were free at the last look.
    free: int = 0
    #: Why none could be reserved then.
    refusal: str = ""

    @property
    def in_any_state(self) -> Dict[str, Any]:
        """The options without a state: one that another test just takes back to its snapshot is in none for a moment."""
        return {key: value for key, value in self.options.items() if key != "state"}

    def listed(self, **options: Any) -> List[Vm]:
        """The VMs, each once."""
        vms = [
            Vm(self.fleet, outcome.host, outcome.vm, outcome.uuid)
            for outcome in self.fleet.vms(self.selectors, **options).ok
            if outcome.host is not None and outcome.vm is not None and outcome.uuid is not None
        ]
        return list({vm.uuid: vm for vm in reversed(vms)}.values())[::-1]

    def take(self, vms: List[Vm]) -> Optional[_Hold]:
        """All that are wanted, of those that are listed, or none."""
        if self.file is None and not self.fleet._is_service:
            taken, locks = self._lock(vms, self.count)
            if len(taken) == self.count:
                return _Hold(self.fleet, taken, locks)
            self.free = len(taken)
            _free(locks)
            return None
        left = vms
        while True:
            self.free = min(self.free, len(left))
            if len(left) < self.count:
                return None
            reserved = self._reserve([vm.target for vm in left], self.count)
            if reserved is None:
                return None
            of_uuid = {vm.uuid: vm for vm in left}
            chosen = [of_uuid[one.uuid] for one in reserved if one.uuid in of_uuid]
            try:
                taken, locks = self._lock(chosen, len(reserved))
            except BaseException:
                reserved.release()
                raise
            if len(taken) == len(reserved):
                return _Hold(self.fleet, taken, locks, reserved)
            # Tests of this user that make no reservations, or somebody who looks at a failure, have the others.
            _free(locks)
            reserved.release()
            locked = {vm.uuid for vm in taken}
            rest = [vm for vm in left if vm.uuid in locked or vm not in chosen]
            if len(rest) == len(left):
                # One was defined anew under its name since it was listed.
                return None
            left = rest

    def _reserve(self, targets: List[str], count: int) -> Optional[Reserved]:
        # Which of them is told by name; of the marker's options it is their state that may have changed.
        state: Any = self.options.get("state", "any")
        try:
            return self.fleet.reserve(
                targets, file=self.file, count=count, time=self.time, owner=self.owner, state=state
            )
        except NotFreeError as error:
            self.free, self.refusal = 0, str(error)
            return None

    def _lock(self, vms: List[Vm], count: int) -> Tuple[List[Vm], List[_Lock]]:
        """Locks the first that are free."""
        taken: List[Vm] = []
        locks: List[_Lock] = []
        for vm in vms:
            lock = _Lock.take(vm.uuid) if len(taken) < count else None
            if lock is None:
                continue
            note = lock.noted()
            if note is None:
                taken.append(vm)
                locks.append(lock)
                continue
            if note["is_kept"]:
                self.spoiled[vm.uuid] = f"{vm.target} is kept as a failed test has left it, see {lock.file}"
            lock.free()
        return taken, locks

    def mend(self) -> None:
        """Takes VMs back that tests have left changed whose processes have died."""
        changed: Dict[str, Tuple[_Lock, Dict[str, Any]]] = {}
        try:
            for file in _folder().glob("*.lock"):
                lock = _Lock.take(file.stem) if file.stat().st_size > 0 and file.stem not in self.spoiled else None
                if lock is None:
                    continue
                note = lock.noted()
                if note is None or note["is_kept"]:
                    lock.free()
                else:
                    changed[file.stem] = (lock, note)
            for vm in self.listed(**self.in_any_state) if changed else []:
                if vm.uuid in changed:
                    lock, note = changed[vm.uuid]
                    self._mend(vm, note, lock)
        finally:
            _free([lock for lock, _ in changed.values()])

    def _mend(self, vm: Vm, note: Dict[str, Any], lock: _Lock) -> None:
        if vm.target != note["target"]:
            self.spoiled[vm.uuid] = (
                f"a test that died has left {note['target']} changed, and {vm.target} has its UUID (see {lock.file})"
            )
            return
        reserved: Optional[Reserved] = None
        try:
            if self.file is not None or self.fleet._is_service:
                # One that another job has now is not taken from it.
                reserved = self.fleet.reserve(vm.target, file=self.file, time=4 * _SNAPSHOT_TIMEOUT, owner=self.owner)
            name = str(note["snapshot"])
            snapshots = self.fleet.snapshot_list(vm.target, timeout=_SNAPSHOT_TIMEOUT)[0].unwrap().snapshots
            # It was not begun with if its own snapshot is not there.
            if not note["is_own"] or name in {snapshot.name for snapshot in snapshots}:
                _take_back(self.fleet, [vm.target], name, note["is_own"])
            lock.clear()
        except NotFreeError:
            pass
        except AtpError as error:
            self.spoiled[vm.uuid] = f"{vm.target} is as a test that died has left it: {error} (see {lock.file})"
        finally:
            if reserved is not None:
                reserved.release()


def _take(config: pytest.Config, fleet: Fleet, selectors: List[str], count: int, options: Dict[str, Any]) -> _Hold:
    """Waits until enough VMs are free, and takes them."""
    patience, time_of_test, file = (
        cast("Any", config.getoption(name)) for name in ("--atp-wait", "--atp-reserve-for", "--atp-reservations")
    )
    if file is not None and fleet._is_service:
        raise pytest.UsageError("--atp-reservations is for a fleet without a service: the service has the reservations itself")
    owner = f"pytest-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    wanted = _Wanted(fleet, selectors, count, options, file, float(time_of_test), owner)
    until = time.monotonic() + float(patience)
    interval = _INTERVAL
    while True:
        wanted.mend()
        vms = wanted.listed(**options)
        told = f"{count} VMs of {selectors} are wanted, and"
        if len(vms) < count:
            in_any_state = fleet.vms(selectors, **wanted.in_any_state)
            if len(in_any_state.ok) < count or time.monotonic() > until:
                pytest.fail(f"{told} there are {len(vms)}: {in_any_state!r}{_lines(wanted)}", pytrace=False)
        else:
            wanted.free, wanted.refusal = len(vms), ""
            hold = wanted.take(vms)
            if hold is not None:
                return hold
            if time.monotonic() > until:
                pytest.fail(f"{told} only {wanted.free} became free{_lines(wanted)}", pytrace=False)
        time.sleep(interval)
        interval = min(interval * 1.5, _LONGEST_INTERVAL)


def _lines(wanted: _Wanted) -> str:
    return "".join(f"\n{text}" for text in (wanted.refusal, *wanted.spoiled.values()) if text)


def _take_back(fleet: Fleet, targets: List[str], name: str, is_own: bool) -> None:
    """Takes VMs to a snapshot, and removes it if it is the test's."""
    fleet.snapshot_revert(targets, name, timeout=_SNAPSHOT_TIMEOUT).raise_for_failures()
    if is_own:
        _delete(fleet, targets, name).raise_for_failures()


def _delete(fleet: Fleet, targets: List[str], name: str) -> Outcomes[Any]:
    return fleet.snapshot_delete(targets, name, timeout=_SNAPSHOT_TIMEOUT)


def _free(locks: List[_Lock]) -> None:
    for lock in locks:
        lock.free()


def _folder() -> Path:
    """Where the locks of this user are: they outlive a session, so that a VM that is kept stays so."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state") / "atp" / "pytest"


def _tail(file: Path) -> str:
    """The last lines of a console."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, opened.seek(0, os.SEEK_END) - _CONSOLE_TAIL))
            lines = opened.read(_CONSOLE_TAIL).decode(errors="replace").splitlines()
    except OSError as error:
        return str(error)
    return "\n".join(lines[-_CONSOLE_LINES:])


def _file_name(text: str) -> str:
    """A name of a file that no other text has, and of which a person still sees what it is."""
    readable = "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "_" for char in text)
    return f"{readable[:100]}-{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:8]}"
