//! The calls under way to one host, and how many there may be.
//!
//! A blocking call cannot be stopped, and a hung VM holds one of the daemon's few workers for as long as it
//! hangs. So each call is admitted through up to four limits, always in this order: its VM's lane (one
//! call at a time), the share of VMs that have not answered lately, its connection, its host. What is
//! admitted is an [`InFlight`] token that travels with the call to wherever it really runs, and gives
//! everything back when dropped there, however long after the caller has left.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::config::{CallConfig, ReconnectConfig};
use crate::execute::unanswered::UnansweredCall;
use crate::sync::atomic_time::AtomicDuration;
use crate::sync::semaphore::{Permit, ResizableSemaphore};

/// A queue in which calls to one VM follow one another. The transport does not look inside the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lane {
    /// Whose lane it is: a VM's UUID as a number.
    pub target: u128,
    /// Which of the target's lanes, as it answers on several at once.
    pub kind: LaneKind,
}

/// What of a VM takes one call at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LaneKind {
    /// The monitor of its QEMU.
    Monitor,
    /// The agent in its guest.
    Agent,
    /// Its start. It has no monitor yet, and the start can hang like a command to one: on storage that does not answer.
    Start,
    /// Questions how far its long job is. They are asked beside the call that makes the job, and are of use only to show it: few
    /// at a time are under way for a host.
    Job,
}

/// How many questions about jobs are under way for a host at once. Each takes a moment, and those of VMs that hang leave the
/// calls of the host to work.
const JOB_QUESTIONS: usize = 2;

/// The call table of one host.
pub(crate) struct HostCalls {
    /// For how long a VM that answered counts as answering.
    proven_for: AtomicDuration,
    host: Arc<ResizableSemaphore>,
    unproven: Arc<ResizableSemaphore>,
    job_questions: Arc<ResizableSemaphore>,
    attempts: Arc<ResizableSemaphore>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next_id: u64,
    under_way: HashMap<u64, Record>,
    lanes: HashMap<Lane, LaneState>,
}

struct Record {
    deadline: Instant,
    /// The calls of the connection it is on; none for an attempt to connect.
    connection: Option<Arc<ConnectionCalls>>,
    /// Whether it is not work, but a sign of life that was asked for.
    is_probe: bool,
    /// Whether it counts among the calls of its connection that overran.
    overran: bool,
}

/// The calls under way on one connection.
pub(crate) struct ConnectionCalls {
    places: Arc<ResizableSemaphore>,
    /// Calls past their deadline that have not returned.
    overrun: AtomicUsize,
    /// One of those has returned, or one whose caller has left.
    returned: Notify,
    /// More of them are wanted at once than there are places.
    more_wanted: Notify,
}

/// What was found when the calls on a connection were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overdue {
    /// Calls past their deadline that have not returned.
    pub(crate) overrun: usize,
    /// Whether a probe is among them.
    pub(crate) probe: bool,
}

impl ConnectionCalls {
    /// At most `places` of them at once.
    pub(crate) fn new(places: usize) -> Arc<Self> {
        let (places, overrun) = (ResizableSemaphore::new(places), AtomicUsize::new(0));
        Arc::new(ConnectionCalls { places, overrun, returned: Notify::new(), more_wanted: Notify::new() })
    }

    /// Waits for a place. Cancel safe.
    pub(crate) async fn acquire(&self) -> Permit {
        if !self.places.has_free() {
            self.want_more();
        }
        self.places.acquire().await
    }

    pub(crate) fn try_acquire(&self) -> Option<Permit> {
        self.places.try_acquire()
    }

    /// Says that more places are wanted than there are.
    pub(crate) fn want_more(&self) {
        self.more_wanted.notify_one();
    }

    /// Returns when more places were wanted than there were. For one to wait.
    pub(crate) async fn more_wanted(&self) {
        self.more_wanted.notified().await;
    }

    pub(crate) fn has_free(&self) -> bool {
        self.places.has_free()
    }

