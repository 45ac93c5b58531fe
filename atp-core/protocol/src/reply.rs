//! Sends one command and decodes its reply.

use atp_api::RawCommand;
use qapi::{Command, Execute};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use tokio::time::Instant;

use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::peer::Peer;
use crate::refusal::Refusal;

/// The longest part of a decoder's message that is kept: it can quote the reply, and a reply can be megabytes long.
const DETAIL_MAX: usize = 200;

/// The end of a command without arguments. QEMU reads commands one byte at a time, with some system calls for each
/// byte, so that this part would take most of the time of a short command.
const NO_ARGUMENTS: &str = r#","arguments":{}}"#;

/// Sends a command given as text. The return value stays JSON.
pub(crate) async fn send_raw(
    carrier: &impl Carrier,
    peer: Peer,
    command: &RawCommand,
    deadline: Instant,
) -> Result<serde_json::Value> {
    let reply = carrier.send(peer, &command.to_json(), deadline).await?;
    decode(peer, command.name(), &reply)
}

/// Sends a command of a type that `qapi` defines and decodes its typed return value.
pub(crate) async fn send_typed<C: Command>(
    carrier: &impl Carrier,
    peer: Peer,
    command: &C,
    deadline: Instant,
) -> Result<C::Ok> {
    let mut text = serde_json::to_string(&Execute::<&C>::from(command))
        .map_err(|error| ProtocolError::InvalidCommand { reason: error.to_string() })?;
    if text.ends_with(NO_ARGUMENTS) {
        text.truncate(text.len() - NO_ARGUMENTS.len());
        text.push('}');
    }
    let reply = carrier.send(peer, &text, deadline).await?;
    decode(peer, C::NAME, &reply)
}

/// A reply of either kind. Other fields (`id`) are ignored.
#[derive(Deserialize)]
#[serde(bound(deserialize = "T: DeserializeOwned"))]
struct Reply<T> {
    #[serde(rename = "return", default, deserialize_with = "present")]
    value: Option<T>,
    error: Option<ErrorReply>,
}

#[derive(Deserialize)]
struct ErrorReply {
    class: Option<String>,
    desc: Option<String>,
}

/// Distinguishes `"return": null`, which is a reply, from a missing `return`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// Decodes the text of a reply to `command`.
pub(crate) fn decode<T: DeserializeOwned>(peer: Peer, command: &str, reply: &str) -> Result<T> {
    let invalid = |detail: String| ProtocolError::InvalidReply {
        peer,
        command: command.to_owned(),
        detail: shortened(detail),
    };
    // serde would also accept a list of the right length.
    if !reply.trim_start().starts_with('{') {
        return Err(invalid("it is not a JSON object".to_owned()));
    }
    match serde_json::from_str::<Reply<T>>(reply).map_err(|error| invalid(error.to_string()))? {
        Reply { error: Some(ErrorReply { class, desc }), .. } => {
            let desc = desc.or_else(|| class.clone()).unwrap_or_default();
            Err(ProtocolError::Refused(Box::new(Refusal::new(peer, command, class, desc, None))))
        }
        Reply { value: Some(value), error: None } => Ok(value),
        Reply { value: None, error: None } => Err(invalid("it has neither `return` nor `error`".to_owned())),
    }
}

fn shortened(mut detail: String) -> String {
    if detail.len() > DETAIL_MAX {
        detail.truncate(detail.floor_char_boundary(DETAIL_MAX));
        detail.push('…');
    }
    detail
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use qapi::qga::GuestExecStatus;
    use serde_json::{Value, json};

    use super::*;
    use crate::refusal::RefusalKind;

    #[test]
    fn a_return_is_the_reply_even_when_it_is_null() {
        let decoded: Value = decode(Peer::Monitor, "c", r#"{"return":{"a":1},"id":"libvirt-7"}"#).unwrap();
        assert_eq!(decoded, json!({"a": 1}));
        assert_eq!(decode::<Value>(Peer::Monitor, "c", r#"{"return":null}"#).unwrap(), Value::Null);
    }

    #[test]
    fn an_error_reply_is_a_refusal_with_class_and_description() {
        let reply = r#"{"id":"libvirt-9","error":{"class":"CommandNotFound","desc":"The command x has not been found"}}"#;
        let ProtocolError::Refused(refusal) = decode::<Value>(Peer::Monitor, "x", reply).unwrap_err() else {
            panic!("not a refusal");
        };
        assert_eq!(refusal.kind, RefusalKind::Qmp);
        assert_eq!(refusal.class.as_deref(), Some("CommandNotFound"));
        assert_eq!(refusal.to_string(), "QEMU refused x: The command x has not been found");

        let agent = decode::<Value>(Peer::Agent, "x", reply).unwrap_err();
        assert_eq!(agent.kind(), "agent-command-unknown");
    }

    #[test]
    fn an_invalid_reply_is_an_error_with_a_short_quotation() {
        for garbage in
            ["", "{", "[]", "[1,null]", "17", "{}", "{\"event\":\"STOP\"}", "\u{0}", "{\"return\":{}"]
        {
            let error = decode::<Value>(Peer::Agent, "guest-ping", garbage).unwrap_err();
            assert_eq!(error.kind(), "invalid-reply", "{garbage:?}");
            assert_eq!(error.effect(), atp_transport::Effect::Unknown, "{garbage:?}");
        }
        let long = format!(r#"{{"return":{{"exited":true,"out-data":"{}"}}}}"#, "é".repeat(100_000));
        let error = decode::<GuestExecStatus>(Peer::Agent, "guest-exec-status", &long).unwrap_err();
        assert!(error.to_string().len() < 400, "{} bytes of message", error.to_string().len());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_decoder_panic(text in any::<String>(), inner in r#"[\[\]{}":,a-z0-9\\]{0,40}"#) {
            let _ = decode::<Value>(Peer::Agent, "c", &text);
            let _ = decode::<GuestExecStatus>(Peer::Agent, "c", &format!("{{\"return\":{inner}}}"));
            let _ = decode::<GuestExecStatus>(Peer::Agent, "c", &format!("{{\"error\":{inner}}}"));
        }
    }
}
