//! Files copied into guests and back, and listed there.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atp_e2e::{Bed, Run, becomes, bed, within};
use atp_protocol::files::{FileError, FileKind, Pull, Push, Source, TransferPolicy, list, stat};
use atp_protocol::{ExecSpec, LibvirtCarrier, ProtocolError, exec};
use atp_testbed::Proxy;
use atp_transport::ErrorKind;
use atp_transport::LibvirtConnection;
use serde_json::json;

use crate::support::{in_seconds, manager, vm};

/// Time limit of each test: an emulated guest on a busy machine copies a megabyte in a second or two.
const LIMIT: Duration = Duration::from_secs(600);
/// Time limit for changes that happen soon; the machine may be busy.
const SOON: Duration = Duration::from_secs(120);

/// Runs work on `h1/vm1` over a leased connection.
pub(crate) fn on_guest<T, F, Fut>(bed: &Bed, work: F) -> T
where
    F: FnOnce(Arc<LibvirtConnection>, uuid::Uuid) -> Fut,
    Fut: Future<Output = Result<T, ProtocolError>>,
{
    within(LIMIT, async {
        let manager = manager(bed, atp_e2e::config()).await;
        let uuid = vm(bed, "h1", "vm1");
        let work = |connection| work(Arc::new(connection), uuid);
        manager.execute_on_host_with("h1", in_seconds(580), work).await.unwrap()
    })
}

/// An empty local folder of the test's own.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A host named `slow`: `h1` through a proxy with a bandwidth of some 370 KB of file data a second.
/// A copy through it takes time on any machine, so that the test can do something meanwhile. Other traffic is not
/// noticeably slower.
fn slow_way(bed: &Bed) -> (Proxy, String) {
    let proxy = bed.host("h1").unwrap().proxy().unwrap();
    proxy.trickle(500_000);
    let host = format!("slow={}", proxy.uri());
    (proxy, host)
}

