//! The fleet's own address, 127.0.0.1: a line asks, and an answer ends the connection.

use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::shared::Shared;

/// The longest line, bytes.
const LINE: u64 = 1_024;

/// Answers one line.
pub(crate) async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    // One that is no text is no command either.
    let _read = BufReader::new(read.take(LINE)).read_line(&mut line).await;
    let answer = answer(&line, &shared);
    // Fails if the client has left.
    let _written = write.write_all(answer.as_bytes()).await;
    let _shut = write.shutdown().await;
}

fn answer(line: &str, shared: &Shared) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let result = match words[..] {
        ["report"] => serde_json::to_string(&shared.report()).map_err(|error| error.to_string()),
        ["fault", target, fault] => shared.set_fault(target, Some(fault)).map(|()| "ok".to_owned()),
        ["heal", target] => shared.set_fault(target, None).map(|()| "ok".to_owned()),
        _ => Err("`report`, `fault TARGET FAULT` or `heal TARGET` is meant".to_owned()),
    };
    match result {
        Ok(answer) => answer + "\n",
        Err(error) => format!("error: {error}\n"),
    }
}
