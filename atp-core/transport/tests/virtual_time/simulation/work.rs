//! The work of the simulation: random pieces of work, and the checks of their results.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use atp_transport::{Effect, ExecuteOptions, Lane, LaneKind, Pick, PooledConnection, Result, TransportError};
use tokio::time::{Instant, sleep};

use crate::scripted::Scripts;

use super::{SECOND, Simulation, TICK};

/// Where a piece of work runs.
#[derive(Debug, Clone)]
pub(super) enum Place {
    On(String),
    Repeatable(String),
    Any(String, Pick),
    Some(Vec<String>),
    All,
}

/// A piece of work.
pub(super) struct Piece {
    pub(super) place: Place,
    pub(super) time_limit: Option<Duration>,
    /// How long it holds its lease before its call.
    pub(super) holds: Duration,
    pub(super) panics: bool,
    pub(super) vm: Option<u128>,
    pub(super) draw: f64,
    runs: AtomicU32,
    done: AtomicU32,
    may_have_had_an_effect: AtomicBool,
}

impl Piece {
    pub(super) fn random(random: &mut fastrand::Rng, place: Place) -> Self {
        Piece {
            place,
            time_limit: (random.u8(0..10) < 7).then(|| Duration::from_millis(random.u64(500..60_000))),
            holds: if random.u8(0..4) == 0 {
                Duration::from_millis(random.u64(0..5000))
            } else {
                Duration::ZERO
            },
            panics: random.u8(0..100) < 3,
            vm: (random.u8(0..2) == 0).then(|| random.u128(0..4)),
            draw: random.f64(),
            runs: AtomicU32::new(0),
            done: AtomicU32::new(0),
            may_have_had_an_effect: AtomicBool::new(false),
        }
    }

    /// A piece of work that succeeds on every host without a fault.
    pub(super) fn sound(host: &str) -> Self {
        let mut piece = Piece::random(&mut fastrand::Rng::with_seed(0), Place::On(host.to_owned()));
        (piece.time_limit, piece.holds, piece.panics) = (Some(60 * SECOND), Duration::ZERO, false);
        (piece.vm, piece.draw) = (None, 0.5);
        piece
    }

    /// Whether its runs are tries of the same work.
    fn is_one(&self) -> bool {
        !matches!(self.place, Place::Some(_) | Place::All)
    }

    /// The maximum time it may take.
    fn limit(&self, group: usize) -> Duration {
        // A wait for a connection, the time it is held, one call.
        let once = 45 * SECOND;
        self.time_limit.unwrap_or(match self.place {
            Place::On(_) | Place::Some(_) | Place::All => once,
            // With two waits of at most the time for which a breaker stays open.
            Place::Repeatable(_) => 3 * once + 2 * 66 * SECOND,
            Place::Any(..) => once * u32::try_from(group).unwrap(),
        })
    }
}

impl Simulation {
    /// Runs a piece of work and checks its result.
    pub(super) async fn perform(self: Arc<Self>, piece: Arc<Piece>) -> Result<()> {
        let asked = Instant::now();
        self.log_request(&piece);
        let options =
            piece.time_limit.map(|time_limit| ExecuteOptions::by(asked + time_limit)).unwrap_or_default();
        let (sim, this) = (self.clone(), piece.clone());
        let work = move |lease: PooledConnection<Scripts>| {
            let (sim, piece) = (sim.clone(), this.clone());
            async move { sim.run(&piece, &lease).await }
        };
        let result = match &piece.place {
            Place::On(host) => self.manager.execute_on_host_with(host, options, work).await,
            Place::Repeatable(host) => self.manager.execute_repeatable_on_host(host, options, work).await,
            Place::Any(group, pick) => self.manager.execute_on_any(group, *pick, options, work).await,
            Place::Some(hosts) => {
                let results = self.manager.execute_on_hosts_with(hosts, options, work).await;
                self.expect_that(results.iter().map(|(id, _)| id).eq(hosts), || {
                    format!("work on {hosts:?} ended {results:?}")
                });
                Ok(())
            }
            Place::All => {
                let present = self.manager.hosts().len();
                let results = self.manager.execute_on_all_hosts_with(options, work).await;
                self.expect_that(results.len() == present, || {
                    format!("{} results of work on {present} hosts", results.len())
                });
                Ok(())
            }
        };
        let took = asked.elapsed();
        self.expect_that(took <= piece.limit(super::PER_GROUP) + TICK, || {
            format!("{:?} took {took:?}: {result:?}", piece.place)
        });
        if piece.is_one() {
            let done = piece.done.load(Ordering::SeqCst);
            let (ok, panicked) = (result.is_ok(), matches!(result, Err(TransportError::Panicked { .. })));
            self.expect_that(!ok || done == 1, || {
                format!("{:?} succeeded and was done {done} times", piece.place)
            });
            self.expect_that(done <= 1, || format!("{:?} was done {done} times", piece.place));
            self.expect_that(!panicked || piece.panics, || format!("{:?}: {result:?}", piece.place));
        }
        result
    }

    /// Does the work on a lease.
    async fn run(&self, piece: &Piece, lease: &PooledConnection<Scripts>) -> Result<()> {
        let host = lease.host_id().as_str();
        if piece.is_one() {
            let again = piece.runs.fetch_add(1, Ordering::SeqCst) > 0;
            let repeated = piece.may_have_had_an_effect.load(Ordering::SeqCst);
            self.expect_that(!repeated, || {
                format!("{:?} is repeated although it may have been done", piece.place)
            });
            if again {
                self.work_log().retried.entry(host.to_owned()).or_default().push(Instant::now());
            }
        }
        if !piece.holds.is_zero() {
            sleep(piece.holds).await;
        }
        if piece.panics {
            piece.may_have_had_an_effect.store(true, Ordering::SeqCst);
            // Panics without a message on stderr.
            std::panic::resume_unwind(Box::new("scripted"));
        }
        let host = &self.hosts[host];
        let lane = piece.vm.map(|target| Lane { target, kind: LaneKind::Monitor });
        let call = lease.call("works", lane, |link, in_flight| {
            host.answer_call(link, in_flight, lane.is_some(), piece.draw)
        });
        let result = call.await;
        self.event_log().called(lease.connection_id(), result.is_err());
        match &result {
            Ok(()) => {
                piece.done.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) if error.effect() == Effect::Unknown => {
                piece.may_have_had_an_effect.store(true, Ordering::SeqCst);
            }
            Err(_) => {}
        }
        result
    }

    /// Records the request for each host that may be tried first.
    fn log_request(&self, piece: &Piece) {
        let now = Instant::now();
        let hosts: Vec<&String> = match &piece.place {
            Place::On(host) | Place::Repeatable(host) => vec![host],
            Place::Any(group, _) => {
                self.hosts.keys().filter(|host| super::group_of(host) == *group).collect()
            }
            Place::Some(hosts) => hosts.iter().collect(),
            Place::All => self.hosts.keys().collect(),
        };
        let mut work_log = self.work_log();
        for host in hosts {
            work_log.asked.entry(host.clone()).or_default().push(now);
        }
    }
}
