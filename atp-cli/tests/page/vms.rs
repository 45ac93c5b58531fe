//! The table of VMs.

use atp_fleet::VmFault;

use crate::service::Service;

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_is_in_the_address() {
    let service = Service::start(6, 4).await;
    service.fleet.host(3).unwrap().vm(1).unwrap().set_fault(VmFault::Hung);
    let mut browser = service.browser("#/vms").await;
    browser.says(".count", "24 VMs").await;

    browser.write("#selector", "h[1-2]/vm*").await;
    browser.says(".count", "8 VMs match").await;
    let address = browser.value("location.href").await;
    browser.write("#label", "rack=1").await;
    browser.says(".count", "4 VMs match").await;
    assert_eq!(browser.text(".rows .row").await.split('\n').collect::<Vec<_>>()[..2], ["vm1", "h1"]);

    // A link that was shared.
    browser.view("#/fleet").await;
    browser.shows(".tile").await;
    browser.go("about:blank").await;
    browser.go(address.as_str().unwrap()).await;
    browser.says(".count", "8 VMs match").await;
    assert_eq!(browser.value("document.querySelector('#selector').value").await, "h[1-2]/vm*");

    // A state is a step of the history.
    browser.run("const state = document.querySelector('#state'); state.value = 'shut-off'; state.dispatchEvent(new Event('change'))", serde_json::Value::Null).await;
    browser.says(".empty", "No VM matches").await;
    browser.back().await;
    browser.says(".count", "8 VMs match").await;

    browser.expect("400 (Bad Request)");
    browser.view("#/vms?selector=%5Bweb").await;
    browser.says(".failure", "invalid-selector").await;
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_rows_that_are_seen_are_elements() {
    let service = Service::start(10, 100).await;
    let browser = service.browser("#/vms").await;
    browser.says(".count", "1,000 VMs").await;
    assert!(browser.count(".rows .row").await < 100);
    assert_eq!(browser.value("document.querySelector('.table').getAttribute('aria-rowcount')").await, "1001");
    browser.run("document.querySelector('.table').scrollTop = 1e9", serde_json::Value::Null).await;
    browser.says(".rows .row", "vm100").await;
    assert!(browser.count(".rows .row").await < 100);
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_answer_is_told_beside_the_others() {
    let service = Service::start(3, 2).await;
    service.fleet.host(2).unwrap().set_fault(atp_fleet::HostFault::Dead);
    let browser = service.browser("#/vms").await;
    browser.says(".count", "4 VMs").await;
    browser.click(".away summary").await;
    browser.says(".away", "h2").await;
    browser.says(".away", "Try:").await;
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_is_watched_for_as_long_as_it_is_looked_at() {
    let service = Service::start(2, 2).await;
    let browser = service.browser("#/vms/h1/vm1").await;
    browser.press("Watch the console").await;
    browser.says(".console", "vm1 login:").await;
    browser.says(".console", "the console is open").await;
    browser.press("Stop watching").await;
    browser.press("Watch again").await;
    browser.until("document.querySelector('.console').textContent.split('vm1 login:').length === 3").await;
    // Who leaves the view gives the console free: both runs are done, without a failure.
    browser.view("#/runs").await;
    let rows = "[...document.querySelectorAll('.rows .row')].map((one) => one.textContent)";
    browser
        .until(&format!("(() => {{ const rows = {rows}; return rows.length === 2 && rows.every((one) => one.includes('console') && one.includes('done')); }})()"))
        .await;
    browser.end().await;
}
