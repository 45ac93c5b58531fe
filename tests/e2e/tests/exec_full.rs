//! Programs in guests: their working directory, output of any size, and broken connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atp_e2e::{bed, eventually};
use atp_protocol::files::{Digest, list};
use atp_protocol::{Carrier, ExecPolicy, ExecSpec, LibvirtCarrier, Peer, Polling, ProtocolError, exec};
use serde_json::json;
use tokio::time::Instant;

use crate::exec::is_late;
use crate::files::on_guest;

/// Counts the commands to the agent.
struct Counting<C>(C, AtomicUsize);

impl<C: Carrier> Carrier for Counting<C> {
    async fn send(&self, channel: Peer, command: &str, deadline: Instant) -> Result<String, ProtocolError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.send(channel, command, deadline).await
    }

    fn command_max(&self, channel: Peer) -> usize {
        self.0.command_max(channel)
    }
}

#[test]
fn a_short_command_takes_two_round_trips() {
    let bed = bed();
    on_guest(&bed, |connection, uuid| async move {
        let carrier = Counting(LibvirtCarrier::new(connection.clone(), uuid), AtomicUsize::new(0));
        let mut fewest = usize::MAX;
        // The time a guest needs depends on the machine: the first status request is sent only after a delay.
        let polling = Polling { first: Duration::from_secs(2), ..Polling::default() };
        let policy = ExecPolicy { polling, ..ExecPolicy::default() };
        for _ in 0..3 {
            let before = carrier.1.load(Ordering::Relaxed);
            let deadline = connection.deadline().unwrap();
            assert!(exec::run_with(&carrier, &ExecSpec::new("true"), &policy, deadline).await?.success());
            fewest = fewest.min(carrier.1.load(Ordering::Relaxed) - before);
        }
        assert_eq!(fewest, 2);
        Ok(())
    });
}

#[test]
fn twenty_megabytes_come_through_files() {
    let bed = bed();
    on_guest(&bed, |connection, uuid| async move {
        let carrier = LibvirtCarrier::new(connection.clone(), uuid);
        let deadline = connection.deadline().unwrap();
        assert!(exec::run(&carrier, &ExecSpec::new("mount-data"), deadline).await?.success());
        let print = "head -c 20971520 /dev/urandom | tee /data/printed; echo trouble >&2; exit 3";
        let output = exec::run(&carrier, &ExecSpec::shell(print).spooled("/data"), deadline).await?;
        assert_eq!((output.exit_code, output.stderr.as_slice()), (Some(3), &b"trouble\n"[..]));
        assert_eq!((output.stdout.len(), output.stdout_truncated), (20 << 20, false));
        let digest = exec::run(&carrier, &ExecSpec::new("sha256sum").arg("/data/printed"), deadline).await?;
        let digest = String::from_utf8(digest.stdout).unwrap();
        assert!(digest.starts_with(&Digest::of(&output.stdout).to_string()), "{digest}");

        let names: Vec<_> =
            list(&carrier, "/data", deadline).await?.into_iter().map(|entry| entry.name).collect();
        assert!(!names.iter().any(|name| name.starts_with(b".atp")), "{names:?}");
        exec::run(&carrier, &ExecSpec::new("rm").arg("/data/printed"), deadline).await.map(drop)
    });
}

#[test]
fn the_files_are_removed_however_the_program_ends() {
    let bed = bed();
    let left = |when: &str| {
        let run = bed.run(&["exec", "h1/vm1", "--shell", "--", "ls -A /tmp | grep -c atp-exec"]);
        assert_eq!(run.outcome("h1/vm1").stream("stdout"), "0\n", "{when}");
    };
    let spool = |timeout: &str, line: &str| {
        bed.run(&["--timeout", timeout, "exec", "h1/vm1", "--spool", "--shell", "--", line])
    };
    bed.run(&["exec", "h1/vm1", "--shell", "--", "rm -rf /tmp/.atp-exec*"]).exits_with(0);
    spool("60s", "echo out; echo err >&2").exits_with(0);
    left("it ended");
    assert_eq!(spool("60s", "kill -9 $$").outcome("h1/vm1").data["signal"], json!(9));
    left("the program was killed");
    // Two seconds of the limit are reserved for removing the files.
    // A busy guest may need more than that.
    eventually("nothing is left while the program runs on", Duration::from_secs(200), || {
        bed.run(&["exec", "h1/vm1", "--shell", "--", "rm -rf /tmp/.atp-exec*"]).exits_with(0);
        let late = spool("12s", "echo begun; sleep 100");
        assert!(is_late(&late.exits_with(1).brief()[0], "h1/vm1"), "{:?}", late.brief());
        let run = bed.run(&["exec", "h1/vm1", "--shell", "--", "ls -A /tmp | grep -c atp-exec"]);
        let left = run.outcome("h1/vm1").stream("stdout").to_owned();
        if left == "0\n" { Ok(()) } else { Err(left) }
    });
    let missing = bed.run(&["exec", "h1/vm1", "--spool", "--", "no-such-program"]);
    assert_eq!(missing.exits_with(1).brief(), ["h1/vm1 failed none guest-exec-failed"]);
    left("the program does not exist");
}

