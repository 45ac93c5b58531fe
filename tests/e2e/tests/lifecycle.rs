//! `atp vm start|shutdown|reboot|reset|destroy|suspend|resume` on real guests.

use std::borrow::Cow;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atp_e2e::{Bed, Outcome, becomes, bed, eventually, within};
use atp_executor::{Executor, LifecycleSpec, Operation, Policy, RunControl, Selection, Status};
use atp_testbed::Proxy;
use atp_transport::domain::Lifecycle;
use atp_transport::{CallInfo, Effect, HostInfo, Interceptor, TransportManager};
use serde_json::json;
use tokio::sync::oneshot;

use crate::support::quick;

/// Time limit for a guest to boot, emulated on a busy machine.
const BOOT: Duration = Duration::from_secs(120);
/// Time limit for changes that happen soon.
const SOON: Duration = Duration::from_secs(60);

/// Runs a lifecycle command on one VM and checks its outcome and the state that libvirt reports afterwards.
#[track_caller]
fn changes(bed: &Bed, words: &str, expected: &str, state: &str) {
    let mut args = vec!["vm"];
    args.extend(words.split(' '));
    let run = bed.run(&args);
    let code = if expected.starts_with("failed") { 1 } else { 0 };
    run.exits_with(code);
    assert_eq!(run.brief(), [format!("h1/vm1 {expected}")], "{words}");
    assert_eq!(bed.host("h1").unwrap().guest("vm1").unwrap().state().unwrap(), state, "{words}");
}

/// The id of the guest's current boot.
#[track_caller]
fn boot_id(bed: &Bed) -> String {
    let run = bed.run(&["exec", "h1/vm1", "--", "cat", "/proc/sys/kernel/random/boot_id"]);
    run.exits_with(0).outcome("h1/vm1").stream("stdout").to_owned()
}

#[test]
fn a_vm_whose_memory_was_saved_is_shown_and_selected_as_such_and_goes_on_when_started() {
    let bed = bed();
    let h1 = bed.host("h1").unwrap();
    let before = boot_id(&bed);
    h1.virsh(&["managedsave", "vm1"]).unwrap();
    for engine in ["library", "native"] {
        let list = |args: &[&str]| bed.atp(&[&["--engine", engine, "vm", "list"][..], args].concat()).run();
        let saved = list(&["--state", "saved"]);
        let saved = saved.exits_with(0).stdout();
        assert!(saved.contains("vm1  shut off (saved)") && saved.lines().count() == 2, "{engine}: {saved}");
        let all = list(&["h1/"]);
        assert!(all.exits_with(0).stdout().contains("vm1  shut off (saved)"), "{engine}");
        let info = bed.atp(&["--engine", engine, "vm", "info", "h1/vm1"]).run();
        assert!(info.exits_with(0).stdout().contains("shut off (saved)"), "{engine}");
    }
    changes(&bed, "start h1/vm1 --wait", "ok done", "running");
    // The new QEMU has emptied the console, where a boot would show.
    eventually("the agent answers", BOOT, || h1.guest("vm1").unwrap().ping_agent());
    assert_eq!(boot_id(&bed), before, "the guest went on and did not boot");
}

#[test]
fn a_paused_vm_is_resumed_before_it_is_started_or_asked_anything() {
    let bed = bed();
    changes(&bed, "suspend h1/vm1 --wait", "ok done", "paused");
    changes(&bed, "start h1/vm1", "failed none operation-invalid", "paused");
    for args in [&["exec", "h1/vm1", "--", "true"][..], &["key", "h1/vm1", "--", "enter"]] {
        let run = bed.atp(args).run();
        run.exits_with(1);
        assert!(
            run.stderr.contains("not running: paused") && run.stderr.contains("resume it first"),
            "{}",
            run.stderr
        );
    }
    changes(&bed, "resume h1/vm1 --wait", "ok done", "running");
}

