//! A VM's serial console or virtio-serial channel, both ways, over a WebSocket: bytes of the guest are binary messages.
//!
//! A client that has no more to send and expects no more sends an empty message, and the channel ends when the guest has taken what
//! was sent. The end says why: the close code is 1000 when the guest's side has ended so or by itself, and another with the reason
//! when it was lost.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use atp_api::serve::Role;
use atp_api::{ErrorKind, OutcomeError};
use atp_transport::{ChannelOptions, DomainChannel, ExecuteOptions};
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocketUpgrade, close_code};
use axum::http::Method;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, interval, timeout};

use crate::auth::{Access, Caller, Token, may_see_host, may_see_vm, permit_other};
use crate::body::{Path, Query};
use crate::hosts::unknown;
use crate::problem::Refusal;
use crate::route::Route;
use crate::state::Service;

/// The largest message of a client, bytes.
const MOST_MESSAGE: usize = 256 << 10;

/// One read of what the guest writes, bytes.
const READ: usize = 16 << 10;

/// How often a client is asked whether it is there. One that takes nothing ends with its connection.
const BEAT: Duration = Duration::from_secs(15);

/// How long nothing may come from either side.
const IDLE: Duration = Duration::from_secs(3600);

/// How long the last message may take, and the client's answer to it.
const LAST: Duration = Duration::from_secs(2);

/// The most bytes of a reason: a close frame has no room for more.
const MOST_REASON: usize = 120;

pub(crate) fn routes() -> Vec<Route> {
    let of_vm = |route: Route| {
        let force = json!({"type": "boolean"});
        let route = route.part("host", "The host's id.").part("vm", "The VM's name.");
        route
            .query("force", "Take it from another client of the host's daemon.", force)
            .answers_with(101, None)
    };
    vec![
        of_vm(Route::new(Method::GET, "/api/v1/vms/{host}/{vm}/console", Access::Change, attach))
            .about(
                "A VM's serial console as a WebSocket: binary messages both ways. An empty one ends it when the guest has taken \
                 what was sent. For operators.",
            )
            .query(
                "device",
                "The console's alias, such as serial1; the first without it.",
                json!({"type": "string"}),
            ),
        of_vm(Route::new(Method::GET, "/api/v1/vms/{host}/{vm}/channels/{name}", Access::Change, channel))
            .about(
                "A VM's virtio-serial channel as a WebSocket: binary messages both ways. An empty one ends it when the guest has \
                 taken what was sent. For operators.",
            )
            .part("name", "The channel's name in the VM's definition."),
    ]
}

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// What of a VM is opened.
enum Device {
    Console(Option<String>),
    Channel(String),
}

async fn attach(
    State(service): State<Service>,
    caller: Caller,
    Path((host, vm)): Path<(String, String)>,
    mut query: Query,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    let device = query.one("device")?;
    open(&service, &caller, (host, vm), Device::Console(device), query, upgrade).await
}

async fn channel(
    State(service): State<Service>,
    caller: Caller,
    Path((host, vm, name)): Path<(String, String, String)>,
    query: Query,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    open(&service, &caller, (host, vm), Device::Channel(name), query, upgrade).await
}

