//! Which values can be used, by themselves and together.

use std::ops::RangeInclusive;
use std::time::Duration;

use humantime::format_duration;
use tokio::sync::Semaphore;

use super::{ConfigError, ConfigProblem, EventConfig, TransportConfig};
use atp_settings::LONGEST;

/// libvirt counts keepalive's interval in milliseconds, in 31 bits.
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(i32::MAX as u64 / 1000);

/// A pace that can be kept, and that somebody can wait for.
const CALLS_PER_SECOND: RangeInclusive<f64> = 0.001..=1_000_000.0;

/// Whether a time may be nothing at all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Zero {
    Means,
    IsWrong,
}

impl TransportConfig {
    /// Checks all values and the relations between them.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let problem = |(path, wrong)| ConfigProblem::new(path, None, format!("`{path}` {wrong}"));
        ConfigError::unless_empty(self.problems().into_iter().map(problem).collect())
    }

    /// Checks a host's own configuration, under a manager that has this one: its values, and that those which
    /// hold for all hosts together are this one's.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn validate_for_host(&self, host: &TransportConfig) -> Result<(), ConfigError> {
        let mut problems = host.validate().map_or_else(|error| error.problems, |()| Vec::new());
        for ((path, ours), (_, theirs)) in self.shared().into_iter().zip(host.shared()) {
            if ours != theirs {
                let problem =
                    format!("`{path}` is {theirs}; it applies to all hosts together, and is {ours}");
                problems.push(ConfigProblem::new(path, None, problem));
            }
        }
        ConfigError::unless_empty(problems)
    }

    /// The values that hold for all hosts together, so that no host can have its own.
    pub(super) fn shared(&self) -> [(&'static str, String); 9] {
        let thread_idle_timeout = format_duration(self.calls.thread_idle_timeout).to_string();
        [
            ("calls.max_threads", self.calls.max_threads.to_string()),
            ("calls.thread_idle_timeout", thread_idle_timeout),
            ("reconnect.max_per_second", self.reconnect.max_per_second.to_string()),
            ("breaker.max_open_share", self.breaker.max_open_share.to_string()),
            ("breaker.min_hosts_for_share", self.breaker.min_hosts_for_share.to_string()),
            ("health.interval", format_duration(self.health.interval).to_string()),
            ("health.fleet_degraded_share", self.health.fleet_degraded_share.to_string()),
            ("health.fleet_unavailable_share", self.health.fleet_unavailable_share.to_string()),
            ("events.capacity", self.events.capacity.to_string()),
        ]
    }

    /// Every value that cannot be used: its path, and what is wrong with it.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let TransportConfig {
            pool,
            reconnect,
            calls,
            keepalive,
            breaker,
            retry,
            rate_limit,
            health,
            events,
            ..
        } = self;
        let mut problems = Vec::new();
        let mut check = |ok: bool, path: &'static str, problem: String| {
            if !ok {
                problems.push((path, problem));
            }
        };
        check(
            self.engine.is_built_in(),
            "engine",
            format!("is {0}; this program was built without that engine (feature `{0}`)", self.engine),
        );
        for (path, time, zero) in [
            ("connect_timeout", self.connect_timeout, Zero::IsWrong),
            ("call_timeout", self.call_timeout, Zero::IsWrong),
            ("heartbeat_interval", self.heartbeat_interval, Zero::IsWrong),
            ("heartbeat_timeout", self.heartbeat_timeout, Zero::IsWrong),
            ("pool.idle_timeout", pool.idle_timeout, Zero::IsWrong),
            ("pool.acquire_timeout", pool.acquire_timeout, Zero::IsWrong),
            ("pool.grow_patience", pool.grow_patience, Zero::Means),
            ("pool.maintenance_interval", pool.maintenance_interval, Zero::IsWrong),
            ("pool.drain_timeout", pool.drain_timeout, Zero::Means),
            ("pool.max_lifetime", pool.max_lifetime, Zero::Means),
            ("pool.validate_after", pool.validate_after, Zero::Means),
            ("pool.report_leases_after", pool.report_leases_after, Zero::Means),
            ("reconnect.initial_delay", reconnect.initial_delay, Zero::IsWrong),
            ("reconnect.max_delay", reconnect.max_delay, Zero::Means),
            ("reconnect.reset_after", reconnect.reset_after, Zero::Means),
            ("calls.monitor_busy_after", calls.monitor_busy_after, Zero::Means),
            ("calls.proven_for", calls.proven_for, Zero::Means),
            ("calls.thread_idle_timeout", calls.thread_idle_timeout, Zero::Means),
            ("keepalive.interval", keepalive.interval, Zero::Means),
            ("breaker.window", breaker.window, Zero::IsWrong),
            ("breaker.min_wait", breaker.min_wait, Zero::Means),
            ("breaker.cool_down", breaker.cool_down, Zero::IsWrong),
            ("breaker.max_cool_down", breaker.max_cool_down, Zero::IsWrong),
            ("retry.initial_delay", retry.initial_delay, Zero::Means),
            ("retry.max_delay", retry.max_delay, Zero::Means),
            ("retry.budget_window", retry.budget_window, Zero::IsWrong),
            ("health.interval", health.interval, Zero::Means),
            ("health.window", health.window, Zero::IsWrong),
            ("health.slow_mean", health.slow_mean, Zero::Means),
            ("health.slow_p99", health.slow_p99, Zero::Means),
            ("health.min_wait", health.min_wait, Zero::Means),
            ("health.better_after", health.better_after, Zero::Means),
        ] {
            check(!time.is_zero() || zero == Zero::Means, path, "is 0s; it must be longer".to_owned());
            check(
                time <= LONGEST,
                path,
                format!("is {}; it must be at most 100 years", format_duration(time)),
            );
        }
        for (path, number) in [
            ("pool.max_connections_per_host", pool.max_connections_per_host),
            ("pool.max_opening", pool.max_opening),
            ("pool.max_uses_per_connection", pool.max_uses_per_connection),
            ("calls.max_per_host", calls.max_per_host),
            ("calls.max_unproven_per_host", calls.max_unproven_per_host),
            ("calls.max_threads", calls.max_threads),
            ("reconnect.max_hung_attempts", reconnect.max_hung_attempts),
            ("reconnect.max_per_second", reconnect.max_per_second as usize),
            ("retry.max_tries", retry.max_tries as usize),
            ("rate_limit.burst", rate_limit.burst as usize),
            ("health.worse_after", health.worse_after as usize),
            ("events.capacity", events.capacity),
        ] {
            check(number > 0, path, "is 0; it must be at least 1".to_owned());
            let most = if path == "events.capacity" { EventConfig::MOST } else { Semaphore::MAX_PERMITS };
            check(number <= most, path, format!("is {number}; it must be at most {most}"));
        }
        for (path, number) in [
            ("calls.max_per_connection", calls.max_per_connection),
            ("calls.suspect_after", calls.suspect_after),
        ] {
            let most = Semaphore::MAX_PERMITS;
            check(number <= most, path, format!("is {number}; it must be at most {most}"));
        }
        let (min, max) = (pool.min_connections_per_host, pool.max_connections_per_host);
        check(
            min <= max,
            "pool.min_connections_per_host",
            format!("is {min}, more than pool.max_connections_per_host, which is {max}"),
        );
        for (path, multiplier) in [
            ("reconnect.multiplier", reconnect.multiplier),
            ("breaker.multiplier", breaker.multiplier),
            ("retry.multiplier", retry.multiplier),
        ] {
            check(
                multiplier.is_finite() && multiplier >= 1.0,
                path,
                format!("is {multiplier}; it must be a number of at least 1"),
            );
        }
        let (down, up) = (pool.scale_down_threshold, pool.scale_up_threshold);
        for (path, share) in [
            ("pool.scale_down_threshold", down),
            ("pool.scale_up_threshold", up),
            ("breaker.failure_rate", breaker.failure_rate),
            ("breaker.max_open_share", breaker.max_open_share),
            ("retry.budget_share", retry.budget_share),
            ("health.degraded_error_rate", health.degraded_error_rate),
            ("health.unavailable_error_rate", health.unavailable_error_rate),
            ("health.fleet_degraded_share", health.fleet_degraded_share),
            ("health.fleet_unavailable_share", health.fleet_unavailable_share),
        ] {
            check((0.0..=1.0).contains(&share), path, format!("is {share}; it must be from 0 to 1"));
        }
        check(
            down <= up || !(0.0..=1.0).contains(&up),
            "pool.scale_down_threshold",
            format!("is {down}, more than pool.scale_up_threshold, which is {up}"),
        );
        for (path, longest, initial_path, initial) in [
            ("reconnect.max_delay", reconnect.max_delay, "reconnect.initial_delay", reconnect.initial_delay),
            ("breaker.max_cool_down", breaker.max_cool_down, "breaker.cool_down", breaker.cool_down),
            ("retry.max_delay", retry.max_delay, "retry.initial_delay", retry.initial_delay),
        ] {
            let (shown, initial_shown) = (format_duration(longest), format_duration(initial));
            check(
                initial <= longest,
                path,
                format!("is {shown}, shorter than {initial_path}, which is {initial_shown}"),
            );
        }
        let per_second = rate_limit.calls_per_second;
        check(
            per_second == 0.0 || CALLS_PER_SECOND.contains(&per_second),
            "rate_limit.calls_per_second",
            format!(
                "is {per_second}; it must be 0, or from {} to {}",
                CALLS_PER_SECOND.start(),
                CALLS_PER_SECOND.end()
            ),
        );
        let utilisation = health.high_utilisation;
        check(
            utilisation.is_finite() && utilisation >= 0.0,
            "health.high_utilisation",
            format!("is {utilisation}; it must be a number of at least 0"),
        );
        for (path, lower, name, higher) in [
            (
                "health.degraded_error_rate",
                health.degraded_error_rate,
                "health.unavailable_error_rate",
                health.unavailable_error_rate,
            ),
            (
                "health.fleet_degraded_share",
                health.fleet_degraded_share,
                "health.fleet_unavailable_share",
                health.fleet_unavailable_share,
            ),
        ] {
            check(
                lower <= higher || higher.is_nan(),
                path,
                format!("is {lower}, more than {name}, which is {higher}"),
            );
        }
        let interval = keepalive.interval;
        check(
            interval.subsec_nanos() == 0 && interval <= LONGEST_KEEPALIVE,
            "keepalive.interval",
            format!(
                "is {}; libvirt takes whole seconds, at most {}",
                format_duration(interval),
                LONGEST_KEEPALIVE.as_secs()
            ),
        );
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(result: Result<(), ConfigError>) -> Vec<String> {
        let problems = result.map_or_else(|error| error.problems, |()| Vec::new());
        problems.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = TransportConfig::default();
        config.validate().unwrap();
        config.validate_for_host(&config).unwrap();
    }

    #[test]
    fn every_problem_is_reported_with_its_path() {
        let mut config = TransportConfig { connect_timeout: Duration::ZERO, ..TransportConfig::default() };
        config.pool.max_connections_per_host = 0;
        config.pool.max_lifetime = Duration::MAX;
        config.calls.max_per_host = usize::MAX;
        config.reconnect.multiplier = f64::NAN;
        config.keepalive.interval = Duration::from_millis(1500);
        assert_eq!(
            paths(config.validate()),
            [
                "connect_timeout",
                "pool.max_lifetime",
                "pool.max_connections_per_host",
                "calls.max_per_host",
                "pool.min_connections_per_host",
                "reconnect.multiplier",
                "keepalive.interval"
            ]
        );
    }

    #[test]
    fn keepalive_is_counted_in_milliseconds() {
        let mut config = TransportConfig::default();
        config.keepalive.interval = LONGEST_KEEPALIVE;
        config.validate().unwrap();
        config.keepalive.interval += Duration::from_secs(1);
        assert_eq!(paths(config.validate()), ["keepalive.interval"]);
    }

    #[test]
    fn shares_paces_and_their_bounds_are_checked() {
        let mut config = TransportConfig::default();
        config.breaker.failure_rate = 1.5;
        config.breaker.max_cool_down = Duration::from_secs(1);
        config.breaker.multiplier = f64::INFINITY;
        config.retry.max_tries = 0;
        config.retry.budget_share = -0.1;
        config.rate_limit.calls_per_second = f64::NAN;
        config.rate_limit.burst = 0;
        let mut found = paths(config.validate());
        found.sort();
        assert_eq!(
            found,
            [
                "breaker.failure_rate",
                "breaker.max_cool_down",
                "breaker.multiplier",
                "rate_limit.burst",
                "rate_limit.calls_per_second",
                "retry.budget_share",
                "retry.max_tries",
            ]
        );
    }

    #[test]
    fn a_host_can_have_its_own_but_for_what_all_share() {
        let common = TransportConfig::default();
        let mut host = common.clone();
        host.pool.max_connections_per_host = 2;
        host.keepalive.count = 9;
        common.validate_for_host(&host).unwrap();
        host.calls.max_threads = 1;
        host.reconnect.max_per_second = 1;
        host.calls.max_per_host = 0;
        assert_eq!(
            paths(common.validate_for_host(&host)),
            ["calls.max_per_host", "calls.max_threads", "reconnect.max_per_second"]
        );
    }
}
