"""The package beside the command line: what `atp` does is a method, and what its options say is a parameter, or it is written down
here why not.
"""

import inspect
import re
import subprocess
from typing import Dict, Iterator, List, NamedTuple, Set, Tuple

import atp_libvirt
import pytest
from atp_libvirt import AsyncFleet, Fleet, Outcomes, _verbs
from conftest import ATP

pytestmark = pytest.mark.skipif(not ATP, reason="there is no program atp: `cargo xtask python` builds it")

#: The methods of `Fleet`, or functions of the package, that do what a command does.
METHODS: Dict[str, List[str]] = {
    "host list": ["hosts"],
    "host check": ["check"],
    "vm list": ["vms"],
    "cp": ["push", "pull"],
    "exec": ["exec", "shell"],
    "check": ["check_scenario"],
    "console": ["console", "console_lines"],
    "doctor": ["diagnose", "diagnose_hosts"],
    "journal show": ["read_journal"],
    **{
        f"vm {verb}": [verb]
        for verb in (
            *("info", "xml", "autostart", "nmi", "start", "shutdown", "reboot", "reset", "destroy", "suspend"),
            *("resume", "save", "restore"),
        )
    },
    **{f"snapshot {verb}": [f"snapshot_{verb}"] for verb in ("create", "list", "revert", "delete")},
    **{
        verb: [verb]
        for verb in (
            *("wait", "qmp", "qga", "run", "key", "type", "mouse", "screenshot", "events", "stats", "reserve"),
            *("release", "attach", "channel"),
        )
    },
}

#: Commands that have no method, and why not.
NO_METHOD: Dict[str, str] = {
    "top": "a screen is for people: fleet.stream.stats",
    "host add": "settings files are written by people; Fleet(hosts=...) takes hosts",
    "host remove": "as host add",
    "config show": "what a fleet was made of is in the program that made it",
    "config check": "Fleet(...) raises a ConfigError with every problem",
    "completions": "for shells",
    "man": "help() shows the docstrings",
    "serve": "a service is a program of its own",
    "serve token add": "as serve",
    "serve token list": "as serve",
    "serve token remove": "as serve",
}

#: The parameters that options are, where they have another name. `*` is every command that has the option.
PARAMETERS: Dict[Tuple[str, str], str] = {
    ("*", "label"): "labels",
    ("vm start", "force"): "start_check",
    ("vm start", "ask-all-hosts"): "start_check",
    ("wait", "for"): "until",
    ("run", "set"): "variables",
    ("check", "set"): "variables",
    ("screenshot", "directory"): "folder",
    ("console", "directory"): "folder",
    ("snapshot revert", "start"): "then",
    ("snapshot revert", "paused"): "then",
    ("events", "for"): "timeout",
    ("reserve", "for"): "time",
}

#: Options that no parameter is, and why not.
NO_PARAMETER: Dict[Tuple[str, str], str] = {
    ("exec", "shell"): "the method shell",
    ("exec", "diff"): "for tables: outcomes.grouped()",
    ("qmp", "diff"): "for tables: outcomes.grouped()",
    ("qga", "diff"): "for tables: outcomes.grouped()",
    ("console", "follow"): "the method console_lines",
    ("type", "enter"): "a line feed in the text is Enter",
    ("events", "count"): "the loop is left",
    ("channel", "idle"): "ByteStream.read has a timeout",
}

#: What the options of all commands are: parameters of a verb, of `Fleet(...)`, or attributes.
GLOBAL: Dict[str, str] = {
    "config": "Fleet(config)",
    "host": "Fleet(hosts)",
    "engine": "Fleet(settings)",
    "server": "Fleet(server)",
    "junit": "Outcomes.to_junit",
    "html": "Outcomes.to_html",
    "dry-run": "Fleet.plan",
    "parallel": "parallel",
    "timeout": "timeout",
    "per-host": "per_host",
    "deadline": "deadline",
    "retries": "retries",
    "max-failures": "max_failures",
    "serial": "serial",
    "journal": "journal",
    "resume": "resume",
}

