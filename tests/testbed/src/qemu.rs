//! A QEMU that is not managed by libvirt, reached by its sockets.

use std::fmt;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::cache;
use crate::command;
use crate::error::{Error, LogTail, Result};
use crate::guest::KERNEL_ARGUMENTS;
use crate::image::Image;
use crate::process::{Process, Signal};
use crate::state::new_uuid;

/// The maximum time for QEMU to open its sockets, and to end, on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);
const START_POLL: Duration = Duration::from_millis(5);

/// Runs QEMU until the other end of stdin is closed, also because the process that held it was killed.
const GUARD: &str = r#""$@" >"$0" 2>&1 & read -r _; kill -9 $!; wait"#;

/// A QEMU started directly. It ends when this value is dropped or this process ends.
pub struct Qemu {
    folder: PathBuf,
    port: u16,
    image: Option<Image>,
    guard: Option<Child>,
}

impl fmt::Debug for Qemu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Qemu").field("folder", &self.folder).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Qemu {
    /// Starts a QEMU without a guest system, which takes a moment. Its monitor answers when this returns.
    pub fn empty() -> Result<Self> {
        Self::start(None)
    }

    /// Starts a QEMU that boots the guest image, with an agent. Its monitor answers when this returns; its agent
    /// answers when the guest has booted.
    pub fn boot() -> Result<Self> {
        Self::start(Some(Image::ensure()?))
    }

    fn start(image: Option<Image>) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("atp-qemu-{}", new_uuid()?));
        cache::make_folder(&folder, 0o700)?;
        // The port is free now, and the kernel does not soon give it to another process.
        let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = listener.map_err(Error::io("finding a free port"))?.port();
        // From here on, dropping the value removes what follows.
        let mut qemu = Self { folder, port, image, guard: None };
        qemu.power_on()?;
        Ok(qemu)
    }

    /// Starts it again on the same sockets, after [`kill`](Self::kill).
    pub fn power_on(&mut self) -> Result<()> {
        self.stop();
        let mut guard = Command::new("sh");
        guard.arg("-c").arg(GUARD).arg(self.log()).arg("qemu-system-x86_64").args(self.arguments());
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let program = "sh".to_owned();
        self.guard = Some(guard.spawn().map_err(|source| Error::Program { program, source })?);

        let start = Instant::now();
        while self.process().is_none() || !self.monitor().exists() {
            if start.elapsed() > START_DEADLINE {
                return Err(Error::Deadline {
                    what: "the start of QEMU".to_owned(),
                    after: START_DEADLINE,
                    log: LogTail::of(&self.log()),
                });
            }
            thread::sleep(START_POLL);
        }
        Ok(())
    }

    /// The Unix socket of its monitor.
    pub fn monitor(&self) -> PathBuf {
        self.folder.join("monitor")
    }

    /// The TCP port of its second monitor, on 127.0.0.1.
    pub fn monitor_port(&self) -> u16 {
        self.port
    }

    /// The Unix socket of the guest's agent.
    pub fn agent(&self) -> PathBuf {
        self.folder.join("agent")
    }

    /// The file with everything the guest wrote to its serial console since power-on.
    pub fn console(&self) -> PathBuf {
        self.folder.join("console")
    }

    /// Stops it with SIGSTOP: it stops answering.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::Stop)
    }

    /// Continues it.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::Continue)
    }

    /// Kills it.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::Kill)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        match self.process() {
            Some(process) => process.signal(signal),
            None => Err(Error::State("QEMU does not run".to_owned())),
        }
    }

    /// The process named by the pid file, which QEMU writes when its sockets are open.
    fn process(&self) -> Option<Process> {
        Process::find(fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?)
    }

    fn stop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            // There is no remedy for a shell that does not end.
            let _ = command::wait(&mut guard, START_DEADLINE);
        }
        for file in [self.pid_file(), self.monitor(), self.agent()] {
            // The files do not exist before the first start.
            let _ = fs::remove_file(file);
        }
    }

    fn arguments(&self) -> Vec<String> {
        let shown = |path: &Path| path.display().to_string();
        let mut arguments: Vec<String> = [
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-accel",
            "tcg",
            "-pidfile",
            &shown(&self.pid_file()),
            "-qmp",
            &format!("unix:{},server=on,wait=off", shown(&self.monitor())),
            "-qmp",
            &format!("tcp:127.0.0.1:{},server=on,wait=off", self.port),
        ]
        .map(str::to_owned)
        .into();
        match &self.image {
            None => arguments.extend(["-machine", "none"].map(str::to_owned)),
            Some(image) => arguments.extend(
                [
                    "-machine",
                    "pc",
                    "-m",
                    "96",
                    "-kernel",
                    &shown(&image.kernel),
                    "-initrd",
                    &shown(&image.initramfs),
                    "-append",
                    &format!("{KERNEL_ARGUMENTS} hostname=bare"),
                    "-serial",
                    &format!("file:{}", shown(&self.console())),
                    "-serial",
                    "null",
                    "-device",
                    "virtio-serial",
                    "-chardev",
                    &format!("socket,id=agent,path={},server=on,wait=off", shown(&self.agent())),
                    "-device",
                    "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
                    "-chardev",
                    "null,id=channel",
                    "-device",
                    "virtserialport,chardev=channel,name=org.atp.test.channel",
                ]
                .map(str::to_owned),
            ),
        }
        arguments
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("pid")
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.stop();
        // If this fails, a few small files stay in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
