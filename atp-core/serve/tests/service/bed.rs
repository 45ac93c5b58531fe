//! A service on a simulated fleet, and a client of it.

use std::net::SocketAddr;
use std::path::PathBuf;

use atp_api::serve::Role;
use atp_fleet::{Fleet, FleetOptions};
use atp_serve::{Clock, Listener, NewToken, ServeConfig, Service, Tls, TokenFile};
use atp_transport::{TransportConfig, TransportManager};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A service that listens, and its fleet.
pub(crate) struct Bed {
    pub(crate) fleet: Fleet,
    pub(crate) service: Service,
    pub(crate) address: SocketAddr,
    pub(crate) folder: TempDir,
    pub(crate) serving: JoinHandle<bool>,
    pub(crate) tls: Option<Tls>,
}

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The kind of the problem that it must be.
    pub(crate) fn kind(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        problem["kind"].as_str().unwrap().to_owned()
    }
}

impl Bed {
    pub(crate) async fn start(hosts: u32, vms: u32) -> Self {
        Bed::with(hosts, vms, |_| {}).await
    }

    /// A service whose settings were changed.
    pub(crate) async fn with(hosts: u32, vms: u32, change: impl FnOnce(&mut ServeConfig)) -> Self {
        Bed::at(Clock::system(), hosts, vms, change).await
    }

    /// A service with another clock.
    pub(crate) async fn at(
        clock: Clock,
        hosts: u32,
        vms: u32,
        change: impl FnOnce(&mut ServeConfig),
    ) -> Self {
        Bed::of(FleetOptions { hosts, vms, ..FleetOptions::default() }, clock, change).await
    }

    /// A service on such a fleet.
    pub(crate) async fn of(
        options: FleetOptions,
        clock: Clock,
        change: impl FnOnce(&mut ServeConfig),
    ) -> Self {
        let fleet = Fleet::start(options).await.unwrap();
        let manager = TransportManager::new(TransportConfig::default());
        manager.apply(atp_transport::Fleet::from_toml("fleet.toml", &fleet.settings()).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut config = ServeConfig {
            listen: "127.0.0.1:0".to_owned(),
            folder: folder.path().to_str().unwrap().to_owned(),
            requests_per_second: 10_000,
            starts_per_second: 10_000,
            ..ServeConfig::default()
        };
        change(&mut config);
        let listener = Listener::bind(&config).await.unwrap();
        let address = listener.address();
        let service = Service::open_at(config, manager, clock).await.unwrap();
        let tls = listener.tls().cloned();
        let serving = tokio::spawn(listener.serve(service.clone()));
        Bed { fleet, service, address, folder, serving, tls }
    }

    pub(crate) fn tokens(&self) -> PathBuf {
        self.folder.path().join("tokens.toml")
    }

    /// A new token.
    pub(crate) fn token(&self, role: Role, selectors: &[&str], verbs: &[&str]) -> String {
        let count = TokenFile::read(&self.tokens()).unwrap().iter().count();
        let new = NewToken {
            name: format!("t{count}"),
            role,
            selectors: selectors.iter().map(|text| text.parse().unwrap()).collect(),
            verbs: verbs.iter().map(|&verb| verb.to_owned()).collect(),
        };
        let secret = TokenFile::create(&self.tokens(), new).unwrap();
        self.service.reload_tokens(&self.tokens()).unwrap();
        secret.reveal().to_owned()
    }

    pub(crate) fn admin(&self) -> String {
        self.token(Role::Admin, &[], &[])
    }

    /// A request whose head and body were made by the caller. `host` is set unless it is there.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        let (parts, body) = self.open(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    /// As [`send`](Self::send), with the body still to be read.
    pub(crate) async fn open(&self, mut request: Request<Full<Bytes>>) -> hyper::Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut client, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        if !request.headers().contains_key("host") {
            request.headers_mut().insert("host", self.address.to_string().parse().unwrap());
        }
        client.send_request(request).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Reply {
        self.send(get(path, token)).await
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: &Value) -> Reply {
        self.send(post(path, token, body)).await
    }
}

pub(crate) fn get(path: &str, token: &str) -> Request<Full<Bytes>> {
    let request = Request::get(path).header("authorization", format!("Bearer {token}"));
    request.body(Full::default()).unwrap()
}

pub(crate) fn post(path: &str, token: &str, body: &Value) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()))
        .unwrap()
}
