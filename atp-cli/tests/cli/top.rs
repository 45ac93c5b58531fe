//! `top` on a terminal of the test's own, whose screen is read.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use atp_fleet::FleetOptions;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::atp::{DEMO, Home, NATIVE, simulated};

/// Time limit for what is soon on the screen; the machine may be busy.
const SOON: Duration = Duration::from_secs(120);
/// Between two looks at the screen.
const POLL: Duration = Duration::from_millis(20);
const ROWS: u16 = 100;

/// `atp` on a terminal.
pub(crate) struct Terminal {
    child: Child,
    side: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    pub(crate) fn start(home: &Home, columns: u16, args: &[&str]) -> Terminal {
        let side = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&side).unwrap();
        unlockpt(&side).unwrap();
        tcsetwinsize(&side, Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&side, Vec::new()).unwrap();
        let other = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        // It is the terminal of the process, and not only its stdin and stdout.
        let mut command = home.command("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_atp")]).args(args).env("TERM", "xterm-256color");
        command.stdin(other.try_clone().unwrap()).stdout(other.try_clone().unwrap()).stderr(other);
        let child = command.spawn().unwrap();
        // It holds the other side, which has to be closed when the process ends.
        drop(command);
        let size = |cells| NonZeroU16::new(cells).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(size(ROWS), size(columns), 0)));
        let side = File::from(side);
        let (mut written, shown) = (side.try_clone().unwrap(), Arc::clone(&screen));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Reading fails when the process has closed the terminal.
            while let Ok(count @ 1..) = written.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..count]);
            }
        });
        Terminal { child, side, screen }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    #[track_caller]
    pub(crate) fn shows(&self, what: &str, is_there: impl Fn(&str) -> bool) {
        let began = Instant::now();
        while !is_there(&self.text()) {
            assert!(began.elapsed() < SOON, "{what} is not shown:\n{}", self.text());
            thread::sleep(POLL);
        }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.side.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end, and checks that the terminal is as it was.
    #[track_caller]
    pub(crate) fn ends(mut self) -> ExitStatus {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < SOON, "it does not end:\n{}", self.text());
            thread::sleep(POLL);
        };
        let is_as_before = || {
            let parser = self.screen.lock().unwrap();
            !parser.screen().alternate_screen() && !parser.screen().hide_cursor()
        };
        while !is_as_before() {
            assert!(began.elapsed() < SOON, "the screen is not restored:\n{}", self.text());
            thread::sleep(POLL);
        }
        let modes = tcgetattr(&self.side).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "{modes:?}");
        status
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rows of VMs on the screen.
fn rows(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.contains(" vm"))
}

#[test]
fn hosts_and_vms_are_shown_one_that_hangs_is_stale_and_a_selector_filters() {
    let faults = "hung=1".parse().unwrap();
    let options = FleetOptions { hosts: 3, vms: 20, faults, ..FleetOptions::default() };
    let (_fleet, home, settings, _runtime) = simulated(options, NATIVE);
    let mut top = Terminal::start(&home, 160, &["--config", &settings, "top", "--interval", "1s"]);
    top.shows("the fleet", |text| {
        text.contains("3 hosts, 0 stale; 60 VMs, 60 running, 1 stale") && rows(text).count() == 60
    });
    // The others go on: they have rates, and bars.
    top.shows("rates", |text| {
        rows(text).filter(|row| row.contains("MiB/s") && row.contains('▁')).count() == 59
            && rows(text).filter(|row| row.contains("never answered")).count() == 1
    });
    top.types("h/h2/vm1*x\u{7f}\r");
    top.shows("the filter", |text| {
        text.contains("only h2/vm1*")
            && rows(text).count() == 11
            && rows(text).all(|row| row.starts_with("h2 "))
    });
    top.types("/[\r");
    top.shows("the problem", |text| text.lines().last().is_some_and(|line| line.starts_with("/h2/vm1*[")));
    top.types("\u{3}");
    assert_eq!(top.ends().code(), Some(0));
}

#[test]
fn on_a_narrow_terminal_names_are_whole_and_a_signal_restores_it() {
    let home = Home::new();
    let top = Terminal::start(&home, 110, &["--host", DEMO, "top"]);
    // On a narrow screen too no name is cut.
    top.shows("the VM", |text| {
        ["1 VMs, 1 running, 0 stale", "HOST VM   ", "demo test "].iter().all(|part| text.contains(part))
    });
    let pid = rustix::process::Pid::from_raw(top.child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(top.ends().code(), Some(143));
}

#[test]
fn a_name_that_no_vm_has_is_told_and_fails() {
    let home = Home::new();
    for (args, is_over) in [(&["nosuch"][..], true), (&["demo/test", "nosuch"], false)] {
        let mut top =
            Terminal::start(&home, 100, &[&["--host", DEMO, "top", "--interval", "100ms"], args].concat());
        if !is_over {
            top.shows("the VM", |text| text.contains("test"));
            top.types("q");
        }
        top.shows("the problem", |text| {
            text.contains("no VM is named 'nosuch'") && text.contains("check the name")
        });
        assert_eq!(top.ends().code(), Some(1));
    }
}

#[test]
fn without_a_terminal_nothing_is_shown() {
    let run = Home::new().run(["--host", DEMO, "top"]).exits(2);
    assert_eq!(run.says(&["needs a terminal", "atp stats --count 0"]).stdout, "");
}
