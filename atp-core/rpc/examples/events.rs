//! Prints what happens to a host's domains: `cargo run -p atp-rpc --example events -- qemu:///system`.

use std::error::Error;

use atp_rpc::{ConnectOptions, Connection, EventId, EventItem};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let uri = std::env::args().nth(1).unwrap_or_default();
    let connection = Connection::open(&uri, &ConnectOptions::default()).await?;
    let mut events = connection.events(1_000);
    for id in EventId::ALL {
        connection.watch(&events, id, None).await?;
    }
    while let Some(item) = events.next().await {
        match item {
            EventItem::Event(event) => println!("{}: {:?}", event.domain.name, event.kind),
            EventItem::Gap { missed } => println!("{missed} events are missing"),
        }
    }
    Err(connection.closed().await.to_string().into())
}