/// Bytes without a pattern that an error could preserve.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend((state ^ (state >> 29)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn sixty_four_megabytes_are_the_same_bytes_after_a_push_and_a_pull() {
    const SIZE: u64 = 64 << 20;
    let bed = bed();
    let folder = folder("sixty-four");
    let (original, copy) = (folder.join("original"), folder.join("copy"));
    fs::write(&original, noise(64 << 20)).unwrap();
    fs::set_permissions(&original, fs::Permissions::from_mode(0o640)).unwrap();
    on_guest(&bed, |connection, uuid| async move {
        let carrier = LibvirtCarrier::new(connection.clone(), uuid);
        let deadline = connection.deadline().unwrap();
        assert!(exec::run(&carrier, &ExecSpec::new("mount-data"), deadline).await?.success());
        let source = Arc::new(Source::open(&original).await?);
        let mut push = Push::new(source.clone(), "/data/copy", TransferPolicy::default());
        let mut reported = Vec::new();
        let pushed = push.run(&carrier, deadline, &mut |progress| reported.push(progress.done)).await?;
        assert_eq!((pushed.size, pushed.resumed_at, pushed.digest), (SIZE, 0, source.digest()));
        assert!(reported.is_sorted() && reported.first() == Some(&0) && reported.last() == Some(&SIZE));

        let mut pull = Pull::new("/data/copy", &copy, TransferPolicy::default());
        let mut reported = Vec::new();
        let pulled = pull.run(&carrier, deadline, &mut |progress| reported.push(progress.done)).await?;
        assert_eq!((pulled.size, pulled.digest, pulled.info.mode), (SIZE, source.digest(), 0o640));
        // At most a megabyte at a time.
        assert!(reported.windows(2).all(|pair| pair[1] - pair[0] <= 1 << 20), "{reported:?}");
        assert!(fs::read(&original).unwrap() == fs::read(&copy).unwrap());
        assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o7777, 0o640);

        // Neither copy leaves temporary files.
        let names: Vec<_> =
            list(&carrier, "/data", deadline).await?.into_iter().map(|entry| entry.name).collect();
        assert!(!names.iter().any(|name| name.starts_with(b".atp")), "{names:?}");
        assert_eq!(fs::read_dir(copy.parent().unwrap()).unwrap().count(), 2);
        exec::run(&carrier, &ExecSpec::new("rm").arg("/data/copy"), deadline).await.map(drop)
    });
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_directory_with_any_names_is_listed() {
    let bed = bed();
    on_guest(&bed, |connection, uuid| async move {
        let carrier = LibvirtCarrier::new(connection.clone(), uuid);
        let deadline = connection.deadline().unwrap();
        let make = r#"rm -rf /tmp/names && mkdir /tmp/names && cd /tmp/names && mkdir d && ln -s /nowhere link
            printf abc >"$(printf 'line\nfeed')"; : >"$(printf '\377')"; : >.hidden; : >' -n x'; chmod 4711 .hidden"#;
        assert!(exec::run(&carrier, &ExecSpec::shell(make), deadline).await?.success());
        let entries = list(&carrier, "/tmp/names", deadline).await?;
        let seen: Vec<_> =
            entries.iter().map(|entry| (entry.name.as_slice(), entry.info.kind, entry.info.size)).collect();
        let expected: [(&[u8], FileKind); 6] = [
            (b" -n x", FileKind::File),
            (b".hidden", FileKind::File),
            (b"d", FileKind::Directory),
            (b"line\nfeed", FileKind::File),
            (b"link", FileKind::Symlink),
            (b"\xff", FileKind::File),
        ];
        assert_eq!(seen.iter().map(|(name, kind, _)| (*name, *kind)).collect::<Vec<_>>(), expected);
        assert_eq!((seen[3].2, entries[1].info.mode), (3, 0o4711));

        assert_eq!(stat(&carrier, "/tmp/names", deadline).await?.kind, FileKind::Directory);
        let kind = |error: ProtocolError| error.kind();
        assert_eq!(stat(&carrier, "/no/such", deadline).await.map_err(kind), Err(ErrorKind::FileNotFound));
        assert_eq!(
            list(&carrier, "/etc/passwd", deadline).await.map_err(kind),
            Err(ErrorKind::NotADirectory)
        );
        assert_eq!(stat(&carrier, "relative", deadline).await.map_err(kind), Err(ErrorKind::InvalidCommand));
        exec::run(&carrier, &ExecSpec::new("rm").args(["-r", "/tmp/names"]), deadline).await.map(drop)
    });
}

