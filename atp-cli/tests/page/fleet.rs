//! The map of the fleet.

use atp_fleet::HostFault;

use crate::service::Service;

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_grouped_and_their_health_changes_while_they_are_looked_at() {
    let service = Service::start(6, 1).await;
    let browser = service.browser("#/fleet").await;
    browser.shows(".tile").await;
    assert_eq!((browser.count(".tile").await, browser.count(".group").await), (6, 3));
    browser.says("#health-healthy", "6 healthy").await;

    // Work finds a host that is gone.
    service.fleet.host(2).unwrap().set_fault(HostFault::Dead);
    browser
        .run(
            "for (let n = 0; n < 8; n += 1) fetch('/api/v1/vms?selector=h2/&max_age=0s')",
            serde_json::Value::Null,
        )
        .await;
    browser.until("document.querySelector('[data-host=h2]')?.classList.contains('good') === false").await;

    browser.click("#health-healthy").await;
    browser.until("document.querySelectorAll('.tile').length === 5").await;
    assert!(browser.value("location.hash").await.as_str().unwrap().contains("health=healthy"));
    browser.back().await;
    browser.until("document.querySelectorAll('.tile').length === 6").await;

    browser.write("#find", "h3").await;
    browser.until("document.querySelectorAll('.tile').length === 1").await;
    browser.click(".tile").await;
    browser.says(".facts", "qemu+tcp://127.0.1.3").await;
    browser.press("Show its VMs").await;
    browser.says(".count", "1 VM match").await;
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_checked_and_no_other() {
    let service = Service::start(3, 1).await;
    let mut browser = service.browser("#/fleet/h2").await;
    browser.press("Check this host").await;
    browser.press("Show the plan").await;
    browser.says(".plan h2", "host-check on 1 host").await;
    browser.press("Start host-check on 1 host").await;
    browser.says(".chips", "1 ok").await;
    browser.says(".outcome", "h2").await;
    // The name of a VM means no host.
    browser.expect("400 (Bad Request)");
    browser.view("#/run?verb=host-check&selector=h2").await;
    browser.press("Show the plan").await;
    browser.says("#plan .failure", "host-check is for hosts, and the selector \"h2\" chooses VMs").await;
    browser.says("#plan .failure", "write h2/").await;
    browser.end().await;
}
