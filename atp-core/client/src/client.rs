//! Requests to the service, one after the other or side by side.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atp_api::serve::{HostView, Problem, RunSummary, SessionView};
use atp_api::{Effect, ErrorKind, PlanReport, RunRequest};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use url::Url;
use uuid::Uuid;

use crate::body::{RequestBody, empty, whole};
use crate::error::ClientError;

/// The certificates that the system trusts, as Debian, Red Hat and SUSE have them.
const SYSTEM_CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// How long a connection to the service may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may take. Those that ask hosts have their own time limits added.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a stream may be silent. The service sends a comment, or a ping, every 15 s.
pub(crate) const STREAM_TIMEOUT: Duration = Duration::from_secs(45);

/// How long a start is tried again.
const START_PATIENCE: Duration = Duration::from_secs(15);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The maximum size of an answer, bytes. Streams have no such limit.
const MAX_ANSWER: usize = 256 << 20;

/// Where the service is, and who asks. [`Debug`](fmt::Debug) does not show the token.
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Its address, as `https://atp.example:9440`.
    pub url: String,
    /// The token, as `atp serve token add` printed it.
    pub token: String,
    /// A file with the certificates, in PEM, of the authorities that may sign the service's; those of the system without one.
    pub ca_file: Option<PathBuf>,
}

impl ClientOptions {
    /// The service at this address.
    pub fn new(url: impl Into<String>, token: impl Into<String>) -> Self {
        ClientOptions { url: url.into(), token: token.into(), ca_file: None }
    }

    /// The authorities that may sign the service's certificate.
    #[must_use]
    pub fn with_ca_file(self, file: impl Into<PathBuf>) -> Self {
        ClientOptions { ca_file: Some(file.into()), ..self }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("url", &self.url)
            .field("ca_file", &self.ca_file)
            .finish_non_exhaustive()
    }
}

