"""Outcomes as tables."""

import pickle
import time
from typing import Any, Callable, Dict, Iterator, Sequence, Tuple

import pytest
from atp_libvirt import Fleet, Outcomes, RequestError, Statistics
from conftest import Simulated

polars = pytest.importorskip("polars")
pyarrow = pytest.importorskip("pyarrow")

TEXT = "string"
WORD = "dictionary<values=string, indices=int32, ordered=0>"

#: The columns of all outcomes, with their types, as the guide has them.
COMMON = {
    "host": WORD,
    "vm": TEXT,
    "uuid": TEXT,
    "op": WORD,
    "status": WORD,
    "effect": WORD,
    "attempts": "uint32",
    "duration_ms": "uint64",
    "error_kind": WORD,
    "error": TEXT,
    "retryable": "bool",
    "hint": TEXT,
}
DOMAIN = {"state": WORD, "reason": TEXT, "vcpus": "uint32", "memory_kib": "uint64", "max_memory_kib": "uint64"}
EXEC = {"exit_code": "int32", "signal": "int32", "stdout": TEXT, "stderr": TEXT}
HOST = {
    "hostname": TEXT,
    "daemon_version": TEXT,
    "hypervisor": WORD,
    "hypervisor_version": TEXT,
    "latency_ms": "double",
    "domains": "uint64",
    "connect_ms": "double",
    "active_domains": "uint64",
}
STATE = {"state": WORD}
DATA = {"data": TEXT}

#: Those of statistics.
STATISTICS = {
    "at": "timestamp[ms, tz=UTC]",
    "host": WORD,
    "vm": TEXT,
    "uuid": TEXT,
    "state": WORD,
    "stale_ms": "uint64",
    "error_kind": WORD,
    "vcpus": "uint32",
    "cpu_time_ns": "uint64",
    "cpu_percent": "double",
    "memory_kib": "uint64",
    "resident_kib": "uint64",
    "usable_kib": "uint64",
    "read_bytes_per_second": "double",
    "write_bytes_per_second": "double",
    "rx_bytes_per_second": "double",
    "tx_bytes_per_second": "double",
}

#: A call of a verb on no host, and what comes after the common columns.
VERBS: "Dict[str, Tuple[Callable[[Fleet], Outcomes[Any]], Dict[str, str]]]" = {
    "vms": (lambda fleet: fleet.vms("*"), DOMAIN),
    "info": (lambda fleet: fleet.info("*"), {**DOMAIN, **DATA}),
    "start": (lambda fleet: fleet.start("*"), STATE),
    "suspend": (lambda fleet: fleet.suspend("*"), STATE),
    "snapshot_revert": (lambda fleet: fleet.snapshot_revert("*", "none"), STATE),
    "exec": (lambda fleet: fleet.exec("*", ["true"]), EXEC),
    "shell": (lambda fleet: fleet.shell("*", "true"), EXEC),
    "check": (lambda fleet: fleet.check("*"), HOST),
    "xml": (lambda fleet: fleet.xml("*"), DATA),
    "qmp": (lambda fleet: fleet.qmp("*", "query-status"), DATA),
    "wait": (lambda fleet: fleet.wait("*", timeout=1), DATA),
    "autostart": (lambda fleet: fleet.autostart("*", True), DATA),
    "snapshot_list": (lambda fleet: fleet.snapshot_list("*"), DATA),
}


def types(table: Any) -> Dict[str, str]:
    """The columns of a table, with their types."""
    schema = pyarrow.table(table).schema
    return {field.name: str(field.type) for field in schema}


@pytest.fixture(scope="module")
def nowhere() -> Iterator[Fleet]:
    """A fleet whose only host is not there."""
    with Fleet(hosts={"h1": "qemu+tcp://127.0.0.1:1/system"}, settings={"retries": 0}) as fleet:
        yield fleet


@pytest.mark.parametrize("verb", list(VERBS))
def test_columns_are_those_of_the_verb_whatever_came_of_it(nowhere: Fleet, verb: str) -> None:
    call, columns = VERBS[verb]
    outcomes = call(nowhere)
    assert len(outcomes) == 1 and not outcomes[0].ok
    assert list(types(outcomes).items()) == list({**COMMON, **columns}.items())
    assert types(outcomes.ok) == types(outcomes) and len(outcomes.ok) == 0
    assert types(pickle.loads(pickle.dumps(outcomes.ok))) == types(outcomes)


