//! The state of a manager and its hosts at one time, as metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use atp_transport::{
    BreakerState, BreakerStatus, ConnectionPool, Connector, EventKind, FleetHealth, HealthState, HostId,
    PoolStats, TransportManager,
};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Unit;

/// The data of one scrape, read at one time.
#[derive(Debug)]
pub(crate) struct Snapshot {
    hosts: Vec<Host>,
    health: FleetHealth,
    events: BTreeMap<EventKind, u64>,
    interceptor_panics: u64,
}

#[derive(Debug)]
struct Host {
    id: HostId,
    stats: PoolStats,
    breaker: BreakerStatus,
    health: HealthState,
    utilisation: f64,
}

impl Snapshot {
    pub(crate) fn of<C: Connector>(manager: &TransportManager<C>) -> Self {
        let health = manager.health();
        let host = |pool: &ConnectionPool<C>| {
            let known = health.hosts.get(pool.host_id());
            Host {
                id: pool.host_id().clone(),
                stats: pool.stats(),
                breaker: pool.breaker(),
                health: known.map_or(HealthState::Healthy, |health| health.state),
                utilisation: known.map_or(0.0, |health| health.vitals.utilisation),
            }
        };
        let hosts = manager.pools().iter().map(|pool| host(pool)).collect();
        let (events, interceptor_panics) = (manager.event_counts(), manager.interceptor_panics());
        Snapshot { hosts, health, events, interceptor_panics }
    }

    /// Leaves out all other hosts.
    pub(crate) fn only(mut self, hosts: &BTreeSet<HostId>) -> Self {
        self.hosts.retain(|host| hosts.contains(&host.id));
        self
    }

    fn encode_fleet(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "Hosts, by health";
        let mut metric = encoder.encode_descriptor("atp_hosts", help, None, MetricType::Gauge)?;
        for &state in HealthState::ALL {
            let count = self.hosts.iter().filter(|host| host.health == state).count();
            metric.encode_family(&[("health", state.as_str())])?.encode_gauge(&count)?;
        }
        let help = "Health of the fleet: 0 healthy, 1 degraded, 2 overloaded, 3 unavailable";
        let mut metric = encoder.encode_descriptor("atp_fleet_health", help, None, MetricType::Gauge)?;
        metric.encode_gauge(&(self.health.state as u32))?;
        let help = "Events, by kind";
        let mut metric = encoder.encode_descriptor("atp_events", help, None, MetricType::Counter)?;
        for (kind, count) in &self.events {
            metric.encode_family(&[("event", kind.as_str())])?.encode_counter(count, NO_EXEMPLAR)?;
        }
        let help = "Panics of interceptors";
        let mut metric =
            encoder.encode_descriptor("atp_interceptor_panics", help, None, MetricType::Counter)?;
        metric.encode_counter(&self.interceptor_panics, NO_EXEMPLAR)
    }

    fn encode_hosts(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        for (name, help, value) in GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for host in &self.hosts {
                metric.encode_family(&[("host", host.id.as_str())])?.encode_gauge(&value(host))?;
            }
        }
        for (name, help, value) in COUNTERS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for host in &self.hosts {
                let labels = [("host", host.id.as_str())];
                metric.encode_family(&labels)?.encode_counter(&value(host), NO_EXEMPLAR)?;
            }
        }
        let help = "Connections, by state";
        let mut metric = encoder.encode_descriptor("atp_connections", help, None, MetricType::Gauge)?;
        for Host { id, stats, .. } in &self.hosts {
            for (state, count) in [
                ("idle", stats.idle_connections),
                ("active", stats.active_connections),
                ("connecting", stats.connecting),
                ("reconnecting", stats.reconnecting),
                ("failed", stats.failed),
                ("suspect", stats.suspect),
                ("draining", stats.draining),
            ] {
                let labels = [("host", id.as_str()), ("state", state)];
                metric.encode_family(&labels)?.encode_gauge(&count)?;
            }
        }
        let help = "How long callers waited for a lease since the host was added, seconds";
        let mut metric =
            encoder.encode_descriptor("atp_acquire_wait", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for Host { id, stats, .. } in &self.hosts {
            let waits = &stats.wait_time;
            for (quantile, wait) in [("0.5", waits.p50), ("0.9", waits.p90), ("0.99", waits.p99)] {
                let labels = [("host", id.as_str()), ("quantile", quantile)];
                metric.encode_family(&labels)?.encode_gauge(&wait.as_secs_f64())?;
            }
        }
        Ok(())
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.encode_fleet(&mut encoder)?;
        self.encode_hosts(&mut encoder)
    }
}

/// Counters have no exemplars.
const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, u64>> = None;

/// The name, help text and value of a metric of a host.
type OfHost<V> = (&'static str, &'static str, fn(&Host) -> V);

/// The gauges of a host.
const GAUGES: [OfHost<f64>; 12] = [
    ("atp_host_health", "Health of a host: 0 healthy, 1 degraded, 2 overloaded, 3 unavailable", |host| {
        f64::from(host.health as u32)
    }),
    ("atp_breaker_state", "Circuit breaker of a host: 0 closed, 1 half-open, 2 open", |host| {
        match host.breaker.state {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        }
    }),
    ("atp_utilisation", "Leases, as a share of those there can be without sharing connections", |host| {
        host.utilisation
    }),
    ("atp_connections_max", "Most connections there may be", |host| float(host.stats.max_connections)),
    ("atp_leases", "Leases that are out", |host| float(host.stats.total_active_uses)),
    ("atp_leases_long_held", "Leases that have been out for long", |host| float(host.stats.long_held_leases)),
    ("atp_waiting", "Callers that wait for a lease", |host| float(host.stats.waiting)),
    ("atp_calls_in_flight", "Calls under way, with those that hang", |host| {
        float(host.stats.calls_in_flight)
    }),
    ("atp_calls_stuck", "Calls past their deadline that have not returned", |host| {
        float(host.stats.stuck_calls)
    }),
    ("atp_calls_unproven", "Calls under way to VMs that had not answered lately", |host| {
        float(host.stats.unproven_calls)
    }),
    ("atp_lanes", "Lanes of VMs that are in use, or whose VM has answered lately", |host| {
        float(host.stats.lanes)
    }),
    (
        "atp_connect_attempts_stuck",
        "Attempts to connect past their deadline that have not returned",
        |host| float(host.stats.stuck_attempts),
    ),
];

/// The counters of a host.
const COUNTERS: [OfHost<u64>; 5] = [
    ("atp_calls", "Calls that ended", |host| host.stats.total_requests),
    ("atp_calls_failed", "Calls that failed, answers with errors included", |host| host.stats.total_errors),
    ("atp_acquire_timeouts", "Callers that got no lease by their deadline", |host| {
        host.stats.acquire_timeouts
    }),
    ("atp_breaker_refused", "Work that an open circuit breaker refused", |host| host.breaker.refused),
    ("atp_reconnects", "Times a lost connection was opened again", |host| host.stats.reconnects),
];

fn float(count: usize) -> f64 {
    count as f64
}
