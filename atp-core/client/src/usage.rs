//! What VMs use.

use std::time::Duration;

use atp_api::{StatisticsRound, Targets};
use hyper::Method;

use crate::client::{ANSWER_TIMEOUT, Client};
use crate::error::ClientError;

impl Client {
    /// What the VMs of a selection use, by values that are at most so old.
    ///
    /// # Errors
    /// [`ClientError`]. Cancel safe.
    pub async fn statistics(
        &self,
        targets: &Targets,
        max_age: Duration,
    ) -> Result<StatisticsRound, ClientError> {
        let mut url = self.at("/api/v1/statistics");
        {
            let mut query = url.query_pairs_mut();
            for (name, value) in parameters(targets) {
                query.append_pair(name, &value);
            }
            query.append_pair("max_age", &format!("{}ms", max_age.as_millis()));
        }
        self.ask(Method::GET, url, None, &[], ANSWER_TIMEOUT).await
    }
}

/// A selection as parameters of a request.
fn parameters(targets: &Targets) -> Vec<(&'static str, String)> {
    let selectors = targets.selectors.iter().map(|one| ("selector", one.clone()));
    let exclude = targets.exclude.iter().map(|one| ("exclude", one.clone()));
    let labels = targets.labels.iter().map(|(key, value)| ("label", format!("{key}={value}")));
    let state = [("state", targets.state.to_string())];
    selectors.chain(exclude).chain(labels).chain(state).collect()
}
