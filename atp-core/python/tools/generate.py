"""Writes the parts of the package that follow from others: `_data.py` from the JSON Schema of atp-api, and `_faces.py` from
`_verbs.py`. It says which of them it had to change.
"""

import ast
import json
import re
import textwrap
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "python" / "atp_libvirt"
SCHEMA = Path(__file__).parent.parent.parent / "api" / "schema.json"

#: What is not read into a class of its own.
PLAIN = {"Hint": "str", "Data": "Any"}

#: Names that mean something else in Python.
RENAMED = {"Stream": "Output", "OutcomeError": "Failure"}


def data():
    """The classes of what operations yield."""
    definitions = json.loads(SCHEMA.read_text())["$defs"]
    order = []

    def visit(name):
        definition = definitions[name]
        if name in PLAIN or name in order or "properties" not in definition:
            return
        for field in definition["properties"].values():
            for used in references(field):
                visit(used)
        order.append(name)

    variants = definitions["Data"]["anyOf"]
    for variant in variants:
        for used in references(variant):
            visit(used)
    for name in ("HostStatistics", "VmStatistics"):
        visit(name)
    text = HEAD_OF_DATA
    for name in order:
        text += class_of(name, definitions[name], definitions)
    for variant in variants:
        if "$ref" not in variant and tuple(variant.get("properties", ())) in INLINE:
            text += class_of(INLINE[tuple(variant["properties"])], variant, definitions)
    return text + TAIL_OF_DATA


#: Names of kinds of data that have none in the schema, by their fields. Others are kept as JSON.
INLINE = {("state",): "StateReport"}


def references(schema):
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].rsplit("/", 1)[1]
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def class_of(name, definition, definitions):
    required = set(definition.get("required", ()))
    fields, optional = [], []
    for field, schema in definition["properties"].items():
        kind = type_of(schema, definitions)
        if field not in required and not kind.startswith("Optional[") and kind != "Any":
            kind = f"Optional[{kind}]"
        may_lack = kind.startswith("Optional[") or kind == "Any"
        line = f"    {field}: {kind}{' = None' if may_lack else ''}\n{doc(schema.get('description', ''), 4)}"
        (optional if may_lack else fields).append(line)
    about = doc(definition.get("description", ""), 4)
    name = RENAMED.get(name, name)
    return f"\n\n@dataclass(frozen=True)\nclass {name}:\n{about}\n" + "\n".join(fields + optional).rstrip() + "\n"


def type_of(schema, definitions):
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        if name in PLAIN:
            return PLAIN[name]
        definition = definitions[name]
        return RENAMED.get(name, name) if "properties" in definition else type_of(definition, definitions)
    alternatives = schema.get("anyOf")
    if alternatives:
        kinds = [type_of(one, definitions) for one in alternatives if one.get("type") != "null"]
        inner = kinds[0] if len(set(kinds)) == 1 else "Any"
        is_optional = len(kinds) < len(alternatives) and inner != "Any"
        return f"Optional[{inner}]" if is_optional else inner
    kind = schema.get("type")
    if isinstance(kind, list):
        inner = type_of({**schema, "type": next(word for word in kind if word != "null")}, definitions)
        return inner if inner == "Any" else f"Optional[{inner}]"
    if kind == "array":
        return f"List[{type_of(schema.get('items', {}), definitions)}]"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"Dict[str, {type_of(values, definitions) if isinstance(values, dict) else 'Any'}]"
    words = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
    words_of = [type_of(one, definitions) for one in schema.get("oneOf", ())]
    if "const" in schema or "enum" in schema or (words_of and set(words_of) == {"str"}):
        return words.get(kind, "str")
    return words.get(kind, "Any")


def doc(text, indent):
    """A docstring of a description in Rust's notation."""
    text = re.sub(r"```.*?```", "", text, flags=re.S).strip()
    text = re.sub(r"\[`?([^\]`]+)`?\](\([^)]*\))?", r"\1", text).replace("`", "``").replace("\\", "\\\\")
    pad = " " * indent
    lines = []
    for paragraph in text.split("\n\n"):
        lines.append("\n".join(textwrap.wrap(" ".join(paragraph.split()), 110 - indent)))
    text = "\n\n".join(lines)
    end = f"\n{pad}" if "\n" in text else ""
    return pad + f'"""{textwrap.indent(text, pad).strip()}{end}"""\n' if text else ""


