//! `atp exec`, `atp qmp`, `atp qga`: what is said to guests and to QEMU.

use std::io::Read as _;
use std::path::Path;

use atp_executor::Operation;
use atp_protocol::{ExecSpec, RawCommand};

use crate::args::{ExecArgs, RawArgs};
use crate::commands::{Context, batch, selection};
use crate::problem::{Failure, Problem};

/// The file name that stands for this process's standard input.
const STDIN: &str = "-";

pub(crate) async fn exec(args: ExecArgs, context: &Context) -> Result<u8, Failure> {
    let stdin = args.stdin.as_deref().map(read_input).transpose()?;
    let mut words = args.command.into_iter();
    let program = words.next().unwrap_or_default();
    let spec = ExecSpec {
        program,
        args: words.collect(),
        env: args.env,
        stdin,
        shell: args.shell,
        cwd: args.cwd,
        spool: args.spool,
        encoding: args.encoding,
    };
    batch::run(selection(args.targets), Operation::Exec(spec), context).await
}

pub(crate) async fn qmp(args: RawArgs, context: &Context) -> Result<u8, Failure> {
    let command = raw(&args.command, "qmp")?;
    batch::run(selection(args.targets), Operation::Qmp(command), context).await
}

pub(crate) async fn qga(args: RawArgs, context: &Context) -> Result<u8, Failure> {
    let command = raw(&args.command, "qga")?;
    batch::run(selection(args.targets), Operation::Qga(command), context).await
}

fn raw(words: &[String], command: &str) -> Result<RawCommand, Problem> {
    RawCommand::from_words(words).map_err(|error| {
        Problem::new(error.to_string()).hint(format!("`atp {command} --help` shows how a command is written"))
    })
}

fn read_input(path: &Path) -> Result<Vec<u8>, Problem> {
    let read = if path == Path::new(STDIN) {
        let mut input = Vec::new();
        std::io::stdin().lock().read_to_end(&mut input).map(|_| input)
    } else {
        std::fs::read(path)
    };
    read.map_err(|error| Problem::new(format!("--stdin {}: cannot be read", path.display())).because(&error))
}