/// A client of the service. Clones share its connections.
#[derive(Clone)]
pub struct Client {
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, RequestBody>,
    base: Url,
    /// The header that shows the token.
    authorization: HeaderValue,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Client {
    /// A client; connects to nothing.
    ///
    /// # Errors
    /// The address is none of HTTP, the token is no text of a header, or the certificates cannot be read.
    pub fn new(options: ClientOptions) -> Result<Self, ClientError> {
        let ClientOptions { url, token, ca_file } = options;
        let refused = |reason: &str| ClientError::Address { url: url.clone(), reason: reason.to_owned() };
        let base = Url::parse(&url).map_err(|error| refused(&error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(refused("it is not one of HTTP"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(refused("it has a user or a password in it"));
        }
        let token = token.trim();
        if token.is_empty() {
            return Err(ClientError::Token);
        }
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ClientError::Token)?;
        authorization.set_sensitive(true);
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let tls = match base.scheme() {
            "https" => tls(ca_file.as_deref())?,
            _ => tls_of(RootCertStore::empty()).map_err(|error| refused(&error))?,
        };
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector.wrap_connector(http));
        Ok(Client { http, base, authorization })
    }

    /// The address of the service.
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Who the service takes this client for, and what it may do.
    ///
    /// # Errors
    /// [`ClientError`]. Cancel safe.
    pub async fn session(&self) -> Result<SessionView, ClientError> {
        self.ask(Method::GET, self.at("/api/v1/session"), None, &[], ANSWER_TIMEOUT).await
    }

    /// The hosts that match any of the selectors, all without one.
    ///
    /// # Errors
    /// [`ClientError`]. Cancel safe.
    pub async fn hosts(&self, selectors: &[String]) -> Result<Vec<HostView>, ClientError> {
        let mut url = self.at("/api/v1/hosts");
        for selector in selectors {
            url.query_pairs_mut().append_pair("selector", selector);
        }
        self.ask(Method::GET, url, None, &[], ANSWER_TIMEOUT).await
    }

    /// What a run would do. A service that has no time is asked again.
    ///
    /// # Errors
    /// [`ClientError`]. Cancel safe: a plan changes nothing.
    pub async fn plan(&self, request: &RunRequest) -> Result<PlanReport, ClientError> {
        let limit = planning_limit(request);
        let mut patience = Patience::new();
        loop {
            let url = self.at("/api/v1/plans");
            let planned = self.ask(Method::POST, url, Some(json(request)), &[], limit).await;
            let is_limited = matches!(&planned, Err(ClientError::Refused(problem)) if problem.kind == ErrorKind::RateLimited);
            if !is_limited || !patience.wait().await {
                return planned;
            }
        }
    }

    /// Starts a run; returns when it is planned. A start that is not answered is sent again, under the same key: the service starts it
    /// once.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// When the future is dropped the run may have been started.
    pub async fn start(&self, request: &RunRequest) -> Result<RunSummary, ClientError> {
        self.ask_once(self.at("/api/v1/runs"), request, planning_limit(request)).await
    }

    /// As [`start`](Self::start), of a `plan` that was just made for the same request: no host is asked for its VMs again, if the
    /// service still has the plan.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// When the future is dropped the run may have been started.
    pub async fn start_planned(
        &self,
        request: &RunRequest,
        plan: &PlanReport,
    ) -> Result<RunSummary, ClientError> {
        let url = of_plan(self.at("/api/v1/runs"), plan);
        self.ask_once(url, request, planning_limit(request)).await
    }

    /// Does what is left of a run that has ended early. `request` is the one that it was begun with; [`run_events_after`] has the
    /// events of what is left.
    ///
    /// # Errors
    /// [`ClientError`]; the run is under way, or was begun with another operation.
    ///
    /// When the future is dropped, the run may go on.
    ///
    /// [`run_events_after`]: Self::run_events_after
    pub async fn resume(
        &self,
        run: u64,
        request: &RunRequest,
        plan: &PlanReport,
    ) -> Result<RunSummary, ClientError> {
        let url = of_plan(self.at(&format!("/api/v1/runs/{run}/resume")), plan);
        self.ask(Method::POST, url, Some(json(request)), &[], planning_limit(request)).await
    }

    /// Sends a request that is to be carried out once: again if it is not answered, under the same key.
    pub(crate) async fn ask_once<T: DeserializeOwned>(
        &self,
        url: Url,
        request: &impl Serialize,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let key = Uuid::from_u128(fastrand::u128(..)).to_string();
        let (mut patience, mut lost) = (Patience::new(), None);
        loop {
            let headers = [(IDEMPOTENCY_KEY, key.clone())];
            let asked = self.ask(Method::POST, url.clone(), Some(json(request)), &headers, limit);
            let error = match asked.await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // Of one that was sent, and not answered, a later refusal does not say that it was not carried out.
            if lost.is_none() && error.effect() != Effect::None {
                lost = Some(error.clone());
            }
            if !error.is_temporary() || !patience.wait().await {
                return Err(lost.unwrap_or(error));
            }
        }
    }

    /// Lets the targets under way of a run end, and starts no more.
    ///
    /// # Errors
    /// [`ClientError`]. Cancel safe.
    pub async fn stop(&self, run: u64) -> Result<(), ClientError> {
        self.tell(run, "stop").await
    }

    /// Ends a run at once.
    ///
    /// # Errors
    /// [`ClientError`]. Cancel safe.
    pub async fn abort(&self, run: u64) -> Result<(), ClientError> {
        self.tell(run, "abort").await
    }

    async fn tell(&self, run: u64, what: &str) -> Result<(), ClientError> {
        let url = self.at(&format!("/api/v1/runs/{run}/{what}"));
        self.ask::<serde::de::IgnoredAny>(Method::POST, url, None, &[], ANSWER_TIMEOUT).await.map(drop)
    }

    /// A stream of events, after the one of this number.
    pub(crate) async fn stream(&self, url: Url, after: Option<&str>) -> Result<Incoming, ClientError> {
        let accept = (ACCEPT, "text/event-stream".to_owned());
        let after = after.map(|after| (LAST_EVENT_ID, after.to_owned()));
        let headers: Vec<_> = [Some(accept), after].into_iter().flatten().collect();
        let sent = self.send(Method::GET, url, empty(), &headers);
        let sent = timeout(ANSWER_TIMEOUT, sent).await.map_err(|_| self.too_slow())?;
        Ok(sent?.into_body())
    }

    /// The next piece of a stream; none at its end.
    ///
    /// Cancel safe.
    pub(crate) async fn piece(&self, body: &mut Incoming) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = timeout(STREAM_TIMEOUT, body.frame()).await.map_err(|_| self.too_slow())?;
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(self.unreachable(true, error)),
            }
        }
    }

    pub(crate) fn at(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        // A service may be below a path of a proxy.
        let below = format!("{}{path}", self.base.path().trim_end_matches('/'));
        url.set_path(&below);
        url
    }

    /// Sends a request, and reads the whole answer.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        body: Option<Vec<u8>>,
        headers: &[(HeaderName, String)],
        limit: Duration,
    ) -> Result<T, ClientError> {
        let is_json = body.is_some();
        let json = (CONTENT_TYPE, "application/json".to_owned());
        let headers: Vec<_> = is_json.then_some(json).into_iter().chain(headers.iter().cloned()).collect();
        let body = body.map_or_else(empty, whole);
        self.ask_with(method, url, body, &headers, limit).await
    }

    /// As [`ask`](Self::ask), with any body.
    pub(crate) async fn ask_with<T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        body: RequestBody,
        headers: &[(HeaderName, String)],
        limit: Duration,
    ) -> Result<T, ClientError> {
        let answered = async { self.body(self.send(method, url, body, headers).await?).await };
        let body = timeout(limit, answered).await.map_err(|_| self.too_slow())??;
        serde_json::from_slice(&body)
            .map_err(|error| self.no_service(format!("its answer cannot be read: {error}")))
    }

    /// Sends a request, and returns the answer if it is no error.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: Url,
        body: RequestBody,
        headers: &[(HeaderName, String)],
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder().method(method).uri(url.as_str());
        request = request.header(AUTHORIZATION, &self.authorization);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(body).map_err(|error| ClientError::Address {
            url: self.url().to_owned(),
            reason: error.to_string(),
        })?;
        let response = self.http.request(request).await.map_err(|error| match of_other_scheme(&error) {
            Some(reason) => self.no_service(reason.to_owned()),
            None => self.unreachable(!error.is_connect(), error),
        })?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let body = self.body(response).await?;
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => ClientError::Refused(Box::new(problem)),
            Err(_) => self.no_service(format!("its answer is {status}")),
        })
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Vec<u8>, ClientError> {
        let (mut whole, mut body) = (Vec::new(), response.into_body());
        while let Some(piece) = self.piece(&mut body).await? {
            if whole.len() + piece.len() > MAX_ANSWER {
                return Err(self.no_service(format!("an answer is larger than {MAX_ANSWER} bytes")));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }

    pub(crate) fn no_service(&self, reason: String) -> ClientError {
        ClientError::NotAService { url: self.url().to_owned(), reason }
    }

    pub(crate) fn too_slow(&self) -> ClientError {
        ClientError::TooSlow { url: self.url().to_owned() }
    }

    fn unreachable(&self, was_reached: bool, error: impl Error + Send + Sync + 'static) -> ClientError {
        ClientError::Unreachable { url: self.url().to_owned(), was_reached, source: Arc::new(error) }
    }
}

/// How long a request is sent again, and the pauses between.
struct Patience {
    until: tokio::time::Instant,
    pause: Duration,
}

impl Patience {
    fn new() -> Self {
        let until = tokio::time::Instant::now() + START_PATIENCE;
        Patience { until, pause: Duration::from_millis(200) }
    }

    /// Waits before the next request. False at once if there is no time for one.
    async fn wait(&mut self) -> bool {
        let has_time = tokio::time::Instant::now() + self.pause < self.until;
        if has_time {
            tokio::time::sleep(self.pause).await;
            self.pause = self.pause.saturating_mul(2);
        }
        has_time
    }
}

/// The next cause of an error. The source of an error of the system is not the error within, but that one's source.
fn cause_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(within) => Some(within),
        None => error.source(),
    }
}

