"""The package as it is installed."""

import sys
import typing
from importlib import metadata
from pathlib import Path

import atp_libvirt
import pytest
from atp_libvirt import _faces, _native
from atp_libvirt._fleet import Streamed


def test_the_extension_needs_neither_libvirt_nor_a_library_of_python() -> None:
    extension = Path(str(_native.__file__)).read_bytes()
    for library in (b"libvirt.so", b"libpython3"):
        assert library not in extension, library


def test_types_and_the_plugin_are_installed() -> None:
    assert (Path(atp_libvirt.__file__).parent / "py.typed").exists()
    (plugin,) = [entry for entry in metadata.entry_points(group="pytest11") if entry.name == "atp_libvirt"]
    assert plugin.value == "atp_libvirt.pytest_plugin"
    assert metadata.version("atp_libvirt")


def test_every_name_of_the_package_has_a_docstring() -> None:
    for name in atp_libvirt.__all__:
        assert getattr(atp_libvirt, name).__doc__, name


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the types of options by name are in typing since 3.11")
def test_types_can_be_read_by_programs() -> None:
    for face in (atp_libvirt.Fleet, atp_libvirt.AsyncFleet, atp_libvirt.Vm, atp_libvirt.AsyncVm, Streamed):
        methods = [name for name in dir(face) if not name.startswith("_") and callable(getattr(face, name))]
        assert len(methods) > 20
        for name in methods:
            assert "return" in typing.get_type_hints(getattr(face, name)), (face, name)


def test_licences_are_in_the_wheel() -> None:
    files = [Path(str(file)).name for file in metadata.files("atp_libvirt") or ()]
    assert {"LICENSE-MIT", "LICENSE-APACHE"} <= {*files}
    assert "pytest>=7.2" in str(metadata.metadata("atp_libvirt").get_all("Requires-Dist"))


def test_every_verb_has_an_example() -> None:
    verbs = [name for name in dir(_faces.Verbs) if not name.startswith("_")]
    assert [name for name in verbs if ">>> " not in (getattr(_faces.Verbs, name).__doc__ or "")] == []
