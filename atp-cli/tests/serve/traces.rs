//! Spans of the service at a collector.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::bed::Bed;

/// A collector of OpenTelemetry: its address, and the bodies that it gets.
fn collector() -> (String, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let (sender, bodies) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                loop {
                    let mut length = 0;
                    loop {
                        let mut line = String::new();
                        if stream.read_line(&mut line).is_ok_and(|read| read > 0) && line != "\r\n" {
                            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                                length = value.trim().parse().unwrap();
                            }
                            continue;
                        }
                        break;
                    }
                    let mut body = vec![0; length];
                    if length == 0 || stream.read_exact(&mut body).is_err() {
                        return;
                    }
                    let _unheard = sender.send(body);
                    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, bodies)
}

#[test]
fn requests_and_calls_are_spans_at_a_collector_and_no_token_is_among_them() {
    let (address, bodies) = collector();
    let bed = Bed::new();
    let token = bed.token(&["alice", "--role", "admin"]);
    bed.settings(&format!("traces = \"{address}\""));
    let served = bed.serve();
    assert_eq!(served.get("/api/v1/vms?max_age=0s", &token).0, 200);
    // The last spans are sent at the end.
    assert!(served.end("TERM").success());
    let spans = bodies.try_iter().flatten().collect::<Vec<u8>>();
    let has = |text: &str| spans.windows(text.len()).any(|window| window == text.as_bytes());
    for text in ["request", "/api/v1/vms", "execute", "call", "atp"] {
        assert!(has(text), "no {text:?} in {}", String::from_utf8_lossy(&spans));
    }
    assert!(!has(&token[4..]));
}

#[test]
fn an_address_that_is_none_is_refused_before_the_service_begins() {
    let bed = Bed::new();
    bed.settings("traces = \"not an address\"");
    let refused = bed.atp(&["serve"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("not an address") && said.contains("serve.traces"), "{said}");
}
