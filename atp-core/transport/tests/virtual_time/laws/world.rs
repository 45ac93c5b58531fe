//! A host, its pool and all callers: performs the steps of a schedule, and keeps its own records of leases and
//! waiting callers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use atp_transport::{
    CallFailure, ConnectionPool, ConnectionState, ErrorKind, ExecuteOptions, HostInfo, InFlight, Lane,
    LaneKind, LibvirtError, PooledConnection, Result, TransportConfig, TransportError, TransportManager,
};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, advance, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::schedule::{Ends, Step, WorkEnds};
use super::wait_queue::WaitQueue;
use crate::scripted::{Link, PROBES, Script};

/// tokio's timers have a resolution of a millisecond.
pub(crate) const TICK: Duration = Duration::from_millis(2);

pub(crate) struct World {
    pub(crate) script: Script,
    pub(crate) pool: Arc<ConnectionPool<Script>>,
    pub(crate) limits: (usize, usize),
    pub(crate) closing: Option<Closing>,
    /// Whether a fault occurred that can end a link.
    pub(crate) links_break: bool,
    pub(crate) records: Arc<Records>,
    manager: TransportManager<Script>,
    pub(crate) start: Instant,
    acquires: Vec<AbortHandle>,
    works: Vec<AbortHandle>,
    calls: Vec<AbortHandle>,
}

/// The records of the callers, independent of the pool's statistics.
pub(crate) struct Records {
    pub(crate) config: TransportConfig,
    pub(crate) wait_queue: Arc<WaitQueue>,
    /// The leases that callers can use; `None` after they have left.
    at_hand: Mutex<Option<Vec<Arc<Held>>>>,
    /// All leases, including those held only by calls or work.
    out: Mutex<Vec<Weak<Held>>>,
    threads: Mutex<BTreeMap<u64, Thread>>,
    next_thread: AtomicU64,
    /// VMs that have answered at least once.
    pub(crate) answered: Mutex<BTreeSet<u8>>,
    /// The callers that wait until their call is sent, and those whose call was sent on another connection than that of
    /// their lease, as that had no place.
    pub(crate) placing: Arc<()>,
    pub(crate) elsewhere: Arc<()>,
    /// The number of calls whose callers got the result, and of failed ones.
    ended: (AtomicU64, AtomicU64),
    /// The tasks of this world, to distinguish them from the pool's.
    pub(crate) tasks: TaskTracker,
    pub(crate) violations: Mutex<Vec<String>>,
}

/// A granted lease.
pub(crate) struct Held {
    lease: PooledConnection<Script>,
    /// The earliest and the latest time at which it was granted.
    pub(crate) since: [Instant; 2],
}

/// A running call. As a blocking call, it continues without its caller.
#[derive(Clone)]
pub(crate) struct Thread {
    _in_flight: Arc<InFlight>,
    _link: Arc<Link>,
    pub(crate) vm: Option<u8>,
    pub(crate) deadline: Instant,
    pub(crate) connection: u64,
    /// The number of the connection's link that it uses.
    pub(crate) reconnects: u64,
    end: CancellationToken,
}

/// A removal under way.
pub(crate) struct Closing {
    pub(crate) deadline: Instant,
    pub(crate) task: JoinHandle<bool>,
}

impl World {
    pub(crate) async fn new(config: TransportConfig) -> Self {
        let script = Script::default();
        let manager = TransportManager::with_connector(config.clone(), script.clone());
        manager.add_host(HostInfo::new("h1", "192.0.2.1")).await.unwrap();
        World {
            pool: manager.pool("h1").unwrap(),
            limits: (config.pool.min_connections_per_host, config.pool.max_connections_per_host),
            closing: None,
            links_break: false,
            records: Arc::new(Records::new(config)),
            script,
            manager,
            start: Instant::now(),
            acquires: Vec::new(),
            works: Vec::new(),
            calls: Vec::new(),
        }
    }