    pub(crate) fn resize(&self, places: usize) {
        self.places.resize(places);
    }

    /// Calls that have overrun and not returned: each occupies a place that no lease has.
    pub(crate) fn overrun(&self) -> usize {
        self.overrun.load(Ordering::Relaxed)
    }

    /// Returns when a call has returned that overran, or whose caller has left. Cancel safe.
    pub(crate) async fn returned(&self) {
        self.returned.notified().await;
    }
}

struct LaneState {
    turn: Arc<ResizableSemaphore>,
    answered: Option<Instant>,
}

/// A call, or an attempt to connect, that is under way. It is dropped when that is really over.
#[must_use = "dropping the token says that the call is over"]
pub struct InFlight {
    calls: Arc<HostCalls>,
    id: u64,
    permits: Permits,
    /// Keeps the connection from being closed under the call.
    pub(crate) activity: Option<TaskTrackerToken>,
    /// Shows the call to the program that the work is for.
    pub(crate) unanswered: Option<UnansweredCall>,
    /// The connection that the call is sent on; none for an attempt to connect.
    pub(crate) connection: Option<u64>,
    marks: Arc<CallMarks>,
}

/// What the caller of a call and its token tell each other.
#[derive(Default)]
pub(crate) struct CallMarks {
    /// The call is at a look before its request, so that the request was not sent.
    pub(crate) looks: AtomicBool,
    /// The caller has left: those who wait for a place on the connection must be notified when the call ends.
    pub(crate) is_abandoned: AtomicBool,
    /// The call takes its turn in the VM's lane, but asks no QEMU and no agent: its answer does not prove the VM.
    pub(crate) proves_nothing: AtomicBool,
}

/// Held for their drop alone.
type Permits = [Option<Permit>; 4];

impl HostCalls {
    pub(crate) fn new(config: &CallConfig, reconnect: &ReconnectConfig) -> Arc<Self> {
        Arc::new(HostCalls {
            proven_for: AtomicDuration::new(config.proven_for),
            host: ResizableSemaphore::new(config.max_per_host),
            unproven: ResizableSemaphore::new(config.max_unproven_per_host),
            job_questions: ResizableSemaphore::new(JOB_QUESTIONS),
            attempts: ResizableSemaphore::new(reconnect.max_hung_attempts),
            table: Mutex::default(),
        })
    }

    /// Has the limits be these from now on. Calls of this must not overlap.
    pub(crate) fn reconfigure(&self, config: &CallConfig, reconnect: &ReconnectConfig) {
        self.proven_for.set(config.proven_for);
        self.host.resize(config.max_per_host);
        self.unproven.resize(config.max_unproven_per_host);
        self.attempts.resize(reconnect.max_hung_attempts);
    }

