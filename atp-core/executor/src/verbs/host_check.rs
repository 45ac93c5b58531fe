//! `host check`: what a host is, and how fast it answers.

use std::time::Duration;

use atp_api::{Data, HostReport};
use atp_protocol::ProtocolError;
use atp_transport::Effect;
use tokio::time::Instant;

use super::completion::Completion;
use super::facts::VerbFacts;
use super::job::Job;

pub(super) static FACTS: VerbFacts = VerbFacts::look("host-check");

pub(super) async fn perform(job: &Job) -> Completion {
    match report(job).await {
        Ok(report) => Completion::ok(Effect::None, Data::Host(report)),
        Err(error) => job.failure(&error),
    }
}

/// Asks a host what it is.
pub(super) async fn report(job: &Job) -> Result<HostReport, ProtocolError> {
    let asked = Instant::now();
    let report = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        let connected = Instant::now();
        let daemon_version = connection.lib_version().await?;
        let answered = Instant::now();
        let hypervisor = connection.hypervisor().await?;
        let domains = connection.list_domains().await?;
        Ok::<_, ProtocolError>(HostReport {
            hostname: connection.hostname().await?,
            daemon_version,
            hypervisor: hypervisor.kind,
            hypervisor_version: hypervisor.version,
            connect_ms: fractional_millis(connected - asked),
            latency_ms: fractional_millis(answered - connected),
            domains: domains.len(),
            active_domains: domains.iter().filter(|domain| domain.state.is_active()).count(),
        })
    });
    report.await
}

/// Milliseconds to the microsecond.
fn fractional_millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
