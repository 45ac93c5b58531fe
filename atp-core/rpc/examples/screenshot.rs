//! Writes a picture of a domain's screen: `cargo run -p atp-rpc --example screenshot -- qemu:///system vm1 vm1.png`.

use std::error::Error;
use std::io::Write;

use atp_rpc::{ConnectOptions, Connection};

/// The most that waits to be written, bytes.
const BUFFER: usize = 64 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [uri, name, path] = &arguments[..] else { return Err("URI, domain and file are needed".into()) };
    let connection = Connection::open(uri, &ConnectOptions::default()).await?;
    let domain = connection.domain_by_name(name).await?;
    let (mime, mut picture) = connection.screenshot(&domain, 0, BUFFER).await?;
    let mut file = std::fs::File::create(path)?;
    while let Some(chunk) = picture.recv().await? {
        file.write_all(&chunk)?;
    }
    picture.finish().await?;
    println!("{path}: {}", mime.as_deref().unwrap_or("of an unknown form"));
    Ok(())
}
