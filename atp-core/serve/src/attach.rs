//! A VM's serial console or virtio-serial channel, both ways, over a WebSocket: bytes of the guest are binary messages.
//!
//! The end says why: the close code is 1000 when the guest's side has ended, and another with the reason when it was lost.

use std::io;
use std::time::Duration;

use atp_api::serve::Role;
use atp_api::{ErrorKind, OutcomeError};
use atp_transport::{ChannelOptions, DomainChannel, ExecuteOptions};
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::Method;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
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

/// How long the last message may take.
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
            .about("A VM's serial console as a WebSocket: binary messages both ways. For operators.")
            .query(
                "device",
                "The console's alias, such as serial1; the first without it.",
                json!({"type": "string"}),
            ),
        of_vm(Route::new(Method::GET, "/api/v1/vms/{host}/{vm}/channels/{name}", Access::Change, channel))
            .about("A VM's virtio-serial channel as a WebSocket: binary messages both ways. For operators.")
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
    let (service, token) = (service.clone(), caller.token.clone());
    let upgrade = upgrade.max_message_size(MOST_MESSAGE).max_frame_size(MOST_MESSAGE);
    // The end of the service waits until the client was told.
    let task = service.tasks().token();
    Ok(upgrade.on_upgrade(async move |socket| {
        let (_slot, _task) = (slot, task);
        pass(channel, socket, &service, &token).await;
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
    /// The guest's side has ended.
    Guest,
    /// The guest's side was lost.
    Lost(io::Error),
    /// The service ends.
    Stopping,
    /// Of the client or its token.
    Refused(&'static str),
}

/// Passes bytes both ways until either side ends. Nothing waits here but one message of each direction.
async fn pass(channel: DomainChannel, socket: WebSocket, service: &Service, token: &Token) {
    let (mut to_client, mut from_client) = socket.split();
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
                    if !service.tokens().has(token) {
                        return End::Refused("the token was removed or changed");
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
    let end = tokio::select! {
        end = receive => end,
        end = send => end,
        () = service.stopping().cancelled() => End::Stopping,
    };
    let (code, reason) = match end {
        End::Client => return,
        End::Guest => (close_code::NORMAL, String::new()),
        End::Lost(error) => (close_code::ERROR, error.to_string()),
        End::Stopping => (close_code::AWAY, "the service ends".to_owned()),
        End::Refused(why) => (close_code::POLICY, why.to_owned()),
    };
    let mut reason = reason;
    reason.truncate(reason.floor_char_boundary(MOST_REASON));
    let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    // The client may be gone.
    let _unheard = timeout(LAST, to_client.send(close)).await;
}