#[test]
fn the_destination_changes_in_one_step_or_not_at_all() {
    let bed = bed();
    let here = folder("atomic");
    on_guest(&bed, |connection, uuid| async move {
        let carrier = LibvirtCarrier::new(connection.clone(), uuid);
        let deadline = connection.deadline().unwrap();
        let shell = |line: &str| ExecSpec::shell(line.to_owned());
        let source = |bytes: &[u8]| Arc::new(Source::from_bytes("name", bytes, 0o755));
        let push = |source, to: &str| Push::new(source, to, TransferPolicy::default());
        let quiet = &mut |_| {};

        // Into a folder, over a file, and through a link.
        exec::run(&carrier, &shell("mkdir -p /tmp/to && ln -sf /tmp/to/name /tmp/link"), deadline).await?;
        let pushed = push(source(b"one"), "/tmp/to").run(&carrier, deadline, quiet).await?;
        assert_eq!(pushed.path, "/tmp/to/name");
        let pushed = push(source(b"two"), "/tmp/link").run(&carrier, deadline, quiet).await?;
        assert_eq!(pushed.path, "/tmp/to/name");
        let info = stat(&carrier, "/tmp/to/name", deadline).await?;
        assert_eq!((info.kind, info.size, info.mode), (FileKind::File, 3, 0o755));
        push(source(b""), "/tmp/to/empty").run(&carrier, deadline, quiet).await?;
        assert_eq!(stat(&carrier, "/tmp/to/empty", deadline).await?.size, 0);

        // There is space for four megabytes, not for eight: the old content stays, and no temporary files are left.
        let fill =
            "head -c 4194304 /dev/zero >/tmp/room; cat /dev/zero >/tmp/ballast 2>/dev/null; rm /tmp/room";
        exec::run(&carrier, &shell(fill), deadline).await?;
        let full =
            push(source(&noise(8 << 20)), "/tmp/to/name").run(&carrier, deadline, quiet).await.unwrap_err();
        exec::run(&carrier, &shell("rm /tmp/ballast"), deadline).await?;
        assert!(matches!(full, ProtocolError::File(FileError::Stopped { .. })), "{full:?}");
        assert_eq!((full.kind().as_str(), full.effect()), ("guest-file-error", atp_transport::Effect::None));
        let names: Vec<_> =
            list(&carrier, "/tmp/to", deadline).await?.into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, [b"empty".to_vec(), b"name".to_vec()]);
        assert_eq!(stat(&carrier, "/tmp/to/name", deadline).await?.size, 3);

        // A partial copy with other bytes starts again; one with the same bytes continues.
        let copy = here.join("name");
        let partial = here.join(".name.atp-part");
        for (there, resumed_at) in [(&b"xx"[..], 0), (b"tw", 2), (b"two and more", 0)] {
            fs::write(&partial, there).unwrap();
            let mut pull = Pull::new("/tmp/to/name", &copy, TransferPolicy::default());
            let pulled = pull.run(&carrier, deadline, quiet).await?;
            assert_eq!((pulled.resumed_at, fs::read(&copy).unwrap().as_slice()), (resumed_at, &b"two"[..]));
            assert!(!partial.exists());
        }
        // The kernel's own files report a size of zero.
        let mut version = Pull::new("/proc/version", &copy, TransferPolicy::default());
        assert!(version.run(&carrier, deadline, quiet).await?.size > 20);
        exec::run(&carrier, &shell("rm -r /tmp/to /tmp/link"), deadline).await.map(drop)
    });
}

#[test]
fn a_copy_continues_when_the_daemon_is_back() {
    let bed = bed();
    let folder = folder("resumed");
    let original = folder.join("original");
    fs::write(&original, noise(6 << 20)).unwrap();
    let host = bed.host("h1").unwrap();
    bed.run(&["exec", "h1/vm1", "--", "mount-data"]).exits_with(0);
    let (proxy, slow) = slow_way(&bed);
    let from = original.to_str().unwrap();
    let push = ["--host", &slow, "--timeout", "200s", "cp", from, "slow/vm1:/data/resumed"];
    let running = bed.atp(&push).output("json").start();
    let begun = "exec=set -- /data/.atp-*.part; [ $(wc -c <$1) -gt 1000000 ]";
    bed.run(&["wait", "h1/vm1", "--for", begun]).exits_with(0);
    host.kill_daemon().unwrap();
    host.start_daemon().unwrap();
    proxy.pass();
    let run = running.finish();
    let outcome = run.exits_with(0).outcome("slow/vm1");
    assert_eq!(outcome.brief(), "slow/vm1 ok done");
    assert!(outcome.data["resumed_at"].as_u64().unwrap() >= 1_000_000, "{outcome:?}");

    let copy = folder.join("copy");
    bed.run(&["cp", "h1/vm1:/data/resumed", copy.to_str().unwrap()]).exits_with(0);
    assert!(fs::read(&original).unwrap() == fs::read(&copy).unwrap());
    bed.run(&["exec", "h1/vm1", "--", "rm", "/data/resumed"]).exits_with(0);
}

