//! Runs: composed, planned, started, watched, ended early.

use std::time::Duration;

use atp_fleet::VmFault;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::browser::Browser;
use crate::proxy::Proxy;
use crate::service::Service;

/// Composes a run of a program on the VMs of the address, and waits for its plan.
async fn plan(browser: &Browser, program: &str, targets: &str) {
    browser.view(&format!("#/run?verb=exec&selector={targets}")).await;
    browser.write("[data-name=program]", program).await;
    browser.press("Show the plan").await;
    browser.shows(".plan").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_shows_its_plan_and_then_its_outcomes_in_groups() {
    let service = Service::start(5, 4).await;
    let browser = service.browser("#/run").await;
    browser.press("exec").await;
    browser.write("[data-name=program]", "release").await;
    browser.write("#run-selector", "h*/vm*").await;
    browser.write("#run-exclude", "h5/").await;
    browser.press("Show the plan").await;
    browser.says(".plan h2", "exec on 16 VMs on 4 hosts").await;
    browser.says(".tally", "will be done").await;
    assert_eq!(service.ran("release"), 0, "a plan does nothing");

    browser.press("Start exec on 16 VMs").await;
    browser.shows("a[download]").await;
    browser.says(".chips", "16 outcomes").await;
    browser.says(".chips", "12 ok").await;
    browser.says(".chips", "4 failed").await;
    assert_eq!((service.ran("release"), browser.count(".outcome").await), (16, 3));

    // The second group differs from the first in one line.
    assert!(browser.text(".outcome:nth-child(1)").await.contains("8 targets"));
    let second = ".outcome:nth-child(2)";
    assert_eq!(
        browser.text(&format!("{second} .removed")).await.trim().replace('\n', ""),
        "− only in the largest group:KERNEL=6.1.0-25"
    );
    assert_eq!(
        browser.text(&format!("{second} .added")).await.trim().replace('\n', ""),
        "+ only here:KERNEL=6.1.0-21"
    );
    let third = browser.text(".outcome:nth-child(3)").await;
    for part in ["exit-nonzero", "exit code 3", "no such kernel", "Effect: done", "h1/vm4", "h4/vm4"] {
        assert!(third.contains(part), "{part}: {third}");
    }

    // The filter by status and the list by target are in the address.
    browser.press("✕4 failed").await;
    browser.until("document.querySelectorAll('.outcome').length === 1").await;
    browser.press("Targets").await;
    browser.until("document.querySelectorAll('.rows .row').length === 4").await;
    let address = browser.value("location.href").await;
    browser.go("about:blank").await;
    browser.go(address.as_str().unwrap()).await;
    browser.until("document.querySelectorAll('.rows .row').length === 4").await;
    let junit = browser
        .run(
            "return (async () => (await fetch(document.querySelector('a[download]').href)).text())()",
            Value::Null,
        )
        .await;
    assert!(junit.as_str().unwrap().contains("tests=\"16\""), "{junit}");

    browser.view("#/runs").await;
    browser.says(".rows .row", "4 failures").await;
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plan_cannot_do_is_said_before_the_start() {
    let service = Service::start(2, 2).await;
    service.fleet.host(2).unwrap().set_fault(atp_fleet::HostFault::Dead);
    let browser = service.browser("#/run").await;
    browser.view("#/run?verb=vm-start&selector=h1/&selector=h1/nothing").await;
    browser.press("Show the plan").await;
    browser.says(".tally", "nothing to do").await;
    browser.says(".plan .away", "vm-not-found").await;
    // What takes VMs away is asked about.
    browser.view("#/run?verb=vm-destroy&selector=h1/").await;
    browser.press("Show the plan").await;
    browser.press("Start vm-destroy on 2 VMs").await;
    browser.says("dialog", "This takes running VMs away from their users: h1/vm1, h1/vm2.").await;
    browser.press("Do nothing").await;
    browser.until("!document.querySelector('dialog')").await;
    assert!(service.fleet.host(1).unwrap().vm(1).unwrap().is_active());
    browser.press("Start vm-destroy on 2 VMs").await;
    browser.press("Start on 2 VMs").await;
    browser.says(".chips", "2 ok").await;
    assert!(!service.fleet.host(1).unwrap().vm(1).unwrap().is_active());
    // What a VM's state does not allow is named, with its kind and what to try.
    browser.view("#/run?verb=exec&selector=h1/vm1").await;
    browser.write("[data-name=program]", "release").await;
    browser.press("Show the plan").await;
    browser.says(".plan .refused", "Would be refused: 1 VM").await;
    let refused = browser.text(".plan .refused li").await;
    for part in ["h1/vm1", "vm-not-running", "Try:"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_cut_is_resumed_and_no_outcome_comes_twice() {
    let service = Service::start(8, 5).await;
    let proxy = Proxy::start(&service.address).await;
    let mut browser = Browser::start().await;
    browser.expect("ERR_");
    browser.go(&proxy.address).await;
    browser.write("#token", &service.operator).await;
    browser.enter().await;
    browser.shows(".tile").await;
    browser.view("#/run?verb=exec&selector=*").await;
    browser.write("[data-name=program]", "pause").await;
    // Ten batches, so that the run goes on for some seconds.
    browser.click("details.more.card summary").await;
    browser.write("#limit-parallel", "4").await;
    browser.press("Show the plan").await;
    browser.press("Start exec on 40 VMs").await;
    browser.shows(".outcome").await;
    let id = browser.value("location.hash.split('/').pop()").await;
    // It may be shown for half a second only.
    let look = "window.wasLost = false; const live = document.querySelector('.live'); \
                new MutationObserver(() => { window.wasLost ||= live.textContent.includes('Reconnecting'); }) \
                .observe(live, { childList: true, subtree: true, characterData: true })";
    browser.run(look, Value::Null).await;
    proxy.cut();
    browser.until("window.wasLost").await;
    browser.says(".chips", "40 outcomes").await;
    browser.shows("a[download]").await;
    let names = "[...document.querySelectorAll('.members li')].map((one) => one.textContent)";
    let more = "document.querySelectorAll('.members button').forEach((one) => one.click())";
    browser.run(more, Value::Null).await;
    assert_eq!(browser.value(&format!("new Set({names}).size")).await, json!(40));
    assert_eq!(browser.value(&format!("{names}.length")).await, json!(40));
    assert_eq!(service.ran("pause"), 40);
    let path = format!("/api/v1/runs/{}/events", id.as_str().unwrap());
    assert!(proxy.resumed(&path), "the stream of {path} began anew");
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_stopped_and_aborted() {
    let service = Service::start(4, 4).await;
    let browser = service.browser("#/run").await;
    plan(&browser, "forever", "*").await;
    browser.press("Start exec on 16 VMs").await;
    browser.says(".working", "Under way: h").await;
    browser.press("Stop").await;
    // All targets are under way: there is none that is not started.
    browser.says("body", "The run is asked to stop").await;
    browser.press("Abort").await;
    browser.says(".chips", "16 cancelled").await;
    browser.says(".outcome", "It was sent, and it is not known whether it happened.").await;
    browser.view("#/runs").await;
    browser.says(".rows .row", "ended early").await;
    browser.end().await;
}

/// Waits until the VMs of the fleet have run a program so often.
async fn has_run(service: &Service, program: &str, times: u64) {
    let end = Instant::now() + Duration::from_secs(60);
    while service.ran(program) < times {
        assert!(Instant::now() < end, "{program}: {}", service.ran(program));
        sleep(Duration::from_millis(20)).await;
    }
}

/// Starts what the form has on the three VMs of the host h1, one at a time.
async fn start_one_by_one(browser: &Browser, verb: &str) {
    browser.click("details.more.card summary").await;
    browser.write("#limit-parallel", "1").await;
    browser.press("Show the plan").await;
    browser.press(&format!("Start {verb} on 3 VMs")).await;
    browser.says(".working", "Under way: h1/vm1").await;
}

/// Presses `Resume` when the run has ended. The button is drawn anew until then, so that it is found and clicked on in one step.
async fn resume(browser: &Browser) {
    let button =
        "[...document.querySelectorAll('.run-head button')].find((one) => one.innerText === 'Resume')";
    browser.until(&format!("!document.querySelector('.live').innerText && {button}")).await;
    browser.run(&format!("{button}.click()"), Value::Null).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_aborted_is_resumed() {
    let service = Service::start(2, 3).await;
    let first = service.fleet.host(1).unwrap().vm(1).unwrap();
    first.set_fault(VmFault::Hung);
    let mut browser = service.browser("#/run?verb=vm-info&selector=h1/").await;
    // The service has kept what the run was begun with.
    start_one_by_one(&browser, "vm-info").await;
    browser.press("Abort").await;
    browser.says(".notice-box", "It was aborted").await;
    browser.says(".chips", "2 skipped").await;
    first.set_fault(None);
    resume(&browser).await;
    browser.says(".chips", "3 ok").await;
    assert_eq!(browser.count(".failure").await, 0);

    // Of a program it has not.
    browser.view("#/run?verb=exec&selector=h*/&exclude=h2/&exclude=h1/no%5C%20such&state=running").await;
    browser.write("[data-name=program]", "forever").await;
    start_one_by_one(&browser, "exec").await;
    has_run(&service, "forever", 1).await;
    browser.press("Abort").await;
    browser.says(".chips", "2 skipped").await;
    let run = browser.value("location.hash.split('/').pop()").await;
    let run = run.as_str().unwrap();
    browser.expect("400 (Bad Request)");
    resume(&browser).await;
    browser.says(".failure", "The service has not kept what exec was begun with").await;
    browser.says(".failure", &format!("--resume {run}")).await;
    browser.press("Give it again").await;
    browser.says("h1", &format!("Resume run {run}")).await;
    // The page itself still has it, as long as it is not loaded anew.
    assert_eq!(browser.value("document.querySelector('[data-name=program]').value").await, "forever");
    // The run's selectors, not the targets that they chose then: a host that could not be listed is asked again.
    for (field, value) in [("selector", "h*/"), ("exclude", "h2/ h1/no\\ such"), ("state", "running")] {
        assert_eq!(browser.value(&format!("document.querySelector('#run-{field}').value")).await, value);
    }
    browser.press("Show the plan").await;
    browser.says(".plan h2", "exec on 3 VMs").await;
    browser.press(&format!("Resume run {run}")).await;
    // The two that were not started, and not the first: it was sent.
    for vm in ["h1/vm2", "h1/vm3"] {
        browser.says(".working", vm).await;
    }
    assert!(!browser.text(".working").await.contains("vm1"));
    assert_eq!(browser.value("location.hash").await, format!("#/runs/{run}"));
    has_run(&service, "forever", 3).await;
    browser.press("Abort").await;
    browser.says(".chips", "3 cancelled").await;
    assert_eq!(service.ran("forever"), 3);

    // What it was not begun with is refused.
    browser.expect("409 (Conflict)");
    resume(&browser).await;
    browser.press("Give it again").await;
    browser.shows("[data-name=program]").await;
    browser.run("document.querySelector('[data-name=program]').value = ''", Value::Null).await;
    browser.write("[data-name=program]", "release").await;
    browser.press("Show the plan").await;
    browser.press(&format!("Resume run {run}")).await;
    browser.says(".plan .failure", "Kind: conflict").await;
    assert_eq!(service.ran("release"), 0);
    browser.end().await;
}

/// Chooses a file of this machine in a field.
async fn choose(browser: &Browser, field: &str, name: &str, content: &str) {
    let folder =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("files-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    browser.write(field, path.to_str().unwrap()).await;
}

/// What the browser gets for the links to files, as text.
async fn fetched(browser: &Browser) -> Value {
    let script = "return (async () => Promise.all([...document.querySelectorAll('a.file')].map(async (one) => \
                  (await (await fetch(one.href)).text()).slice(0, 40))))()";
    browser.run(script, Value::Null).await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_copied_into_guests_and_out_of_them() {
    let service = Service::start(2, 2).await;
    let browser = service.browser("#/run").await;
    browser.view("#/run?verb=push&selector=h1/*").await;
    // By the names that tokens and the command line have for them.
    for verb in ["cp (push)", "run (scenario)", "doctor (diagnose-host)"] {
        browser.says("label.verb", verb).await;
    }
    choose(&browser, "#file", "app.conf", "port = 1\n").await;
    browser.write("[data-name=destination]", "/etc/app.conf").await;
    browser.press("Show the plan").await;
    browser.press("Start cp on 2 VMs").await;
    browser.says(".chips", "2 ok").await;

    browser.view("#/run?verb=pull&selector=h1/*").await;
    browser.write("[data-name=path]", "/etc/app.conf").await;
    browser.press("Show the plan").await;
    browser.press("Start cp on 2 VMs").await;
    browser.says(".chips", "2 ok").await;
    browser.until("document.querySelectorAll('a.file').length === 2").await;
    assert_eq!(browser.count(".outcome").await, 1, "equal files are one group");
    assert_eq!(fetched(&browser).await, json!(["port = 1\n", "port = 1\n"]));

    browser.view("#/run?verb=screenshot&selector=h2/vm1").await;
    browser.press("Show the plan").await;
    browser.press("Start screenshot on 1 VM").await;
    browser.says(".chips", "1 ok").await;
    browser.until("document.querySelectorAll('a.file').length === 1").await;
    assert!(fetched(&browser).await[0].as_str().unwrap().contains("PNG"));

    browser.view("#/run?verb=scenario&selector=h2/*").await;
    let scenario = "name: both\ntargets: h2/*\nevidence: {on: always, commands: [hostname]}\nsteps:\n\
                    - cp: {push: extra.conf, to: /tmp/extra}\n- cp: {pull: /tmp/extra, to: out}\n";
    browser.write("[data-name=text]", scenario).await;
    choose(&browser, "#files", "extra.conf", "more").await;
    browser.press("Show the plan").await;
    browser.press("Start run on 2 VMs").await;
    browser.says(".chips", "2 ok").await;
    browser.until("document.querySelectorAll('a.file').length === 4").await;
    let mut texts: Vec<_> = serde_json::from_value::<Vec<String>>(fetched(&browser).await).unwrap();
    texts.sort();
    let evidence = ["vm1", "vm2"].map(|vm| format!("$ hostname\n{vm}\n[exit code 0]\n"));
    assert_eq!(texts, [&evidence[0], &evidence[1], "more", "more"]);
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_says_how_far_its_copies_are() {
    let service = Service::start(1, 1).await;
    let browser = service.browser("#/run").await;
    browser.view("#/run?verb=push&selector=h1/vm1").await;
    choose(&browser, "#file", "large", &"x".repeat(8 << 20)).await;
    browser.write("[data-name=destination]", "/tmp/large").await;
    browser.press("Show the plan").await;
    browser.shows(".plan").await;
    let host = service.fleet.host(1).unwrap();
    host.set_fault(atp_fleet::HostFault::Slow { by: Duration::from_secs(1) });
    browser.press("Start cp on 1 VM").await;
    browser.until("/^Under way: h1\\/vm1 \\(copying \\d+ %\\)\\.$/.test(document.querySelector('.working')?.textContent)").await;
    host.set_fault(None);
    browser.says(".chips", "1 ok").await;
    browser.until("!document.querySelector('.working').textContent").await;
    browser.end().await;
}
