//! Files into guests and out of them, taken up again over another connection if need be.

use std::sync::Arc;

use atp_protocol::files::{FileError, Progress, Pull, Pulled, Push, Pushed, TransferPolicy};
use atp_protocol::{LibvirtCarrier, ProtocolError};
use atp_transport::domain::DomainInfo;
use atp_transport::{Effect, Hint};
use tokio::time::Instant;

use super::Job;
use super::answer::{self, Answer, explain, not_running};
use super::reconnect_retry::ReconnectRetry;
use crate::copy::{FileReport, PullSpec, PushSpec};
use crate::operation::Operation;
use crate::outcome::{Data, Status};
use crate::policy::Policy;
use crate::run::SoFar;
use crate::verbs::completion::{Completion, effect_of};

pub(super) async fn push(
    job: &Job<'_>,
    operation: &Operation,
    domain: &DomainInfo,
    spec: &PushSpec,
    policy: &Policy,
) -> Completion {
    let deadline = job.attempt.deadline();
    let mut retry = ReconnectRetry::new(policy, deadline);
    let mut begun = false;
    let transfer = TransferPolicy::default();
    let by = transfer.before(deadline);
    let mut push = Push::new(Arc::clone(&spec.source), &spec.destination, transfer);
    let partial = format!("{} in the guest, in the folder it goes to", push.partial_name());
    let tell = |so_far: Progress| tell(job, so_far, &partial);
    loop {
        let (push, patience) = (&mut push, &mut retry);
        let asked = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
            if let Some(state) = not_running(&connection, operation, domain).await? {
                return Ok(Answer::NotRunning(state, Effect::None));
            }
            let carrier = LibvirtCarrier::new(&connection, domain.uuid);
            let reconnects = connection.reconnects();
            let pushed = push.run_with(&carrier, deadline, &mut { tell }, job.attempt.mark_sent()).await;
            patience.note_reopened(&connection, reconnects);
            explain(job, &connection, operation, domain, pushed).await
        });
        match asked.await {
            Err(error)
                if can_go_on_pushing(&error, &mut begun, job.attempt.is_sent())
                    && retry.after(&error).await => {}
            asked => return finish(job, domain, by, asked, |pushed| pushed_completion(spec, pushed)),
        }
    }
}

pub(super) async fn pull(
    job: &Job<'_>,
    operation: &Operation,
    domain: &DomainInfo,
    spec: &PullSpec,
    policy: &Policy,
) -> Completion {
    let deadline = job.attempt.deadline();
    let mut retry = ReconnectRetry::new(policy, deadline);
    let destination = spec.destination_of(&job.target.host, &domain.name);
    let mut begun = false;
    let transfer = TransferPolicy::default();
    let by = transfer.before(deadline);
    let mut pull = Pull::new(&spec.path, destination, transfer);
    let partial = pull.partial_path().display().to_string();
    let tell = |so_far: Progress| tell(job, so_far, &partial);
    loop {
        let (pull, patience) = (&mut pull, &mut retry);
        let asked = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
            if let Some(state) = not_running(&connection, operation, domain).await? {
                return Ok(Answer::NotRunning(state, Effect::None));
            }
            let carrier = LibvirtCarrier::new(&connection, domain.uuid);
            let reconnects = connection.reconnects();
            let pulled = pull.run(&carrier, deadline, &mut { tell }).await;
            patience.note_reopened(&connection, reconnects);
            explain(job, &connection, operation, domain, pulled).await
        });
        match asked.await {
            Err(error) if can_go_on_pulling(&error, &mut begun) && retry.after(&error).await => {}
            asked => return finish(job, domain, by, asked, |pulled| pulled_completion(spec, pulled)),
        }
    }
}

/// What came of a transfer that had to be through `by` then. That is a moment before the target's deadline, for what is
/// open in the guest to be closed; a transfer that ran into it ran out of the target's own time.
fn finish<T>(
    job: &Job<'_>,
    domain: &DomainInfo,
    by: Instant,
    asked: Result<Answer<T>, ProtocolError>,
    answered: impl FnOnce(T) -> Completion,
) -> Completion {
    match asked {
        Err(error) => ended(&error, by, job.attempt.is_sent()),
        asked => answer::finish(job, domain, asked, answered),
    }
}

