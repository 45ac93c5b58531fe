//! Who asks, and from where; and what a route needs of them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use atp_api::ErrorKind;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::tokens::Token;
use crate::problem::Refusal;

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// No token.
    Open,
    /// Metrics: a token, unless they are public.
    Metrics,
    /// A token.
    Look,
    /// A token, and a service that does not refuse all work.
    Change,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The token.
    pub(crate) token: Arc<Token>,
    /// The word against forged requests of a browser's session.
    pub(crate) csrf: Option<Arc<str>>,
    /// Where the request comes from.
    pub(crate) from: IpAddr,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| Refusal::new(ErrorKind::NotAuthenticated, "no token was sent"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let unknown = Peer(SocketAddr::from(([0, 0, 0, 0], 0)));
        Ok(parts.extensions.get::<Peer>().copied().unwrap_or(unknown))
    }
}
