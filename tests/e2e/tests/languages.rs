//! Daemons that speak other languages than English: errors have the same kinds and effects.

use std::fmt::Write as _;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atp_e2e::{becomes, within};
use atp_protocol::exec::{self, ExecSpec};
use atp_protocol::{LibvirtCarrier, ProtocolError, RawCommand, agent, monitor};
use atp_testbed::{Guest, Host, Testbed};
use atp_transport::domain::Lifecycle;
use atp_transport::{ChannelOptions, HostInfo, LibvirtConnection, TransportError, TransportManager};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::support::{QUERY_STATUS, in_seconds};

/// The language of each host's daemon.
const LANGUAGES: [&str; 4] = ["C", "de", "ja", "ru"];
/// Time limit of the test.
const LIMIT: Duration = Duration::from_secs(900);
const CHANNEL: &str = "org.atp.test.channel";

/// A machine without an agent's channel, without a screen, and without anything to boot.
const BARE: &str = "<domain type='qemu'><name>bare</name><memory unit='MiB'>32</memory>
    <os><type arch='x86_64' machine='pc'>hvm</type></os><on_crash>destroy</on_crash></domain>";

/// As it is asked for, QEMU does not start.
const REFUSED: &str = "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
    <name>refused</name><memory unit='MiB'>32</memory><os><type arch='x86_64' machine='pc'>hvm</type></os>
    <qemu:commandline><qemu:arg value='-no-such-option'/></qemu:commandline></domain>";

/// A disk that is not there.
const DISKLESS: &str = "<domain type='qemu'><name>diskless</name><memory unit='MiB'>32</memory>
    <os><type arch='x86_64' machine='pc'>hvm</type></os><devices><disk type='file' device='disk'>
    <source file='/no/such/disk'/><target dev='vda' bus='virtio'/></disk></devices></domain>";

/// What is provoked, in this order, and what comes of it.
const EXPECTED: &[(&str, &str)] = &[
    ("an absent name", "vm-not-found none"),
    ("an absent UUID", "vm-not-found none"),
    ("a second start", "operation-invalid none"),
    ("a resume of one that runs", "operation-invalid none"),
    ("an absent channel", "libvirt-error unknown"),
    ("a channel that is open", "channel-in-use none"),
    ("an absent screen", "no-screen none"),
    ("an unknown command of the agent", "agent-command-unknown none"),
    ("an unknown command of the monitor", "qmp-error none"),
    ("a wrong argument for the agent", "guest-error none"),
    ("an absent program", "guest-exec-failed none"),
    ("an absent file", "guest-error none"),
    ("a reply over 4 MiB", "output-too-large done"),
    ("the agent of a VM without one", "agent-not-configured none"),
    ("the screen of a VM without one", "no-screen none"),
    ("a start that QEMU refuses", "libvirt-error none"),
    ("a start without the disk", "libvirt-error none"),
    ("the agent of a paused VM", "vm-not-running none"),
    ("a hung monitor", "call-timeout unknown"),
    ("a hung monitor, waited for", "monitor-busy none"),
    ("an agent that was not started", "agent-not-connected none"),
    ("a stopped agent", "call-timeout unknown"),
    // Its kind depends on which end the daemon sees first; a busy daemon sees that of QEMU before it takes the command to the agent.
    ("a QEMU that ends under an agent's command", "unknown|agent-not-connected none|vm-not-running none"),
    ("destroy, of one that is off", "vm-not-running unknown"),
    ("shutdown, of one that is off", "vm-not-running unknown"),
    ("reboot, of one that is off", "vm-not-running unknown"),
    ("reset, of one that is off", "vm-not-running none"),
    ("suspend, of one that is off", "vm-not-running none"),
    ("resume, of one that is off", "vm-not-running none"),
    ("the agent of one that is off", "vm-not-running none"),
    ("the monitor of one that is off", "vm-not-running none"),
    ("the screen of one that is off", "vm-not-running none"),
    ("a channel of one that is off", "vm-not-running none"),
];

/// One host, and what has come of the situations so far.
struct Client {
    manager: TransportManager,
    host: Host,
    found: Vec<(&'static str, String)>,
    messages: String,
}

impl Client {
    async fn new(host: Host) -> Self {
        let mut config = atp_e2e::config();
        // A command for a hung monitor is sent, to have libvirt's own error.
        config.calls.monitor_busy_after = Duration::from_secs(3600);
        let manager = TransportManager::new(config);
        manager.add_host(HostInfo::from_uri(host.id(), host.uri())).await.unwrap();
        Client { manager, host, found: Vec::new(), messages: String::new() }
    }

