"""What needs real guests: those of a testbed, which `cargo xtask python --testbed` runs these tests in."""

import os
import subprocess
from pathlib import Path

import pytest
from atp_libvirt import Fleet

#: The program `testbed`.
TESTBED = os.environ.get("ATP_TEST_TESTBED", "")

pytestmark = pytest.mark.skipif(not TESTBED, reason="there is no testbed: see `cargo xtask python --testbed`")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of the testbed."""
    file = tmp_path_factory.mktemp("testbed") / "testbed.toml"
    file.write_text(subprocess.run([TESTBED, "config"], check=True, capture_output=True, text=True).stdout)
    return file


def test_a_file_goes_into_a_guest_and_comes_back(config: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 16)
    with Fleet(config) as fleet:
        pushed = fleet.push("*", source, "/tmp/x", timeout=60).raise_for_failures()
        assert {report.bytes for report in pushed.values()} == {4096}
        pulled = fleet.pull("*", "/tmp/x", tmp_path / "there", timeout=60).raise_for_failures()
        assert {Path(report.local_path).read_bytes() for report in pulled.values()} == {source.read_bytes()}


def test_programs_run_in_guests_and_screens_are_seen(config: Path, tmp_path: Path) -> None:
    with Fleet(config) as fleet:
        fleet.wait("*", timeout=120).raise_for_failures()
        kernels = fleet.exec("*", ["uname", "-s"], timeout=60).raise_for_failures()
        assert list(kernels.grouped()) == ["Linux"]
        (echoed,) = fleet.exec(kernels[0].target, ["cat"], stdin=b"\xff\x00", timeout=60)
        assert echoed.unwrap().stdout.base64 or echoed.unwrap().stdout.encoding == "base64"
        failed = fleet.shell(kernels[0].target, "exit 3", timeout=60)[0]
        assert failed.error is not None
        assert (failed.status, failed.error.kind, failed.error.effect) == ("failed", "exit-nonzero", "done")
        assert failed.data is not None and failed.data.exit_code == 3
        picture = fleet.screenshot(kernels[0].target, tmp_path).values()[0]
        assert Path(picture.file).read_bytes().startswith(b"\x89PNG")
        report = fleet.info(kernels[0].target, timeout=60).values()[0]
        assert report.guest is not None and report.guest.os is not None
