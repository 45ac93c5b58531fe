//! The table of VMs.

use atp_fleet::{Fleet, FleetOptions, VmFault};
use serde_json::{Value, json};

use crate::browser::Browser;
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
    browser.run("const state = document.querySelector('#state'); state.value = 'shut-off'; state.dispatchEvent(new Event('change'))", Value::Null).await;
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
    browser.run("document.querySelector('.table').scrollTop = 1e9", Value::Null).await;
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

/// Shows the plan, and waits until it is for one VM of this name.
async fn plans_for(browser: &Browser, verb: &str, vm: &str) {
    browser.press("Show the plan").await;
    browser.says(".plan h2", &format!("{verb} on 1 VM")).await;
    browser.says(".plan .rows .row", vm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_in_a_name_does_not_make_two_of_it() {
    let service = Service::start(3, 2).await;
    service.fleet.host(1).unwrap().vm(1).unwrap().rename("Windows 10");
    service.fleet.host(2).unwrap().vm(1).unwrap().rename("10");
    let mut browser = service.browser("#/vms").await;
    browser.expect("/screenshot");
    let row =
        "[...document.querySelectorAll('.rows .row')].find((one) => one.innerText.includes('Windows 10'))";
    browser.says(".rows .row", "Windows 10").await;
    browser.run(&format!("{row}.click()"), Value::Null).await;
    browser.says("h1", "Windows 10").await;
    browser.press("Shut down").await;
    plans_for(&browser, "vm-shutdown", "Windows 10").await;

    // It is ticked.
    browser.view("#/vms").await;
    browser.says(".rows .row", "Windows 10").await;
    browser.run(&format!("{row}.querySelector('.check').click()"), Value::Null).await;
    browser.press("Run on 1 selected VM").await;
    browser.press("vm-info").await;
    plans_for(&browser, "vm-info", "Windows 10").await;
    assert_eq!(browser.value("document.querySelector('#run-selector').value").await, "h1/Windows\\ 10");

    browser.view("#/vms/h1/Windows%2010").await;
    browser.press("Its events").await;
    browser.shows(".timeline").await;
    assert_eq!(browser.value("document.querySelector('#selector').value").await, "h1/Windows\\ 10");
    assert_eq!(browser.count(".failure").await, 0);

    // A regular expression, and a label, of which the address is shared.
    for (field, typed) in [("#selector", r"/^Windows\ [0-9]+$/"), ("#label", r"rack=3\ east")] {
        browser.view("#/vms").await;
        browser.says(".count", "6 VMs").await;
        browser.write(field, typed).await;
        let found = if field == "#label" { "2 VMs match" } else { "1 VM match" };
        browser.says(".count", found).await;
        let address = browser.value("location.href").await;
        browser.go("about:blank").await;
        browser.go(address.as_str().unwrap()).await;
        browser.says(".count", found).await;
        assert_eq!(browser.value(&format!("document.querySelector({}).value", json!(field))).await, typed);
    }
    // As a filter of a run too.
    browser.press("Run on these VMs").await;
    browser.press("vm-info").await;
    browser.press("Show the plan").await;
    browser.says(".plan h2", "vm-info on 2 VMs on 1 host").await;
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_may_not_do_is_not_offered() {
    let service = Service::start(2, 2).await;
    let mut browser = service.browser_of(&service.viewer, "#/vms/h1/vm1").await;
    browser.expect("/screenshot");
    browser.says(".actions", "Ask for details").await;
    browser.says("button", "Watch the console").await;
    let actions = browser.text("main .actions").await;
    for word in ["Run a command", "Start", "Shut down"] {
        assert!(!actions.contains(word), "{actions}");
    }
    browser.view("#/run?verb=exec&selector=h1/vm1").await;
    browser.says(".composer .notice-box", "Your token may not use exec.").await;
    assert_eq!(browser.value("document.querySelector('.composer button.primary').disabled").await, true);
    browser.view("#/run?verb=dance&selector=h1/vm1").await;
    browser.says(".composer .notice-box", "The service does not offer dance.").await;
    browser.press("vm-info").await;
    plans_for(&browser, "vm-info", "vm1").await;
    assert_eq!(browser.count(".composer .notice-box:not([hidden])").await, 0);
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_read_only_offers_no_console() {
    let fleet = Fleet::start(FleetOptions { hosts: 1, vms: 1, ..FleetOptions::default() }).await.unwrap();
    let service = Service::with(fleet, "read_only = true\n");
    let mut browser = service.browser("#/vms/h1/vm1").await;
    browser.expect("/screenshot");
    browser.says(".card", "The service is read only: no console can be watched.").await;
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_rows_are_old_is_said_in_words() {
    let service = Service::start(2, 1).await;
    let browser = service.browser("#/vms").await;
    browser.says(".count", "2 VMs").await;
    browser
        .until("[...document.querySelectorAll('.rows .row')].every((one) => /%/.test(one.innerText))")
        .await;
    service.fleet.host(2).unwrap().set_fault(atp_fleet::HostFault::Dead);
    for kind in ["old", "use"] {
        let note = format!(".away[data-kind={kind}]");
        browser.shows(&note).await;
        // Not by a click: the note may be drawn again between finding it and that.
        browser.run(&format!("document.querySelector({}).open = true", json!(note)), Value::Null).await;
        browser.says(&note, "h2: ").await;
    }
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_reserved_a_vm_is_in_the_name_of_its_row() {
    let service = Service::start(1, 2).await;
    let browser = service.browser("#/vms").await;
    browser.says(".count", "2 VMs").await;
    let script = "const { csrf } = await (await fetch('/api/v1/session')).json(); \
                  const body = JSON.stringify({ targets: { selectors: ['h1/vm1'] }, count: 1, owner: 'nightly', for_ms: 600000 }); \
                  const headers = { 'x-atp-csrf': csrf, 'content-type': 'application/json' }; \
                  return (await fetch('/api/v1/reservations', { method: 'POST', headers, body })).status";
    let status = browser.run(&format!("return (async () => {{ {script} }})()"), Value::Null).await;
    assert!([200, 201].map(Value::from).contains(&status), "{status}");
    browser
        .until("[...document.querySelectorAll('.rows .row')].some((one) => /vm1, .*reserved by nightly/.test(one.ariaLabel))")
        .await;
    browser.end().await;
}
