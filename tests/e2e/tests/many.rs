//! Sixty guests on three hosts, with faults in the middle of a run.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use atp_e2e::{Bed, Outcome, bed};
use atp_testbed::Host;

/// The guests of each host, including its two own ones.
const GUESTS: usize = 20;
/// The time limit of each target, and how much later an outcome may arrive on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);
const SLACK: Duration = Duration::from_secs(20);

/// Time limit for starting the guests of a host.
const LONG: Duration = Duration::from_secs(300);

/// Adds guests to a host that have a QEMU with a monitor and never run: that costs no processor time.
fn fill(host: &Host) {
    let guests = (2..GUESTS).map(|number| host.define_guest(&format!("idle{number:02}")).unwrap());
    // In one call of virsh: on a small machine, starting virsh costs more than its work.
    let start: Vec<_> = guests.map(|guest| format!("start {} --paused", guest.uuid())).collect();
    host.virsh_within(&[&start.join("; ")], LONG).unwrap();
}

fn fill_all(bed: &Bed) {
    thread::scope(|scope| {
        bed.hosts().iter().for_each(|host| drop(scope.spawn(|| fill(host))));
    });
}

#[test]
fn a_daemon_and_two_qemus_that_stop_in_mid_run_delay_no_other_target() {
    let bed = bed();
    fill_all(&bed);
    // Targets are taken in the order of their names, so these are the last of their hosts.
    let hung = ["h1/vm2", "h3/vm2"];
    let guests = hung.map(|name| {
        let (host, guest) = name.split_once('/').unwrap();
        bed.host(host).unwrap().guest(guest).unwrap()
    });
    let running = bed
        .atp(&["--parallel", "24", "--timeout", "20s", "qmp", "*", "--", "query-status"])
        // Slow enough to inject faults in the middle of the run, and fast enough that healthy hosts finish before a
        // target's time limit.
        .env("ATP_TRANSPORT__RATE_LIMIT__CALLS_PER_SECOND", "1.5")
        .env("ATP_TRANSPORT__RATE_LIMIT__BURST", "1")
        .output("jsonl")
        .start();
    running.wait_for_lines(12);
    guests.iter().for_each(|guest| guest.pause_qemu().unwrap());
    bed.host("h2").unwrap().pause_daemon().unwrap();
    let run = running.finish();

    run.exits_with(1);
    let outcomes = run.outcomes();
    let names: BTreeSet<String> = outcomes.iter().map(Outcome::name).collect();
    assert_eq!((outcomes.len(), names.len()), (3 * GUESTS, 3 * GUESTS), "{:#?}", run.brief());
    let limit = u64::try_from((TIMEOUT + SLACK).as_millis()).unwrap();
    let mut last = (Duration::ZERO, Duration::ZERO);
    for (outcome, at) in outcomes.iter().zip(run.line_times()) {
        let name = outcome.name();
        assert!(outcome.duration_ms <= limit, "{outcome:#?}");
        if hung.contains(&name.as_str()) {
            assert_eq!(outcome.brief(), format!("{name} timeout unknown call-timeout"));
        } else if outcome.host.as_deref() == Some("h2") {
            // Commands sent before the daemon stopped may have been carried out; later ones were not sent.
            let expected = [
                ("ok", "done"),
                ("timeout", "unknown"),
                ("timeout", "none"),
                ("unreachable", "none"),
                ("failed", "none"),
            ];
            assert!(expected.contains(&(outcome.status.as_str(), outcome.effect.as_str())), "{outcome:#?}");
            last.1 = at;
        } else {
            assert_eq!((outcome.status.as_str(), outcome.attempts), ("ok", 1), "{outcome:#?}");
            last.0 = at;
        }
    }
    let of_h2 = |is_ok: bool| {
        outcomes.iter().filter(|o| o.host.as_deref() == Some("h2") && (o.status == "ok") == is_ok).count()
    };
    assert!(of_h2(true) >= 1 && of_h2(false) >= 5, "{:#?}", run.brief());
    // They take their full time, a few after the others. The targets of other hosts do not wait for them.
    assert!(last.0 < last.1, "{last:?}");
    println!("the healthy hosts' last outcome after {:.1?}, the last of all after {:.1?}", last.0, last.1);
}
