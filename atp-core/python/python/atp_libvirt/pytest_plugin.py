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
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Generator,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    cast,
)

import pytest

from ._data import ConsoleReport, ExecReport
from ._errors import AtpError, NotFreeError
from ._faces import VmVerbs
from ._fleet import Fleet
from ._outcomes import Outcome, Outcomes
from ._reservations import Reservation, Reserved
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

#: How long it is waited for the agent of a guest of which it is not known whether it has one, seconds.
_AGENT_PATIENCE = 30

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
        # The arguments may be secret; the last frame of a report shows them.
        __tracebackhide__ = True
        return self._ran(shlex.join(argv), super().exec(argv, **options), check)

    def shell(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, line: str, *, check: bool = True, **options: Any
    ) -> ExecReport:
        """Runs a line of the guest's shell; see :meth:`exec`."""
        __tracebackhide__ = True
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

    def note(
        self,
        vm: Vm,
        snapshot: Optional[str],
        is_own: bool,
        reserved: Optional[Reservation],
        *,
        is_kept: bool = False,
    ) -> None:
        """Writes down how the VM is taken back, whether a person does that, and until when nobody else can have it."""
        note = {
            "target": vm.target,
            "snapshot": snapshot,
            "is_own": is_own,
            "is_kept": is_kept,
            "owner": None if reserved is None else reserved.owner,
            "until": None if reserved is None else reserved.until.isoformat(),
        }
        self._write(json.dumps(note))

    def clear(self) -> None:
        """Writes down that the next test may have it."""
        self._write("")

    def noted(self) -> Optional[Dict[str, Any]]:
        """What was written down, if anything. What cannot be read is left to a person."""
        text = os.pread(self.descriptor, 65536, 0)
        if not text.strip():
            return None
        try:
            note = json.loads(text)
            return {key: note[key] for key in ("target", "snapshot", "is_own", "is_kept", "owner", "until")}
        except (KeyError, TypeError, ValueError):
            return {"is_kept": True}

    @property
    def how_to_give(self) -> str:
        """How a person gives the VM to tests again, as a command of a shell."""
        return f"truncate -s 0 {shlex.quote(str(self.file))}"

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
    #: By when the test has to have ended for the VMs to be taken back while they are reserved, by the clock of this machine.
    ends: float = 0.0
    #: The folder of the test's evidence, if any is collected.
    folder: Optional[Path] = None
    #: The snapshot that the VMs go back to, and whether the test has made it.
    snapshot: Optional[Tuple[str, bool]] = None
    #: Whether the VMs may be changed in a way that is not known.
    is_unclear: bool = False
    #: The VMs whose agents answered before the test.
    with_agent: List[str] = field(default_factory=lambda: [])
    consoles: Optional[Stream[ConsoleReport]] = None
    has_failed: bool = False
    is_collected: bool = False
    #: Whether the VMs were given back.
    is_over: bool = False
    #: Files that were collected.
    evidence: List[str] = field(default_factory=lambda: [])
    #: What was collected when the fixtures were torn down, for the report of that.
    late: List[Tuple[str, str]] = field(default_factory=lambda: [])
    #: What is not an error of the test, and somebody should know.
    told: List[str] = field(default_factory=lambda: [])

    @property
    def targets(self) -> List[str]:
        return [vm.target for vm in self.vms]

    @property
    def properties(self) -> List[Tuple[str, object]]:
        """What a JUnit file has of them."""
        return [*(("vm", target) for target in self.targets), *(("evidence", file) for file in self.evidence)]

    def begin(self, isolate: Optional[str]) -> None:
        """Makes the VMs ready for the test."""
        if isolate is not None:
            kind, _, name = isolate.partition(":")
            if kind != "snapshot":
                raise pytest.UsageError(f"isolate={isolate!r}: 'snapshot' and 'snapshot:NAME' are known")
            self._isolate(name or f"atp-test-{uuid.uuid4().hex[:12]}", is_own=not name)
        if self.folder is not None:
            try:
                self.folder = _new_folder(self.folder)
            except OSError as error:
                # As on a disk that is full. What the test tests does not need it.
                self.told.append(f"no evidence can be collected: {error}")
                self.folder = None
                return
            self.consoles = self.fleet.stream.console(self.targets, self.folder, timeout=_CONSOLE_TIMEOUT)
            self._wait_for_consoles(self.folder)

    def _isolate(self, name: str, is_own: bool) -> None:
        """Makes the snapshot that the VMs go back to, or takes them to one that they have."""
        if is_own:
            reports = self.fleet.info(self.targets, timeout=_AGENT_PATIENCE).ok
            with_guest = {one.uuid for one in reports if one.data is not None and one.data.guest is not None}
            self.with_agent = [vm.target for vm in self.vms if vm.uuid in with_guest]
        self._note(name, is_own)
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
        if not is_own:
            self.with_agent = _awake(self.fleet, self.targets)

    def _note(self, snapshot: Optional[str], is_own: bool, *, is_kept: bool = False) -> None:
        reserved = {one.uuid: one for one in self.reserved or ()}
        for vm, lock in zip(self.vms, self.locks):
            lock.note(vm, snapshot, is_own, reserved.get(vm.uuid), is_kept=is_kept)

    def collect(self) -> List[Tuple[str, str]]:
        """What is known of the VMs of a failed test, as sections of its report."""
        self.has_failed = self.is_collected = True
        sections: List[Tuple[str, str]] = []
        try:
            sections.extend(self._sections())
        except Exception as error:
            # The test is reported in any case.
            sections.append(("evidence", f"it is not complete: {type(error).__name__}: {error}"))
        return sections

    def _sections(self) -> Iterator[Tuple[str, str]]:
        commands = [(vm, f"commands in {vm.target}", "\n".join(vm.log) or "none") for vm in self.vms]
        yield from ((name, text) for _, name, text in commands)
        if self.folder is None:
            return
        for vm in self.vms:
            yield f"screen of {vm.target}", self._screen(vm, self.folder)
        yield from self._consoles()
        for vm, name, text in commands:
            file = self.folder / f"{_file_name(vm.target)}.commands.txt"
            try:
                file.write_text(f"{name}\n{text}\n", encoding="utf-8", errors="replace")
            except OSError as error:
                yield f"evidence of {vm.target}", str(error)
            else:
                self.evidence.append(str(file))

    def end(self, keep: bool) -> None:
        """Gives the VMs back: as they were, if the test is isolated."""
        if self.has_failed and not self.is_collected:
            self.late = self.collect()
        self.is_over = True
        try:
            # Nothing is written any more when the capture has ended.
            for _ in self._consoles():
                pass
            if self.folder is not None and not self.has_failed:
                shutil.rmtree(self.folder, ignore_errors=True)
            if keep and self.has_failed:
                _kept.append(self)
                self._note(*(self.snapshot or (None, False)), is_kept=True)
                return
            self._check_time()
            if self.is_unclear:
                # Whoever has them next takes them back; this error is told already.
                _kept.append(self)
                return
            if self.snapshot is not None:
                _take_back(self.fleet, self.targets, *self.snapshot, self.with_agent)
        except BaseException:
            # No other test gets a VM that is not as it was.
            if self not in _kept:
                _kept.append(self)
            raise
        for lock in self.locks:
            lock.clear()
        self.free()

    def _check_time(self) -> None:
        """What another job may have before it is taken back is left alone."""
        if self.reserved is not None and _now() > self.ends:
            raise NotFreeError(
                "the test took longer than its VMs are reserved for, and others may get them before they are taken back: "
                + ", ".join(self.targets),
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
    before = request.node.stash.get(_KEY, None)
    request.node.stash[_KEY] = hold
    try:
        if before is not None:
            # The test is run again: what is reported is of this time.
            of_before = before.properties
            request.node.user_properties[:] = [one for one in request.node.user_properties if one not in of_before]
        request.node.user_properties.extend(hold.properties)
        evidence = request.config.getoption("--atp-evidence")
        if evidence is not None:
            hold.folder = Path(evidence).absolute() / _file_name(request.node.nodeid)
        hold.begin(isolate)
        for text in hold.told:
            warnings.warn(text, pytest.PytestWarning, stacklevel=1)
        yield hold.vms
    finally:
        hold.end(bool(request.config.getoption("--atp-keep")))


@pytest.fixture
def vm(vms: List[Vm]) -> Vm:
    """The first of ``vms``."""
    return vms[0]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Sees which fixtures of the test fail in their teardown: those that use the VMs are torn down before them."""
    hold = item.stash.get(_KEY, None)
    if hold is not None and not hold.is_over:
        # pytest tells a fixture nothing of the others, and makes the report when all are torn down.
        finalizers: List[Callable[[], object]] = cast("Any", item.session)._setupstate.stack[item][0]
        finalizers[:] = [_watched(finalizer, hold) for finalizer in finalizers]


def _watched(finalizer: Callable[[], object], hold: _Hold) -> Callable[[], object]:
    def watched() -> object:
        try:
            return finalizer()
        except (pytest.skip.Exception, pytest.xfail.Exception):
            raise
        except BaseException:
            hold.has_failed = True
            raise

    return watched


# The newer kind of wrapper is an error for the pytest 7 of distributions.
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    result = yield
    report = cast("pytest.TestReport", result.get_result())
    hold = item.stash.get(_KEY, None)
    if hold is None or not report.failed:
        return
    keep = bool(item.config.getoption("--atp-keep"))
    if not hold.is_over:
        report.sections.extend(hold.collect())
        is_left = keep
    else:
        report.sections.extend(hold.late)
        is_left = hold in _kept
    if is_left:
        is_kept = keep and hold.has_failed
        name = "kept as they are" if is_kept else "not taken back: the next test does that, or a person"
        report.sections.append((name, _kept_as(hold, item.config)))
    item.user_properties.extend([one for one in hold.properties if one not in item.user_properties])
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
    lines += [lock.how_to_give for lock in hold.locks]
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
    #: VMs that somebody else has to give back first, and why.
    waiting: Dict[str, str] = field(default_factory=lambda: {})
    #: What was taken back.
    mended: List[str] = field(default_factory=lambda: [])
    #: How many were free at the last look.
    free: int = 0
    #: Why none could be reserved then.
    refusal: str = ""

    @property
    def in_any_state(self) -> Dict[str, Any]:
        """The options without a state: one that another test just takes back to its snapshot is in none for a moment."""
        return {key: value for key, value in self.options.items() if key != "state"}

    @property
    def reserves(self) -> bool:
        """Whether VMs are reserved for this test among other jobs."""
        return self.file is not None or self.fleet._is_service

    def listed(self, **options: Any) -> List[Vm]:
        """The VMs, each once."""
        return list({vm.uuid: vm for vm in reversed(self._places(**options))}.values())[::-1]

    def _places(self, **options: Any) -> List[Vm]:
        """The VMs on each host that has them."""
        return [
            Vm(self.fleet, outcome.host, outcome.vm, outcome.uuid)
            for outcome in self.fleet.vms(self.selectors, **options).ok
            if outcome.host is not None and outcome.vm is not None and outcome.uuid is not None
        ]

    def take(self, vms: List[Vm]) -> Optional[_Hold]:
        """All that are wanted, of those that are listed, or none."""
        if not self.reserves:
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
            ends = _now() + self.time
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
                return _Hold(self.fleet, taken, locks, reserved, ends)
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
            # They are taken back while they are still reserved.
            time = self.time + _time_to_take_back()
            return self.fleet.reserve(targets, file=self.file, count=count, time=time, owner=self.owner, state=state)
        except NotFreeError as error:
            self.free, self.refusal = 0, str(error)
            return None

    def _lock(self, vms: List[Vm], count: int) -> Tuple[List[Vm], List[_Lock]]:
        """Locks the first that are free."""
        taken: List[Vm] = []
        locks: List[_Lock] = []
        try:
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
                    self.waiting[vm.uuid] = _left(lock, f"{vm.target} is kept as a failed test has left it")
                lock.free()
        except BaseException:
            _free(locks)
            raise
        return taken, locks

    def mend(self) -> None:
        """Takes VMs back that tests have left changed whose processes have ended."""
        self.waiting.clear()
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
            found: Dict[str, List[Vm]] = {}
            for vm in self._places(**self.in_any_state) if changed else []:
                found.setdefault(vm.uuid, []).append(vm)
            for uuid_of_vm in found.keys() & changed.keys():
                lock, note = changed[uuid_of_vm]
                # Hosts may have copies of a VM, with its UUID.
                places = [vm for vm in found[uuid_of_vm] if vm.target == note["target"]]
                if places:
                    self._mend(places[0], note, lock)
                else:
                    vm = found[uuid_of_vm][0]
                    why = f"a test has left {note['target']} changed, and {vm.target} has its UUID"
                    self.spoiled[vm.uuid] = _left(lock, why)
        finally:
            _free([lock for lock, _ in changed.values()])

    def _mend(self, vm: Vm, note: Dict[str, Any], lock: _Lock) -> None:
        name, is_own = str(note["snapshot"]), bool(note["is_own"])
        try:
            listed = self.fleet.snapshot_list(vm.target, timeout=_SNAPSHOT_TIMEOUT)[0].unwrap().snapshots
            reserved = self._take_over(vm, note, lock)
            if vm.uuid in self.spoiled:
                return
            # It was not begun with if its own snapshot is not there.
            if not is_own or name in {snapshot.name for snapshot in listed}:
                _take_back(self.fleet, [vm.target], name, is_own)
                _awake(self.fleet, [vm.target])
                self.mended.append(f"{vm.target} was taken back to its snapshot {name}: a test has left it changed")
            lock.clear()
            if reserved is not None:
                reserved.release()
        except NotFreeError as error:
            self.waiting[vm.uuid] = f"{vm.target} is to be taken back to its snapshot {name}: {error}"
        except AtpError as error:
            # It stays reserved for so long that others do not get it meanwhile, and the next one can take it over.
            self.spoiled[vm.uuid] = _left(lock, f"{vm.target} is as a test has left it: {error}")

    def _take_over(self, vm: Vm, note: Dict[str, Any], lock: _Lock) -> Optional[Reserved]:
        """Reserves a VM to take it back. It is spoiled if others may have had it since its test."""
        owner = note["owner"]
        # An owner is one test: as long as it has the VM nobody else does.
        if owner is not None and not (self.reserves and self.fleet.release(owner, self.file, targets=vm.target)):
            place = "of this session" if self.reserves else "of a file or a service"
            why = (
                f"{vm.target} was left changed by a test that had reserved it as {owner} until {note['until']}: that is none of the"
                f" reservations {place} any more, and others may have used it since"
            )
            self.spoiled[vm.uuid] = _left(lock, why)
            return None
        if not self.reserves:
            return None
        reserved = self.fleet.reserve(vm.target, file=self.file, time=_time_to_take_back(), owner=self.owner)
        lock.note(vm, note["snapshot"], note["is_own"], reserved[0])
        return reserved


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
                hold.told.extend((*wanted.mended, *wanted.spoiled.values()))
                return hold
            if time.monotonic() > until:
                pytest.fail(f"{told} only {wanted.free} became free{_lines(wanted)}", pytrace=False)
        time.sleep(interval)
        interval = min(interval * 1.5, _LONGEST_INTERVAL)


def _lines(wanted: _Wanted) -> str:
    texts = (wanted.refusal, *wanted.waiting.values(), *wanted.spoiled.values())
    return "".join(f"\n{text}" for text in texts if text)


def _left(lock: _Lock, why: str) -> str:
    """Why no test gets a VM, and what a person can do."""
    return f"{why}, see {lock.file} (hint: {lock.how_to_give} gives it to tests as it is)"


def _now() -> float:
    """Seconds by a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _time_to_take_back() -> float:
    """How long it takes at most to take VMs back after their test, seconds: it is three calls, and there is some time between."""
    return 4.0 * _SNAPSHOT_TIMEOUT


def _awake(fleet: Fleet, targets: List[str]) -> List[str]:
    """Waits for the agents of VMs of which it is not known whether they have one; returns those that have."""
    running = [outcome.target for outcome in fleet.vms(targets, state="running").ok]
    return [outcome.target for outcome in fleet.wait(running, timeout=_AGENT_PATIENCE).ok] if running else []


def _take_back(fleet: Fleet, targets: List[str], name: str, is_own: bool, with_agent: Sequence[str] = ()) -> None:
    """Takes VMs to a snapshot, and removes it if it is the test's. The next test can use the agents that it could use."""
    fleet.snapshot_revert(targets, name, timeout=_SNAPSHOT_TIMEOUT).raise_for_failures()
    if with_agent:
        fleet.wait(with_agent, timeout=_SNAPSHOT_TIMEOUT).raise_for_failures()
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


def _new_folder(folder: Path) -> Path:
    """Makes a folder of this name, or with a number after it if there is one: that of the same test, run before or elsewhere."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made, number = folder, 1
    while True:
        try:
            made.mkdir()
        except FileExistsError:
            number += 1
            made = folder.with_name(f"{folder.name}-{number}")
        else:
            return made


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