#: Options of all commands that nothing is, and why not.
NO_GLOBAL: Dict[str, str] = {
    "output": "outcomes are objects, and tables for data frames",
    "yes": "nothing asks",
    "color": "nothing is written to a terminal",
    "verbose": "nothing is written to a terminal",
    "quiet": "nothing is written to a terminal",
    "log-format": "nothing is written to a terminal",
}

OPTION = re.compile(r"^\s+(?:-\w, )?--([a-z][a-z-]*)", re.MULTILINE)


class Command(NamedTuple):
    name: str
    #: The options of its own.
    options: Set[str]
    #: The options that every command has.
    of_all: Set[str]


def command_of(words: Tuple[str, ...]) -> Tuple[Command, List[str]]:
    """A command, and the commands below it."""
    text = subprocess.run([ATP, *words, "--help"], check=True, capture_output=True, text=True).stdout
    parts = re.split(r"(?m)^(Commands|Options|Global options|Options of a run|Examples):\n", text)
    sections = dict(zip(parts[1::2], parts[2::2]))
    below = re.findall(r"(?m)^  ([a-z]+)  ", sections.get("Commands", ""))
    own = set(OPTION.findall(sections["Options"])) - {"help", "version"}
    of_all = {name for part in ("Global options", "Options of a run") for name in OPTION.findall(sections[part])}
    return Command(" ".join(words), own, of_all), [name for name in below if name != "help"]


def commands(words: Tuple[str, ...] = ()) -> Iterator[Command]:
    """Every command that does something: those that only lead to others have no options."""
    command, below = command_of(words)
    if words and (command.options or not below):
        yield command
    for name in below:
        yield from commands((*words, name))


@pytest.fixture(scope="module")
def known() -> List[Command]:
    return list(commands())


def parameters(command: str) -> Set[str]:
    """What the methods of a command take by name."""
    taken: Set[str] = set()
    for name in METHODS[command]:
        method = getattr(Fleet, name, None) or getattr(atp_libvirt, name)
        signature = inspect.signature(method).parameters
        taken |= set(signature)
        if "options" in signature:
            taken |= set(_verbs.Options.__annotations__)
    return taken


def test_every_command_is_a_method_or_has_a_reason(known: List[Command]) -> None:
    names = {command.name for command in known}
    assert len(names) > 40
    assert sorted(names - set(METHODS) - set(NO_METHOD)) == []
    assert sorted({*METHODS, *NO_METHOD} - names) == [], "the command line does not have these any more"
    for command, methods in METHODS.items():
        for method in methods:
            assert hasattr(AsyncFleet if hasattr(Fleet, method) else atp_libvirt, method), command


def test_every_option_of_a_command_is_a_parameter_or_has_a_reason(known: List[Command]) -> None:
    lacking: List[str] = []
    used: Set[Tuple[str, str]] = set()
    for command in known:
        if command.name in NO_METHOD:
            continue
        for option in command.options:
            keys = [(command.name, option), ("*", option)]
            used.update(keys)
            if any(key in NO_PARAMETER for key in keys):
                continue
            names = [PARAMETERS[key] for key in keys if key in PARAMETERS] or [option.replace("-", "_")]
            if names[0] not in parameters(command.name):
                lacking.append(f"{command.name} --{option}")
    assert lacking == []
    assert sorted({*PARAMETERS, *NO_PARAMETER} - used) == []


def test_every_option_of_all_commands_has_its_place(known: List[Command]) -> None:
    of_all = {option for command in known for option in command.of_all}
    assert of_all == {*GLOBAL, *NO_GLOBAL}
    of_fleet = set(inspect.signature(Fleet.__init__).parameters)
    for place in GLOBAL.values():
        owner, _, name = place.rpartition(".")
        if owner:
            assert hasattr({"Fleet": Fleet, "Outcomes": Outcomes}[owner], name), place
        elif place.startswith("Fleet("):
            assert place[len("Fleet(") : -1] in of_fleet, place
        else:
            assert place in _verbs.RunOptions.__annotations__, place
