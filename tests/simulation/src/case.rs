//! What a seed means: a fleet, what happens to it, an operation, and the policy of its run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use atp_executor::{Await, ExecSpec, LifecycleSpec, Operation, Policy, Portion, RawCommand};
use atp_fleet::{HostFault, VmFault};
use atp_transport::domain::Lifecycle;
use atp_transport::{Engine, TransportConfig};
use fastrand::Rng;

/// A VM: the number of its host and its own, from 1.
pub(crate) type Place = (u32, u32);

/// Something that happens to the fleet while the run is under way.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    /// A host gets this fault, or is healed.
    Host(u32, Option<HostFault>),
    /// Packets to a host are dropped when it is connected to, or no longer.
    Silent(u32, bool),
    /// A VM gets this fault, or is healed.
    Vm(Place, Option<VmFault>),
    /// A VM is migrated to a host.
    Migrate(Place, u32),
}

/// How the run is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It is not.
    Itself,
    /// No more targets are started after this time.
    Stop(Duration),
    /// It is aborted after this time.
    Abort(Duration),
    /// Its reader leaves after this time, as when the program is killed.
    Kill(Duration),
}

/// What a seed means.
#[derive(Debug)]
pub struct Case {
    pub(crate) seed: u64,
    pub(crate) hosts: u32,
    pub(crate) vms: u32,
    pub(crate) rtt: Duration,
    pub(crate) max_client_requests: usize,
    pub(crate) host_faults: BTreeMap<u32, HostFault>,
    pub(crate) vm_faults: BTreeMap<Place, VmFault>,
    /// Hosts that drop packets from the beginning.
    pub(crate) silent: BTreeSet<u32>,
    /// In the order of their times, from the beginning of the run.
    pub(crate) changes: Vec<(Duration, Change)>,
    pub(crate) operation: Operation,
    pub(crate) policy: Policy,
    pub(crate) config: TransportConfig,
    pub(crate) end: End,
    /// Whether the run has a journal, and is resumed from it in the end.
    pub(crate) has_journal: bool,
    /// How long the reader takes over each event.
    pub(crate) reader: Duration,
}

/// The program that is run in guests, and how the fleet counts it.
pub(crate) const PROGRAM: &str = "echo once";

impl Case {
    /// The case of a seed.
    pub fn of(seed: u64) -> Case {
        let mut random = Rng::with_seed(seed);
        let random = &mut random;
        let (hosts, vms) = (random.u32(1..=8), random.u32(1..=6));
        let operation = operation(random);
        let policy = policy(random);
        let mut case = Case {
            seed,
            hosts,
            vms,
            rtt: Duration::from_millis(*pick(random, &[0, 0, 1, 5, 40])),
            max_client_requests: *pick(random, &[5, 5, 5, 2, 1]),
            host_faults: BTreeMap::new(),
            vm_faults: BTreeMap::new(),
            silent: BTreeSet::new(),
            changes: Vec::new(),
            operation,
            config: config(random, policy.timeout),
            policy,
            end: end(random),
            has_journal: random.u32(..4) == 0,
            reader: Duration::from_millis(*pick(random, &[0, 0, 0, 10, 700])),
        };
        case.add_faults(random);
        case
    }

    /// Whether the same seed gives the same trace, event by event. The threads that write a journal end at any moment of the real
    /// time, so that with one the order of what happens at the same moment may differ.
    pub fn is_exact(&self) -> bool {
        !self.has_journal
    }

    fn add_faults(&mut self, random: &mut Rng) {
        // One case in six has none.
        let share = *pick(random, &[0.0, 0.1, 0.2, 0.3, 0.5, 0.8]);
        for host in 1..=self.hosts {
            if random.f64() < share {
                self.add_host_fault(random, host);
            }
            for vm in 1..=self.vms {
                if random.f64() < share {
                    self.add_vm_fault(random, (host, vm));
                }
            }
        }
        self.changes.sort_by_key(|(at, _)| *at);
    }

    fn add_host_fault(&mut self, random: &mut Rng, host: u32) {
        let times = (moment(random), Duration::from_millis(random.u64(20..20_000)));
        if random.u32(..8) == 0 {
            if random.bool() {
                self.silent.insert(host);
            } else {
                self.changes.push((times.0, Change::Silent(host, true)));
            }
            self.heal(random, times, Change::Silent(host, false));
            return;
        }
        let fault = match random.u32(..7) {
            0 => HostFault::Refused,
            1 => HostFault::Dead,
            2 => HostFault::Behind,
            3 => HostFault::Slow { by: Duration::from_millis(random.u64(1..3_000)) },
            4 => HostFault::Flapping {
                up: Duration::from_millis(random.u64(50..5_000)),
                down: Duration::from_millis(random.u64(50..5_000)),
            },
            5 => HostFault::Cutting { one_in: random.u32(1..8) },
            // The daemon is restarted.
            _ => {
                self.changes.push((times.0, Change::Host(host, Some(HostFault::Refused))));
                self.changes.push((times.0 + times.1 / 4, Change::Host(host, None)));
                return;
            }
        };
        if random.bool() {
            self.host_faults.insert(host, fault);
        } else {
            self.changes.push((times.0, Change::Host(host, Some(fault))));
        }
        self.heal(random, times, Change::Host(host, None));
    }

