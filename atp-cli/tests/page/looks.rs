//! Dark colours, and narrow screens.

use serde_json::{Value, json};

use crate::service::Service;

/// The views, with what each shows when it is there.
const VIEWS: [(&str, &str); 6] = [
    ("#/fleet", ".tile"),
    ("#/vms", ".rows .row"),
    ("#/run?verb=exec&selector=*", "[data-name=program]"),
    ("#/runs", ".empty"),
    ("#/screens", ".screen"),
    ("#/events", ".timeline"),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_colours_are_those_that_the_user_prefers() {
    let service = Service::start(2, 2).await;
    let browser = service.browser("#/fleet").await;
    let ground = "getComputedStyle(document.body).backgroundColor";
    browser.until(&format!("{ground} === 'rgb(246, 247, 249)'")).await;
    browser.dark(true).await;
    browser.until(&format!("{ground} === 'rgb(17, 21, 27)'")).await;
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_view_is_wider_than_a_narrow_screen() {
    let service = Service::start(4, 3).await;
    let mut browser = service.browser("#/fleet").await;
    // The simulated screens need not be there.
    browser.expect("/screenshot");
    browser.size(360, 740).await;
    for (view, shown) in VIEWS {
        browser.view(view).await;
        browser.shows(shown).await;
        let fits = "[document.documentElement, document.querySelector('main')].every((one) => one.scrollWidth <= one.clientWidth)";
        assert_eq!(browser.value(fits).await, true, "{view}");
        let views = "(() => { const nav = document.querySelector('nav'); return nav.scrollWidth <= nav.clientWidth; })()";
        assert_eq!(browser.value(views).await, true, "a view is not in sight on {view}");
    }
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_and_button_has_a_name() {
    let service = Service::start(3, 2).await;
    let mut browser = service.browser("#/fleet").await;
    browser.expect("/screenshot");
    let unnamed = "[...document.querySelectorAll('input, select, textarea, button, a, [role=grid], [role=img], nav, section')].filter((one) => \
                   !(one.ariaLabel || one.getAttribute('aria-labelledby') || one.labels?.length || one.textContent.trim() || one.querySelector('h2'))).map((one) => one.outerHTML)";
    for (view, shown) in VIEWS {
        browser.view(view).await;
        browser.shows(shown).await;
        assert_eq!(browser.value(unnamed).await, json!([]), "{view}");
        assert_eq!(browser.count("h1").await, 1, "{view}");
    }
    let live = browser.value("document.querySelector('#live').getAttribute('aria-live')").await;
    assert_ne!(live, Value::Null);
    browser.end().await;
}
