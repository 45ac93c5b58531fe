//! Outcomes for the tests of the output formats.

use atp_executor::{Data, ExecReport, Outcome, Status, Stream};
use atp_transport::Effect;

/// A successful `exec` without data, on a VM of the host `h1` or on the host.
pub(crate) fn outcome(vm: Option<&str>) -> Outcome {
    Outcome {
        host: Some("h1".parse().unwrap()),
        vm: vm.map(str::to_owned),
        effect: Effect::Done,
        attempts: 1,
        duration_ms: 7,
        ..Outcome::not_started("exec", Status::Ok)
    }
}

/// A process that ended with this output.
pub(crate) fn ran(exit_code: Option<i32>, signal: Option<i32>, stdout: &[u8], stderr: &[u8]) -> Data {
    let stream = |bytes: &[u8]| Stream { bytes: bytes.to_vec(), ..Stream::default() };
    Data::Exec(ExecReport { exit_code, signal, stdout: stream(stdout), stderr: stream(stderr) })
}