    fn note<T>(&mut self, situation: &'static str, result: Result<T, ProtocolError>) {
        let found = match result {
            Ok(_) => "no error".to_owned(),
            Err(error) => {
                let _written = writeln!(self.messages, "{situation}: {error:?}");
                format!("{} {}", error.kind(), error.effect())
            }
        };
        self.found.push((situation, found));
    }

    async fn on<T, E: From<TransportError>, F: Future<Output = Result<T, E>>>(
        &self,
        seconds: u64,
        work: impl FnOnce(LibvirtConnection) -> F,
    ) -> Result<T, E> {
        self.manager.execute_on_host_with(self.host.id(), in_seconds(seconds), work).await
    }

    async fn lifecycle(&mut self, situation: &'static str, uuid: Uuid, action: Lifecycle) {
        let done = self.on(60, async |on| Ok(on.domain_lifecycle(uuid, action).await?)).await;
        self.note(situation, done);
    }

    async fn agent(&mut self, situation: &'static str, uuid: Uuid, words: &[&str]) {
        let command = RawCommand::from_words(words.iter().copied()).unwrap();
        let done = self
            .on(60, async |on| {
                let deadline = Instant::now() + Duration::from_secs(50);
                agent::execute_raw(&LibvirtCarrier::new(on, uuid), &command, deadline).await
            })
            .await;
        self.note(situation, done);
    }

    async fn monitor(&mut self, situation: &'static str, uuid: Uuid, command: &str, seconds: u64) {
        let done = self.on(seconds, async |on| Ok(on.monitor_command(uuid, command).await?)).await;
        self.note(situation, done);
    }

    /// Sends commands until one is not answered.
    async fn until_silent(&mut self, situation: &'static str, uuid: Uuid) {
        let ping = RawCommand::from_words(["guest-ping"]).unwrap();
        let done: Result<(), ProtocolError> = self
            .on(120, async |on| {
                let carrier = LibvirtCarrier::new(on, uuid);
                loop {
                    // An agent that stops between its synchronisation and the command has the daemon wait without limit, and
                    // every later command with it: pings that follow each other at once would nearly always meet that.
                    sleep(Duration::from_millis(500)).await;
                    agent::execute_raw(&carrier, &ping, Instant::now() + Duration::from_secs(60)).await?;
                }
            })
            .await;
        self.note(situation, done);
    }

    async fn absent(&mut self) {
        let done = self.on(60, async |on| Ok(on.domain_by_name("no-such-vm").await?)).await;
        self.note("an absent name", done);
        let done = self.on(60, async |on| Ok(on.domain_info(Uuid::from_u128(7)).await?)).await;
        self.note("an absent UUID", done);
    }

    async fn running(&mut self, uuid: Uuid) {
        self.lifecycle("a second start", uuid, Lifecycle::Start).await;
        self.lifecycle("a resume of one that runs", uuid, Lifecycle::Resume).await;
        let open = async |client: &Client, name| {
            let (host, options) = (client.host.id(), ChannelOptions::default());
            let deadline = Instant::now() + Duration::from_secs(60);
            Ok(client.manager.open_channel(host, uuid, name, &options, deadline).await?)
        };
        let absent = open(self, "org.atp.test.absent").await;
        self.note("an absent channel", absent);
        let first = open(self, CHANNEL).await;
        let second = open(self, CHANNEL).await;
        assert!(first.is_ok(), "{first:?}", first = first.as_ref().err());
        self.note("a channel that is open", second);
        drop(first);
        let done = self.on(60, async |on| Ok(on.screenshot(uuid, 9, 1000).await?)).await;
        self.note("an absent screen", done);
    }

