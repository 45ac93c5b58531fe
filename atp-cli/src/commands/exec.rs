//! `atp exec`: a command in the guests.

use std::io::Read as _;
use std::path::Path;

use atp_executor::Operation;
use atp_protocol::ExecSpec;

use crate::args::ExecArgs;
use crate::batch;
use crate::commands::selection;
use crate::context::Context;
use crate::problem::{Failure, Problem};

/// The file name that stands for this process's standard input.
const STDIN: &str = "-";

pub(crate) async fn run(args: ExecArgs, context: &Context) -> Result<u8, Failure> {
    let stdin = args.stdin.as_deref().map(read_input).transpose()?;
    let mut words = args.command.into_iter();
    let program = words.next().unwrap_or_default();
    if program.is_empty() {
        let problem = Problem::new("there is no program to run: the first word after `--` is empty");
        return Err(problem.hint("quote a variable that may be empty only if it is not the program").into());
    }
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

fn read_input(path: &Path) -> Result<Vec<u8>, Problem> {
    let read = if path == Path::new(STDIN) {
        let mut input = Vec::new();
        std::io::stdin().lock().read_to_end(&mut input).map(|_| input)
    } else {
        std::fs::read(path)
    };
    read.map_err(|error| Problem::new(format!("--stdin {}: cannot be read", path.display())).because(&error))
}
