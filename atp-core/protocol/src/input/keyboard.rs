//! Pressing keys (`send-key`).

use std::time::Duration;

use qapi::qmp::{KeyValue, QKeyCodeWrapper, send_key};
use tokio::time::{self, Instant};

use super::chord::Chord;
use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::monitor;
use crate::peer::Peer;

/// How fast keys are pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTiming {
    /// How long QEMU waits after each key goes down and after each comes up, whole milliseconds: a chord of two
    /// keys takes four times that. 10 ms is QEMU's own default; a guest that loses keys wants more.
    pub hold: Duration,
}

impl Default for KeyTiming {
    fn default() -> Self {
        KeyTiming { hold: Duration::from_millis(10) }
    }
}

impl KeyTiming {
    /// QEMU's argument; it takes 0 for its own default.
    fn hold_ms(&self) -> i64 {
        i64::try_from(self.hold.as_millis()).unwrap_or(i64::MAX).max(1)
    }

    /// How long QEMU works on a chord.
    fn takes(&self, chord: &Chord) -> Duration {
        let waits = u32::try_from(2 * chord.keys().len()).unwrap_or(u32::MAX);
        Duration::from_millis(self.hold_ms().unsigned_abs()).saturating_mul(waits)
    }
}

/// Presses chords, one after the other, and returns when the last is released.
///
/// QEMU itself releases the keys, also when this is dropped or its connection breaks half-way. It is given a
/// chord only when it is done with the one before: it would queue them, and of a long queue drop the end.
///
/// # Errors
/// [`Timeout`](ProtocolError::Timeout) for a chord that cannot be pressed and released by the deadline;
/// [`InputIncomplete`](ProtocolError::InputIncomplete) if some had been pressed before it failed or the time was up.
///
/// Dropping the future leaves the rest unpressed.
pub async fn press(
    carrier: &impl Carrier,
    chords: &[Chord],
    timing: KeyTiming,
    deadline: Instant,
) -> Result<()> {
    for (pressed, chord) in chords.iter().enumerate() {
        let incomplete = |error| ProtocolError::incomplete_input("key", pressed, chords.len(), error);
        let takes = timing.takes(chord);
        if Instant::now() + takes > deadline {
            return Err(incomplete(ProtocolError::Timeout { peer: Peer::Monitor, sent: false }));
        }
        let key = |code: &_| KeyValue::qcode(QKeyCodeWrapper { data: *code });
        let command =
            send_key { hold_time: Some(timing.hold_ms()), keys: chord.keys().iter().map(key).collect() };
        monitor::execute(carrier, &command, deadline).await.map_err(incomplete)?;
        time::sleep(takes).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use atp_transport::Effect;
    use serde_json::json;

    use super::super::Layout;
    use super::*;
    use crate::script::{Script, Step};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test(start_paused = true)]
    async fn a_chord_waits_until_the_one_before_is_released() {
        let script = Script::new([r#"{"return":{}}"#]);
        let started = Instant::now();
        let chords = ["ctrl-alt-del".parse().unwrap(), "a".parse().unwrap()];
        press(&script, &chords, KeyTiming::default(), soon()).await.unwrap();
        assert_eq!(started.elapsed(), Duration::from_millis(80));
        let sent = script.sent();
        let key = |name| json!({"type": "qcode", "data": name});
        assert_eq!(
            sent[0].1,
            json!({"execute": "send-key",
                   "arguments": {"keys": [key("ctrl"), key("alt"), key("delete")], "hold-time": 10}})
        );
        assert_eq!(sent[1].0 - started, Duration::from_millis(60));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_typed_before_a_failure_is_told() {
        let refused = r#"{"error":{"class":"GenericError","desc":"no"}}"#;
        let strokes = Layout::US.strokes("abc").unwrap();
        let script = Script::new([refused]);
        let error = press(&script, &strokes, KeyTiming::default(), soon()).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("qmp-error", Effect::None));

        let script = Script::new([r#"{"return":{}}"#, refused]);
        let error = press(&script, &strokes, KeyTiming::default(), soon()).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("qmp-error", Effect::Done));
        assert!(error.to_string().contains("1 of 3"), "{error}");

        let lost = ProtocolError::Timeout { peer: Peer::Monitor, sent: true };
        let script = Script::new([Step::from(r#"{"return":{}}"#), lost.into()]);
        let error = press(&script, &strokes, KeyTiming::default(), soon()).await.unwrap_err();
        assert_eq!(error.effect(), Effect::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn typing_ends_by_the_deadline() {
        let script = Script::new([r#"{"return":{}}"#]);
        let strokes = Layout::US.strokes(&"a".repeat(1000)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(1);
        let error = press(&script, &strokes, KeyTiming::default(), deadline).await.unwrap_err();
        assert!(Instant::now() <= deadline);
        assert!(error.is_timeout() && error.effect() == Effect::Done, "{error:?}");
        assert!(error.to_string().contains("50 of 1000"), "{error}");
    }
}
