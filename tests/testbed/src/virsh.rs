//! `virsh` as a child process: the testbed's way to libvirt, and a witness that is independent of the code
//! under test.

use std::process::Command;
use std::time::Duration;

use crate::command::run;
use crate::error::Result;

/// How long one `virsh` may take. A daemon on this machine answers in milliseconds, in seconds under load.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Runs `virsh -c URI ARGUMENTS…` to its end and returns its stdout.
pub(crate) fn virsh(uri: &str, arguments: &[&str], deadline: Duration) -> Result<String> {
    run(Command::new("virsh").args(["--quiet", "--connect", uri]).args(arguments), deadline)
}
