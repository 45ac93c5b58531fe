//! One simulated VM: its definition, its state and the changes of its state.

use std::collections::BTreeMap;

use atp_rpc::RemoteDomain;
use tokio::time::Instant;
use uuid::Uuid;

use crate::counts::VmCounts;
use crate::event::EventKind;
use crate::faults::VmFault;
use crate::guest::Guest;
use crate::refusal::{self, Refusal};

/// Memory of each VM, KiB.
pub(crate) const MEMORY_KIB: u64 = 1 << 20;

/// Processors of each VM.
pub(crate) const VCPUS: u32 = 2;

/// States (`virDomainState`).
pub(crate) mod state {
    pub(crate) const RUNNING: i32 = 1;
    pub(crate) const PAUSED: i32 = 3;
    pub(crate) const SHUT_OFF: i32 = 5;
}

/// A state and its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) number: i32,
    pub(crate) reason: i32,
}

/// What a hung call occupies of a VM.
#[derive(Debug, Default)]
pub(crate) struct Occupied {
    /// Since when the monitor.
    pub(crate) monitor: Option<Instant>,
    /// Whether the agent.
    pub(crate) agent: bool,
}

pub(crate) struct Vm {
    pub(crate) name: String,
    pub(crate) uuid: Uuid,
    /// None while it is shut off.
    id: Option<i32>,
    pub(crate) state: State,
    /// When it was started, or the fleet was.
    pub(crate) started: Instant,
    pub(crate) fault: Option<VmFault>,
    pub(crate) occupied: Occupied,
    pub(crate) autostart: bool,
    pub(crate) title: Option<String>,
    pub(crate) description: Option<String>,
    /// By namespace.
    pub(crate) metadata: BTreeMap<String, String>,
    guest: Option<Box<Guest>>,
    pub(crate) snapshots: Vec<Snapshot>,
    /// The name of the snapshot that it is at.
    pub(crate) current: Option<String>,
    /// Whether its memory is in a file of the host.
    pub(crate) is_saved: bool,
    pub(crate) counts: VmCounts,
}

/// A snapshot: the guest and the state of that time.
pub(crate) struct Snapshot {
    pub(crate) name: String,
    pub(crate) parent: Option<String>,
    pub(crate) state: State,
    guest: Option<Box<Guest>>,
}

impl Vm {
    pub(crate) fn new(name: String, uuid: Uuid, id: i32, fault: Option<VmFault>, now: Instant) -> Self {
        let off = matches!(fault, Some(VmFault::ShutOff | VmFault::StartHangs));
        let state = if off {
            State { number: state::SHUT_OFF, reason: 0 }
        } else {
            State { number: state::RUNNING, reason: 1 }
        };
        Vm {
            name,
            uuid,
            id: (!off).then_some(id),
            state,
            started: now,
            fault: fault.filter(|fault| *fault != VmFault::ShutOff),
            occupied: Occupied::default(),
            autostart: false,
            title: None,
            description: None,
            metadata: BTreeMap::new(),
            guest: None,
            snapshots: Vec::new(),
            current: None,
            is_saved: false,
            counts: VmCounts::default(),
        }
    }

    pub(crate) fn domain(&self) -> RemoteDomain {
        RemoteDomain { name: self.name.clone(), uuid: self.uuid, id: self.id.unwrap_or(-1) }
    }

    pub(crate) fn is_active(&self) -> bool {
        self.id.is_some()
    }

    /// # Errors
    /// It is shut off.
    pub(crate) fn active(&self) -> Result<(), Refusal> {
        if self.is_active() { Ok(()) } else { Err(refusal::invalid_state("domain is not running")) }
    }

    /// The guest. Created on first use: in a large fleet, most VMs never run a command.
    pub(crate) fn guest(&mut self) -> &mut Guest {
        self.guest.get_or_insert_default()
    }

    /// Starts it, as the domain of that number.
    pub(crate) fn start(&mut self, id: i32, now: Instant) -> Result<Vec<EventKind>, Refusal> {
        if self.is_active() {
            return Err(refusal::invalid_state("domain is already running"));
        }
        self.id = Some(id);
        self.state = State { number: state::RUNNING, reason: if self.is_saved { 3 } else { 1 } };
        self.is_saved = false;
        self.started = now;
        Ok(vec![EventKind::RESUMED, EventKind::STARTED, EventKind::AGENT_CONNECTED])
    }

    /// Stops it: by an orderly shutdown, or at once.
    pub(crate) fn stop(&mut self, in_order: bool) -> Result<Vec<EventKind>, Refusal> {
        self.active()?;
        self.id = None;
        self.state = State { number: state::SHUT_OFF, reason: if in_order { 1 } else { 2 } };
        self.occupied = Occupied::default();
        // The QEMU process that hung has ended.
        self.fault = self.fault.filter(|fault| *fault != VmFault::Hung);
        if let Some(guest) = &mut self.guest {
            guest.stop();
        }
        Ok(if in_order {
            vec![EventKind::SHUTDOWN, EventKind::SHUT_DOWN]
        } else {
            vec![EventKind::DESTROYED]
        })
    }