    async fn refused_by_the_guest(&mut self, uuid: Uuid) {
        self.agent("an unknown command of the agent", uuid, &["guest-no-such-command"]).await;
        let command = RawCommand::from_words(["no-such-command"]).unwrap();
        let done = self
            .on(60, async |on| {
                let deadline = Instant::now() + Duration::from_secs(50);
                monitor::execute_raw(&LibvirtCarrier::new(on, uuid), &command, deadline).await
            })
            .await;
        self.note("an unknown command of the monitor", done);
        self.agent("a wrong argument for the agent", uuid, &["guest-exec-status", "pid=1234567"]).await;
        let done = self
            .on(60, async |on| {
                let deadline = Instant::now() + Duration::from_secs(50);
                exec::run(&LibvirtCarrier::new(on, uuid), &ExecSpec::new("/no/such/program"), deadline).await
            })
            .await;
        self.note("an absent program", done);
        self.agent("an absent file", uuid, &["guest-file-open", "path=/no/such/file"]).await;
        let done = self
            .on(60, async |on| {
                let carrier = LibvirtCarrier::new(on, uuid);
                let deadline = Instant::now() + Duration::from_secs(50);
                let open = RawCommand::from_words(["guest-file-open", "path=/dev/zero"]).unwrap();
                let handle = agent::execute_raw(&carrier, &open, deadline).await?;
                let words =
                    ["guest-file-read".to_owned(), format!("handle={handle}"), "count=4000000".to_owned()];
                agent::execute_raw(&carrier, &RawCommand::from_words(words).unwrap(), deadline).await
            })
            .await;
        self.note("a reply over 4 MiB", done);
    }

    async fn others(&mut self, folder: &Path) {
        let define = |name: &str, xml: &str| -> Uuid {
            let path = folder.join(format!("{}-{name}.xml", self.host.id()));
            fs::write(&path, xml).unwrap();
            self.host.virsh(&["define", path.to_str().unwrap()]).unwrap();
            self.host.virsh(&["domuuid", name]).unwrap().trim().parse().unwrap()
        };
        let (bare, refused) = (define("bare", BARE), define("refused", REFUSED));
        let diskless = define("diskless", DISKLESS);
        let started: Result<(), TransportError> =
            self.on(60, async |on| on.domain_lifecycle(bare, Lifecycle::Start).await).await;
        started.unwrap();
        self.agent("the agent of a VM without one", bare, &["guest-ping"]).await;
        let done = self.on(60, async |on| Ok(on.screenshot(bare, 0, 1000).await?)).await;
        self.note("the screen of a VM without one", done);
        self.lifecycle("a start that QEMU refuses", refused, Lifecycle::Start).await;
        self.lifecycle("a start without the disk", diskless, Lifecycle::Start).await;
    }

    async fn paused(&mut self, uuid: Uuid) {
        let act = async |client: &Client, action| {
            let done: Result<(), TransportError> =
                client.on(60, async |on| on.domain_lifecycle(uuid, action).await).await;
            done.unwrap();
        };
        act(self, Lifecycle::Suspend).await;
        self.agent("the agent of a paused VM", uuid, &["guest-ping"]).await;
        act(self, Lifecycle::Resume).await;
    }

    /// The second command waits for 30 s until libvirt gives up; so the first must hang for longer.
    async fn hung(&mut self, guest: &Guest, uuid: Uuid) {
        guest.pause_qemu().unwrap();
        let mut other = Client::new(self.host.clone()).await;
        let (first, second) = ("a hung monitor", "a hung monitor, waited for");
        tokio::join!(
            self.monitor(first, uuid, QUERY_STATUS, 45),
            other.monitor(second, uuid, QUERY_STATUS, 55),
        );
        self.found.append(&mut other.found);
        self.messages.push_str(&other.messages);
        guest.resume_qemu().unwrap();
    }

    async fn agents(&mut self, guest: &Guest, uuid: Uuid) {
        guest.wait_agent(Duration::from_secs(100)).unwrap();
        guest.stop_agent().unwrap();
        becomes("the agent's channel", Duration::from_secs(60), true, || {
            self.host.virsh(&["dumpxml", guest.uuid()]).unwrap().contains("state='disconnected'")
        });
        let command = r#"{"execute":"guest-ping"}"#;
        let done = self.on(60, async |on| Ok(on.agent_command(uuid, command).await?)).await;
        self.note("an agent that was not started", done);

        guest.start_agent().unwrap();
        guest.wait_agent(Duration::from_secs(100)).unwrap();
        self.halt_agent(uuid).await;
        self.until_silent("a stopped agent", uuid).await;

        let done = loop {
            let (sent, was_sent) = tokio::sync::oneshot::channel();
            let call = self.on(60, async |on| {
                let sent = || sent.send(()).unwrap();
                Ok(on.agent_command_with(uuid, command, sent).await?)
            });
            let end = async {
                let is_sent = was_sent.await.is_ok();
                if is_sent {
                    // By its answer the daemon has the command, too; a worker may take it up after the end of QEMU.
                    guest.state().unwrap();
                    guest.kill_qemu().unwrap();
                }
                is_sent
            };
            let (done, is_sent) = tokio::join!(call, end);
            if is_sent && done.is_err() {
                break done;
            }
            // The daemon still waits for the stopped agent, and takes no other command for it; or the agent was stopped after it
            // had answered, and QEMU has ended.
            let _may_be_off = guest.destroy();
            becomes("the guest", Duration::from_secs(60), "shut off".to_owned(), || guest.state().unwrap());
            guest.start().unwrap();
            guest.wait_agent(Duration::from_secs(100)).unwrap();
            self.halt_agent(uuid).await;
        };
        self.note("a QEMU that ends under an agent's command", done);
    }

