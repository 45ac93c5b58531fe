//! Sessions of browsers: begun with a token, ended by leaving.

use std::sync::Arc;

use atp_api::ErrorKind;
use atp_api::serve::{Login, SessionView};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use crate::auth::{Access, COOKIE, Caller, Peer, Token, session_cookie};
use crate::body::{Json, answer};
use crate::problem::Refusal;
use crate::route::Route;
use crate::state::Service;

const PATH: &str = "/api/v1/session";

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::POST, PATH, Access::Open, begin)
            .about("Begin a session of a browser: its cookie is sent with the answer.")
            .takes::<Login>()
            .answers::<SessionView>(200),
        Route::get(PATH, show).about("Who the client is, and what it may do.").answers::<SessionView>(200),
        Route::new(Method::DELETE, PATH, Access::Look, end).about("End the session.").answers_with(204, None),
    ]
}

async fn begin(
    State(service): State<Service>,
    peer: Peer,
    Json(login): Json<Login>,
) -> Result<Response, Refusal> {
    let from = peer.0.ip();
    let Some(token) = service.tokens().find(login.token.trim()) else {
        service.limits().may_authenticate(from)?;
        service.limits().failed_authentication(from);
        service.audit().refused_login(from).await?;
        return Err(Refusal::new(ErrorKind::NotAuthenticated, "the token is not known"));
    };
    let caller = Caller { token: token.clone(), csrf: None, from };
    service.audit().record(&caller, "login", json!({})).await?;
    let config = service.config();
    let begun = service.sessions().begin(token.hash(), config.session_ttl);
    let begun = begun.map_err(|error| Refusal::new(ErrorKind::Unknown, error.to_string()))?;
    let secure = if config.tls_cert.is_empty() { "" } else { "; Secure" };
    // Without an age: the browser has it until it is closed, and the service ends a session that is not used. An age would end
    // one that is.
    let cookie = format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict{secure}", begun.cookie.reveal());
    let mut response = answer(&view(&service, &token, Some(&begun.csrf)));
    set_cookie(&mut response, &cookie)?;
    Ok(response)
}

async fn show(State(service): State<Service>, caller: Caller) -> Response {
    answer(&view(&service, &caller.token, caller.csrf.as_ref()))
}

async fn end(State(service): State<Service>, headers: HeaderMap, _: Caller) -> Result<Response, Refusal> {
    if let Some(cookie) = session_cookie(&headers) {
        service.sessions().end(cookie);
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    set_cookie(&mut response, &format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"))?;
    Ok(response)
}

fn set_cookie(response: &mut Response, cookie: &str) -> Result<(), Refusal> {
    let mut value = HeaderValue::from_str(cookie).map_err(|error| Refusal::invalid(error.to_string()))?;
    value.set_sensitive(true);
    response.headers_mut().insert(header::SET_COOKIE, value);
    Ok(())
}

fn view(service: &Service, token: &Token, csrf: Option<&Arc<str>>) -> SessionView {
    SessionView {
        name: token.name.clone(),
        role: token.role,
        selectors: token.selectors.iter().map(ToString::to_string).collect(),
        verbs: token.verbs.clone(),
        read_only: service.config().read_only,
        csrf: csrf.map(ToString::to_string),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
