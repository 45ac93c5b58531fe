//! Guests that fail in ways of their own: a kernel that panics, no memory or no processes left, an agent that answers
//! nonsense.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use atp_e2e::{Bed, becomes, bed, eventually};

use crate::support::changed_guest;

/// Time limit for changes that happen soon, and for a guest to boot on a busy machine.
const SOON: Duration = Duration::from_secs(100);

/// A machine that starts and ends within a moment, without anything to boot.
const BRIEF: &str = "<domain type='qemu'><name>brief</name><memory unit='MiB'>32</memory>
    <os><type arch='x86_64' machine='pc'>hvm</type></os><devices><video><model type='vga'/></video></devices></domain>";

const ENGINES: [&str; 2] = ["native", "library"];

/// A panic device on the PCI bus, which libvirt 9.0 has no element for.
const PANIC_DEVICE: &str = "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
    <qemu:arg value='-device'/><qemu:arg value='pvpanic-pci,addr=0x1e'/></qemu:commandline></domain>";

/// Tells it that the kernel panicked, as its driver would, which the guest's kernel lacks: one byte to its memory.
const PANIC: &str = r#"
cd "$(dirname "$(grep -l 0x0011 /sys/bus/pci/devices/*/device)")" || exit
read -r base rest <resource
devmem "$base" 8 1"#;

#[test]
fn a_guest_whose_kernel_panicked_is_crashed_and_is_destroyed_or_reset() {
    let bed = bed();
    let guest = changed_guest(&bed, "panics", |xml| {
        xml.replace("<on_crash>destroy</on_crash>", "<on_crash>preserve</on_crash>")
            .replace("</domain>", PANIC_DEVICE)
    });
    guest.start().unwrap();
    guest.wait_agent(SOON).unwrap();
    // The guest stops before it can answer.
    let panics = bed.atp(&["--timeout", "20s", "exec", "h1/panics", "--shell", "--", PANIC]).output("json");
    let panics = panics.start();
    becomes("state", SOON, "crashed".to_owned(), || guest.state().unwrap());
    let cut_off = panics.finish().exits_with(1).outcome("h1/panics");
    assert_eq!(cut_off.effect, "unknown", "{cut_off:?}");

    let crashed = bed.atp(&["vm", "list", "--state", "crashed"]).run();
    let crashed = crashed.exits_with(0).stdout();
    assert!(crashed.contains("panics  crashed") && crashed.lines().count() == 2, "{crashed}");
    assert_eq!(bed.run(&["vm", "info", "h1/panics"]).outcome("h1/panics").data["reason"], "panicked");
    for (args, kind) in [
        (&["exec", "h1/panics", "--", "true"][..], "vm-not-running"),
        (&["cp", "/etc/hostname", "h1/panics:/tmp/"], "vm-not-running"),
        (&["key", "h1/panics", "--", "enter"], "vm-not-running"),
        (&["vm", "resume", "h1/panics"], "vm-not-running"),
        (&["vm", "start", "h1/panics"], "operation-invalid"),
    ] {
        let run = bed.run(args);
        assert_eq!(run.exits_with(1).brief(), [format!("h1/panics failed none {kind}")], "{args:?}");
        let hint = run.outcome("h1/panics").failure().hint.clone().unwrap_or_default();
        assert!(hint.contains("atp vm destroy") && hint.contains("atp vm reset"), "{args:?}: {hint}");
    }
    let reset = bed.run(&["vm", "reset", "h1/panics", "--wait", "--timeout", "2m"]);
    assert_eq!(reset.exits_with(0).brief(), ["h1/panics ok done"]);
    bed.run(&["exec", "h1/panics", "--", "true"]).exits_with(0);
}

#[test]
fn a_guest_without_room_for_a_process_says_so() {
    let bed = bed();
    // Fewer than there are already: every fork fails from now on.
    bed.run(&["exec", "h1/vm1", "--shell", "--", "echo 20 >/proc/sys/kernel/threads-max"]).exits_with(0);
    for engine in ENGINES {
        let run = bed.atp(&["exec", "h1/vm1", "--", "true"]).env("ATP_TRANSPORT__ENGINE", engine);
        let run = run.output("json").run();
        assert_eq!(run.exits_with(1).brief(), ["h1/vm1 failed none guest-exec-failed"], "{engine}");
        let failure = run.outcome("h1/vm1").failure().clone();
        assert!(failure.retryable, "{engine}: {failure:?}");
        assert!(failure.hint.clone().unwrap_or_default().contains("no room"), "{engine}: {failure:?}");
    }
    // What needs no process works.
    bed.run(&["qga", "h1/vm1", "--", "guest-ping"]).exits_with(0);
    // With the next boot there is room.
    bed.host("h1").unwrap().guest("vm1").unwrap().destroy().unwrap();
}

#[test]
fn a_program_that_the_guest_ends_for_its_memory_has_a_hint() {
    let bed = bed();
    // Without a line feed it keeps all it reads.
    let run = bed.run(&["--timeout", "100s", "exec", "h1/vm1", "--", "tail", "/dev/zero"]);
    assert_eq!(run.exits_with(1).brief(), ["h1/vm1 failed done exit-nonzero"]);
    let outcome = run.outcome("h1/vm1");
    assert_eq!(outcome.data["signal"], 9, "{outcome:?}");
    assert!(outcome.failure().hint.clone().unwrap_or_default().contains("out of memory"), "{outcome:?}");
    bed.run(&["exec", "h1/vm1", "--", "true"]).exits_with(0);
}

#[test]
fn a_vm_that_comes_and_goes_is_there_or_not_found() {
    let bed = bed();
    let h1 = bed.host("h1").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), BRIEF).unwrap();
    let path = file.path().to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let comes_and_goes = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                h1.virsh(&["create", path]).unwrap();
                // libvirt says that it does not run if its process has ended before libvirt looks again.
                eventually("it is gone", SOON, || match h1.virsh(&["destroy", "brief"]) {
                    Err(error) if h1.virsh(&["domstate", "brief"]).is_ok() => Err(error),
                    _ => Ok(()),
                });
            }
        });
        // The other thread ends also if this one fails.
        let over = Over(&is_over);
        let commands: [&[&str]; 5] = [
            &["vm", "info", "h1/brief"],
            &["screenshot", "h1/brief", "-d", directory],
            &["key", "h1/brief", "--", "enter"],
            &["qmp", "h1/brief", "--", "query-status"],
            &["vm", "suspend", "h1/brief"],
        ];
        for round in 0..3 {
            for args in commands {
                let engine = ENGINES[round % 2];
                let run = bed.atp(args).env("ATP_TRANSPORT__ENGINE", engine).output("json").run();
                let outcome = run.outcome("h1/brief");
                let kind = outcome.error.as_ref().map(|error| error.kind.as_str());
                // QEMU may end while it is asked: the daemon then reports that it cannot read from the monitor.
                let code = outcome
                    .error
                    .as_ref()
                    .and_then(|error| error.libvirt.as_ref())
                    .map(|libvirt| libvirt.code);
                let is_expected = matches!(kind, None | Some("vm-not-found" | "vm-not-running"))
                    || (kind, code) == (Some("libvirt-error"), Some(38));
                assert!(is_expected, "{engine} {args:?}: {outcome:?}");
            }
            bed.run(&["vm", "list", "h1/"]).exits_with(0);
        }
        drop(over);
        comes_and_goes.join().unwrap();
    });
}

/// Sets a word when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An agent: the program that it is to run says what is wrong with the answer.
const NONSENSE: &str = r#"
answer() {
	case $1 in
	*not-json*) echo 'Welcome to this guest' ;;
	*neither*) echo '{"hello": 1}' ;;
	*an-array*) echo '[1, 2]' ;;
	*bare-error*) echo '{"error": "no"}' ;;
	*a-number*) echo '{"return": 7}' ;;
	*pid-text*) echo '{"return": {"pid": "x"}}' ;;
	*pid-huge*) echo '{"return": {"pid": 99999999999999999999999999}}' ;;
	*no-base64*) echo '{"return": {"pid": 4242}}' ;;
	*guest-exec-status*) echo '{"return": {"exited": true, "exitcode": 0, "out-data": "%%%"}}' ;;
	*) echo '{"return": {}}' ;;
	esac
}
"#;

/// What the answers may come to. libvirt uses an agent no more after one that it cannot read, until the agent's port is
/// opened anew.
const UNREADABLE: [&str; 4] = ["libvirt-error", "agent-broken", "agent-gone", "agent-not-connected"];
const UNEXPECTED: [&str; 1] = ["invalid-reply"];
/// An error without a class is an error of the command for libvirt.
const REFUSED: [&str; 1] = ["guest-exec-failed"];

#[test]
fn an_agent_that_answers_nonsense_is_an_error_of_its_vm_and_harms_no_other() {
    let bed = bed();
    let vm1 = bed.host("h1").unwrap().guest("vm1").unwrap();
    for engine in ENGINES {
        let run = |args: &[&str]| bed.atp(args).env("ATP_TRANSPORT__ENGINE", engine).output("json").run();
        play(&bed, NONSENSE);
        vm1.stop_agent().unwrap();
        eventually("the other agent has the port", SOON, || {
            let answer = run(&["--timeout", "5s", "qga", "h1/vm1", "--", "guest-ping"]);
            if answer.code() == Some(0) { Ok(()) } else { Err(answer.stdout()) }
        });
        for (program, kinds) in [
            ("a-number", &UNEXPECTED[..]),
            ("pid-text", &UNEXPECTED),
            ("pid-huge", &UNEXPECTED),
            ("no-base64", &UNEXPECTED),
            ("bare-error", &REFUSED),
            ("an-array", &UNREADABLE),
            ("neither", &UNREADABLE),
            ("not-json", &UNREADABLE),
        ] {
            let answer = run(&["--timeout", "10s", "exec", "h1/vm1", "h1/vm2", "--", program]);
            let outcome = answer.exits_with(1).outcome("h1/vm1");
            println!("{engine} {program}: {} {:?}", outcome.brief(), outcome.failure());
            assert!(kinds.contains(&outcome.failure().kind.as_str()), "{program}: {outcome:?}");
            // The other VM has no such program.
            assert_eq!(answer.outcome("h1/vm2").brief(), "h1/vm2 failed none guest-exec-failed", "{program}");
        }
        vm1.destroy().unwrap();
        vm1.start().unwrap();
        vm1.wait_agent(SOON).unwrap();
        assert_eq!(run(&["exec", "h1/vm1", "--", "true"]).brief(), ["h1/vm1 ok done"], "{engine}");
    }
}

/// Plays the agent of a German Windows, as far as the test below asks: it has no `/bin/sh`, and answers as the scripts of
/// PowerShell would that it is given, about a file of six bytes. The first program that is launched prints in the code page
/// 850, and the next one ends by an exception.
const WINDOWS: &str = r#"
launched=0
output() {
	case $1 in
	*ProcessStartInfo*) [ "$launched" != 1 ] || printf 'Gr\201\341e\r\n' ;;
	*TransformBlock*) printf 'hello\n' | sha256sum | cut -d ' ' -f 1 ;;
	*CreateNew*) printf 'C:\\dir\\file\000C:\\dir\\.atp-0.part\0000' ;;
	*'say (fact (Get-Item'*) printf '81a4 6 1700000000 0 0' ;;
	esac
}
script() {
	code='"exitcode": 0'
	case $1 in
	*ProcessStartInfo*)
		launched=$((launched + 1))
		[ "$launched" = 1 ] || code='"signal": 3221225477' ;;
	# C:\dir\none
	*QzpcZGlyXG5vbmU=*) code='"exitcode": 3' ;;
	*TransformBlock* | *CreateNew* | *NullString* | *'say (fact (Get-Item'*) ;;
	*) code='"exitcode": 99' ;;
	esac
	out=$(output "$1" | base64 -w 0)
}
answer() {
	case $1 in
	*guest-get-osinfo*) echo '{"return": {"id": "mswindows", "pretty-name": "Windows Server 2022 Standard"}}' ;;
	*guest-exec-status*) printf '{"return": {"exited": true, %s, "out-data": "%s"}}\n' "$code" "$out" ;;
	*powershell.exe*)
		script "$(printf %s "$1" | sed 's/.*"\([A-Za-z0-9+/=]*\)"\].*/\1/' | base64 -d | tr -d '\000')"
		echo '{"return": {"pid": 4}}' ;;
	*guest-exec*)
		echo '{"error": {"class": "GenericError", "desc": "Guest agent command failed, error was '"'Das System kann die angegebene Datei nicht finden'"'"}}' ;;
	*guest-file-open*) echo '{"return": 1000}' ;;
	*guest-file-write*) echo '{"return": {"count": 6, "eof": false}}' ;;
	*guest-file-read*) echo '{"return": {"count": 6, "eof": true, "buf-b64": "aGVsbG8K"}}' ;;
	*) echo '{"return": {}}' ;;
	esac
}
"#;

