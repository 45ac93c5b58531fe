"""The package beside libvirt-python with a pool of threads, on the same hosts, in one process.

    cargo xtask python --release --no-test
    cargo xtask fleet --release up --hosts 20 --vms 20 --write fleet.toml
    python benches/peers.py fleet.toml          # with the wheel, polars, pyarrow and libvirt-python installed

Each pair is measured in turns, so that what else the machine does meets both. A line has the medians of the rounds, and the medians of
the pairs' ratios: how many times as fast the package is, and what part of the processor time it takes.
"""

import json
import os
import resource
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
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


def main() -> None:
    fleet = Fleet(sys.argv[1])
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


if __name__ == "__main__":
    main()
