//! Each step on the way to a host's daemon: engine, name, TCP or socket, ssh, TLS, authentication, daemon, limits.

use atp_api::{Data, Diagnosis, Finding, HostReport, OutcomeError, Status};
use atp_transport::{ConnectStage, DaemonWay, Effect, Engine, ErrorKind, HostInfo};

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
    let way = DaemonWay::of(&uri);
    let engine = info.config.as_ref().map_or_else(|| job.manager.config().engine, |config| config.engine);
    let mut findings: Vec<_> = speaks(engine.for_uri(&uri)).into_iter().collect();
    match host_check::report(job).await {
        Ok(report) => {
            findings.extend(path(way.as_ref(), None));
            findings.push(daemon(&report));
            findings.push(limits::findings(&uri, in_flight_per_host(job, &info)).await);
            Completion::ok(Effect::None, Data::Diagnosis(Diagnosis { findings, host: Some(report) }))
        }
        Err(error) => {
            let failed = Failed::of(&error);
            findings.extend(path(way.as_ref(), Some(&failed)));
            Completion { data: Some(Data::Diagnosis(Diagnosis::from(findings))), ..job.failure(&error) }
        }
    }
}

/// What speaks to the daemon; none in a program without any engine.
fn speaks(engine: Engine) -> Option<Finding> {
    let what = match engine {
        Engine::Native => "native: ATP's own client of libvirt's protocol",
        Engine::Library => "library: libvirt's C library",
        Engine::Auto => return None,
    };
    Some(Finding::ok("engine", what))
}

/// The steps to a daemon, up to the one that failed. The steps after it were not reached and have no finding. If it is not
/// known how far an attempt came, nothing is said of the steps.
fn path(way: Option<&DaemonWay>, failed: Option<&Failed>) -> Vec<Finding> {
    let problem =
        |check, failed: &Failed| vec![Finding::problem(check, failed.message.clone(), failed.hint.clone())];
    let stage = match failed {
        None => ConnectStage::Open,
        Some(failed) => match failed.stage {
            Some(ConnectStage::Settings) => return problem("uri", failed),
            Some(stage) => stage,
            None => return problem("daemon", failed),
        },
    };
    let steps = way.map(steps).unwrap_or_default();
    let check = steps.iter().find(|(of, ..)| *of == stage).map_or("daemon", |(_, check, _)| check);
    let passed = steps.into_iter().filter(|(of, ..)| *of < stage);
    let mut findings: Vec<_> = passed.map(|(_, check, message)| Finding::ok(check, message)).collect();
    if let Some(failed) = failed {
        findings.extend(problem(check, failed));
    }
    findings
}

/// The steps of a way: what it is called, and what to say when it is passed.
fn steps(way: &DaemonWay) -> Vec<(ConnectStage, &'static str, String)> {
    let host = way.host.as_deref().unwrap_or("localhost");
    let mut steps = Vec::new();
    match way.port {
        Some(port) => {
            steps.push((ConnectStage::Name, "name", format!("{host} has an address")));
            steps.push((ConnectStage::Dial, "tcp", format!("{host} accepts connections on port {port}")));
        }
        None if way.transport == "unix" => {
            steps.push((ConnectStage::Dial, "socket", "the daemon's socket accepts connections".to_owned()));
        }
        None => {}
    }
    match way.transport {
        "tls" => steps.push((ConnectStage::Tls, "tls", "both sides accept the certificates".to_owned())),
        "ssh" => steps.push((ConnectStage::Command, "ssh", format!("ssh reaches a daemon on {host}"))),
        "ext" => steps.push((ConnectStage::Command, "command", "the command reaches a daemon".to_owned())),
        _ => {}
    }
    steps.push((ConnectStage::Authenticate, "auth", "the daemon accepts our credentials".to_owned()));
    steps
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

    fn found(uri: &str, stage: Option<Option<ConnectStage>>) -> Vec<(String, Verdict)> {
        let failed = stage.map(|stage| Failed { stage, message: "m".into(), hint: "h".into() });
        let steps = path(DaemonWay::of(uri).as_ref(), failed.as_ref());
        steps.into_iter().map(|step| (step.check.into_owned(), step.verdict)).collect()
    }

    #[test]
    fn steps_are_reported_up_to_the_one_that_failed() {
        use ConnectStage::{Authenticate, Command, Daemon, Dial, Name, Open, Settings, Tls};
        for (uri, stage, passed, failed) in [
            ("qemu+tcp://h/system", Name, vec![], "name"),
            ("qemu+tcp://h/system", Dial, vec!["name"], "tcp"),
            ("qemu+tcp://h/system", Daemon, vec!["name", "tcp"], "daemon"),
            ("qemu+tcp://h/system", Authenticate, vec!["name", "tcp"], "auth"),
            ("qemu+tcp://h/system", Open, vec!["name", "tcp", "auth"], "daemon"),
            ("qemu+tls://h/system", Tls, vec!["name", "tcp"], "tls"),
            ("qemu+tls://h/system", Authenticate, vec!["name", "tcp", "tls"], "auth"),
            ("qemu+ssh://h/system", Settings, vec![], "uri"),
            ("qemu+ssh://h/system", Command, vec![], "ssh"),
            ("qemu+ssh://h/system", Open, vec!["ssh", "auth"], "daemon"),
            ("qemu+ext:///system?command=/c", Command, vec![], "command"),
            ("qemu:///system", Dial, vec![], "socket"),
            ("qemu:///system", Authenticate, vec!["socket"], "auth"),
        ] {
            let mut expected: Vec<_> =
                passed.into_iter().map(|check| (check.to_owned(), Verdict::Ok)).collect();
            expected.push((failed.to_owned(), Verdict::Problem));
            assert_eq!(found(uri, Some(Some(stage))), expected, "{uri} {stage:?}");
        }
    }

    #[test]
    fn all_steps_of_a_host_that_answers_are_passed() {
        let checks = |uri| found(uri, None).into_iter().map(|(check, _)| check).collect::<Vec<_>>();
        assert_eq!(checks("qemu+tls://h/system"), ["name", "tcp", "tls", "auth"]);
        assert_eq!(checks("qemu+ssh://h/system"), ["ssh", "auth"]);
        assert_eq!(checks("qemu:///system"), ["socket", "auth"]);
        assert_eq!(checks("test:///default"), ["auth"]);
    }

    #[test]
    fn nothing_is_said_of_steps_that_were_not_looked_at() {
        assert_eq!(found("qemu+tcp://h/system", Some(None)), [("daemon".to_owned(), Verdict::Problem)]);
    }
}
