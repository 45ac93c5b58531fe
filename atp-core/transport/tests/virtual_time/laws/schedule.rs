//! Random schedules: steps of callers, work and the host, under a random configuration.

use std::fmt;
use std::time::Duration;

use atp_transport::{
    BreakerConfig, CallConfig, PoolConfig, ReconnectConfig, SelectionStrategy as Choice, TransportConfig,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::scripted::Step as ConnectAttempt;

/// One case. Its output can be pasted into a test.
#[derive(Clone)]
pub(crate) struct Schedule {
    pub(crate) config: TransportConfig,
    /// Seeds the jitter.
    pub(crate) seed: u64,
    pub(crate) steps: Vec<Step>,
}

/// One step. Times are in milliseconds; `which` selects an existing item, modulo their number.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Sets the result of attempts to connect.
    Attempts(ConnectAttempt),
    /// Hung attempts return.
    LetAttemptsGo,
    /// All open links are cut, and notice; calls on them return.
    Cut,
    /// Sets whether probes get no answer.
    Silent(bool),
    /// Sets the time of probes.
    ProbesTake(u64),
    /// So many callers ask for a lease, and then hold it.
    Acquire {
        callers: u8,
        within: u64,
    },
    CancelAcquire {
        which: u8,
    },
    /// A lease is dropped; calls under way keep it.
    Return {
        which: u8,
    },
    /// A call on one of the leases.
    Call {
        lease: u8,
        vm: Option<u8>,
        ends: Ends,
    },
    /// The caller of a call is cancelled.
    AbandonCall {
        which: u8,
    },
    /// A call under way is answered.
    LetCallGo {
        which: u8,
    },
    /// Work run on the host through the manager.
    Work {
        within: Option<u64>,
        ends: WorkEnds,
    },
    CancelWork {
        which: u8,
    },
    Pass(u64),
    Resize {
        min: usize,
        max: usize,
    },
    /// The host is removed.
    Close {
        drain: u64,
    },
}

/// How the underlying call ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ends {
    Answered(u64),
    Refused(u64),
    Lost { after: u64, sent: bool },
    NotSent,
    Panics(u64),
    Never,
}

/// How work ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WorkEnds {
    Well(u64),
    Panics(u64),
    Never,
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = toml::to_string(&self.config).map_err(|_| fmt::Error)?;
        writeln!(f, "seed {}\n{config}\nsteps:", self.seed)?;
        for (n, step) in self.steps.iter().enumerate() {
            writeln!(f, "    {step:?}, // {n}")?;
        }
        Ok(())
    }
}

pub(crate) fn schedules() -> impl Strategy<Value = Schedule> {
    (configs(), any::<u64>(), vec(steps(), 1..40)).prop_map(|(config, seed, steps)| Schedule {
        config,
        seed,
        steps,
    })
}

