//! Snapshots in libvirt's XML: what they are, and what of a domain's definition is in their way.

use roxmltree::{Document, Node};

#[cfg(any(feature = "library", feature = "native", test))]
use crate::domain::{DomainState, Snapshot};

/// Reads what libvirt says of a snapshot (`virDomainSnapshotGetXMLDesc`). Of XML that cannot be read the name is known.
#[cfg(any(feature = "library", feature = "native", test))]
pub(crate) fn read_snapshot(name: &str, xml: &str, current: Option<&str>) -> Snapshot {
    let mut snapshot = Snapshot {
        name: name.to_owned(),
        parent: None,
        current: current == Some(name),
        created: None,
        state: None,
        memory: false,
        external: false,
        description: None,
    };
    let Ok(document) = Document::parse(xml) else {
        tracing::warn!("libvirt gave a description of a snapshot that is not XML");
        return snapshot;
    };
    let root = document.root_element();
    let text = |node: Node<'_, '_>| node.text().map(|text| text.trim().to_owned());
    snapshot.parent = child(root, "parent").and_then(|parent| child(parent, "name")).and_then(text);
    snapshot.created = child(root, "creationTime").and_then(text).and_then(|time| time.parse().ok());
    snapshot.state = child(root, "state").and_then(text).and_then(|state| read_state(&state));
    snapshot.description = child(root, "description").and_then(text).filter(|text| !text.is_empty());
    let memory = child(root, "memory").and_then(|memory| memory.attribute("snapshot"));
    // libvirt writes the element since 1.0: an older snapshot has the memory if the domain ran.
    snapshot.memory = match memory {
        Some(kind) => kind != "no",
        None => snapshot.state.is_some_and(DomainState::is_active),
    };
    let mut kinds = child(root, "disks").into_iter().flat_map(|disks| disks.children());
    snapshot.external =
        memory == Some("external") || kinds.any(|disk| disk.attribute("snapshot") == Some("external"));
    snapshot
}

/// The state of a domain in libvirt's word for it in a snapshot. `disk-snapshot`, of a domain that ran, is none.
#[cfg(any(feature = "library", feature = "native", test))]
fn read_state(word: &str) -> Option<DomainState> {
    match word {
        "running" => Some(DomainState::Running),
        "blocked" => Some(DomainState::Blocked),
        "paused" => Some(DomainState::Paused),
        "shutdown" => Some(DomainState::ShuttingDown),
        "shutoff" => Some(DomainState::ShutOff),
        "crashed" => Some(DomainState::Crashed),
        "pmsuspended" => Some(DomainState::PmSuspended),
        _ => None,
    }
}