async fn open(
    service: &Service,
    caller: &Caller,
    (host, vm): (String, String),
    device: Device,
    mut query: Query,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    let force = query.parse("force", "true or false", |text| text.parse().ok())?.unwrap_or(false);
    query.end()?;
    let verb = match &device {
        Device::Console(_) => "attach",
        Device::Channel(_) => "channel",
    };
    permit_other(&caller.token, Role::Operator, verb)?;
    if service.stopping().is_cancelled() {
        return Err(Refusal::new(ErrorKind::ServiceStopping, "the service ends"));
    }
    let upgrade = upgrade.map_err(|_| {
        let refusal = Refusal::invalid("this path is a WebSocket (RFC 6455), and the request is none");
        refusal.with_hint(format!("use `atp --server URL {verb}`, or a client of WebSockets"))
    })?;
    let pool = service.manager().pool(&host).map_err(|_| unknown(&host))?;
    let info = pool.info();
    if !may_see_host(&caller.token, &info) {
        return Err(unknown(&host));
    }
    if !may_see_vm(&caller.token, &info, &vm) {
        return Err(Refusal::new(ErrorKind::VmNotFound, format!("host {host}: there is no VM {vm:?}")));
    }
    service.limits().start(&caller.token)?;
    let slot = service.limits().stream(&caller.token)?;
    let name = match &device {
        Device::Console(alias) => alias.clone(),
        Device::Channel(name) => Some(name.clone()),
    };
    let details = json!({"host": host, "vm": vm, "device": name, "force": force});
    service.audit().record(caller, verb, details).await?;
    let channel = open_device(service, &host, &vm, device, force).await.map_err(Refusal::from)?;
    let session = Session { service: service.clone(), token: caller.token.clone(), host, vm, verb };
    let upgrade = upgrade.max_message_size(MOST_MESSAGE).max_frame_size(MOST_MESSAGE);
    // The end of the service waits until the client was told.
    let task = service.tasks().token();
    Ok(upgrade.on_upgrade(async move |socket| {
        let (_slot, _task) = (slot, task);
        let (to_client, from_client) = socket.split();
        let stopping = session.service.stopping().cancelled();
        pass(channel, to_client, from_client, || session.refusal(), stopping).await;
        let Session { host, vm, verb, .. } = session;
        tracing::debug!(host, vm, verb, "ended");
    }))
}

async fn open_device(
    service: &Service,
    host: &str,
    vm: &str,
    device: Device,
    force: bool,
) -> Result<DomainChannel, OutcomeError> {
    let deadline = Instant::now() + service.list_timeout();
    let manager = service.manager();
    let found = manager.execute_on_host_with(host, ExecuteOptions::by(deadline), |connection| {
        let vm = vm.to_owned();
        async move { connection.domain_by_name(&vm).await }
    });
    let domain = found.await.map_err(|error| OutcomeError::from(&error))?;
    let options = ChannelOptions { force, ..ChannelOptions::default() };
    let opened = match device {
        Device::Console(alias) => {
            manager.open_console(host, domain.uuid, alias.as_deref(), &options, deadline).await
        }
        Device::Channel(name) => manager.open_channel(host, domain.uuid, &name, &options, deadline).await,
    };
    opened.map_err(|error| OutcomeError::from(&error))
}

/// Why a session ended.
enum End {
    /// The client has left: there is nobody to be told.
    Client,
    /// The client sends and expects nothing more.
    Finished,
    /// The guest's side has ended.
    Guest,
    /// The guest's side was lost.
    Lost(io::Error),
    /// The service ends.
    Stopping,
    /// Of the client or its token.
    Refused(&'static str),
}

/// Who has which device open.
struct Session {
    service: Service,
    token: Arc<Token>,
    host: String,
    vm: String,
    verb: &'static str,
}

impl Session {
    /// Why it may not go on.
    fn refusal(&self) -> Option<&'static str> {
        if !self.service.tokens().has(&self.token) {
            return Some("the token was removed or changed");
        }
        let Ok(pool) = self.service.manager().pool(&self.host) else { return Some("the host was removed") };
        (!may_see_vm(&self.token, &pool.info(), &self.vm)).then_some("the token may not see the VM any more")
    }
}

