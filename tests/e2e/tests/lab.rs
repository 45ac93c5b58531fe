//! Verbs for snapshots, saved memory, consoles, folders and reservations on a full disk: each says so, and leaves the VM as it was.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use atp_e2e::bed;
use atp_testbed::DiskFormat;

#[test]
fn on_a_full_disk_each_verb_says_so_and_leaves_the_vm_as_it_was() {
    const NO_SPACE: &str = "No space left on device";
    let bed = bed();
    let host = bed.host("h1").unwrap();
    let small = host.small_folder().unwrap();
    let guest = host.define_guest_with("full", DiskFormat::Qcow2).unwrap();
    host.define_guest_with("roomy", DiskFormat::Qcow2).unwrap();
    let write = "mkdir -p /tmp/tree && head -c 100000 /dev/zero > /tmp/tree/large";
    bed.run(&["exec", "h1/vm1", "--shell", "--", write]).exits_with(0);
    // The disk of one guest is on the host's full disk.
    fs::copy(guest.disk(), small.outside.join("image")).unwrap();
    let [from, to] = [guest.disk(), small.inside.join("image")].map(|path| path.display().to_string());
    let definition = tempfile::NamedTempFile::new().unwrap();
    let xml = host.virsh(&["dumpxml", guest.uuid()]).unwrap();
    fs::write(definition.path(), xml.replace(&from, &to)).unwrap();
    host.virsh(&["define", definition.path().to_str().unwrap()]).unwrap();
    bed.run(&["snapshot", "create", "h1/full", "clean"]).exits_with(0);
    guest.start().unwrap();
    bed.run(&["vm", "save", "h1/full", "--timeout", "2m"]).exits_with(0);
    // As much as there is space for.
    let _full = fs::write(small.outside.join("ballast"), vec![0; 4 << 20]);

    // These write nothing, or only where there is something already.
    for (args, state) in [
        (&["vm", "restore", "h1/full"][..], "running"),
        (&["vm", "destroy", "h1/full"], "shut off"),
        (&["snapshot", "revert", "h1/full", "clean"], "shut off"),
    ] {
        let run = bed.run(args);
        assert_eq!(run.exits_with(0).brief(), ["h1/full ok done"], "{run:#?}");
        assert_eq!(guest.state().unwrap(), state);
    }
    let create = bed.run(&["snapshot", "create", "h1/full", "h1/roomy", "new"]);
    assert_eq!(
        create.exits_with(1).brief(),
        ["h1/full failed unknown libvirt-error", "h1/roomy ok done"],
        "{create:#?}"
    );
    let causes = &create.outcome("h1/full").failure().causes.join("\n");
    assert!(causes.contains(NO_SPACE), "{causes}");
    let snapshots = || {
        let list = bed.run(&["snapshot", "list", "h1/full"]);
        list.exits_with(0).outcomes()[0].data["snapshots"].as_array().map(Vec::len)
    };
    assert_eq!(snapshots(), Some(1));
    // The only one leaves no list of them that would need room.
    let delete = bed.run(&["snapshot", "delete", "h1/full", "clean"]);
    assert_eq!(delete.exits_with(0).brief(), ["h1/full ok done"], "{delete:#?}");
    assert_eq!(snapshots(), Some(0));

    // The memory is saved to a file of the VM's name, here through a link.
    symlink(small.inside.join("memory"), host.folder().join("lib/qemu/save/vm2.save")).unwrap();
    let save = bed.run(&["vm", "save", "h1/vm2", "--timeout", "2m"]);
    assert_eq!(save.exits_with(1).brief(), ["h1/vm2 failed none libvirt-error"], "{save:#?}");
    let causes = &save.outcome("h1/vm2").failure().causes.join("\n");
    assert!(causes.contains(NO_SPACE), "{causes}");
    assert_eq!(host.guest("vm2").unwrap().state().unwrap(), "running");

    let [console, tree, reserved] =
        ["consoles", "tree", "reserved"].map(|name| small.outside.join(name).display().to_string());
    fs::create_dir(&console).unwrap();
    for args in [
        &["console", "h1/vm1", "-d", &console, "--timeout", "20s"][..],
        &["cp", "-r", "h1/vm1:/tmp/tree", &tree],
    ] {
        let run = bed.run(args);
        assert_eq!(run.exits_with(1).brief(), ["h1/vm1 failed none local-file-error"], "{run:#?}");
        assert!(run.stdout().contains(NO_SPACE), "{run:#?}");
    }
    let reserve = bed.run(&["reserve", "h1/vm1", "--for", "1h", "--owner", "job", "--file", &reserved]);
    assert!(reserve.exits_with(2).stderr.contains(NO_SPACE), "{reserve:#?}");
    assert!(!Path::new(&reserved).exists() && !Path::new(&tree).exists());
    // A VM that is started with its host has a link, which takes no room, but is one more file.
    let links = host.folder().join("etc/qemu/autostart");
    let there = small.outside.join("autostart");
    fs::create_dir(&there).unwrap();
    let _none = fs::remove_dir(&links);
    symlink(small.inside.join("autostart"), &links).unwrap();
    let files = small.outside.join("files");
    fs::create_dir(&files).unwrap();
    let _last = (0..).map(|number| fs::write(files.join(number.to_string()), "")).find(Result::is_err);
    let run = bed.run(&["vm", "autostart", "on", "h1/roomy", "h2/vm1"]);
    assert_eq!(
        run.exits_with(1).brief(),
        ["h1/roomy failed none libvirt-error", "h2/vm1 ok done"],
        "{run:#?}"
    );
    let off = bed.run(&["vm", "autostart", "off", "h1/roomy", "h2/vm1"]);
    assert_eq!(off.exits_with(0).brief(), ["h1/roomy unchanged none", "h2/vm1 ok done"], "{off:#?}");
    fs::remove_file(links).unwrap();
    for folder in [files, there] {
        fs::remove_dir_all(folder).unwrap();
    }
    bed.run(&["exec", "h1/vm1", "--", "rm", "-r", "/tmp/tree"]).exits_with(0);
    for name in ["image", "ballast", "memory", "reserved.lock"] {
        fs::remove_file(small.outside.join(name)).unwrap();
    }
    fs::remove_dir_all(console).unwrap();
}
