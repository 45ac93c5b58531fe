//! What a host's daemon says of itself.

use uuid::Uuid;

use super::LibvirtConnection;
use crate::domain::{Hypervisor, Version};
use crate::error::Result;

impl LibvirtConnection {
    /// The version of the daemon's libvirt (`virConnectGetLibVersion`).
    pub async fn lib_version(&self) -> Result<Version> {
        self.call("virConnectGetLibVersion", None, async |link, in_flight| link.lib_version(in_flight).await)
            .await
    }

    /// The hypervisor and its version (`virConnectGetType`, `virConnectGetVersion`).
    pub async fn hypervisor(&self) -> Result<Hypervisor> {
        self.call("virConnectGetVersion", None, async |link, in_flight| link.hypervisor(in_flight).await)
            .await
    }

    /// The host's own name for itself (`virConnectGetHostname`).
    pub async fn hostname(&self) -> Result<String> {
        self.call("virConnectGetHostname", None, async |link, in_flight| link.hostname(in_flight).await).await
    }

    /// The UUID of the machine that the daemon runs on, in its capabilities (`virConnectGetCapabilities`): the one of
    /// the firmware, unless `host_uuid` in the daemon's configuration says another. None where the driver knows none.
    pub async fn machine(&self) -> Result<Option<Uuid>> {
        Ok(machine_uuid(&self.capabilities().await?))
    }

    /// What the host can do, as XML (`virConnectGetCapabilities`).
    pub(super) async fn capabilities(&self) -> Result<String> {
        self.call("virConnectGetCapabilities", None, async |link, in_flight| {
            link.capabilities(in_flight).await
        })
        .await
    }
}

fn machine_uuid(xml: &str) -> Option<Uuid> {
    let document = roxmltree::Document::parse(xml).ok()?;
    let host = document.root_element().children().find(|node| node.has_tag_name("host"))?;
    host.children().find(|node| node.has_tag_name("uuid"))?.text()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uuid_is_the_hosts() {
        let uuid = "6a5f0c4e-0000-4000-8000-1234567890ab";
        let xml = format!("<capabilities><host><uuid>{uuid}</uuid><cpu/></host><guest/></capabilities>");
        assert_eq!(machine_uuid(&xml), uuid.parse().ok());
        assert_eq!(machine_uuid("<capabilities><host/></capabilities>"), None);
        assert_eq!(machine_uuid("no"), None);
    }
}
