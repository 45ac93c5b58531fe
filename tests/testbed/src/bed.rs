//! A whole testbed: made, restored, and removed again.

use std::fmt;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use crate::cache;
use crate::daemon::LIBVIRT_PORT;
use crate::error::{Error, Result};
use crate::guest::Guest;
use crate::host::Host;
use crate::image::Image;
use crate::network::Network;
use crate::parallel;
use crate::process::Process;
use crate::state::{BedState, HostState, Mode, Store, boot_id, new_uuid};
use crate::sys;

/// Ports for session daemons: below those the kernel gives to clients, so that none takes one meanwhile.
const SESSION_PORTS: std::ops::Range<u16> = 20_000..30_000;

/// How long all agents of a bed may take to answer, boot included, on a busy machine.
const AGENT_DEADLINE: Duration = Duration::from_secs(300);

/// What a bed will look like.
#[derive(Debug, Clone)]
pub struct Builder {
    hosts: u8,
    guests: u8,
    mode: Option<Mode>,
    detached: bool,
}

impl Builder {
    /// How many hosts, 1 to 99 (default 1). They are called `h1`, `h2`, ….
    pub fn hosts(mut self, hosts: u8) -> Self {
        self.hosts = hosts;
        self
    }

    /// How many guests each host has (default 1). They are called `vm1`, `vm2`, … on every host.
    pub fn guests(mut self, guests: u8) -> Self {
        self.guests = guests;
        self
    }

    /// Asks for a mode. Without it, it is root mode if this process is root's, else rootless mode.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Lets the bed stay when this process ends, until [`Testbed::remove_all`].
    pub fn detached(mut self) -> Self {
        self.detached = true;
        self
    }

    /// Starts daemons and guests and waits until all agents answer.
    ///
    /// Beds that dead processes left are removed first. What was made is removed again if something fails.
    pub fn start(self) -> Result<Testbed> {
        if !(1..=99).contains(&self.hosts) {
            return Err(Error::State(format!("a testbed has 1 to 99 hosts, not {}", self.hosts)));
        }
        let is_root = cache::user_id()? == 0;
        let mode = self.mode.unwrap_or(if is_root { Mode::Root } else { Mode::Rootless });
        if mode == Mode::Root && !is_root {
            return Err(Error::NeedsRoot { operation: "Mode::Root" });
        }
        let image = Image::ensure()?;
        let store = Store::open()?;
        // From here on the bed is there, so that dropping it undoes what follows.
        let (mut bed, mut state) = self.claim(store, mode, image)?;
        bed.create(self.guests)?;
        if self.detached {
            state.owner = None;
            state.write(&bed.store.bed_folder(bed.number))?;
            forget_at_exit(bed.number);
            bed.owned = false;
        }
        Ok(bed)
    }

    /// Takes a number and writes the state, which is enough for others to find and remove all that follows.
    fn claim(&self, store: Store, mode: Mode, image: Image) -> Result<(Testbed, BedState)> {
        let lock = store.lock()?;
        store.remove_stale(&lock)?;
        let number = store.claim(&lock)?;
        let network = Network::new(number);
        let hosts = (1..=self.hosts).map(|host| {
            let (address, port) = match mode {
                Mode::Root => (network.host(host).address(), LIBVIRT_PORT),
                Mode::Rootless => (Ipv4Addr::LOCALHOST, 0),
            };
            Ok(HostState { id: format!("h{host}"), uuid: new_uuid()?, address, port })
        });
        let mut hosts: Vec<HostState> = hosts.collect::<Result<_>>()?;
        if mode == Mode::Rootless {
            choose_ports(&store, &mut hosts)?;
        }
        // A detached bed is ours as well, until it is complete.
        let state = BedState { mode, owner: Some(Process::current()?), boot: boot_id()?, hosts };
        state.write(&store.bed_folder(number))?;
        Ok((Testbed::new(store, number, &state, image, true), state))
    }
}

/// What is known of a bed without asking its hosts.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Its number, for [`Testbed::attach`].
    pub number: u8,
    /// The process that removes it when it ends; none if it stays until [`Testbed::remove_all`].
    pub owner: Option<u32>,
    /// Whether that process ended without removing it, or the machine was started anew.
    pub stale: bool,
}

/// Hosts with libvirt daemons and guests with agents, all real.
///
/// Dropping it removes everything it made. So does the end of the process, for a bed in a `static`; and what a
/// killed process leaves is removed by the next start of a bed, or by `testbed down`.
pub struct Testbed {
    store: Store,
    number: u8,
    mode: Mode,
    hosts: Vec<Host>,
    /// Whether it goes when this value does.
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
    /// A bed to be started: one host with one guest, unless told otherwise.
    pub fn builder() -> Builder {
        Builder { hosts: 1, guests: 1, mode: None, detached: false }
    }