    /// Writes its memory to a file, and ends.
    pub(crate) fn save(&mut self) -> Result<Vec<EventKind>, Refusal> {
        let guest = self.guest.clone();
        let events = self.stop(false)?;
        self.guest = guest;
        self.state.reason = 5;
        self.is_saved = true;
        Ok(events)
    }

    /// Makes a snapshot.
    pub(crate) fn snapshot(&mut self, name: String) -> Result<Vec<EventKind>, Refusal> {
        if self.snapshots.iter().any(|snapshot| snapshot.name == name) {
            return Err(refusal::invalid_state("domain snapshot already exists"));
        }
        let (parent, guest) = (self.current.replace(name.clone()), self.guest.clone());
        self.snapshots.push(Snapshot { name, parent, state: self.state, guest });
        Ok(Vec::new())
    }

    /// Goes back to a snapshot, as the domain of that number.
    pub(crate) fn revert(&mut self, name: &str, id: i32, now: Instant) -> Result<Vec<EventKind>, Refusal> {
        let Some(at) = self.snapshots.iter().position(|snapshot| snapshot.name == name) else {
            return Err(refusal::no_snapshot(name));
        };
        let Snapshot { name, state, guest, .. } = &self.snapshots[at];
        self.current = Some(name.clone());
        self.guest = guest.clone();
        self.id = (state.number != state::SHUT_OFF).then_some(id);
        // The reason is the snapshot.
        self.state = State { number: state.number, reason: 4 };
        self.started = now;
        Ok(Vec::new())
    }

    /// Removes a snapshot; its children get its parent.
    pub(crate) fn delete_snapshot(&mut self, name: &str) -> Result<Vec<EventKind>, Refusal> {
        let Some(at) = self.snapshots.iter().position(|snapshot| snapshot.name == name) else {
            return Err(refusal::no_snapshot(name));
        };
        let removed = self.snapshots.remove(at);
        let heirs = self.snapshots.iter_mut().map(|snapshot| &mut snapshot.parent).chain([&mut self.current]);
        for parent in heirs.filter(|parent| parent.as_deref() == Some(name)) {
            parent.clone_from(&removed.parent);
        }
        Ok(Vec::new())
    }

    /// Restarts the guest.
    pub(crate) fn restart(&mut self, now: Instant) -> Result<Vec<EventKind>, Refusal> {
        self.active()?;
        self.started = now;
        if let Some(guest) = &mut self.guest {
            guest.stop();
        }
        Ok(vec![
            EventKind::Reboot,
            EventKind::monitor("RESET", r#"{"guest":false,"reason":"host-qmp-system-reset"}"#),
            EventKind::AGENT_DISCONNECTED,
            EventKind::AGENT_CONNECTED,
        ])
    }

    /// Stops its processors.
    pub(crate) fn suspend(&mut self) -> Result<Vec<EventKind>, Refusal> {
        self.active()?;
        if self.state.number == state::PAUSED {
            return Ok(Vec::new());
        }
        self.state = State { number: state::PAUSED, reason: 1 };
        Ok(vec![EventKind::monitor("STOP", ""), EventKind::SUSPENDED])
    }

    /// Leaves for another host: what arrives there, as the domain of that number. The definition stays, shut off.
    pub(crate) fn leave(&mut self, name: String, id: i32) -> Result<(Vm, Vec<EventKind>), Refusal> {
        self.active()?;
        let arrived = Vm {
            name,
            id: Some(id),
            // The reason is the migration.
            state: State { number: state::RUNNING, reason: 2 },
            guest: self.guest.take(),
            ..Vm::new(String::new(), self.uuid, id, self.fault, self.started)
        };
        self.id = None;
        self.state = State { number: state::SHUT_OFF, reason: 4 };
        self.occupied = Occupied::default();
        self.fault = None;
        Ok((arrived, vec![EventKind::MIGRATED]))
    }

    /// Replaces what it had left here, but for its name and what it has executed here.
    pub(crate) fn come_back(&mut self, arrived: Vm) {
        let (name, counts) = (std::mem::take(&mut self.name), std::mem::take(&mut self.counts));
        *self = Vm { name, counts, ..arrived };
    }

    /// Resumes its processors.
    pub(crate) fn resume(&mut self) -> Result<Vec<EventKind>, Refusal> {
        self.active()?;
        if self.state.number != state::PAUSED {
            return Err(refusal::invalid_state("domain is already running"));
        }
        self.state = State { number: state::RUNNING, reason: 5 };
        Ok(vec![EventKind::monitor("RESUME", ""), EventKind::RESUMED])
    }
}
