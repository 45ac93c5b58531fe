//! Outcomes that are large, and what a database refuses for good.

use std::error::Error as _;

use atp_api::serve::RunState;
use atp_api::{Data, ExecReport, Policy, Stream};

use super::contention::{finished, look};
use super::shared::{HOSTS, begun, begun_with, open};
use super::*;

const MIB: usize = 1 << 20;

/// The hosts that controller `one` has from now on.
async fn held(link: &mut Link) -> String {
    let granted = link.renew("one", &HOSTS.map(str::to_owned), 1_000_000).await.unwrap();
    startable(granted.leases.iter().map(|(host, epoch)| (host.as_str(), *epoch)))
}

#[tokio::test]
async fn large_outcomes_go_in_several_statements_and_small_ones_in_one() {
    let (server, address) = Bed::own_server("one");
    let (store, shared) = open(&address).await;
    let mut link = shared.link();
    let held = held(&mut link).await;
    for (bytes, expected) in [(3 * MIB / 2, vec![3, 1]), (100, vec![4])] {
        let run = begun(&store).await;
        let started = link.look(run, &look("one", 1, &held)).await.unwrap().started;
        let report = ExecReport {
            exit_code: Some(0),
            signal: None,
            stdout: Stream { bytes: vec![b'x'; bytes], ..Stream::default() },
            stderr: Stream::default(),
        };
        let with_output = |started| {
            let mut outcome = finished(started);
            outcome.outcome.data = Some(Data::Exec(report.clone()));
            outcome
        };
        let outcomes: Vec<_> = started.iter().map(with_output).collect();
        let (mut left, mut counts) = (outcomes.as_slice(), Vec::new());
        while !left.is_empty() {
            let count = match link.finish(run, left).await {
                // A machine that is busy may take longer than a statement has; a controller asks again, too.
                Err(error) if !error.is_of_statement() => continue,
                told => told.unwrap(),
            };
            counts.push(count);
            left = &left[count..];
        }
        assert_eq!(counts, expected, "{bytes} bytes each");
        let count = |table: &str, text: &str| {
            let count =
                format!("SELECT count(*) FROM {table} WHERE run = {run} AND length({text}) > {bytes}");
            server.execute("one", &count).unwrap()
        };
        assert_eq!((count("targets", "outcome"), count("events", "data")), ("4".to_owned(), "4".to_owned()));
        link.look(run, &look("one", 2, &held)).await.unwrap();
        let row = store.run(run).await.unwrap().unwrap();
        assert_eq!((row.summary.state, row.summary.statistics.unwrap().counts.ok), (RunState::Ended, 4));
    }
}

#[tokio::test]
async fn what_is_refused_for_good_is_told_from_what_can_be_mended() {
    let (server, address) = Bed::own_server("one");
    let (store, shared) = open(&address).await;
    let mut link = shared.link();
    let held = held(&mut link).await;
    let run = begun_with(&store, Policy { parallel: 1, ..Policy::default() }).await;
    let started = link.look(run, &look("one", 1, &held)).await.unwrap().started;
    let outcomes: Vec<_> = started.iter().map(finished).collect();
    for (made, unmade, is_for_good) in [
        (
            "ALTER TABLE targets ADD CONSTRAINT a CHECK (outcome IS NULL)",
            "ALTER TABLE targets DROP CONSTRAINT a",
            true,
        ),
        (
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
             CREATE TRIGGER no BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no()",
            "DROP TRIGGER no ON events",
            true,
        ),
        ("ALTER TABLE events RENAME TO others", "ALTER TABLE others RENAME TO events", false),
    ] {
        server.execute("one", made).unwrap();
        let error = link.finish(run, &outcomes).await.unwrap_err();
        assert!(error.is_of_statement(), "{error:?}");
        assert_eq!(error.is_for_good(), is_for_good, "{:?}", error.source());
        server.execute("one", unmade).unwrap();
    }
    assert_eq!(link.finish(run, &outcomes).await.unwrap(), 1);
}

#[tokio::test]
async fn a_run_whose_row_cannot_be_read_is_interrupted_and_hurts_no_other() {
    let (server, address) = Bed::own_server("one");
    let (store, shared) = open(&address).await;
    let mut link = shared.link();
    let held = held(&mut link).await;
    let run = begun_with(&store, Policy { parallel: 1, ..Policy::default() }).await;
    let started = link.look(run, &look("one", 1, &held)).await.unwrap().started;
    server.execute("one", &format!("UPDATE runs SET shared = '{{' WHERE id = {run}")).unwrap();
    let error = link.look(run, &look("one", 2, &held)).await.unwrap_err();
    assert!(error.is_for_good() && error.is_of_statement(), "{error:?}");
    link.interrupt(run).await.unwrap();
    let row = store.run(run).await.unwrap().unwrap();
    assert_eq!(row.summary.state, RunState::Interrupted);
    assert_eq!(row.summary.statistics.as_ref().unwrap().unknown_effects, 1);
    // What is told is no controller's to put back, which would let a resume repeat it.
    assert!(link.started_by("one").await.unwrap().is_empty());
    // What is told of it later changes nothing, and does not wait.
    let late: Vec<_> = started.iter().map(finished).collect();
    assert_eq!(link.finish(run, &late).await.unwrap(), 1);
    link.interrupt(run).await.unwrap();
    let outcomes = store.outcomes(&row, 0, 10).await.unwrap().outcomes;
    let effects: Vec<_> = outcomes.iter().map(|(_, outcome)| outcome.effect.to_string()).collect();
    assert_eq!(effects, ["unknown"]);
    let words: Vec<_> =
        store.events(run, 0, 10).await.unwrap().into_iter().map(|(_, word, _)| word).collect();
    assert_eq!(words, ["started", "finished", "interrupted"]);
    assert_eq!(link.under_way().await.unwrap(), []);
    let other = begun(&store).await;
    assert_eq!(link.look(other, &look("one", 3, &held)).await.unwrap().started.len(), 4);
}
