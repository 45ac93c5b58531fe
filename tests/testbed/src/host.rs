//! One host: its address, its daemon, its guests, and the faults of its network.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::guest::{DiskFormat, Guest, Note};
use crate::image::Image;
use crate::layout::Layout;
use crate::libvirt::Libvirt;
use crate::network::HostNetwork;
use crate::parallel;
use crate::process::{Members, Process, Signal};
use crate::proxy::{Proxy, Relay};
use crate::release;
use crate::state::{HostState, Mode};
use crate::virsh::{DEADLINE, virsh};

/// The maximum time until libvirt has undefined the guests that were added, on a busy machine.
const FORGET_DEADLINE: Duration = Duration::from_secs(120);

/// A host of a bed. A cheap handle: clones refer to the same host.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

/// A folder on a small file system, for tests of full disks.
#[derive(Debug, Clone)]
pub struct SmallFolder {
    /// The path for the host's daemon and its guests.
    pub inside: PathBuf,
    /// The path for other processes.
    pub outside: PathBuf,
}

struct Inner {
    id: String,
    libvirt: Libvirt,
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
            libvirt: state.libvirt,
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

    /// The address on which its daemon listens.
    pub fn address(&self) -> SocketAddr {
        self.inner.daemon.address()
    }

    /// The file with the daemon's stderr, of all its starts.
    pub fn daemon_log(&self) -> PathBuf {
        self.inner.layout.daemon_log()
    }

    /// Its libvirt.
    pub fn libvirt(&self) -> Libvirt {
        self.inner.libvirt
    }

    /// Its guests, sorted by name, including those that are shut off.
    pub fn guests(&self) -> Vec<Guest> {
        let Ok(entries) = fs::read_dir(self.inner.layout.guests()) else { return Vec::new() };
        let notes = entries.filter_map(|entry| {
            let path = entry.ok()?.path();
            (path.extension()? == "json")
                .then(|| serde_json::from_slice(&fs::read(path).ok()?).ok())
                .flatten()
        });
        let mut notes: Vec<Note> = notes.collect();
        // Sorted by length first, so that vm10 comes after vm2.
        notes.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
        notes.into_iter().map(|note| Guest::new(self.clone(), note)).collect()
    }

    /// The guest with this name.
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

    /// Adds a guest and powers it on. Does not wait for its agent.
    pub fn boot_guest(&self, name: &str) -> Result<Guest> {
        let guest = self.define_guest(name)?;
        guest.start()?;
        Ok(guest)
    }

    /// Adds a guest, shut off.
    ///
    /// # Errors
    ///
    /// [`Error::GuestExists`] if the name is taken.
    pub fn define_guest(&self, name: &str) -> Result<Guest> {
        self.define_guest_with(name, DiskFormat::Raw)
    }

    /// Adds a guest with a disk of this format, shut off.
    ///
    /// # Errors
    ///
    /// [`Error::GuestExists`] if the name is taken.
    pub fn define_guest_with(&self, name: &str, disk: DiskFormat) -> Result<Guest> {
        self.define(name, false, disk)
    }

    pub(crate) fn define(&self, name: &str, original: bool, disk: DiskFormat) -> Result<Guest> {
        if self.guest(name).is_ok() {
            return Err(Error::GuestExists { host: self.id().to_owned(), guest: name.to_owned() });
        }
        Guest::define(self, name, original, disk)
    }

    /// Runs `virsh -c URI` with these arguments, under a deadline of 60 s, and returns its stdout.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] if it fails, [`Error::Deadline`] if it hangs.
    pub fn virsh(&self, arguments: &[&str]) -> Result<String> {
        self.virsh_within(arguments, DEADLINE)
    }

    /// As [`virsh`](Self::virsh), with the caller's deadline.
    pub fn virsh_within(&self, arguments: &[&str], deadline: Duration) -> Result<String> {
        virsh(&self.uri(), arguments, deadline)
    }

    /// Stops the daemon with SIGSTOP: connections stay open and get no answers.
    pub fn pause_daemon(&self) -> Result<()> {
        self.inner.daemon.signal(Signal::Stop)
    }

