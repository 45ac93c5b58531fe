"""The verbs, each as the operation that it asks for.

Each function here becomes a method of every face of a fleet: `tools/generate.py` writes them to `_faces.py`. Its return type says what
the operation yields on each target.
"""

from __future__ import annotations

import base64
import json
import math
import os
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Dict, Generic, List, Mapping, Optional, Sequence, TypedDict, TypeVar, Union, cast

from . import _native
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
from ._errors import RequestError

#: What is given to a verb may be secret: reports of pytest show the arguments of the last frame, which is then that of the caller.
__tracebackhide__ = True

#: A selector, such as ``web-*``, ``host1/db``, ``@rack-2/*`` or ``/^web-[0-9]+$/``; or several, which add up.
Selectors = Union[str, Sequence[str]]

D = TypeVar("D")


class Options(TypedDict, total=False):
    """What every verb takes: which targets are left out, and the limits of the run. Times are in seconds."""

    exclude: Selectors
    state: str
    labels: Mapping[str, str]
    timeout: float
    deadline: Optional[float]
    parallel: int
    per_host: Optional[int]
    retries: int
    max_failures: Union[int, str, None]
    serial: Union[int, str, None]


class RunOptions(Options, total=False):
    """What every verb takes that has a journal: where it is recorded, and what it continues."""

    journal: Union[str, os.PathLike[str]]
    resume: Union[str, os.PathLike[str], int]


class VmOptions(TypedDict, total=False):
    """What every verb takes on one VM. Times are in seconds."""

    timeout: float
    deadline: Optional[float]
    retries: int


@dataclass(frozen=True)
class Operation(Generic[D]):
    """One operation over targets. ``D`` is what it yields on each."""

    targets: Selectors
    #: It may have secrets, which reports of test suites would show.
    spec: Dict[str, Any] = field(repr=False)


def exec(
    targets: Selectors,
    argv: Sequence[str],
    *,
    env: Optional[Mapping[str, str]] = None,
    stdin: Union[str, bytes, None] = None,
    cwd: Optional[str] = None,
    spool: Optional[str] = None,
    encoding: Optional[str] = None,
) -> Operation[ExecReport]:
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
    if isinstance(argv, str):
        raise TypeError("argv is a list of words; use shell() for a line of the guest's shell")
    program, *args = _words("argv", argv)
    return Operation(targets, _exec(program, args, False, env, stdin, cwd, spool, encoding))


def shell(
    targets: Selectors,
    line: str,
    *,
    env: Optional[Mapping[str, str]] = None,
    stdin: Union[str, bytes, None] = None,
    cwd: Optional[str] = None,
    spool: Optional[str] = None,
    encoding: Optional[str] = None,
) -> Operation[ExecReport]:
    """Runs a line of ``/bin/sh`` in guests. The parameters are those of :meth:`exec`.

    >>> fleet.shell("h1/vm1", "echo a; echo b")[0].unwrap().stdout.text
    'a\\nb\\n'
    """
    return Operation(targets, _exec(line, [], True, env, stdin, cwd, spool, encoding))


def vms(targets: Selectors = "*") -> Operation[DomainInfo]:
    """Lists VMs, active or not. Nothing is asked but their hosts.

    >>> [(outcome.target, outcome.data.state) for outcome in fleet.vms("h1/*", state="running")]
    [('h1/vm1', 'running'), ('h1/vm2', 'running')]
    """
    return Operation(targets, {"op": "vm-list"})


def info(targets: Selectors) -> Operation[VmReport]:
    """Asks for everything that hosts and agents know of VMs. An agent that does not answer is no failure: ``guest_error`` says why.

    >>> fleet.info("h1/vm1")[0].unwrap().guest.hostname
    'vm1'
    """
    return Operation(targets, {"op": "vm-info"})


def start(
    targets: Selectors, *, wait: Union[bool, str] = False, start_check: str = "listed"
) -> Operation[StateReport]:
    """Starts VMs. One that runs is left as it is, with the status ``unchanged``.

    :param wait: ``"state"`` waits until the VM runs; True also for the guest's agent, if the VM has one; ``"agent"`` for the agent, and
        fails without one. They wait until the timeout.
    :param start_check: Which hosts are asked whether the VM runs there: ``listed``, ``all-hosts`` or ``nothing``.
    :raises RequestError: ``wait`` is another word.

    >>> fleet.start("h1/vm1", wait=True)[0].status
    'unchanged'
    """
    return Operation(targets, {**_lifecycle("start", wait), "start_check": start_check})


