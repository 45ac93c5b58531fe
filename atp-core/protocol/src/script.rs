//! A carrier with scripted replies, for the tests of this crate in virtual time.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{self, Instant};

use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::peer::Peer;

/// Replies in order, each after its delay. The last reply is repeated without end.
pub(crate) struct Script {
    replies: Mutex<VecDeque<(Duration, Result<String>)>>,
    sent: Mutex<Vec<(Instant, Value)>>,
}

impl Script {
    pub(crate) fn new<R: Into<Step>>(replies: impl IntoIterator<Item = R>) -> Self {
        let replies = replies.into_iter().map(|reply| reply.into().0).collect();
        Script { replies: Mutex::new(replies), sent: Mutex::default() }
    }

    /// Every command sent, with its time.
    pub(crate) fn sent(&self) -> Vec<(Instant, Value)> {
        self.sent.lock().unwrap().clone()
    }
}

impl Carrier for Script {
    async fn send(&self, peer: Peer, command: &str, deadline: Instant) -> Result<String> {
        self.sent.lock().unwrap().push((Instant::now(), serde_json::from_str(command).unwrap()));
        let (delay, reply) = {
            let mut replies = self.replies.lock().unwrap();
            if replies.len() > 1 { replies.pop_front().unwrap() } else { replies[0].clone() }
        };
        time::timeout_at(deadline, time::sleep(delay))
            .await
            .map_err(|_| ProtocolError::Timeout { peer, sent: true })?;
        reply
    }

    fn command_max(&self, _peer: Peer) -> usize {
        1 << 20
    }
}

/// One reply and its delay.
pub(crate) struct Step((Duration, Result<String>));

impl Step {
    pub(crate) fn late(delay: Duration, reply: &str) -> Self {
        Step((delay, Ok(reply.to_owned())))
    }
}

impl From<&str> for Step {
    fn from(reply: &str) -> Self {
        Step::late(Duration::ZERO, reply)
    }
}

impl From<ProtocolError> for Step {
    fn from(error: ProtocolError) -> Self {
        Step((Duration::ZERO, Err(error)))
    }
}