/// What shows that the address of a request begins with the wrong one of http: and https:, if anything does.
fn of_other_scheme(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut errors = std::iter::successors(Some(error), |error| cause_of(*error));
    errors.find_map(|error| {
        let is_plain = matches!(error.downcast_ref(), Some(rustls::Error::InvalidMessage(_)));
        let is_tls = error.downcast_ref().is_some_and(hyper::Error::is_parse);
        match (is_plain, is_tls) {
            (true, _) => Some("it does not speak TLS: if it is one, its address begins with http:"),
            (_, true) => Some("it does not speak HTTP: if it speaks TLS, its address begins with https:"),
            _ => None,
        }
    })
}

/// The address with the plan that a run is started as. A service of an earlier version keeps none.
fn of_plan(mut url: Url, plan: &PlanReport) -> Url {
    if let Some(id) = plan.id {
        url.query_pairs_mut().append_pair("plan", &id.to_string());
    }
    url
}

/// How long a plan may take: hosts that hang are waited for until its own time limit.
fn planning_limit(request: &RunRequest) -> Duration {
    request.policy.timeout.saturating_mul(2) + ANSWER_TIMEOUT
}

/// A request as JSON: all of their types can be written so.
pub(crate) fn json(request: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(request).unwrap_or_default()
}

