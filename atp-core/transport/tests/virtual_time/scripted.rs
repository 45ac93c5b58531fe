//! A connector whose hosts follow a script, for tests in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atp_transport::{
    ConnectAttempt, ConnectError, Connector, ErrorKind, HostInfo, InFlight, PooledConnection,
    TransportConfig, TransportManager,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// The defaults, with several parallel calls on a link.
pub(crate) fn multiplexed() -> TransportConfig {
    let mut config = TransportConfig::default();
    config.calls.max_per_connection = 4;
    config
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A manager of one host, `h1`, which has just been added.
pub(crate) async fn one_host(script: &Script, config: TransportConfig) -> TransportManager<Script> {
    let manager = TransportManager::with_connector(config, script.clone());
    manager.add_host(HostInfo::new("h1", "192.0.2.1")).await.unwrap();
    manager
}

/// A lease of `h1`, obtained within five seconds.
pub(crate) async fn lease(manager: &TransportManager<Script>) -> PooledConnection<Script> {
    manager.pool("h1").unwrap().acquire(Instant::now() + 5 * SECOND).await.unwrap()
}

/// The result of one attempt to connect.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// Succeeds after this time.
    Opens(Duration),
    /// Fails after this time.
    Fails(Duration),
    /// Never ends.
    Hangs,
    /// Never ends, and reports what it waits for.
    IsSilent,
    /// Panics, as a connector with a bug.
    Panics,
}

impl Default for Step {
    fn default() -> Self {
        Step::Opens(Duration::ZERO)
    }
}

/// The progress of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    Begins,
    /// Refused, or cancelled by the caller.
    Unanswered,
}

tokio::task_local! {
    /// The listener for the probes of the current task, with which it validates a connection before it gets the
    /// lease. A probe begins with a check of the link, and then waits behind the calls in flight.
    pub(crate) static PROBES: Box<dyn Fn(Probe) + Send + Sync>;
}

/// A host under the test's control. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Script {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    attempts: Mutex<VecDeque<Step>>,
    /// The result of attempts when none are listed.
    standing: Mutex<Step>,
    /// The hung attempts, with their deadlines.
    hung: Mutex<Vec<(Instant, InFlight)>>,
    /// The time of each attempt.
    log: Mutex<Vec<Instant>>,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    /// Whether the last attempt that ended succeeded.
    well: AtomicBool,
    /// Attempts that were begun beside others without that.
    beside_while_not_well: AtomicUsize,
    /// Attempts under way that will end.
    answering: AtomicUsize,
    open_links: AtomicUsize,
    closed_links: AtomicUsize,
    probes: AtomicUsize,
    silent: AtomicBool,
    probes_panic: AtomicBool,
    no_threads: AtomicBool,
    probe_time: Mutex<Duration>,
    /// Calls in flight that links allow which are opened from now on; 0 if they cannot tell.
    max_in_flight: AtomicUsize,
    /// How long it takes to find out what links allow that are opened from now on; none if it is known at once.
    measure: Mutex<Option<Duration>>,
    measured: AtomicUsize,
    /// Cancelled for the links that are open when they are cut.
    cut: Mutex<CancellationToken>,
}

/// A link of a scripted host.
pub(crate) struct Link {
    shared: Arc<Shared>,
    max_in_flight: usize,
    measure: Option<Duration>,
    cut: CancellationToken,
}

impl Link {
    /// Cancelled when the link is cut.
    pub(crate) fn is_cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// The script of its host.
    fn script(&self) -> Script {
        Script { shared: self.shared.clone() }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.open_links.fetch_sub(1, Ordering::SeqCst);
        self.shared.closed_links.fetch_add(1, Ordering::SeqCst);
    }
}

impl Script {
    /// The next attempts, in order. After these, attempts succeed at once, or as [set](Self::set_attempts).
    pub(crate) fn attempts(attempts: impl IntoIterator<Item = Step>) -> Self {
        let script = Script::default();
        script.then(attempts);
        script
    }

    pub(crate) fn then(&self, attempts: impl IntoIterator<Item = Step>) {
        self.shared.attempts.lock().unwrap().extend(attempts);
    }

    /// Sets the result of attempts that are not listed.
    pub(crate) fn set_attempts(&self, step: Step) {
        *self.shared.standing.lock().unwrap() = step;
    }

