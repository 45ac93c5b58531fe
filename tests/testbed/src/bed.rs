//! A whole testbed: start, restore, remove.

use std::fmt;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

use parking_lot::Mutex;

use crate::cache;
use crate::daemon::LIBVIRT_PORT;
use crate::error::{Error, Result};
use crate::guest::{DiskFormat, Guest};
use crate::host::Host;
use crate::image::Image;
use crate::language::Language;
use crate::libvirt::Libvirt;
use crate::network::Network;
use crate::parallel;
use crate::process::Process;
use crate::release;
use crate::state::{BedState, HostState, Mode, Store, boot_id, new_uuid};
use crate::sys;

/// Ports for session daemons. They are below the kernel's range for outgoing connections, so that no client takes one
/// in the meantime.
const SESSION_PORTS: std::ops::Range<u16> = 20_000..30_000;

/// The maximum time until all agents of a bed answer, boot included, on a busy machine.
const AGENT_DEADLINE: Duration = Duration::from_secs(300);

/// Configures and starts a bed.
#[derive(Debug, Clone)]
pub struct Builder {
    hosts: u8,
    guests: u8,
    mode: Option<Mode>,
    languages: Vec<String>,
    daemons: Vec<Libvirt>,
    disks: DiskFormat,
    detached: bool,
}

impl Builder {
    /// Sets the number of hosts, 1 to 99 (default 1). Their ids are `h1`, `h2`, ….
    pub fn hosts(mut self, hosts: u8) -> Self {
        self.hosts = hosts;
        self
    }

    /// Sets the number of guests of each host (default 1). Their names are `vm1`, `vm2`, … on every host.
    pub fn guests(mut self, guests: u8) -> Self {
        self.guests = guests;
        self
    }

    /// Sets the mode. The default is root mode if this process runs as root, else rootless mode.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Sets the languages of the daemons' messages, by the names of libvirt's catalogues (`de`, `pt_BR`), in the order of the
    /// hosts; the other hosts speak English, as `C` does. Needs Debian's package `libvirt-l10n`.
    pub fn languages(mut self, languages: &[&str]) -> Self {
        self.languages = languages.iter().map(|&language| language.to_owned()).collect();
        self
    }

    /// Sets the libvirt of each host, in their order; further hosts have the last one's. The default is this machine's.
    pub fn daemons(mut self, daemons: &[Libvirt]) -> Self {
        self.daemons = daemons.to_vec();
        self
    }

    /// Sets how the disks of the bed's guests are kept.
    pub fn disks(mut self, disks: DiskFormat) -> Self {
        self.disks = disks;
        self
    }

    /// Keeps the bed when this process ends, until [`Testbed::remove_all`].
    pub fn detached(mut self) -> Self {
        self.detached = true;
        self
    }

    /// Starts daemons and guests and waits until all agents answer.
    ///
    /// Removes beds of dead processes first. If a step fails, everything that was made is removed again.
    pub fn start(self) -> Result<Testbed> {
        if !(1..=99).contains(&self.hosts) {
            return Err(Error::State(format!("a testbed has 1 to 99 hosts, not {}", self.hosts)));
        }
        let is_root = cache::user_id() == 0;
        let mode = self.mode.unwrap_or(if is_root { Mode::Root } else { Mode::Rootless });
        if mode == Mode::Root && !is_root {
            return Err(Error::NeedsRoot { operation: "Mode::Root" });
        }
        if mode != Mode::Root && self.daemons.iter().any(|libvirt| *libvirt != Libvirt::Machine) {
            return Err(Error::NeedsRoot { operation: "the libvirt of another Debian release" });
        }
        parallel::each(&self.daemons, |libvirt| release::ensure(*libvirt).map(drop))?;
        let image = Image::ensure()?;
        let store = Store::open()?;
        // From here on, dropping the bed removes what the next steps make.
        let (mut bed, mut state) = self.claim(store, mode, image)?;
        bed.create(self.guests, self.disks)?;
        if self.detached {
            state.owner = None;
            state.write(&bed.store.bed_folder(bed.number))?;
            forget_at_exit(bed.number);
            bed.owned = false;
        }
        Ok(bed)
    }

