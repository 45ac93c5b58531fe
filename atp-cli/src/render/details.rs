//! `atp vm info`: a block of lines for each VM.

use atp_executor::{Data, Outcome};
use atp_transport::domain::{AgentChannel, DomainDetails};

use crate::render::name_of;
use crate::render::table::{self, size};
use crate::terminal::{self, HEADING, styled};

/// The blocks of those outcomes that have details, an empty line between two.
pub(crate) fn details(outcomes: &[Outcome]) -> String {
    let blocks: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| match &outcome.data {
            Some(Data::Details(details)) => Some(block(&name_of(outcome), details)),
            _ => None,
        })
        .collect();
    blocks.join("\n")
}

fn block(name: &str, details: &DomainDetails) -> String {
    let info = &details.info;
    let unknown = || "unknown".to_owned();
    let lines = [
        ("state", info.state.to_string()),
        ("id", info.id.map_or_else(|| "none, it is not active".to_owned(), |id| id.to_string())),
        ("uuid", info.uuid.to_string()),
        ("vcpus", table::number(info.vcpus)),
        ("memory", format!("{} of at most {}", size(info.memory_kib), size(info.max_memory_kib))),
        ("agent", agent(details.agent).to_owned()),
        ("persistent", yes_no(details.persistent).to_owned()),
        ("autostart", details.autostart.map_or_else(unknown, |autostart| yes_no(autostart).to_owned())),
        ("title", details.title.clone().unwrap_or_else(|| "none".to_owned())),
    ];
    let mut text = format!("{}\n", styled(HEADING, name));
    for (key, value) in lines {
        text.push_str(&format!("  {key:<11} {}\n", terminal::line(&value)));
    }
    text
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
