"""The package beside libvirt-python with a pool of threads, on the same simulated hosts, in one process.

    cargo xtask python --release --no-test
    cargo xtask fleet --release up --hosts 20 --vms 20 --write fleet.toml
    python benches/peers.py fleet.toml          # with the wheel, polars and libvirt-python installed

Each line is the time and the processor time of one round, the median of several, of both.
"""

import json
import resource
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List, Tuple

from atp_libvirt import Fleet

# Debian's package, for an environment that does not see the system's.
sys.path.append("/usr/lib/python3/dist-packages")
import libvirt  # noqa: E402
import libvirt_qemu  # noqa: E402

ROUNDS = 7
THREADS = 64
SINGLE_CALLS = 200
COMMAND = json.dumps({"execute": "query-status"})


def measured(work: Callable[[], Any]) -> Tuple[float, float]:
    """Seconds, and seconds of the processor, of one round."""
    rounds: List[Tuple[float, float]] = []
    work()
    for _ in range(ROUNDS):
        usage, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        work()
        took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        rounds.append((took, after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime))
    return statistics.median(wall for wall, _ in rounds), statistics.median(cpu for _, cpu in rounds)


def main() -> None:
    fleet = Fleet(sys.argv[1])
    hosts: Dict[str, Any] = {host.id: libvirt.open(host.uri) for host in fleet.hosts()}
    domains = [domain for connection in hosts.values() for domain in connection.listAllDomains()]
    pool = ThreadPoolExecutor(THREADS)
    one = next(iter(hosts.values())).listAllDomains()[0]
    target = f"{next(iter(hosts))}/{one.name()}"

    def rows(connection: Any) -> List[Tuple[str, int]]:
        return [(domain.name(), domain.info()[0]) for domain in connection.listAllDomains()]

    def monitor(domain: Any) -> str:
        return str(libvirt_qemu.qemuMonitorCommand(domain, COMMAND, 0))

    rounds: List[Tuple[str, Callable[[], Any], Callable[[], Any]]] = [
        ("a listing", fleet.vms, lambda: list(pool.map(rows, hosts.values()))),
        (
            f"one monitor command on each of {len(domains)} VMs",
            lambda: fleet.qmp("*", "query-status").raise_for_failures(),
            lambda: list(pool.map(monitor, domains)),
        ),
        (
            f"{SINGLE_CALLS} monitor commands, one after the other",
            lambda: [fleet.qmp(target, "query-status") for _ in range(SINGLE_CALLS)],
            lambda: [monitor(one) for _ in range(SINGLE_CALLS)],
        ),
    ]
    print(f"{'':52}{'atp_libvirt':>22}{'libvirt-python':>22}{'rate':>8}{'cpu':>8}")
    for name, ours, theirs in rounds:
        (wall, cpu), (their_wall, their_cpu) = measured(ours), measured(theirs)
        times = f"{wall * 1000:8.1f} ms {cpu * 1000:6.0f} cpu{their_wall * 1000:8.1f} ms {their_cpu * 1000:6.0f} cpu"
        print(f"{name:52}{times}{their_wall / wall:8.2f}{cpu / their_cpu:8.2f}", flush=True)
    fleet.close()


if __name__ == "__main__":
    main()
