//! What comes from guests is text.

use serde_json::{Value, json};

use crate::service::{EVIL, Service};

#[tokio::test(flavor = "multi_thread")]
async fn names_are_never_html() {
    let service = Service::start(2, 2).await;
    // A slash is in no name.
    let name = EVIL.replace('/', "");
    service.fleet.host(1).unwrap().vm(1).unwrap().rename(&name);
    let mut browser = service.browser("#/vms").await;
    browser.expect("/screenshot");
    browser.says(".rows .row", "<img src=x onerror=").await;
    // What changes the direction of reading is shown.
    browser.says(".rows .row", "\\u{202e}").await;
    browser.run("[...document.querySelectorAll('.rows .row')].find((row) => row.innerText.includes('<img')).click()", Value::Null).await;
    browser.says("h1", "<img src=x onerror=").await;
    browser.view("#/screens").await;
    browser.says("figcaption", "<img src=x onerror=").await;
    browser.view("#/run?verb=exec&selector=*").await;
    browser.write("[data-name=program]", "true").await;
    browser.press("Show the plan").await;
    browser.says(".plan .row", "<img src=x onerror=").await;
    let harm = "[typeof window.harmed, document.querySelectorAll('main img, main script').length]";
    assert_eq!(browser.value(harm).await, json!(["undefined", 0]));

    // If a script of the page did make HTML of a text, the browser would refuse.
    let attempt =
        "try { document.body.innerHTML = '<b>x</b>'; return 'done' } catch (error) { return error.name }";
    assert_eq!(browser.run(attempt, Value::Null).await, "TypeError");
    browser.expect("TrustedHTML");
    browser.end().await;
}
