//! Many streams, many starts, and what happens to the service under them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bed::{Bed, LONG, start};

/// A connection that is kept: requests one after the other.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn new(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream: BufReader::new(stream) }
    }

    /// The status of the answer, and its `Retry-After`.
    fn send(&mut self, request: &str) -> (u16, Option<String>) {
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut status, mut length, mut retry) = (0, 0, None);
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "the connection was closed");
            let line = line.trim_end();
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some((name, value)) = line.split_once(": ") {
                match name {
                    "content-length" => length = value.parse().unwrap(),
                    "retry-after" => retry = Some(value.to_owned()),
                    _ => {}
                }
            } else if line.is_empty() {
                break;
            }
        }
        self.stream.read_exact(&mut vec![0; length]).unwrap();
        (status, retry)
    }
}

/// The memory of a process, KiB.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// How long starts come. `ATP_LOAD_SECONDS=60` measures.
fn load() -> Duration {
    let seconds = std::env::var("ATP_LOAD_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

#[test]
fn streams_and_starts_without_number_do_not_fill_the_memory() {
    const STREAMS: usize = 300;
    const STARTERS: u32 = 4;
    const EACH_SECOND: u32 = 250;
    let bed = Bed::new();
    // So few that some are refused on a slow machine too.
    bed.settings("starts_per_second = 5");
    let token = bed.token(&["alice", "--role", "admin"]);
    let served = bed.serve();
    let address = served.address.clone();
    let listen =
        format!("GET /api/v1/events HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n");
    // None of them reads while the starts come. One would do; all show that none is remembered for the others.
    let streams: Vec<TcpStream> = (0..STREAMS)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(listen.as_bytes()).unwrap();
            stream.set_read_timeout(Some(LONG)).unwrap();
            let mut begun = [0; 15];
            stream.read_exact(&mut begun).unwrap();
            assert_eq!(&begun, b"HTTP/1.1 200 OK");
            stream
        })
        .collect();
    let body = r#"{"targets": {"selectors": ["h1/vm1"]}, "operation": {"op": "vm-info"}}"#;
    let start = format!(
        "POST /api/v1/plans HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let before = memory(served.child.id());
    let end = Instant::now() + load();
    let starters: Vec<_> = (0..STARTERS)
        .map(|_| {
            let (address, start) = (address.clone(), start.clone());
            thread::spawn(move || {
                let (mut client, mut answers) = (Client::new(&address), Vec::new());
                let mut next = Instant::now();
                while Instant::now() < end {
                    answers.push(client.send(&start));
                    next += Duration::from_secs(1) / EACH_SECOND;
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                answers
            })
        })
        .collect();
    let (mut healthy, mut times) = (Client::new(&address), Vec::new());
    while Instant::now() < end {
        let began = Instant::now();
        let (status, _) = healthy.send(&format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\n\r\n"));
        assert_eq!(status, 200);
        times.push(began.elapsed());
        thread::sleep(Duration::from_millis(20));
    }
    let answers: Vec<_> = starters.into_iter().flat_map(|starter| starter.join().unwrap()).collect();
    let grown = memory(served.child.id()).saturating_sub(before);
    let done = answers.iter().filter(|(status, _)| *status == 200).count();
    let refused: Vec<_> = answers.iter().filter(|(status, _)| *status != 200).collect();
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    println!("{} starts, {done} done; memory +{} MiB; /healthz p99 {p99:?}", answers.len(), grown / 1024);
    assert!(done > 0 && !refused.is_empty(), "{done} of {}", answers.len());
    assert!(refused.iter().all(|(status, retry)| *status == 429 && retry.is_some()), "{:?}", refused[0]);
    assert!(grown <= 100 * 1024, "memory grew by {grown} KiB");
    // A machine that stands still for a moment is no reason.
    assert!(p99 < Duration::from_secs(20), "/healthz takes {p99:?}");
    drop(streams);
    assert!(served.end("TERM").success());
}

#[test]
fn signals_and_bad_files_under_load_lose_nothing_that_was_answered() {
    const STARTERS: usize = 3;
    let bed = Bed::new();
    let token = bed.token(&["alice", "--role", "admin"]);
    bed.settings("starts_per_second = 100000\nrequests_per_second = 100000\ndrain = \"20s\"");
    let mut served = bed.serve();
    let run = json!({"targets": {"selectors": ["*"]}, "operation": {"op": "exec", "program": "true"}});
    let starters: Vec<_> = (0..STARTERS)
        .map(|starter| {
            let (address, token, run) = (served.address.clone(), token.clone(), run.clone());
            thread::spawn(move || {
                let mut answered = Vec::new();
                for number in 0.. {
                    let key = format!("s{starter}-{number}");
                    match start(&address, &token, &key, &run) {
                        Some((201, summary)) => answered.push((key, summary["id"].clone())),
                        // The service ends: what is not answered may be asked for again.
                        Some((503, problem)) => {
                            assert_eq!(problem["kind"], "service-stopping");
                            return (answered, key);
                        }
                        Some((status, answer)) => panic!("{status}: {answer}"),
                        None => return (answered, key),
                    }
                }
                unreachable!("keys have no end")
            })
        })
        .collect();
    for _ in 0..3 {
        served.signal("HUP");
        served.says("the settings were read again");
    }
    let good = fs::read_to_string(bed.path("fleet.toml")).unwrap();
    fs::write(bed.path("fleet.toml"), "this is no file of settings").unwrap();
    served.signal("HUP");
    served.says("the settings stay as they were");
    fs::write(bed.path("fleet.toml"), good).unwrap();
    served.signal("HUP");
    served.says("the settings were read again");
    assert!(served.end("TERM").success());
    let answered: Vec<_> = starters.into_iter().map(|starter| starter.join().unwrap()).collect();
    let count = answered.iter().map(|(runs, _)| runs.len()).sum::<usize>();
    assert!(count >= STARTERS, "{count}");

    // Each run that was answered is there, whole or interrupted; the same key is the same run, and starts nothing.
    let served = bed.serve();
    for (runs, unanswered) in &answered {
        for (key, id) in runs {
            let summary = served.run_until(&token, id, &["ended", "interrupted"]);
            assert_eq!(summary["targets"], 4, "{summary}");
            if summary["state"] == "ended" {
                assert_eq!(summary["statistics"]["counts"]["ok"], 4, "{summary}");
            }
            let (status, again) = served.start(&token, key, &run);
            assert_eq!((status, &again["id"]), (200, id), "{key}");
        }
        // Also what was not answered is done once at most.
        let (status, again) = served.start(&token, unanswered, &run);
        assert!(matches!(status, 200 | 201), "{again}");
        served.run_until(&token, &again["id"], &["ended", "interrupted"]);
    }
    let vms = bed.fleet.hosts().flat_map(|host| (1..=2).map(move |vm| host.vm(vm).unwrap()));
    let ran: Vec<u64> = vms.map(|vm| vm.counts().programs.total()).collect();
    let most = (count + STARTERS) as u64;
    assert!(ran.iter().all(|ran| *ran <= most), "{ran:?} of {most}");
}
