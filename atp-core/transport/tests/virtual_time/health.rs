//! The health of hosts and fleet, as checks find it over virtual time.

use std::time::Duration;

use atp_transport::{
    CallFailure, EventStream, Fleet, HealthConfig, HealthState, HostInfo, InFlight, PoolConfig,
    PooledConnection, Result, TransportConfig, TransportEvent, TransportManager,
};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::scripted::{SECOND, Script, Scripts, Step, lease, multiplexed};

use HealthState::{Degraded, Healthy, Overloaded, Unavailable};

/// One host, with a breaker that never opens.
async fn one_host(script: &Script, mut config: TransportConfig) -> (TransportManager<Script>, EventStream) {
    config.breaker.enabled = false;
    let manager = TransportManager::with_connector(config, script.clone());
    let events = manager.events();
    manager.add_host(HostInfo::new("h1", "192.0.2.1")).await.unwrap();
    (manager, events)
}

/// The changes of a host's health with their times, or of the fleet's if the name is `None`.
struct Changes {
    events: EventStream,
    start: Instant,
}

impl Changes {
    fn of(&mut self, host: Option<&str>) -> Vec<(u64, HealthState, String)> {
        let received = std::iter::from_fn(|| self.events.try_recv());
        received
            .filter(|event| event.host.as_ref().map(|host| host.as_str()) == host)
            .filter_map(|event| match &event.what {
                TransportEvent::HealthChanged { to, reason, .. } => {
                    Some(((event.at - self.start).as_secs(), *to, reason.clone()))
                }
                _ => None,
            })
            .collect()
    }
}

/// A call that ends after a while with the given result.
async fn call(
    lease: &PooledConnection<Script>,
    took: Duration,
    answer: Result<(), CallFailure>,
) -> Result<()> {
    lease
        .call("test", None, |_, _in_flight| async move {
            sleep(took).await;
            answer
        })
        .await
}

fn state(manager: &TransportManager<Script>) -> HealthState {
    manager.pool("h1").unwrap().health().state
}

#[tokio::test(start_paused = true)]
async fn a_host_is_unavailable_while_it_is_down() {
    let script = Script::default();
    let (manager, events) = one_host(&script, multiplexed()).await;
    let mut changes = Changes { events, start: Instant::now() };
    sleep(52 * SECOND).await;
    assert_eq!(manager.health().state, Healthy);
    script.set_attempts(Step::Fails(Duration::ZERO));
    script.cut();
    sleep(100 * SECOND).await;
    let health = manager.health();
    assert_eq!((health.state, &health.reason[..]), (Unavailable, "of 1 hosts 1 unavailable"));
    let host = health.hosts.values().next().unwrap();
    assert_eq!((host.state, &host.reason[..]), (Unavailable, "not connected: scripted"));
    assert_eq!(host.vitals.connected, 0);

    script.set_attempts(Step::Opens(Duration::ZERO));
    // It is tried again about every minute.
    sleep(70 * SECOND).await;
    assert_eq!(manager.pool("h1").unwrap().health().seen, Healthy);
    sleep(40 * SECOND).await;
    assert_eq!(state(&manager), Healthy);
    let changed = changes.of(Some("h1"));
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert_eq!((changed[0].0, changed[0].1), (60, Unavailable), "at the second check after the loss");
    assert_eq!((changed[1].1, &changed[1].2[..]), (Healthy, "all is well"));
}

#[tokio::test(start_paused = true)]
async fn a_short_fault_between_checks_changes_nothing() {
    let script = Script::default();
    let (manager, events) = one_host(&script, multiplexed()).await;
    for _ in 0..20 {
        sleep(61 * SECOND).await;
        script.then([Step::Fails(SECOND), Step::Opens(SECOND)]);
        script.cut();
    }
    sleep(60 * SECOND).await;
    assert_eq!(manager.pool("h1").unwrap().stats().reconnects, 20);
    assert_eq!(Changes { events, start: Instant::now() }.of(Some("h1")), []);
}

