//! A fleet: one listening socket for all hosts, and the API for tests.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::calls;
use crate::control;
use crate::counts::{HostCounts, Report, VmCounts};
use crate::event::EventKind;
use crate::faults::{HostFault, VmFault};
use crate::host::{Host, Presence, Signal};
use crate::link::{End, serve};
use crate::options::{FleetOptions, MAX_HOSTS, MAX_VMS};
use crate::shared::{Shared, counts_of};

/// The address before that of host 1. Host 7 has 127.0.1.7, host 300 has 127.0.2.44.
const BASE: u32 = 0x7f00_0100;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4_096;

/// The pause after a connection could not be accepted, because too many files are open for one.
const PAUSE: Duration = Duration::from_millis(10);

/// What an in-memory connection holds of what the other side has not read, bytes.
const PIPE: usize = 64 * 1024;

/// A simulated fleet. Dropping it ends it, with all connections to it.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
    /// Bound and not listening, so that connections to its port are refused.
    _refused: Option<TcpSocket>,
    port: u16,
    refused_port: u16,
}

impl Fleet {
    /// Starts a fleet on the addresses from 127.0.1.1 on.
    ///
    /// # Errors
    /// The port is taken, or there are too many hosts or VMs.
    pub async fn start(options: FleetOptions) -> io::Result<Fleet> {
        let mut fleet = Fleet::in_memory(options)?;
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        // The kernel then refuses connections from other machines. Where it does not allow this, the check of each connection
        // does it.
        #[cfg(target_os = "linux")]
        if let Err(error) = socket.bind_device(Some(b"lo")) {
            tracing::debug!(%error, "the listening socket is not bound to the loopback device");
        }
        socket.bind((Ipv4Addr::UNSPECIFIED, fleet.shared.options.port).into())?;
        let listener = socket.listen(BACKLOG)?;
        fleet.port = listener.local_addr()?.port();
        let refused = TcpSocket::new_v4()?;
        refused.bind((Ipv4Addr::UNSPECIFIED, 0).into())?;
        fleet.refused_port = refused.local_addr()?.port();
        fleet._refused = Some(refused);
        fleet.accepting = Some(tokio::spawn(accept(listener, fleet.shared.clone())));
        Ok(fleet)
    }

    /// Creates a fleet without addresses, which is reached by [`SimulatedHost::connect`] only: for tests in virtual time.
    ///
    /// # Errors
    /// There are too many hosts or VMs.
    pub fn in_memory(options: FleetOptions) -> io::Result<Fleet> {
        if options.hosts > MAX_HOSTS || options.vms > MAX_VMS {
            let most = format!("a fleet has at most {MAX_HOSTS} hosts of {MAX_VMS} VMs");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, most));
        }
        let assignment = options.faults.assign(options.seed, options.hosts, options.vms);
        let mut hosts = Vec::new();
        hosts.resize_with(options.hosts as usize, OnceLock::new);
        let shared = Shared { options: Arc::new(options), assignment, hosts, epoch: Instant::now() };
        Ok(Fleet { shared: Arc::new(shared), accepting: None, _refused: None, port: 0, refused_port: 0 })
    }

    /// The TCP port of all hosts, those excepted that refuse connections by seed.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A host by its number, from 1 on.
    pub fn host(&self, number: u32) -> Option<SimulatedHost<'_>> {
        self.shared.host(number).map(|host| SimulatedHost { fleet: self, host })
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = SimulatedHost<'_>> {
        (1..=self.shared.options.hosts).filter_map(|number| self.host(number))
    }

    /// The URI of a host, without creating the host.
    fn uri(&self, number: u32) -> String {
        let refuses = self.shared.assignment.hosts.get(&number) == Some(&HostFault::Refused);
        let port = if refuses { self.refused_port } else { self.port };
        format!("qemu+tcp://{}:{port}/system", address(number))
    }

    /// The hosts as a settings file for `atp` and for programs that use `atp-transport`.
    pub fn settings(&self) -> String {
        let mut settings = String::new();
        for number in 1..=self.shared.options.hosts {
            // Writing to a string does not fail.
            let _written = writeln!(settings, "[hosts.h{number}]\nuri = \"{}\"", self.uri(number));
        }
        settings
    }

    /// What was executed so far.
    pub fn report(&self) -> Report {
        self.shared.report()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
        for host in self.shared.hosts.iter().filter_map(OnceLock::get) {
            host.tell(&Signal::End);
        }
    }
}

/// A host of a fleet.
#[derive(Clone, Copy)]
pub struct SimulatedHost<'a> {
    fleet: &'a Fleet,
    host: &'a Arc<Host>,
}

impl std::fmt::Debug for SimulatedHost<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SimulatedHost").field(&self.host.name).finish()
    }
}

