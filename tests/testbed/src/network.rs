//! The network of a bed in root mode: one bridge, and for each host a network namespace with a link to it.
//!
//! ```text
//!  the machine ── atp7 (bridge, 10.231.7.1) ─┬─ atp7-h1 ══ eth0 (10.231.7.11) in namespace atp7-h1
//!                                            └─ atp7-h2 ══ eth0 (10.231.7.12) in namespace atp7-h2
//! ```

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command::{run, run_with_input};
use crate::error::{Error, Result};

/// The folder in which `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";

/// `ip` and `iptables` only talk to the kernel, which takes milliseconds on an idle machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The network of one bed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network {
    bed: u8,
}

impl Network {
    pub(crate) fn new(bed: u8) -> Self {
        Self { bed }
    }

    /// Whether the machine already uses the addresses or names of this bed.
    pub(crate) fn is_taken(self) -> Result<bool> {
        let routes = run(
            Command::new("ip").args([
                "-4",
                "route",
                "show",
                "table",
                "all",
                "root",
                &format!("{}/24", self.address(0)),
            ]),
            DEADLINE,
        )?;
        let bridge = Path::new("/sys/class/net").join(self.bridge());
        Ok(!routes.trim().is_empty() || bridge.exists() || !self.namespaces().is_empty())
    }

    /// Creates the bridge. Fails if one with this name exists.
    pub(crate) fn create(self) -> Result<()> {
        let bridge = self.bridge();
        let address = self.address(1);
        ip_batch(
            &[],
            &format!(
                "link add {bridge} type bridge\n\
                 address add {address}/24 dev {bridge}\n\
                 link set {bridge} up\n"
            ),
        )
    }

    /// The network of the host with this number, counted from 1.
    pub(crate) fn host(self, number: u8) -> HostNetwork {
        HostNetwork { network: self, number }
    }

    /// The existing namespaces of this bed.
    pub(crate) fn namespaces(self) -> Vec<PathBuf> {
        let prefix = format!("{}-", self.bridge());
        let Ok(entries) = fs::read_dir(NAMESPACES) else { return Vec::new() };
        let entries = entries.filter_map(|entry| Some(entry.ok()?.path()));
        entries
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
            .collect()
    }

    /// Removes the namespaces, their links, and the bridge, as far as they exist.
    pub(crate) fn remove(self) -> Result<()> {
        for namespace in self.namespaces() {
            let name = namespace.file_name().unwrap_or_default();
            run(Command::new("ip").args(["netns", "delete"]).arg(name), DEADLINE)?;
        }
        let bridge = self.bridge();
        let links = Path::new("/sys/class/net");
        // Deleting a namespace removes its end of a link only some time later, so each link is deleted by name.
        let names: Vec<String> = fs::read_dir(links)
            .map_err(Error::io("reading /sys/class/net"))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| {
                *name == bridge || name.strip_prefix(&bridge).is_some_and(|rest| rest.starts_with('-'))
            })
            .collect();
        for name in names {
            match run(Command::new("ip").args(["link", "delete", &name]), DEADLINE) {
                Err(error) if links.join(&name).exists() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The name of the bridge, which is also the prefix of all other names, so that a name shows its bed. At most 15
    /// bytes with the host's part.
    fn bridge(self) -> String {
        format!("atp{}", self.bed)
    }

    fn address(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 231, self.bed, last)
    }
}

/// The network of one host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostNetwork {
    network: Network,
    number: u8,
}

impl HostNetwork {
    /// Creates the namespace and its link to the bridge.
    pub(crate) fn create(self) -> Result<()> {
        let (name, bridge) = (self.name(), self.network.bridge());
        run(Command::new("ip").args(["netns", "add", &name]), DEADLINE)?;
        ip_batch(
            &[],
            &format!(
                "link add {name} type veth peer name eth0 netns {name}\n\
                 link set {name} master {bridge} up\n"
            ),
        )?;
        let address = self.address();
        ip_batch(
            &["-netns", &name],
            &format!(
                "address add {address}/24 dev eth0\n\
                 link set lo up\n\
                 link set eth0 up\n"
            ),
        )
    }

    pub(crate) fn address(self) -> Ipv4Addr {
        self.network.address(10 + self.number)
    }

    pub(crate) fn namespace(self) -> PathBuf {
        Path::new(NAMESPACES).join(self.name())
    }

    /// A command that runs inside the namespace.
    pub(crate) fn command(self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(), program]);
        command
    }

    /// Takes the machine's end of the link down: the host loses its carrier.
    pub(crate) fn link_down(self) -> Result<()> {
        run(Command::new("ip").args(["link", "set", &self.name(), "down"]), DEADLINE).map(drop)
    }

    pub(crate) fn link_up(self) -> Result<()> {
        run(Command::new("ip").args(["link", "set", &self.name(), "up"]), DEADLINE).map(drop)
    }

    /// Drops all packets in both directions, without notice to the sender.
    pub(crate) fn drop_packets(self) -> Result<()> {
        self.accept_packets()?;
        self.iptables("-A INPUT -i eth0 -j DROP")?;
        self.iptables("-A OUTPUT -o eth0 -j DROP")
    }

    /// Answers every incoming TCP packet with a reset.
    pub(crate) fn reject_packets(self) -> Result<()> {
        self.accept_packets()?;
        self.iptables("-A INPUT -i eth0 -p tcp -j REJECT --reject-with tcp-reset")
    }

    /// Undoes both.
    pub(crate) fn accept_packets(self) -> Result<()> {
        self.iptables("-F INPUT")?;
        self.iptables("-F OUTPUT")
    }

    fn iptables(self, arguments: &str) -> Result<()> {
        // -w waits for the lock of the tables: libvirtd may be using them too.
        run(self.command("iptables").arg("-w").args(arguments.split(' ')), DEADLINE).map(drop)
    }

    /// The name of both the namespace and the machine's end of the link.
    fn name(self) -> String {
        format!("{}-h{}", self.network.bridge(), self.number)
    }
}

fn ip_batch(options: &[&str], commands: &str) -> Result<()> {
    run_with_input(Command::new("ip").args(options).args(["-batch", "-"]), commands, DEADLINE).map(drop)
}