#[test]
fn a_guest_that_is_windows_has_its_shell_its_paths_and_its_exit_codes() {
    let bed = bed();
    let vm1 = bed.host("h1").unwrap().guest("vm1").unwrap();
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("windows");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let (original, copy) = (folder.join("original"), folder.join("copy"));
    fs::write(&original, "hello\n").unwrap();
    play(&bed, WINDOWS);
    vm1.stop_agent().unwrap();
    eventually("the other agent has the port", SOON, || {
        let answer = bed.run(&["--timeout", "5s", "qga", "h1/vm1", "--", "guest-get-osinfo"]);
        if answer.stdout().contains("mswindows") { Ok(()) } else { Err(answer.stdout()) }
    });
    let line = bed.run(&["exec", "h1/vm1", "--encoding", "850", "--shell", "--", "dir \"C:\\a b\""]);
    let printed = line.exits_with(0).outcome("h1/vm1").data["stdout"].clone();
    assert_eq!((&printed["text"], &printed["encoding"]), (&"Gr\u{fc}\u{df}e\r\n".into(), &"cp850".into()));
    let crashed =
        bed.run(&["exec", "h1/vm1", "--cwd", "C:\\work", "--", "x.exe"]).exits_with(1).outcome("h1/vm1");
    let error = crashed.failure();
    assert_eq!((crashed.effect.as_str(), error.kind.as_str()), ("done", "exit-nonzero"));
    assert!(error.message.ends_with("exception 0xC0000005 (access violation)"), "{}", error.message);

    let pushed = bed.run(&["cp", original.to_str().unwrap(), "h1/vm1:C:\\dir\\file"]);
    assert_eq!(pushed.exits_with(0).brief(), ["h1/vm1 ok done"]);
    assert_eq!(pushed.outcome("h1/vm1").data["guest_path"], "C:\\dir\\file");
    bed.run(&["cp", "h1/vm1:C:/dir/file", copy.to_str().unwrap()]).exits_with(0);
    assert_eq!(fs::read_to_string(&copy).unwrap(), "hello\n");

    // A scenario finds the file, and one that is not there.
    let scenario = folder.join("file.yaml");
    let text = r"name: file
targets: h1/vm1
steps:
  - assert: {file: {path: 'C:\dir\file', matches: '^hello'}}
  - assert: {file: {path: 'C:\dir\none', exists: false}}
";
    fs::write(&scenario, text).unwrap();
    bed.run(&["run", scenario.to_str().unwrap(), "--yes"]).exits_with(0);

    // What it has not, it says by name.
    for (args, kind, words) in [
        (&["cp", "h1/vm1:/etc/x", copy.to_str().unwrap()][..], "guest-shell-missing", "Windows Server 2022"),
        (&["exec", "h1/vm1", "--", "none.exe"], "guest-exec-failed", "none.exe"),
    ] {
        let outcome = bed.run(args).exits_with(1).outcome("h1/vm1");
        assert_eq!(outcome.brief(), format!("h1/vm1 failed none {kind}"), "{args:?}");
        assert!(outcome.failure().message.contains(words), "{outcome:?}");
    }
    vm1.destroy().unwrap();
    vm1.start().unwrap();
    vm1.wait_agent(SOON).unwrap();
}

