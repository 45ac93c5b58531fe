//! Information from guests, and other functions of their agents.

use std::time::{Duration, SystemTime};

use atp_e2e::{becomes, bed, eventually};
use atp_protocol::files::{Push, Source, TransferPolicy};
use atp_protocol::guest::{self, FreezePolicy, Password, PowerAction, PowerPolicy, PoweredBy};
use atp_protocol::{ExecSpec, LibvirtCarrier, exec};
use serde_json::json;

use crate::files::on_guest;

/// Time limit for changes that happen soon; the machine may be busy.
const SOON: Duration = Duration::from_secs(90);

#[test]
fn a_guest_reports_its_system() {
    let bed = bed();
    on_guest(&bed, |connection, uuid| async move {
        let carrier = LibvirtCarrier::new(connection.clone(), uuid);
        let deadline = connection.deadline().unwrap();
        guest::ping(&carrier, deadline).await?;
        let info = guest::info(&carrier, deadline).await?;
        assert!(
            info.supported_commands.iter().any(|command| command.name == "guest-exec" && command.enabled)
        );
        let os = guest::os(&carrier, deadline).await?;
        assert_eq!((os.id.as_deref(), os.machine.as_deref()), (Some("atp-test-guest"), Some("x86_64")));
        assert_eq!(guest::host_name(&carrier, deadline).await?, "vm1");
        assert_eq!(guest::timezone(&carrier, deadline).await?.offset, 0);

        let up = ExecSpec::shell("ip link add d0 type dummy || ip addr add 10.9.8.7/24 dev lo; ip -4 addr");
        exec::run(&carrier, &up, deadline).await?;
        let interfaces = guest::interfaces(&carrier, deadline).await?;
        let addresses: Vec<_> = interfaces.iter().flat_map(|interface| &interface.addresses).collect();
        let reachable = |ip: &str| {
            addresses.iter().find(|a| a.ip.to_string() == ip).map(|a| (a.prefix, a.is_reachable()))
        };
        assert_eq!(reachable("127.0.0.1"), Some((8, false)));
        assert_eq!(reachable("10.9.8.7"), Some((24, true)));
        exec::run(&carrier, &ExecSpec::shell("ip addr del 10.9.8.7/24 dev lo"), deadline).await?;

        assert!(exec::run(&carrier, &ExecSpec::new("mount-data"), deadline).await?.success());
        let disks = guest::disks(&carrier, deadline).await?;
        assert!(disks.iter().any(|disk| disk.name == "/dev/vda" && !disk.partition), "{disks:?}");
        let filesystems = guest::filesystems(&carrier, deadline).await?;
        assert!(
            filesystems.iter().any(|fs| fs.mountpoint == "/data" && fs.type_ == "ext2"),
            "{filesystems:?}"
        );
        Ok(())
    });
}

#[test]
fn clocks_users_passwords_and_keys() {
    let bed = bed();
    on_guest(&bed, |connection, uuid| async move {
        let carrier = LibvirtCarrier::new(connection.clone(), uuid);
        let deadline = connection.deadline().unwrap();

        let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        guest::set_time(&carrier, Some(past), deadline).await?;
        let shown = guest::time(&carrier, deadline).await?;
        let since = shown.duration_since(past).unwrap();
        assert!(since < Duration::from_secs(60), "{since:?}");
        guest::set_time(&carrier, Some(SystemTime::now()), deadline).await?;
        assert!(guest::time(&carrier, deadline).await? > past + Duration::from_secs(1000));

        // A login record in the C library's format.
        assert!(guest::users(&carrier, deadline).await?.is_empty());
        let mut record = vec![0_u8; 384];
        record[0] = 7;
        record[8..13].copy_from_slice(b"ttyS0");
        record[44..48].copy_from_slice(b"root");
        record[340..344].copy_from_slice(&1_000_000_000_u32.to_le_bytes());
        let source = Source::from_bytes("utmp", record, 0o644);
        Push::new(source.into(), "/run/utmp", TransferPolicy::default())
            .run(&carrier, deadline, &mut |_| {})
            .await?;
        let users = guest::users(&carrier, deadline).await?;
        assert!(users.len() == 1 && users[0].user == "root", "{users:?}");
        exec::run(&carrier, &ExecSpec::new("rm").arg("/run/utmp"), deadline).await?;

        guest::set_password(&carrier, "root", &Password::plain("s3cret:word"), deadline).await?;
        let check = r#"hash=$(sed -n 's/^root:\([^:]*\):.*/\1/p' /etc/shadow); salt=${hash#\$6\$}; salt=${salt%%\$*}
            [ "$(mkpasswd -m sha512 -S "$salt" s3cret:word)" = "$hash" ]"#;
        assert!(exec::run(&carrier, &ExecSpec::shell(check), deadline).await?.success());
        guest::set_password(&carrier, "root", &Password::encrypted("*"), deadline).await?;
        let error =
            guest::set_password(&carrier, "nobody", &Password::plain("hush"), deadline).await.unwrap_err();
        assert!(!format!("{error:?} {error}").contains("hush"), "{error:?}");

        let key = |name: &str| format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{name} {name}@test");
        guest::add_ssh_keys(&carrier, "root", &[key("a"), key("b")], true, deadline).await?;
        guest::add_ssh_keys(&carrier, "root", &[key("b"), key("c")], false, deadline).await?;
        guest::remove_ssh_keys(&carrier, "root", &[key("a")], deadline).await?;
        let mut keys = guest::ssh_keys(&carrier, "root", deadline).await?;
        keys.sort();
        assert_eq!(keys, [key("b"), key("c")]);
        exec::run(&carrier, &ExecSpec::shell("rm -r /root/.ssh"), deadline).await.map(drop)
    });
}

