//! VMs that are selected by their names: what hosts are asked for them, and that they are those that are named.
#![cfg(feature = "native")]
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use atp_executor::{
    Executor, LifecycleSpec, Operation, Outcome, Plan, Policy, RawCommand, RunControl, Selection,
    StateFilter, Status, Target,
};
use atp_fleet::{Fleet, FleetOptions};
use atp_transport::domain::{DomainInfo, DomainState, Lifecycle};
use atp_transport::{CallDecision, CallInfo, Effect, ErrorKind, HostId, Interceptor};

#[path = "common/simulated.rs"]
mod simulated;

use simulated::simulated;

/// The listing of a host, the question for some VMs, and that for one, by libvirt's names.
const LISTED: &str = "virConnectGetAllDomainStats";
const ASKED: &str = "virDomainListGetStats";
const LOOKED: &str = "virDomainGetInfo";

/// What hosts were asked.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<&'static str>>>);

impl Interceptor for Calls {
    fn name(&self) -> Cow<'_, str> {
        "calls".into()
    }

    fn before(&self, call: &CallInfo<'_>) -> CallDecision {
        self.0.lock().unwrap().push(call.operation);
        CallDecision::Proceed
    }
}

struct Bed {
    fleet: Arc<Fleet>,
    executor: Executor,
    calls: Calls,
}

impl Bed {
    async fn new() -> Bed {
        let (fleet, manager) = simulated(FleetOptions { hosts: 2, vms: 5, ..FleetOptions::default() }).await;
        let calls = Calls::default();
        manager.add_interceptor(calls.clone());
        Bed { fleet, executor: Executor::new(manager), calls }
    }

    async fn plan(&self, selection: &Selection, operation: Operation) -> Plan {
        self.executor.plan(selection, operation, Policy::default()).await.unwrap()
    }

    /// The targets and the settled outcomes of a plan, and what hosts were asked for it.
    async fn planned(&self, selection: &Selection) -> (Vec<String>, Vec<&'static str>) {
        let plan = self.plan(selection, query()).await;
        let targets = plan.targets.iter().map(ToString::to_string);
        let settled = plan.settled.iter().map(|outcome| outcome.error.as_ref().unwrap().kind.to_string());
        (targets.chain(settled).collect(), self.asked())
    }

    /// A plan for a VM that an earlier plan found.
    async fn found(&self, vm: &Target, operation: Operation) -> Plan {
        self.executor.plan_found(vm, operation, Policy::default(), &RunControl::default()).await
    }

    async fn run(&self, plan: Plan) -> (Outcome, Vec<&'static str>) {
        let outcome = self.executor.run(plan, &RunControl::default()).outcomes().await.remove(0);
        (outcome, self.asked())
    }

    /// What hosts were asked since the last time.
    fn asked(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.calls.0.lock().unwrap())
    }
}

fn of(selectors: &[&str]) -> Selection {
    Selection::of(selectors.iter().map(|text| text.parse().unwrap()))
}

fn query() -> Operation {
    Operation::Qmp(RawCommand::from_words(vec!["query-status".to_owned()]).unwrap())
}

fn change(action: Lifecycle) -> Operation {
    Operation::Lifecycle(LifecycleSpec::new(action))
}

