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

/// What keeps libvirt from making a snapshot within a domain's disk images (an internal one), by the domain's definition, each with
/// the way out of it. With the memory of a domain that runs other things are in the way than of one that is shut off. Empty if
/// nothing is. XML that cannot be read is no obstacle.
///
/// libvirt keeps all disks that can be written to or none (`qemuSnapshotPrepare`). It passes over drives without a medium, and over
/// read-only disks, as CD-ROMs are.
pub fn internal_snapshot_obstacles(xml: &str, with_memory: bool) -> Vec<String> {
    let Ok(document) = Document::parse(xml) else { return Vec::new() };
    let root = document.root_element();
    let mut obstacles = Vec::new();
    let disks: Vec<_> = devices(root, "disk").filter(|disk| is_writable(*disk)).collect();
    if disks.is_empty() {
        obstacles.push("it has no disk that could keep a snapshot".to_owned());
    }
    obstacles.extend(disks.into_iter().filter_map(|disk| internal_disk_obstacle(disk, with_memory)));
    let firmware = child(root, "os")
        .and_then(|os| child(os, "loader"))
        .filter(|loader| loader.attribute("type") == Some("pflash"));
    let nvram = child(root, "os").and_then(|os| child(os, "nvram"));
    let format = nvram.and_then(|nvram| nvram.attribute("format")).unwrap_or("raw");
    if firmware.is_some() && format != "qcow2" {
        obstacles.push(format!(
            "its firmware is in pflash, whose variables (nvram) are kept in the format {format}, and only qcow2 keeps snapshots, \
             for libvirt 10.10 and later (or remove the firmware, if the guest boots without UEFI)"
        ));
    }
    if with_memory {
        obstacles.extend(memory_obstacles(root));
    }
    obstacles
}

/// Why a disk that can be written to cannot be in a snapshot within the images.
fn internal_disk_obstacle(disk: Node<'_, '_>, with_memory: bool) -> Option<String> {
    let name = disk_name(disk);
    if disk.attribute("device") == Some("lun") {
        return Some(format!(
            "its {name} passes SCSI commands through to a device of the host (device='lun'), which keeps no snapshots (detach it)"
        ));
    }
    if let Some(mode @ ("no" | "external" | "manual")) = disk.attribute("snapshot") {
        return Some(format!(
            "its {name} is not to be in such snapshots (snapshot='{mode}'), and libvirt keeps all disks or none (remove \
             snapshot='{mode}', or make it read-only)"
        ));
    }
    let format = child(disk, "driver").and_then(|driver| driver.attribute("type")).unwrap_or("unknown");
    if format != "qcow2" {
        let way_out = match disk.attribute("device") {
            Some("floppy") => "eject it, or make it read-only",
            _ => "convert its image with `qemu-img convert -O qcow2`, or detach it",
        };
        return Some(format!(
            "its {name} has the format {format}, and only qcow2 keeps snapshots ({way_out})"
        ));
    }
    match disk.attribute("type") {
        // Of a VM that runs QEMU itself keeps the snapshot.
        Some(kind @ ("network" | "dir" | "nvme" | "vhostuser")) if !with_memory => Some(format!(
            "its {name} is on storage of the type {kind}, where libvirt makes no snapshot of a VM that is shut off (start it)"
        )),
        _ => None,
    }
}

/// What keeps libvirt from making a snapshot in files beside a domain's disk images (an external one), by the domain's definition.
pub fn external_snapshot_obstacles(xml: &str) -> Vec<String> {
    let Ok(document) = Document::parse(xml) else { return Vec::new() };
    let is_left_out = |disk: &Node<'_, '_>| matches!(disk.attribute("snapshot"), Some("no" | "manual"));
    let disks =
        devices(document.root_element(), "disk").filter(|disk| is_writable(*disk) && !is_left_out(disk));
    let disks: Vec<_> = disks.collect();
    if disks.is_empty() {
        return vec!["it has no disk of which a snapshot could be made".to_owned()];
    }
    let obstacle = |disk: Node<'_, '_>| {
        let name = disk_name(disk);
        let way_out = "(detach it, or leave it out with snapshot='no')";
        match (disk.attribute("device"), disk.attribute("type")) {
            (Some("lun"), _) => Some(format!(
                "its {name} passes SCSI commands through to a device of the host (device='lun') {way_out}"
            )),
            // libvirt names the new file after the image's.
            (_, Some(kind @ ("block" | "network" | "dir" | "nvme" | "vhostuser"))) => {
                Some(format!("its {name} is on storage of the type {kind}, and not a file {way_out}"))
            }
            _ => None,
        }
    };
    disks.into_iter().filter_map(obstacle).collect()
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
        obstacles.push(
            "a device of the host is passed through to it, whose state cannot be saved (detach it)"
                .to_owned(),
        );
    }
    let is_shared = |folder: &Node<'_, '_>| {
        child(*folder, "driver").is_some_and(|driver| driver.attribute("type") == Some("virtiofs"))
    };
    if devices(root, "filesystem").any(|folder| is_shared(&folder)) {
        obstacles.push(
            "a folder of the host is shared with it (virtiofs), whose state cannot be saved (detach it)"
                .to_owned(),
        );
    }
    obstacles
}

