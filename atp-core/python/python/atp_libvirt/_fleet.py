"""Fleets: hosts that this process connects to, or a service that does."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread
import json
import os
import sys
import threading
from dataclasses import dataclass
from functools import partial
from time import monotonic, sleep
from types import TracebackType
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Mapping, Optional, Tuple, Type, TypeVar, Union, cast
from urllib.parse import urlsplit
from weakref import WeakSet

from . import _native, _plans, _reservations
from ._bytes import AsyncByteStream, ByteStream
from ._errors import ConfigError, closed
from ._faces import (
    AsyncPlannedVerbs,
    AsyncStreamedVerbs,
    AsyncVerbs,
    PlannedVerbs,
    StreamedVerbs,
    Verbs,
)
from ._loops import loop
from ._outcomes import Outcome, Outcomes
from ._plans import Plan
from ._reservations import Reservation, Reserved
from ._statistics import Statistics
from ._streams import (
    AsyncConsoleLines,
    AsyncEvents,
    AsyncSamples,
    AsyncStream,
    ConsoleLines,
    Events,
    Samples,
    Stream,
)
from ._verbs import (
    Operation,
    Options,
    Selectors,
    VmOptions,
    console_lines,
    refuse_journals,
    request,
    selected,
    vms,
)
from ._vm import AsyncVm, Vm, only

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

D = TypeVar("D")

#: What is given to a verb may be secret: reports of pytest show the arguments of the last frame, which is then that of the caller.
__tracebackhide__ = True

#: Hosts by their names, each as a URI or as a table of a settings file; or URIs alone.
Hosts = Union[Mapping[str, Union[str, Mapping[str, Any]]], Iterable[str]]


@dataclass(frozen=True)
class Host:
    """A host of a fleet."""

    #: Its name in the fleet.
    id: str
    #: Where it is, without a password.
    uri: str
    #: Its groups.
    groups: List[str]
    #: Its labels.
    labels: Dict[str, str]
    #: How well it does its work: ``healthy``, ``degraded``, ``overloaded`` or ``unavailable``. None if that is not watched.
    health: Optional[str]


class _Base:
    """What both kinds of fleets share: how they are made and closed."""

    def __init__(
        self,
        config: Union[str, os.PathLike[str], None] = None,
        *,
        hosts: Optional[Hosts] = None,
        settings: Optional[Mapping[str, Any]] = None,
        environment: Optional[Mapping[str, str]] = None,
        server: Optional[str] = None,
        token: Optional[str] = None,
        ca_file: Union[str, os.PathLike[str], None] = None,
    ) -> None:
        if server is not None:
            if token is None:
                raise TypeError("a service needs a token: Fleet(server=..., token=...)")
            if config is not None or hosts is not None or settings is not None:
                raise TypeError("config, hosts and settings are for a fleet without a server, which has its own")
            file = None if ca_file is None else os.fspath(ca_file)
            self._core = _native.Core.of_service(server, token, file)
        else:
            if token is not None or ca_file is not None:
                raise TypeError("token and ca_file are for a service: Fleet(server=..., token=...)")
            if config is not None and "://" in str(config):
                raise ConfigError(
                    "config is a settings file, and no URI",
                    kind="invalid-config",
                    hint="Fleet(hosts=[URI]) connects to a host by its URI",
                )
            values = list(_leaves((), settings or {})) + list(_hosts(hosts))
            self._core = _native.Core.of_settings(
                None if config is None else os.fspath(config),
                config is None and hosts is None,
                hosts is not None or "hosts" in (settings or {}),
                _variables(os.environ if environment is None else environment),
                json.dumps(values),
            )
        self._is_service = self._core.is_service
        _keep(self._core)

    def watch(self, chosen: Dict[str, Any], qemu: bool, timeout: Optional[float]) -> _native.Feed:
        """Begins to watch VMs, for ``events``."""
        return self._core.watch(json.dumps(chosen), qemu, None if timeout is None else round(timeout * 1000))

    def measure(self, chosen: Dict[str, Any], interval: float) -> _native.Feed:
        """Begins to measure VMs, for ``stats``."""
        if interval < 0.1:
            raise ValueError("interval is at least 0.1 seconds")
        return self._core.sample(json.dumps(chosen), round(interval * 1000))

    def listen(self, operation: Operation[Any], options: Options) -> _native.Feed:
        """Begins to capture consoles, for ``console_lines``."""
        return self._core.lines(json.dumps(request(operation, options)))

    def place(self, file: Union[str, os.PathLike[str], None]) -> Optional[str]:
        """The file of reservations; None if the service has them."""
        if self._is_service:
            if file is not None:
                raise TypeError("file is for a fleet without a service: the service has the reservations itself")
            return None
        place = self._core.reservations_file() if file is None else os.fspath(file)
        if place is None:
            raise TypeError(
                "reservations need a file: file=... or the setting reservations_file names the one that all jobs of this machine use"
            )
        return place

    def end(
        self, owner: str, file: Union[str, os.PathLike[str], None], targets: Optional[Selectors]
    ) -> List[Reservation]:
        """Ends reservations, for ``release``."""
        place = self.place(file)
        selectors: List[str] = [] if targets is None else selected(targets)["selectors"]
        if targets is not None and not selectors:
            # None selects all.
            return []
        if place is None:
            return _reservations.release_in_service(self._core, owner, selectors)
        if targets is None:
            return _reservations.release(place, owner)
        return _reservations.release_selected(self._core, place, owner, selectors)

    def begin(self, operation: Operation[Any], options: Options) -> _native.Run:
        """Begins a run, for the faces of this fleet."""
        return self._core.start(json.dumps(request(operation, options)))

    def planned(self, operation: Operation[Any], options: Options) -> Plan:
        """Plans, for ``plan``."""
        return _plans.read(self._core.plan(json.dumps(request(operation, options))))

    async def planned_in_loop(self, operation: Operation[Any], options: Options) -> Plan:
        """Plans, for ``plan``."""
        asked = json.dumps(request(operation, options))
        return _plans.read(await loop().answer(lambda bridge, number: self._core.plan_into(asked, bridge, number)))


class Fleet(_Base, Verbs):
    """A fleet of virtual machines.

    :param config: A settings file. Without it, and without ``hosts``, the files that the command line ``atp`` reads:
        ``/etc/atp/config.toml``, and ``atp/config.toml`` in the user's configuration folder. If nothing there and nothing here names
        hosts, the daemon of this machine is the host ``local``. Settings that name a service (``server``, ``server_token_file``,
        ``server_ca_file``) are those of a fleet that it works on, unless ``hosts`` are given.
    :param hosts: Hosts by their names, ``{"h1": "qemu+tcp://10.0.0.7/system"}``, or URIs alone.
    :param settings: Further settings, above those of files and environment: ``{"timeout": "20s", "transport": {...}}``.
    :param environment: The variables to read settings from; without it, those of this process. Only those that start with
        ``ATP_`` count.
    :param server: The address of a service, which does the work instead. It needs a ``token``.
    :param token: The token that the service knows this program by.
    :param ca_file: The certificates of the authorities that may sign the service's.

    Each verb of :class:`Verbs` returns when every target has its outcome. It takes further options by name: ``timeout`` (seconds for
    each target), ``deadline`` (seconds for all), ``parallel``, ``per_host``, ``retries``, ``max_failures``, ``serial``, ``exclude``,
    ``state``, ``labels``, ``journal`` and ``resume``. A failure of a target is no exception: it is in its outcome. A verb raises
    :class:`RequestError` if the request is wrong, before anything is done; :class:`ServiceError` if the service refuses it or does not
    answer; :class:`ClosedError` and :class:`ForkedError`.

    :raises ConfigError: The settings cannot be used; or ``config``, ``hosts`` or a section ``[hosts]`` name no host.

    >>> with Fleet(hosts={"h1": "qemu+tcp://127.0.0.1:1/system"}) as fleet:
    ...     outcomes = fleet.exec("h1/*", ["uname", "-r"], timeout=2)
    >>> outcomes[0].status, outcomes[0].error.kind, outcomes[0].effect
    ('unreachable', 'connection-refused', 'none')
    """

    @property
    def stream(self) -> Streamed:
        """The same verbs, each as an iterator of outcomes in the order in which they come.

        >>> sorted(outcome.target for outcome in fleet.stream.exec("h1/*", ["true"]))
        ['h1/vm1', 'h1/vm2']
        """
        return Streamed(self)

    @property
    def plan(self) -> Planned:
        """The same verbs, each as a plan: what it would do now. Nothing is changed, as with ``atp --dry-run``.

        >>> plan = fleet.plan.shutdown("h1/*")
        >>> [target.target for target in plan.to_do], plan.disruptive
        (['h1/vm1', 'h1/vm2'], True)
        """
        return Planned(self)

    def _run(self, operation: Operation[D], options: Options) -> Outcomes[D]:
        return Outcomes(self._core.run(json.dumps(request(operation, options))))

    def vm(self, target: str, **options: Unpack[Options]) -> Vm:
        """Finds one VM, for calls that follow each other: they do not look for it again.

        :param target: Its selector, such as ``host1/db``.
        :raises OutcomeError: It was not found, or its host could not be asked.
        :raises RequestError: The selector means several VMs, or none.

        >>> vm = fleet.vm("h1/vm1")
        >>> vm.exec(["uname"]).unwrap().stdout.text, vm.state()
        ('Linux\\n', 'running')
        """
        return Vm(self, only(self.vms(target, **options), target))

    def run_on(self, vm: Optional[_native.Found], operation: Operation[D], options: VmOptions) -> Outcome[D]:
        """Runs an operation on the one VM that it is for, for :class:`Vm`."""
        return Outcome(self._core.run(json.dumps(request(operation, options)), vm).item(0))

    def events(
        self,
        targets: Selectors = "*",
        *,
        exclude: Selectors = (),
        labels: Optional[Mapping[str, str]] = None,
        qemu: bool = False,
        timeout: Optional[float] = None,
    ) -> Events:
        """Watches VMs: each event as it comes, through lost connections, until the iterator is closed.

        :param qemu: The events of QEMU's monitors too.
        :param timeout: For how many seconds; without it there is no end.

        >>> with fleet.events("h1/*", timeout=60) as events:
        ...     first = next(events)
        >>> first.item, first.host
        ('present', 'h1')
        """
        return Events(self.watch(selected(targets, exclude, None, labels), qemu, timeout), self)

    def console_lines(
        self,
        targets: Selectors,
        *,
        device: Optional[str] = None,
        force: bool = False,
        **options: Unpack[Options],
    ) -> ConsoleLines:
        """Lines of serial consoles as they are written, until the timeout. A VM that cannot be captured has a line with an ``error``.

        The parameters are those of :meth:`console`.

        >>> with fleet.console_lines("h1/vm1", timeout=60) as lines:
        ...     next(lines).vm
        'vm1'
        """
        return ConsoleLines(self.listen(console_lines(targets, device=device, force=force), options), self)

    def attach(
        self, vm: str, *, device: Optional[str] = None, force: bool = False, timeout: Optional[float] = None
    ) -> ByteStream:
        """Opens the serial console of one VM to read and to write, as ``atp attach`` does.

        What the guest wrote before is not sent again. The host's daemon gives a console to one client at a time.

        :param vm: Its selector.
        :param device: The alias of the console in its definition, such as ``serial1``; without it the first.
        :param force: Take it from another client, such as ``virsh console``.
        :param timeout: In how many seconds it is to be found, and then opened; without it those of the settings.
        :raises OutcomeError: It was not found, or cannot be opened: ``vm-not-running``, ``channel-in-use``, …
        :raises RequestError: The selector means several VMs, or none.
        :raises ServiceError: The service refused it or did not answer.

        >>> with fleet.attach("h1/vm1") as console:
        ...     console.expect("login: ", timeout=60).match[0]
        ...     console.write(b"root")
        ...     console.expect("root", timeout=60).match[0]
        b'login: '
        b'root'
        """
        return self.vm(vm, **_in(timeout)).attach(device=device, force=force, timeout=timeout)

    def channel(self, vm: str, name: str, *, force: bool = False, timeout: Optional[float] = None) -> ByteStream:
        """Opens a virtio-serial channel of one VM to read and to write, as ``atp channel`` does.

        Whether a program in the guest has it open is not known.

        :param name: The channel's name in the definition of the VM.

        The other parameters and the errors are those of :meth:`attach`.

        >>> with fleet.channel("h1/vm1", "org.example.control") as channel:
        ...     channel.write(b"status 0;")
        ...     channel.expect(r"status (\\d+);", timeout=60).match[1]
        b'0'
        """
        return self.vm(vm, **_in(timeout)).channel(name, force=force, timeout=timeout)

    def open_on(
        self, vm: _native.Found, device: Optional[str], channel: Optional[str], force: bool, timeout: Optional[float]
    ) -> ByteStream:
        """Opens a console or a channel of a VM, for :class:`Vm`."""
        return ByteStream(self._core.open(vm, device, channel, force, timeout), self)

    def hosts(self) -> List[Host]:
        """The hosts, by their names. None of them is asked anything.

        :raises ServiceError: The service does not answer.

        >>> [host.id for host in fleet.hosts()]
        ['h1', 'h2']
        """
        return _hosts_of(self._core.hosts())

    def stats(
        self,
        targets: Selectors = "*",
        *,
        exclude: Selectors = (),
        state: Optional[str] = None,
        labels: Optional[Mapping[str, str]] = None,
        interval: float = 2.0,
        count: int = 1,
    ) -> Statistics:
        """Measures what VMs use.

        :param interval: Seconds that are measured over, 0.1 at least.
        :param count: How many times in a row.

        >>> statistics = fleet.stats("h1/*", interval=0.5)
        >>> {vm.host for vm in statistics} <= {"h1"}
        True
        """
        _at_least_one(count)
        rounds: List[Statistics] = []
        with self.stream.stats(targets, exclude=exclude, state=state, labels=labels, interval=interval) as samples:
            while len(rounds) < count:
                statistics = next(samples, None)
                if statistics is None:
                    raise closed()
                rounds.append(statistics)
        return Statistics.of(rounds)

    def reserve(
        self,
        targets: Selectors,
        *,
        file: Union[str, os.PathLike[str], None] = None,
        count: int = 1,
        time: float = 3600.0,
        owner: Optional[str] = None,
        wait: float = 0.0,
        **options: Unpack[Options],
    ) -> Reserved:
        """Reserves free VMs, as ``atp reserve`` does: no other job that uses the same service, or names the same file on this machine,
        gets them meanwhile.

        :param file: The file of the reservations, on a local disk; for a fleet without a service only. Without it the one that the
            setting ``reservations_file`` names.
        :param count: How many: all of them are reserved, or none.
        :param time: For how many seconds. Then they are free without a release.
        :param owner: Whose they are; without it a name that no other has.
        :param wait: For how many seconds it is waited until enough are free.
        :raises NotFreeError: Too few are free, or selected.
        :raises ServiceError: The service refused it or did not answer. With the effect ``unknown`` VMs may be reserved until
            their time ends, or ``fleet.release(owner)``.

        Of the options, a service takes those that say which VMs: ``exclude``, ``state`` and ``labels``.

        >>> with fleet.reserve("h1/*", count=2, file="reservations", owner="nightly") as reserved:
        ...     reserved.targets
        ['h1/vm1', 'h1/vm2']
        """
        refuse_journals(options)
        place = self.place(file)
        attempt: Union[_reservations.Attempt, _reservations.ServiceAttempt]
        if place is None:
            asked = request(vms(targets), options)
            attempt = _reservations.attempt_in_service(self._core, asked, count, owner, time)
        else:
            attempt = _reservations.attempt(self._core, list(self.vms(targets, **options)), place, count, owner, time)
        until = monotonic() + wait
        while True:
            reserved = attempt.try_once()
            if reserved is not None:
                return reserved
            left = until - monotonic()
            if left <= 0:
                raise attempt.refusal()
            sleep(min(left, attempt.interval))
            if isinstance(attempt, _reservations.Attempt) and attempt.is_partial:
                attempt.look(list(self.vms(targets, **_by(until, options))))

    def release(
        self,
        owner: str,
        file: Union[str, os.PathLike[str], None] = None,
        *,
        targets: Optional[Selectors] = None,
    ) -> List[Reservation]:
        """Ends reservations of an owner, as ``atp release`` does. Returns them.

        :param file: The file of the reservations, as of :meth:`reserve`.
        :param targets: Of which VMs, by the names that they were reserved under; without it of all.
        :raises ServiceError: The service refused it or did not answer.

        >>> _ = fleet.reserve("h1/*", count=2, file="reservations", owner="nightly")
        >>> [one.vm for one in fleet.release("nightly", "reservations", targets="h1/vm2")]
        ['vm2']
        """
        return self.end(owner, file, targets)

    def reservations(self, file: Union[str, os.PathLike[str], None] = None) -> List[Reservation]:
        """The reservations that have not ended, of all owners.

        :param file: The file of the reservations, as of :meth:`reserve`.
        :raises ServiceError: The service refused it or did not answer.

        >>> _ = fleet.reserve("h1/vm1", file="reservations", owner="nightly")
        >>> [(one.target, one.owner) for one in fleet.reservations("reservations")]
        [('h1/vm1', 'nightly')]
        """
        return _reservations.listed(self._core, self.place(file))

    def close(self) -> None:
        """Ends all runs at once, and closes all connections. What is called later raises :class:`ClosedError`."""
        self._core.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()


class AsyncFleet(_Base, AsyncVerbs):
    """A :class:`Fleet` for coroutines. It is made as that is, and has the same verbs, each to be awaited."""

    @property
    def stream(self) -> AsyncStreamed:
        """The same verbs, each for ``async for``."""
        return AsyncStreamed(self)

    @property
    def plan(self) -> AsyncPlanned:
        """As :attr:`Fleet.plan`: ``await fleet.plan.reboot("web-*")``."""
        return AsyncPlanned(self)

    async def _run(self, operation: Operation[D], options: Options) -> Outcomes[D]:
        return Outcomes(await _collected(self.begin(operation, options)))

    async def vm(self, target: str, **options: Unpack[Options]) -> AsyncVm:
        """As :meth:`Fleet.vm`."""
        return AsyncVm(self, only(await self.vms(target, **options), target))

    async def run_on(
        self, vm: Optional[_native.Found], operation: Operation[D], options: VmOptions
    ) -> Outcome[D]:
        """As :meth:`Fleet.run_on`."""
        return Outcome((await _collected(self._core.start(json.dumps(request(operation, options)), vm))).item(0))

    def events(
        self,
        targets: Selectors = "*",
        *,
        exclude: Selectors = (),
        labels: Optional[Mapping[str, str]] = None,
        qemu: bool = False,
        timeout: Optional[float] = None,
    ) -> AsyncEvents:
        """As :meth:`Fleet.events`, for ``async for``."""
        return AsyncEvents(self.watch(selected(targets, exclude, None, labels), qemu, timeout), self)

    def console_lines(
        self,
        targets: Selectors,
        *,
        device: Optional[str] = None,
        force: bool = False,
        **options: Unpack[Options],
    ) -> AsyncConsoleLines:
        """As :meth:`Fleet.console_lines`, for ``async for``."""
        return AsyncConsoleLines(self.listen(console_lines(targets, device=device, force=force), options), self)

    async def attach(
        self, vm: str, *, device: Optional[str] = None, force: bool = False, timeout: Optional[float] = None
    ) -> AsyncByteStream:
        """As :meth:`Fleet.attach`: ``async with await fleet.attach(...) as console``."""
        found = await self.vm(vm, **_in(timeout))
        return await found.attach(device=device, force=force, timeout=timeout)

    async def channel(
        self, vm: str, name: str, *, force: bool = False, timeout: Optional[float] = None
    ) -> AsyncByteStream:
        """As :meth:`Fleet.channel`: ``async with await fleet.channel(...) as channel``."""
        found = await self.vm(vm, **_in(timeout))
        return await found.channel(name, force=force, timeout=timeout)

    async def open_on(
        self, vm: _native.Found, device: Optional[str], channel: Optional[str], force: bool, timeout: Optional[float]
    ) -> AsyncByteStream:
        """As :meth:`Fleet.open_on`."""
        opening = partial(self._core.open_into, vm, device, channel, force, timeout)
        return AsyncByteStream(await loop().answer(opening), self)

    async def hosts(self) -> List[Host]:
        """As :meth:`Fleet.hosts`."""
        (text,) = await loop().answer(self._core.hosts_into)
        return _hosts_of(text)

    async def stats(
        self,
        targets: Selectors = "*",
        *,
        exclude: Selectors = (),
        state: Optional[str] = None,
        labels: Optional[Mapping[str, str]] = None,
        interval: float = 2.0,
        count: int = 1,
    ) -> Statistics:
        """As :meth:`Fleet.stats`."""
        _at_least_one(count)
        rounds: List[Statistics] = []
        samples = self.stream.stats(targets, exclude=exclude, state=state, labels=labels, interval=interval)
        async with samples:
            async for statistics in samples:
                rounds.append(statistics)
                if len(rounds) == count:
                    return Statistics.of(rounds)
        raise closed()

    async def reserve(
        self,
        targets: Selectors,
        *,
        file: Union[str, os.PathLike[str], None] = None,
        count: int = 1,
        time: float = 3600.0,
        owner: Optional[str] = None,
        wait: float = 0.0,
        **options: Unpack[Options],
    ) -> Reserved:
        """As :meth:`Fleet.reserve`: ``async with await fleet.reserve(...) as reserved``."""
        refuse_journals(options)
        place = self.place(file)
        attempt: Union[_reservations.Attempt, _reservations.ServiceAttempt]
        if place is None:
            asked = request(vms(targets), options)
            attempt = _reservations.attempt_in_service(self._core, asked, count, owner, time)
        else:
            listed = await self.vms(targets, **options)
            attempt = _reservations.attempt(self._core, list(listed), place, count, owner, time)
        until = monotonic() + wait
        while True:
            reserved = await attempt.try_in_loop()
            if reserved is not None:
                return reserved
            left = until - monotonic()
            if left <= 0:
                raise attempt.refusal()
            await asyncio.sleep(min(left, attempt.interval))
            if isinstance(attempt, _reservations.Attempt) and attempt.is_partial:
                attempt.look(list(await self.vms(targets, **_by(until, options))))

    async def release(
        self,
        owner: str,
        file: Union[str, os.PathLike[str], None] = None,
        *,
        targets: Optional[Selectors] = None,
    ) -> List[Reservation]:
        """As :meth:`Fleet.release`. If the task is cancelled, the reservations may be ended all the same."""
        return await asyncio.get_running_loop().run_in_executor(None, self.end, owner, file, targets)

    async def reservations(self, file: Union[str, os.PathLike[str], None] = None) -> List[Reservation]:
        """As :meth:`Fleet.reservations`."""
        place, running = self.place(file), asyncio.get_running_loop()
        return await running.run_in_executor(None, _reservations.listed, self._core, place)

    async def aclose(self) -> None:
        """As :meth:`Fleet.close`. It takes about a second at most."""
        await asyncio.get_running_loop().run_in_executor(None, self._core.close)

    async def __aenter__(self) -> AsyncFleet:
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.aclose()


class Streamed(StreamedVerbs):
    """The verbs of a :class:`Fleet`, each as an iterator of outcomes."""

    def __init__(self, fleet: _Base) -> None:
        self._fleet = fleet

    def stats(
        self,
        targets: Selectors = "*",
        *,
        exclude: Selectors = (),
        state: Optional[str] = None,
        labels: Optional[Mapping[str, str]] = None,
        interval: float = 2.0,
    ) -> Samples:
        """Measures what VMs use, over each interval, until the iterator is closed."""
        return Samples(self._fleet.measure(selected(targets, exclude, state, labels), interval), self._fleet)

    def _run(self, operation: Operation[D], options: Options) -> Stream[D]:
        return Stream(self._fleet.begin(operation, options), self._fleet)


class AsyncStreamed(AsyncStreamedVerbs):
    """The verbs of an :class:`AsyncFleet`, each as an asynchronous iterator of outcomes."""

    def __init__(self, fleet: _Base) -> None:
        self._fleet = fleet

    def stats(
        self,
        targets: Selectors = "*",
        *,
        exclude: Selectors = (),
        state: Optional[str] = None,
        labels: Optional[Mapping[str, str]] = None,
        interval: float = 2.0,
    ) -> AsyncSamples:
        """Measures what VMs use, over each interval, until the iterator is closed."""
        return AsyncSamples(self._fleet.measure(selected(targets, exclude, state, labels), interval), self._fleet)

    def _run(self, operation: Operation[D], options: Options) -> AsyncStream[D]:
        return AsyncStream(self._fleet.begin(operation, options), self._fleet)


class Planned(PlannedVerbs):
    """The verbs of a :class:`Fleet`, each as a plan."""

    def __init__(self, fleet: _Base) -> None:
        self._fleet = fleet

    def _run(self, operation: Operation[Any], options: Options) -> Plan:
        return self._fleet.planned(operation, options)


class AsyncPlanned(AsyncPlannedVerbs):
    """The verbs of an :class:`AsyncFleet`, each as a plan to await."""

    def __init__(self, fleet: _Base) -> None:
        self._fleet = fleet

    async def _run(self, operation: Operation[Any], options: Options) -> Plan:
        return await self._fleet.planned_in_loop(operation, options)


async def _collected(run: _native.Run) -> _native.Outcomes:
    """All outcomes of a run, which ends if this is cancelled."""
    try:
        return cast("_native.Outcomes", await loop().answer(run.collect_into))
    except BaseException:
        run.abort()
        raise


def _hosts_of(text: str) -> List[Host]:
    return [
        Host(
            host["id"],
            host["uri"],
            list(host["groups"]),
            dict(host["labels"]),
            host["health"]["state"] if host["health"] else None,
        )
        for host in json.loads(text)
    ]


def _at_least_one(count: int) -> None:
    if count < 1:
        raise ValueError("count is at least 1")


def _in(timeout: Optional[float]) -> Options:
    """The options of a listing that takes no longer."""
    return {} if timeout is None else {"timeout": timeout}


def _by(until: float, options: Options) -> Options:
    """The options of a listing that is to end by then."""
    left, given = max(until - monotonic(), 0.1), options.get("deadline")
    by = options.copy()
    by["deadline"] = left if given is None else min(given, left)
    return by


def _variables(environment: Mapping[str, str]) -> List[Tuple[str, str]]:
    """The variables that settings are read from."""
    chosen: List[Tuple[str, str]] = []
    for name, value in environment.items():
        if not name.startswith("ATP_") and name not in ("HOME", "XDG_CONFIG_HOME"):
            continue
        try:
            f"{name}{value}".encode()
        except UnicodeEncodeError:
            raise ConfigError(f"the variable {name!a} is not UTF-8", kind="invalid-config") from None
        chosen.append((name, value))
    return chosen


def _leaves(path: Tuple[str, ...], values: Any) -> Iterable[Tuple[Tuple[str, ...], Any]]:
    """The values of nested tables, each with its path. A key may be a path with dots itself."""
    for key, value in cast("Mapping[str, Any]", values).items():
        # The name of a host may have dots.
        parts = (key,) if path[:1] == ("hosts",) else tuple(key.split("."))
        below = path + parts
        if isinstance(value, Mapping):
            yield from _leaves(below, value)
        else:
            yield below, value


def _hosts(hosts: Optional[Hosts]) -> Iterable[Tuple[Tuple[str, ...], Any]]:
    if hosts is None:
        return
    if isinstance(hosts, str):
        raise TypeError("hosts is a dict of names and URIs, or a list of URIs")
    named: Dict[str, Any] = {}
    if isinstance(hosts, Mapping):
        named.update(cast("Mapping[str, Any]", hosts))
    else:
        for uri in hosts:
            name = (urlsplit(uri).hostname or "local").replace(":", "-")
            if name in named:
                raise ValueError(f"two URIs lead to {name}: give the hosts names, in a dict")
            named[name] = uri
    for name, host in named.items():
        if isinstance(host, Mapping):
            yield from _leaves(("hosts", name), host)
        else:
            yield ("hosts", name, "uri"), host


_open: WeakSet[_native.Core] = WeakSet()
#: Of what is open, and whether the interpreter ends.
_lock = threading.Lock()
_is_ending = False


def _keep(core: _native.Core) -> None:
    """Notes a fleet, which is closed before the interpreter joins its threads.

    :raises ClosedError: It would be joined with a thread of its own.
    """
    with _lock:
        if not _is_ending or threading.current_thread() is threading.main_thread():
            _open.add(core)
            return
    core.close()
    raise closed()


def _close_all() -> None:
    """Ends all work before the interpreter joins its threads: one that waits for a call that hangs would hold it up."""
    global _is_ending
    if os.getpid() == _process:
        with _lock:
            _is_ending = True
            cores = list(_open)
        _native.Core.close_all(cores)


_process = os.getpid()


def _forked() -> None:
    """A process that was forked has no fleets of its own yet."""
    global _process, _lock, _is_ending
    _process, _lock, _is_ending = os.getpid(), threading.Lock(), False
    _open.clear()


os.register_at_fork(after_in_child=_forked)
# Pools of threads register a join of theirs here when they are imported. What is registered last is called first.
_before_join = getattr(threading, "_register_atexit", atexit.register)
_before_join(_close_all)
assert concurrent.futures.thread
