//! Renewing leases, taking free ones, and aborting what is under way before one ends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::clock;
use super::controller::Cluster;
use crate::state::Service;

/// How often a lease is renewed in its time.
const RENEWALS: u32 = 8;

/// How often the clock is looked at in a lease's time.
const LOOKS: u32 = 60;

/// Renews until the work has ended. While the service ends no more hosts are taken.
pub(super) async fn keep(cluster: Cluster, service: Service) {
    let inner = &cluster.inner;
    let mut link = inner.store.link();
    let length = i64::try_from(inner.length.as_millis()).unwrap_or(i64::MAX);
    let mut has_failed = false;
    let mut before = None;
    let mut was_stuck = false;
    while !inner.ended.is_cancelled() {
        let is_stuck = cluster.is_stuck();
        if is_stuck != was_stuck {
            match is_stuck {
                true => {
                    tracing::error!("leases are not renewed: no work on runs is done, and others may do it")
                }
                false => tracing::info!("work on runs is done again"),
            }
            was_stuck = is_stuck;
        }
        if is_stuck {
            cluster.abort_what_is_not_held();
            tokio::select! {
                () = sleep(inner.length / RENEWALS) => {}
                () = inner.ended.cancelled() => {}
            }
            continue;
        }
        let mut hosts: Vec<_> = service.manager().hosts().into_iter().map(|host| host.id).collect();
        if service.stopping().is_cancelled() {
            hosts.clear();
        }
        let asked = clock::now();
        let renewed = link.renew(&inner.id, &hosts, length).await;
        let was_granted = renewed.is_ok();
        match renewed {
            Ok(granted) => {
                if has_failed {
                    tracing::info!("the database answers again");
                }
                has_failed = false;
                let now = (granted.leases.len(), granted.controllers);
                if before != Some(now) {
                    tracing::info!(hosts = now.0, controllers = now.1, "leases of hosts");
                    before = Some(now);
                    inner.wake.notify_one();
                }
                inner.controllers.store(granted.controllers, Ordering::Relaxed);
                let mut leases = inner.leases.lock();
                leases.granted(asked, granted.leases);
                leases.close_unless(clock::now(), |host| granted.share.contains(host));
            }
            Err(error) => {
                if !has_failed {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(
                        error,
                        "leases are not renewed; nothing new is started when half of their time is over"
                    );
                }
                has_failed = true;
                inner.controllers.store(0, Ordering::Relaxed);
            }
        }
        cluster.abort_what_is_not_held();
        if was_granted {
            *inner.renewed.lock() = asked;
        }
        tokio::select! {
            () = sleep(inner.length / RENEWALS) => {}
            () = inner.ended.cancelled() => {}
        }
    }
    // A controller that is not remembered has no share.
    let _ = link.leave(&inner.id).await;
}

/// Aborts work whose lease nears its end.
pub(super) async fn watch(cluster: Cluster) {
    let inner = &cluster.inner;
    let mut looks = interval((inner.length / LOOKS).max(Duration::from_millis(10)));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !inner.ended.is_cancelled() {
        looks.tick().await;
        inner.leases.lock().overdue(clock::now());
        cluster.abort_what_is_not_held();
    }
}
