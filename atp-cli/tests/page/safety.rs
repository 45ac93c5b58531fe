//! What comes from guests is text, and pages of other origins can start nothing.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

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

/// A page that tries to start a run on the service at this address, in each way that a page of another origin has.
fn hostile(service: &str) -> String {
    let body = json!({"targets": {"selectors": ["*"]}, "operation": {"op": "exec", "program": "release"}});
    format!(
        "<!doctype html><title>other</title><form method=post enctype='text/plain' target=frame action='{service}/api/v1/runs'>\
         <input name='{body}' value=''></form><iframe name=frame></iframe><iframe name=top src='{service}/'></iframe><script>\
         window.results = [];\
         const headers = [{{}}, {{'content-type': 'text/plain'}}, {{'content-type': 'application/json'}}, {{'content-type': 'application/json', 'x-atp-csrf': 'guess', 'idempotency-key': '1'}}];\
         (async () => {{\
           for (const mode of ['cors', 'no-cors']) for (const one of headers)\
             await fetch('{service}/api/v1/runs', {{method: 'POST', credentials: 'include', mode, headers: one, body: JSON.stringify({body})}})\
               .then((answer) => results.push(answer.type + answer.status), (error) => results.push(error.name));\
           await fetch('{service}/api/v1/session', {{credentials: 'include'}}).then((answer) => answer.text()).then((text) => results.push(text), (error) => results.push(error.name));\
           document.forms[0].submit();\
           window.finished = true;\
         }})();</script>"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_can_start_nothing() {
    let service = Service::start(2, 2).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = format!("http://{}/", listener.local_addr().unwrap());
    let page = hostile(&service.address);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _read = stream.read(&mut request).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                page.len()
            );
            let _written = stream.write_all(format!("{head}{page}").as_bytes()).await;
        }
    });
    // The same site, by the rule of cookies: the browser may send the session's.
    let mut browser = service.browser("#/runs").await;
    browser.says(".empty", "There are no runs yet").await;
    for part in ["CORS", "ERR_", "403", "400", "415", "frame"] {
        browser.expect(part);
    }
    browser.go(&other).await;
    browser.until("window.finished").await;
    let results = browser.value("window.results").await;
    let results: Vec<&str> = results.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(results.len(), 9);
    for result in results {
        assert!(["TypeError", "opaque0"].contains(&result), "{result}");
    }
    // The service's own page is not shown in a frame of another.
    let framed = browser.value("(() => { try { return document.querySelectorAll('iframe')[1].contentDocument !== null } catch { return false } })()").await;
    assert_eq!(framed, false);
    browser.go(&format!("{}/#/runs", service.address)).await;
    browser.says(".empty", "There are no runs yet").await;
    assert_eq!(service.ran("release"), 0);
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_are_never_html() {
    let service = Service::start(2, 2).await;
    let browser = service.browser("#/run?verb=exec&selector=*").await;
    browser.write("[data-name=program]", "evil").await;
    browser.press("Show the plan").await;
    browser.press("Start exec on 4 VMs").await;
    browser.says(".chips", "4 ok").await;
    let shown = "<img src=x onerror=\"window.harmed=1\"><script>window.harmed=1<\\u{202e}script>";
    browser.says(".outcome pre", shown).await;
    browser.press("Targets").await;
    browser.says(".rows .row", "<img src=x onerror=").await;
    let harm = "[typeof window.harmed, document.querySelectorAll('main img, main script').length]";
    assert_eq!(browser.value(harm).await, json!(["undefined", 0]));
    browser.end().await;
}
