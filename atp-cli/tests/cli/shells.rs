//! Completions, as a shell asks for them, and manual pages.

use std::fs;

use crate::atp::{DEMO, Home, Run};

/// The names of VMs, as they are kept for a short while.
const CACHE: &str = ".cache/atp/vms.json";

/// What bash is offered for the last word of a line.
fn offered(home: &Home, words: &[&str]) -> Vec<String> {
    let mut command = home.atp(["--", "atp"].iter().chain(words));
    command
        .env("_ATP_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env("_CLAP_IFS", "\n");
    Run::of(&mut command).exits(0).stdout.lines().map(str::to_owned).collect()
}

/// The names of VMs that bash is offered. Hosts are waited for a second, and one that did not answer is not asked again
/// for a while; on a busy machine this one may be such a host.
fn offered_vms(home: &Home, words: &[&str]) -> Vec<String> {
    for _ in 0..20 {
        let offered = offered(home, words);
        if !offered.is_empty() {
            return offered;
        }
        fs::remove_file(home.path(CACHE)).unwrap();
    }
    Vec::new()
}

#[test]
fn a_dry_run_writes_no_manual_pages() {
    let home = Home::new();
    home.run(["man", "pages", "--dry-run"]).exits(0).without_data().says(&["would be written to pages"]);
    assert!(!home.path("pages").exists());
    home.run(["man", "pages"]).exits(0);
    assert!(home.path("pages/atp-exec.1").exists());
}

#[test]
fn commands_options_hosts_groups_and_vms_are_offered() {
    let home = Home::new();
    home.write(
        ".config/atp/config.toml",
        "[hosts.h1]\nuri = \"test:///default\"\ngroups = [\"lab\"]\n[hosts.h2]\nuri = \"test:///default\"\n",
    );
    assert!(offered(&home, &["v"]).contains(&"vm".to_owned()));
    assert!(offered(&home, &["vm", "list", "--par"]).contains(&"--parallel".to_owned()));
    assert!(offered(&home, &["-o", "c"]).contains(&"csv".to_owned()));
    assert_eq!(offered(&home, &["host", "remove", ""])[..2], ["h1", "h2"]);
    assert_eq!(offered(&home, &["host", "check", "@"]), ["@lab"]);
    assert_eq!(offered(&home, &["exec", "h"]), ["h1/", "h2/"]);
    assert_eq!(offered_vms(&home, &["exec", "te"]), ["test"]);
    assert_eq!(offered_vms(&home, &["vm", "start", "@lab/"]), ["@lab/test"]);
    assert_eq!(offered_vms(&home, &["vm", "start", "x", "--exclude", "h1/t"]), ["h1/test"]);
    assert_eq!(offered_vms(&home, &["events", "h1/t"]), ["h1/test"]);
    assert_eq!(offered_vms(&home, &["--host", DEMO, "vm", "info", "demo/"]), ["demo/test"]);
}

#[test]
fn names_of_vms_come_from_a_short_lived_cache() {
    let home = Home::new();
    let host = home.host("h1", &["first"]);
    assert_eq!(offered_vms(&home, &["--host", &host, "vm", "info", "h1/"]), ["h1/first"]);
    home.host("h1", &["second"]);
    assert_eq!(offered_vms(&home, &["--host", &host, "vm", "info", "h1/"]), ["h1/first"]);
    fs::remove_file(home.path(CACHE)).unwrap();
    assert_eq!(offered_vms(&home, &["--host", &host, "vm", "info", "h1/"]), ["h1/second"]);
}

#[test]
fn what_is_wrong_is_no_trouble_for_the_shell() {
    let home = Home::new();
    let entry = format!("{{\"uri\":\"test:///default\",\"at\":{},\"names\":[\"x\"]}}", u64::MAX);
    let cache = format!("{{\"demo\":{entry}}}");
    // Hosts have a second, which is short on a busy machine.
    let offered_once = || {
        home.write(CACHE, &cache);
        offered(&home, &["--host", DEMO, "vm", "info", "demo/"])
    };
    let found = (0..20).map(|_| offered_once()).find(|found| !found.is_empty());
    assert_eq!(found, Some(vec!["demo/test".to_owned()]));
    home.write(".config/atp/config.toml", "not toml");
    assert!(offered(&home, &["exec", "h"]).is_empty());
    assert!(offered(&home, &["v"]).contains(&"vm".to_owned()));
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let run = home.run(["completions", shell]).exits(0);
        assert!(run.stdout.contains("_ATP_COMPLETE") && run.stderr.is_empty(), "{run:#?}");
    }
    home.run(["completions", "tcsh"]).exits(2).without_data();
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let home = Home::new();
    let run = home.run(["man"]).exits(0);
    assert!(run.stdout.contains(".TH atp 1"), "{run:#?}");
    home.run(["man", "man1"]).exits(0).without_data();
    let pages = home.path("man1");
    for page in ["atp.1", "atp-exec.1", "atp-vm-list.1", "atp-host-add.1"] {
        assert!(fs::read_to_string(pages.join(page)).unwrap().contains("Examples"), "{page}");
    }
    let plain = |page: &str| {
        let text = fs::read_to_string(pages.join(page)).unwrap();
        text.replace("\\fB", "").replace("\\fR", "").replace('\\', "")
    };
    let (exec, cp) = (plain("atp-exec.1"), plain("atp-cp.1"));
    assert!(exec.contains("\natp exec [OPTIONS] <SEL>... -- <CMD>...\n"), "{exec}");
    assert!(cp.contains("\natp cp [OPTIONS] <SRC> <DST>\n"), "{cp}");
    home.run(["man", "/proc/nowhere"]).exits(2).says(&["/proc/nowhere"]);
}
