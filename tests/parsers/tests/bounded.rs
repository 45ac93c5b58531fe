//! Runs the functions of the fuzz targets with a limited number of inputs.

use std::fs;
use std::path::Path;

use atp_parsers::{TARGETS, check};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Fragments of valid inputs, to be cut and joined.
const PIECES: [&str; 101] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\n",
    "=",
    "/",
    "'",
    "@",
    "*",
    "\u{ff}",
    "\\",
    "|",
    "..",
    "#",
    r#"{"return":"#,
    r#"{"error":{"class":"GenericError","desc":"x"}}"#,
    r#""id":1"#,
    r#"{"id":1,"#,
    r#"{"timestamp":{"seconds":1,"microseconds":2},"event":"STOP","data":"#,
    "null",
    "17",
    "-1e999",
    "true",
    "unable to execute QEMU agent command '",
    "': Command x has been disabled",
    "qemu+tcp://",
    "qga+tcp://",
    "[::1]:1",
    "[transport]\n",
    "[hosts.h1]\n",
    "uri = ",
    "call_timeout = '1s'\n",
    "[transport.pool]\n",
    "vm-",
    "h1/",
    "q=\"7\"",
    "ctrl",
    "-",
    "+",
    "move",
    "click",
    "drag",
    "right",
    "50%",
    "640",
    "P6 ",
    "2 1 ",
    "255\n",
    "name: x\n",
    "targets: vm\n",
    "steps:\n",
    "  - exec: uname\n",
    "    timeout: 5s\n",
    "    capture: c\n",
    "${vm}",
    "role=web",
    "30s",
    "1h 30m",
    "1000years",
    "call_timeout=5s\n",
    "pool.max_connections_per_host=0\n",
    "./a\0",
    "\0\0\0\0",
    "\0\0\0\u{1}",
    "\0\0\0\u{7}",
    "\0\0\0\u{1c}",
    "\0\0\0\u{3}vm1\0",
    "\u{1}\0\u{6}\0",
    "\0",
    "81a4 7 1 0 0 ./a\n",
    r#"{"started":{"host":"h1","vm":"vm1","uuid":"00000000-0000-0000-0000-000000000001","at":""}}"#,
    r#"{"finished":{"host":"h1","vm":"vm1","uuid":"00000000-0000-0000-0000-000000000001","status":"ok","effect":"done","attempts":1,"duration_ms":1,"data":null,"error":null}}"#,
    r#"{"finished":{"host":"h1","vm":"vm2","uuid":"00000000-0000-0000-0000-000000000002","status":"failed","effect":"none","attempts":1,"duration_ms":1,"data":null,"error":null}}"#,
    r#"{"resumed":{}}"#,
    r#"{"resumed":{"format":2,"lost":true}}"#,
    r#"{"resumed":{"moved":[{"uuid":"00000000-0000-0000-0000-000000000001","from":"h1","host":"h2"}]}}"#,
    r#"{"sealed":{"batch":7,"crc32":0}}"#,
    "<domain><devices>",
    "</devices></domain>",
    "<graphics type='vnc' port='5900'><listen type='address' address='::'/></graphics>",
    "<labels xmlns='urn:atp:labels:1'><label key='a' value='b'/></labels>",
    r#"{"ip-address":"10.0.0.1","ip-address-type":"ipv4","prefix":24}"#,
    r#"{"name":"lo","ip-addresses":["#,
    "\n[credentials-a]\n",
    "\nauthname=",
    "\npassword=",
    "\n[auth-libvirt-h1]\ncredentials=a\n",
    "\n[auth-libvirt-default]\ncredentials=a\n",
    "\nuri_default = ",
    "\nuri_aliases = [ ",
    "\"h1=qemu:///system\"",
    "\u{1}\u{3}\u{1}",
    "\u{1}\u{1}\u{2}",
    "v=AAAA",
    "\u{1b}[1;31m",
    "[   12.345678] Kernel panic - not syncing: ",
    "<hostdev type='pci'/>",
];

/// The first bytes of a PNG of 2 by 1 pixels.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x01";

fn input() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => prop::sample::select(&PIECES[..]).prop_map(|piece| piece.as_bytes().to_vec()),
        2 => prop::collection::vec(any::<u8>(), 0..8),
        1 => Just(PNG.to_vec()),
        1 => r"\PC{0,8}".prop_map(String::into_bytes),
        1 => (any::<u8>(), 0..600_usize).prop_map(|(byte, times)| vec![byte; times]),
    ];
    prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}

fn holds(target: &'static str) {
    let result = TestRunner::default().run(&input(), |bytes| {
        check(target, &bytes);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{target}: {error}");
    }
}

#[test]
fn agent_error() {
    holds("agent_error");
}

#[test]
fn auth_conf() {
    holds("auth_conf");
}

#[test]
fn channel_frames() {
    holds("channel_frames");
}

#[test]
fn chord() {
    holds("chord");
}

#[test]
fn console() {
    holds("console");
}

#[test]
fn domain_xml() {
    holds("domain_xml");
}

#[test]
fn filters() {
    holds("filters");
}

#[test]
fn fleet() {
    holds("fleet");
}

#[test]
fn frames() {
    holds("frames");
}

#[test]
fn guest_files() {
    holds("guest_files");
}

#[test]
fn guest_system() {
    holds("guest_system");
}

#[test]
fn journal() {
    holds("journal");
}

#[test]
fn libvirt_conf() {
    holds("libvirt_conf");
}

#[test]
fn libvirt_uri() {
    holds("libvirt_uri");
}

#[test]
fn monitor() {
    holds("monitor");
}

#[test]
fn mouse() {
    holds("mouse");
}

#[test]
fn raw_command() {
    holds("raw_command");
}

#[test]
fn reply() {
    holds("reply");
}

#[test]
fn rpc_events() {
    holds("rpc_events");
}

#[test]
fn rpc_frames() {
    holds("rpc_frames");
}

#[test]
fn rpc_link() {
    holds("rpc_link");
}

#[test]
fn rpc_open() {
    holds("rpc_open");
}

#[test]
fn rpc_replies() {
    holds("rpc_replies");
}

#[test]
fn rpc_uri() {
    holds("rpc_uri");
}

#[test]
fn rpc_xdr() {
    holds("rpc_xdr");
}

#[test]
fn scenario() {
    holds("scenario");
}

#[test]
fn screenshot() {
    holds("screenshot");
}

#[test]
fn selector() {
    holds("selector");
}

#[test]
fn settings() {
    holds("settings");
}

#[test]
fn socket_address() {
    holds("socket_address");
}

#[test]
fn every_function_has_a_fuzz_target_and_a_test_with_its_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let here = include_str!("bounded.rs");
    for (name, _) in TARGETS {
        let target = fs::read_to_string(folder.join("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(target.contains(&format!("atp_parsers::check(\"{name}\", data)")), "{name}: {target}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml lacks {name}");
        assert!(here.contains(&format!("holds(\"{name}\")")), "no test of {name}");
    }
}
