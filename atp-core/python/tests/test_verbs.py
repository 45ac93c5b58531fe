"""Every verb with all of its parameters, on simulated hosts."""

import inspect
import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Set, Tuple

import pytest
from atp_libvirt import Fleet, RequestError, _faces, _verbs
from conftest import Simulated

#: Parameters of which the simulated guests lack what they need: that calls with them are made is all that is seen.
NOT_SIMULATED = {"cwd", "spool", "port"}

DEFINITIONS: Dict[str, Any] = json.loads((Path(__file__).parents[2] / "api" / "schema.json").read_text())["$defs"]

#: Verbs in the order in which one VM goes through them, each with its parameters. `TMP/` is a folder of the test.
CALLS: List[Tuple[str, Dict[str, Any]]] = [
    ("vms", {}),
    ("info", {}),
    ("exec", {"argv": ["echo", "x"], "env": {"A": "b"}, "stdin": b"\xff", "encoding": "cp850"}),
    ("exec", {"argv": ["echo", "x"], "cwd": "/", "spool": "/tmp"}),
    ("shell", {"line": "true", "env": {"A": "b"}, "stdin": "in", "encoding": "utf-8"}),
    ("shell", {"line": "true", "cwd": "/", "spool": "/tmp"}),
    ("suspend", {"wait": "state"}),
    ("resume", {"wait": "agent"}),
    ("save", {"wait": True}),
    ("restore", {"wait": True}),
    ("shutdown", {"wait": "state"}),
    ("start", {"wait": True, "start_check": "all-hosts"}),
    ("reboot", {"wait": False}),
    ("reset", {"wait": False}),
    ("destroy", {"wait": True}),
    ("start", {"wait": "state", "start_check": "nothing"}),
    ("nmi", {}),
    ("autostart", {"on": False}),
    ("xml", {"inactive": True}),
    ("snapshot_create", {"name": "s", "description": "d", "disk_only": False, "quiesce": False}),
    ("snapshot_list", {}),
    ("snapshot_revert", {"name": "s", "then": "start"}),
    ("snapshot_delete", {"name": "s", "children": True}),
    ("console", {"folder": "TMP/consoles", "device": None, "force": True}),
    ("wait", {"until": "running"}),
    ("wait", {"exec": ["true"]}),
    ("wait", {"port": 22}),
    ("push", {"source": "TMP/file", "destination": "/tmp/pushed", "recursive": False}),
    ("pull", {"path": "/tmp/pushed", "destination": "TMP/pulled", "recursive": False}),
    ("screenshot", {"folder": "TMP/screens", "screen": 0}),
    ("qmp", {"command": "query-status", "arguments": {}}),
    ("qga", {"command": "guest-ping", "arguments": {}}),
    ("key", {"chords": ["ctrl-c", "ret"], "hold": 0.02}),
    ("type", {"text": "hello\n", "layout": "de", "hold": 0.02}),
    ("mouse", {"action": "click 50% 50%", "hold": 0.02}),
    ("run", {"scenario": "TMP/scenario.yaml", "variables": {"v": "w"}}),
    ("check", {}),
    ("diagnose", {}),
    ("diagnose_hosts", {}),
    ("operate", {"operation": {"op": "exec", "program": "true"}}),
]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    """A host with one VM, which is for these tests alone."""
    fleet = Simulated(tmp_path_factory.mktemp("one"), ["--hosts", "1", "--vms", "1"])
    yield fleet
    fleet.close()


def keys(definition: Dict[str, Any]) -> Set[str]:
    """The keys that a definition of the schema knows, in any of its forms."""
    known = set(definition.get("properties", {}))
    if "$ref" in definition:
        known |= keys(DEFINITIONS[definition["$ref"].rsplit("/", 1)[1]])
    for form in (*definition.get("oneOf", ()), *definition.get("anyOf", ())):
        known |= keys(form)
    return known


def test_every_verb_and_parameter_is_among_those_that_are_called() -> None:
    called: Dict[str, Set[str]] = {}
    for verb, arguments in CALLS:
        called.setdefault(verb, set()).update(arguments)
    verbs = {name for name, _ in inspect.getmembers(_faces.Verbs, inspect.isfunction) if not name.startswith("_")}
    assert set(called) == verbs
    for verb in verbs:
        parameters = set(inspect.signature(getattr(_verbs, verb)).parameters)
        assert called[verb] == parameters - {"targets", "hosts"}, verb


