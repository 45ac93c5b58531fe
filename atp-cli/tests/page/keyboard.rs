//! The page without a mouse.

use crate::browser::Browser;
use crate::service::Service;

const ESCAPE: char = '\u{e00c}';

#[tokio::test(flavor = "multi_thread")]
async fn vms_are_found_chosen_and_opened_with_the_keyboard() {
    let service = Service::start(3, 4).await;
    let mut browser = Browser::start().await;
    // What a simulated VM has no screen for.
    browser.expect("/screenshot");
    browser.go(&service.address).await;
    browser.shows("#token").await;
    // The field has the focus.
    browser.keys(service.operator.chars()).await;
    browser.enter().await;
    browser.shows(".tile").await;

    browser.keys("gv".chars()).await;
    browser.says(".count", "12 VMs").await;
    browser.keys("/h2/".chars()).await;
    browser.says(".count", "4 VMs match").await;
    // Keys in a field are text, and no commands.
    assert_eq!(browser.value("document.querySelector('#selector').value").await, "h2/");
    browser.keys([ESCAPE]).await;
    browser.keys("jjx".chars()).await;
    browser.says(".actions", "Run on 1 selected VM").await;
    assert_eq!(browser.text("[aria-selected=true] .strong").await, "vm2");
    browser.keys("kx".chars()).await;
    browser.says(".actions", "Run on 2 selected VMs").await;
    let seen = "getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(browser.value(seen).await, "solid", "the focus is visible");

    browser.enter().await;
    browser.says("h1", "vm1").await;
    browser.keys(['?']).await;
    browser.says("dialog", "Keyboard").await;
    browser.keys([ESCAPE]).await;
    browser.until("!document.querySelector('dialog')").await;
    browser.keys([ESCAPE]).await;
    browser.says(".count", "4 VMs match").await;
    browser.end().await;
}
