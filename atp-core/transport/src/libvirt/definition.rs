//! What a domain's XML definition says, as far as ATP reads it.

use crate::domain::AgentChannel;

/// The name of the virtio-serial port that guest agents listen on.
const AGENT_CHANNEL: &str = "org.qemu.guest_agent.0";

pub(super) struct Definition {
    pub(super) agent: AgentChannel,
    pub(super) title: Option<String>,
}

impl Definition {
    /// Reads the XML that libvirt gave. XML that cannot be read says nothing about the domain.
    pub(super) fn parse(xml: &str) -> Self {
        let nothing = Definition { agent: AgentChannel::NotConfigured, title: None };
        let Ok(document) = roxmltree::Document::parse(xml) else {
            tracing::warn!("libvirt gave a domain definition that is not XML");
            return nothing;
        };
        let channel = document.descendants().find(|node| {
            node.has_tag_name("target")
                && node.attribute("name") == Some(AGENT_CHANNEL)
                && node.parent().is_some_and(|parent| parent.has_tag_name("channel"))
        });
        let agent = match channel.map(|channel| channel.attribute("state")) {
            None => AgentChannel::NotConfigured,
            Some(Some("connected")) => AgentChannel::Connected,
            Some(_) => AgentChannel::Disconnected,
        };
        let title = document.root_element().children().find(|node| node.has_tag_name("title"));
        Definition { agent, title: title.and_then(|title| title.text()).map(str::to_owned) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(channel: &str) -> AgentChannel {
        Definition::parse(&format!("<domain><devices>{channel}</devices></domain>")).agent
    }

    #[test]
    fn the_agents_channel() {
        let with = |state| {
            format!(
                "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'{state}/></channel>"
            )
        };
        assert_eq!(agent(""), AgentChannel::NotConfigured);
        assert_eq!(agent("<channel><target name='org.example.0'/></channel>"), AgentChannel::NotConfigured);
        assert_eq!(agent(&with("")), AgentChannel::Disconnected);
        assert_eq!(agent(&with(" state='disconnected'")), AgentChannel::Disconnected);
        assert_eq!(agent(&with(" state='connected'")), AgentChannel::Connected);
    }

    #[test]
    fn what_is_not_xml_says_nothing() {
        assert_eq!(Definition::parse("<domain").agent, AgentChannel::NotConfigured);
        assert_eq!(Definition::parse("<domain><title>a</title></domain>").title.as_deref(), Some("a"));
    }
}
