//! What all connections of one host share.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::calls::HostCalls;
use crate::config::TransportConfig;
use crate::connector::Connector;
use crate::host::{HostId, HostInfo};
use crate::pace::Pace;
use crate::reconnect::Reconnect;
use crate::stats::Counts;

pub(crate) struct HostContext<C> {
    pub(crate) id: HostId,
    /// What is known of the host, and its configuration: both change while work runs.
    info: ArcSwap<HostInfo>,
    config: ArcSwap<TransportConfig>,
    pub(crate) connector: Arc<C>,
    pub(crate) calls: Arc<HostCalls>,
    pub(crate) reconnect: Reconnect,
    pub(crate) counts: Counts,
}

impl<C: Connector> HostContext<C> {
    /// `pace` is shared by all hosts.
    pub(crate) fn new(
        id: HostId,
        info: HostInfo,
        config: TransportConfig,
        connector: Arc<C>,
        pace: Arc<Pace>,
    ) -> Arc<Self> {
        let calls = HostCalls::new(&config.calls, &config.reconnect);
        let (reconnect, counts) = (Reconnect::new(pace), Counts::default());
        let (info, config) = (ArcSwap::from_pointee(info), ArcSwap::from_pointee(config));
        Arc::new(HostContext { id, info, config, connector, calls, reconnect, counts })
    }

    /// What is known of the host now.
    pub(crate) fn info(&self) -> Arc<HostInfo> {
        self.info.load_full()
    }

    /// The configuration as it is now, to be looked at; `Guard::into_inner` makes of it what can be kept.
    pub(crate) fn config(&self) -> Guard<Arc<TransportConfig>> {
        self.config.load()
    }

    /// Has what is known of the host, and its configuration, be these from now on. Calls of this must not overlap.
    pub(crate) fn reconfigure(&self, info: HostInfo, config: TransportConfig) {
        self.calls.reconfigure(&config.calls, &config.reconnect);
        self.info.store(Arc::new(info));
        self.config.store(Arc::new(config));
    }
}
