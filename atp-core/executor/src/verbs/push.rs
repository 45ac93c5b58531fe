//! `cp` into the guest.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use atp_api::{Data, FileReport, OutcomeError, PushSpec};
use atp_protocol::files::{Progress, Push, Pushed, Source, TransferPolicy};
use atp_protocol::{LibvirtCarrier, ProtocolError};
use atp_transport::domain::DomainInfo;
use atp_transport::{Effect, ErrorKind};

use super::answer::{Answer, explain, not_running};
use super::completion::{Completion, effect_of};
use super::job::Job;
use super::reconnect_retry::ReconnectRetry;
use super::scenario::template::{Template, Values, fill};
use super::transfer::{FACTS, can_continue, finish, note_progress};

/// A file that is ready to be copied into guests: it was read once, for its digest.
#[derive(Clone, PartialEq)]
pub struct PreparedPush {
    /// What was asked for, with the digest.
    pub spec: PushSpec,
    /// The file, looked at once for all guests.
    pub source: Arc<Source>,
}

impl PreparedPush {
    /// Opens the file.
    ///
    /// # Errors
    /// The file cannot be read, or has another digest than was asked for.
    pub async fn open(spec: PushSpec) -> Result<Self, OutcomeError> {
        let opened = match spec.recursive {
            _ if spec.packed => Source::open_archive(&spec.source).await,
            true => Source::open_recursive(&spec.source).await,
            false => Source::open(&spec.source).await,
        };
        match opened {
            Ok(source) => PreparedPush::of(spec, source),
            Err(error) => {
                let hint = error.hint();
                Err(cannot_be_copied(&spec, &error).with_hint(hint))
            }
        }
    }

    /// The copy of a file, or of a folder, that is open.
    ///
    /// # Errors
    /// The file has another digest than was asked for.
    pub fn of(spec: PushSpec, source: Source) -> Result<Self, OutcomeError> {
        let digest = source.digest().to_string();
        match &spec.sha256 {
            Some(asked) if !asked.eq_ignore_ascii_case(&digest) => {
                let error = io::Error::other(format!("its SHA-256 is {digest}, not {asked}"));
                Err(cannot_be_copied(&spec, &error))
            }
            _ => {
                Ok(PreparedPush { spec: PushSpec { sha256: Some(digest), ..spec }, source: Arc::new(source) })
            }
        }
    }

    /// Makes the push of a step. The error says what is wrong.
    pub(super) async fn fill(source: PathBuf, to: &Template, values: &Values) -> Result<Self, String> {
        let spec = PushSpec {
            source,
            destination: fill(to, values)?,
            sha256: None,
            recursive: false,
            packed: false,
        };
        PreparedPush::open(spec)
            .await
            .map_err(|error| format!("{}: {}", error.message, error.causes.join(": ")))
    }
}

fn cannot_be_copied(spec: &PushSpec, error: &dyn Error) -> OutcomeError {
    let message = format!("{} cannot be copied", spec.source.display());
    let causes = [vec![error.to_string()], OutcomeError::causes_of(error)].concat();
    OutcomeError { causes, ..OutcomeError::new(ErrorKind::LocalFileError, message) }
}

pub(super) async fn perform(job: &Job, domain: &DomainInfo, prepared: &PreparedPush) -> Completion {
    let PreparedPush { spec, source } = prepared;
    let deadline = job.deadline();
    let mut retry = ReconnectRetry::new(&job.policy, deadline);
    let mut begun = false;
    let policy = TransferPolicy::default();
    let by = policy.before(deadline);
    let mut push = Push::new(Arc::clone(source), &spec.destination, policy);
    let partial = format!("{} in the guest, in the folder it goes to", push.partial_name());
    let note = |so_far: Progress| note_progress(job, so_far, &partial);
    loop {
        let (push, retry_state) = (&mut push, &mut retry);
        let answer = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
            if let Some(state) = not_running(&connection, domain, FACTS.needs).await? {
                return Ok(Answer::NotRunning(state, Effect::None));
            }
            let carrier = LibvirtCarrier::new(&connection, domain.uuid);
            let reconnects = connection.reconnects();
            let pushed = push.run_with(&carrier, deadline, &mut { note }, job.attempt.mark_sent()).await;
            retry_state.note_losses(&connection, reconnects);
            explain(job, &connection, domain, FACTS.needs, pushed).await
        });
        match answer.await {
            Err(error)
                if can_continue_push(&error, &mut begun, job.attempt.is_sent())
                    && retry.after(&error).await => {}
            Err(error) => {
                let error = job.who_is_silent(domain, retry.given_up(error)).await;
                return finish(job, by, Err(error), |pushed| completion(spec, pushed));
            }
            answer => return finish(job, by, answer, |pushed| completion(spec, pushed)),
        }
    }
}

/// Whether the next attempt can continue a push. A last step that may have been taken is not repeated: the guest may
/// have changed the file since.
fn can_continue_push(error: &ProtocolError, begun: &mut bool, is_sent: bool) -> bool {
    can_continue(error, begun) && effect_of(error, is_sent) == Effect::None
}

fn completion(spec: &PushSpec, pushed: Pushed) -> Completion {
    let report = FileReport {
        guest_path: pushed.path,
        local_path: spec.source.clone(),
        bytes: pushed.size,
        resumed_at: pushed.resumed_at,
        sha256: pushed.digest.to_string(),
    };
    Completion::ok(Effect::Done, Data::File(report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use atp_transport::TransportError;

    fn lost(effect: Effect) -> ProtocolError {
        ProtocolError::Transport(TransportError::ConnectionLost {
            host: "h1".parse().unwrap(),
            operation: "virDomainQemuAgentCommand",
            sent: effect != Effect::None,
            source: None,
        })
    }

    #[test]
    fn a_last_step_of_unknown_effect_is_repeated_for_a_pull_only() {
        for (effect, is_sent, can_push) in [
            (Effect::None, true, true),
            (Effect::Unknown, true, false),
            // The connection was lost during a look.
            (Effect::Unknown, false, true),
        ] {
            assert_eq!(can_continue_push(&lost(effect), &mut true, is_sent), can_push);
            assert!(can_continue(&lost(effect), &mut true));
            // If nothing was begun, the connection was never there.
            assert!(!can_continue_push(&lost(effect), &mut false, is_sent));
            assert!(!can_continue(&lost(effect), &mut false));
        }
    }
}