def shutdown(targets: Selectors, *, wait: Union[bool, str] = False) -> Operation[StateReport]:
    """Asks guests to power off, and does not wait for it. A guest may ignore it.

    :param wait: True or ``"state"`` waits until they are off, until the timeout.
    :raises RequestError: ``wait`` is another word: there is no agent to wait for.

    >>> fleet.shutdown("h1/vm1", wait=True, timeout=60)[0].unwrap().state
    'shut off'
    """
    return Operation(targets, _lifecycle("shutdown", wait))


def reboot(targets: Selectors, *, wait: Union[bool, str] = False) -> Operation[StateReport]:
    """Asks guests to restart. ``wait`` as of :meth:`start`.

    >>> fleet.reboot("h1/vm1")[0].effect
    'done'
    """
    return Operation(targets, _lifecycle("reboot", wait))


def reset(targets: Selectors, *, wait: Union[bool, str] = False) -> Operation[StateReport]:
    """Resets VMs, as by the button: what a guest has not written is lost. ``wait`` as of :meth:`start`.

    >>> fleet.reset("h1/vm1")[0].effect
    'done'
    """
    return Operation(targets, _lifecycle("reset", wait))


def destroy(targets: Selectors, *, wait: Union[bool, str] = False) -> Operation[StateReport]:
    """Ends VMs at once, as by pulling the plug: what a guest has not written is lost. ``wait`` as of :meth:`shutdown`.

    >>> fleet.destroy("h1/vm1")[0].unwrap().state
    'shut off'
    """
    return Operation(targets, _lifecycle("destroy", wait))


def suspend(targets: Selectors, *, wait: Union[bool, str] = False) -> Operation[StateReport]:
    """Stops the virtual CPUs of VMs. Their memory stays on the host. ``wait``, True or ``"state"``, waits until they are paused.

    >>> fleet.suspend("h1/vm1")[0].unwrap().state
    'paused'
    """
    return Operation(targets, _lifecycle("suspend", wait))


def resume(targets: Selectors, *, wait: Union[bool, str] = False) -> Operation[StateReport]:
    """Lets suspended VMs run on, and wakes guests that sleep. ``wait`` as of :meth:`start`.

    >>> fleet.suspend("h1/vm1").raise_for_failures()
    <Outcomes 1 ok>
    >>> fleet.resume("h1/vm1")[0].unwrap().state
    'running'
    """
    return Operation(targets, _lifecycle("resume", wait))


def save(targets: Selectors, *, wait: Union[bool, str] = False) -> Operation[StateReport]:
    """Writes the memory of VMs to files of their hosts, and powers them off. :meth:`start` lets them go on. Allow for the time to write
    the memory. ``wait`` as of :meth:`shutdown`.

    >>> fleet.save("h1/vm1")[0].unwrap().state
    'shut off'
    """
    return Operation(targets, _lifecycle("save", wait))


def restore(targets: Selectors, *, wait: Union[bool, str] = False) -> Operation[StateReport]:
    """Lets saved VMs go on from their memory. A VM that is not saved is left as it is. ``wait`` as of :meth:`start`.

    >>> fleet.save("h1/vm1").raise_for_failures()
    <Outcomes 1 ok>
    >>> fleet.restore("h1/vm1")[0].unwrap().state
    'running'
    """
    return Operation(targets, _lifecycle("restore", wait))


def nmi(targets: Selectors) -> Operation[None]:
    """Sends VMs a non-maskable interrupt. Many guests panic, and dump their memory.

    >>> fleet.nmi("h1/vm1")[0].effect
    'done'
    """
    return Operation(targets, {"op": "vm-nmi"})


def autostart(targets: Selectors, on: bool) -> Operation[None]:
    """Sets whether VMs are started with their hosts.

    :param on: Whether they are.

    >>> fleet.autostart("h1/vm1", True)[0].ok
    True
    """
    return Operation(targets, {"op": "vm-autostart", "on": on})


