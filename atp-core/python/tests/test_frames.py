"""Outcomes as tables."""

import pytest
from atp_libvirt import Fleet
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
    pandas = outcomes.to_pandas()
    assert list(pandas["status"]) == [outcome.status for outcome in outcomes]
    assert polars.DataFrame(outcomes).filter(polars.col("exit_code") == 0).height == 3


def test_replies_are_columns_of_json(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        table = pyarrow.table(fleet.qmp("h1/vm1", "query-status"))
    assert table.column_names == [*COMMON, "data"]


def test_readers_share_the_buffers_of_numbers(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        outcomes = fleet.vms()

    def address() -> int:
        (chunk,) = pyarrow.table(outcomes)["duration_ms"].chunks
        return int(chunk.buffers()[1].address)

    assert address() == address()


def test_no_outcomes_are_a_frame_too(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        assert fleet.vms().failed.to_polars().columns == COMMON
