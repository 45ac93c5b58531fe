//! Where statistics come from: the hosts, or a service that asks them for all of its clients.

use std::collections::BTreeSet;
use std::time::Duration;

use atp_client::Client;
use atp_executor::{Executor, SampleOptions, Sampler, Selection, StatisticsRound};
use atp_transport::{HostInfo, TransportManager};
use tokio::time::{Instant, sleep_until};

use crate::context::Context;
use crate::inventory::{self, CLOSE_TIMEOUT};
use crate::problem::{Failure, Problem};
use crate::remote;
use crate::signals::Interrupts;

/// The statistics of a selection, round by round.
pub(crate) enum Sampling {
    Here(Box<Sampler>),
    There(Box<Remote>),
}

/// What has to be closed after the last round.
pub(crate) struct Opened {
    pub(crate) sampling: Sampling,
    /// The hosts, for filters.
    pub(crate) hosts: Vec<HostInfo>,
    manager: Option<TransportManager>,
}

/// By how much values are older than what is asked for when the service asks the hosts again.
const LATER: Duration = Duration::from_millis(20);

/// Rounds of a service.
pub(crate) struct Remote {
    client: Client,
    selection: Selection,
    interval: Duration,
    next: Option<Instant>,
    /// The VMs that are selected by name and were not seen yet: host, if one is named, and VM.
    sought: BTreeSet<(Option<String>, String)>,
    not_found: Vec<String>,
}

impl Opened {
    /// Statistics over this interval, through the service if the settings name one.
    ///
    /// # Errors
    /// The selection names what there is not, or no host can be used.
    pub(crate) async fn open(
        selection: Selection,
        interval: Duration,
        context: &Context,
        interrupts: &Interrupts,
    ) -> Result<Self, Failure> {
        if let Some(client) = remote::client(&context.settings)? {
            let views = tokio::select! {
                views = client.hosts(&[]) => views.map_err(Problem::from)?,
                signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
            };
            let hosts = views.into_iter().map(remote::host_of).collect();
            let sampling = Sampling::There(Box::new(Remote::new(client, selection, interval)));
            return Ok(Opened { sampling, hosts, manager: None });
        }
        let manager = inventory::open_selected(&selection, &context.settings, interrupts).await?;
        let options = SampleOptions { interval, ..SampleOptions::default() };
        let sampler = Executor::new(manager.clone()).sample(&selection, options).map_err(Problem::from)?;
        let hosts = manager.hosts();
        Ok(Opened { sampling: Sampling::Here(Box::new(sampler)), hosts, manager: Some(manager) })
    }

    /// Closes the connections.
    pub(crate) async fn close(manager: Option<TransportManager>) {
        if let Some(manager) = manager {
            inventory::close(&manager, CLOSE_TIMEOUT).await;
        }
    }

    /// The statistics, and the connections that are to be closed after them.
    pub(crate) fn split(self) -> (Sampling, Vec<HostInfo>, Option<TransportManager>) {
        (self.sampling, self.hosts, self.manager)
    }
}

impl Sampling {
    /// The next round.
    ///
    /// # Errors
    /// The service does not answer, or refuses.
    ///
    /// Cancel safe: a round that is dropped is lost.
    pub(crate) async fn next(&mut self) -> Result<StatisticsRound, Problem> {
        match self {
            Sampling::Here(sampler) => Ok(sampler.next().await),
            Sampling::There(remote) => remote.next().await,
        }
    }

    /// Takes the VMs that are selected by name and that none of their possible hosts has.
    pub(crate) fn take_not_found(&mut self) -> Vec<String> {
        match self {
            Sampling::Here(sampler) => sampler.take_not_found(),
            Sampling::There(remote) => std::mem::take(&mut remote.not_found),
        }
    }
}

impl Remote {
    fn new(client: Client, selection: Selection, interval: Duration) -> Self {
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
        Remote { client, selection, interval, next: None, sought, not_found: Vec::new() }
    }

    async fn next(&mut self) -> Result<StatisticsRound, Problem> {
        if let Some(next) = self.next {
            sleep_until(next).await;
        }
        let began = Instant::now();
        // Other clients may just have had the hosts asked.
        let max_age = self.interval / 2;
        let round = self.client.statistics(&remote::targets(&self.selection), max_age).await?;
        // A first answer takes longer, and the next one is to be of another sample.
        self.next = Some((began + self.interval).max(Instant::now() + max_age + LATER));
        self.seek(&round);
        Ok(round)
    }

    /// Notes which VMs are there. Those that are not are not found if all hosts have answered.
    fn seek(&mut self, round: &StatisticsRound) {
        self.sought.retain(|(host, name)| {
            let is_it = |vm: &atp_executor::VmStatistics| {
                vm.vm == *name && host.as_ref().is_none_or(|host| vm.host.as_str() == host)
            };
            !round.vms.iter().any(is_it)
        });
        // A VM may be left out by its state or its labels, and come back.
        let is_plain = self.selection.labels.is_empty()
            && self.selection.exclude.is_empty()
            && self.selection.state == atp_executor::StateFilter::Any;
        if is_plain && round.hosts.iter().all(|host| host.stale.is_none()) {
            let lacking = std::mem::take(&mut self.sought).into_iter();
            self.not_found.extend(lacking.map(|(host, vm)| match host {
                Some(host) => format!("{host}/{vm}"),
                None => vm,
            }));
        }
    }
}
