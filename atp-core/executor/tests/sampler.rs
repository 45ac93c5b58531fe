//! Statistics of simulated hosts, in virtual time.
#![cfg(feature = "native")]
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::sync::Arc;
use std::time::Duration;

use atp_executor::{Executor, SampleOptions, Sampler, Selection, StatisticsRound, VmStatistics};
use atp_fleet::{Fleet, FleetOptions, HostFault, VmFault};
use atp_transport::ErrorKind;
use tokio::time::Instant;

#[path = "common/simulated.rs"]
mod simulated;

use simulated::simulated;

const INTERVAL: Duration = Duration::from_secs(1);

struct Bed {
    fleet: Arc<Fleet>,
    executor: Executor,
}

impl Bed {
    async fn new(hosts: u32, vms: u32) -> Bed {
        Bed::at_distance(Duration::from_millis(5), hosts, vms).await
    }

    async fn at_distance(rtt: Duration, hosts: u32, vms: u32) -> Bed {
        let options = FleetOptions { hosts, vms, rtt, ..FleetOptions::default() };
        let (fleet, manager) = simulated(options).await;
        Bed { fleet, executor: Executor::new(manager) }
    }

    fn sampler(&self, selectors: &[&str]) -> Sampler {
        let selection = Selection::of(selectors.iter().map(|text| text.parse().unwrap()));
        let options = SampleOptions { interval: INTERVAL, ..SampleOptions::default() };
        self.executor.sample(&selection, options).unwrap()
    }

    fn set(&self, host: u32, vm: u32, fault: Option<VmFault>) {
        self.fleet.host(host).unwrap().vm(vm).unwrap().set_fault(fault);
    }
}

fn stale(round: &StatisticsRound) -> Vec<String> {
    let stale = round.vms.iter().filter(|vm| vm.stale.is_some());
    stale.map(|vm| format!("{}/{}", vm.host, vm.vm)).collect()
}

