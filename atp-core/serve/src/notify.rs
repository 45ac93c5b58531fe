//! What systemd is told: that the service is ready, reads its settings again, lives, and ends (`sd_notify`).

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// For how long a supervisor that is behind with reading is waited for. One that does not read at all must not hold up the
/// service for long.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is tried again meanwhile: the kernel does not say when there is room again.
const AGAIN: Duration = Duration::from_millis(10);

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
            // A thread must not be blocked by a supervisor that does not read.
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
    pub async fn ready(&self, status: &str) {
        self.tell_in_time(&format!("READY=1\nSTATUS={}", one_line(status))).await;
    }

    /// The service reads its settings again; [`ready`](Self::ready) ends that.
    pub async fn reloading(&self) {
        let micros = monotonic_micros();
        let text = format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading the settings again");
        self.tell_in_time(&text).await;
    }

    /// The service lives. If there is no room for this, it is not waited for: it is said again soon.
    pub fn alive(&self) {
        if let Err(error) = self.tell("WATCHDOG=1") {
            tracing::debug!(%error, "the supervisor cannot be told");
        }
    }

    /// The service ends.
    pub async fn stopping(&self) {
        self.tell_in_time("STOPPING=1\nSTATUS=finishing requests and runs").await;
    }

    /// Tells what is said only once: waits a while for room if the messages before have not been read.
    async fn tell_in_time(&self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while let Err(error) = self.tell(text) {
            if error.kind() != io::ErrorKind::WouldBlock || Instant::now() >= end {
                return tracing::warn!(%error, "the supervisor cannot be told");
            }
            sleep(AGAIN).await;
        }
    }

    fn tell(&self, text: &str) -> io::Result<()> {
        match &self.socket {
            Some((socket, address)) => socket.send_to_addr(text.as_bytes(), address).map(drop),
            None => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A supervisor that has not read what it was told, until there is no more room.
    fn behind(name: &str) -> (UnixDatagram, Supervisor) {
        let name = format!("atp-supervisor-{}-{name}", std::process::id());
        let reader = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = reader.local_addr().unwrap();
        let supervisor = Supervisor { socket: Some((socket, address)), watchdog: None };
        while supervisor.tell("WATCHDOG=1").is_ok() {}
        (reader, supervisor)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_once_is_not_lost_while_a_supervisor_is_behind() {
        let (reader, supervisor) = behind("late");
        reader.set_nonblocking(true).unwrap();
        let mut buffer = [0; 100];
        let read = async {
            // Later than the first try.
            sleep(PATIENCE / 2).await;
            loop {
                let length = reader.recv(&mut buffer).unwrap();
                if buffer[..length].starts_with(b"STOPPING=1") {
                    return;
                }
                sleep(AGAIN).await;
            }
        };
        tokio::join!(supervisor.stopping(), read);
    }

    #[tokio::test(start_paused = true)]
    async fn a_supervisor_that_does_not_read_is_not_waited_for_forever() {
        let (_reader, supervisor) = behind("never");
        let asked = Instant::now();
        supervisor.alive();
        assert_eq!(asked.elapsed(), Duration::ZERO);
        supervisor.stopping().await;
        assert!((PATIENCE..PATIENCE * 2).contains(&asked.elapsed()), "{:?}", asked.elapsed());
    }
}
