use atp_rpc::{Connection, EventId, EventItem, EventKind, Events};

use crate::daemon::Daemon;

async fn next(events: &mut Events) -> EventKind {
    match events.next().await {
        Some(EventItem::Event(event)) => {
            assert_eq!(event.domain.name, "test");
            event.kind
        }
        other => panic!("{other:?}"),
    }
}

async fn restart(connection: &Connection) {
    let domain = connection.domain_by_name("test").await.unwrap();
    connection.destroy_domain(&domain, 0).await.unwrap();
    connection.start_domain(&domain).await.unwrap();
}

const STOPPED: EventKind = EventKind::Lifecycle { event: 5, detail: 1 };
const STARTED: EventKind = EventKind::Lifecycle { event: 2, detail: 0 };

#[tokio::test]
async fn changes_are_told_in_their_order() {
    let daemon = Daemon::start();
    let connection = daemon.connect().await;
    assert!(connection.has_events());
    let mut events = connection.events(16);
    connection.watch(&events, EventId::Lifecycle, None).await.unwrap();
    connection.watch(&events, EventId::MetadataChange, None).await.unwrap();
    restart(&connection).await;
    assert_eq!(next(&mut events).await, STOPPED);
    assert_eq!(next(&mut events).await, STARTED);
    daemon.virsh(&["desc", "test", "--title", "--live", "T"]);
    assert_eq!(next(&mut events).await, EventKind::MetadataChange { kind: 1, namespace: None });
}

#[tokio::test]
async fn every_kind_can_be_registered() {
    let daemon = Daemon::start();
    let connection = daemon.connect().await;
    let events = connection.events(16);
    let domain = connection.domain_by_name("test").await.unwrap();
    for id in EventId::ALL {
        connection.watch(&events, id, None).await.unwrap();
        connection.watch(&events, id, Some(&domain)).await.unwrap();
    }
    // The test driver has no monitors.
    assert!(connection.watch_monitor(&events, None, None).await.is_err());
}

#[tokio::test]
async fn a_dropped_queue_is_deregistered() {
    let daemon = Daemon::start();
    let connection = daemon.connect().await;
    let dropped = connection.events(2);
    connection.watch(&dropped, EventId::Lifecycle, None).await.unwrap();
    let mut events = connection.events(16);
    let twice = connection.watch(&events, EventId::Lifecycle, None).await.unwrap_err();
    assert!(twice.is_code(8), "{twice:?}");
    drop(dropped);
    // It is not waited for, so the daemon may still have the one that was dropped.
    while let Err(error) = connection.watch(&events, EventId::Lifecycle, None).await {
        assert!(error.is_code(8), "{error:?}");
    }
    restart(&connection).await;
    assert_eq!(next(&mut events).await, STOPPED);
    assert_eq!(next(&mut events).await, STARTED);
}
