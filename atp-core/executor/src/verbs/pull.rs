//! `cp` out of the guest.

use std::path::PathBuf;

use atp_api::{Data, FileReport, PullSpec};
use atp_protocol::files::{Progress, Pull, PullFolder, Pulled, TransferPolicy};
use atp_protocol::{Carrier, LibvirtCarrier, ProtocolError};
use atp_transport::domain::DomainInfo;
use atp_transport::{Effect, HostId};
use tokio::fs;
use tokio::time::Instant;

use super::Operation;
use super::answer::{Answer, explain, not_running};
use super::completion::Completion;
use super::job::Job;
use super::reconnect_retry::ReconnectRetry;
use super::scenario::template::{Template, Values, fill, fill_path};
use super::transfer::{FACTS, can_continue, finish, note_progress};
use crate::safe_name::safe_name;

/// Makes the pull of a step. The error says what is wrong.
pub(super) fn filled(
    from: &Template,
    to: &Template,
    values: &Values,
    own: &Values,
) -> Result<PullSpec, String> {
    let (path, destination) = (fill(from, values)?, fill_path(to, values, own)?);
    Ok(PullSpec { path, destination, separate: true, recursive: false, packed: false })
}

/// Where the file of this VM goes. A destination that is a folder, or ends in a slash, gets the file in it.
async fn destination_of(spec: &PullSpec, host: &HostId, vm: &str) -> PathBuf {
    // In a Windows guest either character separates.
    let is_separator = |c: char| c == '/' || c == '\\' && !spec.path.starts_with('/');
    // A folder may be named with a slash at its end.
    let path = if spec.recursive { spec.path.trim_end_matches(is_separator) } else { &spec.path };
    let name = safe_name(path.rsplit(is_separator).next().unwrap_or_default());
    if spec.separate {
        return spec.destination.join(safe_name(host.as_str())).join(safe_name(vm)).join(name);
    }
    let text = spec.destination.as_os_str().as_encoded_bytes();
    let is_folder = async || fs::metadata(&spec.destination).await.is_ok_and(|found| found.is_dir());
    if text.ends_with(b"/") || is_folder().await {
        spec.destination.join(name)
    } else {
        spec.destination.clone()
    }
}

impl Operation {
    /// The same operation over this many targets: with several VMs, each VM's files get a folder of their own.
    pub(crate) fn over(self, targets: usize) -> Self {
        let separate = self.is_separate() || targets > 1;
        self.separated(separate)
    }

    /// Whether each VM's files go to a folder of their own.
    pub(crate) fn is_separate(&self) -> bool {
        matches!(self, Operation::Pull(pull) if pull.separate)
    }

    /// The same operation with or without a folder for each VM's files.
    pub(crate) fn separated(self, separate: bool) -> Self {
        match self {
            Operation::Pull(pull) => Operation::Pull(PullSpec { separate, ..pull }),
            other => other,
        }
    }
}

/// A transfer out of a guest.
enum Transfer {
    File(Pull),
    Folder(PullFolder),
}

impl Transfer {
    fn partial_path(&self) -> PathBuf {
        match self {
            Transfer::File(pull) => pull.partial_path(),
            Transfer::Folder(pull) => pull.partial_path(),
        }
    }

    async fn run(
        &mut self,
        carrier: &impl Carrier,
        deadline: Instant,
        note: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Pulled, ProtocolError> {
        match self {
            Transfer::File(pull) => pull.run(carrier, deadline, note).await,
            Transfer::Folder(pull) => pull.run(carrier, deadline, note).await,
        }
    }
}

pub(super) async fn perform(job: &Job, domain: &DomainInfo, spec: &PullSpec) -> Completion {
    let deadline = job.deadline();
    let mut retry = ReconnectRetry::new(&job.policy, deadline);
    let destination = destination_of(spec, &job.planned_on, &domain.name).await;
    let mut begun = false;
    let policy = TransferPolicy::default();
    let (by, allowance) = (policy.before(deadline), job.allowance.clone());
    let mut pull = match spec.recursive {
        true => {
            let pull = PullFolder::new(&spec.path, destination, policy).within(allowance);
            Transfer::Folder(if spec.packed { pull.packed() } else { pull })
        }
        false => Transfer::File(Pull::new(&spec.path, destination, policy).within(allowance)),
    };
    let partial = pull.partial_path().display().to_string();
    let note = |so_far: Progress| note_progress(job, so_far, &partial);
    loop {
        let (pull, retry_state) = (&mut pull, &mut retry);
        let answer = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
            if let Some(state) = not_running(&connection, domain, FACTS.needs).await? {
                return Ok(Answer::NotRunning(state, Effect::None));
            }
            let carrier = LibvirtCarrier::new(&connection, domain.uuid);
            let reconnects = connection.reconnects();
            let pulled = pull.run(&carrier, deadline, &mut { note }).await;
            retry_state.note_losses(&connection, reconnects);
            explain(job, &connection, domain, FACTS.needs, pulled).await
        });
        match answer.await {
            Err(error) if can_continue(&error, &mut begun) && retry.after(&error).await => {}
            Err(error) => {
                let error = job.who_is_silent(domain, retry.given_up(error)).await;
                return finish(job, by, Err(error), |pulled| completion(spec, pulled));
            }
            answer => return finish(job, by, answer, |pulled| completion(spec, pulled)),
        }
    }
}

fn completion(spec: &PullSpec, pulled: Pulled) -> Completion {
    let report = FileReport {
        guest_path: spec.path.clone(),
        local_path: pulled.path,
        bytes: pulled.size,
        resumed_at: pulled.resumed_at,
        sha256: pulled.digest.to_string(),
    };
    // Nothing changed in the guest.
    Completion::ok(Effect::None, Data::File(report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn spec(destination: &str, separate: bool) -> PullSpec {
        PullSpec {
            path: "/etc/hostname".into(),
            destination: destination.into(),
            separate,
            recursive: false,
            packed: false,
        }
    }

    #[tokio::test]
    async fn one_file_goes_to_its_destination_and_several_each_to_a_folder_of_their_own() {
        let host: HostId = "h1".parse().unwrap();
        let to = async |spec: PullSpec, vm: &str| destination_of(&spec, &host, vm).await;
        assert_eq!(to(spec("/nowhere/copy", false), "vm").await, Path::new("/nowhere/copy"));
        assert_eq!(to(spec("/nowhere/", false), "vm").await, Path::new("/nowhere/hostname"));
        assert_eq!(to(spec("/tmp", false), "vm").await, Path::new("/tmp/hostname"));
        assert_eq!(to(spec("/tmp", true), "vm").await, Path::new("/tmp/h1/vm/hostname"));
        assert_eq!(to(spec("/tmp", true), "../x").await, Path::new("/tmp/h1/%2e.%2fx/hostname"));
        let windows = PullSpec { path: "C:\\dir/sub\\a b.txt".into(), ..spec("/tmp", false) };
        assert_eq!(to(windows, "vm").await, Path::new("/tmp/a%20b.txt"));
        let odd = PullSpec { path: "/etc/a\\b".into(), ..spec("/tmp", false) };
        assert_eq!(to(odd, "vm").await.file_name(), Some("a%5cb".as_ref()));
        let folder = PullSpec { path: "/var/log//".into(), recursive: true, ..spec("/tmp", false) };
        assert_eq!(to(folder, "vm").await, Path::new("/tmp/log"));
        let folder = PullSpec { path: "C:\\dir\\sub\\".into(), recursive: true, ..spec("/tmp", false) };
        assert_eq!(to(folder, "vm").await, Path::new("/tmp/sub"));
    }
}