    /// Lets the hung attempts return. Their callers have left.
    pub(crate) fn let_attempts_go(&self) {
        self.shared.hung.lock().unwrap().clear();
    }

    /// The number of attempts under way, including hung ones, and the number of overdue ones.
    pub(crate) fn attempts_under_way(&self) -> (usize, usize) {
        let now = Instant::now();
        let hung = self.shared.hung.lock().unwrap();
        let overdue = hung.iter().filter(|(deadline, _)| *deadline <= now).count();
        (self.shared.answering.load(Ordering::SeqCst) + hung.len(), overdue)
    }

    /// Sets whether probes of this host's links get no answer.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.shared.silent.store(silent, Ordering::SeqCst);
    }

    /// Sets whether probes of this host's links panic.
    pub(crate) fn set_probes_panic(&self, panic: bool) {
        self.shared.probes_panic.store(panic, Ordering::SeqCst);
    }

    /// Sets whether there is no thread for probes of this host's links.
    pub(crate) fn set_no_threads(&self, none: bool) {
        self.shared.no_threads.store(none, Ordering::SeqCst);
    }

    /// Sets the time until probes are answered.
    pub(crate) fn set_probe_time(&self, time: Duration) {
        *self.shared.probe_time.lock().unwrap() = time;
    }

    /// Cuts every open link. The links notice.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.shared.cut.lock().unwrap()).cancel();
    }

    /// Links that are opened from now on allow so many calls in flight.
    pub(crate) fn allow_in_flight(&self, calls: usize) {
        self.shared.max_in_flight.store(calls, Ordering::SeqCst);
    }

    /// Links that are opened from now on allow one call until it was found out, in this time, how many they allow.
    pub(crate) fn measure_in(&self, time: Duration) {
        *self.shared.measure.lock().unwrap() = Some(time);
    }

    /// How often that was found out.
    pub(crate) fn measured(&self) -> usize {
        self.shared.measured.load(Ordering::SeqCst)
    }

    pub(crate) fn attempts_made(&self) -> Vec<Instant> {
        self.shared.log.lock().unwrap().clone()
    }

    pub(crate) fn most_attempts_at_once(&self) -> usize {
        self.shared.most_under_way.load(Ordering::SeqCst)
    }

    /// The number of attempts that were begun beside others although the last one that ended had failed.
    pub(crate) fn attempts_beside_while_not_well(&self) -> usize {
        self.shared.beside_while_not_well.load(Ordering::SeqCst)
    }

    pub(crate) fn open_links(&self) -> usize {
        self.shared.open_links.load(Ordering::SeqCst)
    }

    /// The number of links that were opened and then closed.
    pub(crate) fn closed_links(&self) -> usize {
        self.shared.closed_links.load(Ordering::SeqCst)
    }

    pub(crate) fn probes(&self) -> usize {
        self.shared.probes.load(Ordering::SeqCst)
    }
}

/// Panics without a message on stderr.
fn panics() -> ! {
    std::panic::resume_unwind(Box::new("scripted"))
}

/// Counts something as long as it exists.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Reports a probe as unanswered if this is dropped before the answer.
#[derive(Default)]
struct Probing {
    answered: bool,
}

impl Drop for Probing {
    fn drop(&mut self) {
        if !self.answered {
            report(Probe::Unanswered);
        }
    }
}

fn report(probe: Probe) {
    // Only tasks that asked for reports have a listener.
    let _reported = PROBES.try_with(|report| report(probe));
}

impl Connector for Script {
    type Link = Link;

    fn validate(&self, _host: &HostInfo) -> Result<(), String> {
        Ok(())
    }

