//! This process's stdin and stdout, connected to a byte stream of a VM.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

use crate::exit::Signal;

/// One read, bytes.
const READ: usize = 16 << 10;
/// The most bytes of stdin that wait for the guest.
const WAITING: usize = 1 << 20;
/// How long what was typed before the escape character may take: a guest that hangs takes nothing.
const LAST: Duration = Duration::from_secs(1);

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
    /// stdin cannot be read.
    Unread(io::Error),
    /// stdout cannot be written to.
    Output(io::Error),
    /// The stream was lost.
    Channel(io::Error),
}

/// What was read from stdin.
struct Input {
    reads: mpsc::UnboundedReceiver<io::Result<Vec<u8>>>,
    /// Room for what waits, bytes.
    room: Arc<Semaphore>,
}

/// Passes bytes both ways until the session ends: when `escape` is read from stdin; or when stdin has ended and nothing came for
/// `idle`, without which the end of stdin ends nothing.
///
/// Dropping the future ends it. The thread that reads stdin stays, as such a read cannot be cancelled.
pub(crate) async fn run(
    channel: impl AsyncRead + AsyncWrite,
    escape: Option<u8>,
    idle: Option<Duration>,
) -> End {
    pass(channel, stdin(), escape, idle).await
}

async fn pass(
    channel: impl AsyncRead + AsyncWrite,
    input: Input,
    escape: Option<u8>,
    idle: Option<Duration>,
) -> End {
    let (mut from_guest, mut to_guest) = tokio::io::split(channel);
    let Input { mut reads, room } = input;
    let (ended, mut has_ended) = mpsc::channel::<()>(1);
    // What is read is looked at as soon as it comes: a guest that takes nothing must not keep the escape character from being seen.
    let (queue, mut queued) = mpsc::unbounded_channel::<(Vec<u8>, usize, bool)>();
    let look = async move {
        while let Some(read) = reads.recv().await {
            let mut bytes = match read {
                Ok(bytes) => bytes,
                Err(error) => return End::Unread(error),
            };
            let length = bytes.len();
            let end = escape.and_then(|escape| bytes.iter().position(|byte| *byte == escape));
            bytes.truncate(end.unwrap_or(length));
            // Fails when the session is over.
            let _over = queue.send((bytes, length, end.is_some()));
            if end.is_some() {
                sleep(LAST).await;
                return End::Escape;
            }
        }
        drop(queue);
        std::future::pending().await
    };
    let send = async move {
        while let Some((bytes, length, is_last)) = queued.recv().await {
            let sent = async {
                to_guest.write_all(&bytes).await?;
                to_guest.flush().await
            };
            if let Err(error) = sent.await {
                return End::Channel(error);
            }
            if is_last {
                return End::Escape;
            }
            room.add_permits(length);
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
        end = look => end,
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
fn stdin() -> Input {
    let (sender, reads) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(WAITING));
    let input = Input { reads, room: Arc::clone(&room) };
    let runtime = Handle::current();
    std::thread::spawn(move || {
        let mut buffer = vec![0; READ];
        loop {
            let read = match io::stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => Ok(buffer[..read].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let bytes = read.as_ref().map_or(0, Vec::len);
            let Ok(permit) = runtime.block_on(room.acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX)))
            else {
                return;
            };
            permit.forget();
            if sender.send(read).is_err() || bytes == 0 {
                return;
            }
        }
    });
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input() -> (mpsc::UnboundedSender<io::Result<Vec<u8>>>, Input) {
        let (sender, reads) = mpsc::unbounded_channel();
        (sender, Input { reads, room: Arc::new(Semaphore::new(0)) })
    }

    #[tokio::test(start_paused = true)]
    async fn the_escape_character_ends_a_session_with_a_guest_that_takes_nothing() {
        let (ours, _guest) = tokio::io::duplex(16);
        let (typed, input) = input();
        typed.send(Ok(vec![b'x'; 1000])).unwrap();
        typed.send(Ok(b"more\x1d".to_vec())).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), pass(ours, input, Some(0x1d), None)).await;
        assert!(matches!(ended, Ok(End::Escape)), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_typed_before_the_escape_character_is_sent() {
        let (ours, mut guest) = tokio::io::duplex(16);
        let (typed, input) = input();
        typed.send(Ok(vec![b'x'; 100])).unwrap();
        typed.send(Ok(b"yz\x1dnot".to_vec())).unwrap();
        let read = async {
            let mut all = Vec::new();
            guest.read_to_end(&mut all).await.unwrap();
            all
        };
        let (ended, all) = tokio::join!(pass(ours, input, Some(0x1d), None), read);
        assert!(matches!(ended, End::Escape), "{ended:?}");
        assert_eq!(all, [&[b'x'; 100][..], b"yz"].concat());
    }

    #[tokio::test]
    async fn input_that_cannot_be_read_is_no_end_of_input() {
        let (ours, _guest) = tokio::io::duplex(16);
        let (typed, input) = input();
        typed.send(Err(io::Error::from(io::ErrorKind::IsADirectory))).unwrap();
        let ended = pass(ours, input, None, Some(Duration::ZERO)).await;
        assert!(matches!(ended, End::Unread(_)), "{ended:?}");
    }
}