def xml(targets: Selectors, *, inactive: bool = False) -> Operation[XmlReport]:
    """Reads the definitions of VMs, as libvirt's XML without passwords.

    :param inactive: The definitions that hold from the next start, and not those of now.

    >>> "<name>vm1</name>" in fleet.xml("h1/vm1")[0].unwrap().xml
    True
    """
    return Operation(targets, {"op": "vm-xml", "inactive": inactive})


def snapshot_create(
    targets: Selectors,
    name: str,
    *,
    description: Optional[str] = None,
    disk_only: bool = False,
    quiesce: bool = False,
) -> Operation[Snapshot]:
    """Makes a snapshot of each VM: of its disks, and of its memory if it runs. Allow for the time to write the memory.

    :param description: What a person wants to say of it.
    :param disk_only: Not the memory of a VM that runs.
    :param quiesce: The guests' agents freeze the file systems meanwhile. Only with ``disk_only``.
    :raises RequestError: ``name`` cannot be that of a snapshot, or ``quiesce`` is without ``disk_only``.

    >>> fleet.snapshot_create("h1/vm1", "clean", description="as installed")[0].unwrap().name
    'clean'
    """
    spec: Dict[str, Any] = {"op": "snapshot-create", "name": name, "disk_only": disk_only, "quiesce": quiesce}
    return Operation(targets, spec if description is None else {**spec, "description": description})


def snapshot_list(targets: Selectors) -> Operation[SnapshotList]:
    """Lists the snapshots of VMs.

    >>> fleet.snapshot_create("h1/vm1", "clean").raise_for_failures()
    <Outcomes 1 ok>
    >>> [snapshot.name for snapshot in fleet.snapshot_list("h1/vm1")[0].unwrap().snapshots]
    ['clean']
    """
    return Operation(targets, {"op": "snapshot-list"})


def snapshot_revert(targets: Selectors, name: str, *, then: str = "as-then") -> Operation[StateReport]:
    """Takes VMs back to a snapshot: what was written since then is lost.

    :param then: What they do afterwards: ``as-then`` (what they did when the snapshot was made), ``start`` or ``pause``.

    >>> fleet.snapshot_create("h1/vm1", "clean").raise_for_failures()
    <Outcomes 1 ok>
    >>> fleet.snapshot_revert("h1/vm1", "clean")[0].unwrap().state
    'running'
    """
    spec = {"op": "snapshot-revert", "name": name}
    return Operation(targets, spec if then == "as-then" else {**spec, "then": then})


def snapshot_delete(targets: Selectors, name: str, *, children: bool = False) -> Operation[None]:
    """Removes a snapshot of each VM, which stays as it is.

    :param children: The snapshots that were made after it too.

    >>> fleet.snapshot_create("h1/vm1", "clean").raise_for_failures()
    <Outcomes 1 ok>
    >>> fleet.snapshot_delete("h1/vm1", "clean")[0].ok
    True
    """
    return Operation(targets, {"op": "snapshot-delete", "name": name, "children": children})


def console(
    targets: Selectors,
    folder: Union[str, os.PathLike[str]],
    *,
    device: Optional[str] = None,
    force: bool = False,
) -> Operation[ConsoleReport]:
    """Captures serial consoles in files, as ``folder/HOST/VM.log``, until the timeout, which is the end and no failure. Faults of the
    guests' kernels are counted.

    :param folder: A folder of this machine, which is made if it is missing.
    :param device: The console's alias in the definition, such as ``serial1``; the first console without it.
    :param force: Takes the console from another client of the daemon.

    >>> fleet.console("h1/vm1", "consoles", timeout=3)[0].unwrap().first_faults
    []
    """
    spec = {"folder": _absolute(folder), "device": device, "force": force}
    return Operation(targets, {"op": "console", **spec})


