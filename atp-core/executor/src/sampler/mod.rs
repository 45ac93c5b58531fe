//! Statistics of the VMs of a selection, round by round.
//!
//! Each VM is bounded by itself. All VMs of a host are asked at once for what libvirt has without QEMU, and then each VM for
//! what its QEMU has, in a call of its own. A VM that did not answer in the round before is asked again and not waited for
//! longer than [`SampleOptions::stale_patience`], so that one that hangs delays one round.

mod host;
mod rates;

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atp_api::StatisticsRound;
use atp_transport::{HostId, HostInfo};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};

use self::host::HostSampler;
use crate::executor::Executor;
use crate::plan::PlanError;
use crate::resolve;
use crate::selection::Selection;
use crate::sought::Sought;

/// How a selection is sampled.
#[derive(Debug, Clone)]
pub struct SampleOptions {
    /// The time between the beginnings of two rounds; 2 s by default.
    pub interval: Duration,
    /// How long a host or a VM is waited for that answered in the round before, or was not asked yet. The interval by default,
    /// and no less than 500 ms.
    pub patience: Option<Duration>,
    /// How long a host is waited for in the first round, in which it is connected to; 3 s by default.
    pub connect_patience: Duration,
    /// How long one is waited for that did not answer in the round before; 100 ms by default. On a host whose last answer took
    /// long, four times that, and no longer than `patience`; on one that never answered, a quarter of `patience`.
    pub stale_patience: Duration,
}

impl Default for SampleOptions {
    fn default() -> Self {
        SampleOptions {
            interval: Duration::from_secs(2),
            patience: None,
            connect_patience: Duration::from_secs(3),
            stale_patience: Duration::from_millis(100),
        }
    }
}

/// The least patience that follows from an interval.
const MIN_PATIENCE: Duration = Duration::from_millis(500);

impl SampleOptions {
    fn patience(&self) -> Duration {
        self.patience.unwrap_or_else(|| self.interval.max(MIN_PATIENCE))
    }
}

/// Samples the VMs of a selection; see [`Executor::sample`].
#[derive(Debug)]
pub struct Sampler {
    selection: Selection,
    options: SampleOptions,
    hosts: Vec<HostSampler>,
    sought: Sought,
    next: Option<Instant>,
}

impl Executor {
    /// Samples the VMs of a selection, including those that are created later. Only the hosts that the selection concerns are
    /// asked. A VM that two hosts list is sampled on both.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn sample(&self, selection: &Selection, options: SampleOptions) -> Result<Sampler, PlanError> {
        let known = self.manager().hosts();
        resolve::check_names(selection, &known)?;
        let hosts: HashMap<HostId, HostInfo> = known
            .into_iter()
            .filter(|host| selection.concerns(host))
            .filter_map(|host| Some((host.id.parse().ok()?, host)))
            .collect();
        let sought = Sought::of(selection, &hosts);
        let new = |(id, host)| HostSampler::new(self.manager().clone(), id, host);
        let mut hosts: Vec<_> = hosts.into_iter().map(new).collect();
        hosts.sort_by(|a, b| a.id().cmp(b.id()));
        Ok(Sampler { selection: selection.clone(), options, hosts, sought, next: None })
    }
}

impl Sampler {
    /// The next round: at once the first time, and then an interval after the one before began, or after its last host was
    /// connected to. A round that took longer than an interval is followed by the next at once.
    ///
    /// Cancel safe: a round that is dropped is lost, and its calls are abandoned.
    pub async fn next(&mut self) -> StatisticsRound {
        if let Some(next) = self.next {
            sleep_until(next).await;
        }
        let began = Instant::now();
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (selection, options) = (&self.selection, &self.options);
        let sampled = join_all(self.hosts.iter_mut().map(|host| host.sample(selection, options))).await;
        let mut round = StatisticsRound { at_ms: millis(at), took_ms: 0, hosts: Vec::new(), vms: Vec::new() };
        for (host, vms, names) in sampled {
            if let Some(names) = names {
                self.sought.seek(&host.host, names.iter().map(String::as_str));
            }
            round.hosts.push(host);
            round.vms.extend(vms);
        }
        round.took_ms = millis(began.elapsed());
        // After a slow start, rates are over a whole interval all the same.
        let listed = self.hosts.iter().filter_map(HostSampler::answered).max();
        let late = listed.filter(|listed| *listed > began + self.options.interval / 2);
        self.next = Some(late.unwrap_or(began) + self.options.interval);
        round
    }

    /// The number of hosts that are asked.
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// Takes the VMs that are selected by name and that none of their possible hosts has, as `VM` or `HOST/VM`. Each is
    /// returned once, when all of these hosts have answered.
    pub fn take_not_found(&mut self) -> Vec<String> {
        self.sought.take_not_found()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