impl<'a> SimulatedHost<'a> {
    /// Its name: `h7`.
    pub fn name(&self) -> &'a str {
        &self.host.name
    }

    /// Its URI: `qemu+tcp://127.0.1.7:PORT/system`.
    pub fn uri(&self) -> String {
        self.fleet.uri(self.host.number)
    }

    /// Connects to it in memory. Must be called inside a runtime.
    pub fn connect(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let host = self.host.clone();
        tokio::spawn(async move {
            if !admit(&host) {
                return;
            }
            let (read, write) = tokio::io::split(theirs);
            serve(&host, read, write).await;
        });
        ours
    }

    /// What it has executed so far.
    pub fn counts(&self) -> HostCounts {
        counts_of(self.host)
    }

    /// The number of connections to it that are open now.
    pub fn open_connections(&self) -> usize {
        self.host.state().connections()
    }

    /// Its fault.
    pub fn fault(&self) -> Option<HostFault> {
        self.host.state().fault
    }

    /// Replaces its fault, or removes it.
    pub fn set_fault(&self, fault: impl Into<Option<HostFault>>) {
        self.host.set_fault(fault.into());
    }

    /// A VM of it by its number, from 1 on.
    pub fn vm(&self, number: u32) -> Option<SimulatedVm<'a>> {
        let index = (1..=self.fleet.shared.options.vms).contains(&number).then(|| number as usize - 1)?;
        Some(SimulatedVm { host: self.host, index })
    }
}

/// A VM of a host.
#[derive(Clone, Copy)]
pub struct SimulatedVm<'a> {
    host: &'a Arc<Host>,
    index: usize,
}

impl std::fmt::Debug for SimulatedVm<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SimulatedVm").field(&self.host.name).field(&(self.index + 1)).finish()
    }
}

impl SimulatedVm<'_> {
    /// What it has executed so far.
    pub fn counts(&self) -> VmCounts {
        self.host.state().vms[self.index].counts.clone()
    }

    /// Its fault. `None` for a VM that is shut off.
    pub fn fault(&self) -> Option<VmFault> {
        self.host.state().vms[self.index].fault
    }

    /// Replaces its fault, or removes it: calls that hung are then executed, and a VM that
    /// was shut off is started.
    pub fn set_fault(&self, fault: impl Into<Option<VmFault>>) {
        calls::set_vm_fault(self.host, self.index, fault.into(), Instant::now());
    }

    /// Gives it another name, as `virsh domrename` does. Listings have it from then on.
    pub fn rename(&self, name: impl Into<String>) {
        self.host.state().vms[self.index].name = name.into();
    }

    /// Migrates it to another host, with its guest and the processes there, as `virsh migrate --live` does in one step. Its
    /// definition stays here, shut off with the reason `migrated`. There its name has the name of its host before it, and its counts
    /// begin anew.
    ///
    /// Returns whether it was active, and so was migrated.
    pub fn migrate(&self, to: &SimulatedHost) -> bool {
        let (here, there) = (self.host, to.host);
        if here.number == there.number {
            return false;
        }
        // Always in this order, so that two migrations do not wait for each other.
        let (mut from, mut to) = if here.number < there.number {
            let from = here.state();
            (from, there.state())
        } else {
            let to = there.state();
            (here.state(), to)
        };
        let id = to.next_id;
        let name = format!("{}-{}", here.name, from.vms[self.index].name);
        let Ok((arrived, events)) = from.vms[self.index].leave(name, id) else { return false };
        to.next_id += 1;
        from.emit(self.index, events);
        let arrived_at = match to.index_of(arrived.uuid) {
            Some(index) => {
                to.vms[index].come_back(arrived);
                index
            }
            None => {
                to.vms.push(arrived);
                to.vms.len() - 1
            }
        };
        to.emit(arrived_at, vec![EventKind::RESUMED]);
        true
    }

    /// Whether it is not shut off.
    pub fn is_active(&self) -> bool {
        self.host.state().vms[self.index].is_active()
    }
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(BASE + number)
}

/// The number of the host that an address is; none for one that is no loopback address. 0 is the fleet itself.
fn number_of(address: SocketAddr) -> Option<u32> {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => Some(0),
        IpAddr::V4(address) if address.is_loopback() => address.to_bits().checked_sub(BASE),
        _ => None,
    }
}

/// Counts a connection. Returns whether it is served.
fn admit(host: &Host) -> bool {
    let away = host.presence(Instant::now()) == Presence::Away;
    host.state().counts.connections += 1;
    !away
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(number) = stream.local_addr().ok().and_then(number_of) else { continue };
        if number == 0 {
            tokio::spawn(control::serve(stream, shared.clone()));
        } else if let Some(host) = shared.host(number) {
            tokio::spawn(serve_tcp(stream, host.clone()));
        }
    }
}

async fn serve_tcp(mut stream: TcpStream, host: Arc<Host>) {
    let end = if admit(&host) {
        let _faster = stream.set_nodelay(true);
        let (read, write) = stream.split();
        serve(&host, read, write).await
    } else {
        End::Reset
    };
    if end == End::Reset {
        let _reset = stream.set_zero_linger();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_selects_the_host_and_others_are_refused() {
        let number = |text: &str| number_of(SocketAddr::new(text.parse().unwrap(), 1));
        for host in [1, 7, 300, MAX_HOSTS] {
            assert_eq!(number(&address(host).to_string()), Some(host));
            assert!(address(host).is_loopback());
        }
        assert_eq!((number("127.0.2.44"), number("127.0.0.1")), (Some(300), Some(0)));
        for other in ["127.0.0.2", "10.0.1.7", "0.0.0.0", "::1"] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