    /// Performs one step, except letting time pass.
    pub(crate) async fn perform(&mut self, step: &Step) {
        match *step {
            Step::Attempts(attempts) => self.script.set_attempts(attempts),
            Step::LetAttemptsGo => self.script.let_attempts_go(),
            Step::Cut => {
                self.links_break = true;
                self.script.cut();
            }
            Step::Silent(silent) => {
                self.links_break |= silent;
                self.script.set_silent(silent);
            }
            Step::ProbesTake(time) => {
                let time = Duration::from_millis(time);
                self.links_break |= time >= self.records.config.heartbeat_timeout;
                self.script.set_probe_time(time);
            }
            Step::Acquire { callers, within } => {
                for _ in 0..callers {
                    let task =
                        acquire(self.records.clone(), self.pool.clone(), Duration::from_millis(within));
                    self.acquires.push(self.records.spawn(task));
                    let_caller_ask().await;
                }
            }
            Step::CancelAcquire { which } => abort(&mut self.acquires, which),
            Step::Return { which } => drop(self.records.take(which)),
            Step::Call { lease, vm, ends } => {
                if let Some(held) = self.records.pick(lease) {
                    self.links_break |= matches!(ends, Ends::Lost { .. });
                    self.calls.push(self.records.spawn(call(
                        self.records.clone(),
                        self.pool.clone(),
                        held,
                        vm,
                        ends,
                    )));
                }
            }
            Step::AbandonCall { which } => abort(&mut self.calls, which),
            Step::LetCallGo { which } => {
                let threads = self.records.threads();
                if let Some(thread) = pick(&threads, which) {
                    thread.end.cancel();
                }
            }
            Step::Work { within, ends } => {
                let (records, manager) = (self.records.clone(), self.manager.clone());
                self.works.push(self.records.spawn(work(records, manager, within, ends)));
                let_caller_ask().await;
            }
            Step::CancelWork { which } => abort(&mut self.works, which),
            Step::Resize { min, max } => {
                self.limits = (min, max);
                self.pool.resize(min, max).unwrap();
            }
            Step::Close { drain } => self.close(Duration::from_millis(drain)),
            Step::Pass(_) => {}
        }
        reach_a_whole_millisecond(self.start).await;
    }

    pub(crate) fn close(&mut self, drain: Duration) {
        if self.closing.is_none() {
            let (manager, deadline) = (self.manager.clone(), Instant::now() + drain);
            let task = self.records.tasks.spawn(async move { manager.close(drain).await });
            self.closing = Some(Closing { deadline, task });
        }
    }

    /// Makes the host answer, cancels all callers, and ends all hung calls.
    pub(crate) fn end_faults_and_work(&mut self) {
        self.script.set_attempts(crate::scripted::Step::default());
        self.script.let_attempts_go();
        self.script.set_silent(false);
        self.script.set_probe_time(Duration::ZERO);
        for task in self.works.drain(..).chain(self.calls.drain(..)) {
            task.abort();
        }
        for thread in self.records.threads() {
            thread.end.cancel();
        }
        *self.records.at_hand.lock().unwrap() = None;
    }
}

impl Records {
    fn new(config: TransportConfig) -> Self {
        Records {
            config,
            wait_queue: Arc::default(),
            at_hand: Mutex::new(Some(Vec::new())),
            out: Mutex::default(),
            threads: Mutex::default(),
            next_thread: AtomicU64::new(0),
            answered: Mutex::default(),
            placing: Arc::default(),
            elsewhere: Arc::default(),
            ended: Default::default(),
            tasks: TaskTracker::new(),
            violations: Mutex::default(),
        }
    }