HEAD_OF_DATA = '''"""What operations yield. Written by `tools/generate.py` from the JSON Schema of atp-api; do not edit."""

import dataclasses
import typing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Callable, Dict, List, Optional
'''

TAIL_OF_DATA = '''

#: What an operation yields, by its name. What is in none of these is kept as JSON.
OF_OPERATIONS: Dict[str, Any] = {
    "console": ConsoleReport,
    "cp": FileReport,
    "doctor": Diagnosis,
    "exec": ExecReport,
    "host-check": HostReport,
    "pull": FileReport,
    "push": FileReport,
    "run": ScenarioReport,
    "screenshot": ScreenshotReport,
    "snapshot-create": Snapshot,
    "snapshot-list": SnapshotList,
    "snapshot-revert": StateReport,
    "vm-destroy": StateReport,
    "vm-info": VmReport,
    "vm-list": DomainInfo,
    "vm-reboot": StateReport,
    "vm-reset": StateReport,
    "vm-restore": StateReport,
    "vm-resume": StateReport,
    "vm-save": StateReport,
    "vm-shutdown": StateReport,
    "vm-start": StateReport,
    "vm-suspend": StateReport,
    "vm-wakeup": StateReport,
    "vm-xml": XmlReport,
    "wait": WaitReport,
}


def read(op: str, data: Any) -> Any:
    """What the operation of this name yielded, from JSON. What is not of its class is kept as it is."""
    of_class = OF_OPERATIONS.get(op)
    if of_class is None:
        return data
    try:
        return reader(of_class)(data)
    except (AttributeError, KeyError, TypeError):
        return data


@lru_cache(maxsize=None)
def reader(kind: Any) -> Callable[[Any], Any]:
    """Makes values of a type from JSON. Fields that it does not know are passed over."""
    if dataclasses.is_dataclass(kind):
        types = typing.get_type_hints(kind)
        fields = [(field.name, types[field.name], field) for field in dataclasses.fields(kind)]

        def read_object(data: Any) -> Any:
            given = {}
            for name, of_type, field in fields:
                if name in data:
                    given[name] = reader(of_type)(data[name])
                elif field.default is dataclasses.MISSING:
                    raise KeyError(name)
            return typing.cast("Any", kind)(**given)

        return read_object
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        item = reader(arguments[0])
        return lambda data: [item(value) for value in data]
    if origin is dict:
        value_of = reader(arguments[1])
        return lambda data: {key: value_of(value) for key, value in data.items()}
    if origin is typing.Union:
        inner = reader(arguments[0])
        return lambda data: None if data is None else inner(data)
    if kind is str:
        # A hint with an id is an object with its text.
        return _text
    return lambda data: data


def _text(data: Any) -> Any:
    return typing.cast("Dict[str, Any]", data)["text"] if isinstance(data, dict) else data
'''


def faces():
    """A class for each face of a fleet, with a method for each verb."""
    source = (PACKAGE / "_verbs.py").read_text()
    body = ast.parse(source).body
    verbs = [node for node in body if isinstance(node, ast.FunctionDef) and is_verb(node)]
    (yielded,) = [node for node in body if isinstance(node, ast.ImportFrom) and node.module == "_data"]
    names = "".join(f"    {name.name},\n" for name in yielded.names)
    text = HEAD_OF_FACES.replace("{names}", names)
    for name, about, result, is_async in FACES:
        options = OPTIONS_OF_VM if name in OF_VM else "Options"
        text += f'\n\nclass {name}:\n    """{about}"""\n\n'
        if name in OF_VM:
            text += '    @property\n    def target(self) -> str:\n        """The selector of this VM alone."""\n'
            text += "        raise NotImplementedError\n\n"
        prefix = "async " if is_async else ""
        of = "D" if "{}" in result else "Any"
        text += f"    {prefix}def _run(self, operation: Operation[{of}], options: {options}) -> {result.format('D')}:\n"
        text += "        raise NotImplementedError\n"
        for verb in verbs:
            if name not in OF_VM or is_of_vm(verb):
                text += "\n" + method(verb, result, is_async, name)
    return text


