//! VMs that are on another host than the one in the journal: they have the past of their UUID on any host.

use std::collections::BTreeMap;
use std::path::Path;

use atp_executor::{
    Completion, History, Journal, Notice, Outcome, OutcomeError, Plan, RunControl, Status, Target,
    run_targets,
};
use atp_transport::{Effect, ErrorKind};

use crate::common::{self, virtual_time};
use crate::{Folder, exec, left, plan, planned, resume, spec};

/// The VM `vmN`, with the same UUID on every host.
fn vm(host: &str, number: usize) -> Target {
    Target { host: host.parse().unwrap(), ..common::target(1, number) }
}

/// A plan of these VMs, which are on hosts that were listed.
fn of(targets: impl IntoIterator<Item = Target>) -> Plan {
    let listed = ["h1", "h2", "h3"].map(|host| host.parse().unwrap()).to_vec();
    Plan { targets: targets.into_iter().collect(), listed, ..plan([], exec()) }
}

/// As [`of`], when `h2` could not be listed.
fn without_h2(targets: impl IntoIterator<Item = Target>) -> Plan {
    let settled = vec![planned(Some("h2"), None, Status::Unreachable, ErrorKind::CallTimeout)];
    Plan { settled, ..of(targets) }
}

fn done() -> Completion {
    Completion::ok(Effect::Done, None)
}

fn without_effect() -> Completion {
    Completion::failed(Status::Failed, Effect::None, OutcomeError::new(ErrorKind::AgentNotConnected, "no"))
}

fn unknown() -> Completion {
    Completion::failed(Status::Timeout, Effect::Unknown, OutcomeError::new(ErrorKind::CallTimeout, "no"))
}

/// Runs `plan` with the journal at `path`, which is begun or resumed. `work` names the targets that are expected to run,
/// each with its result.
async fn run(path: &Path, plan: Plan, work: &[(&str, Completion)]) -> Vec<Outcome> {
    let (plan, journal) = if path.exists() {
        let history = History::read(path, &exec()).await.unwrap();
        let plan = history.apply(plan);
        let journal = resume(&history, &plan).await;
        (plan, journal)
    } else {
        let journal = Journal::create(path, &plan).await.unwrap();
        (plan, journal)
    };
    let run_now: Vec<String> = plan.targets.iter().map(Target::to_string).collect();
    let expected: Vec<&str> = work.iter().map(|(target, _)| *target).collect();
    assert_eq!(run_now, expected);
    let work: BTreeMap<String, Completion> =
        work.iter().map(|(target, completion)| ((*target).to_owned(), completion.clone())).collect();
    let run = run_targets(spec(plan, journal), &RunControl::default(), move |target, _| {
        std::future::ready(work[&target.to_string()].clone())
    });
    run.outcomes().await
}

/// What is left of the journal at `path`, of a plan.
async fn left_at(path: &Path, plan: Plan) -> (Vec<String>, Vec<String>, usize) {
    left(&History::read(path, &exec()).await.unwrap(), plan)
}

fn no<T>() -> Vec<T> {
    Vec::new()
}

#[test]
fn a_vm_that_moved_has_the_past_of_its_uuid_on_any_host() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        // One is done, one failed without effect, one is unknown; the fourth was never started, as the run was killed.
        let work = [("h1/vm0", done()), ("h1/vm1", without_effect()), ("h1/vm2", unknown())];
        let first = without_h2((0..3).map(|number| vm("h1", number)));
        run(&path, first, &work).await;
        let history = History::read(&path, &exec()).await.unwrap();

        let gone = of((0..3).map(|number| vm("h2", number)));
        let told = vec!["h1/vm2 timeout call-timeout".to_owned()];
        assert_eq!(left(&history, gone.clone()), (vec!["h2/vm1".to_owned()], told, 1));
        let notices = history.apply(gone).notices;
        let notices: Vec<String> = notices.iter().map(ToString::to_string).collect();
        assert_eq!(
            notices,
            [
                "h2/vm0 ran on h1 in the journal's run and is not repeated on h2",
                "h2/vm1 was on h1 in the journal's run, which did nothing to it: it is still to do on h2",
                "h2/vm2 ran on h1 in the journal's run and is not repeated on h2",
                "of the journal's run 1 target is done, 1 is to do, 1 had or may have had an effect and is not repeated",
            ]
        );
    });
}

