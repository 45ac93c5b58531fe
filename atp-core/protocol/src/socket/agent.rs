//! What is under way on an agent's link: one command at a time, each after the agent was found to be in step.
//!
//! The agent's replies carry no id, and its channel outlives our connection: the reply to a command that was given
//! up, here or by an earlier client, would be taken for the next one's. So after anything that went wrong, and at the
//! start, `guest-sync-delimited` is sent with a number nobody has used: all that comes before its answer is dropped.

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::oneshot;

use super::codec::{Content, Frame, SENTINEL};
use super::config::{Oversized, SocketConfig};
use super::end::Ended;
use super::end::{LinkEnd, SendError};
use super::outbox::Outbox;

/// One agent's link.
pub(super) struct Agent {
    config: SocketConfig,
    /// Whoever holds it is the one whose command is under way. True if the next line will be the reply to the
    /// next command.
    in_step: tokio::sync::Mutex<bool>,
    expected: Mutex<Expected>,
    ended: Ended,
}

/// What the next line is to be. Replaced when the next command comes; until then a late line finds nobody.
enum Expected {
    Nothing,
    /// The answer to the synchronisation of this number, and nothing before it.
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
            in_step: tokio::sync::Mutex::new(false),
            expected: Mutex::new(Expected::Nothing),
            ended,
        }
    }

    /// Sends a command and waits for its reply. `sent` is called when the agent has proven to be in step and the
    /// command is on its way: before that, nothing was asked of it.
    ///
    /// Cancel safe: the next command finds the agent out of step and synchronises first.
    pub(super) async fn send(&self, outbox: &Outbox, command: &str, sent: impl FnOnce()) -> Answer {
        let mut in_step = self.in_step.lock().await;
        if !*in_step {
            self.synchronise(outbox).await?;
        }
        let (answer, answered) = oneshot::channel();
        self.expect(Expected::Reply(answer))?;
        *in_step = false;
        outbox.put(&[command.as_bytes(), b"\n"]).await;
        sent();
        let answer =
            answered.await.unwrap_or_else(|_| Err(SendError::Ended { end: self.ended.reason(), sent: true }));
        *in_step = match &answer {
            Ok(text) => is_reply(text),
            Err(SendError::TooLarge { .. }) => true,
            Err(SendError::Ended { .. }) => false,
        };
        answer
    }

    /// Returns when the agent has answered a number that is new. Cancel safe.
    pub(super) async fn synchronise(&self, outbox: &Outbox) -> Result<(), SendError> {
        let number = fastrand::u32(..);
        let (answer, answered) = oneshot::channel();
        self.expect(Expected::Sync(number, answer))?;
        let command = format!(r#"{{"execute":"guest-sync-delimited","arguments":{{"id":{number}}}}}"#);
        // The sentinel makes the agent forget what it may have got of an earlier command.
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

    /// Takes what the peer sent. Nothing that an agent's channel brings ends the link by itself.
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
                tracing::debug!("the agent's channel brought something nobody waits for");
                return Ok(());
            }
        };
        let answered = std::mem::replace(&mut *expected, Expected::Nothing);
        // Not under the lock: who is woken may want it at once.
        drop(expected);
        if let Expected::Sync(_, waiting) | Expected::Reply(waiting) = answered {
            // An error means that the caller left before.
            let _left = waiting.send(answer);
        }
        end
    }

    /// The link has ended: whoever waits is told.
    pub(super) fn end(&self) {
        *self.expected.lock() = Expected::End;
    }
}

/// Whether a line begins and ends as replies do. Whoever waits for it reads it; here it is only seen whether the agent is
/// in step, and to take it for out of step costs no more than another synchronisation.
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
    fn a_reply_is_told_by_its_beginning() {
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