    /// Takes a number and writes the state. With these, other processes can find and remove everything that follows.
    fn claim(&self, store: Store, mode: Mode, image: Image) -> Result<(Testbed, BedState)> {
        let lock = store.lock()?;
        store.remove_stale(&lock)?;
        let number = store.claim(&lock)?;
        let network = Network::new(number);
        let mut languages = self.languages.iter();
        let hosts = (1..=self.hosts).map(|host| {
            let (address, port) = match mode {
                Mode::Root => (network.host(host).address(), LIBVIRT_PORT),
                Mode::Rootless => (Ipv4Addr::LOCALHOST, 0),
            };
            let language = languages.next().map_or(Ok(Language::default()), |name| Language::new(name))?;
            let libvirt = self.daemons.get(usize::from(host) - 1).or(self.daemons.last());
            let libvirt = libvirt.copied().unwrap_or_default();
            Ok(HostState { id: format!("h{host}"), uuid: new_uuid()?, address, port, language, libvirt })
        });
        let mut hosts: Vec<HostState> = hosts.collect::<Result<_>>()?;
        if mode == Mode::Rootless {
            choose_ports(&store, &mut hosts)?;
        }
        // A detached bed belongs to this process too, until it is complete.
        let state = BedState { mode, owner: Some(Process::current()?), boot: boot_id()?, hosts };
        state.write(&store.bed_folder(number))?;
        Ok((Testbed::new(store, number, &state, image, true), state))
    }
}

/// What is known of a bed without a request to its hosts.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Its number, for [`Testbed::attach`].
    pub number: u8,
    /// The process that removes the bed when it ends. `None` if the bed stays until [`Testbed::remove_all`].
    pub owner: Option<u32>,
    /// Whether that process ended without removing the bed, or the machine was rebooted.
    pub stale: bool,
}

/// Hosts with real libvirt daemons, and real guests with agents.
///
/// Dropping the value removes everything it made. A bed in a `static` is removed when the process exits. If the
/// process was killed, the next start of a bed or `testbed down` removes what is left.
pub struct Testbed {
    store: Store,
    number: u8,
    mode: Mode,
    hosts: Vec<Host>,
    /// Whether dropping this value removes the bed.
    owned: bool,
}

impl fmt::Debug for Testbed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Testbed")
            .field("number", &self.number)
            .field("mode", &self.mode)
            .field("hosts", &self.hosts)
            .finish()
    }
}

impl Testbed {
    /// Returns a builder for a bed. The default is one host with one guest.
    pub fn builder() -> Builder {
        Builder {
            hosts: 1,
            guests: 1,
            mode: None,
            languages: Vec::new(),
            daemons: Vec::new(),
            disks: DiskFormat::default(),
            detached: false,
        }
    }

    /// Returns the bed with this number, which another process of this user may have started.
    ///
    /// Dropping the value does not remove the bed.
    pub fn attach(number: u8) -> Result<Self> {
        let store = Store::open()?;
        let state = BedState::read(&store.bed_folder(number))?;
        Ok(Self::new(store, number, &state, Image::ensure()?, false))
    }

    /// Lists all beds of this user.
    pub fn list() -> Result<Vec<Summary>> {
        let store = Store::open()?;
        let _lock = store.lock()?;
        let summary = |number| {
            let state = BedState::read(&store.bed_folder(number)).ok()?;
            Some(Summary { number, owner: state.owner.map(Process::pid), stale: state.is_stale() })
        };
        Ok(store.beds()?.into_iter().filter_map(summary).collect())
    }

    /// Removes the beds of dead processes of this user and returns their numbers. Every start does this first.
    pub fn remove_stale() -> Result<Vec<u8>> {
        let store = Store::open()?;
        let lock = store.lock()?;
        store.remove_stale(&lock)
    }

    /// Removes one bed, also one of another process, and returns whether it existed.
    pub fn remove(number: u8) -> Result<bool> {
        let store = Store::open()?;
        let was_there = store.bed_folder(number).exists();
        remove_bed(&store, number)?;
        Ok(was_there)
    }

    /// Removes the detached beds of this user and the beds of dead processes, and returns their numbers. Beds of
    /// running processes stay.
    pub fn remove_all() -> Result<Vec<u8>> {
        let mut removed = Self::remove_stale()?;
        let store = Store::open()?;
        let lock = store.lock()?;
        for bed in store.beds()? {
            if BedState::read(&store.bed_folder(bed)).is_ok_and(|state| state.owner.is_none()) {
                store.remove(&lock, bed)?;
                removed.push(bed);
            }
        }
        Ok(removed)
    }

    /// The number of the bed, unique among the beds of this user.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The folder with all files of the bed: configurations, logs, consoles.
    pub fn folder(&self) -> PathBuf {
        self.store.bed_folder(self.number)
    }

    /// How the hosts run.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// All hosts, in order.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host with this id.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchHost`] if there is none.
    pub fn host(&self, id: &str) -> Result<Host> {
        self.hosts
            .iter()
            .find(|host| host.id() == id)
            .cloned()
            .ok_or_else(|| Error::NoSuchHost(id.to_owned()))
    }

    /// All guests of all hosts.
    pub fn guests(&self) -> Vec<Guest> {
        self.hosts.iter().flat_map(Host::guests).collect()
    }

