//! Both engines are asked the same, and answer the same: values, errors with their numbers, effects and hints.

use std::net::IpAddr;
use std::time::Duration;

use atp_e2e::{Bed, bed, within};
use atp_testbed::{Guest, Host};
use atp_transport::domain::DomainInfo;
use atp_transport::{
    ChannelOptions, Engine, HostInfo, LibvirtConnection, Result, TransportConfig, TransportManager,
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::{QUERY_STATUS, in_seconds, quick};

/// Time limit of each test.
const LIMIT: Duration = Duration::from_secs(400);
const CHANNEL: &str = "org.atp.test.channel";
/// The id of the host of each engine.
const ID: &str = "h";
/// An engine and a host of its own: what one engine does is not seen by the other, and the hosts are alike.
struct Side {
    engine: Engine,
    host: Host,
}

fn sides(bed: &Bed) -> [Side; 2] {
    [(Engine::Native, "h1"), (Engine::Library, "h2")]
        .map(|(engine, id)| Side { engine, host: bed.host(id).unwrap() })
}

impl Side {
    fn guest(&self, name: &str) -> Guest {
        self.host.guest(name).unwrap()
    }

    /// A manager without connections, whose host has this URI.
    async fn manager(&self, uri: String) -> TransportManager {
        let mut config = TransportConfig { engine: self.engine, ..quick() };
        config.pool.min_connections_per_host = 0;
        config.reconnect.max_attempts = 1;
        config.retry.max_tries = 1;
        let manager = TransportManager::new(config);
        manager.add_host(HostInfo::from_uri(ID, uri)).await.unwrap();
        manager
    }
}

/// Text without what differs by nature: UUIDs, addresses and times.
fn masked(text: &str) -> String {
    let is_delimiter = |c: char| !(c.is_alphanumeric() || c == '-' || c == '.');
    let word = |piece: &str| {
        let end = piece.trim_end_matches(|c| is_delimiter(c) || c == '.');
        let number = end.trim_end_matches(|c: char| c.is_alphabetic());
        let is_time = number != end && number.parse::<f64>().is_ok();
        let mask = match end {
            _ if end.parse::<Uuid>().is_ok() => "UUID",
            _ if end.parse::<IpAddr>().is_ok() => "ADDRESS",
            _ if is_time => "TIME",
            "h1" | "h2" | "h1.atp.test" | "h2.atp.test" => "HOST",
            same => same,
        };
        format!("{mask}{}", &piece[end.len()..])
    };
    text.split_inclusive(is_delimiter).map(word).collect()
}

/// All that a caller can learn from a result.
fn told<T: std::fmt::Debug>(question: &str, result: Result<T>) -> String {
    let answer = match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => {
            let libvirt =
                error.libvirt().map(|error| (error.code, error.domain, error.level, &error.message));
            format!(
                "{error}\n  {} {} retryable={} {libvirt:?}\n  hint: {}",
                error.kind(),
                error.effect(),
                error.is_retryable(),
                error.hint()
            )
        }
    };
    masked(&format!("{question}: {answer}"))
}

/// Fails the test if the engines differ in anything, and then shows all of it.
#[track_caller]
fn are_same(situation: &str, [native, library]: [Vec<String>; 2]) {
    assert!(!native.is_empty());
    let differences: Vec<_> =
        native.iter().zip(&library).filter(|(native, library)| native != library).collect();
    assert!(
        differences.is_empty() && native.len() == library.len(),
        "{situation}: native, library: {differences:#?}"
    );
}