#[test]
fn frozen_file_systems_are_always_thawed() {
    let bed = bed();
    on_guest(&bed, |connection, uuid| async move {
        let carrier = || LibvirtCarrier::new(connection.clone(), uuid);
        let deadline = connection.deadline().unwrap();
        assert!(exec::run(&carrier(), &ExecSpec::new("mount-data"), deadline).await?.success());
        let policy = FreezePolicy::default();
        let look = || async { guest::frozen(&carrier(), deadline).await };

        let inside = guest::with_frozen(carrier(), &[], policy, deadline, look()).await??;
        assert_eq!((inside, look().await?), (true, false));
        let refused = async {
            let error = exec::run(&carrier(), &ExecSpec::new("true"), deadline).await.unwrap_err();
            error.kind()
        };
        let data = ["/data".to_owned()];
        assert_eq!(guest::with_frozen(carrier(), &data, policy, deadline, refused).await?, "guest-frozen");
        assert!(!look().await?);

        // The work takes too long.
        let short = FreezePolicy { longest: Duration::from_millis(300), ..policy };
        let overran = guest::with_frozen(carrier(), &[], short, deadline, async {
            while look().await.unwrap() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert_eq!(overran.await.unwrap_err().kind(), "thawed-early");

        // The caller is dropped, and a panic.
        let (is_frozen, frozen) = tokio::sync::oneshot::channel();
        let (owned, gone) = (carrier(), async move {
            is_frozen.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        let task =
            tokio::spawn(
                async move { guest::with_frozen(owned, &[], policy, deadline, gone).await.map(drop) },
            );
        frozen.await.unwrap();
        assert!(look().await?);
        task.abort();
        while look().await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let owned = carrier();
        let panics = async move { std::panic::resume_unwind(Box::new("a panic")) };
        let task =
            tokio::spawn(
                async move { guest::with_frozen::<_, ()>(owned, &[], policy, deadline, panics).await },
            );
        assert!(task.await.unwrap_err().is_panic());
        while look().await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    });
}

#[test]
fn a_guest_shuts_down_by_its_agent_or_else_by_the_power_button() {
    let bed = bed();
    let guest_of = |bed: &atp_e2e::Bed| bed.host("h1").unwrap().guest("vm1").unwrap();
    let power = |action| {
        on_guest(&bed, |connection, uuid| async move {
            let carrier = LibvirtCarrier::new(connection.clone(), uuid);
            let policy = PowerPolicy { agent_timeout: Duration::from_secs(20) };
            guest::power(&carrier, action, policy, connection.deadline().unwrap()).await
        })
    };
    let vm = guest_of(&bed);
    let boot_id = || {
        let run =
            bed.run(&["--timeout", "5s", "exec", "h1/vm1", "--", "cat", "/proc/sys/kernel/random/boot_id"]);
        run.outcomes().first().and_then(|o| o.data["stdout"]["text"].as_str().map(str::to_owned))
    };
    let before = eventually("the boot there is", SOON, || boot_id().ok_or(()));
    assert_eq!(power(PowerAction::Reboot), PoweredBy::Agent);
    becomes("another boot", SOON, true, || boot_id().is_some_and(|id| id != before));
    assert_eq!(power(PowerAction::Shutdown), PoweredBy::Agent);
    becomes("the state", SOON, "shut off".to_owned(), || vm.state().unwrap());
    vm.start().unwrap();
    vm.wait_agent(SOON).unwrap();
    vm.stop_agent().unwrap();
    assert_eq!(power(PowerAction::Shutdown), PoweredBy::PowerButton);
    becomes("the state", SOON, "shut off".to_owned(), || vm.state().unwrap());
}

#[test]
fn info_includes_data_from_the_guest_and_waits_only_briefly_for_it() {
    let bed = bed();
    bed.run(&["exec", "h1/vm1", "--", "ip", "addr", "add", "10.9.8.7/24", "dev", "lo"]).exits_with(0);
    let data = eventually("data from the guest", SOON, || {
        let data = bed.run(&["vm", "info", "h1/vm1"]).exits_with(0).outcome("h1/vm1").data;
        if data["guest"].is_null() { Err(data) } else { Ok(data) }
    });
    assert_eq!((&data["state"], &data["guest"]["hostname"]), (&json!("running"), &json!("vm1")));
    assert_eq!(data["guest"]["addresses"], json!(["10.9.8.7"]));
    assert_eq!(data["guest"]["os"]["name"], json!("ATP test guest 1"));
    eventually("the same in a table", SOON, || {
        let table = bed.atp(&["vm", "info", "h1/vm1"]).run();
        if table.exits_with(0).stdout().contains("addresses   10.9.8.7\n") { Ok(()) } else { Err(table) }
    });
    bed.run(&["exec", "h1/vm1", "--", "ip", "addr", "del", "10.9.8.7/24", "dev", "lo"]).exits_with(0);

    // A stopped QEMU keeps the agent's channel open.
    let vm = bed.host("h1").unwrap().guest("vm1").unwrap();
    vm.pause_qemu().unwrap();
    bed.run(&["vm", "suspend", "h1/vm2"]).exits_with(0);
    let info = bed.run(&["--timeout", "20s", "vm", "info", "h1/vm1", "h1/vm2"]);
    vm.resume_qemu().unwrap();
    assert_eq!(info.exits_with(0).brief(), ["h1/vm1 ok none", "h1/vm2 ok none"]);
    let silent = info.outcome("h1/vm1");
    assert_eq!((&silent.data["guest"], silent.data["guest_error"].is_object()), (&json!(null), true));
    // A paused guest is not asked at all.
    assert_eq!(info.outcome("h1/vm2").data["guest_error"], json!(null));
}
