//! Says what a daemon is: `cargo run -p atp-rpc --example host -- qemu:///system`.

use std::error::Error;

use atp_rpc::{ConnectOptions, Connection};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let uri = std::env::args().nth(1).unwrap_or_default();
    let connection = Connection::open(&uri, &ConnectOptions::default()).await?;
    let (hostname, libvirt) = tokio::try_join!(connection.hostname(), connection.lib_version())?;
    println!(
        "{hostname}: {} {}, libvirt {libvirt}",
        connection.driver_type().await?,
        connection.version().await?
    );
    println!("{:#?}", connection.node_info().await?);
    connection.close().await?;
    Ok(())
}