#[test]
fn each_state_is_reached_once() {
    let bed = bed();
    changes(&bed, "suspend h1/vm1 --wait", "ok done", "paused");
    changes(&bed, "suspend h1/vm1 --wait", "unchanged none", "paused");
    changes(&bed, "resume h1/vm1 --wait", "ok done", "running");
    changes(&bed, "resume h1/vm1", "unchanged none", "running");
    changes(&bed, "start h1/vm1", "unchanged none", "running");
    changes(&bed, "shutdown h1/vm1 --wait", "ok done", "shut off");
    changes(&bed, "shutdown h1/vm1 --wait", "unchanged none", "shut off");
    changes(&bed, "destroy h1/vm1", "unchanged none", "shut off");
    for verb in ["suspend", "resume", "reboot", "reset"] {
        changes(&bed, &format!("{verb} h1/vm1"), "failed none vm-not-running", "shut off");
    }
    changes(&bed, "start h1/vm1 --wait", "ok done", "running");
    bed.host("h1").unwrap().guest("vm1").unwrap().wait_agent(BOOT).unwrap();
    changes(&bed, "destroy h1/vm1 --wait", "ok done", "shut off");
}

#[test]
fn reboot_and_reset_boot_the_guest_anew() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    // An earlier test may have left more than one boot there.
    guest.destroy().unwrap();
    guest.start().unwrap();
    guest.wait_agent(BOOT).unwrap();
    // The line that the guest writes to its console when it is nearly up. The console file lasts as long as the QEMU
    // process.
    let boots = || fs::read_to_string(guest.console()).unwrap().matches("init: starting the agent").count();
    assert_eq!(boots(), 1);
    for (verb, count) in [("reboot", 2), ("reset", 3)] {
        let before = boot_id(&bed);
        changes(&bed, &format!("{verb} h1/vm1 --wait --timeout 2m"), "ok done", "running");
        // The command has waited for it: the guest is up again.
        assert_eq!(boots(), count, "{verb}");
        assert_ne!(boot_id(&bed), before, "{verb}");
    }
}

/// Sends a message when a VM has been asked to restart.
struct Asked(Mutex<Option<oneshot::Sender<()>>>);

impl Interceptor for Asked {
    fn name(&self) -> Cow<'_, str> {
        "asked".into()
    }

    fn after(&self, call: &CallInfo<'_>, _: Duration) {
        if call.operation == "virDomainReboot"
            && let Some(asked) = self.0.lock().unwrap().take()
        {
            let _unheard = asked.send(());
        }
    }
}

#[test]
fn a_restart_whose_event_is_lost_is_detected() {
    let bed = bed();
    let host = bed.host("h1").unwrap();
    let guest = host.guest("vm1").unwrap();
    guest.destroy().unwrap();
    guest.start().unwrap();
    guest.wait_agent(BOOT).unwrap();
    // A guest that takes its time: its connections are lost before it restarts. Without its agent, libvirt does not wait
    // for that, and presses the power button.
    let slow = "printf '#!/bin/sh\nsleep 10\nexec /sbin/shutdown -P now\n' > /etc/acpi/PWRF/00000080; until pidof acpid; do sleep 0.1; done";
    bed.run(&["exec", "h1/vm1", "--", "sh", "-c", slow]).exits_with(0);
    guest.stop_agent().unwrap();
    becomes("the agent's channel", SOON, json!("disconnected"), || {
        bed.run(&["vm", "info", "h1/vm1"]).outcome("h1/vm1").data["agent"].clone()
    });
    let console = || fs::read_to_string(guest.console()).unwrap();
    let boots = || console().matches("init: starting the agent").count();
    assert_eq!(boots(), 1);

    let proxy = host.proxy().unwrap();
    within(Duration::from_secs(250), async {
        let (asked, is_asked) = oneshot::channel();
        let manager = TransportManager::new(quick()).with_interceptor(Asked(Mutex::new(Some(asked))));
        manager.add_host(HostInfo::from_uri("h1", proxy.uri())).await.unwrap();
        let executor = Executor::new(manager);
        let operation = Operation::Lifecycle(LifecycleSpec::awaited(Lifecycle::Reboot));
        let policy = Policy { timeout: Duration::from_secs(150), ..Policy::default() };
        let vm1 = Selection::of(["h1/vm1".parse().unwrap()]);
        let plan = executor.plan(&vm1, operation, policy).await.unwrap();
        let run = executor.run(plan, &RunControl::default());
        let lose = async {
            is_asked.await.unwrap();
            proxy.cut();
            tokio::task::block_in_place(|| {
                eventually("the guest restarts", BOOT, || match boots() {
                    2 => Ok(()),
                    _ => Err(console()),
                });
            });
            proxy.pass();
        };
        let (outcomes, ()) = tokio::join!(run.outcomes(), lose);
        let [outcome] = &outcomes[..] else { panic!("{outcomes:#?}") };
        assert_eq!((outcome.status, outcome.effect), (Status::Ok, Effect::Done), "{outcome:#?}");
    });
}

