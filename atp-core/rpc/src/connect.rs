//! Opening a connection: the way to the daemon, who we are, the driver.

use std::sync::Arc;

use tokio::time::timeout;

use crate::auth;
use crate::connect_error::{ConnectError, ConnectFailure, Progress, Stage};
use crate::connection::Connection;
use crate::dial::{Dialled, dial};
use crate::error::CallError;
use crate::greet::{Offered, greet};
use crate::link::{Inquiry, Link};
use crate::numbers::{code, procedure};
use crate::options::ConnectOptions;
use crate::room::{MEASURES, Room, count_requests, max_in_flight};
use crate::settings;
use crate::uri::Uri;
use crate::way::reach;
use crate::xdr;

/// Features that are asked for (`virDrvFeature`).
mod feature {
    /// Pings. To ask for it starts the daemon's own.
    pub(super) const KEEPALIVE: i32 = 10;
    /// Event messages with the number of their registration.
    pub(super) const EVENT_CALLBACK: i32 = 14;
    /// A notice when the daemon loses its hypervisor.
    pub(super) const CLOSE_CALLBACK: i32 = 15;
}

/// Messages that may be under way while the connection is opened, besides those of the measuring.
const QUESTIONS: usize = 2;

/// OPEN's flag for reading only (`VIR_CONNECT_RO`).
const READ_ONLY: u32 = 1;

impl Connection {
    /// Opens a connection: to a URI, to an alias in `libvirt.conf`, or without either as `LIBVIRT_DEFAULT_URI` and
    /// `uri_default` say, or to whatever the daemon of this machine offers.
    ///
    /// Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// Says at which stage it failed, and what stood in the way.
    pub async fn open(uri: &str, options: &ConnectOptions) -> Result<Connection, ConnectError> {
        Connection::open_observed(uri, options, |_| {}).await
    }

    /// As [`open`](Self::open), and calls `on_stage` at each stage that connecting comes to.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub async fn open_observed(
        uri: &str,
        options: &ConnectOptions,
        on_stage: impl Fn(Stage) + Sync,
    ) -> Result<Connection, ConnectError> {
        let progress = Progress::new(&on_stage);
        let mut target = "the URI".to_owned();
        let work = async {
            let uri = settings::resolve(uri).await?;
            target = uri.to_string();
            let (dialled, offered) = reach(&uri, options, &progress).await?;
            let inquiry = inquiry(&uri, options);
            introduce(dialled, offered, &uri, options, Some(inquiry), &progress).await
        };
        let result = timeout(options.timeout, work).await;
        let result = result.unwrap_or(Err(ConnectFailure::Timeout(options.timeout)));
        result.map_err(|failure| ConnectError { target, stage: progress.get(), failure })
    }

    /// Opens a connection over a byte stream that leads to a daemon, for transports that are not here. It has to
    /// be as private as `private` says: only then is a password sent over it.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub async fn over<S>(
        io: S,
        private: bool,
        uri: &Uri,
        options: &ConnectOptions,
    ) -> Result<Connection, ConnectError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let progress = Progress::new(&|_| {});
        // What it is made of is not known here.
        let mut dialled = Dialled { io: Box::new(io), private, separate: true, stderr: None };
        let work = async {
            let offered = greet(&mut dialled, uri.transport, &progress).await?;
            introduce(dialled, offered, uri, options, None, &progress).await
        };
        let result = timeout(options.timeout, work).await;
        let result = result.unwrap_or(Err(ConnectFailure::Timeout(options.timeout)));
        result.map_err(|failure| ConnectError { target: uri.to_string(), stage: progress.get(), failure })
    }
}

