//! An open connection, and how calls are made on it.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::error::{CallError, LinkEnd};
use crate::event::EventId;
use crate::link::{Events, Link, Stream, Token};
use crate::message::RemoteDomain;
use crate::numbers::{Procedure, procedure};
use crate::room::Room;
use crate::xdr::{self, FromXdr, ToXdr};

/// How many calls are sent before the first of them is answered, where many are made at once.
const AHEAD: usize = 32;

/// An open connection to a daemon. Clones are handles to the same one; it is closed when the last is dropped, and
/// with it the last of its [`Events`] and [`Stream`]s.
///
/// Its calls run beside each other, up to [`max_in_flight`](Connection::max_in_flight); more wait for their turn. None has a time limit of its own: wrap them in `tokio::time::timeout`. Of a future that is dropped
/// while it waits for its turn nothing is sent; dropped later, the call goes on at the daemon and keeps its place
/// until the reply comes.
#[derive(Clone)]
pub struct Connection {
    link: Link,
    has_events: bool,
    room: Arc<Room>,
    token: Option<Token>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("open", &self.is_open()).finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn new(link: Link, has_events: bool, room: Room) -> Self {
        Connection { link, has_events, room: Arc::new(room), token: None }
    }

    /// A handle whose calls hold on to a value for as long as the daemon works on them, also when the futures of the
    /// calls are dropped. What counts calls in flight goes here.
    pub fn holding(&self, token: impl Any + Send) -> Connection {
        // The mutex makes any value shareable. It is only ever dropped.
        Connection { token: Some(Arc::new(Mutex::new(token))), ..self.clone() }
    }

    /// Makes a call: what every method here does, and the way to procedures that have none.
    ///
    /// # Errors
    /// The daemon's error, the end of the connection, or values that do not fit the procedure.
    pub async fn call<T: FromXdr>(
        &self,
        procedure: Procedure,
        arguments: &impl ToXdr,
    ) -> Result<T, CallError> {
        let reply = self.link.call(procedure, arguments, self.token.clone()).await?;
        xdr::decode(&reply).map_err(|source| CallError::Reply { procedure, source })
    }

    /// Makes calls of one kind in the place of one, many of them before the first is answered, so that they take few round trips.
    /// Only for what the daemon answers from its memory: a ping waits behind them. Where one call at a time is allowed, they are
    /// made one after another.
    ///
    /// # Errors
    /// The connection has ended. The results of the calls, in order, are as of [`call`](Self::call).
    pub(crate) async fn call_each<T: FromXdr, A: ToXdr>(
        &self,
        procedure: Procedure,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Vec<Result<T, CallError>>, CallError> {
        let ahead = if self.room.most() == 1 { 1 } else { AHEAD };
        let replies = self.link.call_each(procedure, arguments, ahead, self.token.clone()).await?;
        let decode =
            |reply: Bytes| xdr::decode(&reply).map_err(|source| CallError::Reply { procedure, source });
        Ok(replies.into_iter().map(|reply| reply.and_then(decode)).collect())
    }

    /// Makes a call that opens a stream. The stream is aborted when more than `buffer` received bytes wait to
    /// be taken.
    ///
    /// # Errors
    /// As of [`call`](Self::call).
    pub async fn call_stream<T: FromXdr>(
        &self,
        procedure: Procedure,
        arguments: &impl ToXdr,
        buffer: usize,
    ) -> Result<(T, Stream), CallError> {
        let token = self.token.clone();
        let (reply, stream) = self.link.open_stream(procedure, arguments, token, buffer).await?;
        let reply = xdr::decode(&reply).map_err(|source| CallError::Reply { procedure, source })?;
        Ok((reply, stream))
    }

    /// A queue for events that holds up to `capacity` of them. It stays empty until [`watch`](Self::watch) is called.
    pub fn events(&self, capacity: usize) -> Events {
        Events::new(self.link.clone(), capacity)
    }

    /// Whether the daemon supports event callbacks.
    pub fn has_events(&self) -> bool {
        self.has_events
    }

    /// Registers for events of a kind, of one domain or of all
    /// (`virConnectDomainEventRegisterAny`). The daemon takes each kind once a connection for each domain, and once
    /// for all of them.
    ///
    /// When the future is dropped, the registration may have been made.
    ///
    /// # Errors
    /// The daemon does not know this kind, or as of [`call`](Self::call).
    pub async fn watch(
        &self,
        events: &Events,
        id: EventId,
        domain: Option<&RemoteDomain>,
    ) -> Result<(), CallError> {
        let arguments = (id.to_wire(), domain);
        let (register, deregister) = (procedure::EVENT_REGISTER, procedure::EVENT_DEREGISTER);
        events.register(register, deregister, &arguments, self.token.clone()).await
    }

    /// Registers for events of QEMU's monitors, of one domain or of all, of one name or of all
    /// (`virConnectDomainQemuMonitorEventRegister`).
    ///
    /// When the future is dropped, the registration may have been made.
    ///
    /// # Errors
    /// As of [`watch`](Self::watch).
    pub async fn watch_monitor(
        &self,
        events: &Events,
        name: Option<&str>,
        domain: Option<&RemoteDomain>,
    ) -> Result<(), CallError> {
        let arguments = (domain, name, 0u32);
        let (register, deregister) = (procedure::MONITOR_EVENT_REGISTER, procedure::MONITOR_EVENT_DEREGISTER);
        events.register(register, deregister, &arguments, self.token.clone()).await
    }

    /// Closes the connection for all handles: returns when the daemon has answered, or the connection has ended
    /// otherwise. Calls that are under way end with it.
    ///
    /// # Errors
    /// As of [`call`](Self::call). The connection is closed in any case.
    pub async fn close(self) -> Result<(), CallError> {
        let result = self.call(procedure::CONNECT_CLOSE, &()).await;
        self.link.finish();
        self.link.ended().await;
        result
    }

    /// Returns when the connection has ended, with the reason.
    pub async fn closed(&self) -> Arc<LinkEnd> {
        self.link.ended().await
    }

    /// As [`closed`](Self::closed), by a future that does not keep the connection open.
    pub fn end(&self) -> impl Future<Output = Arc<LinkEnd>> + Send + use<> {
        self.link.end_notice()
    }

    /// How many calls can be under way at once: as many as the options allow, or fewer if the daemon was not seen to answer a
    /// ping beside so many.
    pub fn max_in_flight(&self) -> usize {
        self.room.now()
    }

    /// Whether that is all that there can be: [`measure`](Self::measure) has nothing to find out.
    pub fn is_measured(&self) -> bool {
        self.room.is_measured()
    }

    /// Finds out how many calls can be under way at once, beside those that are, where the options did not ask for that when
    /// the connection was opened. Returns [`max_in_flight`](Self::max_in_flight).
    ///
    /// # Errors
    /// As of [`call`](Self::call). When the future is dropped, what it has found holds.
    pub async fn measure(&self) -> Result<usize, CallError> {
        self.room.measure(&self.link).await?;
        Ok(self.max_in_flight())
    }

    /// Whether the connection has not ended, as far as is known.
    pub fn is_open(&self) -> bool {
        !self.link.has_ended()
    }
}
