//! A VM's serial console or channel through the service, as a stream of bytes.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures_util::{Sink as _, Stream as _};
use hyper::header::{CONNECTION, HeaderName, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::body::empty;
use crate::client::{ANSWER_TIMEOUT, Client, STREAM_TIMEOUT};
use crate::error::ClientError;

/// The largest message of the service, bytes, and of this client.
const MOST_MESSAGE: usize = 256 << 10;

const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const SEC_WEBSOCKET_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");

/// What of a VM is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmDevice {
    /// A serial console, by its alias in the VM's definition; the first one without.
    Console(Option<String>),
    /// A virtio-serial channel, by its name.
    Channel(String),
}

/// An open console or channel: what is written the guest reads, and the other way round. What can be read ends when the guest's
/// side has ended; if that or the service was lost, or nothing was heard from the service for 45 s, it is an error that says so.
///
/// Its shutdown returns when the guest has taken what was written, and the device is closed; what the guest still writes is not
/// read then. Dropping it closes the console or channel.
#[derive(Debug)]
pub struct VmStream {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    /// What came and was not read yet.
    rest: Bytes,
    has_ended: bool,
    /// Whether the service was told that nothing more is sent.
    is_finished: bool,
    /// When the service has been silent for too long.
    silent: Pin<Box<Sleep>>,
}

impl Client {
    /// Opens a device of a VM; `force` takes it from another client of the host's daemon.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// Cancel safe: a device that was opened is closed.
    pub async fn open_device(
        &self,
        host: &str,
        vm: &str,
        device: &VmDevice,
        force: bool,
    ) -> Result<VmStream, ClientError> {
        let mut url = self.at("/api/v1/vms");
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend([host, vm]);
            match device {
                VmDevice::Console(_) => path.push("console"),
                VmDevice::Channel(name) => path.extend(["channels", name]),
            };
        }
        if let VmDevice::Console(Some(alias)) = device {
            url.query_pairs_mut().append_pair("device", alias);
        }
        if force {
            url.query_pairs_mut().append_pair("force", "true");
        }
        let key = generate_key();
        let headers = [
            (CONNECTION, "Upgrade".to_owned()),
            (UPGRADE, "websocket".to_owned()),
            (SEC_WEBSOCKET_VERSION, "13".to_owned()),
            (SEC_WEBSOCKET_KEY, key.clone()),
        ];
        let opened = async {
            let response = self.send(Method::GET, url, empty(), &headers).await?;
            let accepted = response.headers().get("sec-websocket-accept");
            let is_accepted =
                accepted.is_some_and(|sent| sent.as_bytes() == derive_accept_key(key.as_bytes()).as_bytes());
            if response.status() != StatusCode::SWITCHING_PROTOCOLS || !is_accepted {
                return Err(self.no_service("it opens no WebSocket".to_owned()));
            }
            let upgraded = hyper::upgrade::on(response).await;
            let upgraded =
                upgraded.map_err(|error| self.no_service(format!("it opens no WebSocket: {error}")))?;
            let config = WebSocketConfig::default()
                .max_message_size(Some(MOST_MESSAGE))
                .max_frame_size(Some(MOST_MESSAGE));
            let socket =
                WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config)).await;
            let silent = Box::pin(sleep(STREAM_TIMEOUT));
            Ok(VmStream { socket, rest: Bytes::new(), has_ended: false, is_finished: false, silent })
        };
        timeout(ANSWER_TIMEOUT, opened).await.map_err(|_| self.too_slow())?
    }
}

/// The error of a connection that ended without a word.
fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the connection to the service was lost")
}

fn failed(error: Error) -> io::Error {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_) => lost(),
        Error::Io(error) => {
            io::Error::new(error.kind(), format!("the connection to the service was lost: {error}"))
        }
        error => io::Error::other(error),
    }
}

impl VmStream {
    /// The next bytes of the guest; none when its side has ended.
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            if self.has_ended {
                return Poll::Ready(Ok(None));
            }
            let Poll::Ready(message) = Pin::new(&mut self.socket).poll_next(context) else {
                ready!(self.silent.as_mut().poll(context));
                let problem =
                    format!("nothing was heard from the service for {} s", STREAM_TIMEOUT.as_secs());
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, problem)));
            };
            self.silent.as_mut().reset(Instant::now() + STREAM_TIMEOUT);
            match message {
                Some(Ok(Message::Binary(bytes))) if bytes.is_empty() => {}
                Some(Ok(Message::Binary(bytes))) => return Poll::Ready(Ok(Some(bytes))),
                Some(Ok(Message::Close(Some(frame)))) if frame.code == CloseCode::Normal => {
                    self.has_ended = true;
                }
                Some(Ok(Message::Close(Some(frame)))) if !frame.reason.is_empty() => {
                    return Poll::Ready(Err(io::Error::other(frame.reason.to_string())));
                }
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Err(lost())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(failed(error))),
            }
        }
    }
}

impl AsyncRead for VmStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match ready!(self.poll_message(context))? {
                Some(bytes) => self.rest = bytes,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for VmStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            // An empty message would say that nothing more comes.
            return Poll::Ready(Ok(0));
        }
        ready!(Pin::new(&mut self.socket).poll_ready(context)).map_err(failed)?;
        let length = bytes.len().min(MOST_MESSAGE);
        let message = Message::Binary(Bytes::copy_from_slice(&bytes[..length]));
        Pin::new(&mut self.socket).start_send(message).map_err(failed)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context).map_err(failed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_finished && !self.has_ended {
            ready!(Pin::new(&mut self.socket).poll_ready(context)).map_err(failed)?;
            Pin::new(&mut self.socket).start_send(Message::Binary(Bytes::new())).map_err(failed)?;
            self.is_finished = true;
        }
        if !self.has_ended {
            ready!(Pin::new(&mut self.socket).poll_flush(context)).map_err(failed)?;
        }
        while ready!(self.poll_message(context))?.is_some() {}
        Poll::Ready(Ok(()))
    }
}
