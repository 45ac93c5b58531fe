"""One VM, for calls that follow each other."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Optional, TypeVar, cast

from . import _native
from ._bytes import AsyncByteStream, ByteStream
from ._data import DomainInfo
from ._errors import RequestError
from ._faces import AsyncVmVerbs, VmVerbs
from ._outcomes import Outcome, Outcomes
from ._verbs import Operation, VmOptions, escaped, vms

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

if TYPE_CHECKING:
    from ._fleet import AsyncFleet, Fleet

D = TypeVar("D")

#: What is given to a verb may be secret: reports of pytest show the arguments of the last frame, which is then that of the caller.
__tracebackhide__ = True


class _Found:
    """A VM that was found."""

    def __init__(self, listed: Outcome[DomainInfo]) -> None:
        self._host = listed.host or ""
        self._name = listed.unwrap().name
        self._uuid = listed.uuid
        self._found: Optional[_native.Found] = listed.found()

    @property
    def host(self) -> str:
        """The host that it was found on."""
        return self._host

    @property
    def name(self) -> str:
        """Its name when it was found."""
        return self._name

    @property
    def uuid(self) -> Optional[str]:
        """Its identity."""
        return self._uuid

    @property
    def target(self) -> str:
        """The selector of this VM alone, for the verbs of the fleet."""
        return f"{self._host}/{escaped(self._name)}"

    @property
    def _there(self) -> _native.Found:
        # A listing has it.
        return cast("_native.Found", self._found)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.target}>"


class Vm(_Found, VmVerbs):
    """One VM of a :class:`Fleet`, which :meth:`Fleet.vm` has found. Its verbs are those of the fleet, and each returns its one outcome.

    Calls do not look for it again: it is the VM of that UUID, whatever its name is later. If it has moved to another host it is followed
    there. Through a service it is the VM of that name. As no host is listed, a start asks other hosts whether the VM runs there only with
    ``start_check="all-hosts"``.
    """

    def __init__(self, fleet: Fleet, listed: Outcome[DomainInfo]) -> None:
        super().__init__(listed)
        self._fleet = fleet

    def state(self, **options: Unpack[VmOptions]) -> str:
        """Its state now, such as ``running``.

        :raises OutcomeError: It cannot be asked for.
        """
        return self._run(vms(self.target), options).unwrap().state

    def attach(
        self, *, device: Optional[str] = None, force: bool = False, timeout: Optional[float] = None
    ) -> ByteStream:
        """As :meth:`Fleet.attach`, of this VM. One that has moved to another host since it was found is to be found again."""
        return self._fleet.open_on(self._there, device, None, force, timeout)

    def channel(self, name: str, *, force: bool = False, timeout: Optional[float] = None) -> ByteStream:
        """As :meth:`Fleet.channel`, of this VM. One that has moved to another host since it was found is to be found again."""
        return self._fleet.open_on(self._there, None, name, force, timeout)

    def _run(self, operation: Operation[D], options: VmOptions) -> Outcome[D]:
        return self._fleet.run_on(self._found, operation, options)


class AsyncVm(_Found, AsyncVmVerbs):
    """A :class:`Vm` of an :class:`AsyncFleet`. Its verbs are awaited."""

    def __init__(self, fleet: AsyncFleet, listed: Outcome[DomainInfo]) -> None:
        super().__init__(listed)
        self._fleet = fleet

    async def state(self, **options: Unpack[VmOptions]) -> str:
        """As :meth:`Vm.state`."""
        return (await self._run(vms(self.target), options)).unwrap().state

    async def attach(
        self, *, device: Optional[str] = None, force: bool = False, timeout: Optional[float] = None
    ) -> AsyncByteStream:
        """As :meth:`Vm.attach`."""
        return await self._fleet.open_on(self._there, device, None, force, timeout)

    async def channel(
        self, name: str, *, force: bool = False, timeout: Optional[float] = None
    ) -> AsyncByteStream:
        """As :meth:`Vm.channel`."""
        return await self._fleet.open_on(self._there, None, name, force, timeout)

    async def _run(self, operation: Operation[D], options: VmOptions) -> Outcome[D]:
        return await self._fleet.run_on(self._found, operation, options)


def only(listed: Outcomes[DomainInfo], selector: str) -> Outcome[DomainInfo]:
    """The one VM that was found.

    :raises OutcomeError: It was not found, or its host could not be asked.
    :raises RequestError: The selector means several, or none.
    """
    if len(listed) != 1:
        raise RequestError(
            f"{selector!r} selects {len(listed)} VMs, and not one", kind="invalid-request", hint="name it, as HOST/VM"
        )
    listed[0].unwrap()
    return listed[0]
