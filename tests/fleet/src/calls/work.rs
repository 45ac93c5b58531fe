//! A daemon's workers: calls that are carried out, that hang, and that wait for a worker.

use std::time::Duration;

use atp_rpc::frame::Frame;
use atp_rpc::numbers::procedure;
use tokio::time::Instant;

use super::find;
use crate::faults::{HostFault, VmFault};
use crate::host::{Host, HostState, Outcome, Parked, Signal, Stop};
use crate::refusal;
use crate::session::Session;

/// The result of a call.
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    /// How much longer the reply takes.
    pub(crate) delay: Duration,
    /// Whether the connection is reset instead of a reply.
    pub(crate) cut: bool,
}

impl Answer {
    fn now(outcome: Outcome) -> Self {
        Answer { outcome, delay: Duration::ZERO, cut: false }
    }
}

/// Carries out a call.
pub(crate) fn call(host: &Host, session: &mut Session, frame: &Frame, now: Instant) -> Answer {
    carry_out(host, &mut host.state(), session, frame, false, now)
}

/// Carries out a call that has waited.
pub(crate) fn retry(host: &Host, session: &mut Session, parked: &Parked, now: Instant) -> Answer {
    let mut state = host.state();
    let before = state.stuck;
    state.stuck -= usize::from(parked.has_worker);
    let answer = carry_out(host, &mut state, session, &parked.frame, parked.has_worker, now);
    if state.stuck < before && before >= host.options.max_workers {
        // A worker is free, and a call of another connection may wait for it.
        state.tell(&Signal::Look);
    }
    answer
}

/// Sets the fault of a VM, or removes it. Calls that hung are executed.
pub(crate) fn set_vm_fault(host: &Host, index: usize, fault: Option<VmFault>, now: Instant) {
    let mut state = host.state();
    let next_id = state.next_id;
    let Some(vm) = state.vms.get_mut(index) else { return };
    vm.occupied = Default::default();
    vm.fault = fault.filter(|fault| *fault != VmFault::ShutOff);
    // An error means that the VM is in that state already.
    let events = match fault {
        Some(VmFault::ShutOff | VmFault::StartHangs) => vm.stop(false).unwrap_or_default(),
        _ => vm.start(next_id, now).unwrap_or_default(),
    };
    state.next_id += 1;
    state.emit(index, events);
    wake(host, &mut state, now);
}

/// Retries calls that wait.
pub(super) fn wake(host: &Host, state: &mut HostState, now: Instant) {
    for parked in std::mem::take(&mut state.orphans) {
        state.stuck -= usize::from(parked.has_worker);
        let answer = carry_out(host, state, &mut Session::opened(), &parked.frame, parked.has_worker, now);
        match answer.outcome {
            Err(Stop::Hangs) => state.orphans.push(Parked { has_worker: true, ..parked }),
            Err(Stop::Waits) => state.orphans.push(Parked { has_worker: false, ..parked }),
            _ => {}
        }
    }
    state.tell(&Signal::Look);
}

fn carry_out(
    host: &Host,
    state: &mut HostState,
    session: &mut Session,
    frame: &Frame,
    occupies: bool,
    now: Instant,
) -> Answer {
    let Some(entry) = find(&frame.header) else {
        return Answer::now(Err(refusal::unknown_procedure(frame.header.procedure).into()));
    };
    // The daemon that listens knows these by itself.
    let of_proxy = [procedure::AUTH_LIST, procedure::CONNECT_CLOSE, procedure::CONNECT_SUPPORTS_FEATURE];
    if state.fault == Some(HostFault::Behind) && !of_proxy.contains(&entry.procedure) {
        return Answer::now(Err(Stop::Waits));
    }
    let options = &host.options;
    let workers = options.max_workers + if entry.is_quick { options.priority_workers } else { 0 };
    if state.stuck >= workers {
        return Answer::now(Err(Stop::Waits));
    }
    let outcome = entry.carry_out(host, state, session, &frame.payload, occupies, now);
    state.stuck += usize::from(matches!(outcome, Err(Stop::Hangs)));
    let delay = match state.fault {
        Some(HostFault::Slow { by }) => by.mul_f64(0.5 + state.random.f64()),
        _ => Duration::ZERO,
    };
    let cut = match state.fault {
        Some(HostFault::Cutting { one_in }) if entry.is_cut && outcome.is_ok() => {
            state.random.u32(..one_in.max(1)) == 0
        }
        _ => false,
    };
    Answer { outcome, delay, cut }
}
