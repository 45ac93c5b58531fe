//! The statements of controllers against the rules of `atp-cluster`: whatever order they come in, the rows are what the rules say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use atp_api::serve::RunState;
use atp_api::{OperationSpec, Policy, RunRequest, Targets};
use atp_cluster::{Claim, HostLease, TargetState, owner};

use super::*;
use crate::store::server::Shared;

pub(super) const HOSTS: [&str; 2] = ["g", "h"];
const CONTROLLERS: [&str; 2] = ["one", "two"];
const LENGTH: Duration = Duration::from_secs(1000);

pub(super) async fn open(address: &str) -> (Store, Shared) {
    Store::open_shared(Database::read(address, "").unwrap(), Clock::system()).await.unwrap()
}

/// Two VMs on each host.
pub(super) async fn begun(store: &Store) -> i64 {
    begun_with(store, Policy::default()).await
}

pub(super) async fn begun_with(store: &Store, policy: Policy) -> i64 {
    let run = store.change(new("a")).await.unwrap();
    let targets = HOSTS.iter().flat_map(|host| [0, 1].map(|n| target(host, n))).collect();
    begin_again(store, run, targets, policy, true).await;
    run
}

/// Begins a run of these targets, or resumes it.
pub(super) async fn begin_again(
    store: &Store,
    run: i64,
    targets: Vec<TargetRow>,
    policy: Policy,
    is_first: bool,
) {
    let request = RunRequest::new(Targets::of(["*"]), OperationSpec::VmInfo, policy);
    let shared = SharedRun {
        request,
        placements: atp_executor::Placements::default(),
        target_ms: 1_000_000,
        targets: targets.len(),
        failed_before: 0,
        to_undo: BTreeSet::new(),
    };
    let share = Share {
        run: serde_json::to_string(&shared).unwrap(),
        left_ms: None,
        domains: vec![None; targets.len()],
        batch: usize::MAX,
        events: Vec::new(),
        statistics: serde_json::to_string(&atp_api::RunStatistics::default()).unwrap(),
    };
    let (head, plan, moved) = (is_first.then(|| HEAD.to_owned()), "{}".to_owned(), Vec::new());
    let share = Some(share);
    store
        .change(Change::Begin(Box::new(Started { run, head, last_event: None, plan, targets, moved, share })))
        .await
        .unwrap();
}

pub(super) fn target(host: &str, n: usize) -> TargetRow {
    TargetRow {
        key: format!("{host}/{n}"),
        host: Some(host.to_owned()),
        vm: Some(format!("vm{n}")),
        uuid: None,
    }
}

/// What the rules say.
#[derive(Default)]
struct Model {
    now: Duration,
    alive: BTreeSet<&'static str>,
    leases: BTreeMap<&'static str, HostLease>,
    owners: BTreeMap<&'static str, &'static str>,
    targets: BTreeMap<String, (&'static str, TargetState)>,
}

impl Model {
    fn renew(&mut self, controller: &'static str) -> BTreeMap<String, i64> {
        self.alive.insert(controller);
        let mut held = BTreeMap::new();
        for host in HOSTS {
            let lease = self.leases.entry(host).or_default();
            let is_share = owner(host, self.alive.iter().copied()) == Some(controller);
            let mut epoch = lease.renew(controller, self.now, LENGTH);
            if epoch.is_none() && is_share {
                epoch = lease.take(controller, self.now, LENGTH);
                if epoch.is_some() {
                    self.owners.insert(host, controller);
                }
            }
            held.extend(epoch.map(|epoch| (host.to_owned(), epoch)));
        }
        held
    }

