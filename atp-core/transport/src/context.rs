//! What all connections of one host share.

use std::sync::Arc;

use crate::calls::HostCalls;
use crate::config::TransportConfig;
use crate::connector::Connector;
use crate::host::{HostId, HostInfo};
use crate::reconnect::Reconnect;

pub(crate) struct HostContext<C> {
    pub(crate) id: HostId,
    pub(crate) info: HostInfo,
    pub(crate) config: TransportConfig,
    pub(crate) connector: Arc<C>,
    pub(crate) calls: Arc<HostCalls>,
    pub(crate) reconnect: Reconnect,
}

impl<C: Connector> HostContext<C> {
    pub(crate) fn new(id: HostId, info: HostInfo, config: TransportConfig, connector: Arc<C>) -> Arc<Self> {
        let calls = HostCalls::new(&config.calls, &config.reconnect);
        Arc::new(HostContext { id, info, config, connector, calls, reconnect: Reconnect::new() })
    }
}
