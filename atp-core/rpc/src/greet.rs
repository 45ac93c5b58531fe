//! The first question to a daemon: how it wants clients to authenticate. Its answer shows that the way leads to libvirt.
//!
//! The question is asked on the bare way, before a task owns it, so that a way can also be looked at, or handed on.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::codec::{Decoder, Encoder};

use crate::connect_error::{ConnectFailure, Progress};
use crate::dial::Dialled;
use crate::error::{CallError, EndReason, LinkEnd, RemoteError};
use crate::frame::{FrameCodec, FrameError, HEADER, Header};
use crate::numbers::{Status, procedure};
use crate::uri::Transport;
use crate::xdr::{self, FromXdr, Reader};

/// The most ways to authenticate that a daemon may offer.
const MOST: usize = 20;

/// The longest answer, bytes: an error with its words.
const LONGEST: usize = 64 * 1024;

/// How much is read of an answer that is no message, bytes, and how long the rest of it is waited for.
const SHOWN: usize = 64;
const REST: Duration = Duration::from_millis(200);

/// The methods that a daemon offers (`remote_auth_type`).
pub(crate) struct Offered(pub(crate) Vec<i32>);

impl FromXdr for Offered {
    const MIN_SIZE: usize = 4;

    fn read(from: &mut Reader<'_>) -> xdr::Result<Self> {
        Ok(Offered(from.list("a list of authentication methods", MOST)?))
    }
}

/// Asks the daemon at the end of a way how it wants clients to authenticate.
pub(crate) async fn greet(
    dialled: &mut Dialled,
    transport: Transport,
    progress: &Progress<'_>,
) -> Result<Offered, ConnectFailure> {
    // Of a command it shows only by the daemon's first answer that it has connected.
    if !matches!(transport, Transport::Ssh | Transport::Ext) {
        progress.set(crate::connect_error::Stage::Greet);
    }
    match ask(dialled).await {
        Ok(offered) => Ok(offered),
        Err(Unanswered::Call(error)) => Err(ConnectFailure::Call(error)),
        Err(Unanswered::End(reason)) => {
            let said = match dialled.stderr.take() {
                // What is no message needs no further words, and its sender may stay.
                Some(stderr) if !matches!(reason, EndReason::Frame(FrameError::Length { .. })) => {
                    stderr.complete().await
                }
                _ => String::new(),
            };
            let call = procedure::AUTH_LIST;
            let source = Arc::new(LinkEnd { reason, said });
            Err(CallError::Lost { procedure: call, sent: true, source }.into())
        }
    }
}

/// Why there is no list.
enum Unanswered {
    Call(CallError),
    End(EndReason),
}

impl<E: Into<FrameError>> From<E> for Unanswered {
    fn from(error: E) -> Self {
        Unanswered::End(EndReason::Frame(error.into()))
    }
}

async fn ask(dialled: &mut Dialled) -> Result<Offered, Unanswered> {
    let call = procedure::AUTH_LIST;
    let mut bytes = BytesMut::new();
    FrameCodec::default().encode((Header::call(call, 1), &[][..]), &mut bytes)?;
    // A peer that has closed its reading half may still have said why.
    let sent = async {
        dialled.io.write_all(&bytes).await?;
        dialled.io.flush().await
    };
    let sent = sent.await;
    bytes.clear();
    while bytes.len() < 4 {
        let wanted = 4 - bytes.len();
        if (&mut dialled.io).take(wanted as u64).read_buf(&mut bytes).await? == 0 {
            return Err(match (bytes.is_empty(), sent) {
                (true, Err(error)) => error.into(),
                (true, Ok(())) => Unanswered::End(EndReason::Eof),
                (false, _) => foreign(&bytes),
            });
        }
    }
    let length = bytes.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize);
    if !(HEADER..=LONGEST).contains(&length) {
        let more = async {
            while bytes.len() < SHOWN {
                let wanted = SHOWN - bytes.len();
                match (&mut dialled.io).take(wanted as u64).read_buf(&mut bytes).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => break,
                }
            }
        };
        let _shorter = timeout(REST, more).await;
        return Err(foreign(&bytes));
    }
    while bytes.len() < length {
        let wanted = length - bytes.len();
        if (&mut dialled.io).take(wanted as u64).read_buf(&mut bytes).await? == 0 {
            return Err(FrameError::Cut(bytes.len()).into());
        }
    }
    let frame = FrameCodec::default().decode(&mut bytes)?.ok_or(FrameError::Cut(length))?;
    let unreadable = |source| Unanswered::Call(CallError::Reply { procedure: call, source });
    match frame.header.status {
        Status::Ok => xdr::decode(&frame.payload).map_err(unreadable),
        _ => {
            let source = Box::new(xdr::decode::<RemoteError>(&frame.payload).map_err(unreadable)?);
            Err(Unanswered::Call(CallError::Remote { procedure: call, source }))
        }
    }
}

/// What is no message.
fn foreign(bytes: &BytesMut) -> Unanswered {
    let length = bytes.first_chunk().map_or(0, |length| u32::from_be_bytes(*length));
    FrameError::Length { length, begins: bytes.clone().freeze() }.into()
}