/// From the daemon's first answer to an open driver.
async fn introduce(
    dialled: Dialled,
    offered: Offered,
    uri: &Uri,
    options: &ConnectOptions,
    inquiry: Option<Inquiry>,
    progress: &Progress<'_>,
) -> Result<Connection, ConnectFailure> {
    let Dialled { io, private, separate, stderr } = dialled;
    #[cfg(feature = "gssapi")]
    let layer = auth::LayerSlot::default();
    #[cfg(feature = "gssapi")]
    let io = auth::Layered::new(io, layer.clone());
    let link = Link::start(io, QUESTIONS, separate, stderr);
    progress.set(Stage::Authenticate);
    let way = auth::Way {
        uri,
        private,
        #[cfg(feature = "gssapi")]
        layer: &layer,
    };
    auth::authenticate(&link, offered, &way, options).await?;
    progress.set(Stage::Open);
    let flags = if options.read_only { READ_ONLY } else { 0 };
    link.call(procedure::CONNECT_OPEN, &(uri.name(), flags), None).await?;
    #[cfg(feature = "gssapi")]
    let layered = layer.is_set();
    #[cfg(not(feature = "gssapi"))]
    let layered = false;
    let (event, close) = (feature::EVENT_CALLBACK, feature::CLOSE_CALLBACK);
    // Of several messages that arrive together below SASL's layer, a daemon reads the first, and the others only when more comes:
    // they are sent one at a time, and nothing is measured.
    let most = if layered { 1 } else { options.max_in_flight.max(1) };
    // With one call and a ping behind it is seen whether the daemon reads pings beside a call, which decides who pings. Only where
    // that does not show it, more are made.
    let first = if options.measure { most } else { 1 };
    let (events, close, mut requests) = if layered {
        (supports(&link, event).await?, supports(&link, close).await?, 2)
    } else {
        tokio::try_join!(supports(&link, event), supports(&link, close), async {
            Ok(count_requests(&link, MEASURES[0] * first).await?)
        })?
    };
    for times in &MEASURES[1..] {
        if requests > first {
            break;
        }
        requests = requests.max(count_requests(&link, times * most).await?);
    }
    let now = max_in_flight(requests, most);
    link.remove_slots(QUESTIONS.saturating_sub(now));
    link.add_slots(now.saturating_sub(QUESTIONS));
    let register = async {
        if close {
            match link.call(procedure::CLOSE_REGISTER, &(), None).await {
                // Drivers inside the daemon have nothing that could be lost.
                Err(CallError::Remote { source, .. }) if source.code == code::NO_SUPPORT => {}
                result => drop(result?),
            }
        }
        Ok::<_, ConnectFailure>(())
    };
    // A daemon that takes one message at a time does not read the answers to its pings beside a call, and would close the
    // connection: it is not asked to ping.
    let pings = async {
        if requests > 1 {
            supports(&link, feature::KEEPALIVE).await?;
        }
        Ok(())
    };
    if layered {
        register.await?;
        pings.await?;
    } else {
        tokio::try_join!(register, pings)?;
    }
    link.keep_alive(options.keepalive, requests, inquiry);
    Ok(Connection::new(link, events, Room::new(most, now, options.measure || requests == 1)))
}

/// Asks on a connection of its own whether the daemon answers a ping.
fn inquiry(uri: &Uri, options: &ConnectOptions) -> Inquiry {
    let way = Arc::new((uri.clone(), options.clone()));
    Box::new(move || {
        let way = way.clone();
        Box::pin(async move {
            let (uri, options) = &*way;
            match dial(uri, options, &Progress::new(&|_| {})).await {
                Ok(Dialled { io, separate, stderr, .. }) => {
                    let link = Link::start(io, 1, separate, stderr);
                    link.count_held(procedure::AUTH_LIST, 1).await.is_ok()
                }
                Err(_) => false,
            }
        })
    })
}

/// Whether the daemon has a feature. One that does not know the question has none.
async fn supports(link: &Link, feature: i32) -> Result<bool, ConnectFailure> {
    let call = procedure::CONNECT_SUPPORTS_FEATURE;
    match link.call(call, &feature, None).await {
        Ok(reply) => {
            let answer: i32 =
                xdr::decode(&reply).map_err(|source| CallError::Reply { procedure: call, source })?;
            Ok(answer != 0)
        }
        Err(CallError::Remote { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