def test_columns_are_the_same_where_something_came_of_it(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        for verb in ("vms", "info", "suspend", "exec", "check", "xml", "qmp", "snapshot_list"):
            call, columns = VERBS[verb]
            outcomes = call(fleet)
            if verb == "suspend":
                fleet.resume("*").raise_for_failures()
            assert outcomes.raise_for_failures() and list(types(outcomes)) == [*COMMON, *columns], verb
            values = pyarrow.table(outcomes).to_pylist()
            filled = {name for row in values for name, value in row.items() if value is not None}
            assert {"state", "exit_code", "hostname", "connect_ms", "data"} & {*columns} <= filled, verb
            assert types(outcomes) == {**COMMON, **columns}, verb
        none = fleet.vms("zz*")
        assert len(none) == 0 and types(none) == {**COMMON, **DOMAIN}


def test_a_listing_is_a_frame(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        frame = fleet.vms().to_polars()
    assert frame.columns == [*COMMON, *DOMAIN]
    assert frame["vm"].to_list() == ["vm1", "vm2"] * 2
    assert frame["state"].to_list() == ["running"] * 4
    assert frame["error"].null_count() == 4


def test_processes_are_a_frame(simulated: Simulated) -> None:
    simulated.fault("h1/vm1", "agent-absent")
    try:
        with Fleet(simulated.config) as fleet:
            outcomes = fleet.exec("*", ["true"], timeout=20)
    finally:
        simulated.heal("h1/vm1")
    table = pyarrow.table(outcomes)
    assert table.column_names == [*COMMON, *EXEC]
    assert table["exit_code"].to_pylist() == [None, 0, 0, 0]
    statuses = [outcome.status for outcome in outcomes]
    assert list(outcomes.to_pandas()["status"]) == statuses
    pandas = pytest.importorskip("pandas")
    assert list(pandas.DataFrame.from_arrow(outcomes)["status"]) == statuses
    assert polars.DataFrame(outcomes).filter(polars.col("exit_code") == 0).height == 3


def test_statistics_are_measured_with_rates(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        statistics = fleet.stats(["h1/*", "h2/vm9"], interval=0.2, count=2)
        assert [vm.vm for vm in statistics] == ["vm1", "vm2"] * 2
        assert statistics.not_found == ["h2/vm9"]
        assert statistics[0].cpu.percent is not None and statistics[0].disks[0].read_bytes_per_second is not None
        assert {host.host: host.stale for host in statistics.hosts} == {"h1": None, "h2": None}
        with fleet.stream.stats("h2/*", interval=0.1) as samples:
            first, second = next(samples), next(samples)
        assert first.at is not None and second.at is not None and first.at < second.at
        with pytest.raises(RequestError):
            fleet.stats("h9/*")
        with pytest.raises(ValueError, match="interval"):
            fleet.stats(interval=0)
    frame = statistics.to_polars()
    assert list(types(statistics).items()) == list(STATISTICS.items())
    assert types(statistics[:0]) == STATISTICS
    assert frame["vm"].to_list() == ["vm1", "vm2"] * 2
    assert frame["cpu_percent"].null_count() == 0
    assert frame["at"].n_unique() == 2
    assert list(statistics[:1].to_pandas()["state"]) == ["running"]


def test_replies_are_columns_of_json(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        table = pyarrow.table(fleet.qmp("h1/vm1", "query-status"))
    assert table.column_names == [*COMMON, "data"]


def test_duckdb_reads_what_it_is_given(simulated: Simulated) -> None:
    duckdb = pytest.importorskip("duckdb")
    with Fleet(simulated.config) as fleet:
        outcomes = fleet.vms()
        statistics = fleet.stats(interval=0.1)
    rows = duckdb.sql("SELECT vm, count(*) FROM outcomes WHERE state = 'running' GROUP BY vm ORDER BY vm").fetchall()
    assert rows == [("vm1", 2), ("vm2", 2)] and len(outcomes) == 4
    found = duckdb.sql("SELECT count(*), max(vcpus) FROM statistics WHERE host = 'h1'").fetchall()
    assert found[0][0] == len(statistics) // 2 and found[0][1] >= 1


def addresses(table: Any, columns: Sequence[str]) -> Dict[str, int]:
    """Where the values of columns are in memory."""
    taken: Dict[str, int] = {}
    for name in columns:
        (chunk,) = table[name].chunks
        taken[name] = chunk.buffers()[1].address
    return taken


def test_readers_share_the_buffers_of_numbers(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        outcomes = fleet.vms()
    columns = ["attempts", "duration_ms", "vcpus", "memory_kib"]
    # All are held: memory that is free again may be used for a copy.
    first, second = pyarrow.table(outcomes), pyarrow.table(outcomes)
    frame = polars.DataFrame(outcomes)
    other = pyarrow.table(outcomes.ok)
    assert addresses(first, columns) == addresses(second, columns)
    assert {name: frame[name].to_arrow().buffers()[1].address for name in columns} == addresses(first, columns)
    assert not set(addresses(other, columns).values()) & set(addresses(first, columns).values())


def test_a_million_rows_are_a_frame_without_copies_of_numbers(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        sample = fleet.stats(interval=0.1)
    count = 1_000_000
    many = Statistics(sample._native.select([index % len(sample) for index in range(count)]), ())
    began = time.monotonic()
    frame = polars.DataFrame(many)
    took = time.monotonic() - began
    assert frame.height == count
    columns = ["cpu_time_ns", "cpu_percent", "memory_kib", "resident_kib", "read_bytes_per_second", "rx_bytes_per_second"]
    source = pyarrow.table(many)
    assert {name: frame[name].to_arrow().buffers()[1].address for name in columns} == addresses(source, columns)
    # Not optimised, on a machine that does other work; `benches/peers.py` measures it.
    assert took < 120, took
