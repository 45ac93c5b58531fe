//! The stream of an open channel or console: a task passes on what comes in, at once, to an [`Inbox`], which has a bound.

use std::sync::Arc;

use atp_rpc::screen::{channel, console};
use atp_rpc::{CallError, Connection, RemoteDomain, Stream, StreamError, StreamSender};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::failure::stream_error;
use crate::engine::{ByteDevice, Inbox};

/// What may come in before the task looks, bytes. The bound of a channel is its inbox's.
const READ_AHEAD: usize = 4 << 20;

type Finished = oneshot::Sender<Result<(), StreamError>>;

/// The stream of one channel. Dropping it aborts the stream.
pub(super) struct Channel {
    sender: StreamSender,
    finish: Mutex<Option<oneshot::Sender<Finished>>>,
    reader: JoinHandle<()>,
}

impl Channel {
    pub(super) async fn open(
        on: &Connection,
        uuid: Uuid,
        device: &ByteDevice,
        force: bool,
        inbox: Arc<dyn Inbox>,
    ) -> Result<Self, CallError> {
        let (domain, name) = (RemoteDomain::of(uuid), device.name());
        let stream = match device {
            ByteDevice::Channel(_) => {
                let flags = if force { channel::FORCE } else { 0 };
                on.open_channel(&domain, name, flags, READ_AHEAD).await?
            }
            ByteDevice::Console(_) => {
                let flags = if force { console::FORCE } else { 0 };
                on.open_console(&domain, name, flags, READ_AHEAD).await?
            }
        };
        let (finish, asked) = oneshot::channel();
        let sender = stream.sender();
        let reader = tokio::spawn(read(stream, inbox, asked));
        Ok(Channel { sender, finish: Mutex::new(Some(finish)), reader })
    }

    /// Sends all of it. Waits for as long as the daemon takes nothing.
    pub(super) async fn send(&self, bytes: Vec<u8>) -> Result<(), StreamError> {
        self.sender.send(bytes.into()).await
    }

    /// Ends the stream when all that was sent has arrived at the daemon; nothing is read any more. None if it is over
    /// already.
    pub(super) async fn finish(&self) -> Option<Result<(), StreamError>> {
        let finish = self.finish.lock().take()?;
        let (done, finished) = oneshot::channel();
        finish.send(done).ok()?;
        finished.await.ok()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Passes on what comes, until nothing more does, the inbox has no room, or the channel is to be finished.
async fn read(mut stream: Stream, inbox: Arc<dyn Inbox>, mut finish: oneshot::Receiver<Finished>) {
    loop {
        tokio::select! {
            chunk = stream.recv() => match chunk {
                Ok(Some(bytes)) if inbox.take(&bytes) => {}
                Ok(Some(_)) => return,
                Ok(None) => return inbox.ended(None),
                Err(error) => return inbox.ended(Some(stream_error(error))),
            },
            asked = &mut finish => {
                if let Ok(done) = asked {
                    // Fails if the caller has left.
                    let _unheard = done.send(stream.finish().await);
                }
                return;
            }
        }
    }
}
