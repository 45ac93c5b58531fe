//! The samples of one host.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use atp_api::{HostStatistics, OutcomeError, Staleness, VmStatistics};
use atp_transport::{ExecuteOptions, HostId, HostInfo, TransportError, TransportManager};
use futures_util::future::join_all;
use tokio::time::Instant;
use uuid::Uuid;

use super::rates::{self, Sample};
use super::{SampleOptions, millis};
use crate::selection::Selection;

/// Samples the VMs of a host.
#[derive(Debug)]
pub(super) struct HostSampler {
    manager: TransportManager,
    id: HostId,
    host: HostInfo,
    /// When it answered for the last time, and whether it did in the last round.
    answered: Option<Instant>,
    is_stale: bool,
    /// How long its last answer took.
    took: Duration,
    vms: HashMap<Uuid, Known>,
    /// The labels of VMs, where the selection depends on them.
    labels: HashMap<Uuid, BTreeMap<String, String>>,
}

/// What is known of a VM.
#[derive(Debug)]
struct Known {
    /// What libvirt counts, and when.
    quick: Sample,
    /// What QEMU counts, and when.
    qemu: Option<Sample>,
    /// The last that was shown, for the time in which nothing new comes.
    shown: VmStatistics,
    /// When all was fresh for the last time.
    fresh: Option<Instant>,
    is_stale: bool,
}

/// A host, its VMs that are selected, and the names of all of its VMs if they were listed.
type Sampled = (HostStatistics, Vec<VmStatistics>, Option<Vec<String>>);

impl HostSampler {
    pub(super) fn new(manager: TransportManager, id: HostId, host: HostInfo) -> Self {
        let (vms, labels) = (HashMap::new(), HashMap::new());
        HostSampler { manager, id, host, answered: None, is_stale: false, took: Duration::ZERO, vms, labels }
    }

    pub(super) fn id(&self) -> &HostId {
        &self.id
    }

    /// When it answered for the last time.
    pub(super) fn answered(&self) -> Option<Instant> {
        self.answered
    }

    /// One sample of all VMs.
    pub(super) async fn sample(&mut self, selection: &Selection, options: &SampleOptions) -> Sampled {
        let patience = match self.answered {
            _ if self.is_stale => self.stale_patience(options),
            None => options.patience().max(options.connect_patience),
            Some(_) => options.patience(),
        };
        let deadline = Instant::now() + patience;
        let listed = match self.list(deadline).await {
            Ok((took, listed)) => {
                self.took = took;
                self.chosen(selection, listed, deadline).await
            }
            Err(error) => Err(error),
        };
        let (chosen, names) = match listed {
            Ok(listed) => listed,
            Err(error) => return self.unanswered(&error),
        };
        (self.answered, self.is_stale) = (Some(Instant::now()), false);
        let asked = chosen.iter().map(|sample| self.ask_qemu(sample, options));
        let asked = join_all(asked).await;
        let mut before = std::mem::take(&mut self.vms);
        let mut vms = Vec::with_capacity(chosen.len());
        for (quick, qemu) in chosen.into_iter().zip(asked) {
            let uuid = quick.counters.info.uuid;
            let known = self.known(before.remove(&uuid), quick, qemu);
            vms.push(known.shown.clone());
            self.vms.insert(uuid, known);
        }
        vms.sort_by(|a, b| a.vm.cmp(&b.vm));
        (HostStatistics { host: self.id.clone(), stale: None }, vms, Some(names))
    }

    /// How long one is waited for that did not answer in the round before. A host that is far away answers late, and must not
    /// be stale for ever after one answer that was later; of one that never answered it is not known how late it answers.
    fn stale_patience(&self, options: &SampleOptions) -> Duration {
        let usual = match self.answered {
            Some(_) => self.took.saturating_mul(4).min(options.patience()),
            None => options.patience() / 4,
        };
        options.stale_patience.max(usual)
    }

    /// All VMs with what libvirt counts, and how long the answer took on a connection.
    async fn list(&self, deadline: Instant) -> Result<(Duration, Vec<Sample>), TransportError> {
        let options = ExecuteOptions::by(deadline).with_max_tries(1);
        let all = self.manager.execute_on_host_with(self.id.as_str(), options, |connection| async move {
            let began = Instant::now();
            let all = connection.all_counters().await?;
            Ok::<_, TransportError>((began.elapsed(), Instant::now(), all))
        });
        let (took, at, all) = all.await?;
        Ok((took, all.into_iter().map(|counters| Sample { at, counters }).collect()))
    }

