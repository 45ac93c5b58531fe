//! Keys, text and the mouse, as the guest's kernel receives them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use atp_e2e::{Bed, bed, within};
use atp_protocol::input::{Chord, KeyTiming, Layout, MouseAction, MouseTiming, ScreenSize, point, press};
use atp_protocol::{LibvirtCarrier, ProtocolError};
use atp_transport::LibvirtConnection;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::{in_seconds, manager, vm};

/// Time limit of each test.
const LIMIT: Duration = Duration::from_secs(200);

/// An input event of the kernel (`struct input_event`), without its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Event {
    kind: u16,
    code: u16,
    value: i32,
}

const KEY: u16 = 1;
/// Neither down nor up.
const REPEATED: i32 = 2;
const RELATIVE: u16 = 2;
const ABSOLUTE: u16 = 3;
/// The sizes of the time, and of an event with it.
const TIME: usize = 16;
const EVENT: usize = 24;

/// Records the events of a guest's input device during an action, and returns them without synchronisation events.
///
/// `device` is a part of its name. The recording is known to run before the action starts, and continues until `last`
/// is recorded.
fn record(bed: &Bed, device: &str, last: Event, done: impl FnOnce()) -> Vec<Event> {
    let shell = |line: &str| {
        let run = bed.run(&["exec", "h1/vm1", "--shell", "--", line]);
        run.exits_with(0).outcome("h1/vm1")
    };
    // The handlers of the device are listed three lines below its name.
    let file = format!("/tmp/recorded-{}", device.replace(' ', "-"));
    let start = format!(
        "n=$(grep -A4 -i 'Name=.*{device}' /proc/bus/input/devices | grep -o 'event[0-9]*' | head -n1); \
         cat /dev/input/$n >{file} 2>/dev/null </dev/null & p=$!; \
         until ls -l /proc/$p/fd | grep -q input/event; do sleep 0.02; done; echo $p"
    );
    let started = shell(&start);
    let recorder = started.stream("stdout").trim().to_owned();
    done();
    let events = atp_e2e::eventually("the last event", Duration::from_secs(60), || {
        let data = shell(&format!("base64 -w0 {file}"));
        let bytes = BASE64.decode(data.stream("stdout").trim()).unwrap();
        let number = |at: &[u8]| u16::from_le_bytes([at[0], at[1]]);
        let events: Vec<Event> = bytes
            .chunks_exact(EVENT)
            .map(|event| &event[TIME..])
            .map(|event| Event {
                kind: number(event),
                code: number(&event[2..]),
                value: i32::from_le_bytes([event[4], event[5], event[6], event[7]]),
            })
            .filter(|event| [KEY, RELATIVE, ABSOLUTE].contains(&event.kind))
            // The kernel repeats a key that a busy machine holds for long: the device itself does not send these
            // events.
            .filter(|event| (event.kind, event.value) != (KEY, REPEATED))
            .collect();
        if events.contains(&last) { Ok(events) } else { Err(events) }
    });
    shell(&format!("kill {recorder}"));
    events
}

/// Runs an action over a monitor of a VM.
fn on_monitor<F, Fut>(bed: &Bed, work: F)
where
    F: FnOnce(LibvirtConnection, Uuid) -> Fut,
    Fut: Future<Output = Result<(), ProtocolError>>,
{
    let vm = vm(bed, "h1", "vm1");
    within(LIMIT, async {
        let manager = manager(bed, atp_e2e::config()).await;
        let done = manager.execute_on_host_with("h1", in_seconds(150), |connection| work(connection, vm));
        done.await.unwrap();
    });
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(150)
}

/// Moves the pointer away from the position that a test will point to: the guest's kernel sends no event for a
/// pointer that is already there.
fn point_elsewhere(bed: &Bed) {
    bed.run(&["mouse", "h1/vm1", "--", "move", "1", "1"]).exits_with(0);
}

fn key(code: u16, down: bool) -> Event {
    Event { kind: KEY, code, value: i32::from(down) }
}

// The kernel's key codes.
const A: u16 = 30;
const B: u16 = 48;
const LEFT_CTRL: u16 = 29;
const LEFT_ALT: u16 = 56;
const LEFT_SHIFT: u16 = 42;
const RIGHT_SHIFT: u16 = 54;
const LEFT_BUTTON: u16 = 0x110;
const RIGHT_BUTTON: u16 = 0x111;
const WHEEL: u16 = 8;

