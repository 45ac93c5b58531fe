//! The calls on an agent's link: one command at a time, each after the agent is synchronised.
//!
//! The agent's replies carry no id, and its channel outlives our connection: the reply to an abandoned command, ours or
//! that of an earlier client, would be mistaken for the reply to the next one. So at the start, and after every
//! failure, `guest-sync-delimited` is sent with a new random number, and everything before its answer is dropped.

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::oneshot;

use super::codec::{Content, Frame, SENTINEL};
use super::config::{Oversized, SocketConfig};
use super::end::Ended;
use super::end::{LinkEnd, SendError};
use super::outbox::Outbox;

/// The link to one agent.
pub(super) struct Agent {
    config: SocketConfig,
    /// Locked by the caller whose command is under way. True if the next line will be the reply to the next command.
    synchronised: tokio::sync::Mutex<bool>,
    expected: Mutex<Expected>,
    ended: Ended,
}

/// The expected next line. The next command replaces it; until then a late line is dropped.
enum Expected {
    Nothing,
    /// The answer to the synchronisation with this number, directly after a sentinel.
    Sync(u32, oneshot::Sender<Answer>),
    Reply(oneshot::Sender<Answer>),
    /// The link has ended.
    End,
}

type Answer = Result<String, SendError>;

#[derive(Deserialize)]
struct SyncReply {
    #[serde(rename = "return")]
    number: u32,
}

impl Agent {
    pub(super) fn new(config: SocketConfig, ended: Ended) -> Self {
        Agent {
            config,
            synchronised: tokio::sync::Mutex::new(false),
            expected: Mutex::new(Expected::Nothing),
            ended,
        }
    }

    /// Sends a command and waits for its reply. `sent` is called when the agent is synchronised and the command is
    /// being sent. Before that, the agent was not asked to do anything.
    ///
    /// Cancel safe: the next command finds the agent not synchronised and synchronises it first.
    pub(super) async fn send(&self, outbox: &Outbox, command: &str, sent: impl FnOnce()) -> Answer {
        let mut synchronised = self.synchronised.lock().await;
        if !*synchronised {
            self.synchronise(outbox).await?;
        }
        let (answer, answered) = oneshot::channel();
        self.expect(Expected::Reply(answer))?;
        *synchronised = false;
        outbox.put(&[command.as_bytes(), b"\n"]).await;
        sent();
        let answer =
            answered.await.unwrap_or_else(|_| Err(SendError::Ended { end: self.ended.reason(), sent: true }));
        *synchronised = match &answer {
            Ok(text) => is_reply(text),
            Err(SendError::TooLarge { .. }) => true,
            Err(SendError::Ended { .. }) => false,
        };
        answer
    }

    /// Returns when the agent has answered a new number. Cancel safe.
    pub(super) async fn synchronise(&self, outbox: &Outbox) -> Result<(), SendError> {
        let number = fastrand::u32(..);
        let (answer, answered) = oneshot::channel();
        self.expect(Expected::Sync(number, answer))?;
        let command = format!(r#"{{"execute":"guest-sync-delimited","arguments":{{"id":{number}}}}}"#);
        // The sentinel makes the agent drop an incomplete earlier command.
        outbox.put(&[&[SENTINEL], command.as_bytes(), b"\n"]).await;
        match answered.await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(SendError::Ended { end: self.ended.reason(), sent: false }),
        }
    }

    fn expect(&self, expected: Expected) -> Result<(), SendError> {
        let mut current = self.expected.lock();
        if matches!(*current, Expected::End) {
            return Err(SendError::Ended { end: self.ended.reason(), sent: false });
        }
        *current = expected;
        Ok(())
    }

    /// Handles a line from the peer. Nothing on an agent's channel ends the link by itself.
    pub(super) fn receive(&self, frame: Frame) -> Result<(), LinkEnd> {
        let mut expected = self.expected.lock();
        let limit = self.config.max_reply;
        let (answer, end) = match (&*expected, frame.content) {
            (Expected::Sync(number, _), Content::Text(text))
                if frame.after_sentinel && answers(&text, *number) =>
            {
                (Ok(text), Ok(()))
            }
            (Expected::Reply(_), Content::Text(text)) => (Ok(text), Ok(())),
            (Expected::Reply(_), Content::NotText(begins)) => {
                (Ok(String::from_utf8_lossy(&begins).into_owned()), Ok(()))
            }
            (Expected::Reply(_), Content::TooLong(skipped)) => {
                let end = match self.config.oversized {
                    Oversized::Skip => Ok(()),
                    Oversized::Disconnect => Err(LinkEnd::TooLong { limit }),
                };
                (Err(SendError::TooLarge { size: skipped.size, limit }), end)
            }
            _ => {
                tracing::debug!("an unexpected line on the agent's channel was dropped");
                return Ok(());
            }
        };
        let answered = std::mem::replace(&mut *expected, Expected::Nothing);
        // Not under the lock: the task that is woken may want it at once.
        drop(expected);
        if let Expected::Sync(_, waiting) | Expected::Reply(waiting) = answered {
            // An error means that the caller has dropped its future.
            let _left = waiting.send(answer);
        }
        end
    }

    /// Fails the caller that waits, because the link has ended.
    pub(super) fn end(&self) {
        *self.expected.lock() = Expected::End;
    }
}

/// Whether a line begins and ends as a reply does. The caller parses it; here it only decides whether the agent is
/// synchronised, and a wrong "no" costs only one more synchronisation.
fn is_reply(text: &str) -> bool {
    let begins = [r#"{"return":"#, r#"{"error":"#].iter().any(|member| text.starts_with(member));
    begins && text.ends_with('}')
}

fn answers(text: &str, number: u32) -> bool {
    serde_json::from_str::<SyncReply>(text).is_ok_and(|reply| reply.number == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_recognised_by_its_beginning_and_end() {
        for (text, expected) in [
            (r#"{"return":{}}"#, true),
            (r#"{"return": null}"#, true),
            (r#"{"error":{"class":"GenericError","desc":"x"}}"#, true),
            (r#"{"event":"x"}"#, false),
            (r#"{"return": {"cut": 1"#, false),
            ("[1, 2]", false),
            ("login: ", false),
        ] {
            assert_eq!(is_reply(text), expected, "{text}");
        }
        assert!(answers(r#"{"return": 4294967295}"#, u32::MAX));
        assert!(!answers(r#"{"return": -1}"#, u32::MAX));
    }
}
