//! A process in the guest, asked after over one connection after another if need be.

use atp_protocol::exec::{self, Process};
use atp_protocol::{ExecPolicy, ExecSpec, LibvirtCarrier, ProtocolError};
use atp_transport::domain::DomainInfo;
use atp_transport::{Effect, ErrorKind};

use super::Job;
use super::answer::{Answer, explain, finish, not_running};
use super::reconnect_retry::ReconnectRetry;
use crate::error::OutcomeError;
use crate::operation::Operation;
use crate::outcome::{Data, ExecReport, Status};
use crate::policy::Policy;
use crate::verbs::completion::Completion;

pub(super) async fn run(
    job: &Job<'_>,
    operation: &Operation,
    domain: &DomainInfo,
    spec: &ExecSpec,
    policy: &Policy,
) -> Completion {
    let deadline = job.attempt.deadline();
    let how = ExecPolicy::default();
    let mut retry = ReconnectRetry::new(policy, deadline);
    let mut process: Option<Process> = None;
    loop {
        let (slot, patience) = (&mut process, &mut retry);
        let asked = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
            let carrier = LibvirtCarrier::new(&connection, domain.uuid);
            let reconnects = connection.reconnects();
            let process = match slot {
                Some(process) => process,
                None => {
                    if let Some(state) = not_running(&connection, operation, domain).await? {
                        return Ok(Answer::NotRunning(state, Effect::None));
                    }
                    job.attempt.mark_sent().await;
                    match exec::start(&carrier, spec, deadline).await {
                        Ok(process) => slot.insert(process),
                        Err(error) => return explain(job, &connection, operation, domain, Err(error)).await,
                    }
                }
            };
            let output = process.wait(&carrier, &how, deadline).await;
            patience.note_reopened(&connection, reconnects);
            if output.as_ref().is_err_and(|error| !patience.may_pass(error)) {
                process.discard(&carrier, &how, deadline).await;
            }
            explain(job, &connection, operation, domain, output).await
        });
        let asked = match (asked.await, &process) {
            // Once it is started it is asked after, over whatever connection there is.
            (Err(error), Some(process)) => {
                if retry.after(&error).await {
                    continue;
                }
                Err(if matches!(error, ProtocolError::Transport(_)) { process.lost(error) } else { error })
            }
            (asked, _) => asked,
        };
        return finish(job, domain, asked, |output| exec_completion(ExecReport::new(output, spec.encoding)));
    }
}

/// A process that ran is `done`; it has failed if it says so.
fn exec_completion(report: ExecReport) -> Completion {
    if report.is_success() {
        return Completion::ok(Effect::Done, Data::Exec(report));
    }
    let message = match (report.exit_code, report.signal) {
        (_, Some(signal)) => format!("the process died of signal {signal}"),
        (Some(code), None) => format!("the process exited with code {code}"),
        (None, None) => "the process ended, and the guest does not say how".to_owned(),
    };
    let mut error = OutcomeError::new(ErrorKind::ExitNonzero, message);
    if !report.stderr.bytes.is_empty() {
        error = error.with_hint("read what it wrote to standard error");
    }
    let mut completion = Completion::failed(Status::Failed, Effect::Done, error);
    completion.data = Some(Data::Exec(report));
    completion
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Stream;

    fn report(exit_code: Option<i32>, signal: Option<i32>) -> ExecReport {
        ExecReport { exit_code, signal, stdout: Stream::default(), stderr: Stream::default() }
    }

    #[test]
    fn a_process_that_ends_well_is_ok() {
        let completion = exec_completion(report(Some(0), None));
        assert_eq!((completion.status, completion.effect), (Status::Ok, Effect::Done));
        assert_eq!(completion.error, None);
    }

    #[test]
    fn a_process_that_ends_badly_failed_with_its_data() {
        for (ended, message) in [(report(Some(3), None), "code 3"), (report(None, Some(9)), "signal 9")] {
            let completion = exec_completion(ended.clone());
            assert_eq!((completion.status, completion.effect), (Status::Failed, Effect::Done));
            assert_eq!(completion.data, Some(Data::Exec(ended)));
            let error = completion.error.unwrap();
            assert_eq!(error.kind, "exit-nonzero");
            assert!(error.message.contains(message), "{}", error.message);
            assert_eq!(error.hint, None, "it wrote nothing to read");
        }
    }
}
