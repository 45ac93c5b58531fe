//! Statistics of a selection through a service, round by round, as a sampler of this program's own would bring them.

use std::collections::BTreeSet;
use std::time::Duration;

use atp_api::{StateFilter, StatisticsRound, Targets, VmStatistics};
use atp_executor::Selection;
use tokio::time::{Instant, sleep_until};

use crate::client::Client;
use crate::error::ClientError;

/// By how much values are older than what is asked for when the service asks the hosts again.
const LATER: Duration = Duration::from_millis(20);

/// A service asks a host no more often than this. A value that is wanted younger may be the one before.
const LEAST_AGE: Duration = Duration::from_millis(250);

/// Rounds of a service.
#[derive(Debug)]
pub struct Rounds {
    client: Client,
    selection: Selection,
    interval: Duration,
    next: Option<Instant>,
    /// The VMs that are selected by name and were not seen yet: host, if one is named, and VM.
    sought: BTreeSet<(Option<String>, String)>,
    not_found: Vec<String>,
}

impl Rounds {
    /// Rounds over this interval. Nothing is asked yet.
    pub fn new(client: Client, selection: Selection, interval: Duration) -> Self {
        let mut sought = BTreeSet::new();
        for selector in &selection.selectors {
            let hosts: Vec<Option<String>> = match selector.host().ids() {
                [] => vec![None],
                ids => ids.iter().cloned().map(Some).collect(),
            };
            for vm in selector.vm_names() {
                sought.extend(hosts.iter().map(|host| (host.clone(), vm.clone())));
            }
        }
        Rounds { client, selection, interval, next: None, sought, not_found: Vec::new() }
    }

    /// The next round. The first has no rates, unless the service measures for others too.
    ///
    /// # Errors
    /// The service does not answer, or refuses.
    ///
    /// Cancel safe: a round that is dropped is lost.
    pub async fn next(&mut self) -> Result<StatisticsRound, ClientError> {
        if let Some(next) = self.next {
            sleep_until(next).await;
        }
        let began = Instant::now();
        // Other clients may just have had the hosts asked.
        let max_age = (self.interval / 2).max(LEAST_AGE);
        let round = self.client.statistics(&Targets::from(&self.selection), max_age).await?;
        // A first answer takes longer, and the next one is to be of another sample.
        self.next = Some((began + self.interval).max(Instant::now() + max_age + LATER));
        self.seek(&round);
        Ok(round)
    }

    /// Takes the VMs that are selected by name and that none of their possible hosts has.
    pub fn take_not_found(&mut self) -> Vec<String> {
        std::mem::take(&mut self.not_found)
    }

    /// Notes which VMs are there. Those that are not are not found if all hosts have answered.
    fn seek(&mut self, round: &StatisticsRound) {
        self.sought.retain(|(host, name)| {
            let is_it = |vm: &VmStatistics| {
                vm.vm == *name && host.as_ref().is_none_or(|host| vm.host.as_str() == host)
            };
            !round.vms.iter().any(is_it)
        });
        // A VM may be left out by its state or its labels, and come back.
        let is_plain = self.selection.labels.is_empty()
            && self.selection.exclude.is_empty()
            && self.selection.state == StateFilter::Any;
        if is_plain && round.hosts.iter().all(|host| host.stale.is_none()) {
            let lacking = std::mem::take(&mut self.sought).into_iter();
            self.not_found.extend(lacking.map(|(host, vm)| match host {
                Some(host) => format!("{host}/{vm}"),
                None => vm,
            }));
        }
    }
}