    async fn connect(&self, _: &HostInfo, attempt: ConnectAttempt) -> Result<Link, ConnectError> {
        let shared = &self.shared;
        let deadline = attempt.deadline();
        let listed = shared.attempts.lock().unwrap().pop_front();
        let step = listed.unwrap_or_else(|| *shared.standing.lock().unwrap());
        if let Step::IsSilent = step {
            attempt.waits_for(ConnectError::new(ErrorKind::ConnectTimeout, "scripted silence"));
        }
        let in_flight = attempt.into_in_flight();
        let _under_way = Counted::new(&shared.under_way);
        let under_way = shared.under_way.load(Ordering::SeqCst);
        shared.most_under_way.fetch_max(under_way, Ordering::SeqCst);
        if under_way > 1 && !shared.well.load(Ordering::SeqCst) {
            shared.beside_while_not_well.fetch_add(1, Ordering::SeqCst);
        }
        shared.log.lock().unwrap().push(Instant::now());
        match step {
            Step::Opens(after) => {
                let _answering = Counted::new(&shared.answering);
                sleep(after).await;
                drop(in_flight);
                shared.well.store(true, Ordering::SeqCst);
                shared.open_links.fetch_add(1, Ordering::SeqCst);
                let cut = shared.cut.lock().unwrap().clone();
                let max_in_flight = shared.max_in_flight.load(Ordering::SeqCst);
                let measure = *shared.measure.lock().unwrap();
                Ok(Link { shared: shared.clone(), max_in_flight, measure, cut })
            }
            Step::Fails(after) => {
                let _answering = Counted::new(&shared.answering);
                sleep(after).await;
                shared.well.store(false, Ordering::SeqCst);
                Err(ConnectError::new(ErrorKind::ConnectionRefused, "scripted"))
            }
            Step::Panics => panics(),
            Step::Hangs | Step::IsSilent => {
                // The attempt stays in flight when the caller gives up, as a stuck C call does.
                shared.hung.lock().unwrap().push((deadline, in_flight));
                std::future::pending().await
            }
        }
    }

    async fn probe(&self, link: &Arc<Link>, _: InFlight, _: Instant) -> Result<(), ConnectError> {
        self.shared.probes.fetch_add(1, Ordering::SeqCst);
        let mut probing = Probing::default();
        if self.shared.probes_panic.load(Ordering::SeqCst) {
            panics();
        }
        if self.shared.no_threads.load(Ordering::SeqCst) {
            return Err(ConnectError::new(ErrorKind::ThreadsExhausted, "scripted"));
        }
        if self.shared.silent.load(Ordering::SeqCst) {
            link.cut.cancelled().await;
        }
        let time = *self.shared.probe_time.lock().unwrap();
        if !time.is_zero() {
            sleep(time).await;
        }
        if link.cut.is_cancelled() {
            return Err(ConnectError::new(ErrorKind::ConnectionLost, "scripted"));
        }
        probing.answered = true;
        Ok(())
    }

    async fn lost(&self, link: &Link) {
        link.cut.cancelled().await;
    }

    fn max_in_flight(&self, link: &Link) -> usize {
        match link {
            Link { measure: Some(_), .. } => 1,
            Link { max_in_flight: 0, .. } => usize::MAX,
            Link { max_in_flight, .. } => *max_in_flight,
        }
    }

    fn is_measured(&self, link: &Link) -> bool {
        link.measure.is_none()
    }

    async fn measure(&self, link: &Link) -> usize {
        link.shared.measured.fetch_add(1, Ordering::SeqCst);
        sleep(link.measure.unwrap_or_default()).await;
        link.max_in_flight
    }

    fn is_open(&self, link: &Link) -> bool {
        report(Probe::Begins);
        let open = !link.cut.is_cancelled();
        if !open {
            report(Probe::Unanswered);
        }
        open
    }
}

/// Many hosts, each with its own script. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Scripts {
    by_host: Arc<Mutex<BTreeMap<String, Script>>>,
}

impl Scripts {
    /// The script of a host, which is the default one until it is changed.
    pub(crate) fn of(&self, host: &str) -> Script {
        self.by_host.lock().unwrap().entry(host.to_owned()).or_default().clone()
    }
}

impl Connector for Scripts {
    type Link = Link;

    fn validate(&self, _: &HostInfo) -> Result<(), String> {
        Ok(())
    }

    async fn connect(&self, host: &HostInfo, attempt: ConnectAttempt) -> Result<Link, ConnectError> {
        self.of(&host.id).connect(host, attempt).await
    }

    async fn probe(
        &self,
        link: &Arc<Link>,
        in_flight: InFlight,
        deadline: Instant,
    ) -> Result<(), ConnectError> {
        link.script().probe(link, in_flight, deadline).await
    }

    async fn lost(&self, link: &Link) {
        link.script().lost(link).await;
    }

    fn is_open(&self, link: &Link) -> bool {
        link.script().is_open(link)
    }
}
