//! Plans and runs through a real transport, on libvirt's test driver: hosts in memory, no daemon needed.
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use atp_executor::{
    Data, Executor, LifecycleSpec, Operation, Outcome, Plan, Policy, RunControl, RunEvent, Selection,
    StateFilter, Status, StopReason,
};
use atp_protocol::{ExecSpec, RawCommand};
use atp_transport::domain::{DomainState, Lifecycle};
use atp_transport::{Effect, ErrorKind, HostInfo, PoolConfig, TransportConfig, TransportManager};

/// Hosts of the test driver, each with VMs of its own: the driver reads them from a file, for every
/// connection anew, so a host has one connection only.
struct Fleet {
    manager: TransportManager,
    folder: PathBuf,
}

impl Fleet {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("atp-executor-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let pool =
            PoolConfig { max_connections_per_host: 1, min_connections_per_host: 0, ..PoolConfig::default() };
        let manager = TransportManager::new(TransportConfig { pool, ..TransportConfig::default() });
        Fleet { manager, folder }
    }

    async fn host(self, id: &str, vms: &[(&str, DomainState)]) -> Self {
        let domains: String = vms
            .iter()
            .enumerate()
            .map(|(index, (name, state))| {
                let state = match state {
                    DomainState::Running => 1,
                    DomainState::Paused => 3,
                    DomainState::ShutOff => 5,
                    other => panic!("the test driver has no {other}"),
                };
                let name = name.replace('&', "&amp;").replace('<', "&lt;");
                format!(
                    "<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>\
                     <name>{name}</name><uuid>00000000-0000-0000-0000-{index:012}</uuid>\
                     <memory>1024</memory><vcpu>1</vcpu><os><type>hvm</type></os>\
                     <test:runstate>{state}</test:runstate></domain>"
                )
            })
            .collect();
        let file = self.folder.join(format!("{id}.xml"));
        std::fs::write(&file, format!("<node>{domains}</node>")).unwrap();
        self.add(HostInfo::from_uri(id, format!("test://{}", file.display()))).await
    }

    async fn add(self, host: HostInfo) -> Self {
        self.manager.add_host(host).await.unwrap();
        self
    }

    /// A host where nothing listens.
    async fn dead_host(self, id: &str) -> Self {
        self.add(HostInfo::from_uri(id, "qemu+tcp://127.0.0.1:1/system")).await
    }

    fn executor(&self) -> Executor {
        Executor::new(self.manager.clone())
    }

    async fn plan(&self, selectors: &[&str], operation: Operation) -> Plan {
        self.executor().plan(&selection(selectors), operation, policy()).await.unwrap()
    }

