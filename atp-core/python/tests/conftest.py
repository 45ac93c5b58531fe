"""Fixtures: a simulated fleet, which `cargo xtask python` has built."""

import fcntl
import json
import os
import re
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Generator, Iterator, List, Sequence, Tuple

import pytest
from atp_libvirt import Fleet, RequestError, read_journal

FLEET = os.environ.get("ATP_TEST_FLEET", str(Path(__file__).parents[3] / "target" / "debug" / "fleet"))
#: The program `atp`, for the tests of the service.
ATP = os.environ.get("ATP_TEST_ATP", "")


class Simulated:
    """A simulated fleet as a process."""

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        self.config = folder / "fleet.toml"
        command = [FLEET, "up", "--write", str(self.config), *arguments]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        assert line, "the simulated fleet did not start"
        # What it writes later must not fill the pipe.
        threading.Thread(target=self._process.stderr.read, daemon=True).start()
        found = re.search(r"port (\d+)", line)
        assert found, line
        self.port = int(found.group(1))

    def fault(self, target: str, fault: str) -> None:
        subprocess.run([FLEET, "fault", "--port", str(self.port), target, fault], check=True)

    def heal(self, target: str) -> None:
        subprocess.run([FLEET, "heal", "--port", str(self.port), target], check=True)

    def report(self) -> Any:
        """What the hosts have executed."""
        command = [FLEET, "report", "--port", str(self.port)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


class Examples:
    """What the examples of docstrings have: a folder of their own, and a simulated fleet of two hosts with two VMs each."""

    @pytest.fixture(autouse=True)
    def names_of_examples(
        self,
        request: pytest.FixtureRequest,
        doctest_namespace: Dict[str, Any],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Iterator[None]:
        if not isinstance(request.node, pytest.DoctestItem):
            yield
            return
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        simulated = Simulated(tmp_path, ["--hosts", "2", "--vms", "2"])
        with Fleet(simulated.config) as fleet:
            doctest_namespace["fleet"] = fleet
            yield
        simulated.close()


def pytest_configure(config: pytest.Config) -> None:
    # The package is not below this folder: what is defined here is only for tests that are.
    config.pluginmanager.register(Examples())


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    """The docstrings of `_verbs.py` are those of the methods of `Verbs`."""
    twice = [item for item in items if item.name.startswith("atp_libvirt._verbs.")]
    config.hook.pytest_deselected(items=twice)
    items[:] = [item for item in items if item not in twice]


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Locks of VMs are those of this session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    """Two hosts with two VMs each."""
    fleet = Simulated(tmp_path_factory.mktemp("fleet"), ["--hosts", "2", "--vms", "2"])
    yield fleet
    fleet.close()


@pytest.fixture(scope="session")
def hung(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    """Ten hosts with two VMs each, all of which hang."""
    fleet = Simulated(tmp_path_factory.mktemp("hung"), ["--hosts", "10", "--vms", "2", "--faults", "hung=100%"])
    yield fleet
    fleet.close()


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Waits until something holds, for a minute at most."""
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def is_begun(journal: Path) -> bool:
    """Whether a target of a run that is recorded in this journal was started."""
    try:
        return any(target.progress == "started" for target in read_journal(journal).targets)
    except RequestError:
        return False


def is_under_way(journal: Path) -> bool:
    """Whether a run that was begun is still under way: it has a lock on its journal."""
    with open(journal, "rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def runs_of(server: str, token: str) -> List[Dict[str, Any]]:
    """The runs of a service that have not ended."""
    request = urllib.request.Request(f"{server}/api/v1/runs", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request) as answer:
        return [run for run in json.load(answer) if run["state"] != "ended"]


def wait_until_ended(server: str, token: str) -> None:
    """Waits until every run of the service has ended."""
    wait_until(lambda: not runs_of(server, token), "a run of the service goes on")


@contextmanager
def serving(config: Path, folder: Path) -> Generator[Tuple[str, str], None, None]:
    """A service for the hosts of some settings: its address, and a token."""
    with service_process(config, folder) as (_, address, token):
        yield address, token


@contextmanager
def service_process(config: Path, folder: Path) -> Generator[Tuple["subprocess.Popen[str]", str, str], None, None]:
    """As :func:`serving`, with its process."""
    environment = {**os.environ, "ATP_SERVE__FOLDER": str(folder), "ATP_SERVE__LISTEN": "127.0.0.1:0"}
    command = [ATP, "--config", str(config), "serve"]
    added = subprocess.run(
        [*command, "token", "add", "test", "--role", "admin"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        address = ""
        for line in process.stderr:
            if " on http" in line:
                address = line.split(" on ")[1].strip()
                break
        assert address
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield process, address, added.stdout.strip()
    finally:
        process.terminate()
        process.wait()