fn targets(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_host_is_listed_for_a_vm_once_and_then_asked_for_the_vm_alone() {
    let bed = Bed::new().await;
    let one = of(&["h1/vm2"]);
    assert_eq!(bed.planned(&one).await, (targets(&["h1/vm2"]), vec![LISTED]));
    let plan = bed.plan(&one, query()).await;
    assert_eq!(bed.asked(), [ASKED]);
    let vm = plan.targets[0].domain.as_ref().unwrap();
    assert!(vm.state.is_running() && vm.id.is_some() && vm.reason.is_some(), "{vm:?}");

    let several = of(&["h1/vm{3..5}", "h1/vm2"]);
    let all = targets(&["h1/vm2", "h1/vm3", "h1/vm4", "h1/vm5"]);
    assert_eq!(bed.planned(&several).await, (all.clone(), vec![LISTED]), "three of them are new");
    assert_eq!(bed.planned(&several).await, (all, vec![ASKED]));
    // What decides about other VMs too, or needs more of a VM, is for a listing.
    for others in [of(&["h1/vm2*"]), of(&["vm2"]), of(&["h1/vm2", "h2/vm2"])] {
        let (_, asked) = bed.planned(&others).await;
        assert!(!asked.contains(&ASKED), "{asked:?}");
    }
    bed.plan(&one, Operation::VmList).await;
    assert_eq!(bed.asked(), ["virConnectListAllDomains"]);
}

#[tokio::test(start_paused = true)]
async fn the_state_is_that_of_now_and_filters_count_what_they_left_out() {
    let bed = Bed::new().await;
    let running = Selection { state: StateFilter::Running, ..of(&["h1/vm1"]) };
    assert_eq!(bed.planned(&running).await.0, ["h1/vm1"]);
    let plan = bed.plan(&running, change(Lifecycle::Suspend)).await;
    assert!(bed.run(plan).await.0.status.is_success());
    let plan = bed.plan(&running, query()).await;
    assert_eq!((bed.asked(), plan.targets.len()), (vec![ASKED], 0));
    assert!(plan.notices[0].to_string().contains('1'), "{}", plan.notices[0]);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_that_of_the_vm_that_has_it_now() {
    let bed = Bed::new().await;
    let (one, two) = (of(&["h1/vm1"]), of(&["h1/vm2"]));
    let uuid = async |selection| bed.plan(selection, query()).await.targets[0].uuid().unwrap();
    let (first, second) = (uuid(&one).await, uuid(&two).await);
    // They change their names.
    let host = bed.fleet.host(1).unwrap();
    host.vm(1).unwrap().rename("vm2");
    host.vm(2).unwrap().rename("vm1");
    bed.asked();
    assert_eq!((uuid(&one).await, uuid(&two).await), (second, first));
    assert_eq!(bed.asked(), [ASKED, LISTED, ASKED, LISTED]);
    host.vm(1).unwrap().rename("other");
    assert_eq!(bed.planned(&two).await, (targets(&["vm-not-found"]), vec![ASKED, LISTED]));
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_was_found_is_not_looked_for_again() {
    let bed = Bed::new().await;
    let found = bed.plan(&of(&["h1/vm1"]), query()).await.targets.remove(0);
    bed.asked();
    let host = bed.fleet.host(1).unwrap();
    host.vm(1).unwrap().rename("other");
    host.vm(2).unwrap().rename("vm1");
    let (outcome, asked) = bed.run(bed.found(&found, query()).await).await;
    assert_eq!((outcome.uuid, outcome.status), (found.uuid(), Status::Ok), "{outcome:?}");
    assert_eq!(asked, ["virDomainQemuMonitorCommand"]);
    // What needs a listing, or a VM that was not active, is asked for alone.
    let plan = bed.found(&found, Operation::VmList).await;
    assert_eq!((bed.asked(), plan.targets[0].vm()), (vec![LOOKED], Some("other")));
    let (outcome, _) = bed.run(bed.found(&found, change(Lifecycle::Destroy)).await).await;
    assert_eq!(outcome.status, Status::Ok, "{outcome:?}");
    let (outcome, asked) = bed.run(bed.found(&found, query()).await).await;
    assert_eq!(outcome.error.unwrap().kind, ErrorKind::VmNotRunning, "{asked:?}");
    assert_eq!((outcome.status, outcome.effect), (Status::Failed, Effect::None));
    let off = bed.found(&found, Operation::VmList).await.targets.remove(0);
    bed.asked();
    for action in [Lifecycle::Start, Lifecycle::Suspend] {
        let plan = bed.found(&off, change(action)).await;
        assert_eq!(bed.asked(), [LOOKED]);
        assert_eq!(bed.run(plan).await.0.status, Status::Ok);
    }
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_was_found_and_has_moved_is_followed() {
    let bed = Bed::new().await;
    let found = bed.plan(&of(&["h1/vm1"]), query()).await.targets.remove(0);
    assert!(bed.fleet.host(1).unwrap().vm(1).unwrap().migrate(&bed.fleet.host(2).unwrap()));
    let (outcome, _) = bed.run(bed.found(&found, query()).await).await;
    assert_eq!(
        (outcome.status, outcome.found_on.as_ref().map(HostId::as_str)),
        (Status::Ok, Some("h2")),
        "{outcome:?}"
    );
    // One that was not active has an outcome of its own host.
    let off = DomainInfo { state: DomainState::ShutOff, ..found.domain.clone().unwrap() };
    let plan = bed.found(&Target { domain: Some(off), ..found.clone() }, query()).await;
    let (outcome, _) = bed.run(plan).await;
    assert_eq!((outcome.uuid, outcome.status), (found.uuid(), Status::Failed), "{outcome:?}");
}