/// Passes bytes both ways until either side ends. Nothing waits here but one message of each direction.
/// `refusal` says why they may not go on.
async fn pass<E>(
    channel: impl AsyncRead + AsyncWrite,
    mut to_client: impl Sink<Message> + Unpin,
    mut from_client: impl Stream<Item = Result<Message, E>> + Unpin,
    refusal: impl Fn() -> Option<&'static str>,
    stopping: impl Future<Output = ()>,
) {
    let (mut from_guest, mut to_guest) = tokio::io::split(channel);
    let active = Mutex::new(Instant::now());
    let receive = async {
        let mut buffer = vec![0; READ];
        let mut beat = interval(BEAT);
        loop {
            let message = tokio::select! {
                read = from_guest.read(&mut buffer) => match read {
                    Ok(0) => return End::Guest,
                    Ok(read) => {
                        *active.lock() = Instant::now();
                        Message::Binary(Bytes::copy_from_slice(&buffer[..read]))
                    }
                    Err(error) => return End::Lost(error),
                },
                _ = beat.tick() => {
                    if active.lock().elapsed() > IDLE {
                        return End::Refused("nothing has come from either side for an hour");
                    }
                    if let Some(why) = refusal() {
                        return End::Refused(why);
                    }
                    Message::Ping(Bytes::new())
                }
            };
            if to_client.send(message).await.is_err() {
                return End::Client;
            }
        }
    };
    let send = async {
        while let Some(message) = from_client.next().await {
            let bytes = match message {
                Ok(Message::Binary(bytes)) if bytes.is_empty() => return End::Finished,
                Ok(Message::Binary(bytes)) => bytes,
                Ok(Message::Text(_)) => return End::Refused("messages are binary here"),
                Ok(Message::Ping(_) | Message::Pong(_)) => continue,
                Ok(Message::Close(_)) | Err(_) => return End::Client,
            };
            *active.lock() = Instant::now();
            let sent = async {
                to_guest.write_all(&bytes).await?;
                to_guest.flush().await
            };
            if let Err(error) = sent.await {
                return End::Lost(error);
            }
        }
        End::Client
    };
    let end = {
        let mut receive = pin!(receive);
        tokio::select! {
            end = &mut receive => end,
            end = send => match end {
                // The guest's last bytes, and why its side ended, may still come.
                End::Lost(error) => timeout(DomainChannel::REST, receive).await.unwrap_or(End::Lost(error)),
                end => end,
            },
            () = stopping => End::Stopping,
        }
    };
    let end = match end {
        End::Finished => match timeout(DomainChannel::REST, to_guest.shutdown()).await {
            Ok(Ok(())) => End::Guest,
            Ok(Err(error)) => End::Lost(error),
            Err(_) => End::Lost(io::Error::other("the guest has not taken all that was sent to it")),
        },
        end => end,
    };
    let (code, reason) = match end {
        End::Client => return,
        End::Guest | End::Finished => (close_code::NORMAL, String::new()),
        End::Lost(error) => (close_code::ERROR, error.to_string()),
        End::Stopping => (close_code::AWAY, "the service ends".to_owned()),
        End::Refused(why) => (close_code::POLICY, why.to_owned()),
    };
    let mut reason = reason;
    reason.truncate(reason.floor_char_boundary(MOST_REASON));
    let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    let told = async {
        // A socket that is closed with unread bytes takes back what it has sent.
        if to_client.send(close).await.is_ok() {
            while let Some(Ok(_)) = from_client.next().await {}
        }
    };
    // The client may be gone.
    let _unheard = timeout(LAST, told).await;
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use tokio::time::sleep;
    use tokio_util::sync::PollSender;

    use super::*;

    /// When a session ends in which the client and the guest each send once, and why.
    async fn end_of(client: Duration, guest: Duration) -> (Duration, CloseFrame) {
        let begun = Instant::now();
        let (channel, mut of_guest) = tokio::io::duplex(64);
        let (to_client, mut told) = tokio::sync::mpsc::channel(1024);
        let from_client = stream::once(async move {
            sleep(client).await;
            Ok::<_, Infallible>(Message::Binary("x".into()))
        });
        let from_client = Box::pin(from_client.chain(stream::pending()));
        let guest = async {
            sleep(guest).await;
            of_guest.write_all(b"y").await.unwrap();
            std::future::pending::<()>().await;
        };
        let passed = pass(channel, PollSender::new(to_client), from_client, || None, std::future::pending());
        let close = async {
            loop {
                if let Some(Message::Close(close)) = told.recv().await {
                    return (begun.elapsed(), close.unwrap());
                }
            }
        };
        tokio::select! {
            (_, close) = async { tokio::join!(passed, close) } => close,
            () = guest => unreachable!(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_in_which_nothing_comes_ends_after_an_hour() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        for (client, guest) in [(minutes(5), minutes(50)), (minutes(50), minutes(5))] {
            let (after, close) = end_of(client, guest).await;
            assert!((minutes(50) + IDLE..=minutes(50) + IDLE + 2 * BEAT).contains(&after), "{after:?}");
            assert_eq!(close.code, close_code::POLICY);
            assert!(close.reason.contains("an hour"), "{}", close.reason);
        }
    }
}
