//! The libvirt daemon of one host: its configuration, its process, and the QEMU capabilities it probed.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::cache;
use crate::error::{Error, LogTail, Result};
use crate::layout::Layout;
use crate::network::HostNetwork;
use crate::process::{Members, Process, Signal};
use crate::release;
use crate::session;
use crate::state::HostState;
use crate::virsh::virsh;

/// The port on which libvirt daemons listen by default, also used by URIs without a port.
pub(crate) const LIBVIRT_PORT: u16 = 16509;

/// The maximum time from a daemon's start to its first answer. Without known capabilities it starts each QEMU binary
/// of the machine twice, which takes 2 s each on an idle machine.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// The interval between checks of a daemon that is starting.
const POLL: Duration = Duration::from_millis(5);

/// The testbed disables namespaces, dynamic users and security labels, which are the machine's own business, and does
/// not run virtlogd.
const QEMU_CONFIG: &str = "\
user = \"root\"
group = \"root\"
dynamic_ownership = 0
remember_owner = 0
security_driver = \"none\"
namespaces = []
cgroup_controllers = []
stdio_handler = \"file\"
";

/// The daemon that serves QEMU's driver alone, behind the one that listens.
const DRIVER_DAEMON: &str = "virtqemud";

/// One libvirt daemon, or two of a modular libvirt.
#[derive(Debug)]
pub(crate) struct Daemon {
    host: HostState,
    layout: Layout,
    /// The host's network; none in rootless mode.
    network: Option<HostNetwork>,
    /// The process, if it is a child of this one: then it must be waited for when it ends.
    child: Mutex<Option<Child>>,
    /// The UUID that it reports for its machine instead of the host's own.
    foreign_uuid: Mutex<Option<String>>,
    /// Lines of configuration that come before its own.
    settings: Mutex<String>,
}

impl Daemon {
    pub(crate) fn new(host: HostState, layout: Layout, network: Option<HostNetwork>) -> Self {
        let (foreign_uuid, settings) = Default::default();
        Self { host, layout, network, child: Mutex::default(), foreign_uuid, settings }
    }

    /// The libvirt URI with this address.
    pub(crate) fn uri(&self, address: SocketAddr) -> String {
        let path = if self.network.is_some() { "system" } else { "session" };
        if address.port() == LIBVIRT_PORT {
            format!("qemu+tcp://{}/{path}", address.ip())
        } else {
            format!("qemu+tcp://{address}/{path}")
        }
    }

