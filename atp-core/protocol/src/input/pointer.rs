//! Moves and clicks the mouse (`input-send-event`).

use std::time::Duration;

use atp_transport::Effect;
use qapi::qmp::{InputAxis, InputBtnEvent, InputButton, InputEvent, InputMoveEvent, input_send_event};
use tokio::time::{self, Instant};

use super::mouse::{MouseAction, Point, ScreenSize};
use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::monitor;
use crate::reserve::after;

/// The speed of mouse actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MouseTiming {
    /// How long a button is held, and the pause before it is pressed again.
    pub hold: Duration,
    /// The number of pointer steps in a drag: guests need to see a movement.
    pub drag_steps: u16,
    /// The time reserved for releasing a button after a timeout; at most half of the time.
    pub release: Duration,
}

impl Default for MouseTiming {
    fn default() -> Self {
        MouseTiming { hold: Duration::from_millis(50), drag_steps: 10, release: Duration::from_secs(1) }
    }
}

/// The events in one command.
type Step = Vec<InputEvent>;

/// Carries out a mouse action in a VM. Points need an absolute pointing device, such as a tablet; QEMU reports an error
/// if there is none. `screen` is needed for an action that [contains pixels](MouseAction::needs_screen_size).
///
/// # Errors
/// [`InvalidCommand`](ProtocolError::InvalidCommand) for a point off the screen;
/// [`InputIncomplete`](ProtocolError::InputIncomplete) if the action had begun before the failure or the deadline. A
/// button that is down at that time is released first, if QEMU still answers.
///
/// Dropping the future while a button is down leaves it down.
pub async fn point(
    carrier: &impl Carrier,
    action: &MouseAction,
    screen: Option<ScreenSize>,
    timing: MouseTiming,
    deadline: Instant,
) -> Result<()> {
    let (steps, button) = steps(action, screen, timing)?;
    let total = steps.len();
    let left = deadline.saturating_duration_since(Instant::now());
    let kept_back = button.map_or(Duration::ZERO, |_| timing.release.min(left / 2));
    let until = deadline - kept_back;
    for (done, events) in steps.into_iter().enumerate() {
        if done > 0 {
            time::sleep_until(until.min(after(timing.hold))).await;
        }
        let result = send(carrier, events, until).await;
        if let Err(error) = result {
            // If the first step may have been executed, it may have pressed the button.
            if let Some(button) = button.filter(|_| done > 0 || error.effect() != Effect::None) {
                // The first failure is the one to report.
                let _second = send(carrier, vec![pressed(button, false)], deadline).await;
            }
            return Err(ProtocolError::incomplete_input("mouse step", done, total, error));
        }
    }
    Ok(())
}

async fn send(carrier: &impl Carrier, events: Step, deadline: Instant) -> Result<()> {
    let command = input_send_event { device: None, head: None, events };
    monitor::execute(carrier, &command, deadline).await.map(drop)
}

/// The commands to send, with a pause between them, and the button that is down in between.
fn steps(
    action: &MouseAction,
    screen: Option<ScreenSize>,
    timing: MouseTiming,
) -> Result<(Vec<Step>, Option<InputButton>)> {
    let axes = |point: Point| {
        point.axes(screen).map_err(|error| ProtocolError::InvalidCommand { reason: error.to_string() })
    };
    Ok(match *action {
        MouseAction::Move(point) => (vec![moved(axes(point)?)], None),
        MouseAction::Click { button, times, at } => {
            let button = InputButton::from(button);
            let mut steps: Vec<Step> = Vec::new();
            if let Some(point) = at {
                steps.push(moved(axes(point)?));
            }
            for _ in 0..times {
                steps.extend([vec![pressed(button, true)], vec![pressed(button, false)]]);
            }
            (steps, Some(button))
        }
        MouseAction::Scroll { notches } => {
            let button = if notches < 0 { InputButton::wheel_up } else { InputButton::wheel_down };
            let notch = || vec![pressed(button, true), pressed(button, false)];
            ((0..notches.unsigned_abs()).map(|_| notch()).collect(), None)
        }
        MouseAction::Drag { button, from, to } => {
            let button = InputButton::from(button);
            let (from, to) = (axes(from)?, axes(to)?);
            let count = i64::from(timing.drag_steps.max(1));
            let between =
                |step: i64| [0, 1].map(|axis: usize| from[axis] + (to[axis] - from[axis]) * step / count);
            let mut steps = vec![moved(from), vec![pressed(button, true)]];
            steps.extend((1..=count).map(|step| moved(between(step))));
            steps.push(vec![pressed(button, false)]);
            (steps, Some(button))
        }
    })
}

