//! Exactly once: a program whose start was answered ran once, and a call that may not have run did not run.

use std::time::Duration;

use atp_fleet::FleetOptions;
use tokio::time::timeout;

use crate::bed::{connect, exec, fleet, try_connect, vm1};

/// What a client knows about its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Belief {
    Ran,
    DidNotRun,
    Unknown,
}

/// Starts a program on a VM. Retries while the error says that it did not run.
async fn start(fleet: &atp_fleet::Fleet, host: u32) -> Belief {
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let Ok(Ok(connection)) = timeout(Duration::from_secs(3), try_connect(fleet, host)).await else {
            continue;
        };
        let Ok(vm) = connection.domain_by_name("vm1").await else { continue };
        match timeout(Duration::from_secs(3), exec(&connection, &vm, "true")).await {
            Ok(Ok(_)) => return Belief::Ran,
            Ok(Err(error)) if !error.may_have_run() => {}
            // libvirt's error does not say whether the agent executed the command.
            _ => return Belief::Unknown,
        }
    }
    Belief::DidNotRun
}

#[tokio::test(start_paused = true)]
async fn no_program_runs_twice_and_none_is_reported_that_did_not_run() {
    let mut seen = [0; 3];
    for seed in 0..100 {
        let faults = "refused=1,dead=1,slow=2:100ms,flapping=3:200ms/150ms,cutting=4:3,hung=2,agent-silent=1";
        let faults = faults.parse().unwrap();
        let fleet = fleet(FleetOptions { hosts: 16, seed, faults, ..FleetOptions::default() });
        let beliefs = futures_util::future::join_all((1..=16).map(|host| start(&fleet, host))).await;
        for (host, belief) in fleet.hosts().zip(beliefs) {
            let vm = host.vm(1).unwrap();
            host.set_fault(None);
            vm.set_fault(None);
            let count = vm.counts().programs.of("true");
            let is_true = match belief {
                Belief::Ran => count == 1,
                Belief::DidNotRun => count == 0,
                Belief::Unknown => count <= 1,
            };
            assert!(is_true, "seed {seed}: {} of {host:?}, where {belief:?}", count);
            seen[belief as usize] += 1;
        }
        // Without faults, each program runs.
        exec(&connect(&fleet, 1).await, &vm1(&connect(&fleet, 1).await).await, "false").await.unwrap();
    }
    assert!(seen.iter().all(|count| *count > 100), "the faults do not lead to every belief: {seen:?}");
}
