//! The library on real hosts: parallel work, and work that fails independently.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use atp_e2e::{Resources, bed, within};
use atp_transport::{Effect, Engine, ErrorKind, TransportConfig, TransportError};

use crate::support::{IDS, in_seconds, manager, nothing_is_held, vm};

/// Time limit of each test.
const LIMIT: Duration = Duration::from_secs(180);
/// Time limit for changes that happen soon; the machine may be busy.
const SOON: Duration = Duration::from_secs(60);

/// The defaults, except that idle threads end soon.
fn config() -> TransportConfig {
    let mut config = atp_e2e::config();
    config.calls.thread_idle_timeout = Duration::from_millis(500);
    config
}

#[test]
fn work_on_several_hosts_runs_in_parallel() {
    let bed = bed();
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        // A barrier of all three: sequential work would never end.
        let meeting = Arc::new(tokio::sync::Barrier::new(3));
        let results = manager
            .execute_on_hosts_with(&IDS, in_seconds(60), move |connection| {
                let meeting = meeting.clone();
                async move {
                    let hostname = connection.hostname().await?;
                    meeting.wait().await;
                    Ok::<_, TransportError>(hostname)
                }
            })
            .await;
        assert_eq!(results.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), IDS);
        assert!(results.iter().all(|(_, result)| result.is_ok()), "{results:?}");
    });
}

#[test]
fn blocking_calls_to_hosts_run_in_parallel() {
    let bed = bed();
    within(LIMIT, async {
        let manager = manager(&bed, TransportConfig { engine: Engine::Library, ..config() }).await;
        // The same inside the calls, each of which blocks its thread.
        let meeting = Arc::new(Barrier::new(3));
        let options = in_seconds(60);
        let work = move |connection: atp_transport::LibvirtConnection| {
            let meeting = meeting.clone();
            async move {
                let both = move |version| {
                    meeting.wait();
                    version
                };
                connection
                    .run_blocking("virConnectGetLibVersion", |connect| connect.lib_version().map(both))
                    .await
            }
        };
        let results = manager.execute_on_all_hosts_with(options, work).await;
        assert_eq!(results.len(), 3);
        assert!(results.iter().all(|(_, result)| matches!(result, Ok(9_000_000..))), "{results:?}");
    });
}

#[test]
fn what_only_the_c_library_has_is_refused_by_the_native_engine() {
    let bed = bed();
    within(LIMIT, async {
        let manager = manager(&bed, TransportConfig { engine: Engine::Native, ..config() }).await;
        let work = |connection: atp_transport::LibvirtConnection| async move {
            connection.run_blocking("virConnectGetLibVersion", |connect| connect.lib_version()).await
        };
        let error = manager.execute_on_host("h1", work).await.unwrap_err();
        assert!(matches!(error, TransportError::NeedsLibrary { .. }), "{error:?}");
        assert_eq!((error.kind(), error.effect()), (ErrorKind::NotSupported, Effect::None));
        assert!(error.hint().to_string().contains("engine = \"library\""), "{}", error.hint());
    });
}

#[test]
fn a_panic_is_an_error_of_its_host_only() {
    let bed = bed();
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        let work = |connection: atp_transport::LibvirtConnection| async move {
            let domains = connection.list_domains().await?.len();
            if connection.host_id().as_str() == "h2" {
                // Panics without the report on stderr.
                std::panic::resume_unwind(Box::new("the closure is broken"));
            }
            Ok::<_, TransportError>(domains)
        };
        let results = manager.execute_on_all_hosts(work).await;
        assert!(matches!(results[0], (_, Ok(2))) && matches!(results[2], (_, Ok(2))), "{results:?}");
        let error = results[1].1.as_ref().unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Panicked, Effect::Unknown));
        assert!(error.to_string().contains("the closure is broken"), "{error}");

        // The connection was returned and works.
        let stats = manager.pool("h2").unwrap().stats();
        assert_eq!((stats.total_active_uses, stats.idle_connections), (0, 1), "{stats}");
        manager.execute_on_host("h2", |connection| async move { connection.hostname().await }).await.unwrap();
    });
}

#[test]
fn many_parallel_callers_of_one_host_all_get_their_answers() {
    let bed = bed();
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        let uuids = ["vm1", "vm2"].map(|name| vm(&bed, "h1", name));
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..200 {
            let (manager, uuid) = (manager.clone(), uuids[n % 2]);
            tasks.spawn(async move {
                let work = |connection: atp_transport::LibvirtConnection| async move {
                    connection
                        .agent_command(
                            uuid,
                            &format!(r#"{{"execute":"guest-sync","arguments":{{"id":{n}}}}}"#),
                        )
                        .await
                };
                // They are executed in sequence: the last waits for a hundred answers of an emulated guest.
                (n, manager.execute_on_host_with("h1", in_seconds(120), work).await)
            });
        }
        // Each caller gets its own answer.
        for (n, answer) in tasks.join_all().await {
            assert_eq!(answer.unwrap(), format!(r#"{{"return":{n}}}"#));
        }
        let stats = manager.pool("h1").unwrap().stats();
        assert!(stats.total_connections <= 10 && stats.calls_in_flight == 0, "{stats}");
    });
}

#[test]
fn a_closed_manager_leaves_nothing_behind() {
    let bed = bed();
    nothing_is_held(SOON);
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        let results =
            manager.execute_on_all_hosts(|connection| async move { connection.list_domains().await }).await;
        assert!(results.iter().all(|(_, result)| result.is_ok()), "{results:?}");
        assert_eq!(Resources::now().sockets, 3);
        assert!(manager.close(SOON).await);
        assert!(manager.hosts().is_empty());
        nothing_is_held(SOON);
    });
}