    /// Undoes every fault and waits until the bed is as it was after the start: links up, proxies passing, daemons
    /// answering, the original guests running with agents that answer, and no other guests.
    pub fn restore(&self) -> Result<()> {
        parallel::each(&self.hosts, |host| host.restore(AGENT_DEADLINE))
    }

    /// Restores the bed as [`restore`](Self::restore) does, and discards all changes inside the guests: they are
    /// powered off and on, with empty disks. For use after a failed test, which may have left any state.
    pub fn renew(&self) -> Result<()> {
        parallel::each(&self.hosts, |host| host.renew(AGENT_DEADLINE))
    }

    /// Removes the bed. Dropping it does the same, but cannot report errors.
    pub fn down(mut self) -> Result<()> {
        self.owned = false;
        self.tear_down()
    }

    fn new(store: Store, number: u8, state: &BedState, image: Image, owned: bool) -> Self {
        if owned {
            remove_at_exit(&store, number);
        }
        let hosts = (1..).zip(&state.hosts).map(|(index, host)| {
            let network = (state.mode == Mode::Root).then(|| Network::new(number).host(index));
            Host::new(host.clone(), store.bed_folder(number).join(&host.id), network, image.clone())
        });
        let hosts = hosts.collect();
        Self { store, number, mode: state.mode, hosts, owned }
    }

    fn create(&self, guests: u8, disks: DiskFormat) -> Result<()> {
        if self.mode == Mode::Root {
            Network::new(self.number).create()?;
        }
        // The first host of each kind is created before the others: if its daemon has to probe QEMU's capabilities, the
        // other hosts reuse the result.
        let is_first = |host: &Host| self.hosts.iter().find(|other| other.libvirt() == host.libvirt());
        let (first, others): (Vec<&Host>, Vec<&Host>) =
            self.hosts.iter().partition(|host| is_first(host).is_some_and(|first| first.id() == host.id()));
        parallel::each(&first, |host| host.create())?;
        parallel::each(&first, |host| host.keep_capabilities())?;
        parallel::each(&others, |host| host.create())?;

        let names: Vec<(&Host, String)> = self
            .hosts
            .iter()
            .flat_map(|host| (1..=guests).map(move |guest| (host, format!("vm{guest}"))))
            .collect();
        parallel::each(&names, |(host, name)| {
            let guest = host.define(name, true, disks)?;
            guest.start()?;
            guest.wait_agent(AGENT_DEADLINE).map(drop)
        })
    }

    fn tear_down(&self) -> Result<()> {
        let result = remove_bed(&self.store, self.number);
        self.hosts.iter().for_each(Host::reap_daemon);
        result
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = self.tear_down()
        {
            eprintln!("testbed {}: cannot be removed: {error}", self.number);
        }
    }
}

/// Finds ports for session daemons: free ones that no other bed of this user has.
fn choose_ports(store: &Store, hosts: &mut [HostState]) -> Result<()> {
    let states = store.beds()?.into_iter().filter_map(|bed| BedState::read(&store.bed_folder(bed)).ok());
    let given: Vec<u16> = states.flat_map(|state| state.hosts).map(|host| host.port).collect();
    // The search starts at an offset of this process, since other users' beds are not known here.
    let offset = (std::process::id() % u32::from(SESSION_PORTS.end - SESSION_PORTS.start)) as usize;
    let candidates = SESSION_PORTS.cycle().skip(offset).take(SESSION_PORTS.len());
    let mut free = candidates
        .filter(|port| !given.contains(port))
        .filter(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    for host in hosts {
        host.port = free.next().ok_or_else(|| Error::State("no free port on 127.0.0.1".into()))?;
    }
    Ok(())
}

fn remove_bed(store: &Store, number: u8) -> Result<()> {
    let lock = store.lock()?;
    forget_at_exit(number);
    store.remove(&lock, number)
}

/// The beds of this process that exist. Needed because a bed in a `static` is never dropped.
static OWNED: Mutex<Vec<(Store, u8)>> = Mutex::new(Vec::new());

fn remove_at_exit(store: &Store, number: u8) {
    static REGISTER: Once = Once::new();
    extern "C" fn at_exit() {
        let beds = std::mem::take(&mut *OWNED.lock());
        for (store, number) in beds {
            // The process exits and cannot report the error; the next start of a bed tries again.
            let _ = remove_bed(&store, number);
        }
    }
    REGISTER.call_once(|| sys::at_exit(at_exit));
    OWNED.lock().push((store.clone(), number));
}

fn forget_at_exit(number: u8) {
    OWNED.lock().retain(|(_, owned)| *owned != number);
}
