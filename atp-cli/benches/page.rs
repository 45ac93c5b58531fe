//! The page of `atp serve` on 1,000 simulated hosts with 20 VMs each, in Debian's Chromium: the time to the first content, and
//! from a change of the filter to its rows. `cargo bench -p atp-cli --bench page` prints medians of ten.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot be set up has nothing to measure"
)]

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/page/browser.rs"]
mod browser;
#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/page/service.rs"]
mod service;

use serde_json::{Value, json};
use service::Service;

const ROUNDS: usize = 10;

/// Sets the filter as typing does, and returns the milliseconds until its count is shown.
const FILTER: &str = "const [text, shown] = arguments; const field = document.querySelector('#selector'); \
    return new Promise((resolve) => { \
      const start = performance.now(); \
      const seen = new MutationObserver(() => { \
        if (document.querySelector('.count').textContent.startsWith(shown)) { \
          seen.disconnect(); requestAnimationFrame(() => resolve(performance.now() - start)); \
        } \
      }); \
      seen.observe(document.querySelector('.count'), { childList: true, subtree: true, characterData: true }); \
      field.value = text; field.dispatchEvent(new Event('input')); \
    })";

/// The milliseconds until rows are shown, from the start of loading.
const LOADED: &str = "return new Promise((resolve) => { \
      const look = () => document.querySelector('.rows .row, .tile') ? resolve(performance.now()) : requestAnimationFrame(look); \
      look(); \
    })";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let service = Service::start(1_000, 20).await;
    let browser = service.browser("#/vms").await;
    browser.says(".count", "20,000 VMs").await;
    for view in ["#/vms", "#/fleet"] {
        let (mut paint, mut rows) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            browser.go("about:blank").await;
            browser.go(&format!("{}/{view}", service.address)).await;
            rows.push(number(browser.run(LOADED, Value::Null).await));
            let painted = "performance.getEntriesByName('first-contentful-paint')[0].startTime";
            browser.until("performance.getEntriesByName('first-contentful-paint').length").await;
            paint.push(number(browser.value(painted).await));
        }
        println!("{view}: first content {:.0} ms, hosts or VMs shown {:.0} ms", median(paint), median(rows));
    }
    browser.view("#/vms").await;
    browser.says(".count", "20,000 VMs").await;
    for (text, shown) in [("h500/", "20 VMs"), ("vm7", "1,000 VMs"), ("h[1-500]/*", "10,000 VMs")] {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            browser.run(FILTER, json!(["", "20,000 VMs"])).await;
            times.push(number(browser.run(FILTER, json!([text, shown])).await));
        }
        println!("filter {text}: {:.0} ms for {shown}", median(times));
    }
    browser.end().await;
}

fn number(value: Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