def wait(
    targets: Selectors,
    until: str = "agent",
    *,
    exec: Optional[Sequence[str]] = None,
    port: Optional[int] = None,
) -> Operation[WaitReport]:
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
    if sum((until != "agent", exec is not None, port is not None)) > 1:
        raise _refused("a wait is until one of a state, exec= and port=")
    if port is not None:
        return Operation(targets, {"op": "wait", "until": "port", "port": port})
    if exec is not None:
        program, *args = _words("exec", exec)
        return Operation(targets, {"op": "wait", "until": "exec", "program": program, "args": args})
    if until == "agent":
        return Operation(targets, {"op": "wait", "until": "agent"})
    word = until.replace(" ", "-")
    if word not in _AWAITED:
        hint = "exec= waits for a program, port= for a port"
        nearest = get_close_matches(word, _AWAITED, 1)
        raise _refused(
            f"{until!r} cannot be waited for; agent, {', '.join(_AWAITED)} can",
            f"did you mean {nearest[0]!r}?" if nearest else hint,
        )
    return Operation(targets, {"op": "wait", "until": "state", "state": word.replace("-", " ")})


def push(
    targets: Selectors,
    source: Union[str, os.PathLike[str]],
    destination: str,
    *,
    recursive: bool = False,
) -> Operation[FileReport]:
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
    spec = {"op": "push", "source": _absolute(source), "destination": destination}
    return Operation(targets, {**spec, "recursive": recursive})


def pull(
    targets: Selectors,
    path: str,
    destination: Union[str, os.PathLike[str]],
    *,
    recursive: bool = False,
) -> Operation[FileReport]:
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
    spec = {"op": "pull", "path": path, "destination": _absolute(destination), "separate": True}
    return Operation(targets, {**spec, "recursive": recursive})


def screenshot(
    targets: Selectors, folder: Union[str, os.PathLike[str]], *, screen: int = 0
) -> Operation[ScreenshotReport]:
    """Takes pictures of screens, as ``folder/HOST/VM.png``.

    :param folder: A folder of this machine, which is made if it is missing.
    :param screen: The number of the screen, from 0.

    >>> fleet.screenshot("h1/vm1", "screens")[0].unwrap().file.endswith("screens/h1/vm1.png")
    True
    """
    return Operation(targets, {"op": "screenshot", "folder": _absolute(folder), "screen": screen})


def qmp(
    targets: Selectors, command: str, arguments: Optional[Mapping[str, Any]] = None
) -> Operation[Any]:
    """Sends a command to the monitors of QEMU, and yields the replies as they are. libvirt does not know what they change: a VM that gets
    commands other than looks is marked as tainted.

    :param command: The command's name.
    :param arguments: Its arguments, as JSON has them.

    >>> fleet.qmp("h1/vm1", "query-status")[0].unwrap()["status"]
    'running'
    """
    return Operation(targets, {"op": "qmp", "command": command, "arguments": dict(arguments or {})})


def qga(
    targets: Selectors, command: str, arguments: Optional[Mapping[str, Any]] = None
) -> Operation[Any]:
    """Sends a command to guest agents, and yields the replies as they are.

    :param command: The command's name.
    :param arguments: Its arguments, as JSON has them.

    >>> fleet.qga("h1/vm1", "guest-ping")[0].unwrap()
    {}
    """
    return Operation(targets, {"op": "qga", "command": command, "arguments": dict(arguments or {})})


def key(targets: Selectors, chords: Union[str, Sequence[str]], *, hold: float = 0.01) -> Operation[None]:
    """Presses keys; of several chords one after the other.

    :param chords: Keys, joined by ``-`` where they are pressed together: ``ctrl-alt-del``, or ``["alt-f2", "ret"]``.
    :param hold: For how many seconds each stays down.
    :raises RequestError: There is no key of this name.

    >>> fleet.key("h1/vm1", "ctrl-alt-del")[0].effect
    'done'
    """
    return Operation(targets, {"op": "key", "chords": _texts(chords), "hold_ms": _ms(hold)})


def type(
    targets: Selectors, text: str, *, layout: str = "us", hold: float = 0.01
) -> Operation[None]:
    """Types a text on the keyboards of VMs. It appears in no message and no log.

    :param text: The text; the end of a line is Enter.
    :param layout: The layout of the guest's keyboard, such as ``us`` or ``de``.
    :param hold: For how many seconds each key stays down.
    :raises RequestError: The layout is not known, or has no key for a character.

    >>> fleet.type("h1/vm1", "root\\n")[0].effect
    'done'
    """
    return Operation(targets, {"op": "type", "text": text, "layout": layout, "hold_ms": _ms(hold)})