fn vm<'a>(round: &'a StatisticsRound, name: &str) -> &'a VmStatistics {
    round.vms.iter().find(|vm| format!("{}/{}", vm.host, vm.vm) == name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn of_20_vms_one_that_hangs_is_stale_and_the_others_have_rates_within_the_interval() {
    let bed = Bed::new(1, 20).await;
    bed.set(1, 7, Some(VmFault::Hung));
    let began = Instant::now();
    let mut sampler = bed.sampler(&["*"]);
    sampler.next().await;
    let round = sampler.next().await;
    let took = began.elapsed();
    assert!(took <= INTERVAL + Duration::from_millis(200), "{took:?}");
    assert_eq!((round.vms.len(), stale(&round)), (20, vec!["h1/vm7".to_owned()]));
    for vm in &round.vms {
        let percent = vm.cpu.percent.unwrap();
        assert!((9.0..11.0).contains(&percent), "{}: {percent}", vm.vm);
        assert!(vm.network_rates().0.is_some(), "{}", vm.vm);
        assert_eq!(vm.disk_rates().0.is_some(), vm.stale.is_none(), "{}", vm.vm);
        assert_eq!(vm.memory.resident_kib.is_some(), vm.stale.is_none(), "{}", vm.vm);
    }
    let staleness = vm(&round, "h1/vm7").stale.clone().unwrap();
    assert_eq!((staleness.for_ms, staleness.error.kind), (None, ErrorKind::StuckCalls));
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_begins_to_hang_delays_one_round_and_is_fresh_again_when_it_answers() {
    let bed = Bed::new(3, 20).await;
    let mut sampler = bed.sampler(&["*"]);
    sampler.next().await;
    assert_eq!(stale(&sampler.next().await), [""; 0]);
    bed.set(2, 5, Some(VmFault::Hung));
    for n in 0..12 {
        let round = sampler.next().await;
        assert_eq!((stale(&round), round.vms.len()), (vec!["h2/vm5".to_owned()], 60), "round {n}");
        let limit = if n == 0 { INTERVAL + Duration::from_millis(50) } else { Duration::from_millis(150) };
        assert!(Duration::from_millis(round.took_ms) <= limit, "round {n}: {} ms", round.took_ms);
        let hung = vm(&round, "h2/vm5");
        assert!(hung.stale.as_ref().unwrap().for_ms.unwrap() >= n * 1000, "round {n}");
        assert!(hung.cpu.percent.is_some() && hung.memory.resident_kib.is_some(), "round {n}: {hung:?}");
        assert_eq!(hung.disk_rates(), (None, None), "old values have no rates");
    }
    bed.set(2, 5, None);
    let mut rounds = 0;
    while !stale(&sampler.next().await).is_empty() {
        rounds += 1;
        assert!(rounds < 10, "it stays stale");
    }
    assert!(vm(&sampler.next().await, "h2/vm5").disk_rates().0.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_was_stale_on_a_host_that_is_far_away_is_fresh_again_when_it_answers() {
    let bed = Bed::at_distance(Duration::from_millis(150), 1, 3).await;
    let mut sampler = bed.sampler(&["*"]);
    sampler.next().await;
    assert_eq!(stale(&sampler.next().await), [""; 0]);
    bed.set(1, 2, Some(VmFault::Hung));
    assert_eq!(stale(&sampler.next().await), ["h1/vm2"]);
    bed.set(1, 2, None);
    let mut rounds = 0;
    while !stale(&sampler.next().await).is_empty() {
        rounds += 1;
        assert!(rounds < 10, "it stays stale");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_hangs_is_stale_with_its_vms_and_delays_no_other() {
    let bed = Bed::new(2, 3).await;
    let mut sampler = bed.sampler(&["*"]);
    sampler.next().await;
    bed.fleet.host(1).unwrap().set_fault(Some(HostFault::Dead));
    sampler.next().await;
    let round = sampler.next().await;
    assert!(round.took_ms <= 150, "{} ms", round.took_ms);
    assert_eq!(stale(&round), ["h1/vm1", "h1/vm2", "h1/vm3"]);
    let hosts: Vec<_> = round.hosts.iter().map(|host| host.stale.is_some()).collect();
    assert_eq!(hosts, [true, false]);
    assert_eq!(vm(&round, "h1/vm1").cpu.percent, None, "old values have no rates");
    assert!(vm(&round, "h2/vm1").cpu.percent.is_some());
}

#[tokio::test(start_paused = true)]
async fn the_selected_vms_are_sampled_and_those_that_no_host_has_are_told_once() {
    let bed = Bed::new(2, 3).await;
    bed.set(2, 1, Some(VmFault::ShutOff));
    let mut sampler = bed.sampler(&["h1/vm2", "h2/*", "nope"]);
    let round = sampler.next().await;
    let names: Vec<_> = round.vms.iter().map(|vm| vm.vm.as_str()).collect();
    assert_eq!(names, ["vm2", "vm1", "vm2", "vm3"]);
    assert_eq!(sampler.take_not_found(), ["nope"]);
    let round = sampler.next().await;
    assert_eq!(sampler.take_not_found(), [""; 0]);
    let off = vm(&round, "h2/vm1");
    assert_eq!((off.cpu.time_ns, off.stale.is_none(), off.disks.len()), (None, true, 0));
}

#[tokio::test(start_paused = true)]
async fn the_counters_of_a_vm_that_was_started_anew_have_no_rate() {
    let bed = Bed::new(1, 1).await;
    let mut sampler = bed.sampler(&["*"]);
    sampler.next().await;
    bed.set(1, 1, Some(VmFault::ShutOff));
    bed.set(1, 1, None);
    let round = sampler.next().await;
    assert_eq!((round.vms[0].cpu.percent, round.vms[0].network_rates().0), (None, None));
    assert!(sampler.next().await.vms[0].cpu.percent.is_some());
}
