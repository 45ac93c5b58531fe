//! What all connections of one host share.

use std::sync::Arc;

use crate::calls::HostCalls;
use crate::config::TransportConfig;
use crate::connector::Connector;
use crate::host::{HostId, HostInfo};
use crate::pace::Pace;
use crate::reconnect::Reconnect;
use crate::stats::Counts;

pub(crate) struct HostContext<C> {
    pub(crate) id: HostId,
    pub(crate) info: HostInfo,
    pub(crate) config: TransportConfig,
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
        Arc::new(HostContext { id, info, config, connector, calls, reconnect, counts })
    }
}
