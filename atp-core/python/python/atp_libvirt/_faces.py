"""The faces of a fleet. Written by `tools/generate.py` from `_verbs.py`; do not edit."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Mapping, Optional, Sequence, TypeVar, Union

from . import _verbs
from ._data import (
    ConsoleReport,
    Diagnosis,
    DomainInfo,
    ExecReport,
    FileReport,
    HostReport,
    ScenarioReport,
    ScreenshotReport,
    Snapshot,
    SnapshotList,
    StateReport,
    VmReport,
    WaitReport,
    XmlReport,
)
from ._outcomes import Outcome, Outcomes
from ._streams import AsyncStream, Stream
from ._verbs import Operation, Options, Selectors, VmOptions

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

D = TypeVar("D")


class Verbs:
    """Each verb, until every target has its outcome."""

    def _run(self, operation: Operation[D], options: Options) -> Outcomes[D]:
        raise NotImplementedError

    def exec(
        self,
        targets: Selectors,
        argv: Sequence[str],
        *,
        env: Optional[Mapping[str, str]] = None,
        stdin: Union[str, bytes, None] = None,
        cwd: Optional[str] = None,
        spool: Optional[str] = None,
        encoding: Optional[str] = None,
        **options: Unpack[Options],
    ) -> Outcomes[ExecReport]:
        """Runs a program in guests, through their agents.

        :param argv: The program and its arguments. They pass no shell; for a line of one, see :meth:`shell`.
        :param env: Its whole environment; without it that of the agent.
        :param stdin: Its standard input, at most about 95 KiB.
        :param cwd: Its working folder.
        :param spool: A folder in the guest for its output, which may then have any size.
        :param encoding: The encoding of its output, if that is not UTF-8.
        """
        return self._run(_verbs.exec(targets, argv, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    def shell(
        self,
        targets: Selectors,
        line: str,
        *,
        env: Optional[Mapping[str, str]] = None,
        stdin: Union[str, bytes, None] = None,
        cwd: Optional[str] = None,
        spool: Optional[str] = None,
        encoding: Optional[str] = None,
        **options: Unpack[Options],
    ) -> Outcomes[ExecReport]:
        """Runs a line of ``/bin/sh`` in guests. The parameters are those of :meth:`exec`."""
        return self._run(_verbs.shell(targets, line, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    def vms(
        self,
        targets: Selectors = '*',
        **options: Unpack[Options],
    ) -> Outcomes[DomainInfo]:
        """Lists VMs. Nothing is asked but their hosts."""
        return self._run(_verbs.vms(targets), options)

    def info(
        self,
        targets: Selectors,
        **options: Unpack[Options],
    ) -> Outcomes[VmReport]:
        """Asks for everything that hosts and agents know of VMs."""
        return self._run(_verbs.info(targets), options)

    def start(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        start_check: str = 'listed',
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Starts VMs.

        :param wait: True waits for the state, and for the guest's agent if it has one; ``"agent"`` fails without one; ``"state"`` waits
            for the state alone.
        :param start_check: Which hosts are asked whether the VM runs there: ``listed``, ``all-hosts`` or ``nothing``.
        """
        return self._run(_verbs.start(targets, wait=wait, start_check=start_check), options)

    def shutdown(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Asks guests to power off. With ``wait``, True or ``"state"``, until they have."""
        return self._run(_verbs.shutdown(targets, wait=wait), options)

    def reboot(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Asks guests to restart. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.reboot(targets, wait=wait), options)

    def reset(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Resets VMs, as by the button. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.reset(targets, wait=wait), options)

    def destroy(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Ends VMs at once, as by pulling the plug. ``wait`` as of :meth:`shutdown`."""
        return self._run(_verbs.destroy(targets, wait=wait), options)

    def suspend(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Stops the virtual CPUs of VMs. With ``wait``, True or ``"state"``, until they are paused."""
        return self._run(_verbs.suspend(targets, wait=wait), options)

    def resume(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Lets suspended VMs run on, and wakes guests that sleep. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.resume(targets, wait=wait), options)

    def save(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Writes the memory of VMs to files of their hosts, and powers them off. :meth:`start` lets them go on. ``wait`` as of
        :meth:`shutdown`.
        """
        return self._run(_verbs.save(targets, wait=wait), options)

    def restore(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Lets saved VMs go on from their memory. A VM that is not saved is left as it is. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.restore(targets, wait=wait), options)

    def nmi(
        self,
        targets: Selectors,
        **options: Unpack[Options],
    ) -> Outcomes[None]:
        """Sends VMs a non-maskable interrupt. Many guests panic, and dump their memory."""
        return self._run(_verbs.nmi(targets), options)

    def autostart(
        self,
        targets: Selectors,
        on: bool,
        **options: Unpack[Options],
    ) -> Outcomes[None]:
        """Sets whether VMs are started with their hosts."""
        return self._run(_verbs.autostart(targets, on), options)

    def xml(
        self,
        targets: Selectors,
        *,
        inactive: bool = False,
        **options: Unpack[Options],
    ) -> Outcomes[XmlReport]:
        """Reads the definitions of VMs, as libvirt's XML without passwords.

        :param inactive: The definitions that hold from the next start, and not those of now.
        """
        return self._run(_verbs.xml(targets, inactive=inactive), options)

    def snapshot_create(
        self,
        targets: Selectors,
        name: str,
        *,
        description: Optional[str] = None,
        disk_only: bool = False,
        quiesce: bool = False,
        **options: Unpack[Options],
    ) -> Outcomes[Snapshot]:
        """Makes a snapshot of each VM: of its disks, and of its memory if it runs. Allow for the time to write the memory.

        :param description: What a person wants to say of it.
        :param disk_only: Not the memory of a VM that runs.
        :param quiesce: The guests' agents freeze the file systems meanwhile. Only with ``disk_only``.
        """
        return self._run(_verbs.snapshot_create(targets, name, description=description, disk_only=disk_only, quiesce=quiesce), options)

    def snapshot_list(
        self,
        targets: Selectors,
        **options: Unpack[Options],
    ) -> Outcomes[SnapshotList]:
        """Lists the snapshots of VMs."""
        return self._run(_verbs.snapshot_list(targets), options)

    def snapshot_revert(
        self,
        targets: Selectors,
        name: str,
        *,
        then: str = 'as-then',
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Takes VMs back to a snapshot: what was written since then is lost.

        :param then: What they do afterwards: ``as-then`` (what they did when the snapshot was made), ``start`` or ``pause``.
        """
        return self._run(_verbs.snapshot_revert(targets, name, then=then), options)

    def snapshot_delete(
        self,
        targets: Selectors,
        name: str,
        *,
        children: bool = False,
        **options: Unpack[Options],
    ) -> Outcomes[None]:
        """Removes a snapshot of each VM, which stays as it is.

        :param children: The snapshots that were made after it too.
        """
        return self._run(_verbs.snapshot_delete(targets, name, children=children), options)

    def console(
        self,
        targets: Selectors,
        folder: Union[str, os.PathLike[str]],
        *,
        device: Optional[str] = None,
        force: bool = False,
        **options: Unpack[Options],
    ) -> Outcomes[ConsoleReport]:
        """Captures serial consoles in files, as ``folder/HOST/VM.log``, until the timeout. Faults of the guests' kernels are counted.

        :param device: The console's alias in the definition, such as ``serial1``; the first console without it.
        :param force: Takes the console from another client of the daemon.
        """
        return self._run(_verbs.console(targets, folder, device=device, force=force), options)

    def wait(
        self,
        targets: Selectors,
        until: str = 'agent',
        *,
        exec: Optional[Sequence[str]] = None,
        port: Optional[int] = None,
        **options: Unpack[Options],
    ) -> Outcomes[WaitReport]:
        """Waits, until the timeout at most.

        :param until: ``agent`` (it answers), or a state: ``running``, ``shut-off``, ``paused``, ``crashed``, ``pmsuspended``.
        :param exec: A program that has to end with exit code 0 in the guest; it is run again and again.
        :param port: A TCP port that a process in the guest has to listen on.
        """
        return self._run(_verbs.wait(targets, until, exec=exec, port=port), options)

    def push(
        self,
        targets: Selectors,
        source: Union[str, os.PathLike[str]],
        destination: str,
        *,
        recursive: bool = False,
        **options: Unpack[Options],
    ) -> Outcomes[FileReport]:
        """Copies a file of this machine into guests.

        :param recursive: The file may be a folder, which is copied with all that is in it.
        """
        return self._run(_verbs.push(targets, source, destination, recursive=recursive), options)

    def pull(
        self,
        targets: Selectors,
        path: str,
        destination: Union[str, os.PathLike[str]],
        *,
        recursive: bool = False,
        **options: Unpack[Options],
    ) -> Outcomes[FileReport]:
        """Copies a file out of guests, into a folder of this machine: each to ``destination/HOST/VM/NAME``.

        :param recursive: The file may be a folder, which is copied with all that is in it.
        """
        return self._run(_verbs.pull(targets, path, destination, recursive=recursive), options)

    def screenshot(
        self,
        targets: Selectors,
        folder: Union[str, os.PathLike[str]],
        *,
        screen: int = 0,
        **options: Unpack[Options],
    ) -> Outcomes[ScreenshotReport]:
        """Takes pictures of screens, as ``folder/HOST/VM.png``."""
        return self._run(_verbs.screenshot(targets, folder, screen=screen), options)

    def qmp(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[Options],
    ) -> Outcomes[Any]:
        """Sends a command to the monitors of QEMU, and yields the replies as they are."""
        return self._run(_verbs.qmp(targets, command, arguments), options)

    def qga(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[Options],
    ) -> Outcomes[Any]:
        """Sends a command to guest agents, and yields the replies as they are."""
        return self._run(_verbs.qga(targets, command, arguments), options)

    def key(
        self,
        targets: Selectors,
        chords: Union[str, Sequence[str]],
        *,
        hold: float = 0.01,
        **options: Unpack[Options],
    ) -> Outcomes[None]:
        """Presses keys, such as ``ctrl-alt-del``; of several chords one after the other."""
        return self._run(_verbs.key(targets, chords, hold=hold), options)

    def type(
        self,
        targets: Selectors,
        text: str,
        *,
        layout: str = 'us',
        hold: float = 0.01,
        **options: Unpack[Options],
    ) -> Outcomes[None]:
        """Types a text on the keyboards of VMs; the end of a line is Enter. It appears in no message and no log."""
        return self._run(_verbs.type(targets, text, layout=layout, hold=hold), options)

    def mouse(
        self,
        targets: Selectors,
        action: str,
        *,
        hold: float = 0.05,
        **options: Unpack[Options],
    ) -> Outcomes[None]:
        """Moves or clicks the mouse: ``move 50% 50%``, ``click 100 200 right``, ``scroll down 3``."""
        return self._run(_verbs.mouse(targets, action, hold=hold), options)

    def run(
        self,
        scenario: Union[str, os.PathLike[str]],
        targets: Selectors = (),
        *,
        variables: Optional[Mapping[str, str]] = None,
        **options: Unpack[Options],
    ) -> Outcomes[ScenarioReport]:
        """Runs the steps of a scenario file on VMs: on those that the file names, unless others are given.

        After the first Ctrl-C each VM finishes its present step and the teardown; the second ends it at once, as the end of a task or of a
        stream does. ``stop()`` of a stream does what the first Ctrl-C does.

        :raises RequestError: What is wrong with the file or with one that it includes, a line for each.
        """
        return self._run(_verbs.run(scenario, targets, variables=variables), options)

    def check(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[Options],
    ) -> Outcomes[HostReport]:
        """Connects to hosts, and asks what they are.

        :param hosts: Ids, globs of ids, or ``@GROUP``. A ``/`` after them may be left out, here and in ``exclude``.
        """
        return self._run(_verbs.check(hosts), options)

    def diagnose(
        self,
        targets: Selectors,
        **options: Unpack[Options],
    ) -> Outcomes[Diagnosis]:
        """Checks what lies between this machine and the agents of VMs."""
        return self._run(_verbs.diagnose(targets), options)

    def diagnose_hosts(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[Options],
    ) -> Outcomes[Diagnosis]:
        """Checks each step on the way to the daemons of hosts. The parameters are those of :meth:`check`."""
        return self._run(_verbs.diagnose_hosts(hosts), options)

    def operate(
        self,
        targets: Selectors,
        operation: Mapping[str, Any],
        **options: Unpack[Options],
    ) -> Outcomes[Any]:
        """Does any operation, given as JSON has it: ``{"op": "exec", "program": "uname"}``."""
        return self._run(_verbs.operate(targets, operation), options)


class StreamedVerbs:
    """Each verb, as a stream of outcomes in the order in which they come."""

    def _run(self, operation: Operation[D], options: Options) -> Stream[D]:
        raise NotImplementedError

    def exec(
        self,
        targets: Selectors,
        argv: Sequence[str],
        *,
        env: Optional[Mapping[str, str]] = None,
        stdin: Union[str, bytes, None] = None,
        cwd: Optional[str] = None,
        spool: Optional[str] = None,
        encoding: Optional[str] = None,
        **options: Unpack[Options],
    ) -> Stream[ExecReport]:
        """Runs a program in guests, through their agents.

        :param argv: The program and its arguments. They pass no shell; for a line of one, see :meth:`shell`.
        :param env: Its whole environment; without it that of the agent.
        :param stdin: Its standard input, at most about 95 KiB.
        :param cwd: Its working folder.
        :param spool: A folder in the guest for its output, which may then have any size.
        :param encoding: The encoding of its output, if that is not UTF-8.
        """
        return self._run(_verbs.exec(targets, argv, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    def shell(
        self,
        targets: Selectors,
        line: str,
        *,
        env: Optional[Mapping[str, str]] = None,
        stdin: Union[str, bytes, None] = None,
        cwd: Optional[str] = None,
        spool: Optional[str] = None,
        encoding: Optional[str] = None,
        **options: Unpack[Options],
    ) -> Stream[ExecReport]:
        """Runs a line of ``/bin/sh`` in guests. The parameters are those of :meth:`exec`."""
        return self._run(_verbs.shell(targets, line, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    def vms(
        self,
        targets: Selectors = '*',
        **options: Unpack[Options],
    ) -> Stream[DomainInfo]:
        """Lists VMs. Nothing is asked but their hosts."""
        return self._run(_verbs.vms(targets), options)

    def info(
        self,
        targets: Selectors,
        **options: Unpack[Options],
    ) -> Stream[VmReport]:
        """Asks for everything that hosts and agents know of VMs."""
        return self._run(_verbs.info(targets), options)

    def start(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        start_check: str = 'listed',
        **options: Unpack[Options],
    ) -> Stream[StateReport]:
        """Starts VMs.

        :param wait: True waits for the state, and for the guest's agent if it has one; ``"agent"`` fails without one; ``"state"`` waits
            for the state alone.
        :param start_check: Which hosts are asked whether the VM runs there: ``listed``, ``all-hosts`` or ``nothing``.
        """
        return self._run(_verbs.start(targets, wait=wait, start_check=start_check), options)

    def shutdown(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Stream[StateReport]:
        """Asks guests to power off. With ``wait``, True or ``"state"``, until they have."""
        return self._run(_verbs.shutdown(targets, wait=wait), options)

    def reboot(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Stream[StateReport]:
        """Asks guests to restart. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.reboot(targets, wait=wait), options)

    def reset(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Stream[StateReport]:
        """Resets VMs, as by the button. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.reset(targets, wait=wait), options)

    def destroy(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Stream[StateReport]:
        """Ends VMs at once, as by pulling the plug. ``wait`` as of :meth:`shutdown`."""
        return self._run(_verbs.destroy(targets, wait=wait), options)

    def suspend(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Stream[StateReport]:
        """Stops the virtual CPUs of VMs. With ``wait``, True or ``"state"``, until they are paused."""
        return self._run(_verbs.suspend(targets, wait=wait), options)

    def resume(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Stream[StateReport]:
        """Lets suspended VMs run on, and wakes guests that sleep. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.resume(targets, wait=wait), options)

    def save(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Stream[StateReport]:
        """Writes the memory of VMs to files of their hosts, and powers them off. :meth:`start` lets them go on. ``wait`` as of
        :meth:`shutdown`.
        """
        return self._run(_verbs.save(targets, wait=wait), options)

    def restore(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Stream[StateReport]:
        """Lets saved VMs go on from their memory. A VM that is not saved is left as it is. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.restore(targets, wait=wait), options)

    def nmi(
        self,
        targets: Selectors,
        **options: Unpack[Options],
    ) -> Stream[None]:
        """Sends VMs a non-maskable interrupt. Many guests panic, and dump their memory."""
        return self._run(_verbs.nmi(targets), options)

    def autostart(
        self,
        targets: Selectors,
        on: bool,
        **options: Unpack[Options],
    ) -> Stream[None]:
        """Sets whether VMs are started with their hosts."""
        return self._run(_verbs.autostart(targets, on), options)

    def xml(
        self,
        targets: Selectors,
        *,
        inactive: bool = False,
        **options: Unpack[Options],
    ) -> Stream[XmlReport]:
        """Reads the definitions of VMs, as libvirt's XML without passwords.

        :param inactive: The definitions that hold from the next start, and not those of now.
        """
        return self._run(_verbs.xml(targets, inactive=inactive), options)

    def snapshot_create(
        self,
        targets: Selectors,
        name: str,
        *,
        description: Optional[str] = None,
        disk_only: bool = False,
        quiesce: bool = False,
        **options: Unpack[Options],
    ) -> Stream[Snapshot]:
        """Makes a snapshot of each VM: of its disks, and of its memory if it runs. Allow for the time to write the memory.

        :param description: What a person wants to say of it.
        :param disk_only: Not the memory of a VM that runs.
        :param quiesce: The guests' agents freeze the file systems meanwhile. Only with ``disk_only``.
        """
        return self._run(_verbs.snapshot_create(targets, name, description=description, disk_only=disk_only, quiesce=quiesce), options)

    def snapshot_list(
        self,
        targets: Selectors,
        **options: Unpack[Options],
    ) -> Stream[SnapshotList]:
        """Lists the snapshots of VMs."""
        return self._run(_verbs.snapshot_list(targets), options)

    def snapshot_revert(
        self,
        targets: Selectors,
        name: str,
        *,
        then: str = 'as-then',
        **options: Unpack[Options],
    ) -> Stream[StateReport]:
        """Takes VMs back to a snapshot: what was written since then is lost.

        :param then: What they do afterwards: ``as-then`` (what they did when the snapshot was made), ``start`` or ``pause``.
        """
        return self._run(_verbs.snapshot_revert(targets, name, then=then), options)

    def snapshot_delete(
        self,
        targets: Selectors,
        name: str,
        *,
        children: bool = False,
        **options: Unpack[Options],
    ) -> Stream[None]:
        """Removes a snapshot of each VM, which stays as it is.

        :param children: The snapshots that were made after it too.
        """
        return self._run(_verbs.snapshot_delete(targets, name, children=children), options)

    def console(
        self,
        targets: Selectors,
        folder: Union[str, os.PathLike[str]],
        *,
        device: Optional[str] = None,
        force: bool = False,
        **options: Unpack[Options],
    ) -> Stream[ConsoleReport]:
        """Captures serial consoles in files, as ``folder/HOST/VM.log``, until the timeout. Faults of the guests' kernels are counted.

        :param device: The console's alias in the definition, such as ``serial1``; the first console without it.
        :param force: Takes the console from another client of the daemon.
        """
        return self._run(_verbs.console(targets, folder, device=device, force=force), options)

    def wait(
        self,
        targets: Selectors,
        until: str = 'agent',
        *,
        exec: Optional[Sequence[str]] = None,
        port: Optional[int] = None,
        **options: Unpack[Options],
    ) -> Stream[WaitReport]:
        """Waits, until the timeout at most.

        :param until: ``agent`` (it answers), or a state: ``running``, ``shut-off``, ``paused``, ``crashed``, ``pmsuspended``.
        :param exec: A program that has to end with exit code 0 in the guest; it is run again and again.
        :param port: A TCP port that a process in the guest has to listen on.
        """
        return self._run(_verbs.wait(targets, until, exec=exec, port=port), options)

    def push(
        self,
        targets: Selectors,
        source: Union[str, os.PathLike[str]],
        destination: str,
        *,
        recursive: bool = False,
        **options: Unpack[Options],
    ) -> Stream[FileReport]:
        """Copies a file of this machine into guests.

        :param recursive: The file may be a folder, which is copied with all that is in it.
        """
        return self._run(_verbs.push(targets, source, destination, recursive=recursive), options)

    def pull(
        self,
        targets: Selectors,
        path: str,
        destination: Union[str, os.PathLike[str]],
        *,
        recursive: bool = False,
        **options: Unpack[Options],
    ) -> Stream[FileReport]:
        """Copies a file out of guests, into a folder of this machine: each to ``destination/HOST/VM/NAME``.

        :param recursive: The file may be a folder, which is copied with all that is in it.
        """
        return self._run(_verbs.pull(targets, path, destination, recursive=recursive), options)

    def screenshot(
        self,
        targets: Selectors,
        folder: Union[str, os.PathLike[str]],
        *,
        screen: int = 0,
        **options: Unpack[Options],
    ) -> Stream[ScreenshotReport]:
        """Takes pictures of screens, as ``folder/HOST/VM.png``."""
        return self._run(_verbs.screenshot(targets, folder, screen=screen), options)

    def qmp(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[Options],
    ) -> Stream[Any]:
        """Sends a command to the monitors of QEMU, and yields the replies as they are."""
        return self._run(_verbs.qmp(targets, command, arguments), options)

    def qga(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[Options],
    ) -> Stream[Any]:
        """Sends a command to guest agents, and yields the replies as they are."""
        return self._run(_verbs.qga(targets, command, arguments), options)

    def key(
        self,
        targets: Selectors,
        chords: Union[str, Sequence[str]],
        *,
        hold: float = 0.01,
        **options: Unpack[Options],
    ) -> Stream[None]:
        """Presses keys, such as ``ctrl-alt-del``; of several chords one after the other."""
        return self._run(_verbs.key(targets, chords, hold=hold), options)

    def type(
        self,
        targets: Selectors,
        text: str,
        *,
        layout: str = 'us',
        hold: float = 0.01,
        **options: Unpack[Options],
    ) -> Stream[None]:
        """Types a text on the keyboards of VMs; the end of a line is Enter. It appears in no message and no log."""
        return self._run(_verbs.type(targets, text, layout=layout, hold=hold), options)

    def mouse(
        self,
        targets: Selectors,
        action: str,
        *,
        hold: float = 0.05,
        **options: Unpack[Options],
    ) -> Stream[None]:
        """Moves or clicks the mouse: ``move 50% 50%``, ``click 100 200 right``, ``scroll down 3``."""
        return self._run(_verbs.mouse(targets, action, hold=hold), options)

    def run(
        self,
        scenario: Union[str, os.PathLike[str]],
        targets: Selectors = (),
        *,
        variables: Optional[Mapping[str, str]] = None,
        **options: Unpack[Options],
    ) -> Stream[ScenarioReport]:
        """Runs the steps of a scenario file on VMs: on those that the file names, unless others are given.

        After the first Ctrl-C each VM finishes its present step and the teardown; the second ends it at once, as the end of a task or of a
        stream does. ``stop()`` of a stream does what the first Ctrl-C does.

        :raises RequestError: What is wrong with the file or with one that it includes, a line for each.
        """
        return self._run(_verbs.run(scenario, targets, variables=variables), options)

    def check(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[Options],
    ) -> Stream[HostReport]:
        """Connects to hosts, and asks what they are.

        :param hosts: Ids, globs of ids, or ``@GROUP``. A ``/`` after them may be left out, here and in ``exclude``.
        """
        return self._run(_verbs.check(hosts), options)

    def diagnose(
        self,
        targets: Selectors,
        **options: Unpack[Options],
    ) -> Stream[Diagnosis]:
        """Checks what lies between this machine and the agents of VMs."""
        return self._run(_verbs.diagnose(targets), options)

    def diagnose_hosts(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[Options],
    ) -> Stream[Diagnosis]:
        """Checks each step on the way to the daemons of hosts. The parameters are those of :meth:`check`."""
        return self._run(_verbs.diagnose_hosts(hosts), options)

    def operate(
        self,
        targets: Selectors,
        operation: Mapping[str, Any],
        **options: Unpack[Options],
    ) -> Stream[Any]:
        """Does any operation, given as JSON has it: ``{"op": "exec", "program": "uname"}``."""
        return self._run(_verbs.operate(targets, operation), options)


class AsyncVerbs:
    """Each verb, to await until every target has its outcome."""

    async def _run(self, operation: Operation[D], options: Options) -> Outcomes[D]:
        raise NotImplementedError

    async def exec(
        self,
        targets: Selectors,
        argv: Sequence[str],
        *,
        env: Optional[Mapping[str, str]] = None,
        stdin: Union[str, bytes, None] = None,
        cwd: Optional[str] = None,
        spool: Optional[str] = None,
        encoding: Optional[str] = None,
        **options: Unpack[Options],
    ) -> Outcomes[ExecReport]:
        """Runs a program in guests, through their agents.

        :param argv: The program and its arguments. They pass no shell; for a line of one, see :meth:`shell`.
        :param env: Its whole environment; without it that of the agent.
        :param stdin: Its standard input, at most about 95 KiB.
        :param cwd: Its working folder.
        :param spool: A folder in the guest for its output, which may then have any size.
        :param encoding: The encoding of its output, if that is not UTF-8.
        """
        return await self._run(_verbs.exec(targets, argv, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    async def shell(
        self,
        targets: Selectors,
        line: str,
        *,
        env: Optional[Mapping[str, str]] = None,
        stdin: Union[str, bytes, None] = None,
        cwd: Optional[str] = None,
        spool: Optional[str] = None,
        encoding: Optional[str] = None,
        **options: Unpack[Options],
    ) -> Outcomes[ExecReport]:
        """Runs a line of ``/bin/sh`` in guests. The parameters are those of :meth:`exec`."""
        return await self._run(_verbs.shell(targets, line, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    async def vms(
        self,
        targets: Selectors = '*',
        **options: Unpack[Options],
    ) -> Outcomes[DomainInfo]:
        """Lists VMs. Nothing is asked but their hosts."""
        return await self._run(_verbs.vms(targets), options)

    async def info(
        self,
        targets: Selectors,
        **options: Unpack[Options],
    ) -> Outcomes[VmReport]:
        """Asks for everything that hosts and agents know of VMs."""
        return await self._run(_verbs.info(targets), options)

    async def start(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        start_check: str = 'listed',
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Starts VMs.

        :param wait: True waits for the state, and for the guest's agent if it has one; ``"agent"`` fails without one; ``"state"`` waits
            for the state alone.
        :param start_check: Which hosts are asked whether the VM runs there: ``listed``, ``all-hosts`` or ``nothing``.
        """
        return await self._run(_verbs.start(targets, wait=wait, start_check=start_check), options)

    async def shutdown(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Asks guests to power off. With ``wait``, True or ``"state"``, until they have."""
        return await self._run(_verbs.shutdown(targets, wait=wait), options)

    async def reboot(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Asks guests to restart. ``wait`` as of :meth:`start`."""
        return await self._run(_verbs.reboot(targets, wait=wait), options)

    async def reset(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Resets VMs, as by the button. ``wait`` as of :meth:`start`."""
        return await self._run(_verbs.reset(targets, wait=wait), options)

    async def destroy(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Ends VMs at once, as by pulling the plug. ``wait`` as of :meth:`shutdown`."""
        return await self._run(_verbs.destroy(targets, wait=wait), options)

    async def suspend(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Stops the virtual CPUs of VMs. With ``wait``, True or ``"state"``, until they are paused."""
        return await self._run(_verbs.suspend(targets, wait=wait), options)

    async def resume(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Lets suspended VMs run on, and wakes guests that sleep. ``wait`` as of :meth:`start`."""
        return await self._run(_verbs.resume(targets, wait=wait), options)

    async def save(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Writes the memory of VMs to files of their hosts, and powers them off. :meth:`start` lets them go on. ``wait`` as of
        :meth:`shutdown`.
        """
        return await self._run(_verbs.save(targets, wait=wait), options)

    async def restore(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Lets saved VMs go on from their memory. A VM that is not saved is left as it is. ``wait`` as of :meth:`start`."""
        return await self._run(_verbs.restore(targets, wait=wait), options)

    async def nmi(
        self,
        targets: Selectors,
        **options: Unpack[Options],
    ) -> Outcomes[None]:
        """Sends VMs a non-maskable interrupt. Many guests panic, and dump their memory."""
        return await self._run(_verbs.nmi(targets), options)

    async def autostart(
        self,
        targets: Selectors,
        on: bool,
        **options: Unpack[Options],
    ) -> Outcomes[None]:
        """Sets whether VMs are started with their hosts."""
        return await self._run(_verbs.autostart(targets, on), options)

    async def xml(
        self,
        targets: Selectors,
        *,
        inactive: bool = False,
        **options: Unpack[Options],
    ) -> Outcomes[XmlReport]:
        """Reads the definitions of VMs, as libvirt's XML without passwords.

        :param inactive: The definitions that hold from the next start, and not those of now.
        """
        return await self._run(_verbs.xml(targets, inactive=inactive), options)

    async def snapshot_create(
        self,
        targets: Selectors,
        name: str,
        *,
        description: Optional[str] = None,
        disk_only: bool = False,
        quiesce: bool = False,
        **options: Unpack[Options],
    ) -> Outcomes[Snapshot]:
        """Makes a snapshot of each VM: of its disks, and of its memory if it runs. Allow for the time to write the memory.

        :param description: What a person wants to say of it.
        :param disk_only: Not the memory of a VM that runs.
        :param quiesce: The guests' agents freeze the file systems meanwhile. Only with ``disk_only``.
        """
        return await self._run(_verbs.snapshot_create(targets, name, description=description, disk_only=disk_only, quiesce=quiesce), options)

    async def snapshot_list(
        self,
        targets: Selectors,
        **options: Unpack[Options],
    ) -> Outcomes[SnapshotList]:
        """Lists the snapshots of VMs."""
        return await self._run(_verbs.snapshot_list(targets), options)

    async def snapshot_revert(
        self,
        targets: Selectors,
        name: str,
        *,
        then: str = 'as-then',
        **options: Unpack[Options],
    ) -> Outcomes[StateReport]:
        """Takes VMs back to a snapshot: what was written since then is lost.

        :param then: What they do afterwards: ``as-then`` (what they did when the snapshot was made), ``start`` or ``pause``.
        """
        return await self._run(_verbs.snapshot_revert(targets, name, then=then), options)

    async def snapshot_delete(
        self,
        targets: Selectors,
        name: str,
        *,
        children: bool = False,
        **options: Unpack[Options],
    ) -> Outcomes[None]:
        """Removes a snapshot of each VM, which stays as it is.

        :param children: The snapshots that were made after it too.
        """
        return await self._run(_verbs.snapshot_delete(targets, name, children=children), options)

    async def console(
        self,
        targets: Selectors,
        folder: Union[str, os.PathLike[str]],
        *,
        device: Optional[str] = None,
        force: bool = False,
        **options: Unpack[Options],
    ) -> Outcomes[ConsoleReport]:
        """Captures serial consoles in files, as ``folder/HOST/VM.log``, until the timeout. Faults of the guests' kernels are counted.

        :param device: The console's alias in the definition, such as ``serial1``; the first console without it.
        :param force: Takes the console from another client of the daemon.
        """
        return await self._run(_verbs.console(targets, folder, device=device, force=force), options)

    async def wait(
        self,
        targets: Selectors,
        until: str = 'agent',
        *,
        exec: Optional[Sequence[str]] = None,
        port: Optional[int] = None,
        **options: Unpack[Options],
    ) -> Outcomes[WaitReport]:
        """Waits, until the timeout at most.

        :param until: ``agent`` (it answers), or a state: ``running``, ``shut-off``, ``paused``, ``crashed``, ``pmsuspended``.
        :param exec: A program that has to end with exit code 0 in the guest; it is run again and again.
        :param port: A TCP port that a process in the guest has to listen on.
        """
        return await self._run(_verbs.wait(targets, until, exec=exec, port=port), options)

    async def push(
        self,
        targets: Selectors,
        source: Union[str, os.PathLike[str]],
        destination: str,
        *,
        recursive: bool = False,
        **options: Unpack[Options],
    ) -> Outcomes[FileReport]:
        """Copies a file of this machine into guests.

        :param recursive: The file may be a folder, which is copied with all that is in it.
        """
        return await self._run(_verbs.push(targets, source, destination, recursive=recursive), options)

    async def pull(
        self,
        targets: Selectors,
        path: str,
        destination: Union[str, os.PathLike[str]],
        *,
        recursive: bool = False,
        **options: Unpack[Options],
    ) -> Outcomes[FileReport]:
        """Copies a file out of guests, into a folder of this machine: each to ``destination/HOST/VM/NAME``.

        :param recursive: The file may be a folder, which is copied with all that is in it.
        """
        return await self._run(_verbs.pull(targets, path, destination, recursive=recursive), options)

    async def screenshot(
        self,
        targets: Selectors,
        folder: Union[str, os.PathLike[str]],
        *,
        screen: int = 0,
        **options: Unpack[Options],
    ) -> Outcomes[ScreenshotReport]:
        """Takes pictures of screens, as ``folder/HOST/VM.png``."""
        return await self._run(_verbs.screenshot(targets, folder, screen=screen), options)

    async def qmp(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[Options],
    ) -> Outcomes[Any]:
        """Sends a command to the monitors of QEMU, and yields the replies as they are."""
        return await self._run(_verbs.qmp(targets, command, arguments), options)

    async def qga(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[Options],
    ) -> Outcomes[Any]:
        """Sends a command to guest agents, and yields the replies as they are."""
        return await self._run(_verbs.qga(targets, command, arguments), options)

    async def key(
        self,
        targets: Selectors,
        chords: Union[str, Sequence[str]],
        *,
        hold: float = 0.01,
        **options: Unpack[Options],
    ) -> Outcomes[None]:
        """Presses keys, such as ``ctrl-alt-del``; of several chords one after the other."""
        return await self._run(_verbs.key(targets, chords, hold=hold), options)

    async def type(
        self,
        targets: Selectors,
        text: str,
        *,
        layout: str = 'us',
        hold: float = 0.01,
        **options: Unpack[Options],
    ) -> Outcomes[None]:
        """Types a text on the keyboards of VMs; the end of a line is Enter. It appears in no message and no log."""
        return await self._run(_verbs.type(targets, text, layout=layout, hold=hold), options)

    async def mouse(
        self,
        targets: Selectors,
        action: str,
        *,
        hold: float = 0.05,
        **options: Unpack[Options],
    ) -> Outcomes[None]:
        """Moves or clicks the mouse: ``move 50% 50%``, ``click 100 200 right``, ``scroll down 3``."""
        return await self._run(_verbs.mouse(targets, action, hold=hold), options)

    async def run(
        self,
        scenario: Union[str, os.PathLike[str]],
        targets: Selectors = (),
        *,
        variables: Optional[Mapping[str, str]] = None,
        **options: Unpack[Options],
    ) -> Outcomes[ScenarioReport]:
        """Runs the steps of a scenario file on VMs: on those that the file names, unless others are given.

        After the first Ctrl-C each VM finishes its present step and the teardown; the second ends it at once, as the end of a task or of a
        stream does. ``stop()`` of a stream does what the first Ctrl-C does.

        :raises RequestError: What is wrong with the file or with one that it includes, a line for each.
        """
        return await self._run(_verbs.run(scenario, targets, variables=variables), options)

    async def check(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[Options],
    ) -> Outcomes[HostReport]:
        """Connects to hosts, and asks what they are.

        :param hosts: Ids, globs of ids, or ``@GROUP``. A ``/`` after them may be left out, here and in ``exclude``.
        """
        return await self._run(_verbs.check(hosts), options)

    async def diagnose(
        self,
        targets: Selectors,
        **options: Unpack[Options],
    ) -> Outcomes[Diagnosis]:
        """Checks what lies between this machine and the agents of VMs."""
        return await self._run(_verbs.diagnose(targets), options)

    async def diagnose_hosts(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[Options],
    ) -> Outcomes[Diagnosis]:
        """Checks each step on the way to the daemons of hosts. The parameters are those of :meth:`check`."""
        return await self._run(_verbs.diagnose_hosts(hosts), options)

    async def operate(
        self,
        targets: Selectors,
        operation: Mapping[str, Any],
        **options: Unpack[Options],
    ) -> Outcomes[Any]:
        """Does any operation, given as JSON has it: ``{"op": "exec", "program": "uname"}``."""
        return await self._run(_verbs.operate(targets, operation), options)


class AsyncStreamedVerbs:
    """Each verb, as an asynchronous stream of outcomes."""

    def _run(self, operation: Operation[D], options: Options) -> AsyncStream[D]:
        raise NotImplementedError

    def exec(
        self,
        targets: Selectors,
        argv: Sequence[str],
        *,
        env: Optional[Mapping[str, str]] = None,
        stdin: Union[str, bytes, None] = None,
        cwd: Optional[str] = None,
        spool: Optional[str] = None,
        encoding: Optional[str] = None,
        **options: Unpack[Options],
    ) -> AsyncStream[ExecReport]:
        """Runs a program in guests, through their agents.

        :param argv: The program and its arguments. They pass no shell; for a line of one, see :meth:`shell`.
        :param env: Its whole environment; without it that of the agent.
        :param stdin: Its standard input, at most about 95 KiB.
        :param cwd: Its working folder.
        :param spool: A folder in the guest for its output, which may then have any size.
        :param encoding: The encoding of its output, if that is not UTF-8.
        """
        return self._run(_verbs.exec(targets, argv, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    def shell(
        self,
        targets: Selectors,
        line: str,
        *,
        env: Optional[Mapping[str, str]] = None,
        stdin: Union[str, bytes, None] = None,
        cwd: Optional[str] = None,
        spool: Optional[str] = None,
        encoding: Optional[str] = None,
        **options: Unpack[Options],
    ) -> AsyncStream[ExecReport]:
        """Runs a line of ``/bin/sh`` in guests. The parameters are those of :meth:`exec`."""
        return self._run(_verbs.shell(targets, line, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    def vms(
        self,
        targets: Selectors = '*',
        **options: Unpack[Options],
    ) -> AsyncStream[DomainInfo]:
        """Lists VMs. Nothing is asked but their hosts."""
        return self._run(_verbs.vms(targets), options)

    def info(
        self,
        targets: Selectors,
        **options: Unpack[Options],
    ) -> AsyncStream[VmReport]:
        """Asks for everything that hosts and agents know of VMs."""
        return self._run(_verbs.info(targets), options)

    def start(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        start_check: str = 'listed',
        **options: Unpack[Options],
    ) -> AsyncStream[StateReport]:
        """Starts VMs.

        :param wait: True waits for the state, and for the guest's agent if it has one; ``"agent"`` fails without one; ``"state"`` waits
            for the state alone.
        :param start_check: Which hosts are asked whether the VM runs there: ``listed``, ``all-hosts`` or ``nothing``.
        """
        return self._run(_verbs.start(targets, wait=wait, start_check=start_check), options)

    def shutdown(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> AsyncStream[StateReport]:
        """Asks guests to power off. With ``wait``, True or ``"state"``, until they have."""
        return self._run(_verbs.shutdown(targets, wait=wait), options)

    def reboot(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> AsyncStream[StateReport]:
        """Asks guests to restart. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.reboot(targets, wait=wait), options)

    def reset(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> AsyncStream[StateReport]:
        """Resets VMs, as by the button. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.reset(targets, wait=wait), options)

    def destroy(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> AsyncStream[StateReport]:
        """Ends VMs at once, as by pulling the plug. ``wait`` as of :meth:`shutdown`."""
        return self._run(_verbs.destroy(targets, wait=wait), options)

    def suspend(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> AsyncStream[StateReport]:
        """Stops the virtual CPUs of VMs. With ``wait``, True or ``"state"``, until they are paused."""
        return self._run(_verbs.suspend(targets, wait=wait), options)

    def resume(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> AsyncStream[StateReport]:
        """Lets suspended VMs run on, and wakes guests that sleep. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.resume(targets, wait=wait), options)

    def save(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> AsyncStream[StateReport]:
        """Writes the memory of VMs to files of their hosts, and powers them off. :meth:`start` lets them go on. ``wait`` as of
        :meth:`shutdown`.
        """
        return self._run(_verbs.save(targets, wait=wait), options)

    def restore(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[Options],
    ) -> AsyncStream[StateReport]:
        """Lets saved VMs go on from their memory. A VM that is not saved is left as it is. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.restore(targets, wait=wait), options)

    def nmi(
        self,
        targets: Selectors,
        **options: Unpack[Options],
    ) -> AsyncStream[None]:
        """Sends VMs a non-maskable interrupt. Many guests panic, and dump their memory."""
        return self._run(_verbs.nmi(targets), options)

    def autostart(
        self,
        targets: Selectors,
        on: bool,
        **options: Unpack[Options],
    ) -> AsyncStream[None]:
        """Sets whether VMs are started with their hosts."""
        return self._run(_verbs.autostart(targets, on), options)

    def xml(
        self,
        targets: Selectors,
        *,
        inactive: bool = False,
        **options: Unpack[Options],
    ) -> AsyncStream[XmlReport]:
        """Reads the definitions of VMs, as libvirt's XML without passwords.

        :param inactive: The definitions that hold from the next start, and not those of now.
        """
        return self._run(_verbs.xml(targets, inactive=inactive), options)

    def snapshot_create(
        self,
        targets: Selectors,
        name: str,
        *,
        description: Optional[str] = None,
        disk_only: bool = False,
        quiesce: bool = False,
        **options: Unpack[Options],
    ) -> AsyncStream[Snapshot]:
        """Makes a snapshot of each VM: of its disks, and of its memory if it runs. Allow for the time to write the memory.

        :param description: What a person wants to say of it.
        :param disk_only: Not the memory of a VM that runs.
        :param quiesce: The guests' agents freeze the file systems meanwhile. Only with ``disk_only``.
        """
        return self._run(_verbs.snapshot_create(targets, name, description=description, disk_only=disk_only, quiesce=quiesce), options)

    def snapshot_list(
        self,
        targets: Selectors,
        **options: Unpack[Options],
    ) -> AsyncStream[SnapshotList]:
        """Lists the snapshots of VMs."""
        return self._run(_verbs.snapshot_list(targets), options)

    def snapshot_revert(
        self,
        targets: Selectors,
        name: str,
        *,
        then: str = 'as-then',
        **options: Unpack[Options],
    ) -> AsyncStream[StateReport]:
        """Takes VMs back to a snapshot: what was written since then is lost.

        :param then: What they do afterwards: ``as-then`` (what they did when the snapshot was made), ``start`` or ``pause``.
        """
        return self._run(_verbs.snapshot_revert(targets, name, then=then), options)

    def snapshot_delete(
        self,
        targets: Selectors,
        name: str,
        *,
        children: bool = False,
        **options: Unpack[Options],
    ) -> AsyncStream[None]:
        """Removes a snapshot of each VM, which stays as it is.

        :param children: The snapshots that were made after it too.
        """
        return self._run(_verbs.snapshot_delete(targets, name, children=children), options)

    def console(
        self,
        targets: Selectors,
        folder: Union[str, os.PathLike[str]],
        *,
        device: Optional[str] = None,
        force: bool = False,
        **options: Unpack[Options],
    ) -> AsyncStream[ConsoleReport]:
        """Captures serial consoles in files, as ``folder/HOST/VM.log``, until the timeout. Faults of the guests' kernels are counted.

        :param device: The console's alias in the definition, such as ``serial1``; the first console without it.
        :param force: Takes the console from another client of the daemon.
        """
        return self._run(_verbs.console(targets, folder, device=device, force=force), options)

    def wait(
        self,
        targets: Selectors,
        until: str = 'agent',
        *,
        exec: Optional[Sequence[str]] = None,
        port: Optional[int] = None,
        **options: Unpack[Options],
    ) -> AsyncStream[WaitReport]:
        """Waits, until the timeout at most.

        :param until: ``agent`` (it answers), or a state: ``running``, ``shut-off``, ``paused``, ``crashed``, ``pmsuspended``.
        :param exec: A program that has to end with exit code 0 in the guest; it is run again and again.
        :param port: A TCP port that a process in the guest has to listen on.
        """
        return self._run(_verbs.wait(targets, until, exec=exec, port=port), options)

    def push(
        self,
        targets: Selectors,
        source: Union[str, os.PathLike[str]],
        destination: str,
        *,
        recursive: bool = False,
        **options: Unpack[Options],
    ) -> AsyncStream[FileReport]:
        """Copies a file of this machine into guests.

        :param recursive: The file may be a folder, which is copied with all that is in it.
        """
        return self._run(_verbs.push(targets, source, destination, recursive=recursive), options)

    def pull(
        self,
        targets: Selectors,
        path: str,
        destination: Union[str, os.PathLike[str]],
        *,
        recursive: bool = False,
        **options: Unpack[Options],
    ) -> AsyncStream[FileReport]:
        """Copies a file out of guests, into a folder of this machine: each to ``destination/HOST/VM/NAME``.

        :param recursive: The file may be a folder, which is copied with all that is in it.
        """
        return self._run(_verbs.pull(targets, path, destination, recursive=recursive), options)

    def screenshot(
        self,
        targets: Selectors,
        folder: Union[str, os.PathLike[str]],
        *,
        screen: int = 0,
        **options: Unpack[Options],
    ) -> AsyncStream[ScreenshotReport]:
        """Takes pictures of screens, as ``folder/HOST/VM.png``."""
        return self._run(_verbs.screenshot(targets, folder, screen=screen), options)

    def qmp(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[Options],
    ) -> AsyncStream[Any]:
        """Sends a command to the monitors of QEMU, and yields the replies as they are."""
        return self._run(_verbs.qmp(targets, command, arguments), options)

    def qga(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[Options],
    ) -> AsyncStream[Any]:
        """Sends a command to guest agents, and yields the replies as they are."""
        return self._run(_verbs.qga(targets, command, arguments), options)

    def key(
        self,
        targets: Selectors,
        chords: Union[str, Sequence[str]],
        *,
        hold: float = 0.01,
        **options: Unpack[Options],
    ) -> AsyncStream[None]:
        """Presses keys, such as ``ctrl-alt-del``; of several chords one after the other."""
        return self._run(_verbs.key(targets, chords, hold=hold), options)

    def type(
        self,
        targets: Selectors,
        text: str,
        *,
        layout: str = 'us',
        hold: float = 0.01,
        **options: Unpack[Options],
    ) -> AsyncStream[None]:
        """Types a text on the keyboards of VMs; the end of a line is Enter. It appears in no message and no log."""
        return self._run(_verbs.type(targets, text, layout=layout, hold=hold), options)

    def mouse(
        self,
        targets: Selectors,
        action: str,
        *,
        hold: float = 0.05,
        **options: Unpack[Options],
    ) -> AsyncStream[None]:
        """Moves or clicks the mouse: ``move 50% 50%``, ``click 100 200 right``, ``scroll down 3``."""
        return self._run(_verbs.mouse(targets, action, hold=hold), options)

    def run(
        self,
        scenario: Union[str, os.PathLike[str]],
        targets: Selectors = (),
        *,
        variables: Optional[Mapping[str, str]] = None,
        **options: Unpack[Options],
    ) -> AsyncStream[ScenarioReport]:
        """Runs the steps of a scenario file on VMs: on those that the file names, unless others are given.

        After the first Ctrl-C each VM finishes its present step and the teardown; the second ends it at once, as the end of a task or of a
        stream does. ``stop()`` of a stream does what the first Ctrl-C does.

        :raises RequestError: What is wrong with the file or with one that it includes, a line for each.
        """
        return self._run(_verbs.run(scenario, targets, variables=variables), options)

    def check(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[Options],
    ) -> AsyncStream[HostReport]:
        """Connects to hosts, and asks what they are.

        :param hosts: Ids, globs of ids, or ``@GROUP``. A ``/`` after them may be left out, here and in ``exclude``.
        """
        return self._run(_verbs.check(hosts), options)

    def diagnose(
        self,
        targets: Selectors,
        **options: Unpack[Options],
    ) -> AsyncStream[Diagnosis]:
        """Checks what lies between this machine and the agents of VMs."""
        return self._run(_verbs.diagnose(targets), options)

    def diagnose_hosts(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[Options],
    ) -> AsyncStream[Diagnosis]:
        """Checks each step on the way to the daemons of hosts. The parameters are those of :meth:`check`."""
        return self._run(_verbs.diagnose_hosts(hosts), options)

    def operate(
        self,
        targets: Selectors,
        operation: Mapping[str, Any],
        **options: Unpack[Options],
    ) -> AsyncStream[Any]:
        """Does any operation, given as JSON has it: ``{"op": "exec", "program": "uname"}``."""
        return self._run(_verbs.operate(targets, operation), options)


class VmVerbs:
    """Each verb on one VM, until it has its outcome."""

    @property
    def target(self) -> str:
        """The selector of this VM alone."""
        raise NotImplementedError

    def _run(self, operation: Operation[D], options: VmOptions) -> Outcome[D]:
        raise NotImplementedError

    def exec(
        self,
        argv: Sequence[str],
        *,
        env: Optional[Mapping[str, str]] = None,
        stdin: Union[str, bytes, None] = None,
        cwd: Optional[str] = None,
        spool: Optional[str] = None,
        encoding: Optional[str] = None,
        **options: Unpack[VmOptions],
    ) -> Outcome[ExecReport]:
        """Runs a program in guests, through their agents.

        :param argv: The program and its arguments. They pass no shell; for a line of one, see :meth:`shell`.
        :param env: Its whole environment; without it that of the agent.
        :param stdin: Its standard input, at most about 95 KiB.
        :param cwd: Its working folder.
        :param spool: A folder in the guest for its output, which may then have any size.
        :param encoding: The encoding of its output, if that is not UTF-8.
        """
        return self._run(_verbs.exec(self.target, argv, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    def shell(
        self,
        line: str,
        *,
        env: Optional[Mapping[str, str]] = None,
        stdin: Union[str, bytes, None] = None,
        cwd: Optional[str] = None,
        spool: Optional[str] = None,
        encoding: Optional[str] = None,
        **options: Unpack[VmOptions],
    ) -> Outcome[ExecReport]:
        """Runs a line of ``/bin/sh`` in guests. The parameters are those of :meth:`exec`."""
        return self._run(_verbs.shell(self.target, line, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    def info(
        self,
        **options: Unpack[VmOptions],
    ) -> Outcome[VmReport]:
        """Asks for everything that hosts and agents know of VMs."""
        return self._run(_verbs.info(self.target), options)

    def start(
        self,
        *,
        wait: Union[bool, str] = False,
        start_check: str = 'listed',
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Starts VMs.

        :param wait: True waits for the state, and for the guest's agent if it has one; ``"agent"`` fails without one; ``"state"`` waits
            for the state alone.
        :param start_check: Which hosts are asked whether the VM runs there: ``listed``, ``all-hosts`` or ``nothing``.
        """
        return self._run(_verbs.start(self.target, wait=wait, start_check=start_check), options)

    def shutdown(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Asks guests to power off. With ``wait``, True or ``"state"``, until they have."""
        return self._run(_verbs.shutdown(self.target, wait=wait), options)

    def reboot(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Asks guests to restart. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.reboot(self.target, wait=wait), options)

    def reset(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Resets VMs, as by the button. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.reset(self.target, wait=wait), options)

    def destroy(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Ends VMs at once, as by pulling the plug. ``wait`` as of :meth:`shutdown`."""
        return self._run(_verbs.destroy(self.target, wait=wait), options)

    def suspend(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Stops the virtual CPUs of VMs. With ``wait``, True or ``"state"``, until they are paused."""
        return self._run(_verbs.suspend(self.target, wait=wait), options)

    def resume(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Lets suspended VMs run on, and wakes guests that sleep. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.resume(self.target, wait=wait), options)

    def save(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Writes the memory of VMs to files of their hosts, and powers them off. :meth:`start` lets them go on. ``wait`` as of
        :meth:`shutdown`.
        """
        return self._run(_verbs.save(self.target, wait=wait), options)

    def restore(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Lets saved VMs go on from their memory. A VM that is not saved is left as it is. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.restore(self.target, wait=wait), options)

    def nmi(
        self,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Sends VMs a non-maskable interrupt. Many guests panic, and dump their memory."""
        return self._run(_verbs.nmi(self.target), options)

    def autostart(
        self,
        on: bool,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Sets whether VMs are started with their hosts."""
        return self._run(_verbs.autostart(self.target, on), options)

    def xml(
        self,
        *,
        inactive: bool = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[XmlReport]:
        """Reads the definitions of VMs, as libvirt's XML without passwords.

        :param inactive: The definitions that hold from the next start, and not those of now.
        """
        return self._run(_verbs.xml(self.target, inactive=inactive), options)

    def snapshot_create(
        self,
        name: str,
        *,
        description: Optional[str] = None,
        disk_only: bool = False,
        quiesce: bool = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[Snapshot]:
        """Makes a snapshot of each VM: of its disks, and of its memory if it runs. Allow for the time to write the memory.

        :param description: What a person wants to say of it.
        :param disk_only: Not the memory of a VM that runs.
        :param quiesce: The guests' agents freeze the file systems meanwhile. Only with ``disk_only``.
        """
        return self._run(_verbs.snapshot_create(self.target, name, description=description, disk_only=disk_only, quiesce=quiesce), options)

    def snapshot_list(
        self,
        **options: Unpack[VmOptions],
    ) -> Outcome[SnapshotList]:
        """Lists the snapshots of VMs."""
        return self._run(_verbs.snapshot_list(self.target), options)

    def snapshot_revert(
        self,
        name: str,
        *,
        then: str = 'as-then',
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Takes VMs back to a snapshot: what was written since then is lost.

        :param then: What they do afterwards: ``as-then`` (what they did when the snapshot was made), ``start`` or ``pause``.
        """
        return self._run(_verbs.snapshot_revert(self.target, name, then=then), options)

    def snapshot_delete(
        self,
        name: str,
        *,
        children: bool = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Removes a snapshot of each VM, which stays as it is.

        :param children: The snapshots that were made after it too.
        """
        return self._run(_verbs.snapshot_delete(self.target, name, children=children), options)

    def console(
        self,
        folder: Union[str, os.PathLike[str]],
        *,
        device: Optional[str] = None,
        force: bool = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[ConsoleReport]:
        """Captures serial consoles in files, as ``folder/HOST/VM.log``, until the timeout. Faults of the guests' kernels are counted.

        :param device: The console's alias in the definition, such as ``serial1``; the first console without it.
        :param force: Takes the console from another client of the daemon.
        """
        return self._run(_verbs.console(self.target, folder, device=device, force=force), options)

    def wait(
        self,
        until: str = 'agent',
        *,
        exec: Optional[Sequence[str]] = None,
        port: Optional[int] = None,
        **options: Unpack[VmOptions],
    ) -> Outcome[WaitReport]:
        """Waits, until the timeout at most.

        :param until: ``agent`` (it answers), or a state: ``running``, ``shut-off``, ``paused``, ``crashed``, ``pmsuspended``.
        :param exec: A program that has to end with exit code 0 in the guest; it is run again and again.
        :param port: A TCP port that a process in the guest has to listen on.
        """
        return self._run(_verbs.wait(self.target, until, exec=exec, port=port), options)

    def push(
        self,
        source: Union[str, os.PathLike[str]],
        destination: str,
        *,
        recursive: bool = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[FileReport]:
        """Copies a file of this machine into guests.

        :param recursive: The file may be a folder, which is copied with all that is in it.
        """
        return self._run(_verbs.push(self.target, source, destination, recursive=recursive), options)

    def pull(
        self,
        path: str,
        destination: Union[str, os.PathLike[str]],
        *,
        recursive: bool = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[FileReport]:
        """Copies a file out of guests, into a folder of this machine: each to ``destination/HOST/VM/NAME``.

        :param recursive: The file may be a folder, which is copied with all that is in it.
        """
        return self._run(_verbs.pull(self.target, path, destination, recursive=recursive), options)

    def screenshot(
        self,
        folder: Union[str, os.PathLike[str]],
        *,
        screen: int = 0,
        **options: Unpack[VmOptions],
    ) -> Outcome[ScreenshotReport]:
        """Takes pictures of screens, as ``folder/HOST/VM.png``."""
        return self._run(_verbs.screenshot(self.target, folder, screen=screen), options)

    def qmp(
        self,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[VmOptions],
    ) -> Outcome[Any]:
        """Sends a command to the monitors of QEMU, and yields the replies as they are."""
        return self._run(_verbs.qmp(self.target, command, arguments), options)

    def qga(
        self,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[VmOptions],
    ) -> Outcome[Any]:
        """Sends a command to guest agents, and yields the replies as they are."""
        return self._run(_verbs.qga(self.target, command, arguments), options)

    def key(
        self,
        chords: Union[str, Sequence[str]],
        *,
        hold: float = 0.01,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Presses keys, such as ``ctrl-alt-del``; of several chords one after the other."""
        return self._run(_verbs.key(self.target, chords, hold=hold), options)

    def type(
        self,
        text: str,
        *,
        layout: str = 'us',
        hold: float = 0.01,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Types a text on the keyboards of VMs; the end of a line is Enter. It appears in no message and no log."""
        return self._run(_verbs.type(self.target, text, layout=layout, hold=hold), options)

    def mouse(
        self,
        action: str,
        *,
        hold: float = 0.05,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Moves or clicks the mouse: ``move 50% 50%``, ``click 100 200 right``, ``scroll down 3``."""
        return self._run(_verbs.mouse(self.target, action, hold=hold), options)

    def run(
        self,
        scenario: Union[str, os.PathLike[str]],
        *,
        variables: Optional[Mapping[str, str]] = None,
        **options: Unpack[VmOptions],
    ) -> Outcome[ScenarioReport]:
        """Runs the steps of a scenario file on VMs: on those that the file names, unless others are given.

        After the first Ctrl-C each VM finishes its present step and the teardown; the second ends it at once, as the end of a task or of a
        stream does. ``stop()`` of a stream does what the first Ctrl-C does.

        :raises RequestError: What is wrong with the file or with one that it includes, a line for each.
        """
        return self._run(_verbs.run(scenario, self.target, variables=variables), options)

    def diagnose(
        self,
        **options: Unpack[VmOptions],
    ) -> Outcome[Diagnosis]:
        """Checks what lies between this machine and the agents of VMs."""
        return self._run(_verbs.diagnose(self.target), options)

    def operate(
        self,
        operation: Mapping[str, Any],
        **options: Unpack[VmOptions],
    ) -> Outcome[Any]:
        """Does any operation, given as JSON has it: ``{"op": "exec", "program": "uname"}``."""
        return self._run(_verbs.operate(self.target, operation), options)


class AsyncVmVerbs:
    """Each verb on one VM, to await until it has its outcome."""

    @property
    def target(self) -> str:
        """The selector of this VM alone."""
        raise NotImplementedError

    async def _run(self, operation: Operation[D], options: VmOptions) -> Outcome[D]:
        raise NotImplementedError

    async def exec(
        self,
        argv: Sequence[str],
        *,
        env: Optional[Mapping[str, str]] = None,
        stdin: Union[str, bytes, None] = None,
        cwd: Optional[str] = None,
        spool: Optional[str] = None,
        encoding: Optional[str] = None,
        **options: Unpack[VmOptions],
    ) -> Outcome[ExecReport]:
        """Runs a program in guests, through their agents.

        :param argv: The program and its arguments. They pass no shell; for a line of one, see :meth:`shell`.
        :param env: Its whole environment; without it that of the agent.
        :param stdin: Its standard input, at most about 95 KiB.
        :param cwd: Its working folder.
        :param spool: A folder in the guest for its output, which may then have any size.
        :param encoding: The encoding of its output, if that is not UTF-8.
        """
        return await self._run(_verbs.exec(self.target, argv, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    async def shell(
        self,
        line: str,
        *,
        env: Optional[Mapping[str, str]] = None,
        stdin: Union[str, bytes, None] = None,
        cwd: Optional[str] = None,
        spool: Optional[str] = None,
        encoding: Optional[str] = None,
        **options: Unpack[VmOptions],
    ) -> Outcome[ExecReport]:
        """Runs a line of ``/bin/sh`` in guests. The parameters are those of :meth:`exec`."""
        return await self._run(_verbs.shell(self.target, line, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    async def info(
        self,
        **options: Unpack[VmOptions],
    ) -> Outcome[VmReport]:
        """Asks for everything that hosts and agents know of VMs."""
        return await self._run(_verbs.info(self.target), options)

    async def start(
        self,
        *,
        wait: Union[bool, str] = False,
        start_check: str = 'listed',
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Starts VMs.

        :param wait: True waits for the state, and for the guest's agent if it has one; ``"agent"`` fails without one; ``"state"`` waits
            for the state alone.
        :param start_check: Which hosts are asked whether the VM runs there: ``listed``, ``all-hosts`` or ``nothing``.
        """
        return await self._run(_verbs.start(self.target, wait=wait, start_check=start_check), options)

    async def shutdown(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Asks guests to power off. With ``wait``, True or ``"state"``, until they have."""
        return await self._run(_verbs.shutdown(self.target, wait=wait), options)

    async def reboot(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Asks guests to restart. ``wait`` as of :meth:`start`."""
        return await self._run(_verbs.reboot(self.target, wait=wait), options)

    async def reset(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Resets VMs, as by the button. ``wait`` as of :meth:`start`."""
        return await self._run(_verbs.reset(self.target, wait=wait), options)

    async def destroy(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Ends VMs at once, as by pulling the plug. ``wait`` as of :meth:`shutdown`."""
        return await self._run(_verbs.destroy(self.target, wait=wait), options)

    async def suspend(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Stops the virtual CPUs of VMs. With ``wait``, True or ``"state"``, until they are paused."""
        return await self._run(_verbs.suspend(self.target, wait=wait), options)

    async def resume(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Lets suspended VMs run on, and wakes guests that sleep. ``wait`` as of :meth:`start`."""
        return await self._run(_verbs.resume(self.target, wait=wait), options)

    async def save(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Writes the memory of VMs to files of their hosts, and powers them off. :meth:`start` lets them go on. ``wait`` as of
        :meth:`shutdown`.
        """
        return await self._run(_verbs.save(self.target, wait=wait), options)

    async def restore(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Lets saved VMs go on from their memory. A VM that is not saved is left as it is. ``wait`` as of :meth:`start`."""
        return await self._run(_verbs.restore(self.target, wait=wait), options)

    async def nmi(
        self,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Sends VMs a non-maskable interrupt. Many guests panic, and dump their memory."""
        return await self._run(_verbs.nmi(self.target), options)

    async def autostart(
        self,
        on: bool,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Sets whether VMs are started with their hosts."""
        return await self._run(_verbs.autostart(self.target, on), options)

    async def xml(
        self,
        *,
        inactive: bool = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[XmlReport]:
        """Reads the definitions of VMs, as libvirt's XML without passwords.

        :param inactive: The definitions that hold from the next start, and not those of now.
        """
        return await self._run(_verbs.xml(self.target, inactive=inactive), options)

    async def snapshot_create(
        self,
        name: str,
        *,
        description: Optional[str] = None,
        disk_only: bool = False,
        quiesce: bool = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[Snapshot]:
        """Makes a snapshot of each VM: of its disks, and of its memory if it runs. Allow for the time to write the memory.

        :param description: What a person wants to say of it.
        :param disk_only: Not the memory of a VM that runs.
        :param quiesce: The guests' agents freeze the file systems meanwhile. Only with ``disk_only``.
        """
        return await self._run(_verbs.snapshot_create(self.target, name, description=description, disk_only=disk_only, quiesce=quiesce), options)

    async def snapshot_list(
        self,
        **options: Unpack[VmOptions],
    ) -> Outcome[SnapshotList]:
        """Lists the snapshots of VMs."""
        return await self._run(_verbs.snapshot_list(self.target), options)

    async def snapshot_revert(
        self,
        name: str,
        *,
        then: str = 'as-then',
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Takes VMs back to a snapshot: what was written since then is lost.

        :param then: What they do afterwards: ``as-then`` (what they did when the snapshot was made), ``start`` or ``pause``.
        """
        return await self._run(_verbs.snapshot_revert(self.target, name, then=then), options)

    async def snapshot_delete(
        self,
        name: str,
        *,
        children: bool = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Removes a snapshot of each VM, which stays as it is.

        :param children: The snapshots that were made after it too.
        """
        return await self._run(_verbs.snapshot_delete(self.target, name, children=children), options)

    async def console(
        self,
        folder: Union[str, os.PathLike[str]],
        *,
        device: Optional[str] = None,
        force: bool = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[ConsoleReport]:
        """Captures serial consoles in files, as ``folder/HOST/VM.log``, until the timeout. Faults of the guests' kernels are counted.

        :param device: The console's alias in the definition, such as ``serial1``; the first console without it.
        :param force: Takes the console from another client of the daemon.
        """
        return await self._run(_verbs.console(self.target, folder, device=device, force=force), options)

    async def wait(
        self,
        until: str = 'agent',
        *,
        exec: Optional[Sequence[str]] = None,
        port: Optional[int] = None,
        **options: Unpack[VmOptions],
    ) -> Outcome[WaitReport]:
        """Waits, until the timeout at most.

        :param until: ``agent`` (it answers), or a state: ``running``, ``shut-off``, ``paused``, ``crashed``, ``pmsuspended``.
        :param exec: A program that has to end with exit code 0 in the guest; it is run again and again.
        :param port: A TCP port that a process in the guest has to listen on.
        """
        return await self._run(_verbs.wait(self.target, until, exec=exec, port=port), options)

    async def push(
        self,
        source: Union[str, os.PathLike[str]],
        destination: str,
        *,
        recursive: bool = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[FileReport]:
        """Copies a file of this machine into guests.

        :param recursive: The file may be a folder, which is copied with all that is in it.
        """
        return await self._run(_verbs.push(self.target, source, destination, recursive=recursive), options)

    async def pull(
        self,
        path: str,
        destination: Union[str, os.PathLike[str]],
        *,
        recursive: bool = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[FileReport]:
        """Copies a file out of guests, into a folder of this machine: each to ``destination/HOST/VM/NAME``.

        :param recursive: The file may be a folder, which is copied with all that is in it.
        """
        return await self._run(_verbs.pull(self.target, path, destination, recursive=recursive), options)

    async def screenshot(
        self,
        folder: Union[str, os.PathLike[str]],
        *,
        screen: int = 0,
        **options: Unpack[VmOptions],
    ) -> Outcome[ScreenshotReport]:
        """Takes pictures of screens, as ``folder/HOST/VM.png``."""
        return await self._run(_verbs.screenshot(self.target, folder, screen=screen), options)

    async def qmp(
        self,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[VmOptions],
    ) -> Outcome[Any]:
        """Sends a command to the monitors of QEMU, and yields the replies as they are."""
        return await self._run(_verbs.qmp(self.target, command, arguments), options)

    async def qga(
        self,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[VmOptions],
    ) -> Outcome[Any]:
        """Sends a command to guest agents, and yields the replies as they are."""
        return await self._run(_verbs.qga(self.target, command, arguments), options)

    async def key(
        self,
        chords: Union[str, Sequence[str]],
        *,
        hold: float = 0.01,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Presses keys, such as ``ctrl-alt-del``; of several chords one after the other."""
        return await self._run(_verbs.key(self.target, chords, hold=hold), options)

    async def type(
        self,
        text: str,
        *,
        layout: str = 'us',
        hold: float = 0.01,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Types a text on the keyboards of VMs; the end of a line is Enter. It appears in no message and no log."""
        return await self._run(_verbs.type(self.target, text, layout=layout, hold=hold), options)

    async def mouse(
        self,
        action: str,
        *,
        hold: float = 0.05,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Moves or clicks the mouse: ``move 50% 50%``, ``click 100 200 right``, ``scroll down 3``."""
        return await self._run(_verbs.mouse(self.target, action, hold=hold), options)

    async def run(
        self,
        scenario: Union[str, os.PathLike[str]],
        *,
        variables: Optional[Mapping[str, str]] = None,
        **options: Unpack[VmOptions],
    ) -> Outcome[ScenarioReport]:
        """Runs the steps of a scenario file on VMs: on those that the file names, unless others are given.

        After the first Ctrl-C each VM finishes its present step and the teardown; the second ends it at once, as the end of a task or of a
        stream does. ``stop()`` of a stream does what the first Ctrl-C does.

        :raises RequestError: What is wrong with the file or with one that it includes, a line for each.
        """
        return await self._run(_verbs.run(scenario, self.target, variables=variables), options)

    async def diagnose(
        self,
        **options: Unpack[VmOptions],
    ) -> Outcome[Diagnosis]:
        """Checks what lies between this machine and the agents of VMs."""
        return await self._run(_verbs.diagnose(self.target), options)

    async def operate(
        self,
        operation: Mapping[str, Any],
        **options: Unpack[VmOptions],
    ) -> Outcome[Any]:
        """Does any operation, given as JSON has it: ``{"op": "exec", "program": "uname"}``."""
        return await self._run(_verbs.operate(self.target, operation), options)