FACES = [
    ("Verbs", "Each verb, until every target has its outcome.", "Outcomes[{}]", False),
    ("StreamedVerbs", "Each verb, as a stream of outcomes in the order in which they come.", "Stream[{}]", False),
    ("AsyncVerbs", "Each verb, to await until every target has its outcome.", "Outcomes[{}]", True),
    ("AsyncStreamedVerbs", "Each verb, as an asynchronous stream of outcomes.", "AsyncStream[{}]", False),
    ("PlannedVerbs", "Each verb, as a plan: what it would do now. Nothing is changed.", "Plan", False),
    ("AsyncPlannedVerbs", "Each verb, to await a plan: what it would do now. Nothing is changed.", "Plan", True),
    ("VmVerbs", "Each verb on one VM, until it has its outcome.", "Outcome[{}]", False),
    ("AsyncVmVerbs", "Each verb on one VM, to await until it has its outcome.", "Outcome[{}]", True),
]

#: The faces of one VM: their verbs have no parameter for targets.
OF_VM = {"VmVerbs", "AsyncVmVerbs"}

OPTIONS_OF_VM = "VmOptions"
OPTIONS = "RunOptions"

#: The face whose methods have the examples: they are written for it.
WITH_EXAMPLES = "Verbs"


#: What is not a verb of every face.
BY_HAND = {"console_lines"}


def is_verb(node):
    is_operation = isinstance(node.returns, ast.Subscript) and ast.unparse(node.returns).startswith("Operation[")
    return is_operation and node.name not in BY_HAND


def is_of_vm(verb):
    """A listing has all that there is to know of what it finds, and others are for hosts."""
    return verb.name != "vms" and any(argument.arg == "targets" for argument in verb.args.args)


def method(verb, result, is_async, face):
    of_vm = face in OF_VM
    inner = ast.unparse(verb.returns.slice)
    arguments = ast.unparse(verb.args)
    passed = ["self.target" if of_vm and argument.arg == "targets" else argument.arg for argument in verb.args.args]
    passed += [f"{argument.arg}={argument.arg}" for argument in verb.args.kwonlyargs]
    body = f"self._run(_verbs.{verb.name}({', '.join(passed)}), options)"
    head = f"{'async ' if is_async else ''}def {verb.name}(\n        self,\n        "
    parameters = [*split(verb, of_vm), f"**options: Unpack[{OPTIONS_OF_VM if of_vm else OPTIONS}]"]
    head += ",\n        ".join(parameters) + ",\n"
    head += f"    ) -> {result.format(inner)}:"
    docstring = ast.get_docstring(verb)
    if face != WITH_EXAMPLES:
        docstring = docstring.split("\n\n>>> ")[0]
    docstring = re.sub("(?m)^(?=.)", "        ", docstring).replace("\\", "\\\\").strip()
    end = "\n        " if "\n" in docstring else ""
    returned = f"return {'await ' if is_async else ''}{body}"
    assert arguments
    return f'    {head}\n        """{docstring}{end}"""\n        {returned}\n'


def split(verb, of_vm):
    """The parameters, one in each line."""
    parameters = []
    defaults = [None] * (len(verb.args.args) - len(verb.args.defaults)) + verb.args.defaults
    for argument, default in zip(verb.args.args, defaults):
        if not of_vm or argument.arg != "targets":
            parameters.append(parameter(argument, default))
    if verb.args.kwonlyargs:
        parameters.append("*")
    for argument, default in zip(verb.args.kwonlyargs, verb.args.kw_defaults):
        parameters.append(parameter(argument, default))
    return parameters


def parameter(argument, default):
    text = f"{argument.arg}: {ast.unparse(argument.annotation)}"
    return text if default is None else f"{text} = {ast.unparse(default)}"


HEAD_OF_FACES = '''"""The faces of a fleet. Written by `tools/generate.py` from `_verbs.py`; do not edit."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Mapping, Optional, Sequence, TypeVar, Union

from . import _verbs
from ._data import (
{names})
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
'''


def main():
    for name, text in (("_data.py", data()), ("_faces.py", faces())):
        path = PACKAGE / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"{path.name} is written anew: commit it")


if __name__ == "__main__":
    main()