/// The description of a snapshot to make.
pub(crate) fn snapshot_xml(name: &str, description: Option<&str>) -> String {
    let description = description.map(|text| format!("<description>{}</description>", escape(text)));
    format!(
        "<domainsnapshot><name>{}</name>{}</domainsnapshot>",
        escape(name),
        description.unwrap_or_default()
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What keeps libvirt from making a snapshot within a domain's disk images (an internal one), by the domain's definition. With
/// the memory of a domain that runs more is in the way. Empty if nothing is. XML that cannot be read is no obstacle.
pub fn internal_snapshot_obstacles(xml: &str, with_memory: bool) -> Vec<String> {
    let Ok(document) = Document::parse(xml) else { return Vec::new() };
    let root = document.root_element();
    let mut obstacles = Vec::new();
    let disks: Vec<_> = devices(root, "disk").filter(is_writable_disk).collect();
    if disks.is_empty() {
        obstacles.push("it has no disk that could keep a snapshot".to_owned());
    }
    for disk in disks {
        let target = child(disk, "target").and_then(|target| target.attribute("dev")).unwrap_or("?");
        match child(disk, "driver").and_then(|driver| driver.attribute("type")) {
            Some("qcow2") => {}
            format => {
                let format = format.unwrap_or("unknown");
                obstacles.push(format!(
                    "its disk {target} has the format {format}, and only qcow2 keeps snapshots"
                ));
            }
        }
    }
    let firmware = child(root, "os")
        .and_then(|os| child(os, "loader"))
        .filter(|loader| loader.attribute("type") == Some("pflash"));
    let nvram =
        child(root, "os").and_then(|os| child(os, "nvram")).and_then(|nvram| nvram.attribute("format"));
    if firmware.is_some() && nvram != Some("qcow2") {
        obstacles.push("its firmware is in pflash, whose variables keep no snapshots".to_owned());
    }
    if with_memory {
        obstacles.extend(memory_obstacles(root));
    }
    obstacles
}

/// What keeps libvirt from saving a domain's memory, by the domain's definition.
pub fn save_obstacles(xml: &str) -> Vec<String> {
    Document::parse(xml).map_or_else(|_| Vec::new(), |document| memory_obstacles(document.root_element()))
}

/// Devices whose state is not in the memory that QEMU can save.
fn memory_obstacles(root: Node<'_, '_>) -> Vec<String> {
    let mut obstacles = Vec::new();
    // libvirt takes USB devices away, and gives them back.
    let passed = devices(root, "hostdev").filter(|device| device.attribute("type") != Some("usb")).count();
    let cards = devices(root, "interface").filter(|card| card.attribute("type") == Some("hostdev")).count();
    if passed + cards > 0 {
        obstacles
            .push("a device of the host is passed through to it, whose state cannot be saved".to_owned());
    }
    let is_shared = |folder: &Node<'_, '_>| {
        child(*folder, "driver").is_some_and(|driver| driver.attribute("type") == Some("virtiofs"))
    };
    if devices(root, "filesystem").any(|folder| is_shared(&folder)) {
        obstacles.push(
            "a folder of the host is shared with it (virtiofs), whose state cannot be saved".to_owned(),
        );
    }
    obstacles
}

/// A disk that a snapshot has to contain: libvirt passes over media, disks that cannot be written, and those that the
/// definition leaves out.
fn is_writable_disk(disk: &Node<'_, '_>) -> bool {
    matches!(disk.attribute("device"), None | Some("disk" | "lun"))
        && child(*disk, "readonly").is_none()
        && disk.attribute("snapshot") != Some("no")
}

fn devices<'a, 'i>(root: Node<'a, 'i>, name: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    let devices = child(root, "devices").into_iter().flat_map(|devices| devices.children());
    devices.filter(move |node| node.has_tag_name(name))
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.has_tag_name(name))
}

/// Whether a daemon can go back to external snapshots, as it says in its capabilities (`virConnectGetCapabilities`).
pub(crate) fn reverts_external_snapshots(capabilities: &str) -> bool {
    let Ok(document) = Document::parse(capabilities) else { return false };
    document.descendants().any(|node| node.has_tag_name("externalSnapshot"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(os: &str, devices: &str) -> String {
        format!("<domain><os>{os}</os><devices>{devices}</devices></domain>")
    }

    fn disk(attributes: &str, format: &str, more: &str) -> String {
        format!("<disk {attributes}><driver name='qemu' type='{format}'/><target dev='vda'/>{more}</disk>")
    }

    #[test]
    fn a_vm_that_cannot_be_snapshotted_says_why() {
        let qcow2 = disk("device='disk'", "qcow2", "");
        let pflash = "<loader type='pflash'>/fw</loader><nvram>/vars</nvram>";
        let newer = "<loader type='pflash'>/fw</loader><nvram format='qcow2'>/vars</nvram>";
        let passed = "<hostdev mode='subsystem' type='pci'/>";
        for (os, devices, with_memory, why) in [
            ("", qcow2.clone(), true, None),
            ("", String::new(), true, Some("no disk")),
            ("", disk("device='disk'", "raw", ""), false, Some("vda has the format raw")),
            ("", format!("{qcow2}{}", disk("device='cdrom'", "raw", "<readonly/>")), true, None),
            ("", format!("{qcow2}{}", disk("snapshot='no'", "raw", "")), true, None),
            (pflash, qcow2.clone(), false, Some("pflash")),
            (newer, qcow2.clone(), false, None),
            ("", format!("{qcow2}{passed}"), true, Some("passed through")),
            ("", format!("{qcow2}{passed}"), false, None),
            ("", format!("{qcow2}<hostdev mode='subsystem' type='usb'/>"), true, None),
            ("", format!("{qcow2}<interface type='hostdev'/>"), true, Some("passed through")),
            (
                "",
                format!("{qcow2}<filesystem><driver type='virtiofs'/></filesystem>"),
                true,
                Some("virtiofs"),
            ),
        ] {
            let xml = domain(os, &devices);
            let obstacles = internal_snapshot_obstacles(&xml, with_memory);
            match why {
                None => assert_eq!(obstacles, [""; 0], "{xml}"),
                Some(why) => {
                    assert!(obstacles.len() == 1 && obstacles[0].contains(why), "{obstacles:?} of {xml}")
                }
            }
        }
        assert_eq!(save_obstacles(&domain("", passed)).len(), 1);
        assert_eq!(save_obstacles(&domain("", "")), [""; 0]);
    }

    #[test]
    fn what_libvirt_says_of_a_snapshot_is_read() {
        let xml = "<domainsnapshot><name>b</name><description> with &lt;care&gt; </description><state>running</state>
            <parent><name>a</name></parent><creationTime>1700000000</creationTime><memory snapshot='internal'/>
            <disks><disk name='vda' snapshot='internal'/></disks></domainsnapshot>";
        let snapshot = Snapshot {
            name: "b".to_owned(),
            parent: Some("a".to_owned()),
            current: true,
            created: Some(1_700_000_000),
            state: Some(DomainState::Running),
            memory: true,
            external: false,
            description: Some("with <care>".to_owned()),
        };
        assert_eq!(read_snapshot("b", xml, Some("b")), snapshot);
        let disks = "<domainsnapshot><state>disk-snapshot</state><memory snapshot='no'/>
            <disks><disk snapshot='external'/></disks></domainsnapshot>";
        let read = read_snapshot("d", disks, Some("b"));
        assert_eq!((read.state, read.memory, read.external, read.current), (None, false, true, false));
        let off = read_snapshot("o", "<domainsnapshot><state>shutoff</state></domainsnapshot>", None);
        assert_eq!((off.state, off.memory), (Some(DomainState::ShutOff), false));
        assert_eq!(read_snapshot("x", "no", None).name, "x");
    }

    #[test]
    fn a_snapshot_to_make_is_described_with_any_name() {
        let xml = snapshot_xml("a<b>&", Some("x & y"));
        let document = Document::parse(&xml).unwrap();
        let text = |name| child(document.root_element(), name).unwrap().text();
        assert_eq!((text("name"), text("description")), (Some("a<b>&"), Some("x & y")));
        assert_eq!(snapshot_xml("a", None), "<domainsnapshot><name>a</name></domainsnapshot>");
    }

    #[test]
    fn a_daemon_says_whether_it_can_go_back_to_external_snapshots() {
        let capabilities =
            |more| format!("<capabilities><guest><features>{more}</features></guest></capabilities>");
        assert!(reverts_external_snapshots(&capabilities("<acpi/><externalSnapshot/>")));
        assert!(!reverts_external_snapshots(&capabilities(
            "<acpi/><disksnapshot default='on' toggle='no'/>"
        )));
        assert!(!reverts_external_snapshots("no"));
    }
}
