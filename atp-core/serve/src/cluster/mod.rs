//! A controller: one of several services that share a store, and with it the fleet.
//!
//! The shard is a host: one controller at a time starts targets on it, so that the limits that protect its daemon hold. The
//! rules are those of `atp-cluster`; their state is in the database, and each controller counts its own leases by its own
//! clock.
//!
//! ```text
//! leases   renews leases and takes free ones     ─┐
//! watch    aborts what is under way, by the clock ├─► what may be started, and what is under way
//! work     starts targets, tells their outcomes  ─┘
//! news     wakes the work, and streams of events
//! ```

mod clock;
mod controller;
mod journal;
mod leases;
mod target;
mod work;

use std::time::Duration;

pub(crate) use controller::Cluster;

use crate::state::Service;

/// The pause after the listening connection could not be made.
const PAUSE: Duration = Duration::from_secs(1);

/// Begins to work as a controller, if the service is one, until the service ends; its end waits for that.
pub(crate) fn begin(service: &Service) {
    let Some(cluster) = service.cluster() else { return };
    service.tasks().spawn(leases::keep(cluster.clone(), service.clone()));
    service.tasks().spawn(work::work(cluster.clone(), service.clone()));
    tokio::spawn(leases::watch(cluster.clone()));
    tokio::spawn(news(cluster.clone()));
}

/// Wakes the work when another controller has changed a run. What is not heard is found by looking.
async fn news(cluster: Cluster) {
    loop {
        if let Ok(mut listener) = cluster.inner.store.listener().await {
            while !cluster.inner.ended.is_cancelled() {
                tokio::select! {
                    heard = listener.recv() => if heard.is_err() { break },
                    () = cluster.inner.ended.cancelled() => return,
                }
                cluster.wake();
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = cluster.inner.ended.cancelled() => return,
        }
    }
}
