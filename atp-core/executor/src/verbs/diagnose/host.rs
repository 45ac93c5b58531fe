//! Each step on the way to a host's daemon: name, TCP, authentication, daemon, limits.

use atp_api::{Data, Diagnosis, Finding, HostReport, OutcomeError, Status};
use atp_transport::{Effect, ErrorKind, HostInfo, daemon_socket};

use super::{Failed, limits};
use crate::verbs::completion::Completion;
use crate::verbs::host_check;
use crate::verbs::job::Job;

pub(in crate::verbs) async fn perform(job: &Job) -> Completion {
    let Some(info) = job.manager.hosts().into_iter().find(|info| info.id == job.host()) else {
        let error = OutcomeError::new(ErrorKind::UnknownHost, "the host was removed in the meantime");
        return Completion::failed(Status::Failed, Effect::None, error);
    };
    let uri = info.effective_uri();
    let socket = daemon_socket(&uri);
    match host_check::report(job).await {
        Ok(report) => {
            let mut findings = path(socket.as_ref(), None);
            findings.push(daemon(&report));
            findings.push(limits::findings(&uri, in_flight_per_host(job, &info)).await);
            Completion::ok(Effect::None, Data::Diagnosis(Diagnosis { findings, host: Some(report) }))
        }
        Err(error) => {
            let failed = Failed::of(&error);
            let diagnosis = Diagnosis::from(path(socket.as_ref(), Some(&failed)));
            Completion { data: Some(Data::Diagnosis(diagnosis)), ..job.failure(&error) }
        }
    }
}

/// The steps to a daemon, up to the one that failed. The steps after it were not reached and have no finding.
fn path(socket: Option<&(String, u16)>, failed: Option<&Failed>) -> Vec<Finding> {
    let kind = failed.and_then(|failed| failed.kind);
    let problem =
        |check| failed.map(|failed| Finding::problem(check, failed.message.clone(), failed.hint.clone()));
    let mut findings = Vec::new();
    if let Some((host, port)) = socket {
        if kind == Some(ErrorKind::NameNotResolved) {
            findings.extend(problem("name"));
            return findings;
        }
        findings.push(Finding::ok("name", format!("{host} has an address")));
        if let Some(ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable) = kind {
            findings.extend(problem("tcp"));
            return findings;
        }
        findings.push(Finding::ok("tcp", format!("{host} accepts connections on port {port}")));
    }
    if kind == Some(ErrorKind::AuthFailed) {
        findings.extend(problem("auth"));
        return findings;
    }
    match failed {
        Some(_) => findings.extend(problem("daemon")),
        None => findings.push(Finding::ok("auth", "the daemon accepts our credentials")),
    }
    findings
}

fn daemon(report: &HostReport) -> Finding {
    Finding::ok(
        "daemon",
        format!(
            "libvirt {} on {}, {} {}, VMs: {}, active: {}, answers in {:.1} ms",
            report.daemon_version,
            report.hostname,
            report.hypervisor,
            report.hypervisor_version,
            report.domains,
            report.active_domains,
            report.latency_ms
        ),
    )
}

/// The maximum number of our calls in flight to a host.
fn in_flight_per_host(job: &Job, host: &HostInfo) -> usize {
    host.config
        .as_ref()
        .map_or_else(|| job.manager.config().calls.max_per_host, |config| config.calls.max_per_host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use atp_api::Verdict;

    #[test]
    fn steps_are_reported_up_to_the_one_that_failed() {
        let socket = Some(("h".to_owned(), 16509));
        let steps = |kind: Option<ErrorKind>, socket: Option<&(String, u16)>| {
            let failed = kind.map(|kind| Failed { kind: Some(kind), message: "m".into(), hint: "h".into() });
            let steps = path(socket, failed.as_ref());
            steps.into_iter().map(|step| (step.check.into_owned(), step.verdict)).collect::<Vec<_>>()
        };
        use Verdict::{Ok, Problem};
        let socket = socket.as_ref();
        assert_eq!(
            steps(None, socket),
            [("name".to_owned(), Ok), ("tcp".to_owned(), Ok), ("auth".to_owned(), Ok)]
        );
        assert_eq!(steps(Some(ErrorKind::NameNotResolved), socket), [("name".to_owned(), Problem)]);
        assert_eq!(
            steps(Some(ErrorKind::ConnectionRefused), socket),
            [("name".to_owned(), Ok), ("tcp".to_owned(), Problem)]
        );
        assert_eq!(
            steps(Some(ErrorKind::HostUnreachable), socket),
            [("name".to_owned(), Ok), ("tcp".to_owned(), Problem)]
        );
        assert_eq!(
            steps(Some(ErrorKind::AuthFailed), socket),
            [("name".to_owned(), Ok), ("tcp".to_owned(), Ok), ("auth".to_owned(), Problem)]
        );
        assert_eq!(
            steps(Some(ErrorKind::ConnectTimeout), socket),
            [("name".to_owned(), Ok), ("tcp".to_owned(), Ok), ("daemon".to_owned(), Problem)]
        );
        assert_eq!(steps(Some(ErrorKind::ConnectionRefused), None), [("daemon".to_owned(), Problem)]);
        assert_eq!(steps(None, None), [("auth".to_owned(), Ok)]);
    }
}
