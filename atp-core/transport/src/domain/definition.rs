//! What a domain's XML definition says, as far as ATP reads it.

use roxmltree::Node;

use crate::domain::{AgentChannel, Graphics, GraphicsKind, Listener};

/// The name of the virtio-serial port that guest agents listen on.
const AGENT_CHANNEL: &str = "org.qemu.guest_agent.0";

/// What a domain's definition (`virDomainGetXMLDesc`) says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The guest agent's channel.
    pub agent: AgentChannel,
    /// A person's name for the domain.
    pub title: Option<String>,
    /// Where its screen can be looked at.
    pub graphics: Vec<Graphics>,
}

impl Definition {
    /// Reads the XML that libvirt gave. XML that cannot be read says nothing about the domain.
    pub fn parse(xml: &str) -> Self {
        let nothing = Definition { agent: AgentChannel::NotConfigured, title: None, graphics: Vec::new() };
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
        let graphics = document.descendants().filter(|node| node.has_tag_name("graphics"));
        Definition {
            agent,
            title: title.and_then(|title| title.text()).map(str::to_owned),
            graphics: graphics.map(read_graphics).collect(),
        }
    }
}

/// Reads a `<graphics>`: its ports, which are -1 until they are chosen, and a `<listen>` for each place.
fn read_graphics(node: Node<'_, '_>) -> Graphics {
    let port =
        |name| node.attribute(name).and_then(|port| port.parse::<u16>().ok()).filter(|port| *port != 0);
    let (plain, tls) = (port("port"), port("tlsPort"));
    let kind = match node.attribute("type").unwrap_or_default() {
        "vnc" => GraphicsKind::Vnc,
        "spice" => GraphicsKind::Spice,
        other => GraphicsKind::Other(other.to_owned()),
    };
    let listen =
        node.children().filter(|child| child.has_tag_name("listen")).filter_map(|listen| {
            match listen.attribute("type")? {
                "socket" => Some(Listener::Unix { path: listen.attribute("socket")?.to_owned() }),
                "address" | "network" if plain.or(tls).is_some() => Some(Listener::Tcp {
                    address: listen.attribute("address")?.to_owned(),
                    port: plain,
                    tls_port: tls,
                }),
                _ => None,
            }
        });
    Graphics { kind, listen: listen.collect() }
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
    fn where_the_screen_can_be_looked_at() {
        let xml = "<domain><devices>
            <graphics type='vnc' port='5901' passwd='secret'>
              <listen type='address' address='127.0.0.1'/><listen type='socket' socket='/run/vnc'/>
            </graphics>
            <graphics type='spice' port='-1' tlsPort='5902'><listen type='network' address='::'/></graphics>
            <graphics type='vnc' port='-1' autoport='yes'><listen type='address' address='0.0.0.0'/></graphics>
            <graphics type='egl-headless'/>
            </devices></domain>";
        let tcp = |address: &str, port, tls_port| Listener::Tcp { address: address.into(), port, tls_port };
        let expected = [
            (
                GraphicsKind::Vnc,
                vec![tcp("127.0.0.1", Some(5901), None), Listener::Unix { path: "/run/vnc".into() }],
            ),
            (GraphicsKind::Spice, vec![tcp("::", None, Some(5902))]),
            (GraphicsKind::Vnc, vec![]),
            (GraphicsKind::Other("egl-headless".into()), vec![]),
        ];
        let expected = expected.map(|(kind, listen)| Graphics { kind, listen });
        assert_eq!(Definition::parse(xml).graphics, expected);
    }

    #[test]
    fn what_is_not_xml_says_nothing() {
        assert_eq!(Definition::parse("<domain").agent, AgentChannel::NotConfigured);
        assert_eq!(Definition::parse("<domain><title>a</title></domain>").title.as_deref(), Some("a"));
    }
}
