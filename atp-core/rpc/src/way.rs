//! The way to a daemon: dialled, and answered at its end.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep, timeout};

use crate::connect_error::{ConnectError, ConnectFailure, Progress, Stage};
use crate::dial::{self, Dialled, dial};
use crate::error::{CallError, EndReason};
use crate::frame::FrameError;
use crate::greet::{Offered, greet};
use crate::options::ConnectOptions;
use crate::settings;
use crate::uri::{Transport, Uri};

/// The pause before the second attempt of an ssh that the other side did not admit; later pauses are longer.
const PAUSE: Duration = Duration::from_millis(150);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often it is tried again at most: an sshd may also never admit this machine.
const AGAIN: u32 = 6;

/// How long a peer is looked at once more at most, to say what it is.
const LOOK: Duration = Duration::from_secs(2);

/// A way that is open and leads to a libvirt daemon, which has answered one question on it. The client has not authenticated.
///
/// It is for clients of another make, which speak the protocol over it from its beginning; and to find out why such a
/// client fails. Dropping it ends it, and the command that carries it.
pub struct Way {
    dialled: Dialled,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").finish_non_exhaustive()
    }
}

impl Way {
    /// Opens the way that a URI names, and calls `on_stage` at each stage that it comes to. No credentials are used.
    ///
    /// Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// Says at which stage it failed, and what stood in the way.
    pub async fn open(
        uri: &str,
        options: &ConnectOptions,
        on_stage: impl Fn(Stage) + Sync,
    ) -> Result<Way, ConnectError> {
        let progress = Progress::new(&on_stage);
        let mut target = "the URI".to_owned();
        let work = async {
            let uri = settings::resolve(uri).await?;
            target = uri.to_string();
            reach(&uri, options, &progress).await
        };
        let result = timeout(options.timeout, work).await;
        let result = result.unwrap_or(Err(ConnectFailure::Timeout(options.timeout)));
        match result {
            Ok((dialled, _)) => Ok(Way { dialled }),
            Err(failure) => Err(ConnectError { target, stage: progress.get(), failure }),
        }
    }
}

/// Dials, and has the daemon answer its first question.
pub(crate) async fn reach(
    uri: &Uri,
    options: &ConnectOptions,
    progress: &Progress<'_>,
) -> Result<(Dialled, Offered), ConnectFailure> {
    let mut pause = PAUSE;
    let (deadline, mut left) = (Instant::now() + options.timeout, AGAIN);
    let unseen = Progress::new(&|_| {});
    let mut seen = progress;
    loop {
        let failure = match reach_once(uri, options, deadline, seen).await {
            Err(failure @ ConnectFailure::CommandEnded(_)) if failure.was_not_admitted() => failure,
            result => return result,
        };
        // An sshd admits so many at a time that have not logged in (`MaxStartups`), and drops others without a word: they
        // come later, and not all at once.
        let delay = pause.mul_f64(0.5 + f64::from(random()) / 255.0);
        if left == 0 || Instant::now() + delay >= deadline {
            return Err(failure);
        }
        tracing::debug!(%uri, %failure, "ssh was not admitted, it is tried again");
        // Should the time run out, this is the reason.
        progress.set(Stage::Admission);
        seen = &unseen;
        sleep(delay).await;
        left -= 1;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Any number; 0 where the system has no random numbers.
fn random() -> u8 {
    let mut byte = [0];
    // Zero serves too.
    let _zero = getrandom::fill(&mut byte);
    byte[0]
}

async fn reach_once(
    uri: &Uri,
    options: &ConnectOptions,
    deadline: Instant,
    progress: &Progress<'_>,
) -> Result<(Dialled, Offered), ConnectFailure> {
    // What failed is known: a peer that hangs when it is looked at must not make a missed deadline of it.
    let look = || LOOK.min(deadline.saturating_duration_since(Instant::now()) / 2);
    let mut dialled = match dial(uri, options, progress).await {
        Err(ConnectFailure::Tls { source }) if dial::may_be_no_tls(&source) => {
            // A peer that does not speak TLS mostly hangs up on its first message. What it is shows in the clear.
            let found = timeout(look(), in_the_clear(uri)).await.ok().flatten();
            return Err(found.unwrap_or(ConnectFailure::Tls { source }));
        }
        dialled => dialled?,
    };
    match greet(&mut dialled, uri.transport, progress).await {
        Ok(offered) => Ok((dialled, offered)),
        Err(failure) => {
            // A TLS port mostly hangs up on what is no TLS, without a word.
            let cut = matches!(
                &failure,
                ConnectFailure::Call(CallError::Lost { source, .. })
                    if matches!(source.reason, EndReason::Eof | EndReason::Frame(FrameError::Io(_)))
            );
            if cut
                && uri.transport == Transport::Tcp
                && timeout(look(), dial::speaks_tls(uri, options)).await.unwrap_or(false)
            {
                return Err(ConnectFailure::SpeaksTls);
            }
            Err(failure)
        }
    }
}

/// What a port is that does not speak TLS, if it says so in the clear.
async fn in_the_clear(uri: &Uri) -> Option<ConnectFailure> {
    let silent = Progress::new(&|_| {});
    let mut dialled = dial::clear(uri).await?;
    match greet(&mut dialled, Transport::Tcp, &silent).await {
        Ok(_) => Some(ConnectFailure::NoTls),
        Err(failure @ ConnectFailure::NotLibvirt { .. }) => Some(failure),
        Err(_) => None,
    }
}

impl AsyncRead for Way {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.dialled.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Way {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.dialled.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.dialled.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.dialled.io).poll_shutdown(cx)
    }
}
