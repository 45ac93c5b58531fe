//! Tests of running programs with a scripted agent, in virtual time.

use std::error::Error;

use atp_transport::{Effect, ErrorKind, HostId, LibvirtError, TransportError};
use serde_json::json;

use super::*;
use crate::error::ProtocolError;
use crate::local_guest::{Fault, LocalGuest};
use crate::peer::Peer;
use crate::script::{Script, Step};
use crate::windows_guest::WindowsGuest;

const STARTED: &str = r#"{"return":{"pid":41}}"#;
const RUNNING: &str = r#"{"return":{"exited":false}}"#;
const ENDED: &str = r#"{"return":{"exited":true,"exitcode":0}}"#;
const NO_SUCH_PID: &str = r#"{"error":{"class":"GenericError","desc":"Invalid parameter 'pid'"}}"#;

fn spec() -> ExecSpec {
    ExecSpec::new("uname").arg("-r")
}

/// Far longer than any step here takes, also with real processes on a busy machine.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn transport(kind: ErrorKind) -> ProtocolError {
    let source = LibvirtError { code: 86, domain: 20, level: 2, message: "not now".into() };
    let host: HostId = "h1".parse().unwrap();
    TransportError::Libvirt { host, operation: "virDomainQemuAgentCommand", kind, source }.into()
}

async fn outcome<R: Into<Step>>(replies: impl IntoIterator<Item = R>) -> Result<ExecOutput> {
    run(&Script::new(replies), &spec(), soon()).await
}

