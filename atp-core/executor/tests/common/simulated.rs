//! Simulated hosts in memory, and a manager of them.

use std::io;
use std::sync::Arc;

use atp_fleet::{Fleet, FleetOptions};
use atp_transport::{Dialler, HostInfo, LibvirtConnector, TransportConfig, TransportManager};

/// Hosts `h1`, `h2`, … with the VMs `vm1`, `vm2`, ….
pub(crate) async fn simulated(options: FleetOptions) -> (Arc<Fleet>, TransportManager) {
    let hosts = options.hosts;
    let fleet = Arc::new(Fleet::in_memory(options).unwrap());
    let ways = Arc::clone(&fleet);
    let dialler = Dialler::new(move |uri| {
        let name = uri.host.clone().unwrap_or_default();
        let host = name.strip_prefix('h').and_then(|number| ways.host(number.parse().ok()?));
        let way = host.map(|host| host.connect()).ok_or_else(|| io::ErrorKind::NotFound.into());
        async move { way }
    });
    let config = TransportConfig::default();
    let connector = LibvirtConnector::new(&config).with_dialler(dialler);
    let manager = TransportManager::with_connector(config, connector);
    for number in 1..=hosts {
        let host = HostInfo::from_uri(format!("h{number}"), format!("qemu+tcp://h{number}/system"));
        manager.add_host(host).await.unwrap();
    }
    (fleet, manager)
}
