//! `atp vm info`: a block of lines for each VM.

use atp_executor::{Data, GuestReport, Outcome, VmReport};
use atp_transport::domain::AgentChannel;

use crate::render::name_of;
use crate::render::table::size;
use crate::terminal::{self, HEADING, styled};

/// The blocks of those outcomes that have details, an empty line between two.
pub(crate) fn details(outcomes: &[Outcome]) -> String {
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
        ("state", info.state.to_string()),
        ("id", info.id.map_or_else(|| "none, it is not active".to_owned(), |id| id.to_string())),
        ("uuid", info.uuid.to_string()),
        ("vcpus", info.vcpus.to_string()),
        ("memory", format!("{} of at most {}", size(info.memory_kib), size(info.max_memory_kib))),
        ("agent", agent(details.agent).to_owned()),
        ("persistent", yes_no(details.persistent).to_owned()),
        ("autostart", details.autostart.map_or_else(unknown, |autostart| yes_no(autostart).to_owned())),
        ("title", details.title.clone().unwrap_or_else(|| "none".to_owned())),
    ];
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

/// What the guest says.
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

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}