def mouse(targets: Selectors, action: str, *, hold: float = 0.05) -> Operation[None]:
    """Moves or clicks the mouse.

    :param action: ``move 50% 50%``, ``click 100 200 right``, ``scroll down 3``: places are pixels, or shares of the screen.
    :param hold: For how many seconds a button stays down.
    :raises RequestError: The action cannot be read.

    >>> fleet.mouse("h1/vm1", "click 50% 50%")[0].effect
    'done'
    """
    return Operation(targets, {"op": "mouse", "action": action, "hold_ms": _ms(hold)})


def run(
    scenario: Union[str, os.PathLike[str]],
    targets: Selectors = (),
    *,
    variables: Optional[Mapping[str, str]] = None,
) -> Operation[ScenarioReport]:
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
    return Operation(targets, {"op": "scenario", **_scenario(scenario, variables)})


def check_scenario(
    scenario: Union[str, os.PathLike[str]], *, variables: Optional[Mapping[str, str]] = None
) -> None:
    """Checks a scenario file, and those that it includes, as ``atp check`` does. It needs no host.

    :raises RequestError: What is wrong, a line for each.
    """
    _scenario(scenario, variables)


def check(hosts: Selectors = "*/") -> Operation[HostReport]:
    """Connects to hosts, and asks what they are.

    :param hosts: Ids, globs of ids, or ``@GROUP``. A ``/`` after them may be left out, here and in ``exclude``.

    >>> report = fleet.check("h1")[0].unwrap()
    >>> report.hypervisor, report.domains
    ('QEMU', 2)
    """
    return Operation(hosts, {"op": "host-check"})


def diagnose(targets: Selectors) -> Operation[Diagnosis]:
    """Checks what lies between this machine and the agents of VMs. What it finds is in ``findings``, each with a hint.

    >>> fleet.diagnose("h1/vm1")[0].ok
    True
    """
    return Operation(targets, {"op": "diagnose-agent"})


def diagnose_hosts(hosts: Selectors = "*/") -> Operation[Diagnosis]:
    """Checks each step on the way to the daemons of hosts. The parameters are those of :meth:`check`.

    >>> fleet.diagnose_hosts("h1")[0].ok
    True
    """
    return Operation(hosts, {"op": "diagnose-host"})


def operate(targets: Selectors, operation: Mapping[str, Any]) -> Operation[Any]:
    """Does any operation, given as JSON has it: what programs that speak to the service's API send.

    :param operation: Its name as ``op``, and its parameters.
    :raises RequestError: There is no such operation, or it has no such parameter.

    >>> fleet.operate("h1/vm1", {"op": "exec", "program": "uname"})[0].unwrap().stdout.text
    'Linux\\n'
    """
    return Operation(targets, dict(operation))


def console_lines(targets: Selectors, *, device: Optional[str], force: bool) -> Operation[ConsoleReport]:
    """The operation of the methods of this name, which are written by hand."""
    return Operation(targets, {"op": "console", "lines": True, "device": device, "force": force})


def _exec(
    program: str,
    args: Sequence[str],
    shell: bool,
    env: Optional[Mapping[str, str]],
    stdin: Union[str, bytes, None],
    cwd: Optional[str],
    spool: Optional[str],
    encoding: Optional[str],
) -> Dict[str, Any]:
    if isinstance(stdin, bytes):
        given: Any = {"base64": base64.b64encode(stdin).decode("ascii")}
    else:
        given = stdin
    return {
        "op": "exec",
        "program": program,
        "args": list(args),
        "env": dict(env or {}),
        "stdin": given,
        "shell": shell,
        "cwd": cwd,
        "spool": spool,
        "encoding": encoding,
    }


def _lifecycle(action: str, wait: Union[bool, str]) -> Dict[str, Any]:
    if wait not in (False, True, "state", "agent"):
        raise _refused(f'wait is False, True, "state" or "agent", and not {wait!r}')
    return {"op": "lifecycle", "action": action, "wait": wait}


def _absolute(path: Union[str, os.PathLike[str]]) -> str:
    return os.path.abspath(os.fspath(path))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _scenario(
    file: Union[str, os.PathLike[str]], variables: Optional[Mapping[str, str]]
) -> Dict[str, Any]:
    return cast("Dict[str, Any]", json.loads(_native.scenario(os.fspath(file), dict(variables or {}))))


