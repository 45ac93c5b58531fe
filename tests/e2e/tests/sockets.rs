//! QEMU and its guest's agent by their own sockets, without libvirt.

use std::time::Duration;

use atp_e2e::within;
use atp_protocol::socket::{MonitorNotice, SocketCarrier, SocketConfig, SocketConnection, SocketConnector};
use atp_protocol::{
    CapabilityCache, ExecSpec, Origin, ProtocolError, RawCommand, Support, agent, exec, monitor,
};
use atp_testbed::Qemu;
use atp_transport::{Effect, ErrorKind, ExecuteOptions, HostInfo, TransportConfig, TransportManager};
use qapi::qmp;
use serde_json::{Value, json};
use tokio::time::Instant;

/// Time limit of each test.
const LIMIT: Duration = Duration::from_secs(480);
/// Time limit for changes that happen soon; the machine may be busy.
const SOON: Duration = Duration::from_secs(90);
/// Time limit for the boot of an emulated guest.
const BOOT: Duration = Duration::from_secs(120);
/// A deadline that the test lets pass.
const SHORT: Duration = Duration::from_secs(2);

type Sockets = TransportManager<SocketConnector>;

/// The sockets of a QEMU: `qmp`, `tcp` (its second monitor) and `qga`.
async fn sockets(qemu: &Qemu) -> Sockets {
    let mut config = TransportConfig { connect_timeout: Duration::from_secs(5), ..atp_e2e::config() };
    config.reconnect.initial_delay = Duration::from_millis(100);
    config.reconnect.max_delay = Duration::from_millis(500);
    config.reconnect.max_attempts = 0;
    config.pool.min_connections_per_host = 0;
    // The circuit breaker of a host whose calls fail is tested elsewhere.
    config.breaker.enabled = false;
    let manager = TransportManager::with_connector(config, SocketConnector::new(SocketConfig::default()));
    for (id, uri) in [
        ("qmp", format!("qmp+unix://{}", qemu.monitor().display())),
        ("tcp", format!("qmp+tcp://127.0.0.1:{}", qemu.monitor_port())),
        ("qga", format!("qga+unix://{}", qemu.agent().display())),
    ] {
        manager.add_host(HostInfo::from_uri(id, uri)).await.unwrap();
    }
    manager
}

async fn qmp(manager: &Sockets, id: &str, words: &[&str], limit: Duration) -> Result<Value, ProtocolError> {
    let deadline = Instant::now() + limit;
    let command = RawCommand::from_words(words).unwrap();
    let work = |connection: SocketConnection| async move {
        monitor::execute_raw(&SocketCarrier::new(&connection), &command, deadline).await
    };
    manager.execute_on_host_with(id, ExecuteOptions::by(deadline), work).await
}

async fn run(manager: &Sockets, spec: ExecSpec, limit: Duration) -> Result<Vec<u8>, ProtocolError> {
    let deadline = Instant::now() + limit;
    let work = |connection: SocketConnection| async move {
        exec::run(&SocketCarrier::new(&connection), &spec, deadline).await
    };
    Ok(manager.execute_on_host_with("qga", ExecuteOptions::by(deadline), work).await?.stdout)
}

/// Checks that QEMU is gone. A call right after the kill may still find its link open and notice only then that it is
/// not read; and its time may run out before a new attempt to connect.
async fn is_refused(call: impl AsyncFn() -> Result<(), ProtocolError>) {
    let start = Instant::now();
    let error = loop {
        let error = call().await.unwrap_err();
        match error.kind() {
            ErrorKind::ConnectionLost | ErrorKind::ConnectTimeout if start.elapsed() < SOON => {}
            _ => break error,
        }
    };
    assert_eq!((error.kind().as_str(), error.effect()), ("connection-refused", Effect::None), "{error}");
}

#[test]
fn a_monitor_without_libvirt_answers_hangs_comes_back_and_dies_with_a_reason() {
    let mut qemu = Qemu::empty().unwrap();
    within(LIMIT, async {
        let manager = sockets(&qemu).await;
        for id in ["qmp", "tcp"] {
            let work = |connection: SocketConnection| async move {
                let (carrier, deadline) = (SocketCarrier::new(&connection), Instant::now() + SOON);
                let version = monitor::execute(&carrier, &qmp::query_version {}, deadline).await?;
                let mut events = carrier.events(deadline).await?;
                monitor::execute(&carrier, &qmp::stop {}, deadline).await?;
                monitor::execute(&carrier, &qmp::cont {}, deadline).await?;
                let status = monitor::execute(&carrier, &qmp::query_status {}, deadline).await?;
                let mut names = Vec::new();
                while names.len() < 2 {
                    if let Ok(MonitorNotice::Event(event)) = events.next().await {
                        names.push(event.name);
                    }
                }
                Ok::<_, ProtocolError>((version.qemu.major, status.running, names))
            };
            let (major, running, names) = manager.execute_on_host(id, work).await.unwrap();
            assert!(major >= 5 && running, "QEMU {major}");
            assert_eq!(names, ["STOP", "RESUME"], "{id}");
        }
        let error = qmp(&manager, "qmp", &["no-such-command"], SOON).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("qmp-error", Effect::None), "{error}");

        qemu.pause().unwrap();
        let error = qmp(&manager, "qmp", &["query-name"], SHORT).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("call-timeout", Effect::Unknown), "{error}");
        let error = qmp(&manager, "qmp", &["query-name"], SHORT).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("connect-timeout", Effect::None), "{error}");
        qemu.resume().unwrap();
        assert_eq!(qmp(&manager, "qmp", &["query-name"], SOON).await.unwrap(), json!({}));

        qemu.kill().unwrap();
        is_refused(async || qmp(&manager, "qmp", &["query-name"], SHORT).await.map(drop)).await;
        qemu.power_on().unwrap();
        assert_eq!(qmp(&manager, "qmp", &["query-name"], SOON).await.unwrap(), json!({}));
        manager.close(SOON).await;
    });
}

