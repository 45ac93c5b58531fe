//! An open libvirt connection, and the way calls are made on it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, mpsc};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;

use super::close_notice::CloseNotice;
use super::closer::Unused;
use super::domain_events::Registration;
use super::stream::ChannelStream;
use super::threads::{CallThreads, ThreadsExhausted};
use crate::connection::connector::CallFailure;
use crate::engine::Answer;
use crate::engine::error::call_failure;
use crate::error::LibvirtError;
use crate::sync::panics::panic_message;

/// An open connection of the C library, and the threads that calls on it are made on.
pub struct LibraryLink {
    connection: Arc<Connection>,
    threads: CallThreads,
}

/// An open connection. Dropping it hands the closing, which can block, to another thread.
struct Connection {
    /// None only while dropping.
    handles: Option<Handles>,
    uri: Arc<str>,
    closer: mpsc::Sender<Unused<Handles>>,
}

/// What belongs to a connection in the C library. Dropping it closes the connection, and can block.
pub(crate) struct Handles {
    notice: CloseNotice,
    /// On a connection of its own for a channel: the stream.
    pub(super) channel: OnceLock<ChannelStream>,
    /// On a connection of its own for domain events: what was asked for.
    pub(super) events: OnceLock<Registration>,
    /// Domains by UUID, so that a call on a known one takes one round trip and not two. They come before
    /// the connection, which must be the last to go.
    domains: Mutex<HashMap<Uuid, Arc<Domain>>>,
    pub(crate) connect: Connect,
}

/// Why a call made on a thread failed.
pub(crate) enum CallError {
    Libvirt(virt::error::Error),
    /// Nothing was sent: what the call works on is gone.
    Gone,
}

impl From<virt::error::Error> for CallError {
    fn from(error: virt::error::Error) -> Self {
        CallError::Libvirt(error)
    }
}

impl LibraryLink {
    /// Blocks, as opening did. The URI is without a password.
    pub(super) fn new(
        connect: Connect,
        uri: &str,
        threads: CallThreads,
        closer: mpsc::Sender<Unused<Handles>>,
    ) -> Self {
        let handles = Handles {
            notice: CloseNotice::ask(&connect),
            channel: OnceLock::new(),
            events: OnceLock::new(),
            domains: Mutex::default(),
            connect,
        };
        let connection = Arc::new(Connection { handles: Some(handles), uri: uri.into(), closer });
        LibraryLink { connection, threads }
    }

    /// Makes a blocking call on a thread. The call, and `token` with it, lives on until it returns, whether the future
    /// is awaited or not.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        token: impl Send + 'static,
        call: impl FnOnce(&Handles) -> Result<T, CallError> + Send + 'static,
    ) -> Answer<T> {
        let (answer, answered) = oneshot::channel();
        let connection = self.connection.clone();
        let started = self.threads.run(
            move || (connection.make(call), connection, token),
            move |(result, connection, token)| {
                // Nothing of the call may be left when its answer is seen: the next may need its place.
                drop(token);
                drop(connection);
                // Fails if the caller has left.
                let _unwanted = answer.send(result);
            },
        );
        started.map_err(|ThreadsExhausted { threads }| CallFailure::NoThread { threads })?;
        match answered.await {
            Ok(result) => result,
            Err(_) => Err(CallFailure::Panicked { message: "the call gave no answer".to_owned() }),
        }
    }

    /// Is cancelled when libvirt has given notice that the connection was closed from outside.
    pub(crate) fn closed(&self) -> CancellationToken {
        let handles = self.connection.handles.as_ref();
        handles.map(|handles| handles.notice.closed().clone()).unwrap_or_default()
    }

    /// Whether the socket is open, as far as the C library knows.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.handles.as_ref().is_some_and(Handles::is_open)
    }
}

impl Connection {
    fn make<T>(&self, call: impl FnOnce(&Handles) -> Result<T, CallError>) -> Result<T, CallFailure> {
        let Some(handles) = &self.handles else {
            return Err(CallFailure::Lost { sent: false, source: None });
        };
        match catch_unwind(AssertUnwindSafe(|| call(handles))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(CallError::Gone)) => Err(CallFailure::Lost { sent: false, source: None }),
            Ok(Err(CallError::Libvirt(error))) => match call_failure(LibvirtError::from(&error)) {
                CallFailure::Refused { .. } if !handles.is_open() => {
                    Err(CallFailure::Lost { sent: true, source: Some(LibvirtError::from(&error)) })
                }
                failure => Err(failure),
            },
            Err(panic) => Err(CallFailure::Panicked { message: panic_message(panic.as_ref()) }),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(handles) = self.handles.take()
            && let Err(mpsc::SendError(unused)) =
                self.closer.send(Unused { uri: self.uri.clone(), link: handles })
        {
            // The closer never ends before the last link; should it have died, a leak is better than a block.
            std::mem::forget(unused);
        }
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        if let Some(events) = self.events.take() {
            events.withdraw(&self.connect);
        }
        // Ends the stream, which holds a reference to the connection.
        drop(self.channel.take());
        self.notice.withdraw(&self.connect);
    }
}

impl Handles {
    fn is_open(&self) -> bool {
        self.connect.is_alive().unwrap_or(false)
    }

    /// The domain of that UUID, looked up the first time.
    pub(crate) fn domain(&self, uuid: Uuid) -> Result<Arc<Domain>, virt::error::Error> {
        let known = self.domains.lock().get(&uuid).cloned();
        match known {
            Some(domain) => Ok(domain),
            None => self.fresh_domain(uuid),
        }
    }

    /// The domain of that UUID, looked up now: its id is the present one.
    pub(crate) fn fresh_domain(&self, uuid: Uuid) -> Result<Arc<Domain>, virt::error::Error> {
        let found = self.connect.lookup_domain_by_uuid(uuid).map(Arc::new);
        let mut domains = self.domains.lock();
        match &found {
            Ok(domain) => domains.insert(uuid, domain.clone()),
            Err(_) => domains.remove(&uuid),
        };
        found
    }

    /// Replaces all known domains by those of a listing.
    pub(crate) fn set_domains(&self, domains: HashMap<Uuid, Arc<Domain>>) {
        *self.domains.lock() = domains;
    }
}

impl From<&virt::error::Error> for LibvirtError {
    fn from(error: &virt::error::Error) -> Self {
        LibvirtError {
            code: error.code().to_raw(),
            domain: error.domain().to_raw(),
            level: error.level() as u32,
            message: error.message().to_owned(),
        }
    }
}