    /// Stops the process of the agent, which stays connected.
    async fn halt_agent(&mut self, uuid: Uuid) {
        let started = self
            .on(60, async |on| {
                let stop = ExecSpec { shell: true, ..ExecSpec::new("kill -STOP $(pidof qemu-ga)") };
                exec::start(&LibvirtCarrier::new(on, uuid), &stop, Instant::now() + Duration::from_secs(50))
                    .await
            })
            .await;
        drop(started);
    }

    async fn off(&mut self, guest: &Guest, uuid: Uuid) {
        becomes("the guest", Duration::from_secs(60), "shut off".to_owned(), || guest.state().unwrap());
        for (situation, action) in [
            ("destroy, of one that is off", Lifecycle::Destroy),
            ("shutdown, of one that is off", Lifecycle::Shutdown),
            ("reboot, of one that is off", Lifecycle::Reboot),
            ("reset, of one that is off", Lifecycle::Reset),
            ("suspend, of one that is off", Lifecycle::Suspend),
            ("resume, of one that is off", Lifecycle::Resume),
        ] {
            self.lifecycle(situation, uuid, action).await;
        }
        self.agent("the agent of one that is off", uuid, &["guest-ping"]).await;
        self.monitor("the monitor of one that is off", uuid, QUERY_STATUS, 60).await;
        let done = self.on(60, async |on| Ok(on.screenshot(uuid, 0, 1000).await?)).await;
        self.note("the screen of one that is off", done);
        let deadline = Instant::now() + Duration::from_secs(60);
        let options = ChannelOptions::default();
        let opened = self.manager.open_channel(self.host.id(), uuid, CHANNEL, &options, deadline).await;
        self.note("a channel of one that is off", opened.map_err(ProtocolError::from));
    }
}

async fn provoke_all(host: Host, folder: PathBuf) -> Client {
    let guest = host.guest("vm1").unwrap();
    let uuid = guest.uuid().parse().unwrap();
    let mut client = Client::new(host).await;
    client.absent().await;
    client.running(uuid).await;
    client.refused_by_the_guest(uuid).await;
    client.others(&folder).await;
    client.paused(uuid).await;
    client.hung(&guest, uuid).await;
    client.agents(&guest, uuid).await;
    client.off(&guest, uuid).await;
    client
}

#[test]
fn errors_of_daemons_in_any_language_have_the_same_kinds_and_effects() {
    let bed = Testbed::builder().hosts(4).guests(1).languages(&LANGUAGES).start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let clients: Vec<_> = within(LIMIT, async {
        let hosts = bed.hosts().iter();
        let tasks = hosts.map(|host| tokio::spawn(provoke_all(host.clone(), folder.path().to_owned())));
        join_all(tasks).await.into_iter().map(|client| client.unwrap()).collect()
    });
    for (client, language) in clients.iter().zip(LANGUAGES) {
        let is_expected = |(found, expected): (&(&str, String), &(&str, &str))| {
            found.0 == expected.0 && expected.1.split('|').any(|one| found.1.ends_with(one))
        };
        assert!(
            client.found.len() == EXPECTED.len() && client.found.iter().zip(EXPECTED).all(is_expected),
            "{language}: {:#?}\n{}",
            client.found,
            client.messages
        );
    }
    // Otherwise they all speak English, and the test shows nothing.
    for (client, words) in clients.iter().zip(["Domain not found", "nicht gefunden", "ドメイン", "домен"])
    {
        assert!(client.messages.contains(words), "{words}:\n{}", client.messages);
    }
}
