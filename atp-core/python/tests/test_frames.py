"""Outcomes as tables."""

import time
from typing import Any, Dict, Sequence

import pytest
from atp_libvirt import Fleet, RequestError, Statistics
from conftest import Simulated

polars = pytest.importorskip("polars")
pyarrow = pytest.importorskip("pyarrow")

COMMON = [
    "host",
    "vm",
    "uuid",
    "op",
    "status",
    "effect",
    "attempts",
    "duration_ms",
    "error_kind",
    "error",
    "retryable",
    "hint",
]

STATISTICS = [
    "at",
    "host",
    "vm",
    "uuid",
    "state",
    "stale_ms",
    "error_kind",
    "vcpus",
    "cpu_time_ns",
    "cpu_percent",
    "memory_kib",
    "resident_kib",
    "usable_kib",
    "read_bytes_per_second",
    "write_bytes_per_second",
    "rx_bytes_per_second",
    "tx_bytes_per_second",
]


def test_a_listing_is_a_frame(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        frame = fleet.vms().to_polars()
    assert frame.columns == [*COMMON, "state", "reason", "vcpus", "memory_kib", "max_memory_kib"]
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
    assert table.column_names == [*COMMON, "exit_code", "signal", "stdout", "stderr"]
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
    assert frame.columns == STATISTICS
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


def test_no_outcomes_are_a_frame_too(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        assert fleet.vms().failed.to_polars().columns == COMMON
