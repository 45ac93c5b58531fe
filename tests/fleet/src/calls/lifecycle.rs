//! Calls that change a VM's state.

use atp_rpc::RemoteDomain;
use atp_rpc::numbers::procedure;
use atp_rpc::xdr::FromXdr;

use super::{Call, Entry, reply};
use crate::event::EventKind;
use crate::faults::VmFault;
use crate::host::{Outcome, Stop};
use crate::refusal::Refusal;
use crate::vm::Vm;

pub(super) const CALLS: &[Entry] = &[
    Entry::new(procedure::DOMAIN_CREATE, create).writes(),
    Entry::new(procedure::DOMAIN_CREATE_WITH_FLAGS, create_with_flags).writes(),
    Entry::new(procedure::DOMAIN_DESTROY, destroy::<RemoteDomain>).quick().writes(),
    Entry::new(procedure::DOMAIN_DESTROY_FLAGS, destroy::<(RemoteDomain, u32)>).quick().writes(),
    Entry::new(procedure::DOMAIN_SHUTDOWN, shutdown::<RemoteDomain>).writes(),
    Entry::new(procedure::DOMAIN_SHUTDOWN_FLAGS, shutdown::<(RemoteDomain, u32)>).writes(),
    Entry::new(procedure::DOMAIN_REBOOT, restart).writes(),
    Entry::new(procedure::DOMAIN_RESET, restart).writes(),
    Entry::new(procedure::DOMAIN_SUSPEND, suspend).writes(),
    Entry::new(procedure::DOMAIN_RESUME, resume).writes(),
    Entry::new(procedure::DOMAIN_INJECT_NMI, inject_nmi).writes(),
];

/// Arguments that begin with a domain. The rest is ignored.
trait Named: FromXdr {
    fn domain(self) -> RemoteDomain;
}

impl Named for RemoteDomain {
    fn domain(self) -> RemoteDomain {
        self
    }
}

impl Named for (RemoteDomain, u32) {
    fn domain(self) -> RemoteDomain {
        self.0
    }
}

/// A change that QEMU has to make.
fn by_monitor<A: Named>(
    call: &mut Call<'_>,
    change: impl FnOnce(&mut Vm) -> Result<Vec<EventKind>, Refusal>,
) -> Outcome {
    let domain = call.arguments::<A>()?.domain();
    let index = call.index(&domain)?;
    call.state.vms[index].active()?;
    call.monitor(index)?;
    call.change(index, change)?;
    reply(&())
}

fn create(call: &mut Call<'_>) -> Outcome {
    let domain = call.arguments::<RemoteDomain>()?;
    let index = start(call, &domain)?;
    debug_assert!(call.state.vms[index].is_active());
    reply(&())
}

/// Replies with the domain, which has another id by now.
fn create_with_flags(call: &mut Call<'_>) -> Outcome {
    let (domain, _flags) = call.arguments::<(RemoteDomain, u32)>()?;
    let index = start(call, &domain)?;
    reply(&call.state.vms[index].domain())
}

fn start(call: &mut Call<'_>, domain: &RemoteDomain) -> Result<usize, Stop> {
    let index = call.index(domain)?;
    let vm = &call.state.vms[index];
    if vm.fault == Some(VmFault::StartHangs) && !vm.is_active() {
        return Err(Stop::Hangs);
    }
    let (id, now) = (call.state.next_id, call.now);
    call.change(index, |vm| vm.start(id, now))?;
    call.state.next_id += 1;
    Ok(index)
}

/// Ends QEMU whether it answers or not, and so all calls that hang with it.
fn destroy<A: Named>(call: &mut Call<'_>) -> Outcome {
    let domain = call.arguments::<A>()?.domain();
    let index = call.index(&domain)?;
    call.change(index, |vm| vm.stop(false))?;
    let (host, now) = (call.host, call.now);
    super::work::wake(host, call.state, now);
    reply(&())
}

/// The guest follows at once.
fn shutdown<A: Named>(call: &mut Call<'_>) -> Outcome {
    by_monitor::<A>(call, |vm| vm.stop(true))
}

fn restart(call: &mut Call<'_>) -> Outcome {
    let now = call.now;
    by_monitor::<(RemoteDomain, u32)>(call, |vm| vm.restart(now))
}

fn suspend(call: &mut Call<'_>) -> Outcome {
    by_monitor::<RemoteDomain>(call, Vm::suspend)
}

fn resume(call: &mut Call<'_>) -> Outcome {
    by_monitor::<RemoteDomain>(call, Vm::resume)
}

fn inject_nmi(call: &mut Call<'_>) -> Outcome {
    by_monitor::<(RemoteDomain, u32)>(call, |_| Ok(Vec::new()))
}
