//! `virsh` as a child process: the testbed's access to libvirt, independent of the code under test.

use std::process::Command;
use std::time::Duration;

use crate::command::run;
use crate::error::Result;

/// The maximum time of one `virsh` call. A daemon on this machine answers in milliseconds, under load in seconds.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Runs `virsh -c URI ARGUMENTS…` and returns its stdout.
pub(crate) fn virsh(uri: &str, arguments: &[&str], deadline: Duration) -> Result<String> {
    run(Command::new("virsh").args(["--quiet", "--connect", uri]).args(arguments), deadline)
}