    /// All granted leases.
    pub(crate) fn out(&self) -> Vec<Arc<Held>> {
        let mut out = self.out.lock().unwrap();
        out.retain(|held| held.strong_count() > 0);
        out.iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether a link was closed or reopened during a current lease.
    pub(crate) fn has_lost_link(&self) -> bool {
        self.out()
            .iter()
            .any(|held| held.lease.state() == ConnectionState::Closed || held.lease.metrics().reconnects > 0)
    }

    /// The number of calls that ended with a caller, and how many of them failed.
    pub(crate) fn ended(&self) -> (u64, u64) {
        (self.ended.0.load(Ordering::SeqCst), self.ended.1.load(Ordering::SeqCst))
    }

    pub(crate) fn threads(&self) -> Vec<Thread> {
        self.threads.lock().unwrap().values().cloned().collect()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tasks.spawn(task).abort_handle()
    }

    fn hold(&self, lease: PooledConnection<Script>, since: Instant) -> Arc<Held> {
        let held = Arc::new(Held { lease, since: [since, Instant::now()] });
        self.out.lock().unwrap().push(Arc::downgrade(&held));
        held
    }

    fn pick(&self, which: u8) -> Option<Arc<Held>> {
        pick(self.at_hand.lock().unwrap().as_deref()?, which)
    }

    fn take(&self, which: u8) -> Option<Arc<Held>> {
        let mut at_hand = self.at_hand.lock().unwrap();
        let at_hand = at_hand.as_mut()?;
        let index = usize::from(which).checked_rem(at_hand.len())?;
        Some(at_hand.remove(index))
    }

    fn report_violation(&self, violation: String) {
        self.violations.lock().unwrap().push(violation);
    }

    /// Runs a call as the C library does.
    fn start(self: Arc<Self>, thread: Thread, ends: Ends) -> impl Future<Output = Result<u8, CallFailure>> {
        let id = self.next_thread.fetch_add(1, Ordering::SeqCst);
        let (end, cut, vm) = (thread.end.clone(), thread._link.is_cut().clone(), thread.vm);
        self.threads.lock().unwrap().insert(id, thread);
        let (answer, answered) = oneshot::channel();
        let records = self.clone();
        self.tasks.spawn(async move {
            let result = tokio::select! {
                biased;
                () = cut.cancelled() => Err(CallFailure::Lost { sent: true, source: None }),
                result = returns(ends) => result,
                () = end.cancelled() => Ok(42),
            };
            if let (Some(vm), Ok(_) | Err(CallFailure::Refused { .. })) = (vm, &result) {
                records.answered.lock().unwrap().insert(vm);
            }
            records.threads.lock().unwrap().remove(&id);
            // The caller may have left.
            let _heard = answer.send(result);
        });
        async { answered.await.unwrap() }
    }
}

async fn returns(ends: Ends) -> Result<u8, CallFailure> {
    let after = match ends {
        Ends::Answered(after) | Ends::Refused(after) | Ends::Lost { after, .. } | Ends::Panics(after) => {
            after
        }
        Ends::NotSent => 0,
        Ends::Never => std::future::pending().await,
    };
    if after > 0 {
        sleep(Duration::from_millis(after)).await;
    }
    match ends {
        Ends::Refused(_) => {
            let source = LibvirtError { code: 42, domain: 10, level: 2, message: "scripted".to_owned() };
            Err(CallFailure::Refused { kind: ErrorKind::VmNotFound, source })
        }
        Ends::Lost { sent, .. } => Err(CallFailure::Lost { sent, source: None }),
        Ends::NotSent => Err(CallFailure::NoThread { threads: 1 }),
        Ends::Panics(_) => Err(CallFailure::Panicked { message: "scripted".to_owned() }),
        Ends::Answered(_) | Ends::Never => Ok(42),
    }
}

async fn acquire(records: Arc<Records>, pool: Arc<ConnectionPool<Script>>, within: Duration) {
    let deadline = Instant::now() + within;
    let caller = records.wait_queue.ask(deadline);
    match PROBES.scope(caller.listener(), pool.acquire(deadline)).await {
        Ok(lease) => {
            let held = records.hold(lease, caller.granted());
            if let Some(at_hand) = &mut *records.at_hand.lock().unwrap() {
                at_hand.push(held);
            }
        }
        Err(error) => records.check_refusal(&error, deadline),
    }
}

async fn work(records: Arc<Records>, manager: TransportManager<Script>, within: Option<u64>, ends: WorkEnds) {
    let asked = Instant::now();
    let deadline = within.map(|within| asked + Duration::from_millis(within));
    let options = deadline.map(ExecuteOptions::by).unwrap_or_default();
    let caller = records.wait_queue.ask(deadline.unwrap_or(asked + records.config.pool.acquire_timeout));
    let listener = caller.listener();
    let started = CancellationToken::new();
    let (holder, start) = (records.clone(), started.clone());
    let running = manager.execute_on_host_with("h1", options, |lease| async move {
        start.cancel();
        let _held = holder.hold(lease, caller.granted());
        match ends {
            WorkEnds::Well(after) => sleep(Duration::from_millis(after)).await,
            WorkEnds::Panics(after) => {
                sleep(Duration::from_millis(after)).await;
                // Panics without a message on stderr.
                std::panic::resume_unwind(Box::new("scripted"));
            }
            WorkEnds::Never => std::future::pending().await,
        }
        Ok(())
    });
    let result: Result<()> = PROBES.scope(listener, running).await;
    let now = Instant::now();
    let late = deadline.is_some_and(|deadline| now > deadline + TICK);
    let as_told = match (&result, ends) {
        (Ok(()), WorkEnds::Well(_)) => true,
        (Err(TransportError::Panicked { .. }), WorkEnds::Panics(_)) => true,
        (Err(TransportError::UnknownHost { .. }), _) => true,
        (Err(TransportError::CallTimeout { .. }), _) => deadline.is_some_and(|deadline| now >= deadline),
        (Err(error), _) if !started.is_cancelled() => {
            records.check_refusal(error, deadline.unwrap_or(asked + records.config.pool.acquire_timeout));
            true
        }
        _ => false,
    };
    if late || !as_told {
        records.report_violation(format!("work that ends {ends:?} gave {result:?}, late: {late}"));
    }
}

async fn call(
    records: Arc<Records>,
    pool: Arc<ConnectionPool<Script>>,
    held: Arc<Held>,
    vm: Option<u8>,
    ends: Ends,
) {
    let lane = vm.map(|vm| Lane { target: u128::from(vm), kind: LaneKind::Monitor });
    let deadline = Instant::now() + records.config.call_timeout;
    let starter = records.clone();
    // Both end with the caller.
    let (placing, mut elsewhere) = (records.placing.clone(), None);
    let result = held
        .lease
        .call("scripted", lane, |link, in_flight| {
            drop(placing);
            let connection = in_flight.connection_id().unwrap();
            if connection != held.lease.connection_id() {
                elsewhere = Some(records.elsewhere.clone());
            }
            let on = pool.connections().into_iter().find(|on| on.connection_id() == connection).unwrap();
            let thread = Thread {
                _in_flight: Arc::new(in_flight),
                _link: link,
                vm,
                deadline,
                connection,
                reconnects: on.reconnects(),
                end: CancellationToken::new(),
            };
            starter.start(thread, ends)
        })
        .await;
    drop(elsewhere);
    records.ended.0.fetch_add(1, Ordering::SeqCst);
    records.ended.1.fetch_add(u64::from(result.is_err()), Ordering::SeqCst);
    let now = Instant::now();
    let timely = match &result {
        Err(error) if error.is_timeout() || error.kind() == ErrorKind::StuckCalls => now >= deadline,
        _ => true,
    };
    if !timely || now > deadline + TICK {
        records.report_violation(format!(
            "a call ended {:?} after its deadline with {result:?}",
            now.checked_duration_since(deadline)
        ));
    }
}

impl Records {
    /// Checks whether a caller may be refused a lease with this error.
    fn check_refusal(&self, error: &TransportError, deadline: Instant) {
        let now = Instant::now();
        let fair = match error {
            TransportError::AcquireTimeout { .. } => now >= deadline,
            TransportError::Connect { .. } | TransportError::Closed { .. } => true,
            _ => false,
        };
        if !fair || now > deadline + TICK {
            self.report_violation(format!(
                "refused {:?} before the deadline: {error:?}",
                deadline.checked_duration_since(now)
            ));
        }
    }
}

/// Lets a newly spawned caller ask at a time of its own.
async fn let_caller_ask() {
    advance(Duration::from_nanos(1)).await;
}

/// Timers have a resolution of a millisecond: between whole milliseconds, some that are due have not fired.
async fn reach_a_whole_millisecond(start: Instant) {
    let beyond = start.elapsed().subsec_nanos() % 1_000_000;
    if beyond > 0 {
        advance(Duration::from_nanos(u64::from(1_000_000 - beyond))).await;
    }
}

fn pick<T: Clone>(among: &[T], which: u8) -> Option<T> {
    let index = usize::from(which).checked_rem(among.len())?;
    among.get(index).cloned()
}

fn abort(tasks: &mut Vec<AbortHandle>, which: u8) {
    tasks.retain(|task| !task.is_finished());
    if let Some(task) = pick(tasks, which) {
        task.abort();
    }
}
