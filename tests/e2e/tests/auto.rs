//! Hosts of both engines under `engine = "auto"`: daemons by the native engine, a driver inside the library by the library.

use std::time::Duration;

use atp_e2e::{Atp, bed, within};
use atp_transport::{
    Engine, ErrorKind, HostInfo, LibvirtConnection, TransportConfig, TransportError, TransportManager,
};
use serde_json::json;

/// Time limit of each test.
const LIMIT: Duration = Duration::from_secs(180);
/// A driver inside the library.
const DEMO: &str = "demo=test:///default";

#[test]
fn one_run_has_hosts_of_both_engines() {
    let bed = bed();
    let uri = bed.host("h1").unwrap().uri();
    let atp = |args: &[&str]| {
        Atp::new(args)
            .output("json")
            .env("ATP_HOSTS__H1__URI", &uri)
            .env("ATP_HOSTS__DEMO__URI", "test:///default")
    };
    let listed = atp(&["host", "list"]).run();
    let engine_of = |host: &str| listed.outcome(host).data["engine"].clone();
    assert_eq!((engine_of("h1"), engine_of("demo")), (json!("native"), json!("library")));

    let vms = atp(&["vm", "list"]).run();
    vms.exits_with(0);
    assert_eq!(vms.names(), ["demo/test", "h1/vm1", "h1/vm2"]);

    let doctor = atp(&["doctor"]).run();
    for (host, words) in [("h1", "native: ATP's own"), ("demo", "library: libvirt's C")] {
        let finding = doctor.outcome(host).data["findings"][0].clone();
        assert_eq!(finding["check"], "engine", "{finding}");
        assert!(finding["message"].as_str().unwrap().starts_with(words), "{finding}");
    }
    // The setting is of all hosts that have none of their own, in both directions.
    let library = atp(&["--engine", "library", "vm", "list", "h1/vm1"]).run();
    library.exits_with(0);
    let native = Atp::new(&["--host", DEMO, "--engine", "native", "vm", "list"]).output("json").run();
    let refused = native.exits_with(1).outcome("demo");
    let failure = refused.failure();
    assert_eq!(failure.kind, "invalid-uri");
    assert!(failure.causes.concat().contains("the driver test is inside libvirt's C library"), "{failure:?}");
}

#[test]
fn the_c_connection_is_lent_where_the_library_is_the_engine() {
    let bed = bed();
    let uri = bed.host("h1").unwrap().uri();
    within(LIMIT, async {
        let manager = TransportManager::new(TransportConfig::default());
        let set = TransportConfig { engine: Engine::Library, ..TransportConfig::default() };
        for host in [
            HostInfo::from_uri("daemon", &uri),
            HostInfo::from_uri("set", &uri).with_config(set),
            HostInfo::from_uri("inside", "test:///default"),
        ] {
            manager.add_host(host).await.unwrap();
        }
        let work = |lease: LibvirtConnection| async move {
            lease.run_blocking("virConnectGetLibVersion", |connect| connect.lib_version()).await
        };
        for host in ["set", "inside"] {
            assert!(manager.execute_on_host(host, work).await.unwrap() >= 9_000_000, "{host}");
        }
        let error = manager.execute_on_host("daemon", work).await.unwrap_err();
        assert!(matches!(error, TransportError::NeedsLibrary { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::NotSupported);
        assert!(error.hint().contains("engine = \"library\""), "{}", error.hint());
        // The refusal is of the closure alone.
        let asked = manager.execute_on_host("daemon", |lease| async move { lease.hostname().await }).await;
        assert_eq!(asked.unwrap(), "h1.atp.test");
    });
}
