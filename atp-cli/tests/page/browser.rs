//! A browser: Debian's Chromium without a window, driven over WebDriver.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
use fantoccini::key::Key;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// How long a change of the page is waited for. Generous: the machine may be busy, and a wait ends when it is over.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct Browser {
    client: Client,
    driver: Child,
    /// Messages of the console about failed requests that a test expects: parts of them.
    expected: Vec<&'static str>,
}

/// A command of Chromium's own.
#[derive(Debug)]
struct Own {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Own {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

impl Browser {
    /// Starts one.
    pub(crate) async fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("chromedriver: {error}; `cargo xtask setup` installs Debian's chromium and chromium-driver")
            });
        // It says on which port it listens.
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port: u16 = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok())
            .expect("chromedriver says its port");
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--window-size=1280,900",
        ];
        let capabilities: Capabilities = serde_json::from_value(json!({
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }))
        .unwrap();
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        let browser = Browser { client, driver, expected: vec!["401 (Unauthorized)"] };
        browser.size(1280, 900).await;
        browser
    }

    /// Lets the console have messages with this text.
    pub(crate) fn expect(&mut self, part: &'static str) {
        self.expected.push(part);
    }

    /// Loads an address.
    pub(crate) async fn go(&self, address: &str) {
        self.client.goto(address).await.unwrap();
    }

    /// Goes to a view of the page that is loaded, as a link does.
    pub(crate) async fn view(&self, hash: &str) {
        self.run("location.hash = arguments[0]", json!([hash])).await;
    }

    pub(crate) async fn back(&self) {
        self.client.back().await.unwrap();
    }

    /// Runs a script, and returns what it returns.
    pub(crate) async fn run(&self, script: &str, arguments: Value) -> Value {
        let arguments = arguments.as_array().cloned().unwrap_or_default();
        self.client.execute(script, arguments).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// The value of an expression.
    pub(crate) async fn value(&self, expression: &str) -> Value {
        self.run(&format!("return {expression}"), Value::Null).await
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&self, expression: &str) {
        if !self.becomes(expression, PATIENCE).await {
            let at = "[location.hash, document.activeElement.outerHTML, document.body.innerText, \
                      'loaded: ' + performance.getEntriesByType('resource').map((one) => one.name).join(' ')].join('\\n')";
            panic!("never: {expression}\n{}", self.value(at).await.as_str().unwrap_or_default());
        }
    }

    /// Whether an expression becomes true within this time.
    pub(crate) async fn becomes(&self, expression: &str, within: Duration) -> bool {
        let end = Instant::now() + within;
        while self.value(&format!("Boolean({expression})")).await != Value::Bool(true) {
            if Instant::now() > end {
                return false;
            }
            sleep(Duration::from_millis(25)).await;
        }
        true
    }

    /// Waits until an element is there.
    pub(crate) async fn shows(&self, selector: &str) {
        self.until(&format!("document.querySelector({})", json!(selector))).await;
    }

    /// Waits until the element has the text.
    pub(crate) async fn says(&self, selector: &str, text: &str) {
        let (selector, text) = (json!(selector), json!(text));
        self.until(&format!(
            "[...document.querySelectorAll({selector})].some((one) => one.innerText.includes({text}))"
        ))
        .await;
    }

    /// The text of the first such element.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({}).innerText", json!(selector))).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// How many such elements there are.
    pub(crate) async fn count(&self, selector: &str) -> u64 {
        self.value(&format!("document.querySelectorAll({}).length", json!(selector))).await.as_u64().unwrap()
    }

    pub(crate) async fn click(&self, selector: &str) {
        self.click_on(&format!("document.querySelector({})", json!(selector))).await;
    }

    /// Clicks on the button or link with this text.
    pub(crate) async fn press(&self, text: &str) {
        let path = format!("//*[self::button or self::a or self::label][normalize-space(.)='{text}']");
        self.click_on(&format!(
            "document.evaluate({}, document, null, XPathResult.FIRST_ORDERED_NODE_TYPE).singleNodeValue",
            json!(path)
        ))
        .await;
    }

    /// Clicks once on what an expression finds, as soon as it is there to be clicked on. What is drawn anew between finding and
    /// clicking would be another element: both are one step.
    async fn click_on(&self, element: &str) {
        self.until(&format!(
            "(() => {{ const one = {element}; if (!one?.checkVisibility() || one.disabled) return false; \
             one.focus(); one.click(); return true; }})()"
        ))
        .await;
    }

    /// Types into a field.
    pub(crate) async fn write(&self, selector: &str, text: &str) {
        self.shows(selector).await;
        self.client.find(Locator::Css(selector)).await.unwrap().send_keys(text).await.unwrap();
    }

    /// Presses keys, wherever the focus is.
    pub(crate) async fn keys(&self, keys: impl IntoIterator<Item = char>) {
        let mut actions = KeyActions::new("keyboard".to_owned());
        for key in keys {
            actions = actions.then(KeyAction::Down { value: key }).then(KeyAction::Up { value: key });
        }
        self.client.perform_actions(actions).await.unwrap();
    }

    pub(crate) async fn enter(&self) {
        self.keys([char::from(Key::Enter)]).await;
    }

    /// Sends a command of the DevTools protocol.
    async fn devtools(&self, command: &str, parameters: Value) {
        let body = json!({"cmd": command, "params": parameters});
        self.client.issue_cmd(Own { path: "goog/cdp/execute", body }).await.unwrap();
    }

    /// The size of the page, pixels.
    pub(crate) async fn size(&self, width: u32, height: u32) {
        let parameters = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", parameters).await;
    }

    /// Whether the user prefers dark colours.
    pub(crate) async fn dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// Ends it. What the console says of broken scripts, and of what the content security policy refused, fails the test.
    pub(crate) async fn end(mut self) {
        let log =
            self.client.issue_cmd(Own { path: "se/log", body: json!({"type": "browser"}) }).await.unwrap();
        let messages = log.as_array().cloned().unwrap_or_default();
        let severe = messages.iter().filter(|message| message["level"] == "SEVERE");
        let texts: Vec<&str> = severe.filter_map(|message| message["message"].as_str()).collect();
        let unexpected: Vec<&&str> =
            texts.iter().filter(|text| !self.expected.iter().any(|part| text.contains(part))).collect();
        assert!(unexpected.is_empty(), "{unexpected:#?}");
        self.client.clone().close().await.unwrap();
        self.driver.kill().unwrap();
        self.driver.wait().unwrap();
    }
}

impl Drop for Browser {
    /// Where a test has failed: the driver ends Chromium when it is asked to, and not when it is killed.
    fn drop(&mut self) {
        let alive = matches!(self.driver.try_wait(), Ok(None));
        if alive {
            let _asked = Command::new("kill").arg(self.driver.id().to_string()).status();
            let _ended = self.driver.wait();
        }
    }
}