    /// Continues the daemon.
    pub fn resume_daemon(&self) -> Result<()> {
        self.inner.daemon.signal(Signal::Continue)
    }

    /// Kills the daemon with SIGKILL. Its guests keep running.
    pub fn kill_daemon(&self) -> Result<()> {
        self.inner.daemon.kill()
    }

    /// Stops, with SIGSTOP, the virtqemud of a [modular](Libvirt::is_modular) host: the virtproxyd in front of it goes on
    /// answering what it answers by itself, such as keepalive.
    ///
    /// # Errors
    ///
    /// This and the next two: [`Error::Daemon`] if there is none.
    pub fn pause_driver_daemon(&self) -> Result<()> {
        self.inner.daemon.signal_driver(Signal::Stop)
    }

    /// Continues the virtqemud.
    pub fn resume_driver_daemon(&self) -> Result<()> {
        self.inner.daemon.signal_driver(Signal::Continue)
    }

    /// Kills the virtqemud with SIGKILL. The virtproxyd keeps running; [`start_daemon`](Self::start_daemon) starts both
    /// anew.
    pub fn kill_driver_daemon(&self) -> Result<()> {
        self.inner.daemon.signal_driver(Signal::Kill)
    }

    /// Starts the daemon after it was killed, and waits until it answers and has found its guests again.
    pub fn start_daemon(&self) -> Result<()> {
        if !self.inner.daemon.is_complete() {
            self.inner.daemon.kill()?;
            self.inner.daemon.spawn()?;
        }
        self.inner.daemon.wait_ready()
    }

    /// The UUID that the daemon reports for its machine.
    pub fn machine_uuid(&self) -> String {
        self.inner.daemon.machine_uuid()
    }

    /// Restarts the daemon with another UUID for its machine, such as that of another host: makers of boards repeat them.
    /// With `None` it is the host's own again. A restore by the same process does that, too.
    pub fn set_machine_uuid(&self, uuid: Option<&str>) -> Result<()> {
        if self.inner.daemon.process().is_some() {
            self.kill_daemon()?;
        }
        self.inner.daemon.set_machine_uuid(uuid)?;
        self.start_daemon()
    }

    /// Restarts the daemon with lines of configuration that replace those of the testbed, such as other ways to connect.
    /// Its SASL configuration is `sasl2/libvirt.conf` in [its folder](Self::folder). A restore by the same process removes
    /// the lines.
    pub fn set_daemon_settings(&self, lines: &str) -> Result<()> {
        self.inner.daemon.kill()?;
        self.inner.daemon.set_settings(lines)?;
        self.start_daemon()
    }

    /// The folder of the host's files, which has the same path for its daemon.
    pub fn folder(&self) -> &Path {
        self.inner.layout.folder()
    }

    /// The daemon's Unix socket, or its socket for reading only, for processes outside of the host.
    pub fn socket(&self, read_only: bool) -> PathBuf {
        self.folder().join("run/libvirt").join(if read_only { "libvirt-sock-ro" } else { "libvirt-sock" })
    }

