"""A fleet and its outcomes, on simulated hosts."""

import json
import pickle
import re
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Dict, List, Optional, Set

import pytest
from atp_libvirt import (
    AtpError,
    ClosedError,
    ConfigError,
    DomainInfo,
    ExecReport,
    FailedOutcomes,
    Fleet,
    NotFreeError,
    OutcomeError,
    RequestError,
    ServiceError,
    StateReport,
    check_scenario,
)
from atp_libvirt import Outcome as OutcomeOf
from atp_libvirt import _native, _streams
from atp_libvirt._errors import exception
from conftest import Simulated

TARGETS = ["h1/vm1", "h1/vm2", "h2/vm1", "h2/vm2"]


def test_a_program_runs_on_every_selected_vm(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        outcomes = fleet.exec("*", ["echo", "hi"], timeout=30)
        assert [outcome.target for outcome in outcomes] == TARGETS
        assert all(outcome.ok and outcome.op == "exec" and outcome.effect == "done" for outcome in outcomes)
        reports = outcomes.raise_for_failures().values()
        assert all(isinstance(report, ExecReport) and report.exit_code == 0 for report in reports)
        assert [outcome.target for outcome in fleet.exec("*", ["true"], exclude="h1/*")] == TARGETS[2:]


def test_a_listing_has_a_row_for_each_vm(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        vms = fleet.vms()
        assert [vm.target for vm in vms] == TARGETS
        first = vms[0].unwrap()
        assert isinstance(first, DomainInfo)
        assert (first.name, first.state) == ("vm1", "running")
        assert [host.id for host in fleet.hosts()] == ["h1", "h2"]
        assert [vm.target for vm in vms[1:3]] == TARGETS[1:3]
        assert vms[-1].target == TARGETS[-1]
        with pytest.raises(IndexError):
            vms[4]


def test_a_vm_changes_its_state_and_back(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        (paused,) = fleet.suspend("h1/vm2").raise_for_failures()
        assert paused.data == StateReport("paused")
        assert fleet.vms("h1/*", state="paused")[0].vm == "vm2"
        (again,) = fleet.suspend("h1/vm2")
        assert (again.status, again.ok) == ("unchanged", True)
        assert fleet.resume("h1/vm2").raise_for_failures().values() == [StateReport("running")]


def test_a_failure_has_its_kind_effect_and_hint(simulated: Simulated) -> None:
    simulated.fault("h2/vm1", "agent-absent")
    try:
        with Fleet(simulated.config) as fleet:
            outcomes = fleet.exec("*", ["true"], timeout=20)
            assert [outcome.target for outcome in outcomes.failed] == ["h2/vm1"]
            assert len(outcomes.ok) == 3
            error = outcomes.failed[0].error
            assert isinstance(error, OutcomeError)
            assert (error.effect, bool(error.kind), bool(error.message)) == ("none", True, True)
            assert outcomes.failed[0].to_dict()["error"]["kind"] == error.kind
            with pytest.raises(FailedOutcomes, match="1 of 4 targets failed") as raised:
                outcomes.raise_for_failures()
            assert raised.value.kind == error.kind
            assert len(raised.value.outcomes) == 1
            with pytest.raises(OutcomeError):
                outcomes.values()
            groups = outcomes.grouped()
            assert [len(group) for group in groups.values()] == [3, 1]
            assert list(groups)[1] == error.kind
            by_host = outcomes.grouped(lambda outcome: outcome.host)
            assert {key: len(group) for key, group in by_host.items()} == {"h1": 2, "h2": 2}
            copy = pickle.loads(pickle.dumps(error))
            assert (copy.kind, copy.hint, str(copy)) == (error.kind, error.hint, str(error))
            of_all = pickle.loads(pickle.dumps(raised.value))
            assert (type(of_all), str(of_all)) == (FailedOutcomes, str(raised.value))
            assert of_all.outcomes[0].to_dict() == outcomes.failed[0].to_dict()
            assert str(of_all).count(error.kind) == 1
            whole = pickle.loads(pickle.dumps(outcomes))
            assert [one.to_dict() for one in whole] == [one.to_dict() for one in outcomes]
            assert (whole.statistics, whole.notices) == (outcomes.statistics, outcomes.notices)
            assert pickle.loads(pickle.dumps(outcomes[1])).unwrap() == outcomes[1].unwrap()
    finally:
        simulated.heal("h2/vm1")


def test_a_stream_has_each_outcome_once(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        seen = [outcome.target for outcome in fleet.stream.exec("*", ["true"])]
        assert sorted(seen) == TARGETS
        with fleet.stream.vms() as stream:
            assert next(stream).ok
        assert list(stream) == []


def test_a_stream_shows_a_vm_that_hangs_last(simulated: Simulated) -> None:
    simulated.fault("h1/vm1", "hung")
    try:
        with Fleet(simulated.config) as fleet:
            seen = [(outcome.target, outcome.status) for outcome in fleet.stream.exec("*", ["true"], timeout=6)]
            assert [target for target, status in seen[:3] if status == "ok"] == [target for target, _ in seen[:3]]
            assert seen[3] == ("h1/vm1", "timeout")
    finally:
        simulated.heal("h1/vm1")


def test_a_scenario_has_the_targets_of_its_file(simulated: Simulated, tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("name: smoke\ntargets: ['h1/*']\nsteps:\n  - exec: uname -r\n  - wait: agent\n")
    with Fleet(simulated.config) as fleet:
        outcomes = fleet.run(scenario).raise_for_failures()
        assert [outcome.target for outcome in outcomes] == TARGETS[:2]
        report = outcomes[0].unwrap()
        assert (report.scenario, [step.status for step in report.steps]) == ("smoke", ["ok", "ok"])
        assert [outcome.target for outcome in fleet.run(scenario, "h2/vm1")] == ["h2/vm1"]


def test_a_scenario_may_include_files_and_all_of_its_errors_are_told(
    simulated: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s" / "parts").mkdir(parents=True)
    scenario, part = tmp_path / "s" / "main.yaml", tmp_path / "s" / "parts" / "part.yaml"
    scenario.write_text("name: s\ntargets: ['h1/vm1']\nvariables: {a: b}\nsteps:\n  - include: parts/part.yaml\n")
    part.write_text("- exec: [echo, '${a}']\n- wait: agent\n")
    # Files are included from the scenario's folder, wherever the process is.
    monkeypatch.chdir(tmp_path)
    check_scenario("s/main.yaml", variables={"a": "c"})
    with Fleet(simulated.config) as fleet:
        (report,) = fleet.run("s/main.yaml", variables={"a": "from-a-part"}).raise_for_failures().values()
        assert [step.status for step in report.steps] == ["ok", "ok"]
        assert "echo from-a-part" in simulated.report()["hosts"]["h1"]["vms"]["vm1"]["programs"]
        part.write_text("- exce: true\n- wait: agnt\n")
        for check in (fleet.run, check_scenario):
            with pytest.raises(RequestError) as raised:
                check("s/main.yaml")
            first, second = raised.value.message.splitlines()
            assert first.startswith("s/parts/part.yaml:1:") and "exce" in first
            assert second.startswith("s/parts/part.yaml:2:") and "agnt" in second
    part.write_bytes(b"\xff")
    with pytest.raises(RequestError, match="part.yaml"):
        check_scenario("s/main.yaml")
    with pytest.raises(RequestError, match="none.yaml"):
        check_scenario(tmp_path / "none.yaml")
    part.write_text("- wait: agent\n")
    with pytest.raises(RequestError, match="no variable"):
        check_scenario("s/main.yaml", variables={"b": "c"})


def test_hosts_are_given_in_any_way(simulated: Simulated, tmp_path: Path) -> None:
    with Fleet(simulated.config) as fleet:
        uris = {host.id: host.uri for host in fleet.hosts()}
    with Fleet(hosts=uris) as fleet:
        assert [vm.target for vm in fleet.vms()] == TARGETS
    with Fleet(hosts=list(uris.values())) as fleet:
        assert len(fleet.vms().raise_for_failures()) == 4
    one = {"h.1": {"uri": uris["h1"], "groups": ["rack"], "labels": {"zone": "a"}}}
    with Fleet(hosts=one, settings={"timeout": "9s", "transport.call_timeout": "8s"}) as fleet:
        assert [vm.host for vm in fleet.vms("@rack/*", labels={"zone": "a"})] == ["h.1", "h.1"]
    with Fleet(environment={"ATP_HOSTS__A__URI": uris["h1"], "HOME": str(tmp_path)}) as fleet:
        assert [host.id for host in fleet.hosts()] == ["a"]
    with pytest.raises(ConfigError, match="unknown key") as raised:
        Fleet(hosts=uris, settings={"tiemout": 1, "transport": {"call_timeot": 1}})
    assert len(str(raised.value).splitlines()) == 2
    assert raised.value.hint is not None


def test_what_cannot_be_done_is_refused_before_a_host_is_asked(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        with pytest.raises(RequestError) as raised:
            fleet.vms("h9/*")
        assert raised.value.kind == "unknown-host"
        with pytest.raises(RequestError) as raised:
            fleet.vms("h1/[")
        assert raised.value.kind == "invalid-selector"
        with pytest.raises(RequestError, match="paralel"):
            fleet.operate("*", {"op": "exec", "program": "x", "paralel": 3})
        with pytest.raises(TypeError, match="paralel"):
            fleet.vms(paralel=3)  # type: ignore[call-arg]
        with pytest.raises(RequestError) as raised:
            fleet.push("*", simulated.config.parent, "/tmp/x")
        assert raised.value.kind == "local-file-error"
        with pytest.raises(TypeError, match="words"):
            fleet.exec("*", "uname -r")
        for count in (0, -1):
            with pytest.raises(ValueError, match="count is at least 1"):
                fleet.stats(count=count)
    with pytest.raises(ConfigError, match="no URI") as of_config:
        Fleet("qemu+tcp://user:secret@h1/system")
    assert "hosts=" in str(of_config.value) and "secret" not in str(of_config.value)
    with pytest.raises(ClosedError):
        fleet.vms()
    fleet.close()


def test_events_come_while_vms_are_changed(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        with fleet.events("h1/*") as events:
            first = next(events)
            assert (first.item, first.host) == ("present", "h1")
            fleet.suspend("h1/vm1").raise_for_failures()
            event = next(event for event in events if event.item == "event")
            assert (event.host, event.vm, event.kind) == ("h1", "vm1", "lifecycle")
        assert list(events) == []
        fleet.resume("h1/vm1").raise_for_failures()
        with fleet.events("h9/*") as events:
            with pytest.raises(RequestError):
                next(events)
            # It has ended with its error.
            assert list(events) == []
        with fleet.events(["h1/vm1", "h1/vm9"]) as events:
            missed = next(event for event in events if event.item == "not-found")
        assert missed.data["target"] == "h1/vm9"


def test_a_stream_holds_its_fleet(simulated: Simulated) -> None:
    assert next(Fleet(simulated.config).events("h1/*")).item == "present"
    assert sorted(outcome.target for outcome in Fleet(simulated.config).stream.vms()) == TARGETS
    assert next(Fleet(simulated.config).console_lines("h1/vm2", timeout=600)).vm == "vm2"
    assert len(next(Fleet(simulated.config).stream.stats("h1/*", interval=0.1))) == 2


def test_any_operation_can_be_given_as_json(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        (outcome,) = fleet.operate("h1/vm1", {"op": "exec", "program": "true"})
        assert isinstance(outcome.data, ExecReport)
        status = fleet.qmp("h1/vm1", "query-status").values()[0]
        assert json.dumps(status)


def test_a_vm_goes_back_to_a_snapshot(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        made = fleet.snapshot_create("h1/*", "clean", description="before").raise_for_failures().values()
        assert [(snapshot.name, snapshot.current) for snapshot in made] == [("clean", True)] * 2
        assert fleet.snapshot_create("h1/vm1", "clean")[0].to_dict()["error"]["kind"] == "snapshot-exists"
        fleet.suspend("h1/vm1").raise_for_failures()
        reverted = fleet.snapshot_revert("h1/*", "clean").raise_for_failures().values()
        assert reverted == [StateReport("running")] * 2
        (listed,) = fleet.snapshot_list("h1/vm2").values()
        assert [snapshot.name for snapshot in listed.snapshots] == ["clean"]
        fleet.snapshot_delete("h1/*", "clean").raise_for_failures()
        assert fleet.snapshot_list("h1/vm2").values()[0].snapshots == []


def test_definitions_are_read_and_vms_saved(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        (definition,) = fleet.xml("h1/vm1").values()
        assert definition.xml.startswith("<domain ")
        assert fleet.save("h1/vm1").values() == [StateReport("shut off")]
        assert fleet.restore("h1/vm1").values() == [StateReport("running")]
        # They yield nothing, and that is no failure.
        assert fleet.autostart("h1/*", True).values() == [None, None]
        nothing = fleet.vm("h1/vm1").nmi()
        assert nothing.ok and nothing.data is None
        nothing.unwrap()


def test_a_console_is_captured_and_read_line_by_line(simulated: Simulated, tmp_path: Path) -> None:
    with Fleet(simulated.config) as fleet:
        (captured,) = fleet.console("h1/vm1", tmp_path, timeout=8).values()
        assert captured.file is not None and captured.file == str(tmp_path / "h1" / "vm1.log")
        assert "the console is open" in Path(captured.file).read_text()
        with fleet.console_lines("h2/*", timeout=600) as lines:
            of: Set[Optional[str]] = set()
            while of != {"vm1", "vm2"}:
                of.add(next(lines).vm)
        assert list(lines) == []
        (refused,) = fleet.console_lines("h2/vm9", timeout=60)
        assert refused.error is not None and (refused.vm, refused.error.kind) == ("vm9", "vm-not-found")


def test_two_jobs_never_have_one_vm(simulated: Simulated, tmp_path: Path) -> None:
    file = tmp_path / "vms"
    with Fleet(simulated.config) as fleet:
        with fleet.reserve("h1/*", file=file, count=2, time=600) as reserved:
            assert reserved.targets == TARGETS[:2]
            with pytest.raises(NotFreeError, match="0 of the 2 selected are free") as raised:
                fleet.reserve("h1/*", file=file, wait=0.1)
            assert raised.value.retryable
            with fleet.reserve("*", file=file, owner="job-1") as others:
                assert others.targets == ["h2/vm1"]
                assert [one.target for one in fleet.release("job-1", file)] == ["h2/vm1"]
            assert reserved[0].until.year > 2000
        assert fleet.release("job-1", file) == []
        fleet.reserve("h2/*", file=file, owner="job-2", count=2)
        assert [one.target for one in fleet.reservations(file)] == TARGETS[2:]
        assert fleet.release("job-2", file, targets=[]) == []
        assert [one.target for one in fleet.release("job-2", file, targets="h2/*1")] == TARGETS[2:3]
        assert [(one.target, one.owner) for one in fleet.reservations(file)] == [(TARGETS[3], "job-2")]
        with pytest.raises(RequestError):
            fleet.release("job-2", file, targets="h2/[")
        assert len(fleet.release("job-2", file)) == 1
        with pytest.raises(NotFreeError, match="9 VMs are wanted"):
            fleet.reserve("*", file=file, count=9)
        granted = fleet.reserve("h1/*", file=file, count=2)
        threading.Timer(0.2, granted.release).start()
        with fleet.reserve("h1/vm1", file=file, wait=60) as reserved:
            assert len(reserved) == 1
        with pytest.raises(AtpError, match="no-such-folder"):
            fleet.reserve("*", file=tmp_path / "no-such-folder" / "vms")


def test_a_fleet_that_is_closed_waits_for_no_vm(simulated: Simulated, tmp_path: Path) -> None:
    file = tmp_path / "vms"
    fleet = Fleet(simulated.config)
    reserved = fleet.reserve("h1/*", file=file, count=2)
    later = threading.Timer(0.5, fleet.close)
    later.start()
    with pytest.raises(ClosedError):
        fleet.reserve("h1/*", file=file, wait=600)
    later.join()
    # Who has them may give them back all the same.
    assert len(reserved.release()) == 2


def test_a_vm_that_was_found_is_worked_on_alone(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        vm = fleet.vm("h1/vm1", timeout=60)
        assert (vm.host, vm.name, vm.target, vm.uuid) == ("h1", "vm1", "h1/vm1", fleet.vms("h1/vm1")[0].uuid)
        outcome = vm.exec(["true"], timeout=60)
        assert (outcome.target, outcome.op, outcome.unwrap().exit_code) == ("h1/vm1", "exec", 0)
        assert vm.state() == "running"
        assert vm.suspend().unwrap() == StateReport("paused")
        assert vm.state(timeout=60) == "paused"
        refused = vm.exec(["true"], timeout=60).error
        assert refused is not None and (refused.kind, refused.effect) == ("vm-not-running", "none")
        assert vm.resume().unwrap() == StateReport("running")
        simulated.fault("h1/vm1", "hung")
        try:
            silent = vm.qmp("query-status", timeout=1)
            assert (silent.status, fleet.vm("h1/vm2").qmp("query-status", timeout=60).status) == ("timeout", "ok")
        finally:
            simulated.heal("h1/vm1")
        for several in ("h1/*", "none-*"):
            with pytest.raises(RequestError, match="not one"):
                fleet.vm(several)
        with pytest.raises(OutcomeError) as raised:
            fleet.vm("h1/vm9")
        assert raised.value.kind == "vm-not-found"
        with pytest.raises(TypeError, match="paralel"):
            vm.exec(["true"], paralel=3)  # type: ignore[call-arg]
    with pytest.raises(ClosedError):
        vm.state()


def test_work_goes_on_while_nobody_waits_and_calls_come_and_go(simulated: Simulated, tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    with Fleet(simulated.config) as fleet:
        vm = fleet.vm("h1/vm1")
        for number in range(5):
            text = f"name: s\ntargets: ['h2/vm1']\nsteps:\n  - exec: [sleep, '0.1']\n  - exec: [echo, work-{number}]\n"
            scenario.write_text(text)
            assert [vm.qmp("query-status", timeout=60).status for _ in range(3)] == ["ok"] * 3
            stream = fleet.stream.run(scenario)
            assert [vm.qmp("query-status", timeout=60).status for _ in range(3)] == ["ok"] * 3
            # Nothing is asked of the fleet until the host has seen the last step.
            until = time.monotonic() + 60
            while f"echo work-{number}" not in simulated.report()["hosts"]["h2"]["vms"]["vm1"]["programs"]:
                assert time.monotonic() < until
            assert [outcome.ok for outcome in stream] == [True]


def test_two_hundred_threads_share_a_fleet(simulated: Simulated) -> None:
    results: List[List[str]] = []
    with Fleet(simulated.config) as fleet:

        def work() -> None:
            results.append([outcome.status for outcome in fleet.vms("h1/*", timeout=60)])

        threads = [threading.Thread(target=work) for _ in range(200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [["ok", "ok"]] * 200


def test_this_machine_is_the_fleet_only_if_nobody_says_which_hosts_there_are(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    with Fleet(environment=home) as fleet:
        assert [host.id for host in fleet.hosts()] == ["local"]
    empty: List[Dict[str, Any]] = [{"hosts": {}}, {"hosts": []}, {"settings": {"hosts": {}}}]
    for given in empty:
        with pytest.raises(ConfigError, match="the inventory is empty"):
            Fleet(environment=home, **given)
    file = tmp_path / "fleet.toml"
    file.write_text('timeout = "9s"\n')
    with pytest.raises(ConfigError, match="fleet.toml defines no host"):
        Fleet(file, environment=home)
    own = tmp_path / ".config" / "atp" / "config.toml"
    own.parent.mkdir(parents=True)
    own.write_text("[hosts]\n")
    with pytest.raises(ConfigError, match="config.toml defines no host"):
        Fleet(environment=home)


def test_only_variables_that_are_read_have_to_be_utf8(simulated: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_ANOTHER_PROGRAM", "\udcff")
    with Fleet(simulated.config) as fleet:
        assert len(fleet.hosts()) == 2
    monkeypatch.setenv("ATP_TIMEOUT", "\udcff")
    with pytest.raises(ConfigError, match="ATP_TIMEOUT"):
        Fleet(simulated.config)


def test_a_service_in_the_settings_is_not_passed_over(simulated: Simulated, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "ATP_SERVER": "https://user:secret@atp.example:9440"}
    with pytest.raises(ConfigError, match=f"the token for .* cannot be read from {tmp_path}/.config/atp/token") as raised:
        Fleet(environment=environment)
    assert raised.value.hint is not None and "secret" not in str(raised.value)
    with pytest.raises(ConfigError, match="cannot be read from there"):
        Fleet(simulated.config, environment={**environment, "ATP_SERVER_TOKEN_FILE": "there"})
    with Fleet(simulated.config, environment=environment, settings={"server": "none"}) as fleet:
        assert len(fleet.hosts()) == 2
    with Fleet(hosts={"a": "qemu+tcp://127.0.0.1:1/system"}, environment=environment) as fleet:
        assert [host.id for host in fleet.hosts()] == ["a"]


def test_an_encoding_that_is_not_known_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('[hosts.a]\nuri = "qemu+tcp://127.0.0.1:1/system"\n')
    with Fleet(file, settings={"encoding": "cp850"}, environment={}):
        pass
    file.write_text('encoding = "cp-850x"\n' + file.read_text())
    with pytest.raises(ConfigError, match=r'fleet\.toml:1: encoding: "cp-850x" is not a known encoding'):
        Fleet(file, environment={})


def test_hosts_are_targets_by_their_names(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        assert [outcome.target for outcome in fleet.check("h1")] == [outcome.target for outcome in fleet.check("h1/")]
        assert [outcome.host for outcome in fleet.check("h1")] == ["h1"]
        assert [outcome.host for outcome in fleet.check("h*", exclude="h1")] == ["h2"]
        assert [outcome.host for outcome in fleet.diagnose_hosts(["h2"])] == ["h2"]
        assert [outcome.host for outcome in fleet.operate("h2", {"op": "host-check"})] == ["h2"]
        assert len(fleet.check()) == len(fleet.check("*")) == 2


def test_refusals_of_a_service_are_errors_of_the_service() -> None:
    def class_of(kind: str) -> type:
        return type(exception(kind, "", "none", False, None, [], None))

    core = Path(__file__).parents[2]
    guide = (core.parent / "docs" / "serve.md").read_text()
    kinds: Dict[str, int] = {}
    for words, status in re.findall(r"^\| (`[a-z`, -]+`) \| (\d{3}) \|", guide, re.MULTILINE):
        kinds.update({word: int(status) for word in re.findall("[a-z-]+", words)})
    assert len(kinds) > 8
    # What is wrong with the request itself; the rest is between the service and this program.
    of_request = {kind for kind, status in kinds.items() if status in (400, 404, 409, 413)}
    assert {kind for kind in kinds if class_of(kind) is RequestError} == of_request
    known = (core / "api" / "schema.json").read_text()
    of_service = {kind for kind in re.findall(r'"const": "([a-z-]+)"', known) if class_of(kind) is ServiceError}
    assert of_service == set(kinds) - of_request | {"connection-refused", "panicked", "unknown"}


def test_the_target_of_an_outcome_selects_it_alone(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        (vm,) = fleet.vms("h1/vm1")
        as_glob: OutcomeOf[Any] = OutcomeOf(_native.Outcome(json.dumps({**vm.to_dict(), "vm": "vm*"})))
        assert as_glob.target == "h1/vm\\*"
        (missed,) = fleet.vms(as_glob.target)
        assert missed.error is not None and missed.error.kind == "vm-not-found"
        (host,) = fleet.check("h1")
        assert (host.target, [outcome.host for outcome in fleet.check(host.target)]) == ("h1/", ["h1"])


def test_a_run_without_targets_is_no_success(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        none = fleet.exec("none-*", ["true"])
        with pytest.raises(RequestError) as raised:
            none.raise_for_failures()
        assert raised.value.kind == "nothing-selected" and raised.value.hint is not None
        assert len(none.raise_for_failures(empty=True)) == 0
        # What is a part may be empty.
        assert len(fleet.vms().failed.raise_for_failures()) == 0


def test_states_are_written_as_they_are_read(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        assert fleet.destroy("h1/vm1", wait=True).values() == [StateReport("shut off")]
        for state in ("shut off", "shut-off"):
            assert [vm.target for vm in fleet.vms("*", state=state)] == TARGETS[:1]
            assert fleet.wait("h1/vm1", state, timeout=60).raise_for_failures()
        measured: List[str] = []
        for _ in range(30):  # On a busy machine one may be late for a round.
            if measured == TARGETS[1:]:
                break
            measured = [f"{vm.host}/{vm.vm}" for vm in fleet.stats(state="running", labels={}, interval=0.5)]
        assert measured == TARGETS[1:]
        assert len(fleet.stats(labels={"zone": "none"}, interval=0.1)) == 0
        assert fleet.start("h1/vm1", wait=True, timeout=60).values() == [StateReport("running")]


def test_events_end_when_their_time_is_over(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        # It would have no end without.
        assert {event.host for event in fleet.events("h1/*", timeout=1)} <= {"h1"}
        assert [event for event in fleet.events(labels={"zone": "none"}, timeout=0.1) if event.vm is not None] == []


def test_the_file_of_reservations_is_that_of_the_settings(simulated: Simulated, tmp_path: Path) -> None:
    file = tmp_path / "vms"
    with Fleet(simulated.config, settings={"reservations_file": str(file)}) as fleet:
        with fleet.reserve("h1/vm1") as reserved:
            assert [one.target for one in fleet.reservations()] == reserved.targets == TARGETS[:1]
            assert fleet.reservations(file) == fleet.reservations()
            assert fleet.reservations(tmp_path / "other") == []
            assert [one.target for one in fleet.release(reserved[0].owner)] == TARGETS[:1]
    with Fleet(simulated.config, environment={"ATP_RESERVATIONS_FILE": "none"}) as fleet:
        with pytest.raises(TypeError, match="reservations_file"):
            fleet.reserve("*")


def test_a_host_that_does_not_answer_is_why_too_few_are_free(simulated: Simulated, tmp_path: Path) -> None:
    file = tmp_path / "vms"
    # A host that refuses is tried again soon.
    soon = {"transport.reconnect": {"initial_delay": "100ms", "max_delay": "500ms"}}
    simulated.fault("h2", "refused")
    try:
        with Fleet(simulated.config, settings=soon) as fleet:
            with pytest.raises(NotFreeError) as raised:
                fleet.reserve("*", file=file, count=3, timeout=10)
            assert raised.value.retryable and any("h2" in cause for cause in raised.value.causes)
            # The host is asked again while it is waited.
            healing = threading.Timer(0.5, simulated.heal, ["h2"])
            healing.start()
            with fleet.reserve("*", file=file, count=4, wait=300, timeout=10) as reserved:
                assert sorted(reserved.targets) == TARGETS
            healing.join()
            with pytest.raises(NotFreeError) as raised:
                fleet.reserve("h1/vm9", file=file)
            assert not raised.value.retryable and any("vm9" in cause for cause in raised.value.causes)
    finally:
        simulated.heal("h2")


class Letters(_streams._Iterator[str]):
    """A stream of letters."""

    def _read(self, portion: Any) -> List[str]:
        return list(portion)


def test_threads_share_a_stream() -> None:
    class Source:
        def __init__(self) -> None:
            self._portions = iter(["ab"] * 2000)
            self._lock = threading.Lock()

        def next(self) -> str:
            with self._lock:
                return next(self._portions, "")

        def abort(self) -> None:
            pass

    class Emptied(deque):  # type: ignore[type-arg]
        """Another thread always empties it after it was looked at."""

        def __bool__(self) -> bool:
            return True

    source: Any = Source()
    stream = Letters(source, None)
    stream._ready = Emptied()
    taken: List[List[str]] = []
    threads = [threading.Thread(target=lambda: taken.append(list(stream))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 8 and sum(len(letters) for letters in taken) == 4000


def test_a_stream_that_another_thread_closes_has_ended() -> None:
    class Source:
        def next(self) -> str:
            stream.close()
            if how == "error":
                raise ClosedError("the fleet was closed")
            return "a"

        def abort(self) -> None:
            pass

    for how in ("error", "late"):
        source: Any = Source()
        stream = Letters(source, None)
        assert list(stream) == []


def test_a_stream_is_stopped_in_its_own_block(simulated: Simulated) -> None:
    with Fleet(simulated.config) as fleet:
        with fleet.stream.exec("*", ["true"], timeout=30) as outcomes:
            first = next(outcomes)
            outcomes.stop()
            assert {first.op, *(outcome.op for outcome in outcomes)} == {"exec"}