#[test]
fn a_vm_that_is_listed_on_both_hosts_has_an_outcome_on_both() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        let work = [("h1/vm0", done()), ("h1/vm1", without_effect()), ("h1/vm2", unknown())];
        run(&path, without_h2((0..3).map(|number| vm("h1", number))), &work).await;
        // A definition may stay behind when a VM moves; or these are copies. Those on h2 are owed an outcome.
        let both =
            || of(["h1", "h2"].into_iter().flat_map(|host| (0..3).map(move |number| vm(host, number))));
        let history = History::read(&path, &exec()).await.unwrap();
        let told =
            ["h1/vm2 timeout call-timeout", "h2/vm0 skipped ran-elsewhere", "h2/vm2 skipped ran-elsewhere"];
        let targets = vec!["h1/vm1".to_owned(), "h2/vm1".to_owned()];
        assert_eq!(left(&history, both()), (targets, told.map(str::to_owned).to_vec(), 1));
        let skipped = &history.apply(both()).settled[1];
        assert!(skipped.error.as_ref().unwrap().message.contains("ran on h1"), "{skipped:?}");

        // What is run on one of them then is not run on the other.
        let work = [("h1/vm1", without_effect()), ("h2/vm1", unknown())];
        run(&path, both(), &work).await;
        let (targets, settled, _) = left_at(&path, both()).await;
        assert_eq!(targets, no::<String>());
        assert!(settled.contains(&"h1/vm1 skipped ran-elsewhere".to_owned()), "{settled:?}");
        assert!(settled.contains(&"h2/vm1 timeout call-timeout".to_owned()), "{settled:?}");
    });
}

#[test]
fn a_vm_that_moves_again_and_back_is_not_repeated() {
    for (last, settled, done_before) in
        [(done(), vec![], 1), (unknown(), vec!["h2/vm0 timeout call-timeout".to_owned()], 0)]
    {
        virtual_time(async {
            let folder = Folder::new();
            let path = folder.path();
            run(&path, of([vm("h1", 0)]), &[("h1/vm0", without_effect())]).await;
            run(&path, of([vm("h3", 0)]), &[("h3/vm0", without_effect())]).await;
            run(&path, of([vm("h2", 0)]), &[("h2/vm0", last)]).await;
            // One VM has one outcome, wherever it is.
            for host in ["h1", "h2", "h3"] {
                assert_eq!(left_at(&path, of([vm(host, 0)])).await, (no(), settled.clone(), done_before));
            }
            assert_eq!(left_at(&path, of([])).await, (no(), settled, done_before));
        });
    }
}

#[test]
fn copies_that_were_targets_on_both_hosts_stay_two() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        let both = || of([vm("h1", 0), vm("h2", 0)]);
        run(&path, both(), &[("h1/vm0", unknown()), ("h2/vm0", without_effect())]).await;
        let told = vec!["h1/vm0 timeout call-timeout".to_owned()];
        assert_eq!(left_at(&path, both()).await, (vec!["h2/vm0".to_owned()], told.clone(), 0));
        // Which of them moved is not known: what ran may not be repeated.
        let moved = of([vm("h1", 0), vm("h3", 0)]);
        let (targets, settled, _) = left_at(&path, moved).await;
        assert_eq!(
            (targets, settled),
            (no(), [&told[..], &["h2/vm0 skipped not-selected".to_owned()]].concat())
        );
        run(&path, both(), &[("h2/vm0", done())]).await;
        assert_eq!(left_at(&path, both()).await, (no(), told, 1));
    });
}

#[test]
fn a_vm_that_is_named_on_its_old_host_and_found_on_another_has_one_outcome() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        let work = [("h1/vm0", done()), ("h1/vm1", without_effect())];
        run(&path, of([vm("h1", 0), vm("h1", 1)]), &work).await;
        let not_found =
            ["vm0", "vm1"].map(|vm| planned(Some("h1"), Some(vm), Status::Failed, ErrorKind::VmNotFound));
        let moved = Plan { settled: not_found.to_vec(), ..of([vm("h2", 0), vm("h2", 1)]) };
        assert_eq!(left_at(&path, moved.clone()).await, (vec!["h2/vm1".to_owned()], no(), 1));
        let history = History::read(&path, &exec()).await.unwrap();
        let is_moved = |notice: &Notice| matches!(notice, Notice::Moved { .. } | Notice::RanElsewhere { .. });
        assert_eq!(history.apply(moved).notices.iter().filter(|notice| is_moved(notice)).count(), 2);
    });
}
