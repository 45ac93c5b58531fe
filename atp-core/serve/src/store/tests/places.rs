//! The places of a run's `parallel`, over all controllers.

use std::collections::{BTreeMap, BTreeSet};

use atp_api::serve::RunState;
use atp_api::{ErrorKind, OutcomeError, Policy};

use super::contention::finished;
use super::shared::{begin_again, open, target};
use super::*;

const CONTROLLERS: [&str; 3] = ["one", "two", "three"];
const LENGTH: i64 = 1_000_000;

/// Fewer places than controllers, and about as many.
const PARALLEL: [usize; 3] = [1, 2, 4];

fn names() -> Vec<String> {
    (1..=9).map(|n| format!("h{n}")).collect()
}

async fn begun(store: &Store, policy: Policy) -> i64 {
    let run = store.change(new("a")).await.unwrap();
    let targets = names().iter().flat_map(|host| (0..4).map(|n| target(host, n))).collect();
    begin_again(store, run, targets, policy, true).await;
    run
}

#[tokio::test]
async fn no_more_is_under_way_than_places_whoever_asks_and_every_controller_gets_some() {
    let (server, address) = Bed::own_server("one");
    let (store, shared) = open(&address).await;
    let mut link = shared.link();
    let mut below = by_seed(7);
    let mut lost = 0;
    for parallel in PARALLEL {
        let run = begun(&store, Policy { parallel, ..Policy::default() }).await;
        let mut held: BTreeMap<&str, Vec<(String, i64)>> = BTreeMap::new();
        let mut under_way: BTreeMap<&str, Vec<StartedTarget>> = BTreeMap::new();
        let mut got = BTreeSet::new();
        let mut number = 0;
        while store.run(run).await.unwrap().unwrap().summary.state == RunState::Running {
            number += 1;
            assert!(number < 4000, "the run does not end");
            let controller = CONTROLLERS[below(3)];
            match below(8) {
                0 | 1 => {
                    let granted = link.renew(controller, &names(), LENGTH).await.unwrap();
                    let leaves = granted.leases.iter().filter(|(host, _)| !granted.share.contains(host));
                    link.give_back(controller, &leaves.cloned().collect::<Vec<_>>()).await.unwrap();
                    let stays = granted.leases.into_iter().filter(|(host, _)| granted.share.contains(host));
                    held.insert(controller, stays.collect());
                }
                // All leases end, and what is under way is of old epochs.
                2 if below(12) == 0 => {
                    server.execute("one", "UPDATE host_lease SET expires = 0").unwrap();
                    lost += under_way.values().map(Vec::len).sum::<usize>();
                }
                3 | 4 => {
                    let of_it = under_way.entry(controller).or_default();
                    if !of_it.is_empty() {
                        let done = of_it.swap_remove(below(of_it.len()));
                        link.finish(run, &[finished(&done)]).await.unwrap();
                    }
                }
                _ => {
                    let of_it = held.entry(controller).or_default();
                    let startable = startable(of_it.iter().map(|(host, epoch)| (host.as_str(), *epoch)));
                    let look = Look {
                        controller,
                        number,
                        startable: &startable,
                        slack_ms: 0,
                        settles_unknown: false,
                        refused: None,
                    };
                    let started = link.look(run, &look).await.unwrap().started;
                    if !started.is_empty() {
                        got.insert(controller);
                    }
                    under_way.entry(controller).or_default().extend(started);
                }
            }
            let count = "SELECT count(*) FROM targets AS t JOIN host_lease AS l
                ON l.daemon = t.host AND l.epoch = t.epoch WHERE t.state = 'started'";
            let count: usize = server.execute("one", count).unwrap().parse().unwrap();
            assert!(count <= parallel, "{count} of {parallel} places are taken");
        }
        assert_eq!(got.len(), CONTROLLERS.len(), "of {parallel} places, only {got:?} had some");
    }
    assert!(lost > 0, "nothing was under way when leases ended");
}

#[tokio::test]
async fn what_a_controller_cannot_do_has_an_outcome_and_others_do_their_part() {
    let (server, address) = Bed::own_server("one");
    let (store, shared) = open(&address).await;
    let mut link = shared.link();
    let run = begun(&store, Policy::default()).await;
    let mut held = Vec::new();
    for (controller, hosts) in CONTROLLERS.into_iter().zip(names().chunks(3)) {
        let granted = link.renew(controller, hosts, LENGTH).await.unwrap();
        held.push(startable(granted.leases.iter().map(|(host, epoch)| (host.as_str(), *epoch))));
    }
    let error = OutcomeError::new(ErrorKind::InvalidCommand, "it cannot be read");
    let look = |n: usize, refused| Look {
        controller: CONTROLLERS[n],
        number: 1,
        startable: &held[n],
        slack_ms: 0,
        settles_unknown: false,
        refused,
    };
    let of = |kind: &str| {
        let count = format!("SELECT count(*) FROM targets WHERE {kind}");
        server.execute("one", &count).unwrap()
    };
    while link.look(run, &look(0, Some(&error))).await.unwrap().has_more {}
    assert_eq!(of("state = 'finished' AND outcome LIKE '%it cannot be read%'"), "12");
    assert_eq!(of("state = 'finished' AND outcome LIKE '%\"effect\":\"none\"%'"), "12");
    for n in [1, 2] {
        for started in link.look(run, &look(n, None)).await.unwrap().started {
            link.finish(run, &[finished(&started)]).await.unwrap();
        }
    }
    link.look(run, &look(0, Some(&error))).await.unwrap();
    let row = store.run(run).await.unwrap().unwrap();
    assert_eq!(row.summary.state, RunState::Ended);
    let counts = serde_json::to_value(row.summary.statistics.unwrap().counts).unwrap();
    assert_eq!((&counts["failed"], &counts["ok"]), (&12.into(), &24.into()));
}