#[test]
fn a_chord_is_pressed_in_order_and_released_in_reverse() {
    let bed = bed();
    let events = record(&bed, "virtio keyboard", key(RIGHT_SHIFT, false), || {
        on_monitor(&bed, |connection, vm| async move {
            let carrier = LibvirtCarrier::new(&connection, vm);
            let chords: Vec<Chord> =
                ["ctrl-alt-shift", "shift_r"].iter().map(|chord| chord.parse().unwrap()).collect();
            press(&carrier, &chords, KeyTiming::default(), deadline()).await
        });
    });
    let expected = [
        key(LEFT_CTRL, true),
        key(LEFT_ALT, true),
        key(LEFT_SHIFT, true),
        key(LEFT_SHIFT, false),
        key(LEFT_ALT, false),
        key(LEFT_CTRL, false),
        key(RIGHT_SHIFT, true),
        key(RIGHT_SHIFT, false),
    ];
    assert_eq!(events, expected);
}

#[test]
fn text_arrives_by_the_keyboard_map_of_the_guest() {
    let bed = bed();
    let text: String = (' '..='~').collect();
    let shell = |line: &str| {
        let run = bed.run(&["exec", "h1/vm1", "--shell", "--", line]);
        run.exits_with(0).outcome("h1/vm1")
    };
    // The kernel turns keys into characters for the reader of the screen's terminal.
    shell(
        "stty -F /dev/tty1 -icanon -echo; cat /dev/tty1 >/tmp/typed 2>/dev/null </dev/null & p=$!; \
         until ls -l /proc/$p/fd | grep -q tty1; do sleep 0.02; done; echo $p >/tmp/reader",
    );
    // A busy machine may hold a key so long that the guest's kernel repeats it. Then the text is typed again.
    atp_e2e::eventually("the typed text", Duration::from_secs(120), || {
        let typed = text.clone();
        on_monitor(&bed, |connection, vm| async move {
            let carrier = LibvirtCarrier::new(&connection, vm);
            let strokes = Layout::US.strokes(&format!("{typed}\n")).unwrap();
            press(&carrier, &strokes, KeyTiming::default(), deadline()).await
        });
        // Text typed by other tests may still be in the input before it.
        let seen = shell("sleep 1; cat /tmp/typed").stream("stdout").to_owned();
        if seen.ends_with(&format!("{text}\n")) { Ok(()) } else { Err(seen) }
    });
    shell("kill $(cat /tmp/reader); stty -F /dev/tty1 sane");
}

#[test]
fn the_mouse_moves_clicks_scrolls_and_drags() {
    let bed = bed();
    let screen = Some(ScreenSize { width: 720, height: 400 });
    let actions = ["move 719 0", "click right", "scroll -2", "drag 0.0 0.0 100% 0.5"];
    let released = key(LEFT_BUTTON, false);
    let events = record(&bed, "virtio tablet", released, || {
        on_monitor(&bed, |connection, vm| async move {
            let carrier = LibvirtCarrier::new(&connection, vm);
            for action in actions {
                let action = MouseAction::from_words(action.split_whitespace()).unwrap();
                point(&carrier, &action, screen, MouseTiming::default(), deadline()).await?;
            }
            Ok(())
        });
    });
    let of_kind = |kind| events.iter().filter(|event| event.kind == kind).copied().collect::<Vec<_>>();
    let buttons = [key(RIGHT_BUTTON, true), key(RIGHT_BUTTON, false), key(LEFT_BUTTON, true), released];
    assert_eq!(of_kind(KEY), buttons);
    let notch = Event { kind: RELATIVE, code: WHEEL, value: 1 };
    assert_eq!(of_kind(RELATIVE), [notch, notch]);
    let moves = of_kind(ABSOLUTE);
    let x: Vec<i32> = moves.iter().filter(|event| event.code == 0).map(|event| event.value).collect();
    // The last pixel of 720, then from the left edge to the right one.
    assert_eq!((x[0], x[1], x[x.len() - 1]), (0x8000 * 1439 / 1440, 0, 0x7fff), "{x:?}");
    assert!(x.len() >= 10 && x[1..].is_sorted(), "{x:?}");
    let y: Vec<i32> = moves.iter().filter(|event| event.code == 1).map(|event| event.value).collect();
    assert_eq!(y.last(), Some(&0x4000), "{y:?}");
}

