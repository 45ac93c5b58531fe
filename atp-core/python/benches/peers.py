"""The package beside libvirt-python with a pool of threads, on the same hosts, in one process.

    cargo xtask bench python            # builds all of it, and measures on simulated hosts and on real daemons
    python benches/peers.py fleet.toml  # on the hosts of a settings file; needs the wheel, polars, pyarrow and libvirt-python

Each pair is measured in turns, so that what else the machine does meets both. A line has the medians of the rounds, and the medians of
the pairs' ratios: how many times as fast the package is, and what part of the processor time it takes.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import polars
import pyarrow
from atp_libvirt import Fleet, Statistics

# Debian's package, for an environment that does not see the system's.
sys.path.append("/usr/lib/python3/dist-packages")
import libvirt  # noqa: E402
import libvirt_qemu  # noqa: E402

ROUNDS = 9
THREADS = 64
SINGLE_CALLS = 200
COMMAND = json.dumps({"execute": "query-status"})
EXEC = json.dumps({"execute": "guest-exec", "arguments": {"path": "uname", "arg": ["-r"], "capture-output": True}})
#: Of the table that is given to polars.
ROWS = 1_000_000


def measured(work: Callable[[], Any]) -> Tuple[float, float]:
    """Seconds, and seconds of the processor, of one round."""
    usage, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return took, after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime


def pair(name: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> None:
    """Measures both in turns, and prints a line of a table."""
    ours()
    theirs()
    rounds: List[Tuple[float, float, float, float]] = []
    for number in range(ROUNDS):
        # Each is first as often as the other.
        first, second = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        both = [measured(first), measured(second)]
        (wall, cpu), (their_wall, their_cpu) = both if number % 2 == 0 else both[::-1]
        rounds.append((wall, cpu, their_wall, their_cpu))
    wall, cpu, their_wall, their_cpu = (statistics.median(column) * 1000 for column in zip(*rounds))
    rate = statistics.median(theirs / ours for ours, _, theirs, _ in rounds)
    part = statistics.median(ours / theirs for _, ours, _, theirs in rounds)
    print(f"| {name} | {wall:.1f} | {cpu:.1f} | {their_wall:.1f} | {their_cpu:.1f} | {rate:.2f} × | {part:.0%} |", flush=True)


def table(fleet: Fleet) -> None:
    """How long a million samples take to be a frame of polars, and whether numbers are copied on the way."""
    sample = fleet.stats(interval=0.2)
    some: Any = getattr(sample, "_native")
    columns: List[Tuple[float, float]] = []
    for _ in range(ROUNDS):
        many = Statistics(some.select([index % len(sample) for index in range(ROWS)]), ())
        began = time.perf_counter()
        frame = polars.DataFrame(many)
        columns.append((time.perf_counter() - began, frame.width))
        assert frame.height == ROWS
    source = pyarrow.table(many)
    equal = [
        name
        for name in ("cpu_time_ns", "cpu_percent", "memory_kib", "resident_kib", "read_bytes_per_second", "rx_bytes_per_second")
        if frame[name].to_arrow().buffers()[1].address == source[name].chunk(0).buffers()[1].address
    ]
    seconds = statistics.median(took for took, _ in columns)
    print(f"\n{ROWS} rows of {frame.width} columns to polars: {seconds:.2f} s; equal addresses: {', '.join(equal) or 'none'}")


def compare(settings: str) -> None:
    """Prints the tables for the hosts of a settings file."""
    fleet = Fleet(settings)
    hosts: Dict[str, Any] = {host.id: libvirt.open(host.uri) for host in fleet.hosts()}
    domains = [domain for connection in hosts.values() for domain in connection.listAllDomains()]
    pool = ThreadPoolExecutor(THREADS)
    one = next(iter(hosts.values())).listAllDomains()[0]
    target = f"{next(iter(hosts))}/{one.name()}"
    vm = fleet.vm(target)

    def rows(connection: Any) -> List[Tuple[str, int]]:
        return [(domain.name(), domain.info()[0]) for domain in connection.listAllDomains()]

    def monitor(domain: Any) -> str:
        return str(libvirt_qemu.qemuMonitorCommand(domain, COMMAND, 0))

    def run(domain: Any) -> Tuple[str, int, str]:
        pid = json.loads(libvirt_qemu.qemuAgentCommand(domain, EXEC, 10, 0))["return"]["pid"]
        status = json.dumps({"execute": "guest-exec-status", "arguments": {"pid": pid}})
        while True:
            ended = json.loads(libvirt_qemu.qemuAgentCommand(domain, status, 10, 0))["return"]
            if ended["exited"]:
                return domain.name(), ended["exitcode"], ended.get("out-data", "")
            time.sleep(0.01)

    def listing() -> polars.DataFrame:
        return polars.DataFrame([row for some in pool.map(rows, hosts.values()) for row in some], orient="row")

    load = os.getloadavg()[0]
    print(f"{len(hosts)} hosts, {len(domains)} VMs, {os.cpu_count()} processors, load at the start {load:.1f}\n")
    print("| | ms | CPU, ms | libvirt-python, ms | CPU, ms | rate | CPU |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    pair(
        f"a monitor command on each of {len(domains)} VMs",
        lambda: fleet.qmp("*", "query-status", parallel=THREADS).raise_for_failures(),
        lambda: list(pool.map(monitor, domains)),
    )
    pair(
        f"{SINGLE_CALLS} monitor commands on a VM that was found, a call of Python for each",
        lambda: [vm.qmp("query-status") for _ in range(SINGLE_CALLS)],
        lambda: [monitor(one) for _ in range(SINGLE_CALLS)],
    )
    pair(
        f"{SINGLE_CALLS} monitor commands on a VM that is named, a call of Python for each",
        lambda: [fleet.qmp(target, "query-status") for _ in range(SINGLE_CALLS)],
        lambda: [monitor(one) for _ in range(SINGLE_CALLS)],
    )
    pair("a listing into a frame", lambda: fleet.vms().to_polars(), listing)
    pair(
        "`uname -r` in every guest, into a frame",
        lambda: fleet.exec("*", ["uname", "-r"], parallel=THREADS).raise_for_failures().to_polars(),
        lambda: polars.DataFrame(list(pool.map(run, domains)), orient="row"),
    )
    table(fleet)
    fleet.close()


def simulated(fleet: str, hosts: int, vms: int) -> None:
    """Compares on simulated hosts, which answer at once: what is measured are the clients. ``fleet`` is the program."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "fleet.toml")
        command = [fleet, "up", "--hosts", str(hosts), "--vms", str(vms), "--write", str(settings)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
            try:
                while not settings.exists() or f"[hosts.h{hosts}]" not in settings.read_text():
                    if running.poll() is not None:
                        sys.exit(f"{fleet} has ended")
                    time.sleep(0.05)
                print("\nSimulated hosts:", end=" ", flush=True)
                again(str(settings))
            finally:
                running.terminate()


def real(testbed: str, hosts: int, guests: int) -> None:
    """Compares on daemons and guests of a testbed. ``testbed`` is the program."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "bed.toml")
        script = '"$0" config > "$1" && exec "$2" "$3" "$1"'
        command = ["sh", "-c", script, testbed, str(settings), sys.executable, __file__]
        print("\nReal daemons:", end=" ", flush=True)
        subprocess.run([testbed, "run", "--hosts", str(hosts), "--guests", str(guests), "--", *command], check=True)


def again(settings: str) -> None:
    """Compares in a process of its own, so that none starts with what another has left in memory."""
    subprocess.run([sys.executable, __file__, settings], check=True)


def main() -> None:
    if len(sys.argv) == 2:
        compare(sys.argv[1])
        return
    fleet, testbed = sys.argv[1:]
    simulated(fleet, 10, 10)
    simulated(fleet, 20, 20)
    real(testbed, 3, 4)


if __name__ == "__main__":
    main()