#[tokio::test(start_paused = true)]
async fn a_short_command_is_two_round_trips() {
    let script = Script::new([STARTED, r#"{"return":{"exited":true,"exitcode":0,"out-data":"Ni4xCg=="}}"#]);
    let output = run(&script, &spec(), soon()).await.unwrap();
    assert_eq!(output, ExecOutput { exit_code: Some(0), stdout: b"6.1\n".into(), ..ExecOutput::default() });
    assert!(output.success());

    let sent: Vec<_> = script.sent().into_iter().map(|(_, command)| command).collect();
    let start = json!({"path": "uname", "arg": ["-r"], "capture-output": true});
    assert_eq!(
        sent,
        [
            json!({"execute": "guest-exec", "arguments": start}),
            json!({"execute": "guest-exec-status", "arguments": {"pid": 41}}),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn queries_start_fast_back_off_and_end_just_before_the_deadline() {
    let script = Script::new([STARTED, RUNNING]);
    let start = Instant::now();
    let deadline = start + Duration::from_secs(10);
    let error = run(&script, &spec(), deadline).await.unwrap_err();

    assert_eq!(
        (error.kind().as_str(), error.effect(), error.is_timeout()),
        ("exec-timeout", Effect::Unknown, true)
    );
    assert!(error.to_string().contains("process 41"), "{error}");
    let Polling { second, .. } = Polling::default();
    assert!(Instant::now() <= deadline && deadline - Instant::now() <= second);

    let times: Vec<_> = script.sent().into_iter().map(|(time, _)| time).collect();
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The clock of the runtime has a resolution of a millisecond.
    assert_eq!(gaps[0], Duration::ZERO);
    assert!(gaps[1] <= second + Duration::from_millis(1), "second after {:?}", gaps[1]);
    let longest = gaps.iter().position(|gap| *gap >= Polling::default().longest).unwrap();
    assert!(gaps[..longest].is_sorted(), "{gaps:?}");
    assert!(longest < 15, "the longest pause is reached after {longest} questions");
    assert!(gaps.iter().all(|gap| *gap <= Polling::default().longest + Duration::from_millis(1)));
    assert!(deadline - times[times.len() - 1] < Duration::from_millis(10), "an end just before it is seen");
    assert!(times.len() < 70, "{} commands in 10 s", times.len());
}

#[test]
fn the_query_at_once_is_the_only_one_more_than_with_a_first_one_after_3_ms() {
    let times = |polling: Polling| {
        let (mut time, mut pause) = (polling.first, polling.second);
        std::iter::from_fn(move || {
            let next = time + pause;
            pause = polling.after(pause);
            Some(std::mem::replace(&mut time, next))
        })
    };
    let late = Polling {
        first: Duration::from_micros(3_000),
        second: Duration::from_micros(4_500),
        factor: 1.5,
        ..Polling::default()
    };
    for (further, late) in times(Polling::default()).skip(1).zip(times(late)).take(100) {
        assert!(further >= late, "{further:?} {late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_falls_silent_says_nothing_of_its_program() {
    let silent = || Step::from(ProtocolError::AgentSilent);
    for steps in [vec![Step::from(STARTED), silent()], vec![STARTED.into(), RUNNING.into(), silent()]] {
        let deadline = Instant::now() + Duration::from_secs(10);
        let error = run(&Script::new(steps), &spec(), deadline).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.effect()), ("agent-unresponsive", Effect::Unknown));
        assert!(Instant::now() <= deadline);
    }
}

#[tokio::test(start_paused = true)]
async fn no_query_to_a_slow_agent_is_cut_off_by_the_deadline() {
    let slow = || Step::late(Duration::from_millis(80), RUNNING);
    let started = Step::late(Duration::from_millis(80), STARTED);
    let deadline = Instant::now() + Duration::from_secs(1);
    let error = run(&Script::new([started, slow()]), &spec(), deadline).await.unwrap_err();
    assert_eq!(error.kind(), "exec-timeout", "{error}");
    assert!(Instant::now() <= deadline);
}

#[tokio::test(start_paused = true)]
async fn no_polling_numbers_make_it_panic() {
    for factor in [f64::NAN, f64::INFINITY, -3.0, 1e300, 0.0] {
        let policy =
            ExecPolicy { polling: Polling { factor, ..Polling::default() }, ..ExecPolicy::default() };
        let error = run_with(&Script::new([STARTED, RUNNING]), &spec(), &policy, soon()).await.unwrap_err();
        assert_eq!(error.kind(), "exec-timeout");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_codes_signals_and_truncation_come_through() {
    let ended = |fields: &str| format!(r#"{{"return":{{"exited":true,{fields}}}}}"#);
    let failed = ended(r#""exitcode":3,"out-data":"//4A","err-data":"ZQ==","out-truncated":true"#);
    let output = outcome([STARTED, RUNNING, &failed]).await.unwrap();
    assert_eq!(
        output,
        ExecOutput {
            exit_code: Some(3),
            signal: None,
            stdout: vec![0xff, 0xfe, 0x00],
            stderr: b"e".into(),
            stdout_truncated: true,
            stderr_truncated: false,
        }
    );
    assert!(!output.success());

    let killed = outcome([STARTED, &ended(r#""signal":9,"err-truncated":true"#)]).await.unwrap();
    assert_eq!((killed.exit_code, killed.signal, killed.stderr_truncated), (None, Some(9), true));
    assert!(!killed.success());

    let windows = outcome([STARTED, &ended(r#""exitcode":3221225477"#)]).await.unwrap();
    assert_eq!(windows.exit_code, Some(0xC000_0005_u32 as i32));
}

#[tokio::test(start_paused = true)]
async fn a_refused_start_has_no_effect() {
    let missing = r#"{"error":{"class":"GenericError","desc":"Guest agent command failed, error was 'Failed to execute child process “nope” (No such file or directory)'"}}"#;
    let error = outcome([missing]).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.effect()), ("guest-exec-failed", Effect::None));
    assert_eq!(
        error.to_string(),
        r#"cannot run "uname" in the guest: Failed to execute child process “nope” (No such file or directory)"#
    );

    let disabled = r#"{"error":{"class":"CommandNotFound","desc":"Command guest-exec has been disabled"}}"#;
    let error = outcome([disabled]).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.effect()), ("agent-command-disabled", Effect::None));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_the_start_leaves_the_effect_unknown() {
    let never = Step::late(Duration::from_secs(3600), STARTED);
    let error = outcome([never]).await.unwrap_err();
    assert_eq!(
        (error.kind().as_str(), error.effect(), error.is_timeout()),
        ("call-timeout", Effect::Unknown, true)
    );

    for garbage in ["", "not json", r#"{"return":{}}"#, r#"{"return":{"pid":"41"}}"#] {
        let error = outcome([garbage]).await.unwrap_err();
        assert_eq!(
            (error.kind().as_str(), error.effect()),
            ("invalid-reply", Effect::Unknown),
            "{garbage:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_result_keeps_its_reason_and_the_process_id() {
    let late = Step::late(Duration::from_secs(3600), ENDED);
    let error = outcome([STARTED.into(), late]).await.unwrap_err();
    assert_eq!(
        (error.kind().as_str(), error.effect(), error.is_timeout()),
        ("call-timeout", Effect::Unknown, true)
    );
    assert!(error.to_string().contains("process 41"), "{error}");
    assert!(error.source().is_some());

    let gone = outcome([STARTED.into(), transport(ErrorKind::AgentNotConnected).into()] as [Step; 2]).await;
    let error = gone.unwrap_err();
    assert_eq!((error.kind().as_str(), error.effect()), ("agent-not-connected", Effect::Unknown));

    let garbage = outcome([STARTED, r#"{"return":{"exited":true,"out-data":"%%%"}}"#]).await.unwrap_err();
    assert_eq!((garbage.kind().as_str(), garbage.effect()), ("invalid-reply", Effect::Unknown));
}

#[tokio::test(start_paused = true)]
async fn output_that_is_too_large_means_that_the_program_ended() {
    let libvirt = LibvirtError { code: 39, domain: 7, level: 2, message: "Unable to encode".into() };
    let too_large =
        ProtocolError::OutputTooLarge { peer: Peer::Agent, channel_lost: false, libvirt: Some(libvirt) };
    let error = outcome([STARTED.into(), too_large.into()] as [Step; 2]).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.effect()), ("output-too-large", Effect::Done));
    assert_eq!(error.libvirt().unwrap().code, 39);
}

#[tokio::test(start_paused = true)]
async fn a_query_that_failed_temporarily_is_repeated() {
    for kind in [ErrorKind::MonitorBusy, ErrorKind::AgentUnresponsive] {
        let replies = [STARTED.into(), transport(kind).into(), RUNNING.into(), ENDED.into()] as [Step; 4];
        assert!(outcome(replies).await.unwrap().success());
    }
    // The answer was lost with the failure, and the agent has forgotten the process.
    let replies = [STARTED.into(), transport(ErrorKind::AgentUnresponsive).into(), NO_SUCH_PID.into()];
    let error = outcome(replies as [Step; 3]).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.effect()), ("process-lost", Effect::Unknown));

    let busy = outcome([STARTED.into(), transport(ErrorKind::MonitorBusy).into()] as [Step; 2]).await;
    let error = busy.unwrap_err();
    assert_eq!((error.kind().as_str(), error.effect()), ("exec-timeout", Effect::Unknown));
    assert!(error.source().is_some(), "the last failure is kept as the cause");
}

#[tokio::test]
async fn output_through_files_survives_a_failure_of_any_command() {
    let policy =
        ExecPolicy { spool: SpoolPolicy { chunk: 1000, ..SpoolPolicy::default() }, ..ExecPolicy::default() };
    let print = "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done; echo err >&2; exit 3";
    for fault in [Fault::Unsent, Fault::Unanswered, Fault::Hangs, Fault::Refused] {
        for at in 1.. {
            let folder = tempfile::tempdir().unwrap();
            let spec = ExecSpec::shell(print).spooled(folder.path().to_str().unwrap());
            let guest = LocalGuest::with_fault(at, fault);
            let mut process = start(&guest, &spec, soon()).await.unwrap();
            let mut waited = None;
            for _ in 0..3 {
                waited = tokio::select! {
                    waited = process.wait(&guest, &policy, soon()) => Some(waited),
                    () = guest.hangs.notified() => None,
                };
                if matches!(waited, Some(Ok(_))) {
                    break;
                }
            }
            let forgets = guest.went_wrong().as_deref() == Some("guest-exec-status");
            match waited.unwrap() {
                Ok(output) => {
                    assert_eq!((output.exit_code, output.stderr.as_slice()), (Some(3), &b"err\n"[..]));
                    assert!(output.stdout.starts_with(b"line 0\n") && output.stdout.ends_with(b"line 499\n"));
                    assert_eq!(output.stdout.len(), 500 * "line 100\n".len() - 10 * 2 - 90);
                }
                // The answer that reported its end was lost.
                Err(error) => {
                    assert!(forgets && fault != Fault::Unsent, "{fault:?} at {at}: {error:?}");
                    assert_eq!(error.effect(), Effect::Unknown);
                    process.discard(&guest, &policy, soon()).await;
                }
            }
            if guest.went_wrong().is_none() {
                assert!(at > 10);
                assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
                assert_eq!(guest.open_files(), 0);
                break;
            }
        }
    }
}

#[tokio::test]
async fn output_above_the_limit_is_marked_as_truncated() {
    let spool = SpoolPolicy { most: 10, ..SpoolPolicy::default() };
    let policy = ExecPolicy { spool, ..ExecPolicy::default() };
    let folder = tempfile::tempdir().unwrap();
    for (print, truncated) in [("printf 0123456789", false), ("printf 0123456789x", true)] {
        let spec = ExecSpec::shell(print).spooled(folder.path().to_str().unwrap());
        let output = run_with(&LocalGuest::default(), &spec, &policy, soon()).await.unwrap();
        assert_eq!((output.stdout.as_slice(), output.stdout_truncated), (&b"0123456789"[..], truncated));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

const NO_SHELL: &str = r#"{"error":{"class":"GenericError","desc":"Guest agent command failed, error was 'Das System kann die angegebene Datei nicht finden'"}}"#;
const WINDOWS: &str =
    r#"{"return":{"id":"mswindows","name":"Microsoft Windows","pretty-name":"Windows Server 2022"}}"#;

#[tokio::test]
async fn a_windows_guest_runs_lines_in_its_own_shell_and_programs_in_a_directory() {
    let guest = WindowsGuest::new();
    std::fs::create_dir_all(guest.drive.path().join("Windows/Temp")).unwrap();
    std::fs::create_dir(guest.drive.path().join("work")).unwrap();
    let printed = "Gr\u{81}\u{e1}e".as_bytes();
    for spec in [
        ExecSpec::shell(r#"dir "C:\a b""#).arg("| find \"x\""),
        ExecSpec::new("find.exe").args(["a b", "x"]).in_directory(r"C:\work").with_env("A", "b=c"),
        ExecSpec::new("find.exe").spooled("/tmp"),
        ExecSpec::new("find.exe").spooled("/tmp").in_directory(r"C:\work"),
        ExecSpec::new("find.exe").spooled(r"C:\work"),
    ] {
        let output = run(&guest, &spec, soon()).await.unwrap();
        assert_eq!((output.exit_code, output.stdout.as_slice()), (Some(0), printed), "{spec:?}");
    }
    let launched = guest.launched();
    assert_eq!(launched[0], ["cmd.exe", r#"/d /s /c "dir "C:\a b" | find "x"""#, "", ""]);
    assert_eq!(launched[1], ["find.exe", r#""a b" x"#, r"C:\work", "", "A=b=c"]);
    assert!(launched[2][3].starts_with(r"C:\Windows\Temp\.atp-exec-"), "{:?}", launched[2]);
    assert!(launched[4][3].starts_with(r"C:\work\.atp-exec-"), "{:?}", launched[4]);
    // No file is left.
    for folder in ["Windows/Temp", "work"] {
        assert_eq!(std::fs::read_dir(guest.drive.path().join(folder)).unwrap().count(), 0);
    }
    let error = run(&guest, &ExecSpec::new("x").in_directory(r"C:\none"), soon()).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.effect()), ("guest-exec-failed", Effect::None));
    assert!(error.to_string().contains(r"no such directory: C:\none"), "{error}");
    // A path of another system, and paths of two systems.
    let error = run(&guest, &ExecSpec::new("x").in_directory("/work"), soon()).await.unwrap_err();
    assert_eq!(error.kind(), "guest-shell-missing");
    let error =
        run(&guest, &ExecSpec::new("x").in_directory(r"C:\x").spooled("/var"), soon()).await.unwrap_err();
    assert_eq!(error.kind(), "invalid-command");
}

#[tokio::test]
async fn an_exception_of_windows_is_its_signal() {
    for (status, exit_code, signal) in [
        (0xC000_0005, None, Some(0xC000_0005_u32.cast_signed())),
        (0x8007_0005, Some(0x8007_0005_u32.cast_signed()), None),
        (3, Some(3), None),
    ] {
        let guest = WindowsGuest::ending_with(status);
        let output = run(&guest, &ExecSpec::shell("x.exe"), soon()).await.unwrap();
        assert_eq!((output.exit_code, output.signal), (exit_code, signal));
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_without_a_shell_refuses_only_work_that_needs_one() {
    // A Windows without PowerShell, such as Nano Server.
    for spec in [ExecSpec::shell("dir"), ExecSpec::new("dir").spooled("/tmp")] {
        let script = Script::new([NO_SHELL, WINDOWS, NO_SHELL, WINDOWS]);
        assert_eq!(run(&script, &spec, soon()).await.unwrap_err().kind(), "guest-exec-failed");
    }
    for spec in [ExecSpec::new("dir").in_directory("/tmp"), ExecSpec::new("dir").spooled("/var")] {
        let script = Script::new([NO_SHELL, WINDOWS]);
        let error = run(&script, &spec, soon()).await.unwrap_err();
        assert_eq!(
            (error.kind().as_str(), error.effect()),
            ("guest-shell-missing", Effect::None),
            "{error:?}"
        );
        assert!(error.to_string().starts_with("Windows Server 2022 has no /bin/sh"), "{error}");
        assert!(error.hint().contains("drive letter"), "{}", error.hint());
        assert_eq!(script.sent().len(), 2, "nothing is asked again");
    }
    // A missing program without a shell is an ordinary error.
    let script = Script::new([NO_SHELL, WINDOWS]);
    assert_eq!(run(&script, &spec(), soon()).await.unwrap_err().kind(), "guest-exec-failed");
    // An agent that cannot report its system still reports why the shell was not started.
    let small = r#"{"error":{"class":"GenericError","desc":"Guest agent command failed, error was 'Failed to execute child process \u201c/bin/sh\u201d (No such file or directory)'"}}"#;
    let error = run(&Script::new([small, NO_SUCH_PID]), &ExecSpec::shell("ls"), soon()).await.unwrap_err();
    assert_eq!(error.kind(), "guest-shell-missing");
    assert!(error.to_string().starts_with("the guest has no /bin/sh"), "{error}");
    // A guest that has a shell, but not enough memory for it.
    let full = r#"{"error":{"class":"GenericError","desc":"Guest agent command failed, error was 'Failed to fork'"}}"#;
    let error = run(&Script::new([full, NO_SUCH_PID]), &ExecSpec::shell("ls"), soon()).await.unwrap_err();
    assert_eq!(error.kind(), "guest-exec-failed");
}

#[tokio::test(start_paused = true)]
async fn pauses_of_any_length_end_with_the_deadline() {
    let endless = Duration::MAX;
    for polling in [
        Polling { first: endless, ..Polling::default() },
        Polling { second: endless, ..Polling::default() },
        Polling { factor: f64::INFINITY, longest: endless, ..Polling::default() },
    ] {
        let (policy, deadline) = (ExecPolicy { polling, ..ExecPolicy::default() }, soon());
        let script = Script::new([STARTED, RUNNING]);
        let error = run_with(&script, &spec(), &policy, deadline).await.unwrap_err();
        assert_eq!(error.kind(), "exec-timeout");
        assert!(Instant::now() <= deadline);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_removal_of_files_is_repeated() {
    const FAILED: &str = r#"{"return":{"exited":true,"exitcode":1}}"#;
    let policy = SpoolPolicy { reserve: Duration::MAX, ..SpoolPolicy::default() };
    let mut spool = spool::Spool::new("/tmp");
    for (replies, commands) in [([STARTED, FAILED], 2), ([STARTED, ENDED], 2), ([STARTED, ENDED], 0)] {
        let script = Script::new(replies);
        spool.remove(&script, &policy, soon()).await;
        assert_eq!(script.sent().len(), commands);
    }
}
