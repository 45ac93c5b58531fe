//! What tests of runs start from: virtual time, and targets that no host knows.

use atp_executor::Target;
use atp_transport::domain::{DomainInfo, DomainState};
use uuid::Uuid;

/// Runs a test in time that passes only while nothing else happens.
pub(crate) fn virtual_time<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}

/// The VM `vmN` on the host `hN`.
pub(crate) fn target(host: usize, vm: usize) -> Target {
    let uuid = Uuid::from_u128((host * 1000 + vm + 1) as u128);
    let domain = DomainInfo::new(format!("vm{vm}"), uuid, DomainState::Running);
    Target { host: format!("h{host}").parse().unwrap(), domain: Some(DomainInfo { id: Some(1), ..domain }) }
}
