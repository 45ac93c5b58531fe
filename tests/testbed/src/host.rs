//! One host: its address, its daemon, its guests, and what can be done to its network.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::guest::{Guest, Note};
use crate::image::Image;
use crate::layout::Layout;
use crate::network::HostNetwork;
use crate::parallel;
use crate::process::{Members, Process, Signal};
use crate::proxy::{Proxy, Relay};
use crate::state::{HostState, Mode};
use crate::virsh::{DEADLINE, virsh};

/// How long it may take until libvirt has forgotten the guests that were added, on a busy machine.
const FORGET_DEADLINE: Duration = Duration::from_secs(120);

/// A host of a bed. A cheap handle: clones mean the same host.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

/// A folder on a file system that is soon full.
#[derive(Debug, Clone)]
pub struct SmallFolder {
    /// As the host's daemon and its guests see it.
    pub inside: PathBuf,
    /// As everybody else does.
    pub outside: PathBuf,
}

struct Inner {
    id: String,
    layout: Layout,
    network: Option<HostNetwork>,
    daemon: Daemon,
    image: Image,
    proxies: Mutex<Vec<Weak<Relay>>>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({} at {})", self.id(), self.uri())
    }
}

impl Host {
    pub(crate) fn new(state: HostState, folder: PathBuf, network: Option<HostNetwork>, image: Image) -> Self {
        let mode = if network.is_some() { Mode::Root } else { Mode::Rootless };
        let layout = Layout::new(folder, mode);
        let inner = Inner {
            id: state.id.clone(),
            layout: layout.clone(),
            network,
            daemon: Daemon::new(state, layout, network),
            image,
            proxies: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The id of the host in its bed: `h1`, `h2`, …
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The libvirt URI of the host: `qemu+tcp://10.231.1.11/system`, or a session on a port of 127.0.0.1.
    pub fn uri(&self) -> String {
        self.inner.daemon.uri(self.address())
    }

    /// Where its daemon listens.
    pub fn address(&self) -> SocketAddr {
        self.inner.daemon.address()
    }

    /// Everything its daemon wrote on stderr, all its starts in one file.
    pub fn daemon_log(&self) -> PathBuf {
        self.inner.layout.daemon_log()
    }

    /// Its guests, those that are shut off too, by name.
    pub fn guests(&self) -> Vec<Guest> {
        let Ok(entries) = fs::read_dir(self.inner.layout.guests()) else { return Vec::new() };
        let notes = entries.filter_map(|entry| {
            let path = entry.ok()?.path();
            (path.extension()? == "json")
                .then(|| serde_json::from_slice(&fs::read(path).ok()?).ok())
                .flatten()
        });
        let mut notes: Vec<Note> = notes.collect();
        // vm10 comes after vm2.
        notes.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
        notes.into_iter().map(|note| Guest::new(self.clone(), note)).collect()
    }

    /// The guest of that name.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchGuest`] if there is none.
    pub fn guest(&self, name: &str) -> Result<Guest> {
        self.guests()
            .into_iter()
            .find(|guest| guest.name() == name)
            .ok_or_else(|| Error::NoSuchGuest { host: self.id().to_owned(), guest: name.to_owned() })
    }

    /// Makes one more guest and powers it on. Does not wait for its agent.
    pub fn boot_guest(&self, name: &str) -> Result<Guest> {
        let guest = self.define_guest(name)?;
        guest.start()?;
        Ok(guest)
    }

    /// Makes one more guest, shut off.
    ///
    /// # Errors
    ///
    /// [`Error::GuestExists`] if the name is taken.
    pub fn define_guest(&self, name: &str) -> Result<Guest> {
        self.define(name, false)
    }

    pub(crate) fn define(&self, name: &str, original: bool) -> Result<Guest> {
        if self.guest(name).is_ok() {
            return Err(Error::GuestExists { host: self.id().to_owned(), guest: name.to_owned() });
        }
        Guest::define(self, name, original)
    }

    /// Runs `virsh -c URI` with these arguments, under a deadline of 60 s, and returns its stdout.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] if it fails, [`Error::Deadline`] if it hangs.
    pub fn virsh(&self, arguments: &[&str]) -> Result<String> {
        self.virsh_within(arguments, DEADLINE)
    }

    /// The same under a deadline of the caller's.
    pub fn virsh_within(&self, arguments: &[&str], deadline: Duration) -> Result<String> {
        virsh(&self.uri(), arguments, deadline)
    }

    /// Stops the daemon with SIGSTOP: connections stay open and nothing answers.
    pub fn pause_daemon(&self) -> Result<()> {
        self.inner.daemon.signal(Signal::Stop)
    }

    /// Lets the daemon go on.
    pub fn resume_daemon(&self) -> Result<()> {
        self.inner.daemon.signal(Signal::Continue)
    }

    /// Kills the daemon with SIGKILL. Its guests go on running.
    pub fn kill_daemon(&self) -> Result<()> {
        self.inner.daemon.signal(Signal::Kill)
    }

    /// Starts the daemon that was killed, and waits until it answers and knows its guests again.
    pub fn start_daemon(&self) -> Result<()> {
        if self.inner.daemon.process().is_none() {
            self.inner.daemon.reap();
            self.inner.daemon.spawn()?;
        }
        self.inner.daemon.wait_ready()
    }

    /// The number of the daemon's process, if it runs.
    pub fn daemon_pid(&self) -> Option<u32> {
        self.inner.daemon.process().map(Process::pid)
    }

    /// A folder of the host's own with room for 2 MiB. It lasts as long as its daemon.
    ///
    /// # Errors
    ///
    /// [`Error::NeedsRoot`] in rootless mode; [`Error::State`] if the daemon does not run.
    pub fn small_folder(&self) -> Result<SmallFolder> {
        self.network("small_folder")?;
        let pid = self.daemon_pid().ok_or_else(|| Error::State("the daemon does not run".to_owned()))?;
        let inside = self.layout().small();
        let outside = format!("/proc/{pid}/root{}", inside.display()).into();
        Ok(SmallFolder { inside, outside })
    }

    /// Takes the host's network link down, as if the cable were pulled.
    ///
    /// # Errors
    ///
    /// This and the other network faults: [`Error::NeedsRoot`] in rootless mode.
    pub fn link_down(&self) -> Result<()> {
        self.network("link_down")?.link_down()
    }

    /// Takes the link up again.
    pub fn link_up(&self) -> Result<()> {
        self.network("link_up")?.link_up()
    }

    /// Drops every packet from and to the host: silence, nobody is told.
    pub fn drop_packets(&self) -> Result<()> {
        self.network("drop_packets")?.drop_packets()
    }

    /// Answers every TCP packet to the host with a reset.
    pub fn reject_packets(&self) -> Result<()> {
        self.network("reject_packets")?.reject_packets()
    }

    /// Undoes every fault of the network.
    pub fn heal(&self) -> Result<()> {
        let network = self.network("heal")?;
        network.accept_packets()?;
        network.link_up()
    }

    /// Puts a TCP proxy before the daemon, on a port of 127.0.0.1. It passes everything until told otherwise and
    /// ends when dropped.
    pub fn proxy(&self) -> Result<Proxy> {
        let proxy = Proxy::start(self.address(), |address| self.inner.daemon.uri(address))?;
        let mut proxies = self.proxies();
        proxies.retain(|relay| relay.strong_count() > 0);
        proxies.push(proxy.relay());
        Ok(proxy)
    }

    /// Makes the host's folder and network, and starts its daemon.
    pub(crate) fn create(&self) -> Result<()> {
        if let Some(network) = self.inner.network {
            network.create()?;
        }
        self.inner.daemon.prepare()?;
        self.inner.daemon.spawn()?;
        self.inner.daemon.wait_ready()
    }

    /// Undoes every fault and puts the guests back to what they were when the bed was made.
    pub(crate) fn restore(&self, deadline: Duration) -> Result<()> {
        let guests = self.mend()?;
        parallel::each(&guests, |guest| guest.restore(deadline))
    }

    /// The same, with guests that have just been powered on and keep nothing from before.
    pub(crate) fn renew(&self, deadline: Duration) -> Result<()> {
        let guests = self.mend()?;
        parallel::each(&guests, Guest::reset)?;
        if let Ok(small) = self.small_folder() {
            clear(&small.outside)?;
        }
        parallel::each(&guests, |guest| guest.restore(deadline))
    }

    /// Undoes every fault of the host, and leaves it with the guests that were made with the bed.
    fn mend(&self) -> Result<Vec<Guest>> {
        for process in self.members().find().into_iter().filter(|process| process.is_stopped()) {
            process.signal(Signal::Continue)?;
        }
        if self.inner.network.is_some() {
            self.heal()?;
        }
        for relay in self.proxies().iter().filter_map(Weak::upgrade) {
            relay.pass();
        }
        if self.start_daemon().is_err() {
            // It runs and does not work. Its guests go on without it.
            let _ = self.kill_daemon();
            self.start_daemon()?;
        }

        let (original, added): (Vec<_>, Vec<_>) = self.guests().into_iter().partition(Guest::is_original);
        self.forget_all_but(&original)?;
        for guest in added {
            guest.remove_files()?;
        }
        Ok(original)
    }

    /// Takes the power from all other guests and makes libvirt forget them, in one call of virsh for all: on a small
    /// machine the calls cost more than what they do.
    fn forget_all_but(&self, original: &[Guest]) -> Result<()> {
        let start = Instant::now();
        loop {
            let known = self.virsh(&["list", "--all", "--uuid"])?;
            let others =
                known.split_whitespace().filter(|uuid| original.iter().all(|guest| guest.uuid() != *uuid));
            // One of the two may fail: a transient domain is gone after the first, one shut off cannot be destroyed. virsh
            // goes on after it.
            let commands: Vec<_> = others.map(|uuid| format!("destroy {uuid}; undefine {uuid}")).collect();
            if commands.is_empty() {
                return Ok(());
            }
            let forgotten = self.virsh(&[&commands.join("; ")]);
            // What is still there is seen in the next round: it may have been about to end by itself.
            if start.elapsed() >= FORGET_DEADLINE {
                forgotten?;
                return Err(Error::State(format!(
                    "libvirt on host {} keeps guests that were added",
                    self.id()
                )));
            }
        }
    }

    /// Waits for the process of a daemon that was killed with its bed.
    pub(crate) fn reap_daemon(&self) {
        self.inner.daemon.reap();
    }

    pub(crate) fn keep_capabilities(&self) -> Result<()> {
        self.inner.daemon.keep_capabilities()
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    pub(crate) fn image(&self) -> &Image {
        &self.inner.image
    }

    pub(crate) fn members(&self) -> Members {
        self.inner.daemon.members()
    }

    fn network(&self, operation: &'static str) -> Result<HostNetwork> {
        self.inner.network.ok_or(Error::NeedsRoot { operation })
    }

    fn proxies(&self) -> MutexGuard<'_, Vec<Weak<Relay>>> {
        self.inner.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the files in a folder.
fn clear(folder: &Path) -> Result<()> {
    let what = || format!("clearing {}", folder.display());
    for entry in fs::read_dir(folder).map_err(Error::io(what()))? {
        let path = entry.map_err(Error::io(what()))?.path();
        fs::remove_file(path).map_err(Error::io(what()))?;
    }
    Ok(())
}
