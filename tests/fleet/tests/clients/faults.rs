//! Faults, as a client meets them.

use std::time::Duration;

use atp_fleet::{FleetOptions, HostFault, VmFault};
use atp_rpc::numbers::code;
use tokio::time::{Instant, timeout};

use crate::bed::{connect, exec, fleet, try_connect, vm1};

#[tokio::test(start_paused = true)]
async fn a_hung_vm_answers_after_its_fault_is_removed_and_does_not_affect_others() {
    let fleet = fleet(FleetOptions { vms: 2, ..FleetOptions::default() });
    let vm = fleet.host(1).unwrap().vm(1).unwrap();
    let c = connect(&fleet, 1).await;
    let vms = c.list_domains(0).await.unwrap();
    vm.set_fault(VmFault::Hung);
    let work = async {
        let pid = exec(&c, &vms[0], "true").await.unwrap();
        (pid, Instant::now())
    };
    let other = async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        exec(&c, &vms[1], "true").await.unwrap();
        // Calls that libvirt answers from memory work; further agent commands wait for the lock, and then fail.
        assert_eq!(c.domain_control_info(&vms[0]).await.unwrap().for_time, Duration::ZERO);
        let began = Instant::now();
        let second = exec(&c, &vms[0], "false").await.unwrap_err();
        assert!(second.is_code(code::OPERATION_TIMEOUT));
        assert_eq!(began.elapsed().as_secs(), 30);
        assert_eq!(vm.counts().programs.total(), 0);
        vm.set_fault(None);
        Instant::now()
    };
    let ((pid, answered), healed) = tokio::join!(work, other);
    assert_eq!((pid, answered), (1, healed));
    assert_eq!((vm.counts().programs.of("true"), vm.counts().programs.of("false")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_occupied_monitor_is_reported_with_its_time() {
    let fleet = fleet(FleetOptions::default());
    let c = connect(&fleet, 1).await;
    let vm = vm1(&c).await;
    fleet.host(1).unwrap().vm(1).unwrap().set_fault(VmFault::Hung);
    let second = Duration::from_secs(1);
    timeout(second, c.monitor_command(&vm, r#"{"execute":"stop"}"#)).await.unwrap_err();
    let info = c.domain_control_info(&vm).await.unwrap();
    assert_eq!((info.state, info.for_time), (atp_rpc::domain::ControlState::Occupied, second));
}

#[tokio::test(start_paused = true)]
async fn silent_agents_and_absent_agents_have_different_errors() {
    let fleet = fleet(FleetOptions::default());
    let c = connect(&fleet, 1).await;
    let vm = vm1(&c).await;
    for (fault, seconds, words) in
        [(VmFault::AgentSilent, 5, "not available"), (VmFault::AgentAbsent, 0, "not connected")]
    {
        fleet.host(1).unwrap().vm(1).unwrap().set_fault(fault);
        let began = Instant::now();
        let error = exec(&c, &vm, "true").await.unwrap_err();
        assert!(error.is_code(code::AGENT_UNRESPONSIVE) && error.to_string().contains(words), "{error}");
        assert_eq!(began.elapsed().as_secs(), seconds);
        c.monitor_command(&vm, r#"{"execute":"query-status"}"#).await.unwrap();
    }
    fleet.host(1).unwrap().vm(1).unwrap().set_fault(VmFault::ShutOff);
    assert!(exec(&c, &vm, "true").await.unwrap_err().is_code(code::OPERATION_INVALID));
}

#[tokio::test(start_paused = true)]
async fn a_dead_host_accepts_and_answers_after_its_fault_is_removed() {
    let faults = "dead=1".parse().unwrap();
    let fleet = fleet(FleetOptions { faults, ..FleetOptions::default() });
    let host = fleet.host(1).unwrap();
    let began = Instant::now();
    try_connect(&fleet, 1).await.unwrap_err();
    assert_eq!(began.elapsed().as_secs(), 30);
    let heal = async {
        tokio::time::sleep(Duration::from_secs(9)).await;
        host.set_fault(None);
    };
    let (connection, ()) = tokio::join!(connect(&fleet, 1), heal);
    connection.hostname().await.unwrap();
    assert_eq!(host.counts().connections, 2);
}

#[tokio::test(start_paused = true)]
async fn calls_to_a_slow_host_overlap() {
    let faults = "slow=1:1s".parse().unwrap();
    let fleet = fleet(FleetOptions { faults, ..FleetOptions::default() });
    let c = connect(&fleet, 1).await;
    let began = Instant::now();
    let (one, two) = tokio::join!(c.hostname(), c.hostname());
    assert!(one.is_ok() && two.is_ok());
    let took = began.elapsed().as_millis();
    assert!((500..=1_500).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_flapping_host_is_up_and_down_in_turns() {
    let faults = "flapping=1:3s/2s".parse().unwrap();
    let fleet = fleet(FleetOptions { faults, ..FleetOptions::default() });
    let (mut there, mut away) = (0, 0);
    for _ in 0..500 {
        match try_connect(&fleet, 1).await {
            Ok(_) => there += 1,
            Err(_) => away += 1,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((there + 5) / 10, 30, "{there} up, {away} down");
    let connection = loop {
        match try_connect(&fleet, 1).await {
            Ok(connection) => break connection,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!connection.is_open(), "a connection is older than a turn");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_cut_was_executed() {
    let fleet = fleet(FleetOptions { seed: 3, ..FleetOptions::default() });
    let host = fleet.host(1).unwrap();
    host.set_fault(HostFault::Cutting { one_in: 3 });
    let (mut told, mut lost) = (0, 0);
    while told + lost < 300 {
        let c = connect(&fleet, 1).await;
        let vm = vm1(&c).await;
        while let Ok(reply) = c.suspend_domain(&vm).await {
            let () = reply;
            told += 1;
        }
        lost += 1;
    }
    assert_eq!(host.vm(1).unwrap().counts().calls.of("virDomainSuspend"), told + lost);
    assert!((80..120).contains(&lost), "{lost} of {} were cut", told + lost);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_cuts_the_same_calls() {
    let run = async |seed| {
        let faults = "cutting=2:4,slow=1:10ms".parse().unwrap();
        let fleet = fleet(FleetOptions { hosts: 3, seed, faults, ..FleetOptions::default() });
        let mut story = Vec::new();
        for round in 0..60u32 {
            let c = connect(&fleet, round % 3 + 1).await;
            let vm = vm1(&c).await;
            let began = Instant::now();
            let done = c.suspend_domain(&vm).await.is_ok();
            story.push((done, began.elapsed()));
        }
        story
    };
    assert_eq!(run(5).await, run(5).await);
    assert_ne!(run(5).await, run(6).await);
}
