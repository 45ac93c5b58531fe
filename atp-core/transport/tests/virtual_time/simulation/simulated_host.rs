//! A host of the simulation: its faults, and how its calls behave during them.

use std::sync::Mutex;
use std::time::Duration;

use atp_transport::{CallFailure, ErrorKind, InFlight, LibvirtError};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::scripted::{Link, Script, Step};

use super::{DAY, MINUTE, SECOND};

/// The faults of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its links break repeatedly.
    Flaps,
    /// Connections are refused.
    Down,
    /// Attempts to connect, probes and calls are not answered.
    Hangs,
    /// Calls take seconds.
    Slow,
    /// Calls are not sent, or lost.
    Flaky,
    /// Calls to VMs are not answered; the host itself works.
    VmsHang,
}

/// A planned fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct FaultPeriod {
    pub(super) after: Duration,
    pub(super) lasts: Duration,
    pub(super) fault: Fault,
}

/// Times at which many hosts are down together. Pools do no maintenance at these times.
const OUTAGES: [(Duration, Duration); 2] = [
    (Duration::from_millis(21_601_234), Duration::from_secs(600)),
    (Duration::from_millis(54_004_321), MINUTE),
];
/// The hosts affected by these outages: the first ones.
const HOSTS_WITH_OUTAGES: usize = 120;

/// Plans the faults of a host for the day, in order.
pub(super) fn plan_faults(random: &mut fastrand::Rng, number: usize) -> Vec<FaultPeriod> {
    use Fault::{Down, Flaky, Flaps, Hangs, Slow, VmsHang};
    let (mut faults, mut at) = (Vec::new(), Duration::ZERO);
    loop {
        at += Duration::from_millis(random.u64(1_800_000..6 * 3_600_000));
        let lasts = Duration::from_secs(random.u64(5..20 * 60));
        if at + lasts >= DAY {
            break;
        }
        let fault = [Flaps, Down, Hangs, Slow, Flaky, VmsHang][random.usize(0..6)];
        faults.push(FaultPeriod { after: at, lasts, fault });
        at += lasts;
    }
    if number < HOSTS_WITH_OUTAGES {
        for (after, lasts) in OUTAGES {
            faults.retain(|period| period.after + period.lasts < after || period.after > after + lasts);
            faults.push(FaultPeriod { after, lasts, fault: Down });
        }
        faults.sort_by_key(|period| period.after);
    }
    faults
}

/// A host and its current fault.
pub(super) struct SimulatedHost {
    pub(super) id: String,
    pub(super) script: Script,
    pub(super) faults: Vec<FaultPeriod>,
    state: Mutex<State>,
}

struct State {
    fault: Option<Fault>,
    since: Instant,
    /// Cancelled when hung calls continue.
    thaw: CancellationToken,
}

impl SimulatedHost {
    pub(super) fn new(id: String, script: Script, faults: Vec<FaultPeriod>) -> Self {
        let state = State { fault: None, since: Instant::now(), thaw: CancellationToken::new() };
        script.set_attempts(Step::Opens(SECOND / 10));
        SimulatedHost { id, script, faults, state: Mutex::new(state) }
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.state.lock().unwrap().fault
    }

    /// The start of the current time without a fault, if there is none now.
    pub(super) fn healthy_since(&self) -> Option<Instant> {
        let state = self.state.lock().unwrap();
        state.fault.is_none().then_some(state.since)
    }

    pub(super) fn begin_fault(&self, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        (state.fault, state.since) = (Some(fault), Instant::now());
    }

    pub(super) fn end_fault(&self) {
        self.script.set_attempts(Step::Opens(SECOND / 10));
        self.script.set_silent(false);
        self.script.set_probe_time(Duration::ZERO);
        self.script.let_attempts_go();
        let mut state = self.state.lock().unwrap();
        (state.fault, state.since) = (None, Instant::now());
        std::mem::take(&mut state.thaw).cancel();
    }

    /// Makes a call as the C library does: it continues after its caller has left. `draw` is a random number from 0
    /// to 1.
    pub(super) async fn answer_call(
        &self,
        link: std::sync::Arc<Link>,
        in_flight: InFlight,
        asks_a_vm: bool,
        draw: f64,
    ) -> Result<(), CallFailure> {
        let (fault, thaw) = {
            let state = self.state.lock().unwrap();
            (state.fault, state.thaw.clone())
        };
        let hangs = fault == Some(Fault::Hangs) || fault == Some(Fault::VmsHang) && asks_a_vm;
        let takes = match fault {
            Some(Fault::Slow) => 2 * SECOND + SECOND.mul_f64(8.0 * draw),
            _ => Duration::from_millis(5) + SECOND.mul_f64(0.3 * draw),
        };
        let answer = match (fault, draw) {
            (Some(Fault::Flaky), 0.0..0.4) => Err(CallFailure::NoThread { threads: 1 }),
            (Some(Fault::Flaky), 0.4..0.6) => Err(CallFailure::Lost { sent: false, source: None }),
            (Some(Fault::Flaky), 0.6..0.7) => Err(CallFailure::Lost { sent: true, source: None }),
            (_, 0.95..) => Err(CallFailure::Refused { kind: ErrorKind::VmNotFound, source: refusal() }),
            _ => Ok(()),
        };
        let (answered, received) = oneshot::channel();
        tokio::spawn(async move {
            let _in_flight = in_flight;
            let answers = async {
                if hangs {
                    thaw.cancelled().await;
                }
                sleep(takes).await;
                answer
            };
            let answer = tokio::select! {
                biased;
                () = link.is_cut().cancelled() => Err(CallFailure::Lost { sent: true, source: None }),
                answer = answers => answer,
            };
            // The caller may have left.
            let _received = answered.send(answer);
        });
        received.await.unwrap()
    }
}

fn refusal() -> LibvirtError {
    LibvirtError { code: 42, domain: 10, level: 2, message: "Domain not found".into() }
}