/// TLS with the certificates of this file, or those of the system.
fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, ClientError> {
    let system = || SYSTEM_CERTIFICATES.iter().map(Path::new).find(|file| file.exists());
    let file = ca_file.or_else(system).unwrap_or(Path::new(SYSTEM_CERTIFICATES[0]));
    let refused = |reason: String| ClientError::Certificates { path: file.display().to_string(), reason };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| refused(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        // A bundle of the system may have one that is too old for this library.
        if let (Err(error), true) = (roots.add(certificate), ca_file.is_some()) {
            return Err(refused(error.to_string()));
        }
    }
    if roots.is_empty() {
        return Err(refused("there is none in it".to_owned()));
    }
    tls_of(roots).map_err(refused)
}

fn tls_of(roots: RootCertStore) -> Result<ClientConfig, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_that_are_none_are_refused() {
        for url in ["", "host", "ftp://a", "http://", "https://u:p@a", "qemu+tcp://a/system"] {
            let error = Client::new(ClientOptions::new(url, "t")).unwrap_err();
            assert!(matches!(&error, ClientError::Address { .. }), "{url}: {error}");
            assert!(error.hint().is_some());
        }
    }

    /// What is said of a port that answers so, at an address of this scheme.
    async fn said_of(scheme: &str, answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answering = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _request = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(answer).await.unwrap();
            // Closed by the client, which has read it then.
            let _end = stream.read_to_end(&mut Vec::new()).await;
        });
        let mut client = Client::new(ClientOptions::new(url, "t")).unwrap();
        // Without certificates, so that it needs no file of them.
        client.base.set_scheme(scheme).unwrap();
        let said = client.session().await.unwrap_err().to_string();
        answering.abort();
        said
    }

    #[tokio::test]
    async fn a_port_of_the_other_scheme_is_told() {
        let plain = said_of("https", b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        assert!(plain.contains("its address begins with http:"), "{plain}");
        // An alert: the record is no message of TLS.
        let tls = said_of("http", &[21, 3, 3, 0, 2, 2, 50]).await;
        assert!(tls.contains("its address begins with https:"), "{tls}");
    }

    #[test]
    fn a_service_may_be_below_a_path() {
        for (base, expected) in [
            ("http://a:1", "http://a:1/api/v1/hosts"),
            ("http://a:1/", "http://a:1/api/v1/hosts"),
            ("http://a/atp/", "http://a/atp/api/v1/hosts"),
        ] {
            let client = Client::new(ClientOptions::new(base, "t")).unwrap();
            assert_eq!(client.at("/api/v1/hosts").as_str(), expected);
        }
    }

    #[test]
    fn a_token_is_in_no_text() {
        let options = ClientOptions::new("http://a", "secret-token");
        let client = Client::new(options.clone()).unwrap();
        assert!(!format!("{options:?} {client:?}").contains("secret-token"));
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let options = ClientOptions::new("https://a", "t").with_ca_file("/dev/null");
        let error = Client::new(options).unwrap_err();
        assert!(error.to_string().contains("/dev/null"), "{error}");
    }
}
