"""The pytest plugin: virtual machines for tests.

The fixture ``vms`` gives a test the VMs that its marker asks for, and ``vm`` one of them. No two tests on this machine have a VM at
the same time: workers of pytest-xdist wait for each other.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Dict, Generator, Iterator, List, Optional, Sequence

import pytest

from ._data import ExecReport
from ._errors import AtpError
from ._fleet import Fleet
from ._outcomes import Outcome

#: How often it is looked whether VMs have become free, seconds.
_INTERVAL = 0.1

_KEY: pytest.StashKey[List[Vm]] = pytest.StashKey()


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
        return f"{self.host}/{_escaped(self.name)}"

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


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("atp", "virtual machines (atp_libvirt)")
    group.addoption("--atp-config", metavar="FILE", help="settings file of the fleet, instead of atp's own files")
    group.addoption("--atp-evidence", metavar="FOLDER", help="take pictures of the screens of failed tests' VMs into FOLDER")
    group.addoption(
        "--atp-wait", metavar="SECONDS", type=float, default=300.0, help="how long a test waits for free VMs (default: 300)"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "vms(selector, ..., count=1, state='running', labels={}): the virtual machines that the fixtures vms and vm are taken from",
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
    count = wanted.pop("count", 1)
    wanted.setdefault("state", "running")
    patience: Any = request.config.getoption("--atp-wait")
    until = time.monotonic() + float(patience)
    while True:
        listed = fleet.vms(selectors, **wanted)
        locks: Dict[str, IO[str]] = {}
        taken: List[Vm] = []
        for outcome in listed.ok:
            if len(taken) == count or outcome.host is None or outcome.vm is None or outcome.uuid is None:
                continue
            if outcome.uuid not in locks and (lock := _lock(outcome.uuid)) is not None:
                locks[outcome.uuid] = lock
                taken.append(Vm(fleet, outcome.host, outcome.vm, outcome.uuid, []))
        if len(taken) == count:
            break
        for lock in locks.values():
            lock.close()
        if len(listed.ok) < count:
            pytest.fail(f"{count} VMs of {selectors} are wanted, and there are {len(listed.ok)}: {listed!r}", pytrace=False)
        if time.monotonic() > until:
            pytest.fail(f"{count} VMs of {selectors} are wanted, and only {len(taken)} became free", pytrace=False)
        time.sleep(_INTERVAL)
    request.node.stash[_KEY] = taken
    try:
        yield taken
    finally:
        for lock in locks.values():
            lock.close()


@pytest.fixture
def vm(vms: List[Vm]) -> Vm:
    """The first of ``vms``."""
    return vms[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    taken = item.stash[_KEY] if _KEY in item.stash else []
    if call.when == "call" and taken:
        item.user_properties.extend(("vm", vm.target) for vm in taken)
        report.user_properties = list(item.user_properties)
        if report.failed:
            for vm in taken:
                report.sections.append((f"commands in {vm.target}", "\n".join(vm.log) or "none"))
                folder = item.config.getoption("--atp-evidence")
                if folder is not None:
                    report.sections.append((f"screen of {vm.target}", _screenshot(vm, Path(folder) / _file_name(item))))
    return report


def _screenshot(vm: Vm, folder: Path) -> str:
    """Takes a picture; says where it is, or why there is none."""
    try:
        return vm.fleet.screenshot(vm.target, folder, timeout=10)[0].unwrap().file
    except AtpError as error:
        return str(error)


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


def _escaped(name: str) -> str:
    """A VM's name as a selector: no character has a meaning of its own."""
    return "".join(char if char.isalnum() or char in "._-" else f"\\{char}" for char in name)


def _file_name(item: pytest.Item) -> str:
    return "".join(char if char.isalnum() or char in "._-" else "_" for char in item.nodeid)