/// Asks everything that changes nothing, of one VM.
async fn questions(manager: &TransportManager, vm: Uuid, name: &'static str, seconds: u64) -> Vec<String> {
    let mut answers = Vec::new();
    macro_rules! ask {
        ($($question:literal => |$connection:ident| $asked:expr;)*) => {$(
            let work = |$connection: LibvirtConnection| async move { $asked };
            answers.push(told($question, manager.execute_on_host_with(ID, in_seconds(seconds), work).await));
        )*};
    }
    // The daemon lists them in an order of its own.
    let listed = |mut domains: Vec<DomainInfo>| {
        domains.sort_by(|a, b| a.name.cmp(&b.name));
        domains.into_iter().map(without_id).collect::<Vec<_>>()
    };
    ask! {
        "version" => |c| c.lib_version().await;
        "hypervisor" => |c| c.hypervisor().await;
        "host name" => |c| c.hostname().await;
        "machine" => |c| c.machine().await;
        "list" => |c| c.list_domains().await.map(listed);
        "states" => |c| c.list_domain_states().await.map(listed);
        "by name" => |c| c.domain_by_name(name).await.map(without_id);
        "by a name with NUL" => |c| c.domain_by_name("a\0b").await.map(without_id);
        "info" => |c| c.domain_info(vm).await.map(without_id);
        "details" => |c| c.domain_details(vm).await.map(|details| (without_id(details.info), details.persistent,
            details.autostart, details.agent, details.title, details.graphics));
        "processor time" => |c| c.domain_cpu_time(vm).await.map(|time| time.is_zero());
        "labels" => |c| c.domain_labels(vec![vm]).await;
        "monitor is free" => |c| c.monitor_is_free(vm).await;
        "monitor" => |c| c.monitor_command(vm, QUERY_STATUS).await;
        "unknown monitor command" => |c| c.monitor_command(vm, r#"{"execute":"none"}"#).await;
        "monitor command without JSON" => |c| c.monitor_command(vm, "{").await;
        "monitor command with NUL" => |c| c.monitor_command(vm, "\0").await;
        "agent" => |c| c.agent_command(vm, r#"{"execute":"guest-ping"}"#).await;
        "unknown agent command" => |c| c.agent_command(vm, r#"{"execute":"none"}"#).await;
        "agent command without JSON" => |c| c.agent_command(vm, "{").await;
        "screenshot" => |c| c.screenshot(vm, 0, 1 << 24).await.map(|it| (it.mime, it.bytes.is_empty(), it.complete));
        "part of a screenshot" => |c| c.screenshot(vm, 0, 700).await.map(|it| (it.bytes.len(), it.complete));
        "no such screen" => |c| c.screenshot(vm, 7, 1 << 24).await.map(|it| it.mime);
    }
    let options = ChannelOptions::default();
    for (question, channel) in
        [("channel", CHANNEL), ("no such channel", "none"), ("NUL in a channel", "a\0b")]
    {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let opened = manager.open_channel(ID, vm, channel, &options, deadline).await;
        answers.push(told(question, opened.map(drop)));
    }
    answers
}

fn without_id(info: DomainInfo) -> DomainInfo {
    DomainInfo { id: info.id.map(|_| 0), ..info }
}

/// Puts the hosts of both engines into a situation and asks all questions, of a VM with this name.
fn compare(situation: &str, name: &'static str, prepare: impl Fn(&Side), seconds: u64) {
    let bed = bed();
    let sides = sides(&bed);
    sides.iter().for_each(prepare);
    let [native, library] = sides.each_ref().map(|side| async {
        let vm = side.host.guest(name).map_or(Uuid::nil(), |guest| guest.uuid().parse().unwrap());
        questions(&side.manager(side.host.uri()).await, vm, name, seconds).await
    });
    within(LIMIT, async { are_same(situation, tokio::join!(native, library).into()) });
}

#[test]
fn engines_answer_the_same_if_qemu_or_the_daemon_is_gone_or_hangs() {
    compare("QEMU hangs", "vm1", |side| side.guest("vm1").pause_qemu().unwrap(), 4);
    compare("the daemon is killed", "vm1", |side| side.host.kill_daemon().unwrap(), 60);
    compare("the daemon hangs", "vm1", |side| side.host.pause_daemon().unwrap(), 4);
}
