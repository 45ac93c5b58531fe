//! Signing in and out.

use serde_json::Value;

use crate::browser::Browser;
use crate::service::Service;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_begins_a_session_that_is_kept_until_it_is_left() {
    let service = Service::start(2, 1).await;
    let browser = Browser::start().await;
    browser.go(&format!("{}/#/vms?selector=vm1", service.address)).await;
    browser.write("#token", "wrong").await;
    browser.enter().await;
    browser.says(".failure", "does not know this token").await;
    browser.run("document.querySelector('#token').value = ''", Value::Null).await;
    browser.write("#token", &service.operator).await;
    browser.enter().await;
    // The view that the link was to.
    browser.says(".count", "2 VMs match").await;
    assert!(browser.text(".who").await.contains("ann · operator"));

    // Scripts do not see the cookie, and the token is nowhere.
    let kept = "document.cookie + location.href + JSON.stringify([sessionStorage, localStorage]) + document.documentElement.outerHTML";
    let kept = browser.value(kept).await;
    assert!(!kept.as_str().unwrap().contains(&service.operator));
    assert_eq!(browser.value("document.cookie").await, "");

    browser.run("location.reload()", Value::Null).await;
    browser.says(".count", "2 VMs match").await;
    browser.press("Sign out").await;
    browser.shows("#token").await;
    browser.run("location.reload()", Value::Null).await;
    browser.shows("#token").await;
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ended_asks_for_the_token_and_goes_on_there() {
    let service = Service::start(2, 2).await;
    let browser = service.browser("#/vms").await;
    browser.says(".count", "4 VMs").await;
    // Another tab signs out.
    let script = "const session = await (await fetch('/api/v1/session')).json(); \
                  await fetch('/api/v1/session', { method: 'DELETE', headers: { 'x-atp-csrf': session.csrf } })";
    browser.run(&format!("return (async () => {{ {script} }})()"), Value::Null).await;
    browser.write("#selector", "vm2").await;
    browser.says(".ended", "Your session has ended").await;
    browser.write("#token", &service.viewer).await;
    browser.enter().await;
    browser.says(".count", "2 VMs match").await;
    assert!(browser.text(".who").await.contains("bob · viewer"));
    browser.end().await;
}
