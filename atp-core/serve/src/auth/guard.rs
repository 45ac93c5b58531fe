//! What every request passes: is the service called by its own name, who asks, and may that be asked at all?

use std::net::IpAddr;

use atp_api::ErrorKind;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::caller::{Access, Caller, Peer};
use super::cookie;
use super::secret::is_same;
use super::sessions::COOKIE;
use crate::problem::Refusal;
use crate::state::Service;

/// The header in which a session of a browser sends its word against forged requests.
pub(crate) const CSRF: &str = "x-atp-csrf";

/// Lets a request through to its handler, or answers why not.
pub(crate) async fn guard(
    State((service, access)): State<(Service, Access)>,
    mut request: Request,
    next: Next,
) -> Response {
    match admit(&service, access, &request) {
        Ok(Some(caller)) => {
            tracing::debug!(token = caller.token.name, from = %caller.from, path = request.uri().path(), "request");
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Ok(None) => next.run(request).await,
        Err(refusal) => {
            service.metrics().refused(refusal.kind());
            refusal.into_response()
        }
    }
}

fn admit(service: &Service, access: Access, request: &Request) -> Result<Option<Caller>, Refusal> {
    let headers = request.headers();
    let host = called(request)?;
    if !service.is_called(host) {
        let problem = format!("this service is not called {host:?}");
        let hint = "add the name to the setting serve.names, or use the service's address";
        let refusal = Refusal::invalid(problem).with_hint(hint);
        return Err(refusal.with_status(axum::http::StatusCode::MISDIRECTED_REQUEST));
    }
    // A WebSocket is opened by a GET.
    let reads = matches!(*request.method(), Method::GET | Method::HEAD) && access != Access::Change;
    if !reads {
        refuse_other_origins(headers, host)?;
    }
    let public = access == Access::Open || (access == Access::Metrics && service.config().metrics_public);
    if public {
        return Ok(None);
    }
    let from = request.extensions().get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
    let caller = authenticate(service, headers, from)?;
    service.limits().request(&caller.token)?;
    if !reads && let Some(word) = &caller.csrf {
        let sent = headers.get(CSRF).and_then(|value| value.to_str().ok());
        if !sent.is_some_and(|sent| is_same(sent, word)) {
            let problem = format!("a request of a browser's session needs the header {CSRF}");
            let hint = "send the value of `csrf` that GET /api/v1/session answers";
            return Err(Refusal::new(ErrorKind::PermissionDenied, problem).with_hint(hint));
        }
    }
    if access == Access::Change && service.config().read_only {
        return Err(Refusal::new(ErrorKind::ReadOnly, "this service refuses all work"));
    }
    Ok(Some(caller))
}

/// The name and the port that the service was called by.
fn called(request: &Request) -> Result<&str, Refusal> {
    let sent = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let of_uri = request.uri().authority().map(|authority| authority.as_str());
    of_uri.or(sent).ok_or_else(|| Refusal::field("host", "the header is missing"))
}

/// Refuses what a page of another origin sends. Programs that are no browsers send neither header.
fn refuse_other_origins(headers: &HeaderMap, host: &str) -> Result<(), Refusal> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let foreign = text("origin").filter(|origin| {
        let name = origin.split_once("://").map(|(_, name)| name);
        !name.is_some_and(|name| name.eq_ignore_ascii_case(host))
    });
    let site = text("sec-fetch-site").filter(|site| !matches!(*site, "same-origin" | "none"));
    match foreign.or(site) {
        None => Ok(()),
        Some(_) => {
            let problem = "a page of another origin may not send this";
            Err(Refusal::new(ErrorKind::PermissionDenied, problem).with_hint("use the service's own page"))
        }
    }
}

/// The token of a request: sent with it, or that of its session.
pub(crate) fn authenticate(service: &Service, headers: &HeaderMap, from: IpAddr) -> Result<Caller, Refusal> {
    // A known token is accepted even if its address, which may be a proxy's, has sent too many unknown ones.
    let refused = |problem: &str| match service.limits().may_authenticate(from) {
        Ok(()) => {
            service.limits().failed_authentication(from);
            Refusal::new(ErrorKind::NotAuthenticated, problem)
        }
        Err(too_many) => too_many,
    };
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default();
        let sent = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, sent)) = sent else {
            return Err(refused("the header authorization is not `Bearer TOKEN`"));
        };
        let token = service.tokens().find(sent.trim()).ok_or_else(|| refused("the token is not known"))?;
        return Ok(Caller { token, csrf: None, from });
    }
    let Some(cookie) = cookie::value(headers, COOKIE) else {
        return Err(Refusal::new(ErrorKind::NotAuthenticated, "no token was sent"));
    };
    let session = service.sessions().find(cookie, service.config().session_ttl);
    let (token, csrf) =
        session.ok_or_else(|| Refusal::new(ErrorKind::NotAuthenticated, "the session has ended"))?;
    match service.tokens().by_hash(&token) {
        Some(token) => Ok(Caller { token, csrf: Some(csrf), from }),
        None => {
            service.sessions().end(cookie);
            Err(Refusal::new(ErrorKind::NotAuthenticated, "the token of the session was removed"))
        }
    }
}

/// The cookie of a request's session.
pub(crate) fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    cookie::value(headers, COOKIE)
}
