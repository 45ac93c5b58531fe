//! Where statistics come from: the hosts, or a service that asks them for all of its clients.

use std::time::Duration;

use atp_client::Rounds;
use atp_executor::{Executor, SampleOptions, Sampler, Selection, StatisticsRound};
use atp_transport::{HostInfo, TransportManager};

use crate::context::Context;
use crate::inventory::{self, CLOSE_TIMEOUT};
use crate::problem::{Failure, Problem};
use crate::remote;
use crate::signals::Interrupts;

/// The statistics of a selection, round by round.
pub(crate) enum Sampling {
    Here(Box<Sampler>),
    There(Box<Rounds>),
}

/// What has to be closed after the last round.
pub(crate) struct Opened {
    pub(crate) sampling: Sampling,
    /// The hosts, for filters.
    pub(crate) hosts: Vec<HostInfo>,
    manager: Option<TransportManager>,
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
            let hosts = tokio::select! {
                hosts = client.host_infos() => hosts.map_err(Problem::from)?,
                signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
            };
            let sampling = Sampling::There(Box::new(Rounds::new(client, selection, interval)));
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
            Sampling::There(rounds) => rounds.next().await.map_err(Problem::from),
        }
    }

    /// Takes the VMs that are selected by name and that none of their possible hosts has.
    pub(crate) fn take_not_found(&mut self) -> Vec<String> {
        match self {
            Sampling::Here(sampler) => sampler.take_not_found(),
            Sampling::There(rounds) => rounds.take_not_found(),
        }
    }
}
