//! A run's recorder: the rows of its targets.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use atp_api::Outcome;
use atp_executor::{JournalError, Recorder, Target};
use atp_transport::HostId;
use futures_util::future::BoxFuture;

use crate::published::{has_files, is_too_long, publish, shorten};

use super::{Change, Store, StoreError, TargetRow};

/// Records the targets of one run.
#[derive(Debug, Clone)]
pub(crate) struct RunRecorder {
    store: Store,
    run: i64,
    files: Option<PathBuf>,
}

impl RunRecorder {
    /// `files` is the folder of files that outcomes name.
    pub(crate) fn new(store: Store, run: i64, files: Option<PathBuf>) -> Self {
        RunRecorder { store, run, files }
    }

    async fn record(&self, change: Change) -> Result<(), JournalError> {
        let made = self.store.change(change).await;
        made.map(drop).map_err(|error| JournalError::Store {
            store: "the service's store".to_owned(),
            source: Arc::new(error),
        })
    }
}

impl Recorder for RunRecorder {
    fn started<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), JournalError>> {
        let key = TargetRow::of(target).key;
        Box::pin(self.record(Change::TargetStarted { run: self.run, key }))
    }

    fn finished<'a>(&'a self, outcome: &'a Outcome) -> BoxFuture<'a, Result<(), JournalError>> {
        let key = TargetRow::of_outcome(outcome).key;
        Box::pin(async move {
            let mut outcome = Cow::Borrowed(outcome);
            if let Some(files) = self.files.as_ref().filter(|_| has_files(&outcome)) {
                publish(files, outcome.to_mut());
            }
            if is_too_long(&outcome) {
                shorten(outcome.to_mut());
            }
            let json = serde_json::to_string(&*outcome).map_err(|error| JournalError::Store {
                store: "the service's store".to_owned(),
                source: Arc::new(error),
            })?;
            self.record(Change::TargetFinished { run: self.run, key, outcome: json }).await
        })
    }
}

impl TargetRow {
    pub(crate) fn of(target: &Target) -> Self {
        let (vm, uuid) = (target.vm().map(str::to_owned), target.uuid());
        let id = uuid.map(|uuid| uuid.to_string());
        TargetRow {
            key: key(Some(&target.host), id.as_deref()),
            host: Some(target.host.to_string()),
            vm,
            uuid,
        }
    }

    /// The target that an outcome is of. Planning knows those that it did not find by their names only.
    pub(crate) fn of_outcome(outcome: &Outcome) -> Self {
        let id = match (outcome.uuid, &outcome.vm) {
            (Some(uuid), _) => Some(uuid.to_string()),
            (None, Some(vm)) => Some(format!("={vm}")),
            (None, None) => None,
        };
        TargetRow {
            key: key(outcome.host.as_ref(), id.as_deref()),
            host: outcome.host.as_ref().map(ToString::to_string),
            vm: outcome.vm.clone(),
            uuid: outcome.uuid,
        }
    }
}

/// A VM on a host by its UUID, or a host by itself. No id of a host has a slash.
pub(crate) fn key(host: Option<&HostId>, id: Option<&str>) -> String {
    format!("{}/{}", host.map_or("", |host| host.as_str()), id.unwrap_or_default())
}

impl From<&StoreError> for atp_api::OutcomeError {
    fn from(error: &StoreError) -> Self {
        atp_api::OutcomeError::of(atp_api::ErrorKind::StorageFailed, error)
    }
}
