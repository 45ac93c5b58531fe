//! Passwords that a person is asked for.

use std::io::Read as _;
use std::process::Stdio;

use crate::atp::{Home, Run};

const SETTINGS: &str = "\
[hosts.h1]
uri = \"qemu+tcp://127.0.0.1:1/system\"
auth = { username = \"me\", password_prompt = true }
";

/// Waits in the shell until the terminal shows nothing of what is typed, or the command has ended.
const UNTIL_ASKED: &str =
    "until stty -a </dev/tty | grep -q -e '-echo ' || ! kill -0 $atp; do sleep 0.1; done";

/// What a line for the shell writes on a terminal, where `$ATP` is the command. Nothing is typed there.
fn on_a_terminal(home: &Home, line: &str) -> Run {
    let mut command = home.command("script");
    command.args(["--quiet", "--return", "--command", line, "/dev/null"]);
    command.env("ATP", env!("CARGO_BIN_EXE_atp")).env("TERM", "xterm").env_remove("CI");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    // Held open: closing it would end the terminal's input.
    let typed = child.stdin.take();
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let status = child.wait().unwrap();
    drop(typed);
    Run { stdout, stderr: String::new(), status }
}

#[test]
fn a_signal_ends_the_prompt_and_restores_the_terminal() {
    let home = Home::new();
    let file = home.write("atp.toml", SETTINGS);
    for command in ["vm list", "doctor", "events"] {
        let line = format!(
            "\"$ATP\" --config '{}' {command} </dev/tty & atp=$!; {UNTIL_ASKED}; kill -TERM $atp; wait $atp; \
             echo ended with $?; stty -a </dev/tty",
            file.display()
        );
        let run = on_a_terminal(&home, &line);
        for text in
            ["Password of me for host h1: ", "nothing was done", "ended with 143", " echo ", " icanon"]
        {
            assert!(run.stdout.contains(text), "{command}: no {text:?} in {run:#?}");
        }
    }
}

#[test]
fn nothing_is_shown_over_the_question() {
    let home = Home::new();
    let file = home.write("atp.toml", SETTINGS);
    // Long enough for the spinner of a wait for hosts to appear.
    let line = format!(
        "\"$ATP\" --config '{}' vm list </dev/tty & atp=$!; {UNTIL_ASKED}; sleep 1; kill -TERM $atp; wait $atp",
        file.display()
    );
    let run = on_a_terminal(&home, &line);
    assert!(run.stdout.contains("Password of me") && !run.stdout.contains("asking the hosts"), "{run:#?}");
}

#[test]
fn without_a_terminal_there_is_no_prompt() {
    let home = Home::new();
    let file = home.write("atp.toml", SETTINGS);
    for command in [&["vm", "list"][..], &["doctor"], &["events"]] {
        let run = home.run(["--config", file.to_str().unwrap()].iter().chain(command)).exits(2);
        run.says(&["the password of host h1 needs a prompt", "password_file"]);
    }
}
