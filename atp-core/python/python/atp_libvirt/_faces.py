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
from ._plans import Plan
from ._streams import AsyncStream, Stream
from ._verbs import Operation, Options, RunOptions, Selectors, VmOptions

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

D = TypeVar("D")

#: What is given to a verb may be secret: reports of pytest show the arguments of the last frame, which is then that of the caller.
__tracebackhide__ = True


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
        **options: Unpack[RunOptions],
    ) -> Outcomes[ExecReport]:
        """Runs a program in guests, through their agents. An exit code other than 0 is a failure with the effect ``done``: ``data`` has the
        output all the same.

        :param argv: The program and its arguments. They pass no shell; for a line of one, see :meth:`shell`.
        :param env: Its whole environment; without it that of the agent.
        :param stdin: Its standard input, at most about 95 KiB.
        :param cwd: Its working folder.
        :param spool: A folder in the guest for its output, which may then have any size.
        :param encoding: The encoding of its output, if that is not UTF-8.
        :raises RequestError: ``argv`` is empty, or ``encoding`` is not known.

        >>> outcomes = fleet.exec("h1/*", ["uname"], timeout=10)
        >>> [(outcome.target, outcome.data.exit_code, outcome.data.stdout.text) for outcome in outcomes.ok]
        [('h1/vm1', 0, 'Linux\\n'), ('h1/vm2', 0, 'Linux\\n')]
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
        **options: Unpack[RunOptions],
    ) -> Outcomes[ExecReport]:
        """Runs a line of ``/bin/sh`` in guests. The parameters are those of :meth:`exec`.

        >>> fleet.shell("h1/vm1", "echo a; echo b")[0].unwrap().stdout.text
        'a\\nb\\n'
        """
        return self._run(_verbs.shell(targets, line, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    def vms(
        self,
        targets: Selectors = '*',
        **options: Unpack[RunOptions],
    ) -> Outcomes[DomainInfo]:
        """Lists VMs, active or not. Nothing is asked but their hosts.

        >>> [(outcome.target, outcome.data.state) for outcome in fleet.vms("h1/*", state="running")]
        [('h1/vm1', 'running'), ('h1/vm2', 'running')]
        """
        return self._run(_verbs.vms(targets), options)

    def info(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Outcomes[VmReport]:
        """Asks for everything that hosts and agents know of VMs. An agent that does not answer is no failure: ``guest_error`` says why.

        >>> fleet.info("h1/vm1")[0].unwrap().guest.hostname
        'vm1'
        """
        return self._run(_verbs.info(targets), options)

    def start(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        start_check: str = 'listed',
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Starts VMs. One that runs is left as it is, with the status ``unchanged``.

        :param wait: ``"state"`` waits until the VM runs; True also for the guest's agent, if the VM has one; ``"agent"`` for the agent, and
            fails without one. They wait until the timeout.
        :param start_check: Which hosts are asked whether the VM runs there: ``listed``, ``all-hosts`` or ``nothing``.
        :raises RequestError: ``wait`` is another word.

        >>> fleet.start("h1/vm1", wait=True)[0].status
        'unchanged'
        """
        return self._run(_verbs.start(targets, wait=wait, start_check=start_check), options)

    def shutdown(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Asks guests to power off, and does not wait for it. A guest may ignore it.

        :param wait: True or ``"state"`` waits until they are off, until the timeout.
        :raises RequestError: ``wait`` is another word: there is no agent to wait for.

        >>> fleet.shutdown("h1/vm1", wait=True, timeout=60)[0].unwrap().state
        'shut off'
        """
        return self._run(_verbs.shutdown(targets, wait=wait), options)

    def reboot(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Asks guests to restart. ``wait`` as of :meth:`start`.

        >>> fleet.reboot("h1/vm1")[0].effect
        'done'
        """
        return self._run(_verbs.reboot(targets, wait=wait), options)

    def reset(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Resets VMs, as by the button: what a guest has not written is lost. ``wait`` as of :meth:`start`.

        >>> fleet.reset("h1/vm1")[0].effect
        'done'
        """
        return self._run(_verbs.reset(targets, wait=wait), options)

    def destroy(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Ends VMs at once, as by pulling the plug: what a guest has not written is lost. ``wait`` as of :meth:`shutdown`.

        >>> fleet.destroy("h1/vm1")[0].unwrap().state
        'shut off'
        """
        return self._run(_verbs.destroy(targets, wait=wait), options)

    def suspend(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Stops the virtual CPUs of VMs. Their memory stays on the host. ``wait``, True or ``"state"``, waits until they are paused.

        >>> fleet.suspend("h1/vm1")[0].unwrap().state
        'paused'
        """
        return self._run(_verbs.suspend(targets, wait=wait), options)

    def resume(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Lets suspended VMs run on, and wakes guests that sleep. ``wait`` as of :meth:`start`.

        >>> fleet.suspend("h1/vm1").raise_for_failures()
        <Outcomes 1 ok>
        >>> fleet.resume("h1/vm1")[0].unwrap().state
        'running'
        """
        return self._run(_verbs.resume(targets, wait=wait), options)

    def save(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Writes the memory of VMs to files of their hosts, and powers them off. :meth:`start` lets them go on. Allow for the time to write
        the memory. ``wait`` as of :meth:`shutdown`.

        >>> fleet.save("h1/vm1")[0].unwrap().state
        'shut off'
        """
        return self._run(_verbs.save(targets, wait=wait), options)

    def restore(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Lets saved VMs go on from their memory. A VM that is not saved is left as it is. ``wait`` as of :meth:`start`.

        >>> fleet.save("h1/vm1").raise_for_failures()
        <Outcomes 1 ok>
        >>> fleet.restore("h1/vm1")[0].unwrap().state
        'running'
        """
        return self._run(_verbs.restore(targets, wait=wait), options)

    def nmi(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Outcomes[None]:
        """Sends VMs a non-maskable interrupt. Many guests panic, and dump their memory.

        >>> fleet.nmi("h1/vm1")[0].effect
        'done'
        """
        return self._run(_verbs.nmi(targets), options)

    def autostart(
        self,
        targets: Selectors,
        on: bool,
        **options: Unpack[RunOptions],
    ) -> Outcomes[None]:
        """Sets whether VMs are started with their hosts.

        :param on: Whether they are.

        >>> fleet.autostart("h1/vm1", True)[0].ok
        True
        """
        return self._run(_verbs.autostart(targets, on), options)

    def xml(
        self,
        targets: Selectors,
        *,
        inactive: bool = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[XmlReport]:
        """Reads the definitions of VMs, as libvirt's XML without passwords.

        :param inactive: The definitions that hold from the next start, and not those of now.

        >>> "<name>vm1</name>" in fleet.xml("h1/vm1")[0].unwrap().xml
        True
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
        **options: Unpack[RunOptions],
    ) -> Outcomes[Snapshot]:
        """Makes a snapshot of each VM: of its disks, and of its memory if it runs. Allow for the time to write the memory.

        :param description: What a person wants to say of it.
        :param disk_only: Not the memory of a VM that runs.
        :param quiesce: The guests' agents freeze the file systems meanwhile. Only with ``disk_only``.
        :raises RequestError: ``name`` cannot be that of a snapshot, or ``quiesce`` is without ``disk_only``.

        >>> fleet.snapshot_create("h1/vm1", "clean", description="as installed")[0].unwrap().name
        'clean'
        """
        return self._run(_verbs.snapshot_create(targets, name, description=description, disk_only=disk_only, quiesce=quiesce), options)

    def snapshot_list(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Outcomes[SnapshotList]:
        """Lists the snapshots of VMs.

        >>> fleet.snapshot_create("h1/vm1", "clean").raise_for_failures()
        <Outcomes 1 ok>
        >>> [snapshot.name for snapshot in fleet.snapshot_list("h1/vm1")[0].unwrap().snapshots]
        ['clean']
        """
        return self._run(_verbs.snapshot_list(targets), options)

    def snapshot_revert(
        self,
        targets: Selectors,
        name: str,
        *,
        then: str = 'as-then',
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Takes VMs back to a snapshot: what was written since then is lost.

        :param then: What they do afterwards: ``as-then`` (what they did when the snapshot was made), ``start`` or ``pause``.

        >>> fleet.snapshot_create("h1/vm1", "clean").raise_for_failures()
        <Outcomes 1 ok>
        >>> fleet.snapshot_revert("h1/vm1", "clean")[0].unwrap().state
        'running'
        """
        return self._run(_verbs.snapshot_revert(targets, name, then=then), options)

    def snapshot_delete(
        self,
        targets: Selectors,
        name: str,
        *,
        children: bool = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[None]:
        """Removes a snapshot of each VM, which stays as it is.

        :param children: The snapshots that were made after it too.

        >>> fleet.snapshot_create("h1/vm1", "clean").raise_for_failures()
        <Outcomes 1 ok>
        >>> fleet.snapshot_delete("h1/vm1", "clean")[0].ok
        True
        """
        return self._run(_verbs.snapshot_delete(targets, name, children=children), options)

    def console(
        self,
        targets: Selectors,
        folder: Union[str, os.PathLike[str]],
        *,
        device: Optional[str] = None,
        force: bool = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[ConsoleReport]:
        """Captures serial consoles in files, as ``folder/HOST/VM.log``, until the timeout, which is the end and no failure. Faults of the
        guests' kernels are counted.

        :param folder: A folder of this machine, which is made if it is missing.
        :param device: The console's alias in the definition, such as ``serial1``; the first console without it.
        :param force: Takes the console from another client of the daemon.

        >>> fleet.console("h1/vm1", "consoles", timeout=3)[0].unwrap().first_faults
        []
        """
        return self._run(_verbs.console(targets, folder, device=device, force=force), options)

    def wait(
        self,
        targets: Selectors,
        until: str = 'agent',
        *,
        exec: Optional[Sequence[str]] = None,
        port: Optional[int] = None,
        **options: Unpack[RunOptions],
    ) -> Outcomes[WaitReport]:
        """Waits, until the timeout at most: then the status is ``timeout``.

        :param until: ``agent`` (it answers), or a state: ``running``, ``shut-off``, ``paused``, ``crashed``, ``pmsuspended``.
        :param exec: A program that has to end with exit code 0 in the guest; it is run again and again.
        :param port: A TCP port that a process in the guest has to listen on.
        :raises RequestError: ``until`` is another word, or several of the three are given.

        >>> fleet.wait("h1/*", "running", timeout=10).raise_for_failures()
        <Outcomes 2 ok>
        >>> fleet.wait("h1/vm1", exec=["true"], timeout=10)[0].ok
        True
        """
        return self._run(_verbs.wait(targets, until, exec=exec, port=port), options)

    def push(
        self,
        targets: Selectors,
        source: Union[str, os.PathLike[str]],
        destination: str,
        *,
        recursive: bool = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[FileReport]:
        """Copies a file of this machine into guests.

        :param source: The file of this machine.
        :param destination: The path in the guest. What is there is replaced.
        :param recursive: The file may be a folder, which is copied with all that is in it.
        :raises RequestError: The file cannot be read.

        >>> import pathlib
        >>> _ = pathlib.Path("motd").write_text("hello")
        >>> fleet.push("h1/vm1", "motd", "/etc/motd")[0].unwrap().bytes
        5
        """
        return self._run(_verbs.push(targets, source, destination, recursive=recursive), options)

    def pull(
        self,
        targets: Selectors,
        path: str,
        destination: Union[str, os.PathLike[str]],
        *,
        recursive: bool = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[FileReport]:
        """Copies a file out of guests, into a folder of this machine: each to ``destination/HOST/VM/NAME``.

        :param path: The path in the guest.
        :param destination: The folder of this machine, which is made if it is missing.
        :param recursive: The file may be a folder, which is copied with all that is in it.

        >>> import pathlib
        >>> _ = pathlib.Path("motd").write_text("hello")
        >>> fleet.push("h1/vm1", "motd", "/etc/motd").raise_for_failures()
        <Outcomes 1 ok>
        >>> fleet.pull("h1/vm1", "/etc/motd", "pulled").raise_for_failures()
        <Outcomes 1 ok>
        >>> pathlib.Path("pulled/h1/vm1/motd").read_text()
        'hello'
        """
        return self._run(_verbs.pull(targets, path, destination, recursive=recursive), options)

    def screenshot(
        self,
        targets: Selectors,
        folder: Union[str, os.PathLike[str]],
        *,
        screen: int = 0,
        **options: Unpack[RunOptions],
    ) -> Outcomes[ScreenshotReport]:
        """Takes pictures of screens, as ``folder/HOST/VM.png``.

        :param folder: A folder of this machine, which is made if it is missing.
        :param screen: The number of the screen, from 0.

        >>> fleet.screenshot("h1/vm1", "screens")[0].unwrap().file.endswith("screens/h1/vm1.png")
        True
        """
        return self._run(_verbs.screenshot(targets, folder, screen=screen), options)

    def qmp(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[RunOptions],
    ) -> Outcomes[Any]:
        """Sends a command to the monitors of QEMU, and yields the replies as they are. libvirt does not know what they change: a VM that gets
        commands other than looks is marked as tainted.

        :param command: The command's name.
        :param arguments: Its arguments, as JSON has them.

        >>> fleet.qmp("h1/vm1", "query-status")[0].unwrap()["status"]
        'running'
        """
        return self._run(_verbs.qmp(targets, command, arguments), options)

    def qga(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[RunOptions],
    ) -> Outcomes[Any]:
        """Sends a command to guest agents, and yields the replies as they are.

        :param command: The command's name.
        :param arguments: Its arguments, as JSON has them.

        >>> fleet.qga("h1/vm1", "guest-ping")[0].unwrap()
        {}
        """
        return self._run(_verbs.qga(targets, command, arguments), options)

    def key(
        self,
        targets: Selectors,
        chords: Union[str, Sequence[str]],
        *,
        hold: float = 0.01,
        **options: Unpack[RunOptions],
    ) -> Outcomes[None]:
        """Presses keys; of several chords one after the other.

        :param chords: Keys, joined by ``-`` where they are pressed together: ``ctrl-alt-del``, or ``["alt-f2", "ret"]``.
        :param hold: For how many seconds each stays down.
        :raises RequestError: There is no key of this name.

        >>> fleet.key("h1/vm1", "ctrl-alt-del")[0].effect
        'done'
        """
        return self._run(_verbs.key(targets, chords, hold=hold), options)

    def type(
        self,
        targets: Selectors,
        text: str,
        *,
        layout: str = 'us',
        hold: float = 0.01,
        **options: Unpack[RunOptions],
    ) -> Outcomes[None]:
        """Types a text on the keyboards of VMs. It appears in no message and no log.

        :param text: The text; the end of a line is Enter.
        :param layout: The layout of the guest's keyboard, such as ``us`` or ``de``.
        :param hold: For how many seconds each key stays down.
        :raises RequestError: The layout is not known, or has no key for a character.

        >>> fleet.type("h1/vm1", "root\\n")[0].effect
        'done'
        """
        return self._run(_verbs.type(targets, text, layout=layout, hold=hold), options)

    def mouse(
        self,
        targets: Selectors,
        action: str,
        *,
        hold: float = 0.05,
        **options: Unpack[RunOptions],
    ) -> Outcomes[None]:
        """Moves or clicks the mouse.

        :param action: ``move 50% 50%``, ``click 100 200 right``, ``scroll down 3``: places are pixels, or shares of the screen.
        :param hold: For how many seconds a button stays down.
        :raises RequestError: The action cannot be read.

        >>> fleet.mouse("h1/vm1", "click 50% 50%")[0].effect
        'done'
        """
        return self._run(_verbs.mouse(targets, action, hold=hold), options)

    def run(
        self,
        scenario: Union[str, os.PathLike[str]],
        targets: Selectors = (),
        *,
        variables: Optional[Mapping[str, str]] = None,
        **options: Unpack[RunOptions],
    ) -> Outcomes[ScenarioReport]:
        """Runs the steps of a scenario file on VMs: on those that the file names, unless others are given.

        After the first Ctrl-C each VM finishes its present step and the teardown; the second ends it at once, as the end of a task or of a
        stream does. ``stop()`` of a stream does what the first Ctrl-C does.

        :param scenario: The file, in YAML.
        :param variables: Other values of variables of the file.
        :raises RequestError: What is wrong with the file or with one that it includes, a line for each.

        >>> import pathlib
        >>> _ = pathlib.Path("smoke.yaml").write_text("name: smoke\\ntargets: h1/*\\nsteps:\\n  - exec: [uname]\\n")
        >>> for outcome in fleet.run("smoke.yaml"):
        ...     print(outcome.target, [step.status for step in outcome.unwrap().steps])
        h1/vm1 ['ok']
        h1/vm2 ['ok']
        """
        return self._run(_verbs.run(scenario, targets, variables=variables), options)

    def check(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[RunOptions],
    ) -> Outcomes[HostReport]:
        """Connects to hosts, and asks what they are.

        :param hosts: Ids, globs of ids, or ``@GROUP``. A ``/`` after them may be left out, here and in ``exclude``.

        >>> report = fleet.check("h1")[0].unwrap()
        >>> report.hypervisor, report.domains
        ('QEMU', 2)
        """
        return self._run(_verbs.check(hosts), options)

    def diagnose(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Outcomes[Diagnosis]:
        """Checks what lies between this machine and the agents of VMs. What it finds is in ``findings``, each with a hint.

        >>> fleet.diagnose("h1/vm1")[0].ok
        True
        """
        return self._run(_verbs.diagnose(targets), options)

    def diagnose_hosts(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[RunOptions],
    ) -> Outcomes[Diagnosis]:
        """Checks each step on the way to the daemons of hosts. The parameters are those of :meth:`check`.

        >>> fleet.diagnose_hosts("h1")[0].ok
        True
        """
        return self._run(_verbs.diagnose_hosts(hosts), options)

    def operate(
        self,
        targets: Selectors,
        operation: Mapping[str, Any],
        **options: Unpack[RunOptions],
    ) -> Outcomes[Any]:
        """Does any operation, given as JSON has it: what programs that speak to the service's API send.

        :param operation: Its name as ``op``, and its parameters.
        :raises RequestError: There is no such operation, or it has no such parameter.

        >>> fleet.operate("h1/vm1", {"op": "exec", "program": "uname"})[0].unwrap().stdout.text
        'Linux\\n'
        """
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
        **options: Unpack[RunOptions],
    ) -> Stream[ExecReport]:
        """Runs a program in guests, through their agents. An exit code other than 0 is a failure with the effect ``done``: ``data`` has the
        output all the same.

        :param argv: The program and its arguments. They pass no shell; for a line of one, see :meth:`shell`.
        :param env: Its whole environment; without it that of the agent.
        :param stdin: Its standard input, at most about 95 KiB.
        :param cwd: Its working folder.
        :param spool: A folder in the guest for its output, which may then have any size.
        :param encoding: The encoding of its output, if that is not UTF-8.
        :raises RequestError: ``argv`` is empty, or ``encoding`` is not known.
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
        **options: Unpack[RunOptions],
    ) -> Stream[ExecReport]:
        """Runs a line of ``/bin/sh`` in guests. The parameters are those of :meth:`exec`."""
        return self._run(_verbs.shell(targets, line, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    def vms(
        self,
        targets: Selectors = '*',
        **options: Unpack[RunOptions],
    ) -> Stream[DomainInfo]:
        """Lists VMs, active or not. Nothing is asked but their hosts."""
        return self._run(_verbs.vms(targets), options)

    def info(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Stream[VmReport]:
        """Asks for everything that hosts and agents know of VMs. An agent that does not answer is no failure: ``guest_error`` says why."""
        return self._run(_verbs.info(targets), options)

    def start(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        start_check: str = 'listed',
        **options: Unpack[RunOptions],
    ) -> Stream[StateReport]:
        """Starts VMs. One that runs is left as it is, with the status ``unchanged``.

        :param wait: ``"state"`` waits until the VM runs; True also for the guest's agent, if the VM has one; ``"agent"`` for the agent, and
            fails without one. They wait until the timeout.
        :param start_check: Which hosts are asked whether the VM runs there: ``listed``, ``all-hosts`` or ``nothing``.
        :raises RequestError: ``wait`` is another word.
        """
        return self._run(_verbs.start(targets, wait=wait, start_check=start_check), options)

    def shutdown(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Stream[StateReport]:
        """Asks guests to power off, and does not wait for it. A guest may ignore it.

        :param wait: True or ``"state"`` waits until they are off, until the timeout.
        :raises RequestError: ``wait`` is another word: there is no agent to wait for.
        """
        return self._run(_verbs.shutdown(targets, wait=wait), options)

    def reboot(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Stream[StateReport]:
        """Asks guests to restart. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.reboot(targets, wait=wait), options)

    def reset(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Stream[StateReport]:
        """Resets VMs, as by the button: what a guest has not written is lost. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.reset(targets, wait=wait), options)

    def destroy(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Stream[StateReport]:
        """Ends VMs at once, as by pulling the plug: what a guest has not written is lost. ``wait`` as of :meth:`shutdown`."""
        return self._run(_verbs.destroy(targets, wait=wait), options)

    def suspend(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Stream[StateReport]:
        """Stops the virtual CPUs of VMs. Their memory stays on the host. ``wait``, True or ``"state"``, waits until they are paused."""
        return self._run(_verbs.suspend(targets, wait=wait), options)

    def resume(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Stream[StateReport]:
        """Lets suspended VMs run on, and wakes guests that sleep. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.resume(targets, wait=wait), options)

    def save(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Stream[StateReport]:
        """Writes the memory of VMs to files of their hosts, and powers them off. :meth:`start` lets them go on. Allow for the time to write
        the memory. ``wait`` as of :meth:`shutdown`.
        """
        return self._run(_verbs.save(targets, wait=wait), options)

    def restore(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Stream[StateReport]:
        """Lets saved VMs go on from their memory. A VM that is not saved is left as it is. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.restore(targets, wait=wait), options)

    def nmi(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Stream[None]:
        """Sends VMs a non-maskable interrupt. Many guests panic, and dump their memory."""
        return self._run(_verbs.nmi(targets), options)

    def autostart(
        self,
        targets: Selectors,
        on: bool,
        **options: Unpack[RunOptions],
    ) -> Stream[None]:
        """Sets whether VMs are started with their hosts.

        :param on: Whether they are.
        """
        return self._run(_verbs.autostart(targets, on), options)

    def xml(
        self,
        targets: Selectors,
        *,
        inactive: bool = False,
        **options: Unpack[RunOptions],
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
        **options: Unpack[RunOptions],
    ) -> Stream[Snapshot]:
        """Makes a snapshot of each VM: of its disks, and of its memory if it runs. Allow for the time to write the memory.

        :param description: What a person wants to say of it.
        :param disk_only: Not the memory of a VM that runs.
        :param quiesce: The guests' agents freeze the file systems meanwhile. Only with ``disk_only``.
        :raises RequestError: ``name`` cannot be that of a snapshot, or ``quiesce`` is without ``disk_only``.
        """
        return self._run(_verbs.snapshot_create(targets, name, description=description, disk_only=disk_only, quiesce=quiesce), options)

    def snapshot_list(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Stream[SnapshotList]:
        """Lists the snapshots of VMs."""
        return self._run(_verbs.snapshot_list(targets), options)

    def snapshot_revert(
        self,
        targets: Selectors,
        name: str,
        *,
        then: str = 'as-then',
        **options: Unpack[RunOptions],
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
        **options: Unpack[RunOptions],
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
        **options: Unpack[RunOptions],
    ) -> Stream[ConsoleReport]:
        """Captures serial consoles in files, as ``folder/HOST/VM.log``, until the timeout, which is the end and no failure. Faults of the
        guests' kernels are counted.

        :param folder: A folder of this machine, which is made if it is missing.
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
        **options: Unpack[RunOptions],
    ) -> Stream[WaitReport]:
        """Waits, until the timeout at most: then the status is ``timeout``.

        :param until: ``agent`` (it answers), or a state: ``running``, ``shut-off``, ``paused``, ``crashed``, ``pmsuspended``.
        :param exec: A program that has to end with exit code 0 in the guest; it is run again and again.
        :param port: A TCP port that a process in the guest has to listen on.
        :raises RequestError: ``until`` is another word, or several of the three are given.
        """
        return self._run(_verbs.wait(targets, until, exec=exec, port=port), options)

    def push(
        self,
        targets: Selectors,
        source: Union[str, os.PathLike[str]],
        destination: str,
        *,
        recursive: bool = False,
        **options: Unpack[RunOptions],
    ) -> Stream[FileReport]:
        """Copies a file of this machine into guests.

        :param source: The file of this machine.
        :param destination: The path in the guest. What is there is replaced.
        :param recursive: The file may be a folder, which is copied with all that is in it.
        :raises RequestError: The file cannot be read.
        """
        return self._run(_verbs.push(targets, source, destination, recursive=recursive), options)

    def pull(
        self,
        targets: Selectors,
        path: str,
        destination: Union[str, os.PathLike[str]],
        *,
        recursive: bool = False,
        **options: Unpack[RunOptions],
    ) -> Stream[FileReport]:
        """Copies a file out of guests, into a folder of this machine: each to ``destination/HOST/VM/NAME``.

        :param path: The path in the guest.
        :param destination: The folder of this machine, which is made if it is missing.
        :param recursive: The file may be a folder, which is copied with all that is in it.
        """
        return self._run(_verbs.pull(targets, path, destination, recursive=recursive), options)

    def screenshot(
        self,
        targets: Selectors,
        folder: Union[str, os.PathLike[str]],
        *,
        screen: int = 0,
        **options: Unpack[RunOptions],
    ) -> Stream[ScreenshotReport]:
        """Takes pictures of screens, as ``folder/HOST/VM.png``.

        :param folder: A folder of this machine, which is made if it is missing.
        :param screen: The number of the screen, from 0.
        """
        return self._run(_verbs.screenshot(targets, folder, screen=screen), options)

    def qmp(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[RunOptions],
    ) -> Stream[Any]:
        """Sends a command to the monitors of QEMU, and yields the replies as they are. libvirt does not know what they change: a VM that gets
        commands other than looks is marked as tainted.

        :param command: The command's name.
        :param arguments: Its arguments, as JSON has them.
        """
        return self._run(_verbs.qmp(targets, command, arguments), options)

    def qga(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[RunOptions],
    ) -> Stream[Any]:
        """Sends a command to guest agents, and yields the replies as they are.

        :param command: The command's name.
        :param arguments: Its arguments, as JSON has them.
        """
        return self._run(_verbs.qga(targets, command, arguments), options)

    def key(
        self,
        targets: Selectors,
        chords: Union[str, Sequence[str]],
        *,
        hold: float = 0.01,
        **options: Unpack[RunOptions],
    ) -> Stream[None]:
        """Presses keys; of several chords one after the other.

        :param chords: Keys, joined by ``-`` where they are pressed together: ``ctrl-alt-del``, or ``["alt-f2", "ret"]``.
        :param hold: For how many seconds each stays down.
        :raises RequestError: There is no key of this name.
        """
        return self._run(_verbs.key(targets, chords, hold=hold), options)

    def type(
        self,
        targets: Selectors,
        text: str,
        *,
        layout: str = 'us',
        hold: float = 0.01,
        **options: Unpack[RunOptions],
    ) -> Stream[None]:
        """Types a text on the keyboards of VMs. It appears in no message and no log.

        :param text: The text; the end of a line is Enter.
        :param layout: The layout of the guest's keyboard, such as ``us`` or ``de``.
        :param hold: For how many seconds each key stays down.
        :raises RequestError: The layout is not known, or has no key for a character.
        """
        return self._run(_verbs.type(targets, text, layout=layout, hold=hold), options)

    def mouse(
        self,
        targets: Selectors,
        action: str,
        *,
        hold: float = 0.05,
        **options: Unpack[RunOptions],
    ) -> Stream[None]:
        """Moves or clicks the mouse.

        :param action: ``move 50% 50%``, ``click 100 200 right``, ``scroll down 3``: places are pixels, or shares of the screen.
        :param hold: For how many seconds a button stays down.
        :raises RequestError: The action cannot be read.
        """
        return self._run(_verbs.mouse(targets, action, hold=hold), options)

    def run(
        self,
        scenario: Union[str, os.PathLike[str]],
        targets: Selectors = (),
        *,
        variables: Optional[Mapping[str, str]] = None,
        **options: Unpack[RunOptions],
    ) -> Stream[ScenarioReport]:
        """Runs the steps of a scenario file on VMs: on those that the file names, unless others are given.

        After the first Ctrl-C each VM finishes its present step and the teardown; the second ends it at once, as the end of a task or of a
        stream does. ``stop()`` of a stream does what the first Ctrl-C does.

        :param scenario: The file, in YAML.
        :param variables: Other values of variables of the file.
        :raises RequestError: What is wrong with the file or with one that it includes, a line for each.
        """
        return self._run(_verbs.run(scenario, targets, variables=variables), options)

    def check(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[RunOptions],
    ) -> Stream[HostReport]:
        """Connects to hosts, and asks what they are.

        :param hosts: Ids, globs of ids, or ``@GROUP``. A ``/`` after them may be left out, here and in ``exclude``.
        """
        return self._run(_verbs.check(hosts), options)

    def diagnose(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Stream[Diagnosis]:
        """Checks what lies between this machine and the agents of VMs. What it finds is in ``findings``, each with a hint."""
        return self._run(_verbs.diagnose(targets), options)

    def diagnose_hosts(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[RunOptions],
    ) -> Stream[Diagnosis]:
        """Checks each step on the way to the daemons of hosts. The parameters are those of :meth:`check`."""
        return self._run(_verbs.diagnose_hosts(hosts), options)

    def operate(
        self,
        targets: Selectors,
        operation: Mapping[str, Any],
        **options: Unpack[RunOptions],
    ) -> Stream[Any]:
        """Does any operation, given as JSON has it: what programs that speak to the service's API send.

        :param operation: Its name as ``op``, and its parameters.
        :raises RequestError: There is no such operation, or it has no such parameter.
        """
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
        **options: Unpack[RunOptions],
    ) -> Outcomes[ExecReport]:
        """Runs a program in guests, through their agents. An exit code other than 0 is a failure with the effect ``done``: ``data`` has the
        output all the same.

        :param argv: The program and its arguments. They pass no shell; for a line of one, see :meth:`shell`.
        :param env: Its whole environment; without it that of the agent.
        :param stdin: Its standard input, at most about 95 KiB.
        :param cwd: Its working folder.
        :param spool: A folder in the guest for its output, which may then have any size.
        :param encoding: The encoding of its output, if that is not UTF-8.
        :raises RequestError: ``argv`` is empty, or ``encoding`` is not known.
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
        **options: Unpack[RunOptions],
    ) -> Outcomes[ExecReport]:
        """Runs a line of ``/bin/sh`` in guests. The parameters are those of :meth:`exec`."""
        return await self._run(_verbs.shell(targets, line, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    async def vms(
        self,
        targets: Selectors = '*',
        **options: Unpack[RunOptions],
    ) -> Outcomes[DomainInfo]:
        """Lists VMs, active or not. Nothing is asked but their hosts."""
        return await self._run(_verbs.vms(targets), options)

    async def info(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Outcomes[VmReport]:
        """Asks for everything that hosts and agents know of VMs. An agent that does not answer is no failure: ``guest_error`` says why."""
        return await self._run(_verbs.info(targets), options)

    async def start(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        start_check: str = 'listed',
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Starts VMs. One that runs is left as it is, with the status ``unchanged``.

        :param wait: ``"state"`` waits until the VM runs; True also for the guest's agent, if the VM has one; ``"agent"`` for the agent, and
            fails without one. They wait until the timeout.
        :param start_check: Which hosts are asked whether the VM runs there: ``listed``, ``all-hosts`` or ``nothing``.
        :raises RequestError: ``wait`` is another word.
        """
        return await self._run(_verbs.start(targets, wait=wait, start_check=start_check), options)

    async def shutdown(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Asks guests to power off, and does not wait for it. A guest may ignore it.

        :param wait: True or ``"state"`` waits until they are off, until the timeout.
        :raises RequestError: ``wait`` is another word: there is no agent to wait for.
        """
        return await self._run(_verbs.shutdown(targets, wait=wait), options)

    async def reboot(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Asks guests to restart. ``wait`` as of :meth:`start`."""
        return await self._run(_verbs.reboot(targets, wait=wait), options)

    async def reset(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Resets VMs, as by the button: what a guest has not written is lost. ``wait`` as of :meth:`start`."""
        return await self._run(_verbs.reset(targets, wait=wait), options)

    async def destroy(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Ends VMs at once, as by pulling the plug: what a guest has not written is lost. ``wait`` as of :meth:`shutdown`."""
        return await self._run(_verbs.destroy(targets, wait=wait), options)

    async def suspend(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Stops the virtual CPUs of VMs. Their memory stays on the host. ``wait``, True or ``"state"``, waits until they are paused."""
        return await self._run(_verbs.suspend(targets, wait=wait), options)

    async def resume(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Lets suspended VMs run on, and wakes guests that sleep. ``wait`` as of :meth:`start`."""
        return await self._run(_verbs.resume(targets, wait=wait), options)

    async def save(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Writes the memory of VMs to files of their hosts, and powers them off. :meth:`start` lets them go on. Allow for the time to write
        the memory. ``wait`` as of :meth:`shutdown`.
        """
        return await self._run(_verbs.save(targets, wait=wait), options)

    async def restore(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[StateReport]:
        """Lets saved VMs go on from their memory. A VM that is not saved is left as it is. ``wait`` as of :meth:`start`."""
        return await self._run(_verbs.restore(targets, wait=wait), options)

    async def nmi(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Outcomes[None]:
        """Sends VMs a non-maskable interrupt. Many guests panic, and dump their memory."""
        return await self._run(_verbs.nmi(targets), options)

    async def autostart(
        self,
        targets: Selectors,
        on: bool,
        **options: Unpack[RunOptions],
    ) -> Outcomes[None]:
        """Sets whether VMs are started with their hosts.

        :param on: Whether they are.
        """
        return await self._run(_verbs.autostart(targets, on), options)

    async def xml(
        self,
        targets: Selectors,
        *,
        inactive: bool = False,
        **options: Unpack[RunOptions],
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
        **options: Unpack[RunOptions],
    ) -> Outcomes[Snapshot]:
        """Makes a snapshot of each VM: of its disks, and of its memory if it runs. Allow for the time to write the memory.

        :param description: What a person wants to say of it.
        :param disk_only: Not the memory of a VM that runs.
        :param quiesce: The guests' agents freeze the file systems meanwhile. Only with ``disk_only``.
        :raises RequestError: ``name`` cannot be that of a snapshot, or ``quiesce`` is without ``disk_only``.
        """
        return await self._run(_verbs.snapshot_create(targets, name, description=description, disk_only=disk_only, quiesce=quiesce), options)

    async def snapshot_list(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Outcomes[SnapshotList]:
        """Lists the snapshots of VMs."""
        return await self._run(_verbs.snapshot_list(targets), options)

    async def snapshot_revert(
        self,
        targets: Selectors,
        name: str,
        *,
        then: str = 'as-then',
        **options: Unpack[RunOptions],
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
        **options: Unpack[RunOptions],
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
        **options: Unpack[RunOptions],
    ) -> Outcomes[ConsoleReport]:
        """Captures serial consoles in files, as ``folder/HOST/VM.log``, until the timeout, which is the end and no failure. Faults of the
        guests' kernels are counted.

        :param folder: A folder of this machine, which is made if it is missing.
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
        **options: Unpack[RunOptions],
    ) -> Outcomes[WaitReport]:
        """Waits, until the timeout at most: then the status is ``timeout``.

        :param until: ``agent`` (it answers), or a state: ``running``, ``shut-off``, ``paused``, ``crashed``, ``pmsuspended``.
        :param exec: A program that has to end with exit code 0 in the guest; it is run again and again.
        :param port: A TCP port that a process in the guest has to listen on.
        :raises RequestError: ``until`` is another word, or several of the three are given.
        """
        return await self._run(_verbs.wait(targets, until, exec=exec, port=port), options)

    async def push(
        self,
        targets: Selectors,
        source: Union[str, os.PathLike[str]],
        destination: str,
        *,
        recursive: bool = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[FileReport]:
        """Copies a file of this machine into guests.

        :param source: The file of this machine.
        :param destination: The path in the guest. What is there is replaced.
        :param recursive: The file may be a folder, which is copied with all that is in it.
        :raises RequestError: The file cannot be read.
        """
        return await self._run(_verbs.push(targets, source, destination, recursive=recursive), options)

    async def pull(
        self,
        targets: Selectors,
        path: str,
        destination: Union[str, os.PathLike[str]],
        *,
        recursive: bool = False,
        **options: Unpack[RunOptions],
    ) -> Outcomes[FileReport]:
        """Copies a file out of guests, into a folder of this machine: each to ``destination/HOST/VM/NAME``.

        :param path: The path in the guest.
        :param destination: The folder of this machine, which is made if it is missing.
        :param recursive: The file may be a folder, which is copied with all that is in it.
        """
        return await self._run(_verbs.pull(targets, path, destination, recursive=recursive), options)

    async def screenshot(
        self,
        targets: Selectors,
        folder: Union[str, os.PathLike[str]],
        *,
        screen: int = 0,
        **options: Unpack[RunOptions],
    ) -> Outcomes[ScreenshotReport]:
        """Takes pictures of screens, as ``folder/HOST/VM.png``.

        :param folder: A folder of this machine, which is made if it is missing.
        :param screen: The number of the screen, from 0.
        """
        return await self._run(_verbs.screenshot(targets, folder, screen=screen), options)

    async def qmp(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[RunOptions],
    ) -> Outcomes[Any]:
        """Sends a command to the monitors of QEMU, and yields the replies as they are. libvirt does not know what they change: a VM that gets
        commands other than looks is marked as tainted.

        :param command: The command's name.
        :param arguments: Its arguments, as JSON has them.
        """
        return await self._run(_verbs.qmp(targets, command, arguments), options)

    async def qga(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[RunOptions],
    ) -> Outcomes[Any]:
        """Sends a command to guest agents, and yields the replies as they are.

        :param command: The command's name.
        :param arguments: Its arguments, as JSON has them.
        """
        return await self._run(_verbs.qga(targets, command, arguments), options)

    async def key(
        self,
        targets: Selectors,
        chords: Union[str, Sequence[str]],
        *,
        hold: float = 0.01,
        **options: Unpack[RunOptions],
    ) -> Outcomes[None]:
        """Presses keys; of several chords one after the other.

        :param chords: Keys, joined by ``-`` where they are pressed together: ``ctrl-alt-del``, or ``["alt-f2", "ret"]``.
        :param hold: For how many seconds each stays down.
        :raises RequestError: There is no key of this name.
        """
        return await self._run(_verbs.key(targets, chords, hold=hold), options)

    async def type(
        self,
        targets: Selectors,
        text: str,
        *,
        layout: str = 'us',
        hold: float = 0.01,
        **options: Unpack[RunOptions],
    ) -> Outcomes[None]:
        """Types a text on the keyboards of VMs. It appears in no message and no log.

        :param text: The text; the end of a line is Enter.
        :param layout: The layout of the guest's keyboard, such as ``us`` or ``de``.
        :param hold: For how many seconds each key stays down.
        :raises RequestError: The layout is not known, or has no key for a character.
        """
        return await self._run(_verbs.type(targets, text, layout=layout, hold=hold), options)

    async def mouse(
        self,
        targets: Selectors,
        action: str,
        *,
        hold: float = 0.05,
        **options: Unpack[RunOptions],
    ) -> Outcomes[None]:
        """Moves or clicks the mouse.

        :param action: ``move 50% 50%``, ``click 100 200 right``, ``scroll down 3``: places are pixels, or shares of the screen.
        :param hold: For how many seconds a button stays down.
        :raises RequestError: The action cannot be read.
        """
        return await self._run(_verbs.mouse(targets, action, hold=hold), options)

    async def run(
        self,
        scenario: Union[str, os.PathLike[str]],
        targets: Selectors = (),
        *,
        variables: Optional[Mapping[str, str]] = None,
        **options: Unpack[RunOptions],
    ) -> Outcomes[ScenarioReport]:
        """Runs the steps of a scenario file on VMs: on those that the file names, unless others are given.

        After the first Ctrl-C each VM finishes its present step and the teardown; the second ends it at once, as the end of a task or of a
        stream does. ``stop()`` of a stream does what the first Ctrl-C does.

        :param scenario: The file, in YAML.
        :param variables: Other values of variables of the file.
        :raises RequestError: What is wrong with the file or with one that it includes, a line for each.
        """
        return await self._run(_verbs.run(scenario, targets, variables=variables), options)

    async def check(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[RunOptions],
    ) -> Outcomes[HostReport]:
        """Connects to hosts, and asks what they are.

        :param hosts: Ids, globs of ids, or ``@GROUP``. A ``/`` after them may be left out, here and in ``exclude``.
        """
        return await self._run(_verbs.check(hosts), options)

    async def diagnose(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Outcomes[Diagnosis]:
        """Checks what lies between this machine and the agents of VMs. What it finds is in ``findings``, each with a hint."""
        return await self._run(_verbs.diagnose(targets), options)

    async def diagnose_hosts(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[RunOptions],
    ) -> Outcomes[Diagnosis]:
        """Checks each step on the way to the daemons of hosts. The parameters are those of :meth:`check`."""
        return await self._run(_verbs.diagnose_hosts(hosts), options)

    async def operate(
        self,
        targets: Selectors,
        operation: Mapping[str, Any],
        **options: Unpack[RunOptions],
    ) -> Outcomes[Any]:
        """Does any operation, given as JSON has it: what programs that speak to the service's API send.

        :param operation: Its name as ``op``, and its parameters.
        :raises RequestError: There is no such operation, or it has no such parameter.
        """
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
        **options: Unpack[RunOptions],
    ) -> AsyncStream[ExecReport]:
        """Runs a program in guests, through their agents. An exit code other than 0 is a failure with the effect ``done``: ``data`` has the
        output all the same.

        :param argv: The program and its arguments. They pass no shell; for a line of one, see :meth:`shell`.
        :param env: Its whole environment; without it that of the agent.
        :param stdin: Its standard input, at most about 95 KiB.
        :param cwd: Its working folder.
        :param spool: A folder in the guest for its output, which may then have any size.
        :param encoding: The encoding of its output, if that is not UTF-8.
        :raises RequestError: ``argv`` is empty, or ``encoding`` is not known.
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
        **options: Unpack[RunOptions],
    ) -> AsyncStream[ExecReport]:
        """Runs a line of ``/bin/sh`` in guests. The parameters are those of :meth:`exec`."""
        return self._run(_verbs.shell(targets, line, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    def vms(
        self,
        targets: Selectors = '*',
        **options: Unpack[RunOptions],
    ) -> AsyncStream[DomainInfo]:
        """Lists VMs, active or not. Nothing is asked but their hosts."""
        return self._run(_verbs.vms(targets), options)

    def info(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[VmReport]:
        """Asks for everything that hosts and agents know of VMs. An agent that does not answer is no failure: ``guest_error`` says why."""
        return self._run(_verbs.info(targets), options)

    def start(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        start_check: str = 'listed',
        **options: Unpack[RunOptions],
    ) -> AsyncStream[StateReport]:
        """Starts VMs. One that runs is left as it is, with the status ``unchanged``.

        :param wait: ``"state"`` waits until the VM runs; True also for the guest's agent, if the VM has one; ``"agent"`` for the agent, and
            fails without one. They wait until the timeout.
        :param start_check: Which hosts are asked whether the VM runs there: ``listed``, ``all-hosts`` or ``nothing``.
        :raises RequestError: ``wait`` is another word.
        """
        return self._run(_verbs.start(targets, wait=wait, start_check=start_check), options)

    def shutdown(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[StateReport]:
        """Asks guests to power off, and does not wait for it. A guest may ignore it.

        :param wait: True or ``"state"`` waits until they are off, until the timeout.
        :raises RequestError: ``wait`` is another word: there is no agent to wait for.
        """
        return self._run(_verbs.shutdown(targets, wait=wait), options)

    def reboot(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[StateReport]:
        """Asks guests to restart. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.reboot(targets, wait=wait), options)

    def reset(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[StateReport]:
        """Resets VMs, as by the button: what a guest has not written is lost. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.reset(targets, wait=wait), options)

    def destroy(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[StateReport]:
        """Ends VMs at once, as by pulling the plug: what a guest has not written is lost. ``wait`` as of :meth:`shutdown`."""
        return self._run(_verbs.destroy(targets, wait=wait), options)

    def suspend(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[StateReport]:
        """Stops the virtual CPUs of VMs. Their memory stays on the host. ``wait``, True or ``"state"``, waits until they are paused."""
        return self._run(_verbs.suspend(targets, wait=wait), options)

    def resume(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[StateReport]:
        """Lets suspended VMs run on, and wakes guests that sleep. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.resume(targets, wait=wait), options)

    def save(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[StateReport]:
        """Writes the memory of VMs to files of their hosts, and powers them off. :meth:`start` lets them go on. Allow for the time to write
        the memory. ``wait`` as of :meth:`shutdown`.
        """
        return self._run(_verbs.save(targets, wait=wait), options)

    def restore(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[StateReport]:
        """Lets saved VMs go on from their memory. A VM that is not saved is left as it is. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.restore(targets, wait=wait), options)

    def nmi(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[None]:
        """Sends VMs a non-maskable interrupt. Many guests panic, and dump their memory."""
        return self._run(_verbs.nmi(targets), options)

    def autostart(
        self,
        targets: Selectors,
        on: bool,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[None]:
        """Sets whether VMs are started with their hosts.

        :param on: Whether they are.
        """
        return self._run(_verbs.autostart(targets, on), options)

    def xml(
        self,
        targets: Selectors,
        *,
        inactive: bool = False,
        **options: Unpack[RunOptions],
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
        **options: Unpack[RunOptions],
    ) -> AsyncStream[Snapshot]:
        """Makes a snapshot of each VM: of its disks, and of its memory if it runs. Allow for the time to write the memory.

        :param description: What a person wants to say of it.
        :param disk_only: Not the memory of a VM that runs.
        :param quiesce: The guests' agents freeze the file systems meanwhile. Only with ``disk_only``.
        :raises RequestError: ``name`` cannot be that of a snapshot, or ``quiesce`` is without ``disk_only``.
        """
        return self._run(_verbs.snapshot_create(targets, name, description=description, disk_only=disk_only, quiesce=quiesce), options)

    def snapshot_list(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[SnapshotList]:
        """Lists the snapshots of VMs."""
        return self._run(_verbs.snapshot_list(targets), options)

    def snapshot_revert(
        self,
        targets: Selectors,
        name: str,
        *,
        then: str = 'as-then',
        **options: Unpack[RunOptions],
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
        **options: Unpack[RunOptions],
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
        **options: Unpack[RunOptions],
    ) -> AsyncStream[ConsoleReport]:
        """Captures serial consoles in files, as ``folder/HOST/VM.log``, until the timeout, which is the end and no failure. Faults of the
        guests' kernels are counted.

        :param folder: A folder of this machine, which is made if it is missing.
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
        **options: Unpack[RunOptions],
    ) -> AsyncStream[WaitReport]:
        """Waits, until the timeout at most: then the status is ``timeout``.

        :param until: ``agent`` (it answers), or a state: ``running``, ``shut-off``, ``paused``, ``crashed``, ``pmsuspended``.
        :param exec: A program that has to end with exit code 0 in the guest; it is run again and again.
        :param port: A TCP port that a process in the guest has to listen on.
        :raises RequestError: ``until`` is another word, or several of the three are given.
        """
        return self._run(_verbs.wait(targets, until, exec=exec, port=port), options)

    def push(
        self,
        targets: Selectors,
        source: Union[str, os.PathLike[str]],
        destination: str,
        *,
        recursive: bool = False,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[FileReport]:
        """Copies a file of this machine into guests.

        :param source: The file of this machine.
        :param destination: The path in the guest. What is there is replaced.
        :param recursive: The file may be a folder, which is copied with all that is in it.
        :raises RequestError: The file cannot be read.
        """
        return self._run(_verbs.push(targets, source, destination, recursive=recursive), options)

    def pull(
        self,
        targets: Selectors,
        path: str,
        destination: Union[str, os.PathLike[str]],
        *,
        recursive: bool = False,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[FileReport]:
        """Copies a file out of guests, into a folder of this machine: each to ``destination/HOST/VM/NAME``.

        :param path: The path in the guest.
        :param destination: The folder of this machine, which is made if it is missing.
        :param recursive: The file may be a folder, which is copied with all that is in it.
        """
        return self._run(_verbs.pull(targets, path, destination, recursive=recursive), options)

    def screenshot(
        self,
        targets: Selectors,
        folder: Union[str, os.PathLike[str]],
        *,
        screen: int = 0,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[ScreenshotReport]:
        """Takes pictures of screens, as ``folder/HOST/VM.png``.

        :param folder: A folder of this machine, which is made if it is missing.
        :param screen: The number of the screen, from 0.
        """
        return self._run(_verbs.screenshot(targets, folder, screen=screen), options)

    def qmp(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[Any]:
        """Sends a command to the monitors of QEMU, and yields the replies as they are. libvirt does not know what they change: a VM that gets
        commands other than looks is marked as tainted.

        :param command: The command's name.
        :param arguments: Its arguments, as JSON has them.
        """
        return self._run(_verbs.qmp(targets, command, arguments), options)

    def qga(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[Any]:
        """Sends a command to guest agents, and yields the replies as they are.

        :param command: The command's name.
        :param arguments: Its arguments, as JSON has them.
        """
        return self._run(_verbs.qga(targets, command, arguments), options)

    def key(
        self,
        targets: Selectors,
        chords: Union[str, Sequence[str]],
        *,
        hold: float = 0.01,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[None]:
        """Presses keys; of several chords one after the other.

        :param chords: Keys, joined by ``-`` where they are pressed together: ``ctrl-alt-del``, or ``["alt-f2", "ret"]``.
        :param hold: For how many seconds each stays down.
        :raises RequestError: There is no key of this name.
        """
        return self._run(_verbs.key(targets, chords, hold=hold), options)

    def type(
        self,
        targets: Selectors,
        text: str,
        *,
        layout: str = 'us',
        hold: float = 0.01,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[None]:
        """Types a text on the keyboards of VMs. It appears in no message and no log.

        :param text: The text; the end of a line is Enter.
        :param layout: The layout of the guest's keyboard, such as ``us`` or ``de``.
        :param hold: For how many seconds each key stays down.
        :raises RequestError: The layout is not known, or has no key for a character.
        """
        return self._run(_verbs.type(targets, text, layout=layout, hold=hold), options)

    def mouse(
        self,
        targets: Selectors,
        action: str,
        *,
        hold: float = 0.05,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[None]:
        """Moves or clicks the mouse.

        :param action: ``move 50% 50%``, ``click 100 200 right``, ``scroll down 3``: places are pixels, or shares of the screen.
        :param hold: For how many seconds a button stays down.
        :raises RequestError: The action cannot be read.
        """
        return self._run(_verbs.mouse(targets, action, hold=hold), options)

    def run(
        self,
        scenario: Union[str, os.PathLike[str]],
        targets: Selectors = (),
        *,
        variables: Optional[Mapping[str, str]] = None,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[ScenarioReport]:
        """Runs the steps of a scenario file on VMs: on those that the file names, unless others are given.

        After the first Ctrl-C each VM finishes its present step and the teardown; the second ends it at once, as the end of a task or of a
        stream does. ``stop()`` of a stream does what the first Ctrl-C does.

        :param scenario: The file, in YAML.
        :param variables: Other values of variables of the file.
        :raises RequestError: What is wrong with the file or with one that it includes, a line for each.
        """
        return self._run(_verbs.run(scenario, targets, variables=variables), options)

    def check(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[RunOptions],
    ) -> AsyncStream[HostReport]:
        """Connects to hosts, and asks what they are.

        :param hosts: Ids, globs of ids, or ``@GROUP``. A ``/`` after them may be left out, here and in ``exclude``.
        """
        return self._run(_verbs.check(hosts), options)

    def diagnose(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> AsyncStream[Diagnosis]:
        """Checks what lies between this machine and the agents of VMs. What it finds is in ``findings``, each with a hint."""
        return self._run(_verbs.diagnose(targets), options)

    def diagnose_hosts(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[RunOptions],
    ) -> AsyncStream[Diagnosis]:
        """Checks each step on the way to the daemons of hosts. The parameters are those of :meth:`check`."""
        return self._run(_verbs.diagnose_hosts(hosts), options)

    def operate(
        self,
        targets: Selectors,
        operation: Mapping[str, Any],
        **options: Unpack[RunOptions],
    ) -> AsyncStream[Any]:
        """Does any operation, given as JSON has it: what programs that speak to the service's API send.

        :param operation: Its name as ``op``, and its parameters.
        :raises RequestError: There is no such operation, or it has no such parameter.
        """
        return self._run(_verbs.operate(targets, operation), options)


class PlannedVerbs:
    """Each verb, as a plan: what it would do now. Nothing is changed."""

    def _run(self, operation: Operation[Any], options: Options) -> Plan:
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
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Runs a program in guests, through their agents. An exit code other than 0 is a failure with the effect ``done``: ``data`` has the
        output all the same.

        :param argv: The program and its arguments. They pass no shell; for a line of one, see :meth:`shell`.
        :param env: Its whole environment; without it that of the agent.
        :param stdin: Its standard input, at most about 95 KiB.
        :param cwd: Its working folder.
        :param spool: A folder in the guest for its output, which may then have any size.
        :param encoding: The encoding of its output, if that is not UTF-8.
        :raises RequestError: ``argv`` is empty, or ``encoding`` is not known.
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
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Runs a line of ``/bin/sh`` in guests. The parameters are those of :meth:`exec`."""
        return self._run(_verbs.shell(targets, line, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    def vms(
        self,
        targets: Selectors = '*',
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Lists VMs, active or not. Nothing is asked but their hosts."""
        return self._run(_verbs.vms(targets), options)

    def info(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Asks for everything that hosts and agents know of VMs. An agent that does not answer is no failure: ``guest_error`` says why."""
        return self._run(_verbs.info(targets), options)

    def start(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        start_check: str = 'listed',
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Starts VMs. One that runs is left as it is, with the status ``unchanged``.

        :param wait: ``"state"`` waits until the VM runs; True also for the guest's agent, if the VM has one; ``"agent"`` for the agent, and
            fails without one. They wait until the timeout.
        :param start_check: Which hosts are asked whether the VM runs there: ``listed``, ``all-hosts`` or ``nothing``.
        :raises RequestError: ``wait`` is another word.
        """
        return self._run(_verbs.start(targets, wait=wait, start_check=start_check), options)

    def shutdown(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Asks guests to power off, and does not wait for it. A guest may ignore it.

        :param wait: True or ``"state"`` waits until they are off, until the timeout.
        :raises RequestError: ``wait`` is another word: there is no agent to wait for.
        """
        return self._run(_verbs.shutdown(targets, wait=wait), options)

    def reboot(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Asks guests to restart. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.reboot(targets, wait=wait), options)

    def reset(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Resets VMs, as by the button: what a guest has not written is lost. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.reset(targets, wait=wait), options)

    def destroy(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Ends VMs at once, as by pulling the plug: what a guest has not written is lost. ``wait`` as of :meth:`shutdown`."""
        return self._run(_verbs.destroy(targets, wait=wait), options)

    def suspend(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Stops the virtual CPUs of VMs. Their memory stays on the host. ``wait``, True or ``"state"``, waits until they are paused."""
        return self._run(_verbs.suspend(targets, wait=wait), options)

    def resume(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Lets suspended VMs run on, and wakes guests that sleep. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.resume(targets, wait=wait), options)

    def save(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Writes the memory of VMs to files of their hosts, and powers them off. :meth:`start` lets them go on. Allow for the time to write
        the memory. ``wait`` as of :meth:`shutdown`.
        """
        return self._run(_verbs.save(targets, wait=wait), options)

    def restore(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Lets saved VMs go on from their memory. A VM that is not saved is left as it is. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.restore(targets, wait=wait), options)

    def nmi(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Sends VMs a non-maskable interrupt. Many guests panic, and dump their memory."""
        return self._run(_verbs.nmi(targets), options)

    def autostart(
        self,
        targets: Selectors,
        on: bool,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Sets whether VMs are started with their hosts.

        :param on: Whether they are.
        """
        return self._run(_verbs.autostart(targets, on), options)

    def xml(
        self,
        targets: Selectors,
        *,
        inactive: bool = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
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
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Makes a snapshot of each VM: of its disks, and of its memory if it runs. Allow for the time to write the memory.

        :param description: What a person wants to say of it.
        :param disk_only: Not the memory of a VM that runs.
        :param quiesce: The guests' agents freeze the file systems meanwhile. Only with ``disk_only``.
        :raises RequestError: ``name`` cannot be that of a snapshot, or ``quiesce`` is without ``disk_only``.
        """
        return self._run(_verbs.snapshot_create(targets, name, description=description, disk_only=disk_only, quiesce=quiesce), options)

    def snapshot_list(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Lists the snapshots of VMs."""
        return self._run(_verbs.snapshot_list(targets), options)

    def snapshot_revert(
        self,
        targets: Selectors,
        name: str,
        *,
        then: str = 'as-then',
        **options: Unpack[RunOptions],
    ) -> Plan:
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
        **options: Unpack[RunOptions],
    ) -> Plan:
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
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Captures serial consoles in files, as ``folder/HOST/VM.log``, until the timeout, which is the end and no failure. Faults of the
        guests' kernels are counted.

        :param folder: A folder of this machine, which is made if it is missing.
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
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Waits, until the timeout at most: then the status is ``timeout``.

        :param until: ``agent`` (it answers), or a state: ``running``, ``shut-off``, ``paused``, ``crashed``, ``pmsuspended``.
        :param exec: A program that has to end with exit code 0 in the guest; it is run again and again.
        :param port: A TCP port that a process in the guest has to listen on.
        :raises RequestError: ``until`` is another word, or several of the three are given.
        """
        return self._run(_verbs.wait(targets, until, exec=exec, port=port), options)

    def push(
        self,
        targets: Selectors,
        source: Union[str, os.PathLike[str]],
        destination: str,
        *,
        recursive: bool = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Copies a file of this machine into guests.

        :param source: The file of this machine.
        :param destination: The path in the guest. What is there is replaced.
        :param recursive: The file may be a folder, which is copied with all that is in it.
        :raises RequestError: The file cannot be read.
        """
        return self._run(_verbs.push(targets, source, destination, recursive=recursive), options)

    def pull(
        self,
        targets: Selectors,
        path: str,
        destination: Union[str, os.PathLike[str]],
        *,
        recursive: bool = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Copies a file out of guests, into a folder of this machine: each to ``destination/HOST/VM/NAME``.

        :param path: The path in the guest.
        :param destination: The folder of this machine, which is made if it is missing.
        :param recursive: The file may be a folder, which is copied with all that is in it.
        """
        return self._run(_verbs.pull(targets, path, destination, recursive=recursive), options)

    def screenshot(
        self,
        targets: Selectors,
        folder: Union[str, os.PathLike[str]],
        *,
        screen: int = 0,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Takes pictures of screens, as ``folder/HOST/VM.png``.

        :param folder: A folder of this machine, which is made if it is missing.
        :param screen: The number of the screen, from 0.
        """
        return self._run(_verbs.screenshot(targets, folder, screen=screen), options)

    def qmp(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Sends a command to the monitors of QEMU, and yields the replies as they are. libvirt does not know what they change: a VM that gets
        commands other than looks is marked as tainted.

        :param command: The command's name.
        :param arguments: Its arguments, as JSON has them.
        """
        return self._run(_verbs.qmp(targets, command, arguments), options)

    def qga(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Sends a command to guest agents, and yields the replies as they are.

        :param command: The command's name.
        :param arguments: Its arguments, as JSON has them.
        """
        return self._run(_verbs.qga(targets, command, arguments), options)

    def key(
        self,
        targets: Selectors,
        chords: Union[str, Sequence[str]],
        *,
        hold: float = 0.01,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Presses keys; of several chords one after the other.

        :param chords: Keys, joined by ``-`` where they are pressed together: ``ctrl-alt-del``, or ``["alt-f2", "ret"]``.
        :param hold: For how many seconds each stays down.
        :raises RequestError: There is no key of this name.
        """
        return self._run(_verbs.key(targets, chords, hold=hold), options)

    def type(
        self,
        targets: Selectors,
        text: str,
        *,
        layout: str = 'us',
        hold: float = 0.01,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Types a text on the keyboards of VMs. It appears in no message and no log.

        :param text: The text; the end of a line is Enter.
        :param layout: The layout of the guest's keyboard, such as ``us`` or ``de``.
        :param hold: For how many seconds each key stays down.
        :raises RequestError: The layout is not known, or has no key for a character.
        """
        return self._run(_verbs.type(targets, text, layout=layout, hold=hold), options)

    def mouse(
        self,
        targets: Selectors,
        action: str,
        *,
        hold: float = 0.05,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Moves or clicks the mouse.

        :param action: ``move 50% 50%``, ``click 100 200 right``, ``scroll down 3``: places are pixels, or shares of the screen.
        :param hold: For how many seconds a button stays down.
        :raises RequestError: The action cannot be read.
        """
        return self._run(_verbs.mouse(targets, action, hold=hold), options)

    def run(
        self,
        scenario: Union[str, os.PathLike[str]],
        targets: Selectors = (),
        *,
        variables: Optional[Mapping[str, str]] = None,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Runs the steps of a scenario file on VMs: on those that the file names, unless others are given.

        After the first Ctrl-C each VM finishes its present step and the teardown; the second ends it at once, as the end of a task or of a
        stream does. ``stop()`` of a stream does what the first Ctrl-C does.

        :param scenario: The file, in YAML.
        :param variables: Other values of variables of the file.
        :raises RequestError: What is wrong with the file or with one that it includes, a line for each.
        """
        return self._run(_verbs.run(scenario, targets, variables=variables), options)

    def check(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Connects to hosts, and asks what they are.

        :param hosts: Ids, globs of ids, or ``@GROUP``. A ``/`` after them may be left out, here and in ``exclude``.
        """
        return self._run(_verbs.check(hosts), options)

    def diagnose(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Checks what lies between this machine and the agents of VMs. What it finds is in ``findings``, each with a hint."""
        return self._run(_verbs.diagnose(targets), options)

    def diagnose_hosts(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Checks each step on the way to the daemons of hosts. The parameters are those of :meth:`check`."""
        return self._run(_verbs.diagnose_hosts(hosts), options)

    def operate(
        self,
        targets: Selectors,
        operation: Mapping[str, Any],
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Does any operation, given as JSON has it: what programs that speak to the service's API send.

        :param operation: Its name as ``op``, and its parameters.
        :raises RequestError: There is no such operation, or it has no such parameter.
        """
        return self._run(_verbs.operate(targets, operation), options)


class AsyncPlannedVerbs:
    """Each verb, to await a plan: what it would do now. Nothing is changed."""

    async def _run(self, operation: Operation[Any], options: Options) -> Plan:
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
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Runs a program in guests, through their agents. An exit code other than 0 is a failure with the effect ``done``: ``data`` has the
        output all the same.

        :param argv: The program and its arguments. They pass no shell; for a line of one, see :meth:`shell`.
        :param env: Its whole environment; without it that of the agent.
        :param stdin: Its standard input, at most about 95 KiB.
        :param cwd: Its working folder.
        :param spool: A folder in the guest for its output, which may then have any size.
        :param encoding: The encoding of its output, if that is not UTF-8.
        :raises RequestError: ``argv`` is empty, or ``encoding`` is not known.
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
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Runs a line of ``/bin/sh`` in guests. The parameters are those of :meth:`exec`."""
        return await self._run(_verbs.shell(targets, line, env=env, stdin=stdin, cwd=cwd, spool=spool, encoding=encoding), options)

    async def vms(
        self,
        targets: Selectors = '*',
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Lists VMs, active or not. Nothing is asked but their hosts."""
        return await self._run(_verbs.vms(targets), options)

    async def info(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Asks for everything that hosts and agents know of VMs. An agent that does not answer is no failure: ``guest_error`` says why."""
        return await self._run(_verbs.info(targets), options)

    async def start(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        start_check: str = 'listed',
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Starts VMs. One that runs is left as it is, with the status ``unchanged``.

        :param wait: ``"state"`` waits until the VM runs; True also for the guest's agent, if the VM has one; ``"agent"`` for the agent, and
            fails without one. They wait until the timeout.
        :param start_check: Which hosts are asked whether the VM runs there: ``listed``, ``all-hosts`` or ``nothing``.
        :raises RequestError: ``wait`` is another word.
        """
        return await self._run(_verbs.start(targets, wait=wait, start_check=start_check), options)

    async def shutdown(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Asks guests to power off, and does not wait for it. A guest may ignore it.

        :param wait: True or ``"state"`` waits until they are off, until the timeout.
        :raises RequestError: ``wait`` is another word: there is no agent to wait for.
        """
        return await self._run(_verbs.shutdown(targets, wait=wait), options)

    async def reboot(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Asks guests to restart. ``wait`` as of :meth:`start`."""
        return await self._run(_verbs.reboot(targets, wait=wait), options)

    async def reset(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Resets VMs, as by the button: what a guest has not written is lost. ``wait`` as of :meth:`start`."""
        return await self._run(_verbs.reset(targets, wait=wait), options)

    async def destroy(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Ends VMs at once, as by pulling the plug: what a guest has not written is lost. ``wait`` as of :meth:`shutdown`."""
        return await self._run(_verbs.destroy(targets, wait=wait), options)

    async def suspend(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Stops the virtual CPUs of VMs. Their memory stays on the host. ``wait``, True or ``"state"``, waits until they are paused."""
        return await self._run(_verbs.suspend(targets, wait=wait), options)

    async def resume(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Lets suspended VMs run on, and wakes guests that sleep. ``wait`` as of :meth:`start`."""
        return await self._run(_verbs.resume(targets, wait=wait), options)

    async def save(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Writes the memory of VMs to files of their hosts, and powers them off. :meth:`start` lets them go on. Allow for the time to write
        the memory. ``wait`` as of :meth:`shutdown`.
        """
        return await self._run(_verbs.save(targets, wait=wait), options)

    async def restore(
        self,
        targets: Selectors,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Lets saved VMs go on from their memory. A VM that is not saved is left as it is. ``wait`` as of :meth:`start`."""
        return await self._run(_verbs.restore(targets, wait=wait), options)

    async def nmi(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Sends VMs a non-maskable interrupt. Many guests panic, and dump their memory."""
        return await self._run(_verbs.nmi(targets), options)

    async def autostart(
        self,
        targets: Selectors,
        on: bool,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Sets whether VMs are started with their hosts.

        :param on: Whether they are.
        """
        return await self._run(_verbs.autostart(targets, on), options)

    async def xml(
        self,
        targets: Selectors,
        *,
        inactive: bool = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
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
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Makes a snapshot of each VM: of its disks, and of its memory if it runs. Allow for the time to write the memory.

        :param description: What a person wants to say of it.
        :param disk_only: Not the memory of a VM that runs.
        :param quiesce: The guests' agents freeze the file systems meanwhile. Only with ``disk_only``.
        :raises RequestError: ``name`` cannot be that of a snapshot, or ``quiesce`` is without ``disk_only``.
        """
        return await self._run(_verbs.snapshot_create(targets, name, description=description, disk_only=disk_only, quiesce=quiesce), options)

    async def snapshot_list(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Lists the snapshots of VMs."""
        return await self._run(_verbs.snapshot_list(targets), options)

    async def snapshot_revert(
        self,
        targets: Selectors,
        name: str,
        *,
        then: str = 'as-then',
        **options: Unpack[RunOptions],
    ) -> Plan:
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
        **options: Unpack[RunOptions],
    ) -> Plan:
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
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Captures serial consoles in files, as ``folder/HOST/VM.log``, until the timeout, which is the end and no failure. Faults of the
        guests' kernels are counted.

        :param folder: A folder of this machine, which is made if it is missing.
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
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Waits, until the timeout at most: then the status is ``timeout``.

        :param until: ``agent`` (it answers), or a state: ``running``, ``shut-off``, ``paused``, ``crashed``, ``pmsuspended``.
        :param exec: A program that has to end with exit code 0 in the guest; it is run again and again.
        :param port: A TCP port that a process in the guest has to listen on.
        :raises RequestError: ``until`` is another word, or several of the three are given.
        """
        return await self._run(_verbs.wait(targets, until, exec=exec, port=port), options)

    async def push(
        self,
        targets: Selectors,
        source: Union[str, os.PathLike[str]],
        destination: str,
        *,
        recursive: bool = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Copies a file of this machine into guests.

        :param source: The file of this machine.
        :param destination: The path in the guest. What is there is replaced.
        :param recursive: The file may be a folder, which is copied with all that is in it.
        :raises RequestError: The file cannot be read.
        """
        return await self._run(_verbs.push(targets, source, destination, recursive=recursive), options)

    async def pull(
        self,
        targets: Selectors,
        path: str,
        destination: Union[str, os.PathLike[str]],
        *,
        recursive: bool = False,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Copies a file out of guests, into a folder of this machine: each to ``destination/HOST/VM/NAME``.

        :param path: The path in the guest.
        :param destination: The folder of this machine, which is made if it is missing.
        :param recursive: The file may be a folder, which is copied with all that is in it.
        """
        return await self._run(_verbs.pull(targets, path, destination, recursive=recursive), options)

    async def screenshot(
        self,
        targets: Selectors,
        folder: Union[str, os.PathLike[str]],
        *,
        screen: int = 0,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Takes pictures of screens, as ``folder/HOST/VM.png``.

        :param folder: A folder of this machine, which is made if it is missing.
        :param screen: The number of the screen, from 0.
        """
        return await self._run(_verbs.screenshot(targets, folder, screen=screen), options)

    async def qmp(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Sends a command to the monitors of QEMU, and yields the replies as they are. libvirt does not know what they change: a VM that gets
        commands other than looks is marked as tainted.

        :param command: The command's name.
        :param arguments: Its arguments, as JSON has them.
        """
        return await self._run(_verbs.qmp(targets, command, arguments), options)

    async def qga(
        self,
        targets: Selectors,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Sends a command to guest agents, and yields the replies as they are.

        :param command: The command's name.
        :param arguments: Its arguments, as JSON has them.
        """
        return await self._run(_verbs.qga(targets, command, arguments), options)

    async def key(
        self,
        targets: Selectors,
        chords: Union[str, Sequence[str]],
        *,
        hold: float = 0.01,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Presses keys; of several chords one after the other.

        :param chords: Keys, joined by ``-`` where they are pressed together: ``ctrl-alt-del``, or ``["alt-f2", "ret"]``.
        :param hold: For how many seconds each stays down.
        :raises RequestError: There is no key of this name.
        """
        return await self._run(_verbs.key(targets, chords, hold=hold), options)

    async def type(
        self,
        targets: Selectors,
        text: str,
        *,
        layout: str = 'us',
        hold: float = 0.01,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Types a text on the keyboards of VMs. It appears in no message and no log.

        :param text: The text; the end of a line is Enter.
        :param layout: The layout of the guest's keyboard, such as ``us`` or ``de``.
        :param hold: For how many seconds each key stays down.
        :raises RequestError: The layout is not known, or has no key for a character.
        """
        return await self._run(_verbs.type(targets, text, layout=layout, hold=hold), options)

    async def mouse(
        self,
        targets: Selectors,
        action: str,
        *,
        hold: float = 0.05,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Moves or clicks the mouse.

        :param action: ``move 50% 50%``, ``click 100 200 right``, ``scroll down 3``: places are pixels, or shares of the screen.
        :param hold: For how many seconds a button stays down.
        :raises RequestError: The action cannot be read.
        """
        return await self._run(_verbs.mouse(targets, action, hold=hold), options)

    async def run(
        self,
        scenario: Union[str, os.PathLike[str]],
        targets: Selectors = (),
        *,
        variables: Optional[Mapping[str, str]] = None,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Runs the steps of a scenario file on VMs: on those that the file names, unless others are given.

        After the first Ctrl-C each VM finishes its present step and the teardown; the second ends it at once, as the end of a task or of a
        stream does. ``stop()`` of a stream does what the first Ctrl-C does.

        :param scenario: The file, in YAML.
        :param variables: Other values of variables of the file.
        :raises RequestError: What is wrong with the file or with one that it includes, a line for each.
        """
        return await self._run(_verbs.run(scenario, targets, variables=variables), options)

    async def check(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Connects to hosts, and asks what they are.

        :param hosts: Ids, globs of ids, or ``@GROUP``. A ``/`` after them may be left out, here and in ``exclude``.
        """
        return await self._run(_verbs.check(hosts), options)

    async def diagnose(
        self,
        targets: Selectors,
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Checks what lies between this machine and the agents of VMs. What it finds is in ``findings``, each with a hint."""
        return await self._run(_verbs.diagnose(targets), options)

    async def diagnose_hosts(
        self,
        hosts: Selectors = '*/',
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Checks each step on the way to the daemons of hosts. The parameters are those of :meth:`check`."""
        return await self._run(_verbs.diagnose_hosts(hosts), options)

    async def operate(
        self,
        targets: Selectors,
        operation: Mapping[str, Any],
        **options: Unpack[RunOptions],
    ) -> Plan:
        """Does any operation, given as JSON has it: what programs that speak to the service's API send.

        :param operation: Its name as ``op``, and its parameters.
        :raises RequestError: There is no such operation, or it has no such parameter.
        """
        return await self._run(_verbs.operate(targets, operation), options)


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
        """Runs a program in guests, through their agents. An exit code other than 0 is a failure with the effect ``done``: ``data`` has the
        output all the same.

        :param argv: The program and its arguments. They pass no shell; for a line of one, see :meth:`shell`.
        :param env: Its whole environment; without it that of the agent.
        :param stdin: Its standard input, at most about 95 KiB.
        :param cwd: Its working folder.
        :param spool: A folder in the guest for its output, which may then have any size.
        :param encoding: The encoding of its output, if that is not UTF-8.
        :raises RequestError: ``argv`` is empty, or ``encoding`` is not known.
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
        """Asks for everything that hosts and agents know of VMs. An agent that does not answer is no failure: ``guest_error`` says why."""
        return self._run(_verbs.info(self.target), options)

    def start(
        self,
        *,
        wait: Union[bool, str] = False,
        start_check: str = 'listed',
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Starts VMs. One that runs is left as it is, with the status ``unchanged``.

        :param wait: ``"state"`` waits until the VM runs; True also for the guest's agent, if the VM has one; ``"agent"`` for the agent, and
            fails without one. They wait until the timeout.
        :param start_check: Which hosts are asked whether the VM runs there: ``listed``, ``all-hosts`` or ``nothing``.
        :raises RequestError: ``wait`` is another word.
        """
        return self._run(_verbs.start(self.target, wait=wait, start_check=start_check), options)

    def shutdown(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Asks guests to power off, and does not wait for it. A guest may ignore it.

        :param wait: True or ``"state"`` waits until they are off, until the timeout.
        :raises RequestError: ``wait`` is another word: there is no agent to wait for.
        """
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
        """Resets VMs, as by the button: what a guest has not written is lost. ``wait`` as of :meth:`start`."""
        return self._run(_verbs.reset(self.target, wait=wait), options)

    def destroy(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Ends VMs at once, as by pulling the plug: what a guest has not written is lost. ``wait`` as of :meth:`shutdown`."""
        return self._run(_verbs.destroy(self.target, wait=wait), options)

    def suspend(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Stops the virtual CPUs of VMs. Their memory stays on the host. ``wait``, True or ``"state"``, waits until they are paused."""
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
        """Writes the memory of VMs to files of their hosts, and powers them off. :meth:`start` lets them go on. Allow for the time to write
        the memory. ``wait`` as of :meth:`shutdown`.
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
        """Sets whether VMs are started with their hosts.

        :param on: Whether they are.
        """
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
        :raises RequestError: ``name`` cannot be that of a snapshot, or ``quiesce`` is without ``disk_only``.
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
        """Captures serial consoles in files, as ``folder/HOST/VM.log``, until the timeout, which is the end and no failure. Faults of the
        guests' kernels are counted.

        :param folder: A folder of this machine, which is made if it is missing.
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
        """Waits, until the timeout at most: then the status is ``timeout``.

        :param until: ``agent`` (it answers), or a state: ``running``, ``shut-off``, ``paused``, ``crashed``, ``pmsuspended``.
        :param exec: A program that has to end with exit code 0 in the guest; it is run again and again.
        :param port: A TCP port that a process in the guest has to listen on.
        :raises RequestError: ``until`` is another word, or several of the three are given.
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

        :param source: The file of this machine.
        :param destination: The path in the guest. What is there is replaced.
        :param recursive: The file may be a folder, which is copied with all that is in it.
        :raises RequestError: The file cannot be read.
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

        :param path: The path in the guest.
        :param destination: The folder of this machine, which is made if it is missing.
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
        """Takes pictures of screens, as ``folder/HOST/VM.png``.

        :param folder: A folder of this machine, which is made if it is missing.
        :param screen: The number of the screen, from 0.
        """
        return self._run(_verbs.screenshot(self.target, folder, screen=screen), options)

    def qmp(
        self,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[VmOptions],
    ) -> Outcome[Any]:
        """Sends a command to the monitors of QEMU, and yields the replies as they are. libvirt does not know what they change: a VM that gets
        commands other than looks is marked as tainted.

        :param command: The command's name.
        :param arguments: Its arguments, as JSON has them.
        """
        return self._run(_verbs.qmp(self.target, command, arguments), options)

    def qga(
        self,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[VmOptions],
    ) -> Outcome[Any]:
        """Sends a command to guest agents, and yields the replies as they are.

        :param command: The command's name.
        :param arguments: Its arguments, as JSON has them.
        """
        return self._run(_verbs.qga(self.target, command, arguments), options)

    def key(
        self,
        chords: Union[str, Sequence[str]],
        *,
        hold: float = 0.01,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Presses keys; of several chords one after the other.

        :param chords: Keys, joined by ``-`` where they are pressed together: ``ctrl-alt-del``, or ``["alt-f2", "ret"]``.
        :param hold: For how many seconds each stays down.
        :raises RequestError: There is no key of this name.
        """
        return self._run(_verbs.key(self.target, chords, hold=hold), options)

    def type(
        self,
        text: str,
        *,
        layout: str = 'us',
        hold: float = 0.01,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Types a text on the keyboards of VMs. It appears in no message and no log.

        :param text: The text; the end of a line is Enter.
        :param layout: The layout of the guest's keyboard, such as ``us`` or ``de``.
        :param hold: For how many seconds each key stays down.
        :raises RequestError: The layout is not known, or has no key for a character.
        """
        return self._run(_verbs.type(self.target, text, layout=layout, hold=hold), options)

    def mouse(
        self,
        action: str,
        *,
        hold: float = 0.05,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Moves or clicks the mouse.

        :param action: ``move 50% 50%``, ``click 100 200 right``, ``scroll down 3``: places are pixels, or shares of the screen.
        :param hold: For how many seconds a button stays down.
        :raises RequestError: The action cannot be read.
        """
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

        :param scenario: The file, in YAML.
        :param variables: Other values of variables of the file.
        :raises RequestError: What is wrong with the file or with one that it includes, a line for each.
        """
        return self._run(_verbs.run(scenario, self.target, variables=variables), options)

    def diagnose(
        self,
        **options: Unpack[VmOptions],
    ) -> Outcome[Diagnosis]:
        """Checks what lies between this machine and the agents of VMs. What it finds is in ``findings``, each with a hint."""
        return self._run(_verbs.diagnose(self.target), options)

    def operate(
        self,
        operation: Mapping[str, Any],
        **options: Unpack[VmOptions],
    ) -> Outcome[Any]:
        """Does any operation, given as JSON has it: what programs that speak to the service's API send.

        :param operation: Its name as ``op``, and its parameters.
        :raises RequestError: There is no such operation, or it has no such parameter.
        """
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
        """Runs a program in guests, through their agents. An exit code other than 0 is a failure with the effect ``done``: ``data`` has the
        output all the same.

        :param argv: The program and its arguments. They pass no shell; for a line of one, see :meth:`shell`.
        :param env: Its whole environment; without it that of the agent.
        :param stdin: Its standard input, at most about 95 KiB.
        :param cwd: Its working folder.
        :param spool: A folder in the guest for its output, which may then have any size.
        :param encoding: The encoding of its output, if that is not UTF-8.
        :raises RequestError: ``argv`` is empty, or ``encoding`` is not known.
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
        """Asks for everything that hosts and agents know of VMs. An agent that does not answer is no failure: ``guest_error`` says why."""
        return await self._run(_verbs.info(self.target), options)

    async def start(
        self,
        *,
        wait: Union[bool, str] = False,
        start_check: str = 'listed',
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Starts VMs. One that runs is left as it is, with the status ``unchanged``.

        :param wait: ``"state"`` waits until the VM runs; True also for the guest's agent, if the VM has one; ``"agent"`` for the agent, and
            fails without one. They wait until the timeout.
        :param start_check: Which hosts are asked whether the VM runs there: ``listed``, ``all-hosts`` or ``nothing``.
        :raises RequestError: ``wait`` is another word.
        """
        return await self._run(_verbs.start(self.target, wait=wait, start_check=start_check), options)

    async def shutdown(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Asks guests to power off, and does not wait for it. A guest may ignore it.

        :param wait: True or ``"state"`` waits until they are off, until the timeout.
        :raises RequestError: ``wait`` is another word: there is no agent to wait for.
        """
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
        """Resets VMs, as by the button: what a guest has not written is lost. ``wait`` as of :meth:`start`."""
        return await self._run(_verbs.reset(self.target, wait=wait), options)

    async def destroy(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Ends VMs at once, as by pulling the plug: what a guest has not written is lost. ``wait`` as of :meth:`shutdown`."""
        return await self._run(_verbs.destroy(self.target, wait=wait), options)

    async def suspend(
        self,
        *,
        wait: Union[bool, str] = False,
        **options: Unpack[VmOptions],
    ) -> Outcome[StateReport]:
        """Stops the virtual CPUs of VMs. Their memory stays on the host. ``wait``, True or ``"state"``, waits until they are paused."""
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
        """Writes the memory of VMs to files of their hosts, and powers them off. :meth:`start` lets them go on. Allow for the time to write
        the memory. ``wait`` as of :meth:`shutdown`.
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
        """Sets whether VMs are started with their hosts.

        :param on: Whether they are.
        """
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
        :raises RequestError: ``name`` cannot be that of a snapshot, or ``quiesce`` is without ``disk_only``.
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
        """Captures serial consoles in files, as ``folder/HOST/VM.log``, until the timeout, which is the end and no failure. Faults of the
        guests' kernels are counted.

        :param folder: A folder of this machine, which is made if it is missing.
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
        """Waits, until the timeout at most: then the status is ``timeout``.

        :param until: ``agent`` (it answers), or a state: ``running``, ``shut-off``, ``paused``, ``crashed``, ``pmsuspended``.
        :param exec: A program that has to end with exit code 0 in the guest; it is run again and again.
        :param port: A TCP port that a process in the guest has to listen on.
        :raises RequestError: ``until`` is another word, or several of the three are given.
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

        :param source: The file of this machine.
        :param destination: The path in the guest. What is there is replaced.
        :param recursive: The file may be a folder, which is copied with all that is in it.
        :raises RequestError: The file cannot be read.
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

        :param path: The path in the guest.
        :param destination: The folder of this machine, which is made if it is missing.
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
        """Takes pictures of screens, as ``folder/HOST/VM.png``.

        :param folder: A folder of this machine, which is made if it is missing.
        :param screen: The number of the screen, from 0.
        """
        return await self._run(_verbs.screenshot(self.target, folder, screen=screen), options)

    async def qmp(
        self,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[VmOptions],
    ) -> Outcome[Any]:
        """Sends a command to the monitors of QEMU, and yields the replies as they are. libvirt does not know what they change: a VM that gets
        commands other than looks is marked as tainted.

        :param command: The command's name.
        :param arguments: Its arguments, as JSON has them.
        """
        return await self._run(_verbs.qmp(self.target, command, arguments), options)

    async def qga(
        self,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        **options: Unpack[VmOptions],
    ) -> Outcome[Any]:
        """Sends a command to guest agents, and yields the replies as they are.

        :param command: The command's name.
        :param arguments: Its arguments, as JSON has them.
        """
        return await self._run(_verbs.qga(self.target, command, arguments), options)

    async def key(
        self,
        chords: Union[str, Sequence[str]],
        *,
        hold: float = 0.01,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Presses keys; of several chords one after the other.

        :param chords: Keys, joined by ``-`` where they are pressed together: ``ctrl-alt-del``, or ``["alt-f2", "ret"]``.
        :param hold: For how many seconds each stays down.
        :raises RequestError: There is no key of this name.
        """
        return await self._run(_verbs.key(self.target, chords, hold=hold), options)

    async def type(
        self,
        text: str,
        *,
        layout: str = 'us',
        hold: float = 0.01,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Types a text on the keyboards of VMs. It appears in no message and no log.

        :param text: The text; the end of a line is Enter.
        :param layout: The layout of the guest's keyboard, such as ``us`` or ``de``.
        :param hold: For how many seconds each key stays down.
        :raises RequestError: The layout is not known, or has no key for a character.
        """
        return await self._run(_verbs.type(self.target, text, layout=layout, hold=hold), options)

    async def mouse(
        self,
        action: str,
        *,
        hold: float = 0.05,
        **options: Unpack[VmOptions],
    ) -> Outcome[None]:
        """Moves or clicks the mouse.

        :param action: ``move 50% 50%``, ``click 100 200 right``, ``scroll down 3``: places are pixels, or shares of the screen.
        :param hold: For how many seconds a button stays down.
        :raises RequestError: The action cannot be read.
        """
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

        :param scenario: The file, in YAML.
        :param variables: Other values of variables of the file.
        :raises RequestError: What is wrong with the file or with one that it includes, a line for each.
        """
        return await self._run(_verbs.run(scenario, self.target, variables=variables), options)

    async def diagnose(
        self,
        **options: Unpack[VmOptions],
    ) -> Outcome[Diagnosis]:
        """Checks what lies between this machine and the agents of VMs. What it finds is in ``findings``, each with a hint."""
        return await self._run(_verbs.diagnose(self.target), options)

    async def operate(
        self,
        operation: Mapping[str, Any],
        **options: Unpack[VmOptions],
    ) -> Outcome[Any]:
        """Does any operation, given as JSON has it: what programs that speak to the service's API send.

        :param operation: Its name as ``op``, and its parameters.
        :raises RequestError: There is no such operation, or it has no such parameter.
        """
        return await self._run(_verbs.operate(self.target, operation), options)