/// Whether a disk can be written to: libvirt says of each that cannot that it is read-only, and of a drive without a medium no
/// source.
fn is_writable(disk: Node<'_, '_>) -> bool {
    let source = match disk.attribute("type") {
        None | Some("file") => child(disk, "source").and_then(|source| source.attribute("file")),
        Some("block") => child(disk, "source").and_then(|source| source.attribute("dev")),
        Some(_) => child(disk, "source").map(|_| ""),
    };
    source.is_some() && disk.attribute("device") != Some("cdrom") && child(disk, "readonly").is_none()
}

/// What a disk is, and its name in the guest.
fn disk_name(disk: Node<'_, '_>) -> String {
    let kind = if disk.attribute("device") == Some("floppy") { "floppy" } else { "disk" };
    let target = child(disk, "target").and_then(|target| target.attribute("dev")).unwrap_or("?");
    format!("{kind} {target}")
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
        format!(
            "<disk {attributes}><driver name='qemu' type='{format}'/><source file='/d'/><target dev='vda'/>{more}</disk>"
        )
    }

    #[test]
    fn a_vm_that_cannot_be_snapshotted_says_why_and_what_to_do() {
        let qcow2 = disk("device='disk'", "qcow2", "");
        let with = |more: &str| format!("{qcow2}{more}");
        let pflash = "<loader type='pflash'>/fw</loader><nvram>/vars</nvram>";
        let newer = "<loader type='pflash'>/fw</loader><nvram format='qcow2'>/vars</nvram>";
        let passed = "<hostdev mode='subsystem' type='pci'/>";
        let empty =
            "<disk type='file' device='floppy'><driver name='qemu' type='raw'/><target dev='fda'/></disk>";
        let network = "<disk type='network'><driver type='qcow2'/><source protocol='rbd' name='p/i'/><target dev='vdb'/></disk>";
        let lun = "<disk type='block' device='lun'><driver type='raw'/><source dev='/dev/sdx'/><target dev='sda'/></disk>";
        for (os, devices, with_memory, why) in [
            ("", qcow2.clone(), true, None),
            ("", String::new(), true, Some("no disk")),
            (
                "",
                disk("device='disk'", "raw", ""),
                false,
                Some("disk vda has the format raw, and only qcow2"),
            ),
            ("", disk("", "raw", ""), true, Some("(convert its image with `qemu-img convert -O qcow2`")),
            ("", disk("", "raw", "<shareable/>"), true, Some("disk vda has the format raw")),
            ("", with(lun), true, Some("disk sda passes SCSI commands through")),
            ("", with(network), true, None),
            ("", with(network), false, Some("disk vdb is on storage of the type network")),
            // What cannot be written to, and what is not there.
            ("", with(&disk("device='cdrom'", "raw", "<readonly/>")), true, None),
            ("", with("<disk type='file' device='cdrom'><target dev='sdb'/></disk>"), true, None),
            ("", with(&disk("device='disk'", "raw", "<readonly/>")), true, None),
            ("", with(&disk("", "raw", "<readonly/><shareable/>")), true, None),
            ("", with(empty), true, None),
            ("", with(&disk("device='floppy'", "raw", "<readonly/>")), true, None),
            ("", with(&disk("device='floppy'", "raw", "")), true, Some("floppy vda has the format raw")),
            ("", with(&disk("device='floppy'", "raw", "")), true, Some("(eject it, or make it read-only)")),
            // libvirt keeps all or none.
            (
                "",
                with(&disk("snapshot='no'", "raw", "")),
                true,
                Some("(snapshot='no'), and libvirt keeps all"),
            ),
            ("", with(&disk("snapshot='no'", "raw", "<readonly/>")), true, None),
            ("", with(&disk("snapshot='external'", "qcow2", "")), false, Some("snapshot='external'")),
            (pflash, qcow2.clone(), false, Some("pflash")),
            (newer, qcow2.clone(), false, None),
            ("", with(passed), true, Some("passed through")),
            ("", with(passed), false, None),
            ("", with("<hostdev mode='subsystem' type='usb'/>"), true, None),
            ("", with("<interface type='hostdev'/>"), true, Some("passed through")),
            ("", with("<filesystem><driver type='virtiofs'/></filesystem>"), true, Some("virtiofs")),
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
        for (devices, why) in [
            (disk("", "raw", ""), None),
            (with(&disk("device='floppy'", "raw", "")), None),
            (with(&disk("snapshot='no'", "raw", "")), None),
            (disk("snapshot='no'", "raw", ""), Some("no disk")),
            (disk("device='cdrom'", "raw", "<readonly/>"), Some("no disk")),
            (with(lun), Some("disk sda passes SCSI commands through")),
            (with(network), Some("disk vdb is on storage of the type network")),
        ] {
            let obstacles = external_snapshot_obstacles(&domain(pflash, &devices));
            match why {
                None => assert_eq!(obstacles, [""; 0], "{devices}"),
                Some(why) => assert!(obstacles.len() == 1 && obstacles[0].contains(why), "{obstacles:?}"),
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
