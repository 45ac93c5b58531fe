//! `atp vm info`.

use atp_executor::{Data, GuestReport, Operation, Outcome, VmReport};
use atp_transport::domain::{AgentChannel, Graphics, Listener};
use clap::Args;

use crate::args::TargetArgs;
use crate::batch::Batch;
use crate::context::Context;
use crate::dry_run;
use crate::problem::Failure;
use crate::render::table::{number, size};
use crate::render::{Forms, name_of};
use crate::terminal::{self, HEADING, styled};
use crate::verbs::verb::Run;

const EXAMPLES: &str = "\
Examples:
  atp vm info web-1
  atp vm info 'node7/*' -o jsonl";

/// Show everything known about VMs, including the guest agent's channel
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    targets: TargetArgs,
}

/// The columns of CSV.
const COLUMNS: &[&str] = &[
    "state",
    "id",
    "vcpus",
    "memory_kib",
    "max_memory_kib",
    "persistent",
    "autostart",
    "agent",
    "title",
    "guest",
    "guest_error",
];

impl Run for InfoArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        Ok(Batch {
            selection: self.targets.selection(),
            operation: Operation::VmInfo,
            dry_run: dry_run::name_only,
            forms: Forms::new(details, COLUMNS),
        })
    }
}

/// A block for each outcome with details, separated by empty lines.
fn details(outcomes: &[Outcome]) -> String {
    let blocks: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| match &outcome.data {
            Some(Data::Vm(report)) => Some(block(&name_of(outcome), report)),
            _ => None,
        })
        .collect();
    blocks.join("\n")
}

fn block(name: &str, report: &VmReport) -> String {
    let details = &report.details;
    let info = &details.info;
    let unknown = || "unknown".to_owned();
    let mut lines = vec![
        (
            "state",
            info.reason.map_or_else(|| info.state.to_string(), |reason| format!("{} ({reason})", info.state)),
        ),
        ("id", info.id.map_or_else(|| "none, it is not active".to_owned(), |id| id.to_string())),
        ("uuid", info.uuid.to_string()),
        ("vcpus", number(info.vcpus)),
        ("memory", format!("{} of at most {}", size(info.memory_kib), size(info.max_memory_kib))),
    ];
    match details.agent {
        Some(channel) => lines.extend([
            ("agent", agent(channel).to_owned()),
            ("graphics", graphics(&details.graphics)),
            ("persistent", details.persistent.map_or_else(unknown, |value| yes_no(value).to_owned())),
            ("autostart", details.autostart.map_or_else(unknown, |value| yes_no(value).to_owned())),
            ("title", details.title.clone().unwrap_or_else(|| "none".to_owned())),
        ]),
        None => lines.push(("definition", "unknown: the host does not answer for it".to_owned())),
    }
    lines.extend(report.guest.iter().flat_map(inside));
    if let Some(error) = &report.guest_error {
        lines.push(("guest", format!("does not answer: {}", error.message)));
    }
    let mut text = format!("{}\n", styled(HEADING, name));
    for (key, value) in lines {
        text.push_str(&format!("  {key:<11} {}\n", terminal::line(&value)));
    }
    text
}

/// The guest's own report.
fn inside(guest: &GuestReport) -> Vec<(&'static str, String)> {
    let addresses: Vec<_> = guest.addresses.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        ("hostname", guest.hostname.clone().unwrap_or_else(|| "unknown".to_owned())),
        ("addresses", if addresses.is_empty() { "none".to_owned() } else { addresses.join(", ") }),
    ];
    if let Some(os) = &guest.os {
        let name = os.name.as_deref().or(os.id.as_deref()).unwrap_or("unknown");
        lines.push(("os", name.to_owned()));
        if let Some(kernel) = &os.kernel {
            lines.push(("kernel", kernel.clone()));
        }
    }
    lines
}

fn agent(channel: AgentChannel) -> &'static str {
    match channel {
        AgentChannel::NotConfigured => "no channel for it in the VM's definition",
        AgentChannel::Disconnected => "not connected",
        AgentChannel::Connected => "connected",
    }
}

/// The addresses of the graphics servers, as a viewer takes them.
fn graphics(servers: &[Graphics]) -> String {
    if servers.is_empty() {
        return "none".to_owned();
    }
    let place = |listener: &Listener| match listener {
        Listener::Tcp { address, port, tls_port } => {
            let plain = port.map(|port| port.to_string());
            let tls = tls_port.map(|port| format!("{port} (TLS)"));
            let ports: Vec<_> = plain.into_iter().chain(tls).collect();
            let address = if address.contains(':') { format!("[{address}]") } else { address.clone() };
            format!("{address}:{}", ports.join(" or "))
        }
        Listener::Unix { path } => path.clone(),
    };
    let server = |server: &Graphics| {
        let places: Vec<_> = server.listen.iter().map(place).collect();
        let places = if places.is_empty() { "not listening".to_owned() } else { places.join(", ") };
        format!("{} {places}", server.kind)
    };
    servers.iter().map(server).collect::<Vec<_>>().join("; ")
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

#[cfg(test)]
mod tests {
    use atp_transport::domain::GraphicsKind;

    use super::*;

    #[test]
    fn graphics_servers_are_shown_as_addresses() {
        let tcp = |address: &str, port, tls_port| Listener::Tcp { address: address.into(), port, tls_port };
        let servers = [
            Graphics { kind: GraphicsKind::Vnc, listen: vec![tcp("127.0.0.1", Some(5900), None)] },
            Graphics { kind: GraphicsKind::Spice, listen: vec![tcp("::1", Some(5901), Some(5902))] },
            Graphics { kind: GraphicsKind::Vnc, listen: vec![] },
        ];
        let expected = "vnc 127.0.0.1:5900; spice [::1]:5901 or 5902 (TLS); vnc not listening";
        assert_eq!(graphics(&servers), expected);
        assert_eq!(graphics(&[]), "none");
    }
}
