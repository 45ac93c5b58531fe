//! Programs of a simulated guest: a few built-in ones, and those that a test adds.

use std::fmt;
use std::time::Duration;

use super::files::Files;

/// A program that is to run in a guest.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Execution<'a> {
    /// The host's name: `h7`.
    pub host: &'a str,
    /// The VM's name: `vm1`.
    pub vm: &'a str,
    /// The program.
    pub path: &'a str,
    /// Its arguments.
    pub args: &'a [String],
    /// What it reads as standard input.
    pub stdin: &'a [u8],
}

/// How a program ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// How long it ran.
    pub after: Duration,
}

impl Exit {
    /// A program that succeeds at once, and wrote this to standard output.
    pub fn success(stdout: impl Into<Vec<u8>>) -> Self {
        Exit { stdout: stdout.into(), ..Exit::default() }
    }

    /// A program that fails at once, with an exit code and its standard error.
    pub fn failure(code: i32, stderr: impl Into<Vec<u8>>) -> Self {
        Exit { code, stderr: stderr.into(), ..Exit::default() }
    }
}

type Function = dyn Fn(&Execution<'_>) -> Option<Exit> + Send + Sync;

/// Programs that a test adds to the guests of a fleet.
pub struct Programs(Box<Function>);

impl Programs {
    /// Programs as a function from a program to its end; `None` means that there is no such program. The function is called
    /// with the host locked: it must not block or use the fleet.
    pub fn new(function: impl Fn(&Execution<'_>) -> Option<Exit> + Send + Sync + 'static) -> Self {
        Programs(Box::new(function))
    }

    pub(crate) fn run(&self, execution: &Execution<'_>) -> Option<Exit> {
        (self.0)(execution)
    }
}

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Programs")
    }
}

/// Runs a built-in program; `None` if there is no such program.
pub(super) fn built_in(execution: &Execution<'_>, files: &Files) -> Option<Exit> {
    let Execution { path, args, .. } = *execution;
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    if !["", "/bin", "/usr/bin"].contains(&folder) {
        return None;
    }
    let first = args.first().map(String::as_str);
    Some(match (name, first) {
        ("true", _) => Exit::default(),
        ("false", _) => Exit { code: 1, ..Exit::default() },
        ("echo", _) => Exit::success(args.join(" ") + "\n"),
        ("hostname", _) | ("uname", Some("-n")) => Exit::success(format!("{}\n", execution.vm)),
        ("uname", _) => Exit::success("Linux\n"),
        ("whoami", _) => Exit::success("root\n"),
        ("sleep", _) => match first.and_then(|text| text.parse().ok()).map(Duration::try_from_secs_f64) {
            Some(Ok(after)) => Exit { after, ..Exit::default() },
            _ => Exit::failure(1, "sleep: a number of seconds is missing\n"),
        },
        ("cat", None) => Exit::success(execution.stdin),
        ("cat", _) => cat(args, files),
        ("sh", Some("-c")) => match args {
            [_, script, _, line, seconds] if script.contains("exec timeout") => {
                ended_after(seconds, shell(line, execution, files))
            }
            _ => shell(args.get(1)?, execution, files),
        },
        _ => return None,
    })
}

/// What `timeout -s KILL` makes of a program.
fn ended_after(seconds: &str, exit: Exit) -> Exit {
    match seconds.parse().map(Duration::from_secs) {
        Ok(limit) if limit < exit.after => Exit { code: 137, after: limit, ..exit },
        _ => exit,
    }
}

fn cat(paths: &[String], files: &Files) -> Exit {
    let mut exit = Exit::default();
    for path in paths {
        match files.content(path) {
            Some(content) => exit.stdout.extend(content),
            None => {
                exit.code = 1;
                exit.stderr.extend(format!("cat: {path}: No such file or directory\n").into_bytes());
            }
        }
    }
    exit
}

/// How a command is joined to the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joint {
    Always,
    And,
    Or,
}

/// Runs a line of words, quotes, `;`, `&&` and `||`. It knows no variables, pipes or redirections, and says so.
fn shell(line: &str, execution: &Execution<'_>, files: &Files) -> Exit {
    let commands = match parse(line) {
        Ok(commands) => commands,
        Err(unknown) => {
            let message = format!("sh: the simulated shell does not know {unknown:?}\n");
            return Exit::failure(2, message);
        }
    };
    let mut whole = Exit::default();
    for (joint, words) in commands {
        let runs = match joint {
            Joint::Always => true,
            Joint::And => whole.code == 0,
            Joint::Or => whole.code != 0,
        };
        let Some((path, args)) = words.split_first().filter(|_| runs) else { continue };
        if path == "exit" {
            whole.code = args.first().and_then(|code| code.parse().ok()).unwrap_or(whole.code);
            break;
        }
        let exit = built_in(&Execution { path, args, ..*execution }, files);
        let exit = exit.unwrap_or_else(|| Exit::failure(127, format!("sh: {path}: not found\n")));
        whole.code = exit.code;
        whole.stdout.extend(exit.stdout);
        whole.stderr.extend(exit.stderr);
        whole.after += exit.after;
    }
    whole
}

/// Splits a line into commands of words. The error is the unknown character.
fn parse(line: &str) -> Result<Vec<(Joint, Vec<String>)>, char> {
    let mut commands = vec![(Joint::Always, Vec::new())];
    let mut word: Option<String> = None;
    let mut characters = line.chars().peekable();
    let end_word = |word: &mut Option<String>, commands: &mut Vec<(Joint, Vec<String>)>| {
        if let (Some(word), Some((_, words))) = (word.take(), commands.last_mut()) {
            words.push(word);
        }
    };
    while let Some(character) = characters.next() {
        match character {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some(end) if end == character => break,
                        Some(unknown @ ('$' | '`' | '\\')) if character == '"' => return Err(unknown),
                        Some(inside) => word.push(inside),
                        None => return Err(character),
                    }
                }
            }
            ' ' | '\t' => end_word(&mut word, &mut commands),
            ';' | '\n' => {
                end_word(&mut word, &mut commands);
                commands.push((Joint::Always, Vec::new()));
            }
            '&' | '|' if characters.peek() == Some(&character) => {
                characters.next();
                end_word(&mut word, &mut commands);
                commands.push((if character == '&' { Joint::And } else { Joint::Or }, Vec::new()));
            }
            '&' | '|' | '<' | '>' | '$' | '`' | '(' | ')' | '*' | '?' | '\\' | '#' | '~' => {
                return Err(character);
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    end_word(&mut word, &mut commands);
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> (i32, String) {
        let args = ["-c".to_owned(), line.to_owned()];
        let execution = Execution { host: "h1", vm: "vm1", path: "/bin/sh", args: &args, stdin: b"in" };
        let exit = built_in(&execution, &Files::default()).unwrap();
        (exit.code, String::from_utf8([exit.stdout, exit.stderr].concat()).unwrap())
    }

    #[test]
    fn a_line_of_the_shell() {
        assert_eq!(run("echo one  'two  three'; hostname"), (0, "one two  three\nvm1\n".to_owned()));
        assert_eq!(run("false && echo no || echo yes"), (0, "yes\n".to_owned()));
        assert_eq!(run("cat; exit 3; echo no"), (3, "in".to_owned()));
        assert_eq!(run("nope"), (127, "sh: nope: not found\n".to_owned()));
        assert_eq!(run("echo $HOME").0, 2);
        assert_eq!(run("echo 'open").0, 2);
        assert_eq!(run("").0, 0);
    }
}