    /// A command that runs in the host's network and sees the files that its daemon sees, if that is this machine's.
    ///
    /// # Errors
    ///
    /// [`Error::NeedsRoot`] in rootless mode; [`Error::State`] if the daemon does not run.
    pub fn command(&self, program: &str) -> Result<Command> {
        self.network("command")?;
        let pid = self.daemon_pid().ok_or_else(|| Error::State("the daemon does not run".to_owned()))?;
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid.to_string(), "--mount", "--net", "--uts", program]);
        Ok(command)
    }

    /// The folder with the Debian release of its libvirt, if that is not this machine's.
    pub fn release(&self) -> Result<Option<PathBuf>> {
        Ok(release::ensure(self.libvirt())?.map(|release| release.root))
    }

    /// The process id of the daemon, if it is running.
    pub fn daemon_pid(&self) -> Option<u32> {
        self.inner.daemon.process().map(Process::pid)
    }

    /// A folder of this host on a file system of 2 MiB and 64 files. It exists as long as the daemon runs.
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

    /// Takes the host's network link down, as when a cable is pulled.
    ///
    /// # Errors
    ///
    /// This and the other network faults: [`Error::NeedsRoot`] in rootless mode.
    pub fn link_down(&self) -> Result<()> {
        self.network("link_down")?.link_down()
    }

    /// Takes the link up.
    pub fn link_up(&self) -> Result<()> {
        self.network("link_up")?.link_up()
    }

    /// Drops every packet from and to the host, without notice to the sender.
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

    /// Starts a TCP proxy in front of the daemon, on a port of 127.0.0.1. It forwards everything until a fault is
    /// set, and ends when dropped.
    pub fn proxy(&self) -> Result<Proxy> {
        let proxy = Proxy::start(self.address(), |address| self.inner.daemon.uri(address))?;
        let mut proxies = self.inner.proxies.lock();
        proxies.retain(|relay| relay.strong_count() > 0);
        proxies.push(proxy.relay());
        Ok(proxy)
    }

    /// Creates the host's folder and network, and starts its daemon.
    pub(crate) fn create(&self) -> Result<()> {
        if let Some(network) = self.inner.network {
            network.create()?;
        }
        self.inner.daemon.prepare()?;
        self.inner.daemon.spawn()?;
        self.inner.daemon.wait_ready()
    }

    /// Undoes every fault and restores the guests that were made with the bed.
    pub(crate) fn restore(&self, deadline: Duration) -> Result<()> {
        let guests = self.undo_faults()?;
        parallel::each(&guests, |guest| guest.restore(deadline))
    }

    /// As [`restore`](Self::restore), with guests that are freshly powered on and keep no data.
    pub(crate) fn renew(&self, deadline: Duration) -> Result<()> {
        let guests = self.undo_faults()?;
        parallel::each(&guests, Guest::reset)?;
        if let Ok(small) = self.small_folder() {
            clear(&small.outside)?;
        }
        parallel::each(&guests, |guest| guest.restore(deadline))
    }

    /// Undoes every fault of the host, and removes the guests that were not made with the bed.
    fn undo_faults(&self) -> Result<Vec<Guest>> {
        for process in self.members().find().into_iter().filter(|process| process.is_stopped()) {
            process.signal(Signal::Continue)?;
        }
        if self.inner.network.is_some() {
            self.heal()?;
        }
        for relay in self.inner.proxies.lock().iter().filter_map(Weak::upgrade) {
            relay.pass();
        }
        if self.inner.daemon.has_foreign_uuid() {
            self.set_machine_uuid(None)?;
        }
        if self.inner.daemon.has_settings() {
            self.set_daemon_settings("")?;
        }
        if self.start_daemon().is_err() {
            // It runs and does not work. Its guests keep running without it.
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

    /// Powers off and undefines all other guests, in one call of virsh for all: on a small machine, starting virsh
    /// costs more than its work.
    fn forget_all_but(&self, original: &[Guest]) -> Result<()> {
        let start = Instant::now();
        loop {
            let known = self.virsh(&["list", "--all", "--uuid"])?;
            let others =
                known.split_whitespace().filter(|uuid| original.iter().all(|guest| guest.uuid() != *uuid));
            // One of the two commands may fail: a transient domain is gone after the first, and one that is shut off
            // cannot be destroyed. virsh continues after a failed command.
            let commands: Vec<_> = others
                .map(|uuid| format!("destroy {uuid}; undefine --managed-save --snapshots-metadata {uuid}"))
                .collect();
            if commands.is_empty() {
                return Ok(());
            }
            let forgotten = self.virsh(&[&commands.join("; ")]);
            // The next iteration sees the domains that are left: one may have been about to end by itself.
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
}

/// Removes what is in a folder.
fn clear(folder: &Path) -> Result<()> {
    let what = || format!("clearing {}", folder.display());
    for entry in fs::read_dir(folder).map_err(Error::io(what()))? {
        let entry = entry.map_err(Error::io(what()))?;
        let is_folder = entry.file_type().map_err(Error::io(what()))?.is_dir();
        let removed =
            if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        removed.map_err(Error::io(what()))?;
    }
    Ok(())
}