    async fn run(&self, selectors: &[&str], operation: Operation) -> Vec<Outcome> {
        let plan = self.plan(selectors, operation).await;
        self.executor().run(plan, &RunControl::default()).outcomes().await
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn policy() -> Policy {
    Policy { timeout: Duration::from_secs(30), ..Policy::default() }
}

fn selection(selectors: &[&str]) -> Selection {
    Selection::of(selectors.iter().map(|text| text.parse().unwrap()))
}

fn lifecycle(action: Lifecycle) -> Operation {
    Operation::Lifecycle(LifecycleSpec::new(action))
}

fn waiting(action: Lifecycle) -> Operation {
    Operation::Lifecycle(LifecycleSpec::awaited(action))
}

/// `host/vm status effect kind`, for each outcome.
fn outline(outcomes: &[Outcome]) -> Vec<String> {
    let line = |outcome: &Outcome| {
        format!(
            "{}/{} {} {} {}",
            outcome.host.as_ref().map_or("-", |host| host.as_str()),
            outcome.vm.as_deref().unwrap_or("-"),
            outcome.status,
            outcome.effect,
            outcome.error.as_ref().map_or("-", |error| error.kind.as_str()),
        )
    };
    outcomes.iter().map(line).collect()
}

fn state(outcome: &Outcome) -> Option<DomainState> {
    match outcome.data {
        Some(Data::Lifecycle { state }) => Some(state),
        _ => None,
    }
}

#[tokio::test]
async fn a_partly_dead_fleet_does_the_rest() {
    let fleet = Fleet::new("partly-dead")
        .host("h1", &[("web-1", DomainState::Running), ("db", DomainState::ShutOff)])
        .await
        .dead_host("h2")
        .await
        .host("h3", &[("web-2", DomainState::Running), ("web-[x]*", DomainState::Running)])
        .await;
    let outcomes = fleet.run(&["web-*", "h2/db", "nosuch"], Operation::VmInfo).await;
    assert_eq!(
        outline(&outcomes),
        [
            "h1/web-1 ok none -",
            "h2/- unreachable none connection-refused",
            "h2/- unreachable none connection-refused",
            "h2/db unreachable none connection-refused",
            "h3/web-2 ok none -",
            "h3/web-[x]* ok none -",
            "-/nosuch failed none vm-not-found",
        ]
    );
    let details = serde_json::to_value(&outcomes[0]).unwrap();
    assert_eq!(details["data"]["state"], "running");
    assert_eq!(details["data"]["persistent"], true);
    let error = outcomes[1].error.as_ref().unwrap();
    assert!(error.retryable && error.hint.is_some() && !error.causes.is_empty(), "{error:?}");
    // The dead host is not even contacted if nothing there can be meant.
    assert_eq!(outline(&fleet.run(&["h1/web-?", r"h3/web-\[x]\*"], Operation::VmInfo).await).len(), 2);
}

#[tokio::test]
async fn a_listing_is_what_the_host_says() {
    let fleet = Fleet::new("listing")
        .host("h1", &[("b", DomainState::Paused), ("a", DomainState::Running), ("c", DomainState::ShutOff)])
        .await;
    let outcomes = fleet.run(&["*"], Operation::VmList).await;
    let rows: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            let json = serde_json::to_value(outcome).unwrap();
            (json["vm"].as_str().unwrap().to_owned(), json["data"]["state"].as_str().unwrap().to_owned())
        })
        .collect();
    let expected = [("a", "running"), ("b", "paused"), ("c", "shut off")];
    assert_eq!(rows, expected.map(|(name, state)| (name.to_owned(), state.to_owned())));

    let paused = Selection { state: StateFilter::Paused, ..Selection::all() };
    let plan = fleet.executor().plan(&paused, Operation::VmList, policy()).await.unwrap();
    assert_eq!(plan.targets.iter().map(|target| target.vm().unwrap()).collect::<Vec<_>>(), ["b"]);
    assert!(fleet.plan(&["z*"], Operation::VmList).await.matched_nothing());
}

#[tokio::test]
async fn lifecycle_changes_are_done_once() {
    let fleet = Fleet::new("lifecycle").host("h1", &[("a", DomainState::Running)]).await;
    for (operation, line, now) in [
        (lifecycle(Lifecycle::Start), "h1/a unchanged none -", DomainState::Running),
        (lifecycle(Lifecycle::Suspend), "h1/a ok done -", DomainState::Paused),
        (lifecycle(Lifecycle::Suspend), "h1/a unchanged none -", DomainState::Paused),
        (waiting(Lifecycle::Resume), "h1/a ok done -", DomainState::Running),
        (waiting(Lifecycle::Shutdown), "h1/a ok done -", DomainState::ShutOff),
        (lifecycle(Lifecycle::Destroy), "h1/a unchanged none -", DomainState::ShutOff),
        (waiting(Lifecycle::Start), "h1/a ok done -", DomainState::Running),
        (lifecycle(Lifecycle::Destroy), "h1/a ok done -", DomainState::ShutOff),
    ] {
        let name = operation.name();
        let outcomes = fleet.run(&["a"], operation).await;
        assert_eq!(outline(&outcomes), [line], "{name}");
        assert_eq!(state(&outcomes[0]), Some(now), "{name}");
        assert_eq!(outcomes[0].op, name);
    }
    for action in [Lifecycle::Suspend, Lifecycle::Resume, Lifecycle::Reboot, Lifecycle::Reset] {
        let outcomes = fleet.run(&["a"], lifecycle(action)).await;
        assert_eq!(outline(&outcomes), ["h1/a failed none vm-not-running"], "{action}");
    }
}

