//! A host of the simulation: when it falls ill, with what, and what its calls do then.

use std::sync::Mutex;
use std::time::Duration;

use atp_transport::{CallFailure, ErrorKind, InFlight, LibvirtError};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::scripted::{Link, Script, Step};

use super::{DAY, MINUTE, SECOND};

/// What a host can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Illness {
    /// Its links break again and again.
    Flaps,
    /// Nothing listens there.
    Down,
    /// Neither attempts, nor probes, nor calls are answered.
    Hangs,
    /// Calls take seconds.
    Slow,
    /// Calls are not sent, or lost.
    Flaky,
    /// Calls to VMs are not answered; the host itself is well.
    VmsHang,
}

/// An illness to come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spell {
    pub(super) after: Duration,
    pub(super) lasts: Duration,
    pub(super) illness: Illness,
}

/// Times at which many hosts are down together: none at which pools look after themselves.
const STORMS: [(Duration, Duration); 2] = [
    (Duration::from_millis(21_601_234), Duration::from_secs(600)),
    (Duration::from_millis(54_004_321), MINUTE),
];
/// Hosts that are hit by a storm: these first.
const HIT_BY_STORMS: usize = 120;

/// What a host will have in the course of the day, in order.
pub(super) fn forecast(random: &mut fastrand::Rng, number: usize) -> Vec<Spell> {
    use Illness::{Down, Flaky, Flaps, Hangs, Slow, VmsHang};
    let (mut spells, mut at) = (Vec::new(), Duration::ZERO);
    loop {
        at += Duration::from_millis(random.u64(1_800_000..6 * 3_600_000));
        let lasts = Duration::from_secs(random.u64(5..20 * 60));
        if at + lasts >= DAY {
            break;
        }
        let illness = [Flaps, Down, Hangs, Slow, Flaky, VmsHang][random.usize(0..6)];
        spells.push(Spell { after: at, lasts, illness });
        at += lasts;
    }
    if number < HIT_BY_STORMS {
        for (after, lasts) in STORMS {
            spells.retain(|spell| spell.after + spell.lasts < after || spell.after > after + lasts);
            spells.push(Spell { after, lasts, illness: Down });
        }
        spells.sort_by_key(|spell| spell.after);
    }
    spells
}

/// A host, and how it is.
pub(super) struct Patient {
    pub(super) id: String,
    pub(super) script: Script,
    pub(super) spells: Vec<Spell>,
    state: Mutex<State>,
}

struct State {
    illness: Option<Illness>,
    since: Instant,
    /// Cancelled when what hangs goes on.
    thaw: CancellationToken,
}

impl Patient {
    pub(super) fn new(id: String, script: Script, spells: Vec<Spell>) -> Self {
        let state = State { illness: None, since: Instant::now(), thaw: CancellationToken::new() };
        script.set_attempts(Step::Opens(SECOND / 10));
        Patient { id, script, spells, state: Mutex::new(state) }
    }

    pub(super) fn illness(&self) -> Option<Illness> {
        self.state.lock().unwrap().illness
    }

    /// Since when it has been well, if it is.
    pub(super) fn well_since(&self) -> Option<Instant> {
        let state = self.state.lock().unwrap();
        state.illness.is_none().then_some(state.since)
    }

    pub(super) fn falls_ill(&self, illness: Illness) {
        let mut state = self.state.lock().unwrap();
        (state.illness, state.since) = (Some(illness), Instant::now());
    }

    pub(super) fn recovers(&self) {
        self.script.set_attempts(Step::Opens(SECOND / 10));
        self.script.set_silent(false);
        self.script.set_probe_time(Duration::ZERO);
        self.script.let_attempts_go();
        let mut state = self.state.lock().unwrap();
        (state.illness, state.since) = (None, Instant::now());
        std::mem::take(&mut state.thaw).cancel();
    }

    /// Makes a call "in the C library": it goes on when its caller has left. `luck` is from 0 to 1.
    pub(super) async fn answers(
        &self,
        link: std::sync::Arc<Link>,
        in_flight: InFlight,
        asks_a_vm: bool,
        luck: f64,
    ) -> Result<(), CallFailure> {
        let (illness, thaw) = {
            let state = self.state.lock().unwrap();
            (state.illness, state.thaw.clone())
        };
        let hangs = illness == Some(Illness::Hangs) || illness == Some(Illness::VmsHang) && asks_a_vm;
        let takes = match illness {
            Some(Illness::Slow) => 2 * SECOND + SECOND.mul_f64(8.0 * luck),
            _ => Duration::from_millis(5) + SECOND.mul_f64(0.3 * luck),
        };
        let answer = match (illness, luck) {
            (Some(Illness::Flaky), 0.0..0.4) => Err(CallFailure::NoThread { threads: 1 }),
            (Some(Illness::Flaky), 0.4..0.6) => Err(CallFailure::Lost { sent: false, source: None }),
            (Some(Illness::Flaky), 0.6..0.7) => Err(CallFailure::Lost { sent: true, source: None }),
            (_, 0.95..) => Err(CallFailure::Refused { kind: ErrorKind::VmNotFound, source: refusal() }),
            _ => Ok(()),
        };
        let (tell, told) = oneshot::channel();
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
            // Nobody may be listening any more.
            let _heard = tell.send(answer);
        });
        told.await.unwrap()
    }
}

fn refusal() -> LibvirtError {
    LibvirtError { code: 42, domain: 10, level: 2, message: "Domain not found".into() }
}