/// Counts the connections to a host when a VM has been asked to restart.
struct Counts(Arc<Proxy>, Arc<Mutex<Vec<usize>>>);

impl Interceptor for Counts {
    fn name(&self) -> Cow<'_, str> {
        "counts".into()
    }

    fn after(&self, call: &CallInfo<'_>, _: Duration) {
        if call.operation == "virDomainReboot" {
            self.1.lock().unwrap().push(self.0.connections());
        }
    }
}

#[test]
fn vms_that_restart_on_one_host_share_the_connection_that_watches_it() {
    let bed = bed();
    let host = bed.host("h1").unwrap();
    for vm in ["vm1", "vm2"] {
        let guest = host.guest(vm).unwrap();
        guest.destroy().unwrap();
        guest.start().unwrap();
    }
    for vm in ["vm1", "vm2"] {
        host.guest(vm).unwrap().wait_agent(BOOT).unwrap();
    }
    let (proxy, counts) = (Arc::new(host.proxy().unwrap()), Arc::new(Mutex::new(Vec::new())));
    within(Duration::from_secs(250), async {
        let mut config = quick();
        // All calls are made on one connection, so that every other one watches.
        config.pool.max_connections_per_host = 1;
        let interceptor = Counts(proxy.clone(), counts.clone());
        let manager = TransportManager::new(config).with_interceptor(interceptor);
        manager.add_host(HostInfo::from_uri("h1", proxy.uri())).await.unwrap();
        let executor = Executor::new(manager);
        let operation = Operation::Lifecycle(LifecycleSpec::awaited(Lifecycle::Reboot));
        let policy = Policy { timeout: Duration::from_secs(150), ..Policy::default() };
        let both = Selection::of(["h1/vm1".parse().unwrap(), "h1/vm2".parse().unwrap()]);
        let plan = executor.plan(&both, operation, policy).await.unwrap();
        let outcomes = executor.run(plan, &RunControl::default()).outcomes().await;
        assert_eq!(outcomes.len(), 2);
        for outcome in &outcomes {
            assert_eq!((outcome.status, outcome.effect), (Status::Ok, Effect::Done), "{outcome:#?}");
        }
        assert_eq!(*counts.lock().unwrap(), [2, 2], "connections: one for calls, one that watches");
        becomes("connections when all have restarted", SOON, 1, || proxy.connections());
    });
}

#[test]
fn several_vms_are_not_stopped_without_consent() {
    let bed = bed();
    for verb in ["destroy", "reset", "reboot", "shutdown", "suspend"] {
        let run = bed.atp(&["vm", verb, "*/vm1"]).run();
        run.exits_with(2);
        assert_eq!(run.stdout(), "");
        assert!(run.stderr.contains("3 VMs needs confirmation; nothing was done"), "{}", run.stderr);
        assert!(run.stderr.contains("--yes"), "{}", run.stderr);
    }
    assert!(bed.guests().iter().all(|guest| guest.state().unwrap() == "running"));

    // A command that takes nothing away needs no consent, nor does a single VM.
    assert_eq!(bed.run(&["vm", "resume", "*/vm1"]).exits_with(0).brief().len(), 3);
    let run = bed.run(&["vm", "suspend", "*/vm1", "--yes"]);
    assert_eq!(run.exits_with(0).brief(), ["h1/vm1 ok done", "h2/vm1 ok done", "h3/vm1 ok done"]);
    let run = bed.run(&["vm", "resume", "*"]);
    assert_eq!(
        run.exits_with(0).brief(),
        [
            "h1/vm1 ok done",
            "h1/vm2 unchanged none",
            "h2/vm1 ok done",
            "h2/vm2 unchanged none",
            "h3/vm1 ok done",
            "h3/vm2 unchanged none",
        ]
    );
}