#[tokio::test(start_paused = true)]
async fn a_host_whose_breaker_is_open_is_unavailable() {
    let script = Script::attempts(vec![Step::Fails(Duration::ZERO); 50]);
    let mut config = multiplexed();
    config.breaker.consecutive_failures = 1;
    let manager = TransportManager::with_connector(config, script.clone());
    manager.add_host(HostInfo::new("h1", "192.0.2.1")).await.unwrap();
    sleep(11 * SECOND).await;
    let health = manager.pool("h1").unwrap().health();
    assert_eq!(health.state, Unavailable);
    assert_eq!(health.reason, "the circuit breaker is open; not connected: scripted");
}

#[tokio::test(start_paused = true)]
async fn a_full_pool_is_overloaded_until_the_window_has_passed() {
    let pool =
        PoolConfig { max_connections_per_host: 1, max_uses_per_connection: 1, ..PoolConfig::default() };
    let (manager, events) = one_host(&Script::default(), TransportConfig { pool, ..multiplexed() }).await;
    let mut changes = Changes { events, start: Instant::now() };
    let held = lease(&manager).await;
    sleep(11 * SECOND).await;
    let health = manager.pool("h1").unwrap().health();
    assert_eq!((health.state, &health.reason[..]), (Degraded, "100 % of the connections are in use"));
    assert!((health.vitals.utilisation - 1.0).abs() < 1e-9);

    manager.pool("h1").unwrap().acquire(Instant::now() + 12 * SECOND).await.unwrap_err();
    let health = manager.pool("h1").unwrap().health();
    assert_eq!((health.state, health.vitals.waiting), (Overloaded, 1), "while it waits");
    drop(held);
    sleep(300 * SECOND).await;
    assert_eq!(state(&manager), Healthy);
    let changed = changes.of(Some("h1"));
    let states: Vec<_> = changed.iter().map(|(_, to, _)| *to).collect();
    assert_eq!(states, [Degraded, Overloaded, Healthy]);
    let forgotten = 23 + 60 + 30;
    assert!((forgotten - 5..=forgotten + 15).contains(&changed[2].0), "window and time limit: {changed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hung_call_degrades_its_host_until_it_returns() {
    let (manager, events) = one_host(&Script::default(), multiplexed()).await;
    let mut changes = Changes { events, start: Instant::now() };
    let held = std::sync::Mutex::new(None::<InFlight>);
    let lease = lease(&manager).await;
    let hung = lease.call("hangs", None, |_, in_flight| async {
        *held.lock().unwrap() = Some(in_flight);
        std::future::pending::<Result<(), CallFailure>>().await
    });
    hung.await.unwrap_err();
    drop(lease);
    sleep(15 * SECOND).await;
    let health = manager.pool("h1").unwrap().health();
    assert_eq!((health.state, &health.reason[..]), (Degraded, "a call hangs"));
    held.lock().unwrap().take();
    sleep(40 * SECOND).await;
    assert_eq!(state(&manager), Healthy);
    assert_eq!(changes.of(Some("h1")).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn unanswered_calls_degrade_a_host_and_error_answers_do_not() {
    let refused = || {
        let source = atp_transport::LibvirtError { code: 42, domain: 10, level: 2, message: "no".to_owned() };
        Err(CallFailure::Refused { kind: atp_transport::ErrorKind::VmNotFound, source })
    };
    for (answer, expected) in [(refused(), Healthy), (Err(CallFailure::NoThread { threads: 1 }), Unavailable)]
    {
        let (manager, _events) = one_host(&Script::default(), multiplexed()).await;
        sleep(SECOND).await;
        let lease = lease(&manager).await;
        for _ in 0..50 {
            call(&lease, Duration::ZERO, answer.clone()).await.unwrap_err();
        }
        sleep(12 * SECOND).await;
        let health = manager.pool("h1").unwrap().health();
        assert_eq!((health.state, health.vitals.calls), (expected, 50), "{}", health.reason);
        sleep(120 * SECOND).await;
        assert_eq!(state(&manager), Healthy);
    }
}

#[tokio::test(start_paused = true)]
async fn slow_calls_degrade_a_host() {
    let (manager, _events) = one_host(&Script::default(), multiplexed()).await;
    let lease = lease(&manager).await;
    let start = Instant::now();
    for _ in 0..12 {
        call(&lease, 3 * SECOND, Ok(())).await.unwrap();
    }
    sleep_until(start + 47 * SECOND).await;
    let health = manager.pool("h1").unwrap().health();
    assert_eq!((health.state, &health.reason[..]), (Degraded, "calls take 3.0s on average"));
}

#[tokio::test(start_paused = true)]
async fn without_checks_there_is_no_health_and_checks_can_be_enabled() {
    let script = Script::default();
    script.set_attempts(Step::Fails(Duration::ZERO));
    let health = HealthConfig { interval: Duration::ZERO, ..HealthConfig::default() };
    let config = TransportConfig { health, ..multiplexed() };
    let (manager, _events) = one_host(&script, config.clone()).await;
    sleep(100 * SECOND).await;
    assert_eq!(manager.health().state, Healthy);
    let mut fleet = Fleet { config, hosts: manager.hosts() };
    fleet.config.health.interval = SECOND;
    manager.apply(fleet.clone()).unwrap();
    sleep(3 * SECOND).await;
    assert_eq!(manager.health().state, Unavailable);
    fleet.config.health.interval = Duration::ZERO;
    manager.apply(fleet).unwrap();
    script.set_attempts(Step::default());
    sleep(300 * SECOND).await;
    assert_eq!(manager.health().state, Unavailable, "the result of the last check");
}

#[tokio::test(start_paused = true)]
async fn checks_end_with_the_manager() {
    let (manager, events) = one_host(&Script::default(), multiplexed()).await;
    sleep(7 * SECOND).await;
    drop(manager);
    drop(events);
    sleep(SECOND).await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_empty_fleet_does_not_keep_the_state_of_its_last_host() {
    let script = Script::default();
    script.set_attempts(Step::Fails(Duration::ZERO));
    let (manager, events) = one_host(&script, multiplexed()).await;
    let mut changes = Changes { events, start: Instant::now() };
    sleep(100 * SECOND).await;
    assert_eq!(manager.health().state, Unavailable);
    manager.remove_host("h1").await.unwrap();
    let health = manager.health();
    assert_eq!((health.state, health.reason.as_str()), (Healthy, "no hosts"));
    assert_eq!(changes.of(None).last().map(|(_, to, _)| *to), Some(Healthy));
}

#[tokio::test(start_paused = true)]
async fn a_fleet_changes_with_its_hosts() {
    let scripts = Scripts::default();
    let manager = TransportManager::with_connector(multiplexed(), scripts.clone());
    let mut changes = Changes { events: manager.events(), start: Instant::now() };
    for id in ["h1", "h2", "h3", "h4"] {
        manager.add_host(HostInfo::new(id, "192.0.2.1")).await.unwrap();
    }
    let set = |ids: &[&str], step: Step| {
        for id in ids {
            scripts.of(id).set_attempts(step);
            if matches!(step, Step::Fails(_)) {
                scripts.of(id).cut();
            }
        }
    };
    sleep(11 * SECOND).await;
    set(&["h1"], Step::Fails(Duration::ZERO));
    sleep(30 * SECOND).await;
    set(&["h2", "h3"], Step::Fails(Duration::ZERO));
    sleep(30 * SECOND).await;
    set(&["h1", "h2", "h3"], Step::default());
    sleep(200 * SECOND).await;
    let changed = changes.of(None);
    let states: Vec<_> = changed.iter().map(|(_, to, _)| *to).collect();
    assert_eq!(states[..2], [Degraded, Unavailable], "{changed:?}");
    assert_eq!(states.last(), Some(&Healthy));
    assert_eq!(changed[0].2, "of 4 hosts 1 unavailable");
    assert_eq!(changed[1].2, "of 4 hosts 3 unavailable");
    assert!(states.len() <= 4, "{changed:?}");
}