/// Configures the guest's agent to forbid a command, and checks the reported reason.
async fn forbids_a_command(manager: &Sockets) {
    let cache = CapabilityCache::new();
    let get_time = async |limit: Duration| {
        let cache = &cache;
        let work = |connection: SocketConnection| async move {
            let (carrier, deadline) = (SocketCarrier::new(&connection), Instant::now() + limit);
            match agent::execute(&carrier, &qapi::qga::guest_get_time {}, deadline).await {
                Ok(time) => Ok(time),
                Err(error) => Err(cache.explain(&"guest", &carrier, error, deadline).await),
            }
        };
        manager.execute_on_host("qga", work).await
    };
    assert!(get_time(SOON).await.unwrap() > 0);
    assert_eq!(cache.get(&"guest"), None);

    let line =
        "mkdir -p /etc/qemu; printf '[general]\\nblock-rpcs=guest-get-time\\n' >/etc/qemu/qemu-ga.conf";
    run(manager, ExecSpec::shell(line), SOON).await.unwrap();
    // The agent is restarted by this command, and the wait for its answer is short. It does not matter here whether
    // the agent reports its end before that.
    let patience = 2 * SHORT;
    let _told = run(manager, ExecSpec::new("killall").arg("qemu-ga"), patience).await;
    let start = Instant::now();
    let error = loop {
        match get_time(patience).await {
            // Explained, if there was time for that.
            Err(error) if error.kind() == "agent-command-disabled" && cache.get(&"guest").is_some() => {
                break error;
            }
            other => assert!(start.elapsed() < SOON, "the agent was not restarted: {other:?}"),
        }
    };
    assert_eq!((error.origin(), error.effect()), (Origin::Guest, Effect::None), "{error}");
    assert_eq!(cache.get(&"guest").unwrap().support("guest-get-time"), Support::Disabled);
    assert!(error.to_string().contains("has it disabled, by block-rpcs"), "{error}");
}

#[test]
fn an_agent_without_libvirt_runs_programs_hangs_and_comes_back_in_step() {
    let mut qemu = Qemu::boot().unwrap();
    within(LIMIT, async {
        let manager = sockets(&qemu).await;
        let error = run(&manager, ExecSpec::new("true"), Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(error.effect(), Effect::None, "while it boots: {error}");
        // Waits for the boot: the channel keeps the data until the agent opens it.
        let release = run(&manager, ExecSpec::new("uname").arg("-s"), BOOT).await.unwrap();
        assert_eq!(release, b"Linux\n");

        let work = |connection: SocketConnection| async move {
            let (carrier, deadline) = (SocketCarrier::new(&connection), Instant::now() + SOON);
            let info = agent::execute(&carrier, &qapi::qga::guest_info {}, deadline).await?;
            let command = RawCommand::from_words(["guest-nope"]).unwrap();
            let error = agent::execute_raw(&carrier, &command, deadline).await.unwrap_err();
            assert_eq!(error.kind(), "agent-command-unknown", "{error}");
            Ok::<_, ProtocolError>(info.supported_commands.len())
        };
        assert!(manager.execute_on_host("qga", work).await.unwrap() > 20);
        forbids_a_command(&manager).await;
        let big = "head -c 3000000 /dev/zero | tr '\\0' x";
        assert_eq!(run(&manager, ExecSpec::shell(big), SOON).await.unwrap().len(), 3_000_000);

        // It answers when it is resumed. This answer is dropped, since the next command synchronises first.
        qemu.pause().unwrap();
        let error = run(&manager, ExecSpec::new("true"), SHORT).await.unwrap_err();
        assert_eq!(error.effect(), Effect::Unknown, "{error}");
        qemu.resume().unwrap();
        for number in 0..5 {
            let echo = ExecSpec::new("echo").arg(number.to_string());
            assert_eq!(run(&manager, echo, SOON).await.unwrap(), format!("{number}\n").as_bytes());
        }

        qemu.kill().unwrap();
        is_refused(async || run(&manager, ExecSpec::new("true"), SHORT).await.map(drop)).await;
        qemu.power_on().unwrap();
        assert_eq!(run(&manager, ExecSpec::new("uname"), BOOT).await.unwrap(), b"Linux\n");
        manager.close(SOON).await;
    });
}