def test_every_verb_is_done_with_all_of_its_parameters(one: Simulated, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "scenario.yaml").write_text("name: s\ntargets: '*'\nvariables: {v: x}\nsteps:\n  - exec: [echo, '${v}']\n")
    operations = {form["properties"]["op"]["const"]: keys(form) for form in DEFINITIONS["OperationSpec"]["oneOf"]}
    failed: List[str] = []
    with Fleet(one.config) as fleet:
        for verb, given in CALLS:
            arguments = {
                name: str(tmp_path / value[4:]) if isinstance(value, str) and value.startswith("TMP/") else value
                for name, value in given.items()
            }
            if verb in ("check", "diagnose_hosts"):
                arguments["hosts"] = "h1"
            else:
                arguments["targets"] = "h1/vm1"
            spec = getattr(_verbs, verb)(**arguments).spec
            assert set(spec) <= operations[spec["op"]], verb
            is_simulated = not NOT_SIMULATED & set(given)
            outcomes = getattr(fleet, verb)(**arguments, timeout=60 if is_simulated and verb != "console" else 5)
            if is_simulated:
                failed += [f"{verb}: {outcome.status}: {outcome.error}" for outcome in outcomes.failed]
            assert len(outcomes) == 1, verb
    assert failed == []
    assert "echo w" in one.report()["hosts"]["h1"]["vms"]["vm1"]["programs"]


def test_every_option_of_verbs_is_understood(one: Simulated) -> None:
    options: _verbs.Options = {
        "exclude": "h1/vm2",
        "state": "running",
        "labels": {},
        "timeout": 60,
        "deadline": 120.0,
        "parallel": 3,
        "per_host": 2,
        "retries": 0,
        "max_failures": "50%",
        "serial": 1,
    }
    assert set(options) == set(_verbs.Options.__annotations__)
    request = _verbs.request(_verbs.vms("*"), options)
    assert set(request["policy"]) <= keys(DEFINITIONS["Policy"])
    assert set(request["targets"]) <= keys(DEFINITIONS["Targets"])
    unlimited: _verbs.Options = {"deadline": None, "per_host": None, "max_failures": None, "serial": None}
    with Fleet(one.config) as fleet:
        for given in (options, unlimited):
            assert [outcome.target for outcome in fleet.vms("*", **given)] == ["h1/vm1"]


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("vms", {"timeout": "10s"}, "timeout is a number of seconds, such as 10 or 0.5, and not '10s'"),
        ("vms", {"timeout": None}, "timeout is a number of seconds"),
        ("vms", {"timeout": float("inf")}, "timeout is a number of seconds"),
        ("vms", {"deadline": -1}, "deadline is a number of seconds"),
        ("vms", {"parallel": "x"}, "parallel is a number from 1, and not 'x'"),
        ("vms", {"parallel": 0}, "parallel is a number from 1, and not 0"),
        ("vms", {"retries": -1}, "retries is a number from 0, and not -1"),
        ("vms", {"per_host": 1.5}, "per_host is a number from 1, or None, and not 1.5"),
        ("vms", {"serial": 1.5}, "serial is a number from 1, a share"),
        ("vms", {"max_failures": "many"}, "many"),
        ("start", {"wait": "boot"}, "wait is False, True, \"state\" or \"agent\", and not 'boot'"),
        ("destroy", {"wait": "agent"}, "cannot wait for the agent"),
        ("wait", {"until": "runing"}, "'runing' cannot be waited for.*did you mean 'running'"),
        ("wait", {"until": "pm-suspended"}, "did you mean 'pmsuspended'"),
        ("wait", {"until": "port"}, "port= for a port"),
        ("wait", {"until": "running", "port": 22}, "one of a state, exec= and port="),
        ("wait", {"exec": []}, "exec is empty"),
        ("exec", {"argv": []}, "argv is empty"),
        ("operate", {"operation": {"op": "wait", "until": "state", "state": "runing"}}, "running, shut off, paused"),
    ],
)
def test_a_parameter_that_cannot_be_meant_is_refused_by_its_name(
    one: Simulated, verb: str, arguments: Dict[str, Any], message: str
) -> None:
    with Fleet(one.config) as fleet, pytest.raises(RequestError, match=message) as raised:
        getattr(fleet, verb)("*", **arguments)
    assert raised.value.effect == "none"