/// Has another agent answer in `h1/vm1`, as soon as the real one has left its port: the function `answer` of a script is given
/// each command.
///
/// libvirt connects when QEMU says that the port was opened, which it says once a second at most, of the last change. So the
/// port stays open until libvirt has been there, and is opened again when libvirt has left.
fn play(bed: &Bed, script: &str) {
    const LOOP: &str = r#"
while :; do
	served= tries=0
	while [ "$tries" -lt 50 ]; do
		if read -r line <&3; then
			served=1
			case $line in
			*guest-sync*)
				id=${line##*:}
				printf '{"return": %s}\n' "${id%%\}*}" ;;
			*) answer "$line" ;;
			esac >&3
		elif [ -n "$served" ]; then
			break
		else
			tries=$((tries + 1))
			sleep 0.1
		fi
	done 3<>/dev/virtio-ports/org.qemu.guest_agent.0
	sleep 1.2
done 2>/dev/null
"#;
    // The port has its name a moment after the agent answers. Opened before, the name would be a file.
    let start = "cat >/tmp/agent; until [ -c /dev/virtio-ports/org.qemu.guest_agent.0 ]; do sleep 0.1; done
        setsid sh /tmp/agent </dev/null >/dev/null 2>&1 &";
    let started = bed.atp(&["exec", "--stdin", "-", "h1/vm1", "--", "sh", "-c", start]);
    let script = format!("{script}{LOOP}");
    started.output("json").stdin(script.as_str()).run().exits_with(0);
}
