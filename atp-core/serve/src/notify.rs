//! What systemd is told: that the service is ready, reads its settings again, lives, and ends (`sd_notify`).

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The system's supervisor, if there is one that wants to be told.
#[derive(Debug)]
pub struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The one that the environment names (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).
    pub fn of_process() -> Self {
        let address = env::var("NOTIFY_SOCKET").ok().and_then(|name| address(&name));
        let socket = address.and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            // A supervisor that does not read must not hold up the service.
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        let is_ours = env::var("WATCHDOG_PID")
            .map_or(true, |pid| pid.parse::<u32>().is_ok_and(|pid| pid == std::process::id()));
        let micros = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
        let watchdog = micros.filter(|&micros| is_ours && micros > 0).map(Duration::from_micros);
        Supervisor { socket, watchdog }
    }

    /// How often [`alive`](Self::alive) is wanted; none if it is not.
    pub fn watchdog(&self) -> Option<Duration> {
        // Half of the time, as sd_watchdog_enabled(3) says.
        self.watchdog.filter(|_| self.socket.is_some()).map(|time| time / 2)
    }

    /// The service takes requests.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// The service reads its settings again; [`ready`](Self::ready) ends that.
    pub fn reloading(&self) {
        let micros = monotonic_micros();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading the settings again"));
    }

    /// The service lives.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// The service ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=finishing requests and runs");
    }

    fn tell(&self, text: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(text.as_bytes(), address)
        {
            tracing::warn!(%error, "the supervisor cannot be told");
        }
    }
}

fn address(name: &str) -> Option<SocketAddr> {
    let made: io::Result<SocketAddr> = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    };
    made.ok()
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

/// The clock that systemd compares: it must be CLOCK_MONOTONIC.
fn monotonic_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default() / 1000
}