    fn look(&mut self, controller: &str, number: i64, startable: &BTreeMap<String, i64>, is_due: bool) {
        for (host, state) in self.targets.values_mut() {
            let Some(lease) = self.leases.get(host) else { continue };
            let late = if is_due { LENGTH * 1000 } else { Duration::ZERO };
            if self.owners.get(host) == Some(&controller) {
                state.give_up(lease, late, Duration::ZERO);
            }
        }
        for (host, state) in self.targets.values_mut() {
            let (Some(lease), Some(&epoch)) = (self.leases.get(host), startable.get(*host)) else { continue };
            let claim = Claim { controller: controller.to_owned(), epoch, number };
            state.start(lease, &claim, self.now, LENGTH);
        }
    }
}

/// The rows as the model has them.
fn rows(server: &atp_postgres::Postgres, run: i64) -> BTreeMap<String, String> {
    let statement = format!(
        "SELECT key, state, coalesce(owner, ''), coalesce(epoch, 0), coalesce(claim, 0),
            coalesce(outcome LIKE '%outcome-unknown%', FALSE) FROM targets WHERE run = {run} ORDER BY key"
    );
    let text = server.execute("shared", &statement).unwrap();
    let row = |line: &str| {
        let mut words = line.splitn(6, '|').map(str::to_owned);
        let key = words.next().unwrap();
        let words: Vec<_> = words.collect();
        let state = match words[0].as_str() {
            "started" => format!("started by {} {} {}", words[1], words[2], words[3]),
            "finished" => format!("finished, unknown: {}", words[4] == "t"),
            other => other.to_owned(),
        };
        (key, state)
    };
    text.lines().map(row).collect()
}

fn shown(state: &TargetState) -> String {
    match state {
        TargetState::Waiting => "waiting".to_owned(),
        TargetState::Started { claim: Claim { controller, epoch, number }, .. } => {
            format!("started by {controller} {epoch} {number}")
        }
        TargetState::Finished { is_unknown } => format!("finished, unknown: {is_unknown}"),
    }
}

#[tokio::test]
async fn rows_change_as_the_rules_say_in_any_order() {
    let (server, address) = Bed::own_server("shared");
    let (store, shared) = open(&address).await;
    let mut link = shared.link();
    let mut below = by_seed(1);
    let hosts = HOSTS.map(str::to_owned);
    let length = i64::try_from(LENGTH.as_millis()).unwrap();
    let mut model = Model::default();
    let (mut number, mut ended, mut unknown) = (0, 0, 0);
    for _ in 0..8 {
        let run = begun(&store).await;
        model.targets = HOSTS
            .iter()
            .flat_map(|host| [0, 1].map(|n| (format!("{host}/{n}"), (*host, TargetState::Waiting))))
            .collect();
        // What each controller was told last, and all claims there were.
        let mut known: BTreeMap<&str, BTreeMap<String, i64>> = BTreeMap::new();
        let mut claims: Vec<(String, Claim)> = Vec::new();
        for step in 0..60 {
            let controller = CONTROLLERS[below(2)];
            match below(6) {
                0 => {
                    let granted = link.renew(controller, &hosts, length).await.unwrap();
                    let held = model.renew(controller);
                    assert_eq!(granted.leases.into_iter().collect::<BTreeMap<_, _>>(), held, "step {step}");
                    known.insert(controller, held);
                }
                1 if below(2) == 0 => {
                    // All leases end.
                    let end = "UPDATE host_lease SET expires = 0; UPDATE controllers SET expires = 0";
                    server.execute("shared", end).unwrap();
                    model.now += LENGTH * 2;
                    model.alive.clear();
                }
                2 if !claims.is_empty() => {
                    let (key, claim) = claims[below(claims.len())].clone();
                    link.put_back(&[(run, key.clone(), claim.clone())]).await.unwrap();
                    model.targets.get_mut(&key).unwrap().1.put_back(&claim);
                }
                3 if !claims.is_empty() => {
                    let (key, claim) = claims[below(claims.len())].clone();
                    let finished = Finished {
                        run,
                        key: key.clone(),
                        controller: claim.controller.clone(),
                        epoch: claim.epoch,
                        number: claim.number,
                        outcome: serde_json::from_str(&outcome(0)).unwrap(),
                    };
                    link.finish(run, &[finished]).await.unwrap();
                    model.targets.get_mut(&key).unwrap().1.finish(&claim);
                }
                _ => {
                    let is_due = below(4) == 0;
                    if is_due {
                        server
                            .execute("shared", "UPDATE targets SET due = 0 WHERE state = 'started'")
                            .unwrap();
                    }
                    number += 1;
                    let held = known.get(controller).cloned().unwrap_or_default();
                    let startable = startable(held.iter().map(|(host, epoch)| (host.as_str(), *epoch)));
                    let look = Look {
                        controller,
                        number,
                        startable: &startable,
                        slack_ms: 0,
                        settles_unknown: false,
                        refused: None,
                    };
                    let looked = link.look(run, &look).await.unwrap();
                    model.look(controller, number, &held, is_due);
                    let by_this =
                        looked.started.iter().map(|started| (started.key.clone(), started.claim.clone()));
                    claims.extend(by_this);
                    // What has not been due is again, for the rows that were changed by hand.
                    let again =
                        format!("UPDATE targets SET due = atp_now() + {length} WHERE state = 'started'");
                    server.execute("shared", &again).unwrap();
                }
            }
            let expected: BTreeMap<_, _> =
                model.targets.iter().map(|(key, (_, state))| (key.clone(), shown(state))).collect();
            assert_eq!(rows(&server, run), expected, "step {step}");
        }
        let is_done = model.targets.values().all(|(_, state)| matches!(state, TargetState::Finished { .. }));
        let of_unknown =
            |(_, state): &&(_, TargetState)| *state == TargetState::Finished { is_unknown: true };
        unknown += model.targets.values().filter(of_unknown).count();
        if is_done {
            number += 1;
            let look = Look {
                controller: "one",
                number,
                startable: "{}",
                slack_ms: 0,
                settles_unknown: false,
                refused: None,
            };
            link.look(run, &look).await.unwrap();
            let row = store.run(run).await.unwrap().unwrap();
            assert_eq!(row.summary.state, RunState::Ended);
            assert_eq!(
                server
                    .execute(
                        "shared",
                        "SELECT count(*) FROM runs WHERE shared IS NOT NULL AND state = 'ended'"
                    )
                    .unwrap(),
                "0"
            );
            ended += 1;
        }
    }
    assert!(ended >= 2 && unknown >= 2, "{ended} runs ended, {unknown} outcomes are unknown");
}

#[tokio::test]
async fn a_service_for_itself_and_controllers_are_not_side_by_side() {
    let (server, address) = Bed::own_server("shared");
    let database = || Database::read(&address, "").unwrap();
    let (first, _) = open(&address).await;
    let (second, _) = open(&address).await;
    let run = begun(&first).await;
    assert!(second.run(run).await.unwrap().is_some());
    let error = Store::open_database(database(), Clock::system()).await.unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    // Of an older schema, controllers are in the way too.
    server.execute("shared", "UPDATE atp_store SET version = 1").unwrap();
    let error = Store::open_shared(database(), Clock::system()).await.unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    server.execute("shared", "UPDATE atp_store SET version = 99").unwrap();
    let error = Store::open_shared(database(), Clock::system()).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
    // So they are if they are of another version of the program.
    let newest = schema::DATABASE_STEPS.len();
    let other = format!("UPDATE atp_store SET version = {newest}, program = 'other'");
    server.execute("shared", &other).unwrap();
    let error = Store::open_shared(database(), Clock::system()).await.unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    drop((first, second));
    let alone = loop {
        match Store::open_database(database(), Clock::system()).await {
            Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
            opened => break opened.unwrap(),
        }
    };
    assert_eq!(alone.run(run).await.unwrap().unwrap().summary.state, RunState::Interrupted);
    let left = "SELECT count(*) FROM runs WHERE shared IS NOT NULL";
    assert_eq!(server.execute("shared", left).unwrap(), "0", "what may be secret is erased");
    let error = Store::open_shared(database(), Clock::system()).await.unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

#[tokio::test]
async fn a_database_of_the_schema_before_becomes_one_of_the_present_for_both_uses() {
    let (server, alone) = Bed::own_server("alone");
    let shared = server.database("shared").unwrap();
    let before = format!(
        "{}; UPDATE atp_store SET version = 1;
        INSERT INTO runs (op, by, state, created, head, plan, targets)
            VALUES ('exec', 'a', 'running', 1, '{HEAD}', '{{}}', 1);
        INSERT INTO targets (run, key, n, host, vm, from_begin, state)
            VALUES (1, 'h/0', 1, 'h', 'vm0', TRUE, 'started')",
        schema::DATABASE_STEPS[0]
    );
    for name in ["alone", "shared"] {
        server.execute(name, &before).unwrap();
    }
    let database = Database::read(&alone, "").unwrap();
    let alone = Store::open_database(database, Clock::system()).await.unwrap();
    let (shared, _) = open(&shared).await;
    let newest = schema::DATABASE_STEPS.len().to_string();
    for (name, store) in [("alone", &alone), ("shared", &shared)] {
        let row = store.run(1).await.unwrap().unwrap();
        assert_eq!(row.summary.state, RunState::Interrupted, "{name}");
        assert_eq!(row.summary.statistics.unwrap().unknown_effects, 1, "{name}");
        assert_eq!(server.execute(name, "SELECT version FROM atp_store").unwrap(), newest, "{name}");
    }
    assert_eq!(begun(&shared).await, 2);
}

#[tokio::test]
async fn a_run_that_has_begun_is_not_discarded_as_others_may_work_on_it() {
    let (_server, address) = Bed::own_server("shared");
    let (store, _) = open(&address).await;
    let planned = store.change(new("a")).await.unwrap();
    let run = begun(&store).await;
    assert_eq!(store.change(Change::Discard { run }).await.unwrap(), 0);
    assert_eq!(store.change(Change::Discard { run: planned }).await.unwrap(), 1);
    assert!(store.run(run).await.unwrap().is_some() && store.run(planned).await.unwrap().is_none());
}
