//! Sessions of browsers. They are kept in memory: after a restart people log in again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::secret::{Secret, hash};

/// The name of the cookie.
pub(crate) const COOKIE: &str = "atp_session";

/// The most sessions at the same time. Beyond, the one that was not used for the longest time ends.
const MAX_SESSIONS: usize = 10_000;

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    /// By the hash of the cookie.
    sessions: Mutex<HashMap<String, Session>>,
}

#[derive(Debug)]
struct Session {
    /// The hash of the token that it was begun with.
    token: String,
    csrf: Arc<str>,
    used: Instant,
}

/// A session that was begun.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) cookie: Secret,
    pub(crate) csrf: Arc<str>,
}

impl Sessions {
    /// Begins a session for the token with this hash.
    pub(crate) fn begin(&self, token: &str, ttl: Duration) -> Result<Begun, getrandom::Error> {
        let (cookie, csrf) = (Secret::new("")?, Secret::new("")?);
        let csrf: Arc<str> = csrf.reveal().into();
        let session = Session { token: token.to_owned(), csrf: csrf.clone(), used: Instant::now() };
        let mut sessions = self.sessions.lock();
        if sessions.len() >= MAX_SESSIONS {
            sessions.retain(|_, session| session.used.elapsed() < ttl);
        }
        if sessions.len() >= MAX_SESSIONS
            && let Some(oldest) =
                sessions.iter().min_by_key(|(_, session)| session.used).map(|(key, _)| key.clone())
        {
            sessions.remove(&oldest);
        }
        sessions.insert(cookie.hash(), session);
        Ok(Begun { cookie, csrf })
    }

    /// The hash of the token of the session with this cookie, and its word against forged requests. The session counts as
    /// used.
    pub(crate) fn find(&self, cookie: &str, ttl: Duration) -> Option<(String, Arc<str>)> {
        let key = hash(cookie);
        let mut sessions = self.sessions.lock();
        let session = sessions.get_mut(&key)?;
        if session.used.elapsed() >= ttl {
            sessions.remove(&key);
            return None;
        }
        session.used = Instant::now();
        Some((session.token.clone(), session.csrf.clone()))
    }

    /// Ends the session with this cookie.
    pub(crate) fn end(&self, cookie: &str) {
        self.sessions.lock().remove(&hash(cookie));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_when_it_is_not_used() {
        let (sessions, ttl) = (Sessions::default(), Duration::from_secs(60));
        let begun = sessions.begin("t", ttl).unwrap();
        tokio::time::advance(Duration::from_secs(40)).await;
        assert!(sessions.find(begun.cookie.reveal(), ttl).is_some());
        tokio::time::advance(Duration::from_secs(40)).await;
        let (token, csrf) = sessions.find(begun.cookie.reveal(), ttl).unwrap();
        assert_eq!((token.as_str(), csrf), ("t", begun.csrf));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(sessions.find(begun.cookie.reveal(), ttl).is_none());
    }

    #[tokio::test]
    async fn a_session_can_be_ended_and_only_its_cookie_opens_it() {
        let (sessions, ttl) = (Sessions::default(), Duration::from_secs(60));
        let begun = sessions.begin("t", ttl).unwrap();
        assert!(sessions.find(&begun.csrf, ttl).is_none());
        sessions.end(begun.cookie.reveal());
        assert!(sessions.find(begun.cookie.reveal(), ttl).is_none());
    }
}
