//! Calls with an end that the test selects.

use std::time::Duration;

use atp_transport::{
    CallFailure, ErrorKind, ExecuteOptions, Lane, LaneKind, LibvirtError, PooledConnection, Result,
    TransportManager,
};
use tokio::time::Instant;

use crate::scripted::Script;

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Refused,
    Busy,
    /// The link is lost before or after the request was sent.
    Lost {
        sent: bool,
    },
    NoThread,
    Never,
}

/// Makes one call, to a VM if one is given.
pub(crate) async fn ask(lease: &PooledConnection<Script>, vm: Option<u128>, answer: Answer) -> Result<()> {
    ask_in(lease, vm.map(|target| Lane { target, kind: LaneKind::Monitor }), answer).await
}

/// Makes one call in a lane.
pub(crate) async fn ask_in(
    lease: &PooledConnection<Script>,
    lane: Option<Lane>,
    answer: Answer,
) -> Result<()> {
    lease
        .call("asks", lane, move |_link, in_flight| async move {
            let _in_flight = in_flight;
            match answer {
                Answer::Done => Ok(()),
                Answer::Refused => {
                    Err(CallFailure::Refused { kind: ErrorKind::VmNotFound, source: refusal() })
                }
                Answer::Busy => Err(CallFailure::Busy { occupied_for: Duration::from_secs(9) }),
                Answer::Lost { sent } => Err(CallFailure::Lost { sent, source: None }),
                Answer::NoThread => Err(CallFailure::NoThread { threads: 1 }),
                Answer::Never => std::future::pending().await,
            }
        })
        .await
}

/// Work of one call, with a deadline after `time_limit`.
pub(crate) async fn work(
    manager: &TransportManager<Script>,
    host: &str,
    time_limit: Duration,
    vm: Option<u128>,
    answer: Answer,
) -> Result<()> {
    let options = ExecuteOptions::by(Instant::now() + time_limit);
    manager.execute_on_host_with(host, options, |lease| async move { ask(&lease, vm, answer).await }).await
}

fn refusal() -> LibvirtError {
    LibvirtError { code: 42, domain: 10, level: 2, message: "Domain not found".into() }
}
