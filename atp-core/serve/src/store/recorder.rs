//! A run's recorder: the rows of its targets.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use atp_api::Outcome;
use atp_executor::{JournalError, Recorder, Target};
use atp_transport::HostId;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use crate::output::{is_too_long, shorten, take_out};
use crate::published::{has_files, publish};

use super::{Change, Store, StoreError, TargetRow};

/// Why the store refuses for good what operations yielded, by the keys of their targets: their events say it too.
pub(crate) type Refused = Arc<Mutex<HashMap<String, StoreError>>>;

/// Records the targets of one run.
#[derive(Debug, Clone)]
pub(crate) struct RunRecorder {
    store: Store,
    run: i64,
    files: Option<PathBuf>,
    refused: Refused,
}

impl RunRecorder {
    /// `files` is the folder of files that outcomes name.
    pub(crate) fn new(store: Store, run: i64, files: Option<PathBuf>, refused: Refused) -> Self {
        RunRecorder { store, run, files, refused }
    }

    async fn record_outcome(&self, key: &str, outcome: &Outcome) -> Result<i64, StoreError> {
        let outcome = serde_json::to_string(outcome);
        let outcome = outcome.map_err(|error| self.store.failed(sqlx::Error::Encode(Box::new(error))))?;
        self.store.change(Change::TargetFinished { run: self.run, key: key.to_owned(), outcome }).await
    }
}

fn journal(made: Result<i64, StoreError>) -> Result<(), JournalError> {
    made.map(drop).map_err(|error| JournalError::Store {
        store: "the service's store".to_owned(),
        source: Arc::new(error),
    })
}

impl Recorder for RunRecorder {
    fn started<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), JournalError>> {
        let key = TargetRow::of(target).key;
        Box::pin(
            async move { journal(self.store.change(Change::TargetStarted { run: self.run, key }).await) },
        )
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
            let mut made = self.record_outcome(&key, &outcome).await;
            if let Err(error) = &made
                && error.is_for_good()
            {
                tracing::error!(
                    run = self.run,
                    key,
                    error = error as &dyn std::error::Error,
                    "the store refuses an outcome, which is kept without its data"
                );
                take_out(outcome.to_mut(), error);
                self.refused.lock().insert(key.clone(), error.clone());
                made = self.record_outcome(&key, &outcome).await;
            }
            journal(made)
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