#[test]
fn a_copy_that_times_out_leaves_the_old_content() {
    let bed = bed();
    let original = folder("late").join("original");
    fs::write(&original, noise(16 << 20)).unwrap();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    let (_proxy, slow) = slow_way(&bed);
    bed.run(&["exec", "h1/vm1", "--", "mount-data"]).exits_with(0);
    let sh = |line: &str| bed.run(&["exec", "h1/vm1", "--", "sh", "-c", line]);
    sh("echo old > /data/late").exits_with(0);
    let copy = |option| {
        bed.run(&["--host", &slow, option, "15s", "cp", original.to_str().unwrap(), "slow/vm1:/data/late"])
    };
    // The work that was cut off must be over in the guest too: libvirt gives an agent that owes an answer five
    // seconds, and then another limit than the copy's would be reported.
    let settle = || guest.wait_agent(SOON).unwrap();
    // libvirt's own time limit, in whole seconds, may end the last request at the same moment.
    let is_late = |run: &Run| {
        let ends = ["call-timeout", "agent-unresponsive"].map(|kind| format!("slow/vm1 timeout none {kind}"));
        assert!(ends.contains(&run.exits_with(1).brief()[0]), "{:?}", run.outcomes());
    };
    let late = copy("--timeout");
    is_late(&late);
    let message = late.outcome("slow/vm1").error.unwrap().message;
    assert!(message.contains("kept in \"/data/.atp-"), "{message}");
    settle();
    let late = copy("--deadline");
    assert_eq!(late.exits_with(5).brief(), ["slow/vm1 cancelled none run-deadline-passed"]);
    settle();
    assert_eq!(sh("cat /data/late").outcome("h1/vm1").stream("stdout"), "old\n");
    guest.pause_qemu().unwrap();
    let hung = copy("--timeout");
    guest.resume_qemu().unwrap();
    is_late(&hung);
    settle();
    assert_eq!(sh("cat /data/late").outcome("h1/vm1").stream("stdout"), "old\n");
    sh("rm /data/late /data/.atp-*.part").exits_with(0);
}

#[test]
fn what_others_put_at_the_partial_files_name_in_the_guest_is_not_followed() {
    let bed = bed();
    let original = folder("planted").join("original");
    fs::write(&original, "new").unwrap();
    let source = Arc::new(Source::from_bytes("original", *b"new", 0o600));
    let partial = Push::new(source, "/tmp/copy", TransferPolicy::default()).partial_name();
    let sh = |line: &str| bed.run(&["exec", "h1/vm1", "--", "sh", "-c", line]);
    let copy = || bed.run(&["cp", original.to_str().unwrap(), "h1/vm1:/tmp/copy"]);
    for plant in
        ["ln -s victim", "ln -s missing", "ln victim", "mkdir", "touch other; chown 4242 other; mv other"]
    {
        sh(&format!("cd /tmp && echo precious > victim && {plant} {partial}")).exits_with(0);
        let run = copy();
        assert_eq!(run.exits_with(1).brief(), ["h1/vm1 failed none path-occupied"], "{plant}");
        let message = run.outcome("h1/vm1").error.unwrap().message;
        assert!(message.contains(&format!("/tmp/{partial}")), "{plant}: {message}");
        let left = sh(&format!("cd /tmp && cat victim && ls -d missing copy; rm -r victim {partial}"));
        assert_eq!(left.outcome("h1/vm1").stream("stdout"), "precious\n", "{plant}");
    }
    copy().exits_with(0);
    assert_eq!(sh("cat /tmp/copy; rm /tmp/copy").outcome("h1/vm1").stream("stdout"), "new");
}

/// All that is below a folder: path, mode, and content or target.
fn tree(folder: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let (mut found, mut left) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(name) = left.pop() {
        let path = folder.join(&name);
        let there = path.symlink_metadata().unwrap();
        let mode = there.permissions().mode() & 0o777;
        found.push(if there.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| name.join(entry.unwrap().file_name())));
            (name, mode, Vec::new())
        } else if there.is_symlink() {
            (name, 0, fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes())
        } else {
            (name, mode, fs::read(&path).unwrap())
        });
    }
    found.sort();
    found
}