#[tokio::test]
async fn what_changed_after_the_plan_is_seen() {
    let fleet =
        Fleet::new("changed").host("h1", &[("a", DomainState::Running), ("b", DomainState::ShutOff)]).await;
    let suspend = fleet.plan(&["a"], lifecycle(Lifecycle::Suspend)).await;
    let shutdown = fleet.plan(&["b"], lifecycle(Lifecycle::Shutdown)).await;
    let exec = fleet.plan(&["b"], Operation::Exec(ExecSpec::new("true"))).await;
    assert_eq!(outline(&fleet.run(&["a"], lifecycle(Lifecycle::Destroy)).await), ["h1/a ok done -"]);
    assert_eq!(outline(&fleet.run(&["b"], lifecycle(Lifecycle::Start)).await), ["h1/b ok done -"]);
    let run = async |plan| outline(&fleet.executor().run(plan, &RunControl::default()).outcomes().await);
    assert_eq!(run(suspend).await, ["h1/a failed none vm-not-running"]);
    // It is sent, and this driver has no agent.
    assert_eq!(run(exec).await, ["h1/b failed none not-supported"]);
    assert_eq!(run(shutdown).await, ["h1/b ok done -"]);
}

#[tokio::test]
async fn nothing_is_sent_to_a_vm_that_is_shut_off() {
    let fleet = Fleet::new("shut-off").host("h1", &[("a", DomainState::ShutOff)]).await;
    let command = RawCommand::from_words(["query-status"]).unwrap();
    for operation in
        [Operation::Exec(ExecSpec::new("true")), Operation::Qmp(command.clone()), Operation::Qga(command)]
    {
        let name = operation.name();
        let outcomes = fleet.run(&["a"], operation).await;
        assert_eq!(outline(&outcomes), ["h1/a failed none vm-not-running"], "{name}");
        let error = outcomes[0].error.as_ref().unwrap();
        assert!(error.message.contains("shut off") && error.hint.is_some(), "{error:?}");
    }
}

#[tokio::test]
async fn a_host_is_checked() {
    let fleet = Fleet::new("check")
        .host("h1", &[("a", DomainState::Running), ("b", DomainState::ShutOff)])
        .await
        .dead_host("h2")
        .await;
    let hosts = Selection::hosts(["h*".parse().unwrap()]);
    let plan = fleet.executor().plan(&hosts, Operation::HostCheck, policy()).await.unwrap();
    assert_eq!(plan.targets.len(), 2);
    let outcomes = fleet.executor().run(plan, &RunControl::default()).outcomes().await;
    assert_eq!(outline(&outcomes), ["h1/- ok none -", "h2/- unreachable none connection-refused"]);
    assert_eq!(outcomes[1].attempts, 1);
    let Some(Data::Host(report)) = &outcomes[0].data else { panic!("{:?}", outcomes[0].data) };
    assert_eq!((report.hypervisor.as_str(), report.domains, report.active_domains), ("TEST", 2, 1));
    assert!(!report.hostname.is_empty());

    // The name of a VM means no host, and not every host.
    for operation in [Operation::HostCheck, Operation::DiagnoseHost] {
        let op = operation.name();
        let refused = fleet.executor().plan(&selection(&["h1"]), operation, policy()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidSelector, "{op}");
        assert!(refused.to_string().starts_with(op) && refused.to_string().contains("\"h1\""), "{refused}");
        assert!(refused.hint().ends_with("write h1/"), "{}", refused.hint());
    }
}