    /// Those that are selected, and the names of all.
    async fn chosen(
        &mut self,
        selection: &Selection,
        mut listed: Vec<Sample>,
        deadline: Instant,
    ) -> Result<(Vec<Sample>, Vec<String>), TransportError> {
        let names = listed.iter().map(|sample| sample.counters.info.name.clone()).collect();
        listed.retain(|sample| selection.chooses(&self.host, &sample.counters.info));
        if selection.labels_beyond(&self.host).next().is_none() {
            return Ok((listed, names));
        }
        let uuids = || listed.iter().map(|sample| sample.counters.info.uuid);
        let unknown: Vec<Uuid> = uuids().filter(|uuid| !self.labels.contains_key(uuid)).collect();
        if !unknown.is_empty() {
            let (options, asked) = (ExecuteOptions::by(deadline).with_max_tries(1), unknown.clone());
            let found = self.manager.execute_on_host_with(self.id.as_str(), options, |connection| {
                let asked = asked.clone();
                async move { connection.domain_labels(asked).await }
            });
            let mut found: HashMap<_, _> = found.await?;
            self.labels
                .extend(unknown.into_iter().map(|uuid| (uuid, found.remove(&uuid).unwrap_or_default())));
        }
        let (labels, host) = (&self.labels, &self.host);
        listed.retain(|sample| {
            let own = labels.get(&sample.counters.info.uuid);
            selection.labels_beyond(host).all(|label| own.is_some_and(|own| label.matches(own)))
        });
        Ok((listed, names))
    }

    /// Asks for what QEMU counts; none of a VM that is not active.
    async fn ask_qemu(
        &self,
        quick: &Sample,
        options: &SampleOptions,
    ) -> Option<Result<Sample, TransportError>> {
        let info = &quick.counters.info;
        if !info.state.is_active() {
            return None;
        }
        let uuid = info.uuid;
        let is_stale = self.vms.get(&uuid).is_some_and(|known| known.is_stale);
        let patience = if is_stale { self.stale_patience(options) } else { options.patience() };
        let options = ExecuteOptions::by(Instant::now() + patience).with_max_tries(1);
        let asked = self.manager.execute_on_host_with(self.id.as_str(), options, |connection| async move {
            let counters = connection.domain_counters(uuid).await?;
            Ok::<_, TransportError>((Instant::now(), counters))
        });
        match asked.await {
            Ok((at, Some(counters))) => Some(Ok(Sample { at, counters })),
            Ok((_, None)) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// What is known of a VM now.
    fn known(
        &self,
        before: Option<Known>,
        quick: Sample,
        qemu: Option<Result<Sample, TransportError>>,
    ) -> Known {
        // Counters begin anew with another QEMU.
        let before = before.filter(|known| known.quick.counters.info.id == quick.counters.info.id);
        let now = Instant::now();
        let mut fresh = before.as_ref().and_then(|known| known.fresh);
        let (stale, qemu_before) = (None, before.as_ref().and_then(|known| known.qemu.clone()));
        let (stale, qemu) = match qemu {
            Some(Ok(sample)) => (stale, Some(sample)),
            None => (stale, None),
            Some(Err(error)) => {
                let for_ms = fresh.map(|fresh| millis(now - fresh));
                (Some(Staleness { for_ms, error: OutcomeError::from(&error) }), qemu_before.clone())
            }
        };
        if stale.is_none() {
            fresh = Some(now);
        }
        let is_stale = stale.is_some();
        let mut shown = rates::statistics(
            &self.id,
            (before.as_ref().map(|known| &known.quick), &quick),
            // An old sample has no rates.
            (qemu_before.as_ref().filter(|_| !is_stale), qemu.as_ref()),
        );
        shown.stale = stale;
        Known { quick, qemu, shown, fresh, is_stale }
    }

    /// A host that did not answer: its VMs are as they were.
    fn unanswered(&mut self, error: &TransportError) -> Sampled {
        self.is_stale = true;
        let now = Instant::now();
        let error = OutcomeError::from(error);
        let stale = |since: Option<Instant>| {
            let for_ms = since.map(|since| millis(now - since));
            Some(Staleness { for_ms, error: error.clone() })
        };
        let host = HostStatistics { host: self.id.clone(), stale: stale(self.answered) };
        let mut vms: Vec<_> = self
            .vms
            .values()
            .map(|known| VmStatistics { stale: stale(known.fresh), ..without_rates(known.shown.clone()) })
            .collect();
        vms.sort_by(|a, b| a.vm.cmp(&b.vm));
        (host, vms, None)
    }
}

/// Old rates are no rates of now.
fn without_rates(mut vm: VmStatistics) -> VmStatistics {
    vm.cpu.percent = None;
    for disk in &mut vm.disks {
        (disk.read_bytes_per_second, disk.write_bytes_per_second) = (None, None);
        (disk.read_requests_per_second, disk.write_requests_per_second) = (None, None);
    }
    for interface in &mut vm.interfaces {
        (interface.rx_bytes_per_second, interface.tx_bytes_per_second) = (None, None);
    }
    vm
}
