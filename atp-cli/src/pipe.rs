//! This process's stdin and stdout, connected to a byte stream of a VM.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use atp_transport::DomainChannel;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::exit::Signal;

/// One read, bytes.
const READ: usize = 16 << 10;
/// The most reads of stdin that wait for the guest.
const WAITING: usize = 16;

/// How a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The escape character was typed.
    Escape,
    /// stdin has ended, and nothing came for the given time; or nobody reads stdout any more.
    Input,
    /// The stream has ended at its other side.
    Guest,
    /// A signal came.
    Signal(Signal),
    /// stdout cannot be written to.
    Output(io::Error),
    /// The stream was lost.
    Channel(io::Error),
}

/// Passes bytes both ways until the session ends: when `escape` is read from stdin; or when stdin has ended and nothing came for
/// `idle`, without which the end of stdin ends nothing.
///
/// Dropping the future ends it. The thread that reads stdin stays, as such a read cannot be cancelled.
pub(crate) async fn run(channel: DomainChannel, escape: Option<u8>, idle: Option<Duration>) -> End {
    let (mut from_guest, mut to_guest) = tokio::io::split(channel);
    let mut input = stdin();
    let (ended, mut has_ended) = mpsc::channel::<()>(1);
    let send = async move {
        while let Some(mut bytes) = input.recv().await {
            let end = escape.and_then(|escape| bytes.iter().position(|byte| *byte == escape));
            bytes.truncate(end.unwrap_or(bytes.len()));
            let sent = async {
                to_guest.write_all(&bytes).await?;
                to_guest.flush().await
            };
            if let Err(error) = sent.await {
                return End::Channel(error);
            }
            if end.is_some() {
                return End::Escape;
            }
        }
        drop(ended);
        std::future::pending().await
    };
    let receive = async move {
        let mut buffer = vec![0; READ];
        let mut quiet_since = None;
        loop {
            let until = quiet_since.zip(idle).map(|(since, idle): (Instant, Duration)| since + idle);
            let read = tokio::select! {
                read = from_guest.read(&mut buffer) => read,
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return End::Input,
                _ = has_ended.recv(), if quiet_since.is_none() => {
                    quiet_since = Some(Instant::now());
                    continue;
                }
            };
            let bytes = match read {
                Ok(0) => return End::Guest,
                Ok(read) => buffer[..read].to_vec(),
                Err(error) => return End::Channel(error),
            };
            match write(bytes).await {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return End::Input,
                Err(error) => return End::Output(error),
            }
            quiet_since = quiet_since.map(|_| Instant::now());
        }
    };
    tokio::select! {
        end = send => end,
        end = receive => end,
    }
}

/// Writes to stdout, on a thread that may wait for its reader.
async fn write(bytes: Vec<u8>) -> io::Result<()> {
    let written = tokio::task::spawn_blocking(move || {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&bytes)?;
        stdout.flush()
    });
    written.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Reads stdin on a thread of its own, until its end. What is read waits until it is taken.
fn stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        let mut buffer = vec![0; READ];
        // An error is an end as well: nothing more can be read.
        while let Ok(read @ 1..) = io::stdin().lock().read(&mut buffer) {
            if sender.blocking_send(buffer[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}