#[tokio::test]
async fn a_daemon_that_does_not_answer_is_unreachable_by_the_deadline() {
    // It takes the connection and says nothing, as a stopped daemon does.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("qemu+tcp://{}/system", silent.local_addr().unwrap());
    let fleet = Fleet::new("silent")
        .host("h1", &[("a", DomainState::Running)])
        .await
        .add(HostInfo::from_uri("h2", uri))
        .await;
    // Long enough for the host that does answer.
    let timeout = Duration::from_secs(3);
    let policy = Policy { timeout, ..policy() };
    let plan = fleet.executor().plan(&selection(&["*"]), Operation::VmList, policy).await.unwrap();
    let outcomes = fleet.executor().run(plan, &RunControl::default()).outcomes().await;
    assert_eq!(outline(&outcomes), ["h1/a ok none -", "h2/- unreachable none connect-timeout"]);
    assert!(u128::from(outcomes[1].duration_ms) >= timeout.as_millis(), "{outcomes:?}");
}

#[tokio::test]
async fn a_run_stopped_before_it_starts_skips_everything() {
    let fleet =
        Fleet::new("stopped").host("h1", &[("a", DomainState::Running), ("b", DomainState::Paused)]).await;
    let plan = fleet.plan(&["*", "nosuch"], lifecycle(Lifecycle::Destroy)).await;
    let control = RunControl::default();
    control.stop.cancel();
    let mut run = fleet.executor().run(plan, &control);
    let mut outcomes = Vec::new();
    while let Some(event) = run.next().await {
        match event {
            RunEvent::Started { host, vm } => panic!("{host}/{vm:?} was started"),
            RunEvent::Finished(outcome) => outcomes.push(*outcome),
            RunEvent::Stopping(reason) => assert_eq!(reason, StopReason::Requested),
            _ => {}
        }
    }
    assert_eq!(
        outline(&outcomes),
        ["h1/nosuch failed none vm-not-found", "h1/a skipped none stopped", "h1/b skipped none stopped"]
    );
    assert!(outcomes.iter().all(|outcome| outcome.attempts == 0 && outcome.effect == Effect::None));
    let states = fleet.run(&["*"], Operation::VmList).await;
    assert!(states.iter().all(|outcome| outcome.status == Status::Ok));
    assert!(
        fleet
            .plan(&["*"], Operation::VmList)
            .await
            .targets
            .iter()
            .all(|t| t.state() != Some(DomainState::ShutOff))
    );
}

#[tokio::test]
async fn a_selector_with_an_unknown_host_is_no_plan() {
    let fleet = Fleet::new("unknown").host("h1", &[("a", DomainState::Running)]).await;
    let error = fleet.executor().plan(&selection(&["h9/a"]), Operation::VmList, policy()).await.unwrap_err();
    assert_eq!(error.kind(), "unknown-host");
    let empty = Executor::new(TransportManager::new(TransportConfig::default()));
    let error = empty.plan(&Selection::all(), Operation::VmList, policy()).await.unwrap_err();
    assert_eq!(error.kind(), "no-hosts");
}

#[tokio::test]
async fn a_plan_reads_well_and_drives_no_terminal() {
    let fleet = Fleet::new("printed")
        .host("h1", &[("web\u{9b}1", DomainState::Running), ("off", DomainState::ShutOff)])
        .await
        .dead_host("h2")
        .await;
    let plan = fleet.plan(&["*"], lifecycle(Lifecycle::Shutdown)).await;
    assert_eq!(
        plan.to_string(),
        "vm-shutdown: 2 targets, at most 64 at once, at most 30s each\n\
         \x20 h1/off         shut off: nothing to do\n\
         \x20 h1/web\\u{9b}1  running\n\
         \x20 h2  unreachable: host h2: cannot connect\n"
    );
}