fn moved([x, y]: [i64; 2]) -> Step {
    let to = |axis, value| InputEvent::abs(InputMoveEvent { axis, value }.into());
    vec![to(InputAxis::x, x), to(InputAxis::y, y)]
}

fn pressed(button: InputButton, down: bool) -> InputEvent {
    InputEvent::btn(InputBtnEvent { button, down }.into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::script::{Script, Step};

    const DONE: &str = r#"{"return":{}}"#;
    const SCREEN: Option<ScreenSize> = Some(ScreenSize { width: 100, height: 50 });

    fn action(words: &str) -> MouseAction {
        MouseAction::from_words(words.split_whitespace()).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    async fn sent(words: &str) -> Vec<Value> {
        let script = Script::new([DONE]);
        point(&script, &action(words), SCREEN, MouseTiming::default(), soon()).await.unwrap();
        script.sent().into_iter().map(|(_, command)| command["arguments"]["events"].clone()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_click_at_a_point_moves_presses_and_releases() {
        let button = |down| json!([{"type": "btn", "data": {"button": "right", "down": down}}]);
        let place = json!([
            {"type": "abs", "data": {"axis": "x", "value": 0x4000}},
            {"type": "abs", "data": {"axis": "y", "value": 32_440}},
        ]);
        assert_eq!(sent("click right 50% 49").await, [place, button(true), button(false)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drag_ends_at_its_point_and_a_scroll_is_one_notch_per_step() {
        let steps = sent("drag 0.0 0.0 1.0 1.0").await;
        assert_eq!(steps.len(), 13);
        assert_eq!(steps[11][1]["data"]["value"], 0x7fff);
        assert_eq!(steps[12][0]["data"]["down"], false);
        let notches = sent("scroll -2").await;
        assert_eq!(notches.len(), 2);
        assert_eq!(notches[0][0]["data"]["button"], "wheel-up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_point_off_the_screen_sends_nothing() {
        let script = Script::new([DONE]);
        for (words, screen) in [("move 100 0", SCREEN), ("move 1 1", None)] {
            let moved = point(&script, &action(words), screen, MouseTiming::default(), soon()).await;
            let error = moved.unwrap_err();
            assert_eq!((error.kind().as_str(), error.effect()), ("invalid-command", Effect::None));
        }
        assert!(script.sent().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_button_is_released_when_the_rest_fails() {
        let refused = r#"{"error":{"class":"GenericError","desc":"no"}}"#;
        let script = Script::new([DONE, DONE, refused, DONE]);
        let failed =
            point(&script, &action("drag 0.1 0.1 0.9 0.9"), None, MouseTiming::default(), soon()).await;
        assert_eq!(failed.unwrap_err().effect(), Effect::Done);
        let last = script.sent().pop().unwrap().1;
        assert_eq!(last["arguments"]["events"][0]["data"], json!({"button": "left", "down": false}));
    }

    #[tokio::test(start_paused = true)]
    async fn a_button_is_released_before_the_deadline() {
        let slow = MouseTiming { hold: Duration::from_secs(2), ..MouseTiming::default() };
        let endless = MouseTiming { hold: Duration::MAX, ..MouseTiming::default() };
        // The work deadline passes between two steps, or while a step is not answered, for example the press.
        let never = Duration::from_secs(60);
        for (words, timing, replies) in [
            ("drag 0.1 0.1 0.9 0.9", slow, vec![Step::late(Duration::from_millis(1), DONE)]),
            (
                "drag 0.1 0.1 0.9 0.9",
                MouseTiming::default(),
                vec![DONE.into(), DONE.into(), Step::late(never, DONE), DONE.into()],
            ),
            ("click", MouseTiming::default(), vec![Step::late(never, DONE), DONE.into()]),
            ("click", endless, vec![DONE.into(), Step::late(never, DONE), DONE.into()]),
        ] {
            let script = Script::new(replies);
            let deadline = Instant::now() + Duration::from_secs(5);
            let failed = point(&script, &action(words), None, timing, deadline).await;
            assert_ne!(failed.unwrap_err().effect(), Effect::None, "{words}");
            let (at, last) = script.sent().pop().unwrap();
            assert_eq!(last["arguments"]["events"][0]["data"], json!({"button": "left", "down": false}));
            assert_eq!(at, deadline - Duration::from_secs(1), "{words}");
        }
    }
}
