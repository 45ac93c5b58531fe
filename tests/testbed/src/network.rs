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

/// Where `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";

/// `ip` and `iptables` only talk to the kernel, which takes milliseconds on a machine that is not busy.
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

    /// Whether the machine has a use of its own for the addresses or names of this bed.
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

    /// Makes the bridge. Fails if there is one of that name.
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

    /// The namespaces of this bed that are there.
    pub(crate) fn namespaces(self) -> Vec<PathBuf> {
        let prefix = format!("{}-", self.bridge());
        let Ok(entries) = fs::read_dir(NAMESPACES) else { return Vec::new() };
        let entries = entries.filter_map(|entry| Some(entry.ok()?.path()));
        entries
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
            .collect()
    }

    /// Removes the namespaces, the links with them, and the bridge, as far as they are there.
    pub(crate) fn remove(self) -> Result<()> {
        for namespace in self.namespaces() {
            let name = namespace.file_name().unwrap_or_default();
            run(Command::new("ip").args(["netns", "delete"]).arg(name), DEADLINE)?;
        }
        let bridge = self.bridge();
        let links = Path::new("/sys/class/net");
        // Deleting a namespace takes its end of a link down some time later, so each is deleted by name.
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

    /// Also the beginning of every other name, so that names tell whose they are. At most 15 bytes with a host's.
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
    /// Makes the namespace and its link to the bridge.
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

    /// Takes the machine's end of the link down: the host sees its carrier go.
    pub(crate) fn link_down(self) -> Result<()> {
        run(Command::new("ip").args(["link", "set", &self.name(), "down"]), DEADLINE).map(drop)
    }

    pub(crate) fn link_up(self) -> Result<()> {
        run(Command::new("ip").args(["link", "set", &self.name(), "up"]), DEADLINE).map(drop)
    }

    /// Nothing goes in or out any more, and nobody is told.
    pub(crate) fn drop_packets(self) -> Result<()> {
        self.accept_packets()?;
        self.iptables("-A INPUT -i eth0 -j DROP")?;
        self.iptables("-A OUTPUT -o eth0 -j DROP")
    }

    /// Every TCP packet that arrives is answered with a reset.
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
        // -w: libvirtd may be looking at the tables as well.
        run(self.command("iptables").arg("-w").args(arguments.split(' ')), DEADLINE).map(drop)
    }

    /// Names both the namespace and the machine's end of the link.
    fn name(self) -> String {
        format!("{}-h{}", self.network.bridge(), self.number)
    }
}

fn ip_batch(options: &[&str], commands: &str) -> Result<()> {
    run_with_input(Command::new("ip").args(options).args(["-batch", "-"]), commands, DEADLINE).map(drop)
}
