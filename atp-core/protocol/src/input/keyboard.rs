//! Presses keys (`send-key`).

use std::time::Duration;

use qapi::qmp::{KeyValue, QKeyCodeWrapper, send_key};
use tokio::time::{self, Instant};

use super::chord::Chord;
use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::monitor;
use crate::peer::Peer;

/// The speed of key presses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTiming {
    /// The time that QEMU waits after each key press and after each release, whole milliseconds: a chord of two keys
    /// takes four times as long. QEMU's own default is 10 ms. A guest that loses keys needs more.
    pub hold: Duration,
}

impl Default for KeyTiming {
    fn default() -> Self {
        KeyTiming { hold: Duration::from_millis(10) }
    }
}

impl KeyTiming {
    /// QEMU's argument. QEMU uses its own default for 0.
    fn hold_ms(&self) -> i64 {
        i64::try_from(self.hold.as_millis()).unwrap_or(i64::MAX).max(1)
    }

    /// The time that QEMU needs for a chord.
    fn takes(&self, chord: &Chord) -> Duration {
        let waits = u32::try_from(2 * chord.keys().len()).unwrap_or(u32::MAX);
        Duration::from_millis(self.hold_ms().unsigned_abs()).saturating_mul(waits)
    }
}

/// Presses chords one after another, and returns when the last is released.
///
/// QEMU itself releases the keys, also if this future is dropped or its connection breaks. The next chord is only sent
/// when QEMU has finished the previous one: QEMU would queue it, and drops the end of a long queue.
///
/// # Errors
/// [`Timeout`](ProtocolError::Timeout) for a chord that cannot be pressed and released by the deadline;
/// [`InputIncomplete`](ProtocolError::InputIncomplete) if some chords had been pressed before the failure or the
/// deadline.
///
/// Dropping the future leaves the remaining chords unpressed.
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
    async fn a_chord_waits_until_the_previous_one_is_released() {
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
    async fn an_error_has_the_number_of_keys_that_were_sent() {
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
