//! The calls that a simulated daemon knows.

mod connection;
mod domain;
mod events;
mod guest;
mod lifecycle;
mod snapshot;
mod streams;
mod work;

use std::collections::HashMap;
use std::sync::LazyLock;

use atp_rpc::RemoteDomain;
use atp_rpc::frame::Header;
use atp_rpc::numbers::{Procedure, procedure};
use atp_rpc::xdr::{self, FromXdr, ToXdr};
use tokio::time::Instant;

use crate::host::{Host, HostState, Outcome, Stop};
use crate::refusal::{self, Refusal};
use crate::session::Session;
use crate::vm::Vm;
pub(crate) use work::{Answer, call, retry, set_vm_fault};

/// A call that is being carried out.
struct Call<'a> {
    host: &'a Host,
    state: &'a mut HostState,
    session: &'a mut Session,
    payload: &'a [u8],
    name: &'static str,
    /// Whether it hung before, and therefore is the call that occupies the VM.
    occupies: bool,
    now: Instant,
}

type Handler = fn(&mut Call<'_>) -> Outcome;

/// A call that the daemon knows.
#[derive(Clone, Copy)]
struct Entry {
    procedure: Procedure,
    handler: Handler,
    /// Whether it never waits for QEMU, so that the priority workers can execute it.
    is_quick: bool,
    /// Whether it is forbidden on a read-only connection.
    writes: bool,
    /// Whether a host that cuts connections does so at this call.
    is_cut: bool,
}

impl Entry {
    const fn new(procedure: Procedure, handler: Handler) -> Self {
        Entry { procedure, handler, is_quick: false, writes: false, is_cut: false }
    }

    const fn quick(self) -> Self {
        Entry { is_quick: true, ..self }
    }

    const fn writes(self) -> Self {
        Entry { writes: true, ..self.cut() }
    }

    const fn cut(self) -> Self {
        Entry { is_cut: true, ..self }
    }

    fn carry_out(
        &self,
        host: &Host,
        state: &mut HostState,
        session: &mut Session,
        payload: &[u8],
        occupies: bool,
        now: Instant,
    ) -> Outcome {
        let before_open = [
            procedure::AUTH_LIST,
            procedure::CONNECT_OPEN,
            procedure::CONNECT_CLOSE,
            procedure::CONNECT_SUPPORTS_FEATURE,
        ];
        if !session.is_open && !before_open.contains(&self.procedure) {
            return Err(refusal::not_open().into());
        }
        if self.writes && session.is_read_only {
            return Err(refusal::read_only(self.procedure.name).into());
        }
        (self.handler)(&mut Call { host, state, session, payload, name: self.procedure.name, occupies, now })
    }
}

static ENTRIES: LazyLock<HashMap<(u32, i32), Entry>> = LazyLock::new(|| {
    let tables = [
        connection::CALLS,
        domain::CALLS,
        events::CALLS,
        guest::CALLS,
        lifecycle::CALLS,
        snapshot::CALLS,
        streams::CALLS,
    ];
    let entries = tables.into_iter().flatten();
    entries.map(|entry| ((entry.procedure.program.0, entry.procedure.number), *entry)).collect()
});

/// What is called.
fn find(header: &Header) -> Option<&'static Entry> {
    ENTRIES.get(&(header.program.0, header.procedure))
}

/// The payload of a reply.
fn reply(value: &impl ToXdr) -> Outcome {
    xdr::encode(value).map_err(|error| refusal::too_large(&error).into())
}

impl Call<'_> {
    fn arguments<T: FromXdr>(&self) -> Result<T, Refusal> {
        xdr::decode(self.payload).map_err(|error| refusal::unreadable(&error))
    }

    /// The number of a domain among the VMs.
    fn index(&self, domain: &RemoteDomain) -> Result<usize, Refusal> {
        self.state
            .index_of(domain.uuid)
            .ok_or_else(|| refusal::no_domain(&format!("uuid '{}' ({})", domain.uuid, domain.name)))
    }

    /// Counts a call that is about no VM.
    fn count(&mut self) {
        self.state.counts.calls.add(self.name);
    }

    /// Counts a call that is about this VM.
    fn count_of(&mut self, index: usize) -> &mut Vm {
        let vm = &mut self.state.vms[index];
        vm.counts.calls.add(self.name);
        vm
    }

    /// Changes a VM, counts the call and sends the events.
    fn change(
        &mut self,
        index: usize,
        change: impl FnOnce(&mut Vm) -> Result<Vec<crate::event::EventKind>, Refusal>,
    ) -> Result<(), Stop> {
        let events = change(&mut self.state.vms[index])?;
        self.count_of(index);
        self.state.emit(index, events);
        Ok(())
    }
}