#[test]
fn a_dry_run_changes_nothing() {
    let bed = bed();
    bed.host("h2").unwrap().guest("vm2").unwrap().destroy().unwrap();
    let before = bed.run(&["vm", "list"]).outcomes();
    let run = bed.run(&["vm", "destroy", "h1/", "h2/", "--dry-run"]);
    run.exits_with(0);
    assert_eq!(
        run.brief(),
        ["h1/vm1 skipped none", "h1/vm2 skipped none", "h2/vm1 skipped none", "h2/vm2 unchanged none"]
    );
    assert!(run.outcomes().iter().all(|outcome| outcome.attempts == 0));
    let exec = bed.run(&["exec", "h1/vm1", "--dry-run", "--", "touch", "/tmp/dry"]);
    assert_eq!(exec.exits_with(0).brief(), ["h1/vm1 skipped none"]);
    assert_eq!(
        bed.run(&["exec", "h1/vm1", "--", "test", "-e", "/tmp/dry"]).brief(),
        ["h1/vm1 failed done exit-nonzero"]
    );
    let states = |outcomes: Vec<Outcome>| -> Vec<_> {
        outcomes.into_iter().map(|outcome| (outcome.name(), outcome.data)).collect()
    };
    assert_eq!(states(bed.run(&["vm", "list"]).outcomes()), states(before));
}

#[test]
fn a_guest_that_ignores_the_request_is_a_timeout() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    // Neither the power button nor the agent has an effect now. In a guest that has just booted, the agent is up
    // before the power button.
    bed.run(&["exec", "h1/vm1", "--", "sh", "-c", "until killall acpid; do sleep 0.1; done"]).exits_with(0);
    guest.stop_agent().unwrap();
    // Until libvirt knows that the agent is gone, the request would go to the agent, which has five seconds to
    // answer.
    becomes("the agent's channel", SOON, json!("disconnected"), || {
        bed.run(&["vm", "info", "h1/vm1"]).outcome("h1/vm1").data["agent"].clone()
    });
    let run = bed.run(&["--timeout", "12s", "vm", "shutdown", "h1/vm1", "--wait"]);
    run.exits_with(1).took_between(12, 70);
    assert_eq!(run.brief(), ["h1/vm1 timeout done state-not-reached"]);
    assert_eq!(guest.state().unwrap(), "running");
    // Restores the guest for other tests.
    guest.destroy().unwrap();
}

#[test]
fn a_paused_vm_cannot_be_asked_to_shut_down_or_reboot() {
    let bed = bed();
    bed.host("h1").unwrap().virsh(&["suspend", "vm1"]).unwrap();
    for verb in ["shutdown", "reboot"] {
        changes(&bed, &format!("{verb} h1/vm1 --wait"), "failed none vm-not-running", "paused");
        let run = bed.run(&["vm", verb, "h1/vm1"]);
        let failure = run.outcome("h1/vm1").failure().clone();
        assert!(failure.message.contains("paused"), "{failure:?}");
        assert!(failure.hint.as_ref().unwrap().contains("resume"), "{failure:?}");
    }
}

#[test]
fn a_state_that_a_pending_command_may_change_is_not_reported_as_unchanged() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    guest.pause_qemu().unwrap();
    let run = bed.run(&["vm", "suspend", "h1/vm1", "--timeout", "10s"]);
    assert_eq!(run.exits_with(1).brief(), ["h1/vm1 timeout unknown call-timeout"]);
    for verb in ["resume", "start"] {
        let run = bed.run(&["vm", verb, "h1/vm1"]);
        assert_eq!(run.exits_with(1).brief(), ["h1/vm1 failed none monitor-busy"], "{verb}");
    }
    guest.resume_qemu().unwrap();
    becomes("state", SOON, "paused".to_owned(), || guest.state().unwrap());
    // The command that was given up ends a moment after its effect is visible.
    let host = bed.host("h1").unwrap();
    becomes("the monitor", SOON, "ok".to_owned(), || {
        host.virsh(&["domcontrol", "vm1"]).unwrap().trim().to_owned()
    });
    changes(&bed, "resume h1/vm1", "ok done", "running");
}

#[test]
fn a_hung_vm_can_be_destroyed() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    guest.pause_qemu().unwrap();
    changes(&bed, "destroy h1/vm1 --wait", "ok done", "shut off");
}
