"""libvirt-python with a pool of threads: does one job that JSON describes, and prints its cost as JSON.

`job` is hostname, query-status, query-once, list or exec; `uris` the hosts; `threads` how many there are for each host; `shared`
whether the threads of a host share a connection or have one each; `calls` how many a host (hostname) or a VM
(query-status) gets.
"""

import concurrent.futures
import json
import sys
import threading
import time

import libvirt
import libvirt_qemu

QUERY = '{"execute":"query-status"}'
# The maximum pause between two polls of a process in a guest, seconds.
POLL = 0.01


def main():
    work = json.loads(sys.argv[1])
    job = work["job"]
    hosts = [Host(uri, work["threads"], work["shared"]) for uri in work["uris"]]
    if job == "list":
        for answer in [host.pool.submit(host.listing) for host in hosts]:
            for row in answer.result():
                print(*row)
        return
    if job == "exec":
        answers = [answer for host in hosts for answer in host.on_each_guest(run_true)]
        if any(answer.result() != 0 for answer in answers):
            sys.exit("true failed")
        return
    if job == "query-once":
        for answer in [answer for host in hosts for answer in host.on_each_guest(query)]:
            print(answer.result())
        return
    if job == "hostname":
        tasks = [(host, Host.hostname, ()) for _ in range(work["calls"]) for host in hosts]
    else:
        guests = [(host, Host.query_status, (vm,)) for host in hosts for vm in host.guests()]
        tasks = guests * work["calls"]
    for host in hosts:
        host.warm_up()
    cpu, start = time.process_time(), time.perf_counter()
    answers = [host.pool.submit(timed, call, host, *given) for host, call, given in tasks]
    latencies = [answer.result() for answer in answers]
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps({"operations": len(tasks), "wall": wall, "cpu": cpu, "latencies": latencies}))


def timed(call, *given):
    start = time.perf_counter()
    call(*given)
    return time.perf_counter() - start


def query(domain):
    return libvirt_qemu.qemuMonitorCommand(domain, QUERY, 0)


def run_true(domain):
    start = '{"execute":"guest-exec","arguments":{"path":"true","capture-output":true}}'
    answer = libvirt_qemu.qemuAgentCommand(domain, start, 60, 0)
    status = json.dumps(
        {"execute": "guest-exec-status", "arguments": {"pid": json.loads(answer)["return"]["pid"]}}
    )
    pause = POLL / 8
    while True:
        ended = json.loads(libvirt_qemu.qemuAgentCommand(domain, status, 60, 0))["return"]
        if ended["exited"]:
            return ended["exitcode"]
        time.sleep(pause)
        pause = min(2 * pause, POLL)


class Host:
    """A host, its connections, and the threads that use them."""

    def __init__(self, uri, threads, shared):
        self.uri = uri
        self.threads = threads
        self.own = threading.local()
        self.shared = libvirt.open(uri) if shared else None
        self.barrier = threading.Barrier(threads)
        self.pool = concurrent.futures.ThreadPoolExecutor(threads)

    def connection(self):
        if self.shared is not None:
            return self.shared
        if not hasattr(self.own, "connection"):
            self.own.connection = libvirt.open(self.uri)
            self.own.domains = {}
        return self.own.connection

    def warm_up(self):
        """Starts every thread, with its connection open and its domains looked up."""

        def meet():
            self.hostname()
            for vm in self.names:
                self.domain(vm)
            self.barrier.wait()

        for answer in [self.pool.submit(meet) for _ in range(self.threads)]:
            answer.result()

    names = ()

    def guests(self):
        domains = self.connection().listAllDomains()
        self.names = sorted(domain.name() for domain in domains)
        return self.names

    def domain(self, vm):
        connection = self.connection()
        known = self.own.domains if self.shared is None else self.__dict__.setdefault("domains", {})
        if vm not in known:
            known[vm] = connection.lookupByName(vm)
        return known[vm]

    def on_each_guest(self, call):
        return [self.pool.submit(lambda vm=vm: call(self.domain(vm))) for vm in self.guests()]

    def listing(self):
        rows = []
        for domain in self.connection().listAllDomains():
            state, _, memory, vcpus, _ = domain.info()
            rows.append((self.uri, domain.name(), state, vcpus, memory))
        return rows

    def hostname(self):
        self.connection().getHostname()

    def query_status(self, vm):
        query(self.domain(vm))


main()