    /// The bed of that number that a process of this user started and which still is there.
    ///
    /// Dropping the value leaves the bed alone.
    pub fn attach(number: u8) -> Result<Self> {
        let store = Store::open()?;
        let state = BedState::read(&store.bed_folder(number))?;
        Ok(Self::new(store, number, &state, Image::ensure()?, false))
    }

    /// All beds of this user.
    pub fn list() -> Result<Vec<Summary>> {
        let store = Store::open()?;
        let _lock = store.lock()?;
        let summary = |number| {
            let state = BedState::read(&store.bed_folder(number)).ok()?;
            Some(Summary { number, owner: state.owner.map(Process::pid), stale: state.is_stale() })
        };
        Ok(store.beds()?.into_iter().filter_map(summary).collect())
    }

    /// Removes what dead processes of this user left, and returns the numbers of their beds. Every start does this
    /// first.
    pub fn remove_stale() -> Result<Vec<u8>> {
        let store = Store::open()?;
        let lock = store.lock()?;
        store.remove_stale(&lock)
    }

    /// Removes one bed, whoever made it, and tells whether there was one.
    pub fn remove(number: u8) -> Result<bool> {
        let store = Store::open()?;
        let was_there = store.bed_folder(number).exists();
        remove_bed(&store, number)?;
        Ok(was_there)
    }

    /// Removes the detached beds of this user and those that dead processes left, and returns their numbers. Beds
    /// of living processes stay.
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

    /// The number of the bed, different from that of any other bed of this user.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The folder with everything the bed wrote: configurations, logs, consoles.
    pub fn folder(&self) -> PathBuf {
        self.store.bed_folder(self.number)
    }

    /// How its hosts run.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// All its hosts, in order.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host of that id.
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

    /// Undoes every fault and waits until all is as it was after the start: links up, proxies passing, daemons
    /// answering, the guests that were made with the bed running with agents that answer, and no others.
    pub fn restore(&self) -> Result<()> {
        parallel::each(&self.hosts, |host| host.restore(AGENT_DEADLINE))
    }

    /// As [`restore`](Self::restore), and nothing is left of what was done in the guests: they are powered off and on,
    /// with empty disks. For after a test that failed, which may have left anything.
    pub fn renew(&self) -> Result<()> {
        parallel::each(&self.hosts, |host| host.renew(AGENT_DEADLINE))
    }

    /// Removes the bed. Dropping it does the same, but cannot tell what failed.
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

    fn create(&self, guests: u8) -> Result<()> {
        if self.mode == Mode::Root {
            Network::new(self.number).create()?;
        }
        // The first host alone: if it has to find out what QEMU can do, the others need not do the same again.
        let (first, others) = self.hosts.split_at(1);
        parallel::each(first, Host::create)?;
        parallel::each(first, Host::keep_capabilities)?;
        parallel::each(others, Host::create)?;

        let names: Vec<(&Host, String)> = self
            .hosts
            .iter()
            .flat_map(|host| (1..=guests).map(move |guest| (host, format!("vm{guest}"))))
            .collect();
        parallel::each(&names, |(host, name)| {
            let guest = host.define(name, true)?;
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

/// Finds ports for session daemons that nobody uses and no other bed of this user was given.
fn choose_ports(store: &Store, hosts: &mut [HostState]) -> Result<()> {
    let states = store.beds()?.into_iter().filter_map(|bed| BedState::read(&store.bed_folder(bed)).ok());
    let given: Vec<u16> = states.flat_map(|state| state.hosts).map(|host| host.port).collect();
    // Beds of other users start to look somewhere else.
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

/// The beds of this process that are there: a bed in a `static` is never dropped.
static OWNED: Mutex<Vec<(Store, u8)>> = Mutex::new(Vec::new());

fn owned() -> MutexGuard<'static, Vec<(Store, u8)>> {
    OWNED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remove_at_exit(store: &Store, number: u8) {
    static REGISTER: Once = Once::new();
    extern "C" fn at_exit() {
        let beds = std::mem::take(&mut *owned());
        for (store, number) in beds {
            // Nobody is left to tell; the next start of a bed tries again.
            let _ = remove_bed(&store, number);
        }
    }
    REGISTER.call_once(|| sys::at_exit(at_exit));
    owned().push((store.clone(), number));
}

fn forget_at_exit(number: u8) {
    owned().retain(|(_, owned)| *owned != number);
}