#[test]
fn a_folder_is_the_same_after_it_went_into_a_guest_and_back() {
    let bed = bed();
    let here = folder("tree");
    let (original, back) = (here.join("it"), here.join("back"));
    fs::create_dir_all(original.join("deep/er")).unwrap();
    fs::create_dir(original.join("empty")).unwrap();
    fs::write(original.join("deep/er/noise"), noise(300_000)).unwrap();
    fs::set_permissions(original.join("deep/er/noise"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::set_permissions(original.join("empty"), fs::Permissions::from_mode(0o700)).unwrap();
    for name in ["-n", "line\nfeed", "*", ".hidden"].map(str::to_owned).into_iter().chain(["n".repeat(150)]) {
        fs::write(original.join(name), "small").unwrap();
    }
    symlink("deep/er/noise", original.join("link")).unwrap();
    symlink("/nowhere//else", original.join("broken")).unwrap();
    let sh = |line: &str| bed.run(&["exec", "h1/vm1", "--", "sh", "-c", line]);
    let (from, to) = (original.to_str().unwrap(), back.to_str().unwrap());

    let plain = bed.run(&["cp", "h1/vm1:/etc", to]).exits_with(1).outcome("h1/vm1");
    assert_eq!(plain.brief(), "h1/vm1 failed none is-a-directory");
    let dry = bed.atp(&["--dry-run", "cp", "-r", from, "h1/vm1:/tmp/tree"]).run();
    assert!(dry.exits_with(0).stderr.contains("(a folder, "), "{}", dry.stderr);
    bed.run(&["cp", "-r", from, "h1/vm1:/tmp/tree"]).exits_with(0);
    // Into the folder that is there by now, twice: what is in it stays.
    bed.run(&["cp", "-r", from, "h1/vm1:/tmp/tree"]).exits_with(0);
    sh("echo old >/tmp/tree/it/kept; echo old >/tmp/tree/it/-n").exits_with(0);
    bed.run(&["cp", "-r", from, "h1/vm1:/tmp/tree"]).exits_with(0);
    let kept = sh("cat /tmp/tree/it/kept /tmp/tree/it/-n; rm /tmp/tree/it/kept; ls -A /tmp | grep atp-");
    assert_eq!(kept.outcome("h1/vm1").stream("stdout"), "old\nsmall");

    for (path, copy) in [("/tmp/tree/it", "back"), ("/tmp/tree/it/", "back/it")] {
        let pulled = bed.run(&["cp", "-r", &format!("h1/vm1:{path}"), to]);
        assert_eq!(pulled.exits_with(0).brief(), ["h1/vm1 ok none"], "{path}");
        // Not printed: the noise is long.
        assert!(tree(&here.join(copy)) == tree(&original), "{path}");
    }
    assert_eq!(fs::read_dir(&here).unwrap().count(), 2);

    // A link of the guest's own in the place of a folder is not written through.
    sh("cd /tmp/tree/it && rm -r deep && mkdir /tmp/outside && ln -s /tmp/outside deep").exits_with(0);
    let refused = bed.run(&["cp", "-r", from, "h1/vm1:/tmp/tree"]).exits_with(1).outcome("h1/vm1");
    assert_eq!(refused.brief(), "h1/vm1 failed none path-occupied");
    assert!(refused.failure().message.contains("/tmp/tree/it/deep"), "{refused:?}");
    let left = sh("ls -A /tmp/outside; ls -A /tmp /var/tmp | grep atp-; rm -r /tmp/outside /tmp/tree");
    assert_eq!(left.outcome("h1/vm1").stream("stdout"), "");
}

#[test]
fn folders_go_through_a_service_both_ways() {
    let bed = bed();
    let here = folder("through-a-service");
    let state = here.join("state").display().to_string();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let of_service = |args: &[&str]| {
        let atp = bed.atp(args).env("ATP_SERVE__FOLDER", &state);
        atp.env("ATP_SERVE__LISTEN", &format!("127.0.0.1:{port}"))
    };
    let added = of_service(&["serve", "token", "add", "operator", "--role", "operator"]).run();
    let token = here.join("token");
    fs::write(&token, added.exits_with(0).stdout()).unwrap();
    let serving = of_service(&["serve"]).start();
    serving.wait_for_stderr("serving 3 hosts");
    let (url, token) = (format!("http://127.0.0.1:{port}"), token.display().to_string());
    let through = |args: &[&str]| {
        let atp = bed.atp(args).env("ATP_SERVER", &url).env("ATP_SERVER_TOKEN_FILE", &token);
        atp.output("json").run()
    };

    let original = here.join("it");
    fs::create_dir_all(original.join("deep/er")).unwrap();
    fs::create_dir(original.join("empty")).unwrap();
    fs::write(original.join("deep/er/noise"), noise(300_000)).unwrap();
    fs::set_permissions(original.join("deep/er/noise"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(original.join("empty"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(original.join("n".repeat(150)), "small").unwrap();
    symlink("/nowhere//else", original.join("broken")).unwrap();
    let from = original.to_str().unwrap();

    let pushed = through(&["cp", "-r", from, "*/vm1:/tmp/tree"]);
    let outcome = pushed.exits_with(0).outcome("h1/vm1");
    let direct = bed.run(&["cp", "-r", from, "h1/vm1:/tmp/tree"]).exits_with(0).outcome("h1/vm1");
    // Into the folder that the first one has made, and the same but for that.
    assert_eq!(
        (&outcome.data["guest_path"], &direct.data["guest_path"]),
        (&json!("/tmp/tree"), &json!("/tmp/tree/it"))
    );
    for field in ["local_path", "bytes", "sha256"] {
        assert_eq!(outcome.data[field], direct.data[field], "{field}");
    }

    let back = here.join("back");
    let to = back.to_str().unwrap();
    let pulled = through(&["cp", "-r", "h1/vm1:/tmp/tree/it", to]).exits_with(0).outcome("h1/vm1");
    assert_eq!(pulled.data["local_path"], json!(back));
    assert!(tree(&back) == tree(&original));
    // Into a folder that is there; and of several VMs, each with a folder of its own.
    through(&["cp", "-r", "h1/vm1:/tmp/tree/it/", to]).exits_with(0);
    assert!(tree(&back.join("it")) == tree(&original));
    let several = here.join("several");
    through(&["cp", "-r", "*/vm1:/tmp/tree/deep", several.to_str().unwrap()]).exits_with(0);
    for host in ["h1", "h2", "h3"] {
        assert!(tree(&several.join(host).join("vm1/deep")) == tree(&original.join("deep")), "{host}");
    }
    // A file is a file, with the option too.
    let file = original.join("deep/er/noise");
    through(&["cp", "-r", file.to_str().unwrap(), "h1/vm1:/tmp/noise"]).exits_with(0);
    through(&["cp", "-r", "h1/vm1:/tmp/noise", here.join("noise").to_str().unwrap()]).exits_with(0);
    assert!(fs::read(here.join("noise")).unwrap() == fs::read(&file).unwrap());

    // What stands in the way of a folder here is an error of its VM, and stays.
    fs::remove_dir_all(&back).unwrap();
    fs::create_dir_all(back.join("it")).unwrap();
    fs::write(back.join("it/deep"), "precious").unwrap();
    let refused = through(&["cp", "-r", "h1/vm1:/tmp/tree/it", to]).exits_with(1).outcome("h1/vm1");
    assert_eq!(refused.brief(), "h1/vm1 failed none path-occupied");
    assert_eq!(fs::read(back.join("it/deep")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(&back).unwrap().count(), 1, "something was left there");
    let missing = through(&["cp", "-r", "h1/vm1:/no/such", to]).exits_with(1).brief();
    assert_eq!(missing, ["h1/vm1 failed none file-not-found"]);
    let left =
        bed.run(&["exec", "*/vm1", "--", "sh", "-c", "rm -r /tmp/tree; ls -A /tmp /var/tmp | grep atp-"]);
    assert_eq!(left.outcome("h1/vm1").stream("stdout"), "");
    serving.interrupt();
    serving.finish().exits_with(0);
}

#[test]
fn an_archive_of_a_hostile_guest_writes_nothing_outside_of_the_destination() {
    let bed = bed();
    let here = folder("hostile");
    fs::create_dir(here.join("to")).unwrap();
    let sh = |line: &str| bed.run(&["exec", "h1/vm1", "--", "sh", "-c", line]);
    // A shell of the guest's own, whose `tar` sends what it is given. A program would not do: busybox prefers its own `tar`.
    let hostile = "#!/bin/busybox sh\n[ \"$1\" = -c ] || exec busybox sh \"$@\"\nscript=$2\nshift 2\n[ $# = 0 ] || shift\n\
                   tar() { cp /tmp/evil.tar \"$2\"; }\neval \"$script\"\n";
    sh(&format!("printf %s '{hostile}' >/tmp/sh && chmod +x /tmp/sh && mv -f /tmp/sh /bin/sh")).exits_with(0);
    let outside = here.join("outside").display().to_string();
    for (make, found) in [
        // The same bytes in another order have the same checksum.
        (
            "touch x && busybox tar -cf /tmp/evil.tar ./x && printf /.x | dd of=/tmp/evil.tar conv=notrunc"
                .to_owned(),
            "absolute",
        ),
        ("mkfifo f && busybox tar -cf /tmp/evil.tar f".to_owned(), "a FIFO"),
        ("mknod d c 1 3 && busybox tar -cf /tmp/evil.tar d".to_owned(), "a device"),
        (
            format!(
                "ln -s {outside} l && busybox tar -cf /tmp/a.tar l && rm l && mkdir l && touch l/x && busybox tar -cf \
                 /tmp/b.tar l/x && (head -c 512 /tmp/a.tar; cat /tmp/b.tar) >/tmp/evil.tar"
            ),
            "below a link",
        ),
    ] {
        sh(&format!("rm -rf /tmp/evil && mkdir /tmp/evil && cd /tmp/evil && {make}")).exits_with(0);
        let run = bed.run(&["cp", "-r", "h1/vm1:/tmp/evil", here.join("to/it").to_str().unwrap()]);
        let outcome = run.exits_with(1).outcome("h1/vm1");
        assert_eq!(outcome.brief(), "h1/vm1 failed none archive-refused", "{make}");
        assert!(outcome.failure().message.contains(found), "{outcome:?}");
        assert_eq!(fs::read_dir(here.join("to")).unwrap().count(), 0, "{make}");
        assert_eq!(fs::read_dir(&here).unwrap().count(), 1, "{make}");
    }
    sh("rm -r /tmp/evil /tmp/*.tar && ln -sf busybox /bin/sh").exits_with(0);
}

#[test]
fn files_of_several_vms_have_separate_paths() {
    let bed = bed();
    let folder = folder("several");
    let to = folder.to_str().unwrap();
    let run = bed.run(&["cp", "*/vm1:/etc/os-release", to]);
    run.exits_with(0);
    for host in ["h1", "h2", "h3"] {
        let path = folder.join(host).join("vm1/os-release");
        assert!(fs::read_to_string(&path).unwrap().contains("ATP"), "{path:?}");
        let outcome = run.outcome(&format!("{host}/vm1"));
        assert_eq!((outcome.op.as_str(), outcome.effect.as_str()), ("cp", "none"));
        assert_eq!(outcome.data["local_path"], json!(path));
    }
    let missing = bed.run(&["cp", "h1/vm1:/no/such", to]);
    assert_eq!(missing.exits_with(1).brief(), ["h1/vm1 failed none file-not-found"]);
    let missing = bed.run(&["cp", folder.join("none").to_str().unwrap(), "h1/vm1:/tmp/x"]);
    missing.exits_with(2);
}

#[test]
fn an_interrupted_copy_reports_the_reason_and_the_next_one_continues() {
    let bed = bed();
    let folder = folder("broken-off");
    let (original, copy) = (folder.join("original"), folder.join("copy"));
    fs::write(&original, noise(6 << 20)).unwrap();
    let vm = bed.host("h1").unwrap().guest("vm1").unwrap();
    bed.run(&["exec", "h1/vm1", "--", "mount-data"]).exits_with(0);
    let (proxy, slow) = slow_way(&bed);
    let copying = |from: &str, to: &str| {
        bed.atp(&["--host", &slow, "--timeout", "200s", "cp", from, to]).output("json").start()
    };
    let broke_off = |run: &Run| {
        let outcome = run.exits_with(1).outcome("slow/vm1");
        let error = outcome.failure();
        assert!(error.message.contains("the transfer stopped after"), "{outcome:?}");
        assert_eq!(
            (outcome.status.as_str(), outcome.effect.as_str(), error.retryable),
            ("failed", "none", true)
        );
        assert!(
            ["agent-gone", "agent-not-connected", "guest-booting"].contains(&error.kind.as_str()),
            "{error:?}"
        );
    };
    let (from, to) = (original.to_str().unwrap(), "slow/vm1:/data/broken-off");

    // The caller gives it up half-way.
    let running = copying(from, "slow/vm1:/data/given-up");
    let begun = "exec=set -- /data/.atp-*.part; [ $(wc -c <$1) -gt 100000 ]";
    bed.run(&["wait", "h1/vm1", "--for", begun]).exits_with(0);
    running.interrupt();
    running.wait_for_stderr("interrupted");
    running.interrupt();
    let outcome = running.finish().exits_with(130).outcome("slow/vm1");
    assert_eq!((outcome.status.as_str(), outcome.effect.as_str()), ("cancelled", "none"));
    let said = &outcome.failure().message;
    let name = said.split_once("kept in ").unwrap().1.split_once(" in the guest").unwrap().0;
    bed.run(&["exec", "h1/vm1", "--", "rm", &format!("/data/{name}")]).exits_with(0);

    // The agent is restarted half-way.
    let running = copying(from, to);
    let begun = "exec=set -- /data/.atp-*.part; [ $(wc -c <$1) -gt 1000000 ]";
    bed.run(&["wait", "h1/vm1", "--for", begun]).exits_with(0);
    vm.stop_agent().unwrap();
    broke_off(&running.finish());
    vm.start_agent().unwrap();
    vm.wait_agent(SOON).unwrap();
    proxy.pass();
    let outcome = copying(from, to).finish().exits_with(0).outcome("slow/vm1");
    assert!(outcome.data["resumed_at"].as_u64().unwrap() >= 1_000_000, "{outcome:?}");

    // The guest is restarted half-way.
    bed.run(&["exec", "h1/vm1", "--", "sync"]).exits_with(0);
    proxy.trickle(500_000);
    let running = copying(to, copy.to_str().unwrap());
    let partial = folder.join(".copy.atp-part");
    let is_begun = || fs::metadata(&partial).is_ok_and(|partial| partial.len() > 1_000_000);
    becomes("the copy is begun", LIMIT, true, is_begun);
    bed.host("h1").unwrap().virsh(&["reset", "vm1"]).unwrap();
    broke_off(&running.finish());
    assert!(!copy.exists());
    vm.wait_agent(SOON).unwrap();
    bed.run(&["exec", "h1/vm1", "--", "mount-data"]).exits_with(0);
    proxy.pass();
    let outcome = copying(to, copy.to_str().unwrap()).finish().exits_with(0).outcome("slow/vm1");
    assert!(outcome.data["resumed_at"].as_u64().unwrap() >= 1_000_000, "{outcome:?}");
    assert!(fs::read(&original).unwrap() == fs::read(&copy).unwrap());
    bed.run(&["exec", "h1/vm1", "--", "rm", "/data/broken-off"]).exits_with(0);
}

#[test]
fn a_copy_without_local_disk_space_leaves_nothing_behind() {
    let bed = bed();
    let small = bed.host("h1").unwrap().small_folder().unwrap().outside;
    let write = "head -c 3000000 /dev/zero >/tmp/large";
    bed.run(&["exec", "h1/vm1", "--shell", "--", write]).exits_with(0);
    let to = small.join("copy");
    let run = bed.run(&["cp", "h1/vm1:/tmp/large", to.to_str().unwrap()]);
    assert_eq!(run.exits_with(1).brief(), ["h1/vm1 failed none local-file-error"]);
    let error = run.outcome("h1/vm1").error.unwrap();
    assert!(error.causes.iter().any(|cause| cause.contains("No space left")), "{error:?}");
    assert!(error.hint.is_some_and(|hint| hint.contains("free space on this machine")));
    assert_eq!(fs::read_dir(&small).unwrap().count(), 0);
    bed.run(&["exec", "h1/vm1", "--", "rm", "/tmp/large"]).exits_with(0);
}
