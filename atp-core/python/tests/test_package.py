"""The package as it is installed."""

from importlib import metadata
from pathlib import Path

import atp_libvirt
from atp_libvirt import _native


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