fn ms(range: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn configs() -> impl Strategy<Value = TransportConfig> {
    let timing = (ms(100..=10_000), ms(100..=10_000), ms(2_000..=60_000), ms(100..=3_000));
    (timing, any::<bool>(), pools(), reconnects(), calls()).prop_map(
        |(
            (connect_timeout, call_timeout, heartbeat_interval, heartbeat_timeout),
            auto,
            pool,
            reconnect,
            calls,
        )| {
            TransportConfig {
                connect_timeout,
                call_timeout,
                heartbeat_interval,
                heartbeat_timeout,
                auto_reconnect: auto,
                pool,
                reconnect,
                calls,
                // The laws are those of the pool, so no breaker must keep work from it.
                breaker: BreakerConfig { enabled: false, ..BreakerConfig::default() },
                ..TransportConfig::default()
            }
        },
    )
}

fn pools() -> impl Strategy<Value = PoolConfig> {
    let size = (0usize..4, 1usize..6, 1usize..=16, select(Choice::ALL.to_vec()), 1usize..=5);
    let load = (0usize..6, 0.05..=1.0, 0.0..=1.0);
    let timing = (
        ms(1_000..=100_000),
        ms(100..=20_000),
        ms(0..=2_000),
        ms(500..=30_000),
        prop_oneof![Just(Duration::ZERO), ms(5_000..=100_000)],
        prop_oneof![Just(Duration::ZERO), ms(1_000..=60_000)],
        // Always, sometimes, and never.
        prop_oneof![Just(Duration::ZERO), ms(100..=60_000), Just(Duration::from_secs(86_400))],
    );
    (size, load, timing).prop_map(
        |((min, max, uses, strategy, max_opening), (high_load_uses, up, down), timing)| {
            let (
                idle_timeout,
                acquire_timeout,
                grow_patience,
                maintenance_interval,
                lifetime,
                report,
                validate_after,
            ) = timing;
            PoolConfig {
                min_connections_per_host: min.min(max),
                max_connections_per_host: max,
                max_opening,
                max_uses_per_connection: uses,
                selection_strategy: strategy,
                high_load_uses,
                scale_up_threshold: up,
                scale_down_threshold: up * down,
                idle_timeout,
                acquire_timeout,
                grow_patience,
                maintenance_interval,
                max_lifetime: lifetime,
                validate_after,
                report_leases_after: report,
                ..PoolConfig::default()
            }
        },
    )
}

fn reconnects() -> impl Strategy<Value = ReconnectConfig> {
    (0u32..5, ms(1..=1_000), ms(0..=20_000), 1.0..3.0, ms(0..=30_000), 1usize..5).prop_map(
        |(max_attempts, initial_delay, beyond, multiplier, reset_after, max_hung_attempts)| ReconnectConfig {
            max_attempts,
            initial_delay,
            max_delay: initial_delay + beyond,
            multiplier,
            reset_after,
            max_hung_attempts,
            ..ReconnectConfig::default()
        },
    )
}

fn calls() -> impl Strategy<Value = CallConfig> {
    (1usize..=4, 1usize..=15, 1usize..=8, ms(0..=60_000)).prop_map(
        |(max_per_connection, max_per_host, max_unproven_per_host, proven_for)| CallConfig {
            max_per_connection,
            max_per_host,
            max_unproven_per_host,
            proven_for,
            ..CallConfig::default()
        },
    )
}

/// Up to five minutes, with small values as likely as large ones, milliseconds.
fn span(size: u8) -> u64 {
    (1.0507f64.powi(i32::from(size)) - 1.0) as u64
}

/// Up to five seconds.
fn short(size: u8) -> u64 {
    span((f64::from(size) * 0.675) as u8)
}

/// Built from plain numbers: a union of strategies costs several times as much as running the step.
fn steps() -> impl Strategy<Value = Step> {
    (0u8..75, any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(kind, a, b, c)| match kind {
        0..14 => Step::Pass(span(a)),
        14..24 => Step::Acquire { callers: 1 + a % 7, within: span(b) },
        24..31 => Step::Return { which: a },
        31..40 => Step::Call { lease: a, vm: (c % 2 == 0).then_some(c / 2 % 4), ends: ends(b, c / 16) },
        40..44 => Step::Work { within: (b > 0).then(|| span(b)), ends: work_ends(a, c) },
        44..47 => Step::CancelAcquire { which: a },
        47..50 => Step::AbandonCall { which: a },
        50..53 => Step::LetCallGo { which: a },
        53..56 => Step::Attempts(ConnectAttempt::Fails(Duration::from_millis(short(a)))),
        56..60 => Step::Attempts(ConnectAttempt::Opens(Duration::from_millis(short(a)))),
        60 => Step::Attempts(ConnectAttempt::Hangs),
        61..63 => Step::LetAttemptsGo,
        63..65 => Step::Cut,
        65..67 => Step::Silent(a % 2 == 1),
        67 => Step::ProbesTake(short(a)),
        68..71 => {
            Step::Resize { min: usize::from(b % 4).min(1 + usize::from(a % 5)), max: 1 + usize::from(a % 5) }
        }
        71..74 => Step::CancelWork { which: a },
        _ => Step::Close { drain: short(a) },
    })
}

fn ends(time: u8, kind: u8) -> Ends {
    let after = short(time);
    match kind {
        0..6 => Ends::Answered(after),
        6 => Ends::Refused(after),
        7 | 8 => Ends::Lost { after, sent: kind == 7 },
        9 => Ends::NotSent,
        10 => Ends::Panics(after),
        _ => Ends::Never,
    }
}

fn work_ends(time: u8, kind: u8) -> WorkEnds {
    match kind % 5 {
        0..3 => WorkEnds::Well(short(time)),
        3 => WorkEnds::Panics(short(time)),
        _ => WorkEnds::Never,
    }
}