def _words(name: str, argv: Sequence[str]) -> List[str]:
    words = list(argv)
    if not words:
        raise _refused(f"{name} is empty: its first word is the program")
    return words


def _refused(message: str, hint: Optional[str] = None) -> RequestError:
    return RequestError(message, kind="invalid-request", hint=hint)


def _time(name: str, value: Any) -> Optional[int]:
    """Seconds, as milliseconds."""
    if value is None and name == "deadline":
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise _refused(f"{name} is a number of seconds, such as 10 or 0.5, and not {value!r}")
    return _ms(value)


def _limit(name: str, value: Any) -> Any:
    """A limit of a run. Whether a text is a share is looked at where it is read."""
    expected = _POLICY[name]
    if value is None:
        fits = "None" in expected
    elif isinstance(value, str):
        fits = "%" in expected
    else:
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= (name != "retries")
    if not fits:
        raise _refused(f"{name} is {expected}, and not {value!r}")
    return value


def request(operation: Operation[Any], options: Union[Options, VmOptions]) -> Dict[str, Any]:
    """The request for an operation, as programs of ATP exchange it."""
    given: Dict[str, Any] = dict(options)
    targets = selected(operation.targets, given.pop("exclude", ()), given.pop("state", None), given.pop("labels", None))
    # Where hosts are the targets, `h1` is the host of this name, and no VM.
    if operation.spec.get("op") in _ON_HOSTS:
        for key in ("selectors", "exclude"):
            targets[key] = [text if "/" in text else f"{text}/" for text in targets[key]]
    noted: Dict[str, Any] = {}
    if given.get("journal") is not None:
        noted["journal"] = _absolute(given["journal"])
    resume: Union[str, os.PathLike[str], int, None] = given.get("resume")
    if isinstance(resume, int) and (isinstance(resume, bool) or resume < 0):
        raise _refused(f"resume is the path of a journal, or the number of a run of a service, and not {resume!r}")
    if resume is not None:
        noted["resume"] = resume if isinstance(resume, int) else _absolute(resume)
    policy: Dict[str, Any] = {}
    for name, value in given.items():
        if name in _NOTED:
            continue
        if name in _TIMES:
            policy[_TIMES[name]] = _time(name, value)
        elif name in _POLICY:
            policy[name] = _limit(name, value)
        else:
            known = ", ".join(sorted(("exclude", "labels", "state", *_NOTED, *_POLICY, *_TIMES)))
            raise TypeError(f"unknown option {name!r}; options of every verb are {known}")
    return {"targets": targets, "operation": operation.spec, "policy": policy, "noted": noted}


def refuse_journals(options: Mapping[str, Any]) -> None:
    """For what is no run over targets."""
    for name in _NOTED:
        if options.get(name) is not None:
            raise TypeError(f"{name} is for runs over targets, which this is not")


def selected(
    targets: Selectors,
    exclude: Selectors = (),
    state: Optional[str] = None,
    labels: Optional[Mapping[str, str]] = None,
) -> Dict[str, Any]:
    """What is selected, and what of it is left out."""
    chosen: Dict[str, Any] = {"selectors": _texts(targets), "exclude": _texts(exclude)}
    if state is not None:
        # As states are read: `shut off`.
        chosen["state"] = state.replace(" ", "-")
    if labels is not None:
        chosen["labels"] = dict(labels)
    return chosen


def escaped(name: str) -> str:
    """A VM's name as a selector: no character has a meaning of its own."""
    return "".join(char if char.isalnum() or char in "._-" else f"\\{char}" for char in name)


_ON_HOSTS = {"host-check", "diagnose-host"}
_AWAITED = ("running", "shut-off", "paused", "crashed", "pmsuspended")
_SHARE = 'a number from 1, a share such as "10%", or None'
_POLICY = {
    "parallel": "a number from 1",
    "per_host": "a number from 1, or None",
    "retries": "a number from 0",
    "max_failures": _SHARE,
    "serial": _SHARE,
}
_NOTED = ("journal", "resume")
_TIMES = {"timeout": "timeout_ms", "deadline": "deadline_ms"}


def _texts(selectors: Selectors) -> List[str]:
    return [selectors] if isinstance(selectors, str) else list(selectors)
