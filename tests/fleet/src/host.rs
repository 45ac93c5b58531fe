//! One simulated host: its VMs, its faults, and the connections to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atp_rpc::frame::Frame;
use bytes::BytesMut;
use fastrand::Rng;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use uuid::Uuid;

use crate::counts::HostCounts;
use crate::event::{Event, EventKind};
use crate::faults::{HostFault, VmFault};
use crate::options::FleetOptions;
use crate::refusal::Refusal;
use crate::vm::Vm;

/// Why a call has no result now.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It failed.
    Error(Refusal),
    /// It fails after this time.
    Late(Duration, Refusal),
    /// It waits until a fault is removed, and occupies a worker.
    Hangs,
    /// It waits for a worker.
    Waits,
}

impl From<Refusal> for Stop {
    fn from(error: Refusal) -> Self {
        Stop::Error(error)
    }
}

/// A result of a call.
pub(crate) type Outcome = Result<BytesMut, Stop>;

/// A call that waits.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) frame: Frame,
    pub(crate) has_worker: bool,
}

/// A message from a host to the tasks of its connections.
#[derive(Debug, Clone)]
pub(crate) enum Signal {
    Event(Arc<Event>),
    /// A fault was set or removed.
    Look,
    /// The fleet was dropped.
    End,
}

/// How a host treats connections at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It serves them, at least until this time.
    There(Option<Instant>),
    /// It accepts them and answers nothing.
    Dead,
    /// It resets connections.
    Away,
}

pub(crate) struct Host {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) uuid: Uuid,
    pub(crate) options: Arc<FleetOptions>,
    /// When the fleet was started.
    epoch: Instant,
    state: Mutex<HostState>,
}

pub(crate) struct HostState {
    pub(crate) vms: Vec<Vm>,
    pub(crate) counts: HostCounts,
    pub(crate) next_id: i32,
    pub(crate) fault: Option<HostFault>,
    pub(crate) random: Rng,
    /// The phase of a flapping host at the start.
    offset: u64,
    /// In the order in which they were accepted, so that signals reach them in the same order in every run.
    links: BTreeMap<u64, UnboundedSender<Signal>>,
    next_link: u64,
    /// Hung calls, each of which keeps a worker.
    pub(crate) stuck: usize,
    /// Calls that wait, of clients that have left.
    pub(crate) orphans: Vec<Parked>,
}

/// The UUID of a host (VM 0) or a VM. The last 7 bytes are the numbers.
fn uuid_of(random: &mut Rng, host: u32, vm: u32) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..9].copy_from_slice(&random.u128(..).to_be_bytes()[..9]);
    bytes[9..12].copy_from_slice(&host.to_be_bytes()[1..]);
    bytes[12..].copy_from_slice(&vm.to_be_bytes());
    // Version 4, variant 1.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Uuid::from_bytes(bytes)
}

impl Host {
    pub(crate) fn new(
        number: u32,
        options: Arc<FleetOptions>,
        fault: Option<HostFault>,
        vm_fault: impl Fn(u32) -> Option<VmFault>,
        epoch: Instant,
    ) -> Self {
        // Each host has its own random sequence, so that the order in which hosts are created does not matter.
        let mut random = Rng::with_seed(options.seed ^ (u64::from(number) << 32));
        let uuid = uuid_of(&mut random, number, 0);
        let vms: Vec<Vm> = (1..=options.vms)
            .map(|vm| {
                let uuid = uuid_of(&mut random, number, vm);
                Vm::new(format!("vm{vm}"), uuid, vm.cast_signed(), vm_fault(vm), epoch)
            })
            .collect();
        let state = HostState {
            next_id: options.vms.cast_signed().saturating_add(1),
            vms,
            counts: HostCounts::default(),
            fault,
            offset: random.u64(..),
            random,
            links: BTreeMap::new(),
            next_link: 0,
            stuck: 0,
            orphans: Vec::new(),
        };
        Host { number, name: format!("h{number}"), uuid, options, epoch, state: Mutex::new(state) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, HostState> {
        self.state.lock()
    }

    /// Registers a connection. Returns its number and its signals.
    pub(crate) fn enter(&self) -> (u64, UnboundedReceiver<Signal>) {
        let mut state = self.state();
        let link = state.next_link;
        state.next_link += 1;
        let (sender, receiver) = unbounded_channel();
        state.links.insert(link, sender);
        (link, receiver)
    }

    /// Removes a connection that has ended. Its waiting calls are still executed later, as in libvirt, where the worker does not
    /// notice that the client has left.
    pub(crate) fn leave(&self, link: u64, parked: Vec<Parked>) {
        let mut state = self.state();
        state.links.remove(&link);
        state.orphans.extend(parked);
    }

    /// How it treats connections now.
    pub(crate) fn presence(&self, now: Instant) -> Presence {
        let state = self.state();
        match state.fault {
            Some(HostFault::Dead) => Presence::Dead,
            Some(HostFault::Refused) => Presence::Away,
            Some(HostFault::Flapping { up, down }) => {
                // Turns of at least 1 ms, which is what timers can do.
                let (up, whole) = (up.as_millis().max(1), (up + down).as_millis().max(2));
                let since = now.saturating_duration_since(self.epoch).as_millis();
                let at = (since + u128::from(state.offset) % whole) % whole;
                if at < up {
                    let left = u64::try_from(up - at).unwrap_or(u64::MAX);
                    Presence::There(Some(now + Duration::from_millis(left)))
                } else {
                    Presence::Away
                }
            }
            _ => Presence::There(None),
        }
    }

    /// Sets the fault of the host, or removes it.
    pub(crate) fn set_fault(&self, fault: Option<HostFault>) {
        let mut state = self.state();
        state.fault = fault;
        state.tell(&Signal::Look);
    }

    /// Sends a signal to all connections.
    pub(crate) fn tell(&self, signal: &Signal) {
        self.state().tell(signal);
    }
}

impl HostState {
    /// Sends events of a VM to all connections, which select what their clients registered for.
    pub(crate) fn emit(&mut self, index: usize, events: Vec<EventKind>) {
        let Some(vm) = self.vms.get(index) else { return };
        let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        for kind in events {
            self.tell(&Signal::Event(Arc::new(Event { domain: vm.domain(), kind, at })));
        }
    }

    /// The number of open connections.
    pub(crate) fn connections(&self) -> usize {
        self.links.len()
    }

    pub(crate) fn tell(&self, signal: &Signal) {
        for link in self.links.values() {
            // Fails for one that is ending.
            let _gone = link.send(signal.clone());
        }
    }

    /// The place of a VM among those of the host.
    pub(crate) fn index_of(&self, uuid: Uuid) -> Option<usize> {
        let [.., a, b, c, d] = *uuid.as_bytes();
        let index = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?.checked_sub(1)?;
        let own = self.vms.get(index).filter(|vm| vm.uuid == uuid).map(|_| index);
        // VMs that came from other hosts are behind its own.
        own.or_else(|| self.vms.iter().rposition(|vm| vm.uuid == uuid))
    }
}
