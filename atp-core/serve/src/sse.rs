//! Streams of server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::auth::Caller;
use crate::problem::Refusal;
use crate::state::Service;

/// The type of the body.
pub(crate) const CONTENT_TYPE: &str = "text/event-stream";

/// How long a stream may say nothing: then a comment is sent, which shows a client that it lives, and the service that the
/// client does.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long a client waits before it connects again.
const RETRY: &str = "retry: 2000\n\n";

/// The header with the number of the last event that a client has.
const LAST_EVENT_ID: &str = "last-event-id";

/// An event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its number, from which the stream can be resumed.
    pub(crate) id: Option<String>,
    /// Its word.
    pub(crate) event: String,
    /// Its data, JSON in one line.
    pub(crate) data: String,
}

impl Frame {
    fn bytes(&self) -> Bytes {
        let id = self.id.as_ref().map(|id| format!("id: {id}\n")).unwrap_or_default();
        // JSON has no line ends but those it escapes.
        format!("{id}event: {}\ndata: {}\n\n", self.event, self.data).into()
    }
}

/// The number of the last event that the client has.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty())
}

/// Answers with a stream. It ends with `frames`, with `until`, and when the caller's token is removed or changed: what it may see
/// was decided by that. A client that still may begins again, and resumes.
///
/// Only what the client takes is taken from `frames`: what it does not read stays where it is.
pub(crate) fn respond(
    service: &Service,
    caller: &Caller,
    until: CancellationToken,
    frames: impl Stream<Item = Frame> + Send + 'static,
) -> Result<Response, Refusal> {
    let slot = service.limits().stream(&caller.token)?;
    let (service, token) = (service.clone(), caller.token.clone());
    let state = (Box::pin(frames), until, service, token, slot);
    let beats = stream::unfold(state, |(mut frames, until, service, token, slot)| async move {
        let next = tokio::select! {
            () = until.cancelled() => return None,
            next = timeout_at(Instant::now() + HEARTBEAT, frames.next()) => next,
        };
        let bytes = match next {
            Ok(frame) => frame?.bytes(),
            Err(_) => Bytes::from_static(b":\n\n"),
        };
        // A stream may live for days.
        if !service.tokens().has(&token) {
            return None;
        }
        Some((Ok::<_, Infallible>(bytes), (frames, until, service, token, slot)))
    });
    let start = stream::once(async { Ok(Bytes::from_static(RETRY.as_bytes())) });
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::from_stream(start.chain(beats))).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_lines() {
        let frame = Frame { id: Some("7".to_owned()), event: "gap".to_owned(), data: "{}".to_owned() };
        assert_eq!(frame.bytes(), "id: 7\nevent: gap\ndata: {}\n\n");
        let frame = Frame { id: None, ..frame };
        assert_eq!(frame.bytes(), "event: gap\ndata: {}\n\n");
    }
}
