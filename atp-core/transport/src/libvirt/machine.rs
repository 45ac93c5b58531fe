//! Which machine a daemon runs on.

use uuid::Uuid;

use super::LibvirtConnection;
use crate::error::Result;

impl LibvirtConnection {
    /// The UUID of the machine that the daemon runs on, in its capabilities (`virConnectGetCapabilities`): the one of
    /// the firmware, unless `host_uuid` in the daemon's configuration says another. None where the driver knows none.
    pub async fn machine(&self) -> Result<Option<Uuid>> {
        let xml = self.run("virConnectGetCapabilities", None, |on| Ok(on.connect.capabilities()?)).await?;
        Ok(parse(&xml))
    }
}

fn parse(xml: &str) -> Option<Uuid> {
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
        assert_eq!(parse(&xml), uuid.parse().ok());
        assert_eq!(parse("<capabilities><host/></capabilities>"), None);
        assert_eq!(parse("no"), None);
    }
}