/// What an error comes to. That bytes went over says that nothing hung.
fn ended(error: &ProtocolError, by: Instant, is_sent: bool) -> Completion {
    let mut ended = Completion::from_error(error, by, is_sent);
    let is_under_way = matches!(error, ProtocolError::File(FileError::Stopped { done, .. }) if *done > 0);
    if let (Status::Timeout, true, Some(said)) = (ended.status, is_under_way, &mut ended.error) {
        said.hint = Some(Hint::GIVE_COPY_TIME);
    }
    ended
}

/// Tells how far a transfer is, and what is left behind if it is cut off from here on.
fn tell(job: &Job<'_>, Progress { done, total }: Progress, partial: &str) {
    job.attempt.progress(done, total);
    let words = format!(
        "{done} of {total} bytes were over; they are kept in {partial}, and copying again goes on from there"
    );
    job.attempt.if_cut_off(SoFar { words: Some(words), data: None });
}

/// Whether a file can be pushed on from where it is. A last step that may have been taken is not taken retry: the
/// guest may have changed the file since.
fn can_go_on_pushing(error: &ProtocolError, begun: &mut bool, is_sent: bool) -> bool {
    can_go_on_pulling(error, begun) && effect_of(error, is_sent) == Effect::None
}

/// Whether a file can be pulled on from where it is: that had begun.
fn can_go_on_pulling(error: &ProtocolError, begun: &mut bool) -> bool {
    match error {
        ProtocolError::File(FileError::Stopped { .. }) => {
            *begun = true;
            true
        }
        ProtocolError::Transport(_) => *begun,
        _ => false,
    }
}

fn pushed_completion(spec: &PushSpec, pushed: Pushed) -> Completion {
    let report = FileReport {
        guest_path: pushed.path,
        local_path: spec.local_path.clone(),
        bytes: pushed.size,
        resumed_at: pushed.resumed_at,
        sha256: pushed.digest.to_string(),
    };
    Completion::ok(Effect::Done, Data::File(report))
}

fn pulled_completion(spec: &PullSpec, pulled: Pulled) -> Completion {
    let report = FileReport {
        guest_path: spec.path.clone(),
        local_path: pulled.path,
        bytes: pulled.size,
        resumed_at: pulled.resumed_at,
        sha256: pulled.digest.to_string(),
    };
    // The guest is as it was.
    Completion::ok(Effect::None, Data::File(report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use atp_transport::TransportError;
    use std::time::Duration;

    fn lost(effect: Effect) -> ProtocolError {
        ProtocolError::Transport(TransportError::ConnectionLost {
            host: "h1".parse().unwrap(),
            operation: "virDomainQemuAgentCommand",
            sent: effect != Effect::None,
            source: None,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_that_ran_into_its_time_is_a_timeout_though_a_moment_is_left() {
        let unanswered = ProtocolError::Timeout { peer: atp_protocol::Peer::Agent, sent: true };
        let (path, partial) = ("/x".to_owned(), Some("/.atp-0.part".to_owned()));
        let stopped = FileError::Stopped { path, done: 1, total: 2, partial, source: Box::new(unanswered) };
        let deadline = Instant::now() + Duration::from_secs(8);
        let by = TransferPolicy::default().before(deadline);
        tokio::time::advance(Duration::from_secs(7)).await;
        assert!(Instant::now() < deadline);
        let ended = ended(&stopped.into(), by, false);
        assert_eq!((ended.status, ended.effect), (Status::Timeout, Effect::None));
        assert_eq!(ended.error.and_then(|error| error.hint), Some(Hint::GIVE_COPY_TIME));
    }

    #[test]
    fn a_last_step_of_unknown_effect_is_repeated_for_a_pull_only() {
        for (effect, is_sent, can_push) in [
            (Effect::None, true, true),
            (Effect::Unknown, true, false),
            // It was a look that was lost.
            (Effect::Unknown, false, true),
        ] {
            assert_eq!(can_go_on_pushing(&lost(effect), &mut true, is_sent), can_push);
            assert!(can_go_on_pulling(&lost(effect), &mut true));
            // Before anything was begun, the connection was never there.
            assert!(!can_go_on_pushing(&lost(effect), &mut false, is_sent));
            assert!(!can_go_on_pulling(&lost(effect), &mut false));
        }
    }
}
