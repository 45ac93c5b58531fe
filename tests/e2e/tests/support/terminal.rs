//! A terminal of a test.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use atp_e2e::{Atp, eventually};
use parking_lot::Mutex;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// A time limit far beyond what is measured.
const SOON: Duration = Duration::from_secs(90);

/// A terminal of a test, and all that was shown on it.
pub(crate) struct Terminal {
    master: fs::File,
    slave: fs::File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// A new one of 24 lines with 120 columns.
    pub(crate) fn open() -> Self {
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        tcsetwinsize(&master, Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let slave = fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let master = fs::File::from(master);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, all) = (master.try_clone().unwrap(), Arc::clone(&shown));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                all.lock().extend(&buffer[..read]);
            }
        });
        Terminal { master, slave, shown }
    }

    /// Starts `atp` on it.
    pub(crate) fn start(&self, atp: Atp) -> Child {
        let side = || Stdio::from(self.slave.try_clone().unwrap());
        let mut command: Command = atp.into_command();
        command.stdin(side()).stdout(side()).stderr(side());
        command.spawn().unwrap()
    }

    /// All that was shown on it so far, with its control sequences.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock()).into_owned()
    }

    /// Waits until it has shown this text.
    pub(crate) fn shows(&self, text: &str) {
        eventually(text, SOON, || if self.text().contains(text) { Ok(()) } else { Err(self.text()) });
    }

    /// Types these bytes.
    pub(crate) fn type_in(&self, bytes: &[u8]) {
        (&self.master).write_all(bytes).unwrap();
    }

    /// Its present modes.
    pub(crate) fn local_modes(&self) -> LocalModes {
        tcgetattr(&self.slave).unwrap().local_modes
    }
}
