//! This process's stdin and stdout, connected to a byte stream of a VM.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use atp_transport::DomainChannel;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::exit::Signal;

/// One read, bytes.
const READ: usize = 16 << 10;
/// The most bytes of stdin that wait for the guest.
const WAITING: usize = 1 << 20;
/// How long what was typed before the escape character may take: a guest that hangs takes nothing. And how long nothing has
/// come from a stream that takes no more, until it is over.
const LAST: Duration = Duration::from_secs(1);

/// How a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The escape character was typed.
    Escape,
    /// stdin has ended and the guest has taken it, and nothing came for the given time.
    Input,
    /// Nobody reads stdout any more.
    Unheard,
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
    // Why nothing more is sent: stdin has ended, or the stream takes nothing more.
    let (ended, mut has_ended) = oneshot::channel::<io::Result<()>>();
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
    let to_guest_now = &mut to_guest;
    let send = async move {
        let sent = async {
            while let Some((bytes, length, is_last)) = queued.recv().await {
                to_guest_now.write_all(&bytes).await?;
                to_guest_now.flush().await?;
                if is_last {
                    return Ok(true);
                }
                room.add_permits(length);
            }
            Ok(false)
        };
        match sent.await {
            Ok(true) => return End::Escape,
            sent => drop(ended.send(sent.map(drop))),
        }
        std::future::pending().await
    };
    let receive = async move {
        let mut buffer = vec![0; READ];
        let mut quiet_since = None;
        let (mut quiet, mut failed) = (idle, None);
        loop {
            let until = quiet_since.zip(quiet).map(|(since, quiet): (Instant, Duration)| since + quiet);
            let read = tokio::select! {
                read = from_guest.read(&mut buffer) => read,
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    return failed.map_or(End::Input, End::Channel);
                }
                sent = &mut has_ended, if quiet_since.is_none() => {
                    quiet_since = Some(Instant::now());
                    // The last bytes of the guest, and why the stream ended, may still come.
                    if let Ok(Err(error)) = sent {
                        (quiet, failed) = (Some(LAST), Some(error));
                    }
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
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return End::Unheard,
                Err(error) => return End::Output(error),
            }
            quiet_since = quiet_since.map(|_| Instant::now());
        }
    };
    let end = tokio::select! {
        end = look => end,
        end = send => end,
        end = receive => end,
    };
    if !matches!(end, End::Input) {
        return end;
    }
    match timeout(DomainChannel::REST, to_guest.shutdown()).await {
        Ok(Ok(())) => End::Input,
        Ok(Err(error)) => End::Channel(error),
        Err(_) => End::Channel(io::Error::new(
            io::ErrorKind::TimedOut,
            "the guest has not taken all that was sent to it",
        )),
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
    use std::pin::Pin;
    use std::task::{Context, Poll};

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
        let ended = timeout(Duration::from_secs(60), pass(ours, input, Some(0x1d), None)).await;
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
    #[tokio::test(start_paused = true)]
    async fn a_stream_that_takes_nothing_more_is_read_to_its_end() {
        let (ours, guest) = tokio::io::duplex(64);
        let (from_guest, mut to_us) = tokio::io::split(ours);
        // Writes fail at once, and the guest's last bytes come later.
        let channel = tokio::io::join(from_guest, Closed);
        let (typed, input) = input();
        typed.send(Ok(b"x".to_vec())).unwrap();
        let late = async {
            sleep(LAST / 2).await;
            drop(guest);
            let _gone = to_us.shutdown().await;
        };
        let (ended, ()) = tokio::join!(pass(channel, input, None, Some(Duration::from_secs(60))), late);
        assert!(matches!(ended, End::Guest), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_takes_nothing_more_and_does_not_end_is_lost() {
        let (ours, _guest) = tokio::io::duplex(64);
        let (typed, input) = input();
        typed.send(Ok(b"x".to_vec())).unwrap();
        let ended = pass(tokio::io::join(ours, Closed), input, None, None).await;
        assert!(
            matches!(&ended, End::Channel(error) if error.kind() == io::ErrorKind::BrokenPipe),
            "{ended:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_does_not_take_the_rest_of_the_input_is_an_error() {
        let (ours, _guest) = tokio::io::duplex(64);
        let (typed, input) = input();
        drop(typed);
        let ended = pass(tokio::io::join(ours, Stuck), input, None, Some(Duration::ZERO)).await;
        assert!(
            matches!(&ended, End::Channel(error) if error.kind() == io::ErrorKind::TimedOut),
            "{ended:?}"
        );
    }

    /// Takes nothing.
    struct Closed;

    impl AsyncWrite for Closed {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Takes everything, and does not say that the guest has it.
    struct Stuck;

    impl AsyncWrite for Stuck {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }
}