    fn add_vm_fault(&mut self, random: &mut Rng, vm: Place) {
        let times = (moment(random), Duration::from_millis(random.u64(20..20_000)));
        let fault = match random.u32(..6) {
            0 => {
                self.vm_faults.insert(vm, VmFault::ShutOff);
                return;
            }
            1 => VmFault::AgentAbsent,
            2 => VmFault::AgentSilent,
            3 if self.hosts > 1 => {
                let to = random.u32(1..=self.hosts);
                self.changes.push((times.0, Change::Migrate(vm, to)));
                return;
            }
            _ => VmFault::Hung,
        };
        if random.bool() {
            self.vm_faults.insert(vm, fault);
        } else {
            self.changes.push((times.0, Change::Vm(vm, Some(fault))));
        }
        self.heal(random, times, Change::Vm(vm, None));
    }

    /// Removes a fault a time after its beginning, in half of all cases.
    fn heal(&mut self, random: &mut Rng, (from, after): (Duration, Duration), change: Change) {
        if random.bool() {
            self.changes.push((from + after, change));
        }
    }

    /// Whether nothing ever happens to a host, or to what it is asked by.
    pub(crate) fn is_host_well(&self, host: u32) -> bool {
        let changed = self.changes.iter().any(|(_, change)| match *change {
            Change::Host(number, _) | Change::Silent(number, _) => number == host,
            // A VM that arrives is one more to work for, and not a fault.
            Change::Vm(..) | Change::Migrate(..) => false,
        });
        !changed && !self.host_faults.contains_key(&host) && !self.silent.contains(&host)
    }

    /// Whether nothing ever happens to a VM itself.
    pub(crate) fn is_vm_well(&self, vm: Place) -> bool {
        let changed = self.changes.iter().any(|(_, change)| match *change {
            Change::Vm(place, _) | Change::Migrate(place, _) => place == vm,
            Change::Host(..) | Change::Silent(..) => false,
        });
        !changed && !self.vm_faults.contains_key(&vm)
    }
}

fn pick<'a, T>(random: &mut Rng, choices: &'a [T]) -> &'a T {
    &choices[random.usize(..choices.len())]
}

/// A time within the first half minute, mostly early.
fn moment(random: &mut Rng) -> Duration {
    let most = *pick(random, &[100, 2_000, 30_000]);
    Duration::from_millis(random.u64(..most))
}

fn end(random: &mut Rng) -> End {
    match random.u32(..10) {
        0 => End::Stop(moment(random)),
        1 => End::Abort(moment(random)),
        2 | 3 => End::Kill(moment(random)),
        _ => End::Itself,
    }
}

fn operation(random: &mut Rng) -> Operation {
    let wait = *pick(random, &[Await::Nothing, Await::Completion, Await::State]);
    let lifecycle = |action| Operation::Lifecycle(LifecycleSpec { wait, ..LifecycleSpec::new(action) });
    match random.u32(..12) {
        0..5 => {
            let mut words = PROGRAM.split(' ');
            let program = words.next().unwrap_or_default();
            Operation::Exec(ExecSpec::new(program).args(words))
        }
        5 | 6 => match RawCommand::from_words(["inject-nmi"]) {
            Ok(command) => Operation::Qmp(command),
            Err(_) => Operation::VmInfo,
        },
        7 => Operation::VmInfo,
        8 => Operation::HostCheck,
        _ => lifecycle(*pick(
            random,
            &[
                Lifecycle::Start,
                Lifecycle::Shutdown,
                Lifecycle::Reboot,
                Lifecycle::Reset,
                Lifecycle::Destroy,
                Lifecycle::Suspend,
            ],
        )),
    }
}

fn policy(random: &mut Rng) -> Policy {
    let portion = |random: &mut Rng| {
        (random.u32(..4) == 0).then(|| match random.bool() {
            true => Portion::Count(random.usize(1..5)),
            false => Portion::Percent(random.u8(1..=60)),
        })
    };
    Policy {
        parallel: *pick(random, &[1, 2, 3, 8, 64, 64]),
        per_host: (random.u32(..4) == 0).then(|| random.usize(1..4)),
        timeout: Duration::from_millis(*pick(random, &[5_000, 8_000, 20_000, 60_000])),
        deadline: (random.u32(..5) == 0).then(|| Duration::from_millis(random.u64(1_000..60_000))),
        retries: *pick(random, &[0, 0, 1, 3, 10]),
        max_failures: portion(random),
        serial: portion(random),
        ..Policy::default()
    }
}

/// The settings of the transport: as the command line has them, and others.
fn config(random: &mut Rng, timeout: Duration) -> TransportConfig {
    let mut config = TransportConfig {
        engine: Engine::Native,
        connect_timeout: timeout.min(Duration::from_secs(30)),
        ..TransportConfig::default()
    };
    config.pool.max_connections_per_host = *pick(random, &[1, 2, 4, 8, 8]);
    config.calls.max_per_connection = *pick(random, &[0, 0, 0, 1, 2]);
    config
}
