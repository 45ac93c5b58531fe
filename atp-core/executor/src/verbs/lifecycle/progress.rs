//! How far a save is.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::time::Duration;

use atp_transport::domain::{DomainInfo, JobProgress};
use atp_transport::{ErrorKind, ExecuteOptions, LibvirtConnection, TransportError};
use tokio::time::{self, Instant};

use crate::verbs::job::Job;

/// How often libvirt is asked.
const EVERY: Duration = Duration::from_secs(1);

/// The maximum time for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Does the work, and reports meanwhile how far libvirt is with its job on the VM. The work does not depend on that: it is neither
/// delayed nor ended by a question that hangs or fails, after which there are no more.
pub(super) async fn reported<T>(job: &Job, domain: &DomainInfo, work: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        done = work => done,
        never = report(job, domain) => match never {},
    }
}

async fn report(job: &Job, domain: &DomainInfo) -> Infallible {
    loop {
        time::sleep(EVERY).await;
        // A lease of its own: its deadline is that of the question.
        let options = ExecuteOptions::by(Instant::now() + PATIENCE);
        let ask = |connection: LibvirtConnection| async move { connection.job_progress(domain.uuid).await };
        match job.manager.execute_on_host_with(job.host(), options, ask).await {
            Ok(Some(JobProgress { done, total })) => job.attempt.progress(done, total),
            // It has not begun.
            Ok(None) => {}
            // Nothing was asked.
            Err(TransportError::CallTimeout { sent: false, .. }) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::MonitorBusy | ErrorKind::StuckCalls | ErrorKind::CallRefused
                ) => {}
            Err(_) => return pending().await,
        }
    }
}