#[test]
fn steps_of_a_scenario_press_type_point_take_screenshots_and_copy() {
    let bed = bed();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("steps-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (sent, scenario) = (folder.join("sent"), folder.join("steps.yaml"));
    fs::write(&sent, b"from here\0\xff").unwrap();
    let text = format!(
        "name: steps\ntargets: h1/vm1\nvariables: {{here: '{}'}}\nsteps:\n  - key: [ctrl-alt, shift_r]\n  - type: ab\n  \
         - mouse: click right 360 200\n  - screenshot: ${{here}}/shots\n  \
         - cp: {{push: '${{here}}/sent', to: /tmp/sent}}\n  - exec: wc -c < /tmp/sent\n    capture: bytes\n  \
         - assert: {{stdout: '^11$'}}\n  - cp: {{pull: /tmp/sent, to: '${{here}}/pulled-${{bytes}}'}}\n\
         teardown:\n  - exec: rm /tmp/sent\n",
        folder.display()
    );
    fs::write(&scenario, text).unwrap();

    point_elsewhere(&bed);
    let mut keys = Vec::new();
    let pointed = record(&bed, "virtio tablet", key(RIGHT_BUTTON, false), || {
        keys = record(&bed, "virtio keyboard", key(B, false), || {
            let run = bed.run(&["run", scenario.to_str().unwrap()]);
            let outcome = run.exits_with(0).outcome("h1/vm1");
            let ops: Vec<_> =
                outcome.data["steps"].as_array().unwrap().iter().map(|step| step["op"].clone()).collect();
            assert_eq!(ops, ["key", "type", "mouse", "screenshot", "push", "exec", "assert", "pull"]);
        });
    });
    let typed = [LEFT_CTRL, LEFT_ALT].map(|code| key(code, true)).into_iter();
    let typed = typed.chain([LEFT_ALT, LEFT_CTRL].map(|code| key(code, false)));
    let strokes = [RIGHT_SHIFT, A, B].into_iter().flat_map(|code| [key(code, true), key(code, false)]);
    assert_eq!(keys, typed.chain(strokes).collect::<Vec<_>>());
    let x = pointed.iter().find(|event| event.kind == ABSOLUTE && event.code == 0).unwrap();
    assert_eq!(x.value, 0x8000 * 721 / 1440);
    assert!(pointed.contains(&key(RIGHT_BUTTON, true)), "{pointed:?}");
    assert!(fs::read(folder.join("shots/h1/vm1.png")).unwrap().starts_with(b"\x89PNG"));
    assert_eq!(fs::read(folder.join("pulled-11/h1/vm1/sent")).unwrap(), fs::read(&sent).unwrap());
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_verbs_press_type_and_point() {
    let bed = bed();
    point_elsewhere(&bed);
    // Pixels need the size of the screen, which is requested for this.
    let right_click = key(RIGHT_BUTTON, false);
    let events = record(&bed, "virtio tablet", right_click, || {
        let run = bed.run(&["mouse", "h1/vm1", "--", "click", "right", "360", "200"]);
        run.exits_with(0);
        assert_eq!(run.brief(), ["h1/vm1 ok done"]);
    });
    let x = events.iter().find(|event| event.kind == ABSOLUTE && event.code == 0).unwrap();
    assert_eq!(x.value, 0x8000 * 721 / 1440);

    let events = record(&bed, "virtio keyboard", key(RIGHT_SHIFT, false), || {
        bed.run(&["type", "h1/*", "--", "a"]).exits_with(0);
        bed.run(&["key", "h1/vm1", "--hold", "20ms", "--", "shift_r"]).exits_with(0);
    });
    assert_eq!(events.len(), 4, "{events:?}");

    // QEMU would drop it without an error.
    bed.host("h1").unwrap().virsh(&["suspend", "vm1"]).unwrap();
    for args in [["key", "h1/vm1", "--", "a"], ["mouse", "h1/vm1", "--", "click"]] {
        let run = bed.run(&args);
        assert_eq!(run.exits_with(1).brief(), ["h1/vm1 failed none vm-not-running"]);
    }
    // Steps that do not fit into the time are skipped and reported.
    let run = bed.run(&["type", "h1/vm2", "--timeout", "10s", "--hold", "500ms", "--", &"a".repeat(60)]);
    let brief = run.exits_with(1).brief();
    // The deadline may fall into a step, of which nothing is known then.
    let expected = ["done", "unknown"].map(|effect| [format!("h1/vm2 timeout {effect} call-timeout")]);
    assert!(expected.iter().any(|expected| brief == *expected), "{brief:?}");
}