    /// The address on which the daemon listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((self.host.address, self.host.port))
    }

    /// The UUID that it reports for its machine.
    pub(crate) fn machine_uuid(&self) -> String {
        self.foreign_uuid.lock().as_ref().unwrap_or(&self.host.uuid).clone()
    }

    /// Whether that is not the host's own.
    pub(crate) fn has_foreign_uuid(&self) -> bool {
        self.foreign_uuid.lock().is_some()
    }

    /// Sets the UUID that it reports for its machine from its next start on; the host's own if `None`.
    pub(crate) fn set_machine_uuid(&self, uuid: Option<&str>) -> Result<()> {
        *self.foreign_uuid.lock() = uuid.map(str::to_owned);
        self.prepare()
    }

    /// Sets lines of configuration that come before its own from its next start on, and so replace those.
    pub(crate) fn set_settings(&self, lines: &str) -> Result<()> {
        lines.clone_into(&mut self.settings.lock());
        self.prepare()
    }

    /// Whether there are such lines.
    pub(crate) fn has_settings(&self) -> bool {
        !self.settings.lock().is_empty()
    }

    /// Writes the configuration and gives the daemon the capabilities known from earlier runs.
    pub(crate) fn prepare(&self) -> Result<()> {
        self.layout.create()?;
        let HostState { address, port, .. } = &self.host;
        let uuid = self.machine_uuid();
        let settings = self.settings.lock().clone();
        let config = format!(
            "{settings}\n\
             listen_tls = 0\n\
             listen_tcp = 1\n\
             listen_addr = \"{address}\"\n\
             tcp_port = \"{port}\"\n\
             auth_tcp = \"none\"\n\
             auth_unix_ro = \"none\"\n\
             auth_unix_rw = \"none\"\n\
             unix_sock_group = \"root\"\n\
             host_uuid = \"{uuid}\"\n\
             log_outputs = \"3:stderr\"\n"
        );
        let qemu_config = if self.network.is_some() { QEMU_CONFIG } else { "stdio_handler = \"file\"\n" };
        // What only one of two daemons understands, the other ignores.
        let mut files = vec![(self.layout.qemu_config(), qemu_config)];
        files.extend(self.names().map(|name| (self.layout.daemon_config(name), config.as_str())));
        for (path, content) in files {
            fs::write(&path, content).map_err(Error::io(format!("writing {}", path.display())))?;
        }
        copy_files(&self.known_capabilities()?, &self.layout.capabilities())?;
        if self.network.is_none() { session::give_to_daemon_user(self.layout.folder()) } else { Ok(()) }
    }

    /// Starts the process. It must have ended, or never have been started.
    pub(crate) fn spawn(&self) -> Result<()> {
        let path = self.layout.daemon_log();
        let log = File::options().create(true).append(true).open(&path);
        let log = log.map_err(Error::io(format!("opening {}", path.display())))?;
        let errors = log.try_clone().map_err(Error::io("duplicating a file descriptor"))?;

        let folder = self.layout.folder();
        let mut command = match self.network {
            Some(network) => {
                let mut command = network.command("unshare");
                command.args([
                    "--mount",
                    "--propagation",
                    "private",
                    "--uts",
                    "sh",
                    "-c",
                    include_str!("daemon.sh"),
                    "daemon.sh",
                ]);
                // libvirt takes a name with a dot as fully qualified and does not ask a name server.
                command.arg(folder).arg(format!("{}.atp.test", self.host.id));
                if let Some(release) = release::ensure(self.host.libvirt)? {
                    command.arg(release.root).args(release.modular);
                }
                command.env_clear().env("PATH", session::PATH).env("HOME", folder);
                command.env("SASL_CONF_PATH", folder.join("sasl2"));
                command
            }
            // HOME also identifies the bed to which the processes of a session belong.
            None => session::daemon(folder, &self.layout.daemon_config(self.name()))?,
        };
        self.host.language.set(&mut command);
        // A process group of its own, so that Ctrl-C in a test's terminal does not reach the daemon.
        command.process_group(0).current_dir("/");
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child =
            command.spawn().map_err(|source| Error::Program { program: self.name().into(), source })?;
        *self.child.lock() = Some(child);
        Ok(())
    }

    /// Waits until the daemon answers, and checks that it is the process started here.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        let start = Instant::now();
        let mut refused = None;
        loop {
            let left = START_DEADLINE.saturating_sub(start.elapsed());
            if left.is_zero() {
                if let Some(error) = refused {
                    return Err(self.failed(&format!("does not work: {error}")));
                }
                return Err(Error::Deadline {
                    what: format!("the start of the libvirt daemon of host {}", self.host.id),
                    after: START_DEADLINE,
                    log: LogTail::of(&self.layout.daemon_log()),
                });
            }
            if self.process().is_none() {
                return Err(self.failed("ended"));
            }
            if TcpStream::connect_timeout(&self.address(), left).is_ok() {
                // The daemon gives its first answer when all drivers are up.
                match virsh(&self.uri(self.address()), &["capabilities"], left) {
                    Ok(capabilities) if capabilities.contains(&self.machine_uuid()) => return Ok(()),
                    Ok(_) => {
                        return Err(
                            self.failed(&format!("is not the one that listens on {}", self.address()))
                        );
                    }
                    // The daemon may have ended, which the next iteration detects, or may not be up yet.
                    Err(error) => refused = Some(error),
                }
            }
            thread::sleep(POLL);
        }
    }

    /// The process that listens, if it is running.
    pub(crate) fn process(&self) -> Option<Process> {
        match self.child.lock().as_ref() {
            Some(child) => Process::find(child.id()),
            None => self.members().of_pid_file(&self.layout.daemon_pid_file(self.name())),
        }
    }

    /// The process that serves QEMU's driver, if it is another one and is running.
    pub(crate) fn driver_process(&self) -> Option<Process> {
        self.members().of_pid_file(&self.layout.daemon_pid_file(DRIVER_DAEMON))
    }

    /// Whether all its processes are running.
    pub(crate) fn is_complete(&self) -> bool {
        self.process().is_some() && (!self.host.libvirt.is_modular() || self.driver_process().is_some())
    }

    /// The name of the program that listens.
    fn name(&self) -> &'static str {
        if self.host.libvirt.is_modular() { "virtproxyd" } else { "libvirtd" }
    }

    /// The names of all its programs.
    fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name()).chain(self.host.libvirt.is_modular().then_some(DRIVER_DAEMON))
    }

    /// All processes of the host: the daemon, its QEMUs, and the processes they started.
    pub(crate) fn members(&self) -> Members {
        Members {
            namespaces: self.network.iter().map(|network| network.namespace()).collect(),
            home: self.layout.folder().to_owned(),
        }
    }

    /// Sends a signal to the process that listens.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process().ok_or_else(|| self.failed("does not run"))?;
        process.signal(signal)
    }

    /// Sends a signal to the process that serves QEMU's driver behind the one that listens.
    pub(crate) fn signal_driver(&self, signal: Signal) -> Result<()> {
        let process = self.driver_process();
        let process = process.ok_or_else(|| self.failed("has no virtqemud behind it that runs"))?;
        process.signal(signal)
    }

    /// Kills all its processes that run.
    pub(crate) fn kill(&self) -> Result<()> {
        for process in self.process().into_iter().chain(self.driver_process()) {
            process.signal(Signal::Kill)?;
        }
        self.reap();
        Ok(())
    }

    /// Waits for a killed child, so that no zombie is left.
    pub(crate) fn reap(&self) {
        if let Some(mut child) = self.child.lock().take() {
            // Its status is known: it was killed.
            let _ = child.wait();
        }
    }

    /// Saves the QEMU capabilities that the daemon probed for daemons started later. libvirt itself checks whether
    /// they are still valid.
    pub(crate) fn keep_capabilities(&self) -> Result<()> {
        copy_files(&self.layout.capabilities(), &self.known_capabilities()?)
    }

    fn failed(&self, problem: &str) -> Error {
        Error::Daemon {
            host: self.host.id.clone(),
            problem: problem.to_owned(),
            log: LogTail::of(&self.layout.daemon_log()),
        }
    }

    /// Capabilities depend on whether the daemon may open `/dev/kvm`, so system and session daemons have separate
    /// caches; and each release has a QEMU of its own.
    fn known_capabilities(&self) -> Result<PathBuf> {
        let name = match (self.network, self.host.libvirt.suite()) {
            (None, _) => "capabilities-session".to_owned(),
            (Some(_), None) => "capabilities-system".to_owned(),
            (Some(_), Some(suite)) => format!("capabilities-{suite}"),
        };
        let folder = cache::folder()?.join(name);
        cache::make_folder(&folder, 0o755)?;
        Ok(folder)
    }
}

/// Copies the files of one folder to another, except those that exist there with the same content.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    let entries = fs::read_dir(from).map_err(Error::io(format!("reading {}", from.display())))?;
    for entry in entries {
        let path = entry.map_err(Error::io(format!("reading {}", from.display())))?.path();
        // Another process may be writing here: its unfinished files have another suffix.
        if path.extension().is_none_or(|extension| extension != "xml") {
            continue;
        }
        let content = fs::read(&path).map_err(Error::io(format!("reading {}", path.display())))?;
        let copy = to.join(path.file_name().unwrap_or_default());
        if fs::read(&copy).is_ok_and(|present| present == content) {
            continue;
        }
        cache::write_atomically(&copy, &content)?;
    }
    Ok(())
}