#[test]
fn a_directory_and_an_encoding() {
    let bed = bed();
    let run = bed.run(&["exec", "h1/vm1", "--cwd", "/usr", "--", "pwd"]);
    assert_eq!(run.exits_with(0).outcome("h1/vm1").stream("stdout"), "/usr\n");
    let run = bed.run(&["exec", "h1/vm1", "--cwd", "/no/such", "--", "pwd"]);
    assert_eq!(run.exits_with(1).brief(), ["h1/vm1 failed none guest-exec-failed"]);
    let words = ["it's", "\"two\" words", "$HOME `id`", ""];
    let run = bed.run(&[&["exec", "h1/vm1", "--cwd", "/", "--", "printf", "%s|"], &words[..]].concat());
    assert_eq!(run.exits_with(0).outcome("h1/vm1").stream("stdout"), format!("{}|", words.join("|")));

    let latin = ["exec", "h1/vm1", "--encoding", "latin1", "--", "printf", r"Gr\374\337e"];
    let stdout =
        json!({"text": "Grüße", "encoding": "windows-1252", "truncated": false, "base64": "R3L832U="});
    assert_eq!(bed.run(&latin).exits_with(0).outcome("h1/vm1").data["stdout"], stdout);
    assert!(bed.atp(&latin).run().exits_with(0).stdout().contains("Grüße"));
    bed.run(&["exec", "h1/vm1", "--encoding", "klingon", "--", "true"]).exits_with(2);
}

#[test]
fn output_of_windows_consoles_is_read_by_its_code_page_or_byte_order_mark() {
    let bed = bed();
    for (encoding, output, text, name) in [
        (&["--encoding", "cp437"][..], r"\203\201", "âü", "cp437"),
        (&["--encoding", "850"], r"Gr\201\341e", "Grüße", "cp850"),
        (&["--encoding", "cp852"], r"\235\242d\253", "Łódź", "cp852"),
        (&["--encoding", "cp866"], r"\217\340\250", "При", "ibm866"),
        (&["--encoding", "cp1252"], r"\200", "€", "windows-1252"),
        (&["--encoding", "utf-16"], r"\376\377\0h\0i", "hi", "utf-16be"),
        (&[], r"\377\376h\0i\0", "hi", "utf-16le"),
        (&[], r"\376\377\0h\0i", "hi", "utf-16be"),
    ] {
        let args = [&["exec", "h1/vm1"], encoding, &["--", "printf", output]].concat();
        let run = bed.run(&args);
        let stdout = run.exits_with(0).outcome("h1/vm1").data["stdout"].clone();
        assert_eq!(
            (&stdout["text"], &stdout["encoding"]),
            (&json!(text), &json!(name)),
            "{encoding:?} {output}"
        );
        assert!(stdout["base64"].is_string(), "{stdout}");
    }
    // Without a name the bytes are shown as they are, and how to read them.
    let run = bed.atp(&["exec", "h1/vm1", "--", "printf", r"Gr\201\341e"]).run();
    assert!(run.exits_with(0).stdout().contains("Gr\\x81\\xe1e\n[not UTF-8: --encoding"), "{run:?}");
}

#[test]
fn a_process_is_polled_again_when_the_daemon_is_back() {
    let bed = bed();
    let host = bed.host("h1").unwrap();
    let line = "touch /tmp/begun; sleep 8; echo done";
    let both = ["--timeout", "120s", "exec", "h1/vm1", "h1/vm2", "--shell", "--", line];
    let running = bed.atp(&both).output("json").start();
    // The agent executes commands in sequence: when it answers this one, the process's number has been reported.
    bed.run(&["wait", "h1/*", "--for", "exec=rm /tmp/begun"]).exits_with(0);
    host.kill_daemon().unwrap();
    host.start_daemon().unwrap();
    let run = running.finish();
    run.exits_with(0);
    assert_eq!(run.brief(), ["h1/vm1 ok done", "h1/vm2 ok done"]);
    assert_eq!(run.outcome("h1/vm1").stream("stdout"), "done\n");
}

#[test]
fn a_daemon_that_stays_away_leaves_the_effect_unknown() {
    let bed = bed();
    let host = bed.host("h1").unwrap();
    // Long enough for the daemon to end first.
    let line = "touch /tmp/begun; sleep 30";
    let running =
        bed.atp(&["--timeout", "12s", "exec", "h1/vm1", "--shell", "--", line]).output("json").start();
    bed.run(&["wait", "h1/vm1", "--for", "exec=rm /tmp/begun"]).exits_with(0);
    host.kill_daemon().unwrap();
    let run = running.finish();
    let outcome = run.exits_with(1).outcome("h1/vm1");
    assert_eq!(outcome.effect, "unknown", "{outcome:?}");
    assert!(outcome.failure().message.contains("process"), "{outcome:?}");
    host.start_daemon().unwrap();
}