    /// Waits until a call may be sent; `place` waits for its place on a connection, once it is its turn. Cancel safe: a
    /// place in line is given up.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        lane: Option<Lane>,
        deadline: Instant,
        place: impl Future<Output = (Arc<ConnectionCalls>, Permit)>,
    ) -> InFlight {
        let (turn, share) = match lane {
            None => (None, None),
            Some(lane) => {
                let turn = self.turn_of(lane).acquire().await;
                let share = match lane.kind {
                    LaneKind::Job => Some(self.job_questions.acquire().await),
                    // Asked only now: the call before may just have shown that the VM answers.
                    _ if self.is_proven(lane) => None,
                    _ => Some(self.unproven.acquire().await),
                };
                (Some(turn), share)
            }
        };
        let (connection, place) = place.await;
        let host = self.host.acquire().await;
        let connection = Some(connection);
        let record = Record { deadline, connection, is_probe: false, overran: false };
        self.record(record, [turn, share, Some(place), Some(host)])
    }

    /// Marks an attempt to connect as under way; none when too many hang.
    pub(crate) fn begin_attempt(self: &Arc<Self>, deadline: Instant) -> Option<InFlight> {
        let permit = self.attempts.try_acquire()?;
        Some(self.record(
            Record { deadline, connection: None, is_probe: false, overran: false },
            [Some(permit), None, None, None],
        ))
    }

    /// Attempts to connect that are under way, with those that hang.
    pub(crate) fn attempts(&self) -> usize {
        self.attempts.taken()
    }

    /// Marks a probe as under way, which is overdue after `deadline`, with its place among the calls of its connection.
    pub(crate) fn begin_probe(
        self: &Arc<Self>,
        connection: &Arc<ConnectionCalls>,
        place: Permit,
        deadline: Instant,
    ) -> InFlight {
        let connection = Some(connection.clone());
        let record = Record { deadline, connection, is_probe: true, overran: false };
        let probe = self.record(record, [Some(place), None, None, None]);
        probe.marks.is_abandoned.store(true, Ordering::Relaxed);
        probe
    }

    /// The VM answered a call in this lane: its calls are not held back for a while.
    pub(crate) fn answered(&self, lane: Lane) {
        let mut table = self.table.lock();
        if let Some(state) = table.lanes.get_mut(&lane) {
            state.answered = Some(Instant::now());
        }
    }

    /// A call in this lane overran its deadline: the VM has to prove itself again.
    pub(crate) fn overran(&self, lane: Lane) {
        let mut table = self.table.lock();
        if let Some(state) = table.lanes.get_mut(&lane) {
            state.answered = None;
        }
    }

    /// Calls and attempts under way, with those that overran; without probes.
    pub(crate) fn in_flight(&self) -> usize {
        self.table.lock().under_way.values().filter(|call| !call.is_probe).count()
    }

    /// Calls that are past their deadline and have not returned.
    pub(crate) fn stuck(&self) -> usize {
        self.overdue(|call| call.connection.is_some())
    }

    /// Attempts to connect that are past their deadline and have not returned.
    pub(crate) fn stuck_attempts(&self) -> usize {
        self.overdue(|call| call.connection.is_none())
    }

    /// Calls under way to VMs that had not answered lately.
    pub(crate) fn unproven(&self) -> usize {
        self.unproven.taken()
    }

    /// Lanes that are remembered.
    pub(crate) fn lanes(&self) -> usize {
        self.table.lock().lanes.len()
    }

    fn overdue(&self, counts: impl Fn(&Record) -> bool) -> usize {
        let now = Instant::now();
        self.table.lock().under_way.values().filter(|call| call.deadline <= now && counts(call)).count()
    }

    /// Looks for calls on this connection that are past their deadline and have not returned.
    pub(crate) fn look_for_overdue(&self, connection: &Arc<ConnectionCalls>) -> Overdue {
        let now = Instant::now();
        let mut probe = false;
        for call in self.table.lock().under_way.values_mut() {
            let Some(on) = call.connection.as_ref().filter(|on| Arc::ptr_eq(on, connection)) else {
                continue;
            };
            if call.deadline <= now {
                probe |= call.is_probe;
                if !call.overran {
                    call.overran = true;
                    on.overrun.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Overdue { overrun: connection.overrun(), probe }
    }

    /// When the first of the calls on this connection should return that has not overrun.
    pub(crate) fn next_deadline(&self, connection: &Arc<ConnectionCalls>) -> Option<Instant> {
        let table = self.table.lock();
        let here = |call: &&Record| {
            !call.overran && call.connection.as_ref().is_some_and(|on| Arc::ptr_eq(on, connection))
        };
        table.under_way.values().filter(here).map(|call| call.deadline).min()
    }

    /// Forgets lanes that are not in use and whose VM has not answered lately.
    pub(crate) fn tidy(&self) {
        let proven_for = self.proven_for.get();
        self.table.lock().lanes.retain(|_, lane| {
            let in_use = Arc::strong_count(&lane.turn) > 1;
            in_use || lane.answered.is_some_and(|at| at.elapsed() < proven_for)
        });
    }

    fn turn_of(&self, lane: Lane) -> Arc<ResizableSemaphore> {
        let mut table = self.table.lock();
        let state = table
            .lanes
            .entry(lane)
            .or_insert_with(|| LaneState { turn: ResizableSemaphore::new(1), answered: None });
        state.turn.clone()
    }

    /// Whether the VM of this lane has answered lately.
    pub(crate) fn is_proven(&self, lane: Lane) -> bool {
        let table = self.table.lock();
        let answered = table.lanes.get(&lane).and_then(|state| state.answered);
        answered.is_some_and(|at| at.elapsed() < self.proven_for.get())
    }

    fn record(self: &Arc<Self>, record: Record, permits: Permits) -> InFlight {
        let mut table = self.table.lock();
        let id = table.next_id;
        table.next_id += 1;
        table.under_way.insert(id, record);
        InFlight {
            calls: self.clone(),
            id,
            permits,
            activity: None,
            unanswered: None,
            connection: None,
            marks: Arc::default(),
        }
    }
}

impl InFlight {
    /// The [connection](crate::HostConnection::connection_id) that a call is sent on, which need not be the leased one.
    /// None for an attempt to connect.
    pub fn connection_id(&self) -> Option<u64> {
        self.connection
    }

    /// Begins or ends a look before the call's request.
    pub(crate) fn set_looks(&self, looks: bool) {
        self.marks.looks.store(looks, Ordering::Relaxed);
    }

    /// Says that the answer is the daemon's own.
    pub(crate) fn proves_nothing(&self) {
        self.marks.proves_nothing.store(true, Ordering::Relaxed);
    }

    /// The marks of the call, for the caller that gives the token away.
    pub(crate) fn marks(&self) -> Arc<CallMarks> {
        Arc::clone(&self.marks)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let record = self.calls.table.lock().under_way.remove(&self.id);
        let Some(Record { overran, connection: Some(connection), .. }) = record else { return };
        if overran {
            connection.overrun.fetch_sub(1, Ordering::Relaxed);
        }
        if overran || self.marks.is_abandoned.load(Ordering::Relaxed) {
            self.permits = Permits::default();
            connection.returned.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    fn lane(target: u128) -> Option<Lane> {
        Some(Lane { target, kind: LaneKind::Monitor })
    }

    fn calls(config: CallConfig) -> Arc<HostCalls> {
        HostCalls::new(&config, &ReconnectConfig::default())
    }

    async fn admit(
        calls: &Arc<HostCalls>,
        connection: &Arc<ConnectionCalls>,
        lane: Option<Lane>,
        deadline: Instant,
    ) -> InFlight {
        let place = async { (connection.clone(), connection.acquire().await) };
        calls.admit(lane, deadline, place).await
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_at_a_time_in_a_lane() {
        let calls = calls(CallConfig::default());
        let connection = ConnectionCalls::new(4);
        let first = admit(&calls, &connection, lane(1), soon()).await;
        assert!(admit(&calls, &connection, lane(1), soon()).now_or_never().is_none());
        let other = admit(&calls, &connection, lane(2), soon()).now_or_never();
        assert!(other.is_some(), "another VM's lane was held up");
        drop(first);
        assert!(admit(&calls, &connection, lane(1), soon()).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn hung_vms_leave_room_for_those_that_answer() {
        let calls = calls(CallConfig { max_unproven_per_host: 2, ..CallConfig::default() });
        let connection = ConnectionCalls::new(100);
        drop(admit(&calls, &connection, lane(9), soon()).await);
        calls.answered(lane(9).unwrap());
        let _hung = [
            admit(&calls, &connection, lane(1), soon()).await,
            admit(&calls, &connection, lane(2), soon()).await,
        ];
        assert!(admit(&calls, &connection, lane(3), soon()).now_or_never().is_none());
        assert!(admit(&calls, &connection, lane(9), soon()).now_or_never().is_some());
        assert!(admit(&calls, &connection, None, soon()).now_or_never().is_some());
        calls.overran(lane(9).unwrap());
        assert!(admit(&calls, &connection, lane(9), soon()).now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn questions_about_jobs_that_hang_take_nothing_from_other_calls_to_vms() {
        let calls = calls(CallConfig { max_unproven_per_host: 1, ..CallConfig::default() });
        let connection = ConnectionCalls::new(100);
        let job = |target| Some(Lane { target, kind: LaneKind::Job });
        let mut hung = Vec::new();
        for vm in 0..JOB_QUESTIONS as u128 {
            hung.push(admit(&calls, &connection, job(vm), soon()).await);
        }
        assert!(admit(&calls, &connection, job(9), soon()).now_or_never().is_none());
        let work = admit(&calls, &connection, lane(9), soon()).now_or_never();
        assert!(work.is_some(), "a question held up a command");
        hung.pop();
        assert!(admit(&calls, &connection, job(9), soon()).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_past_its_deadline_is_stuck_until_it_returns() {
        let calls = calls(CallConfig::default());
        let connection = ConnectionCalls::new(4);
        let call = admit(&calls, &connection, None, soon()).await;
        assert_eq!((calls.in_flight(), calls.stuck()), (1, 0));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!((calls.in_flight(), calls.stuck()), (1, 1));
        drop(call);
        assert_eq!((calls.in_flight(), calls.stuck()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_overran_counts_against_its_connection_until_it_returns() {
        let calls = calls(CallConfig::default());
        let (connection, other) = (ConnectionCalls::new(4), ConnectionCalls::new(4));
        let (overran, later) = (soon(), Instant::now() + Duration::from_secs(9));
        let call = admit(&calls, &connection, None, overran).await;
        let _in_time = admit(&calls, &connection, None, later).await;
        let _elsewhere = admit(&calls, &other, None, overran).await;
        let none = Overdue { overrun: 0, probe: false };
        assert_eq!(calls.look_for_overdue(&connection), none);
        assert_eq!(calls.next_deadline(&connection), Some(overran));
        tokio::time::advance(Duration::from_secs(2)).await;
        for _ in 0..2 {
            assert_eq!(calls.look_for_overdue(&connection), Overdue { overrun: 1, probe: false });
        }
        assert_eq!((connection.overrun(), other.overrun()), (1, 0));
        assert_eq!(calls.next_deadline(&connection), Some(later));
        let mut returned = Box::pin(connection.returned());
        assert!(returned.as_mut().now_or_never().is_none());
        drop(call);
        assert!(returned.now_or_never().is_some());
        assert_eq!(calls.look_for_overdue(&connection), none);
        let place = connection.try_acquire().unwrap();
        let _probe = calls.begin_probe(&connection, place, Instant::now());
        assert_eq!(calls.look_for_overdue(&connection), Overdue { overrun: 1, probe: true });
    }

    #[tokio::test(start_paused = true)]
    async fn the_place_of_a_call_that_nobody_waits_for_is_free_when_its_end_is_told() {
        let calls = calls(CallConfig::default());
        let connection = ConnectionCalls::new(1);
        let returned = || connection.returned().now_or_never().is_some();
        drop(admit(&calls, &connection, None, soon()).await);
        assert!(!returned(), "its caller gives the place back");
        let abandoned = admit(&calls, &connection, None, soon()).await;
        abandoned.marks().is_abandoned.store(true, Ordering::Relaxed);
        drop(abandoned);
        assert!(returned() && connection.has_free());
        let place = connection.try_acquire().unwrap();
        drop(calls.begin_probe(&connection, place, soon()));
        assert!(returned() && connection.has_free());
    }

    #[tokio::test(start_paused = true)]
    async fn giving_up_in_line_gives_everything_back() {
        let calls = calls(CallConfig { max_per_host: 1, ..CallConfig::default() });
        let connection = ConnectionCalls::new(1);
        let first = admit(&calls, &connection, lane(1), soon()).await;
        let mut waiting = Box::pin(admit(&calls, &connection, lane(2), soon()));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(waiting);
        drop(first);
        assert!(admit(&calls, &connection, lane(2), soon()).now_or_never().is_some());
        calls.tidy();
        assert!(calls.table.lock().lanes.is_empty());
    }
}
