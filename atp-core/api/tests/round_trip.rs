//! Any value that is written is read back, and an answer is read although a later version has added to it.
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::Duration;

use atp_api::domain::{
    AfterRevert, AgentChannel, DomainDetails, DomainInfo, DomainState, Graphics, GraphicsKind, Lifecycle,
    Listener, Snapshot, StateReason, Version,
};
use atp_api::{
    Address, AutostartSpec, Await, Condition, ConsoleGap, ConsoleReport, ConsoleSpec, Data, Diagnosis,
    DryRun, Effect, ErrorKind, EvidenceReport, ExecReport, ExecSpec, FileReport, Finding, GuestReport, Hint,
    HostId, HostReport, Interface, Isolation, KernelFault, KernelFinding, KeySpec, LibvirtCode,
    LifecycleSpec, MissedEvidence, MouseSpec, OperationSpec, OsReport, Outcome, OutcomeError, PlanReport,
    PlannedTarget, Policy, Portion, PullSpec, PushSpec, RawCommand, RevertSpec, RunEvent, RunRequest,
    RunStart, RunStatistics, ScenarioReport, ScenarioSpec, ScreenshotLimits, ScreenshotReport,
    ScreenshotSpec, SnapshotDeleteSpec, SnapshotList, SnapshotSpec, StartCheck, StateFilter, Status,
    StatusCounts, StepReport, StopReason, Stream, Targets, TypeSpec, VmReport, WaitReport, XmlReport,
    XmlSpec,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use uuid::Uuid;

fn text() -> impl Strategy<Value = String> + Clone {
    prop_oneof![r"[a-z/.-]{0,8}", r"\PC{0,6}", Just("\0\n\"\u{fffd}".to_owned())]
}

fn host() -> impl Strategy<Value = HostId> + Clone {
    "[A-Za-z0-9_-]{1,8}".prop_map(|id| id.parse().unwrap())
}

fn uuid() -> impl Strategy<Value = Uuid> + Clone {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn kind() -> impl Strategy<Value = ErrorKind> + Clone {
    select(vec![ErrorKind::VmNotFound, ErrorKind::CallTimeout, ErrorKind::Panicked, ErrorKind::Unknown])
}

fn effect() -> impl Strategy<Value = Effect> + Clone {
    select(vec![Effect::None, Effect::Done, Effect::Unknown])
}

fn status() -> impl Strategy<Value = Status> + Clone {
    select(Status::ALL)
}

fn state() -> impl Strategy<Value = DomainState> + Clone {
    (0_u32..9).prop_map(DomainState::from_number)
}

/// Whole milliseconds: JSON has no others.
fn duration() -> impl Strategy<Value = Duration> + Clone {
    any::<u32>().prop_map(|millis| Duration::from_millis(millis.into()))
}

/// A number of milliseconds to the microsecond.
fn fraction() -> impl Strategy<Value = f64> {
    any::<u32>().prop_map(|micros| f64::from(micros) / 1e3)
}

fn hint() -> impl Strategy<Value = Hint> {
    prop_oneof![select(Hint::ALL), text().prop_map(Hint::from)]
}

fn error() -> impl Strategy<Value = OutcomeError> {
    let libvirt = any::<(u32, u32)>().prop_map(|(code, domain)| LibvirtCode { code, domain });
    (kind(), text(), option::of(hint()), any::<bool>(), option::of(libvirt), vec(text(), 0..3)).prop_map(
        |(kind, message, hint, retryable, libvirt, causes)| OutcomeError {
            kind,
            message,
            hint,
            retryable,
            libvirt,
            causes,
        },
    )
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            btree_map(text(), inner, 0..3).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn stream() -> impl Strategy<Value = Stream> {
    // Text without an encoding is read back so if it is plain, and else with the encoding that its mark names.
    let plain = prop_oneof![text().prop_map(String::into_bytes), Just(b"\xff\xfe\xff".to_vec())];
    let encoded = vec(any::<u8>(), 1..12).prop_filter_map("no text that differs in UTF-8", |bytes| {
        let stream = Stream { bytes, truncated: false, encoding: Some("cp850".parse().unwrap()) };
        let (text, encoding) = stream.text()?;
        (encoding == "cp850" && text.as_bytes() != stream.bytes).then_some(stream)
    });
    prop_oneof![
        (plain, any::<bool>()).prop_map(|(bytes, truncated)| Stream { bytes, truncated, encoding: None }),
        encoded,
    ]
}

fn domain() -> impl Strategy<Value = DomainInfo> {
    (text(), uuid(), option::of(any::<u32>()), state(), option::of(any::<u32>()), option::of(any::<u64>()))
        .prop_map(|(name, uuid, id, state, vcpus, memory_kib)| DomainInfo {
            id,
            reason: state.is_running().then_some(StateReason::Booted),
            vcpus,
            memory_kib,
            max_memory_kib: memory_kib,
            reserved_by: id.map(|id| format!("job-{id}")),
            reserved_until_ms: memory_kib,
            ..DomainInfo::new(name, uuid, state)
        })
}

fn graphics() -> impl Strategy<Value = Graphics> {
    let kind = prop_oneof![
        Just(GraphicsKind::Vnc),
        Just(GraphicsKind::Spice),
        Just(GraphicsKind::Other("egl-headless".to_owned())),
    ];
    let listen = prop_oneof![
        (text(), option::of(any::<u16>()), option::of(any::<u16>()))
            .prop_map(|(address, port, tls_port)| Listener::Tcp { address, port, tls_port }),
        text().prop_map(|path| Listener::Unix { path }),
    ];
    (kind, vec(listen, 0..3)).prop_map(|(kind, listen)| Graphics { kind, listen })
}

fn vm() -> impl Strategy<Value = VmReport> {
    let agent =
        select(vec![AgentChannel::NotConfigured, AgentChannel::Disconnected, AgentChannel::Connected]);
    let details = (
        domain(),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        option::of(agent),
        option::of(text()),
        vec(graphics(), 0..2),
    )
        .prop_map(|(info, persistent, autostart, agent, title, graphics)| DomainDetails {
            info,
            persistent,
            autostart,
            agent,
            title,
            graphics,
        });
    let address = (any::<IpAddr>(), any::<u8>()).prop_map(|(ip, prefix)| Address { ip, prefix });
    let interface = (text(), option::of(text()), vec(address, 0..2))
        .prop_map(|(name, mac, addresses)| Interface { name, mac, addresses });
    let os = option::of(text()).prop_map(|name| OsReport {
        id: name.clone(),
        version: None,
        kernel: name.clone(),
        machine: None,
        name,
    });
    let guest =
        (option::of(text()), option::of(os), vec(any::<IpAddr>(), 0..2), vec(interface, 0..2)).prop_map(
            |(hostname, os, addresses, interfaces)| GuestReport { hostname, os, addresses, interfaces },
        );
    (details, option::of(guest), option::of(error())).prop_map(|(details, guest, guest_error)| VmReport {
        details,
        guest,
        guest_error,
    })
}

fn host_report() -> impl Strategy<Value = HostReport> {
    let version = any::<u32>().prop_map(Version::from_number);
    (text(), version, fraction(), fraction(), any::<u16>()).prop_map(
        |(hostname, version, connect_ms, latency_ms, domains)| HostReport {
            hypervisor: hostname.clone(),
            hostname,
            daemon_version: version,
            hypervisor_version: version,
            connect_ms,
            latency_ms,
            domains: domains.into(),
            active_domains: 0,
        },
    )
}

fn diagnosis() -> impl Strategy<Value = Diagnosis> {
    let finding = prop_oneof![
        text().prop_map(|text| Finding::ok("tcp", text)),
        text().prop_map(|text| Finding::note("tcp", text)),
        (text(), hint()).prop_map(|(text, hint)| Finding::warning("tcp", text, hint)),
        (text(), hint()).prop_map(|(text, hint)| Finding::problem("tcp", text, hint)),
    ];
    (vec(finding, 0..3), option::of(host_report())).prop_map(|(findings, host)| Diagnosis { findings, host })
}

fn exec_report() -> impl Strategy<Value = ExecReport> {
    (option::of(any::<i32>()), option::of(any::<i32>()), stream(), stream())
        .prop_map(|(exit_code, signal, stdout, stderr)| ExecReport { exit_code, signal, stdout, stderr })
}

fn console_report() -> impl Strategy<Value = ConsoleReport> {
    let gap = (any::<u64>(), option::of(any::<u64>()), text())
        .prop_map(|(at_ms, lasted_ms, reason)| ConsoleGap { at_ms, lasted_ms, reason });
    let fault = select(KernelFault::NAMES).prop_map(|name| KernelFault::named(name).unwrap());
    let finding =
        (fault, any::<u64>(), text()).prop_map(|(fault, at_ms, line)| KernelFinding { fault, at_ms, line });
    let numbers = any::<(u64, u64, u64, u64)>();
    (option::of(text()), numbers, vec(gap, 0..3), vec(finding, 0..3)).prop_map(
        |(file, (bytes, lines, gaps, faults), first_gaps, first_faults)| ConsoleReport {
            file: file.map(Into::into),
            bytes,
            lines,
            gaps,
            first_gaps,
            faults,
            first_faults,
        },
    )
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    (text(), option::of(text()), option::of(any::<u64>()), option::of(state()), any::<bool>(), any::<bool>())
        .prop_map(|(name, parent, created, state, current, external)| Snapshot {
            description: parent.clone(),
            memory: !external,
            name,
            parent,
            created,
            state,
            current,
            external,
        })
}

/// The name of an operation, with what it yields.
fn simple_data() -> BoxedStrategy<(&'static str, Data)> {
    let file = (text(), any::<u64>()).prop_map(|(path, bytes)| FileReport {
        local_path: path.clone().into(),
        sha256: path.clone(),
        guest_path: path,
        bytes,
        resumed_at: 0,
    });
    let picture = (text(), any::<u32>(), any::<u32>()).prop_map(|(file, width, height)| ScreenshotReport {
        file: file.into(),
        width,
        height,
        bytes: 7,
    });
    let lifecycle =
        (select(vec!["vm-start", "vm-reset", "vm-destroy", "vm-save", "snapshot-revert"]), state());
    prop_oneof![
        exec_report().prop_map(|report| ("exec", Data::Exec(report))),
        (select(vec!["vm-list", "exec", "vm-start"]), domain()).prop_map(|(op, row)| (op, Data::Domain(row))),
        vm().prop_map(|report| ("vm-info", Data::Vm(Box::new(report)))),
        (select(vec!["cp", "push", "pull"]), file).prop_map(|(op, report)| (op, Data::File(report))),
        any::<u64>().prop_map(|looks| ("wait", Data::Waited(WaitReport { looks }))),
        host_report().prop_map(|report| ("host-check", Data::Host(report))),
        diagnosis().prop_map(|diagnosis| ("doctor", Data::Diagnosis(diagnosis))),
        (
            select(vec!["qmp", "qga", "of-a-later-version"]),
            json_value().prop_filter("no data", |value| !value.is_null())
        )
            .prop_map(|(op, reply)| (op, Data::Reply(reply))),
        picture.prop_map(|report| ("screenshot", Data::Screenshot(report))),
        console_report().prop_map(|report| ("console", Data::Console(Box::new(report)))),
        text().prop_map(|xml| ("vm-xml", Data::Xml(XmlReport { xml }))),
        vec(snapshot(), 0..3)
            .prop_map(|snapshots| ("snapshot-list", Data::Snapshots(SnapshotList { snapshots }))),
        snapshot().prop_map(|snapshot| ("snapshot-create", Data::Snapshot(snapshot))),
        lifecycle.prop_map(|(op, state)| (op, Data::Lifecycle { state })),
    ]
    .boxed()
}

fn scenario_report() -> impl Strategy<Value = ScenarioReport> {
    let step = (text(), simple_data(), any::<bool>(), status(), effect(), any::<u32>(), option::of(error()))
        .prop_map(|(name, (op, data), has_data, status, effect, attempts, error)| StepReport {
            name,
            op: op.into(),
            status,
            effect,
            attempts,
            duration_ms: 3,
            data: has_data.then_some(data),
            error,
        });
    let step = step.boxed();
    let missed = (text(), text()).prop_map(|(what, reason)| MissedEvidence { what, reason });
    let evidence = (text(), vec(text(), 0..2), vec(missed, 0..2))
        .prop_map(|(folder, files, missed)| EvidenceReport { folder: folder.into(), files, missed });
    let beside = (option::of(console_report()), option::of(evidence));
    (text(), vec(step.clone(), 0..3), vec(step, 0..2), beside).prop_map(
        |(scenario, steps, teardown, (console, evidence))| ScenarioReport {
            isolated: Some(Isolation { snapshot: scenario.clone(), restored: steps.is_empty() }),
            scenario,
            steps_total: steps.len(),
            steps,
            teardown_total: teardown.len(),
            teardown,
            console: console.map(Box::new),
            evidence: evidence.map(Box::new),
        },
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let data = prop_oneof![
        4 => simple_data(),
        1 => scenario_report().prop_map(|report| ("run", Data::Scenario(report))),
    ];
    let who = (option::of(host()), option::of(text()), option::of(uuid()), option::of(host()));
    let how = (status(), effect(), any::<u32>(), any::<u64>(), option::of(error()));
    (who, data, any::<bool>(), how).prop_map(
        |(
            (host, vm, uuid, found_on),
            (op, data),
            has_data,
            (status, effect, attempts, duration_ms, error),
        )| Outcome {
            host,
            vm,
            uuid,
            found_on,
            from_earlier_run: has_data,
            op: op.into(),
            status,
            effect,
            attempts,
            duration_ms,
            data: has_data.then_some(data),
            error,
        },
    )
}

fn portion() -> impl Strategy<Value = Portion> {
    prop_oneof![
        any::<u32>().prop_map(|count| Portion::Count(count as usize)),
        (1_u8..=100).prop_map(Portion::Percent)
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let counts = (any::<u16>(), option::of(any::<u16>()), any::<u16>(), any::<u32>());
    let times = (duration(), option::of(duration()), duration(), duration());
    (counts, times, option::of(portion()), option::of(portion())).prop_map(
        |((parallel, per_host, per_vm, retries), (timeout, deadline, grace, pause), max_failures, serial)| {
            Policy {
                parallel: parallel.into(),
                per_host: per_host.map(usize::from),
                per_vm: per_vm.into(),
                timeout,
                deadline,
                grace,
                retries,
                retry_initial: pause,
                retry_max: pause,
                max_failures,
                serial,
                poll_initial: pause,
                poll_max: pause,
                agent_patience: pause,
                answer_patience: pause,
                placement_timeout: pause,
                encoding: (retries % 2 == 0).then(|| "cp850".parse().unwrap()),
            }
        },
    )
}

fn statistics() -> impl Strategy<Value = RunStatistics> {
    let numbers = any::<(u64, u64, u64, u64, u64)>();
    (any::<[u64; 7]>(), btree_map(kind(), any::<u64>(), 0..3), numbers).prop_map(
        |([ok, unchanged, failed, timeout, unreachable, skipped, cancelled], kinds, numbers)| RunStatistics {
            counts: StatusCounts { ok, unchanged, failed, timeout, unreachable, skipped, cancelled },
            kinds,
            unknown_effects: numbers.0,
            from_earlier_run: numbers.1,
            attempts: numbers.1,
            retries: numbers.2,
            targets_ms: numbers.3,
            longest_ms: numbers.4,
            duration_ms: 9,
        },
    )
}

fn event() -> impl Strategy<Value = RunEvent> {
    let start = (any::<u16>(), policy()).prop_map(|(count, policy)| RunStart {
        version: atp_api::VERSION,
        op: "exec".into(),
        targets: count.into(),
        hosts: 1,
        settled: 2,
        done_before: 3,
        policy,
    });
    let reason = prop_oneof![
        Just(StopReason::Requested),
        Just(StopReason::Aborted),
        Just(StopReason::DeadlinePassed),
        any::<u16>().prop_map(|failures| StopReason::MaxFailures { failures: failures.into() }),
        Just(StopReason::CanaryFailed),
        error().prop_map(|error| StopReason::JournalFailed { error }),
    ];
    prop_oneof![
        start.prop_map(|start| RunEvent::Begun(Box::new(start))),
        (host(), option::of(text())).prop_map(|(host, vm)| RunEvent::Started { host, vm }),
        (host(), option::of(text()), any::<u64>()).prop_map(|(host, vm, done)| RunEvent::Progress {
            host,
            vm,
            done,
            total: done
        }),
        (host(), text(), text()).prop_map(|(host, vm, line)| RunEvent::Console { host, vm, line }),
        outcome().prop_map(|outcome| RunEvent::Finished(Box::new(outcome))),
        reason.prop_map(RunEvent::Stopping),
        statistics().prop_map(|statistics| RunEvent::Ended(Box::new(statistics))),
    ]
}

fn exec() -> impl Strategy<Value = ExecSpec> {
    let where_to = (option::of(text()), option::of(text()), any::<bool>());
    let stdin = option::of(prop_oneof![vec(any::<u8>(), 0..6), text().prop_map(String::into_bytes)]);
    (text(), vec(text(), 0..3), btree_map(text(), text(), 0..3), stdin, where_to).prop_map(
        |(program, args, env, stdin, (cwd, spool, shell))| ExecSpec {
            program,
            args,
            env: env.into_iter().collect(),
            stdin,
            shell,
            cwd,
            spool,
            encoding: shell.then(|| "cp850".parse().unwrap()),
        },
    )
}

fn operation() -> impl Strategy<Value = OperationSpec> {
    let action = select(vec![Lifecycle::Start, Lifecycle::Shutdown, Lifecycle::Reboot, Lifecycle::Suspend]);
    let check = select(vec![StartCheck::Listed, StartCheck::AllHosts, StartCheck::Nothing]);
    let wait = select(vec![Await::Nothing, Await::Completion, Await::State, Await::Agent]);
    let lifecycle = (action, wait, check).prop_map(|(action, wait, start_check)| LifecycleSpec {
        action,
        wait,
        start_check,
    });
    let condition = prop_oneof![
        Just(Condition::Agent),
        state().prop_map(Condition::State),
        exec().prop_map(Condition::Exec),
        any::<u16>().prop_map(|port| Condition::Port { port }),
    ];
    let command = ("[a-z-]{1,8}", btree_map(text(), json_value(), 0..3))
        .prop_map(|(name, fields)| RawCommand::new(name, fields.into_iter().collect::<Map<_, _>>()).unwrap())
        .boxed();
    let push = (text(), text(), option::of(text()), any::<bool>(), any::<bool>());
    let push = push.prop_map(|(source, destination, sha256, recursive, packed)| PushSpec {
        source: source.into(),
        destination,
        sha256,
        recursive,
        packed,
    });
    let pull = (text(), text(), any::<bool>(), any::<bool>(), any::<bool>());
    let pull = pull.prop_map(|(path, destination, separate, recursive, packed)| PullSpec {
        path,
        destination: destination.into(),
        separate,
        recursive,
        packed,
    });
    let screenshot =
        (text(), any::<u32>(), any::<u32>()).prop_map(|(folder, screen, max_bytes)| ScreenshotSpec {
            folder: folder.into(),
            screen,
            limits: ScreenshotLimits { max_bytes: max_bytes as usize },
        });
    let console = (option::of(text()), any::<bool>(), any::<bool>(), option::of(text())).prop_map(
        |(folder, lines, force, device)| ConsoleSpec { folder: folder.map(Into::into), lines, force, device },
    );
    let texts = || btree_map(text(), text(), 0..2);
    let scenario = (text(), texts(), texts(), option::of(texts()))
        .prop_map(|(text, variables, included, files)| ScenarioSpec { text, variables, included, files });
    prop_oneof![
        select(vec![
            OperationSpec::HostCheck,
            OperationSpec::DiagnoseHost,
            OperationSpec::DiagnoseAgent,
            OperationSpec::VmList,
            OperationSpec::VmInfo,
            OperationSpec::VmNmi,
            OperationSpec::SnapshotList,
        ]),
        any::<bool>().prop_map(|inactive| OperationSpec::VmXml(XmlSpec { inactive })),
        any::<bool>().prop_map(|on| OperationSpec::VmAutostart(AutostartSpec { on })),
        (text(), option::of(text()), any::<bool>(), any::<bool>()).prop_map(
            |(name, description, disk_only, quiesce)| {
                OperationSpec::SnapshotCreate(SnapshotSpec { name, description, disk_only, quiesce })
            }
        ),
        (text(), select(vec![AfterRevert::AsThen, AfterRevert::Start, AfterRevert::Pause]))
            .prop_map(|(name, then)| OperationSpec::SnapshotRevert(RevertSpec { name, then })),
        (text(), any::<bool>()).prop_map(|(name, children)| OperationSpec::SnapshotDelete(
            SnapshotDeleteSpec { name, children }
        )),
        lifecycle.prop_map(OperationSpec::Lifecycle),
        exec().prop_map(OperationSpec::Exec),
        push.prop_map(OperationSpec::Push),
        pull.prop_map(OperationSpec::Pull),
        condition.prop_map(OperationSpec::Wait),
        command.clone().prop_map(OperationSpec::Qmp),
        command.prop_map(OperationSpec::Qga),
        (vec(text(), 0..3), duration())
            .prop_map(|(chords, hold)| OperationSpec::Key(KeySpec { chords, hold })),
        (text(), text(), duration()).prop_map(|(text, layout, hold)| OperationSpec::Type(TypeSpec {
            text,
            layout,
            hold
        })),
        (text(), duration()).prop_map(|(action, hold)| OperationSpec::Mouse(MouseSpec { action, hold })),
        screenshot.prop_map(OperationSpec::Screenshot),
        console.prop_map(OperationSpec::Console),
        scenario.prop_map(OperationSpec::Scenario),
    ]
}

fn targets() -> impl Strategy<Value = Targets> {
    let state =
        select(vec![StateFilter::Any, StateFilter::Running, StateFilter::ShutOff, StateFilter::Paused]);
    (vec(text(), 0..3), vec(text(), 0..2), state, btree_map(text(), text(), 0..2))
        .prop_map(|(selectors, exclude, state, labels)| Targets { selectors, exclude, state, labels })
}

fn request() -> impl Strategy<Value = RunRequest> {
    (targets(), operation(), policy())
        .prop_map(|(targets, operation, policy)| RunRequest::new(targets, operation, policy))
}

fn plan() -> impl Strategy<Value = PlanReport> {
    let dry_run = select(vec![DryRun::Proceed, DryRun::Unchanged, DryRun::NotRunning]);
    let target =
        (host(), option::of(text()), option::of(uuid()), option::of(state()), dry_run, option::of(error()))
            .prop_map(|(host, vm, uuid, state, dry_run, refusal)| PlannedTarget {
                host,
                vm,
                uuid,
                state,
                listed: None,
                dry_run,
                refusal,
            });
    let chosen_by = option::of(targets());
    (policy(), vec(target, 0..3), vec(outcome(), 0..2), vec(text(), 0..2), option::of(uuid()), chosen_by)
        .prop_map(|(policy, targets, settled, notices, id, chosen_by)| PlanReport {
            id,
            version: atp_api::VERSION,
            op: "exec".into(),
            disruptive: false,
            policy,
            targets,
            settled,
            notices,
            findings: Vec::new(),
            done_before: 4,
            chosen_by,
        })
}

/// Reads back what is written: from text, and from a value as a program in another language may have built it.
fn read_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(given: &T) -> Result<(), TestCaseError> {
    let text = serde_json::to_string(given).unwrap();
    prop_assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), given, "{}", text);
    let value: Value = serde_json::from_str(&text).unwrap();
    let canonical = atp_api::canonical_json(&value);
    prop_assert_eq!(&serde_json::from_value::<T>(value.clone()).unwrap(), given);
    prop_assert_eq!(serde_json::from_str::<Value>(&canonical).unwrap(), value);
    Ok(())
}

/// Adds a field to every object that has one of the names of its type's own fields.
fn with_more_fields(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Map<_, _> =
                fields.iter().map(|(name, value)| (name.clone(), with_more_fields(value))).collect();
            fields.insert("of_a_later_version".to_owned(), json!({"more": [1]}));
            Value::Object(fields)
        }
        Value::Array(values) => values.iter().map(with_more_fields).collect(),
        scalar => scalar.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn an_outcome_is_read_back(outcome in outcome()) {
        read_back(&outcome)?;
    }

    #[test]
    fn an_event_is_read_back(event in event()) {
        read_back(&event)?;
    }

    #[test]
    fn a_request_is_read_back(request in request()) {
        read_back(&request)?;
        read_back(&request.operation)?;
    }

    #[test]
    fn a_plan_is_read_back(plan in plan()) {
        read_back(&plan)?;
    }

    #[test]
    fn numbers_are_read_back(statistics in statistics()) {
        read_back(&statistics)?;
    }

    #[test]
    fn what_a_later_version_adds_to_an_answer_is_passed_over(plan in plan(), start in policy()) {
        // What an operation yielded is kept as it is if this version does not know it, so it is left out here.
        let settled = plan.settled.iter().map(|outcome| Outcome { data: None, ..outcome.clone() }).collect();
        // So are labels, whose names are no fields.
        let plan = PlanReport { settled, policy: start, chosen_by: None, ..plan };
        let later = with_more_fields(&serde_json::to_value(&plan).unwrap());
        prop_assert_eq!(serde_json::from_value::<PlanReport>(later).unwrap(), plan);
    }

    #[test]
    fn a_request_with_an_unknown_field_is_refused(request in request()) {
        let mut value = serde_json::to_value(&request).unwrap();
        value["operation"]["of_a_later_version"] = json!(1);
        let error = serde_json::from_value::<RunRequest>(value).unwrap_err().to_string();
        prop_assert!(error.contains("operation.of_a_later_version"), "{}", error);
    }

    #[test]
    fn no_json_makes_reading_panic(value in json_value(), op in "[a-z-]{0,9}") {
        let _ = serde_json::from_value::<Outcome>(value.clone());
        let _ = serde_json::from_value::<RunEvent>(value.clone());
        let _ = serde_json::from_value::<RunRequest>(value.clone());
        let _ = Data::read(&op, value);
    }
}

#[test]
fn words_of_a_later_version_are_read_as_unknown() {
    let event = |text: &str| serde_json::from_str::<RunEvent>(text).unwrap();
    assert_eq!(event(r#"{"event": "paused", "why": 1}"#), RunEvent::Unknown);
    assert_eq!(
        event(r#"{"event": "stopping", "reason": "of-later", "more": {}}"#),
        RunEvent::Stopping(StopReason::Unknown)
    );
    let outcome = json!({
        "host": null, "vm": null, "uuid": null, "op": "vm-clone", "status": "deferred", "effect": "unknown", "attempts": 1,
        "duration_ms": 1, "data": {"clone": "x"}, "error": {"kind": "of-later", "message": "m", "hint": null,
        "retryable": false, "libvirt": null, "causes": []},
    });
    let outcome: Outcome = serde_json::from_value(outcome).unwrap();
    assert_eq!((outcome.status, outcome.error.unwrap().kind), (Status::Failed, ErrorKind::Unknown));
    assert_eq!(outcome.data, Some(Data::Reply(json!({"clone": "x"}))));
    assert_eq!(serde_json::from_str::<DomainState>("\"frozen\"").unwrap(), DomainState::NoState);
    assert_eq!(serde_json::from_str::<Effect>("\"half\"").unwrap(), Effect::Unknown);
}
