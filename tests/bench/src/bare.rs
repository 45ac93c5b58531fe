//! The baseline: the `virt` crate alone, with connections and keepalive as in the transport.

use anyhow::Result;
use atp_transport::{HostInfo, KeepaliveConfig, TransportConfig, TransportError, TransportManager};
use virt::connect::Connect;

/// Opens a connection with the transport's default keepalive.
pub(crate) fn open(uri: &str) -> Result<Connect> {
    let connect = Connect::open(Some(uri))?;
    let KeepaliveConfig { interval, count } = KeepaliveConfig::default();
    connect.set_keep_alive(i32::try_from(interval.as_secs())?, count)?;
    Ok(connect)
}

/// Makes the transport register and run its event loop in this process, as it does on its first connect. Connections
/// of the bare library then use this loop.
pub(crate) fn use_our_event_loop() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let manager = TransportManager::new(TransportConfig::default());
        manager.add_host(HostInfo::from_uri("none", "test:///default")).await?;
        manager.execute_on_host("none", |connection| async move { connection.hostname().await }).await?;
        Ok::<_, TransportError>(())
    })?;
    Ok(())
}
