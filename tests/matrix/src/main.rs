//! Tries every verb on each daemon, and each way to a daemon, with both engines: `cargo xtask matrix`.
//!
//! The tables in `docs/compatibility.md` are written by a whole run.

mod call;
mod document;
mod report;
mod verbs;
mod ways;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use atp_testbed::{DiskFormat, Host, Libvirt, Testbed};
use clap::Parser;

use report::{Report, Scope};
use verbs::{VERBS, WITHOUT_DAEMON};

/// Try every verb on each daemon, and each way to a daemon, with both engines, and write docs/compatibility.md
#[derive(Parser)]
struct Cli {
    /// Only the most important verbs, and only on the daemons of other Debian releases. Writes nothing
    #[arg(long)]
    smoke: bool,
    /// Only these daemons: machine, trixie, trixie-modular, testing. Writes nothing
    #[arg(long = "daemon", value_name = "LIBVIRT", value_delimiter = ',')]
    daemons: Vec<Libvirt>,
    /// Only the verbs and ways that have this in their names. Writes nothing
    #[arg(long, value_name = "TEXT", conflicts_with = "smoke")]
    only: Option<String>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let own = std::env::current_exe().context("the path of this program is not known")?;
    let program = own.with_file_name("atp");
    every_command_has_a_row(&program)?;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md");
    let is_whole = !cli.smoke && cli.daemons.is_empty() && cli.only.is_none();
    if cli.smoke {
        page_has_every_row(&page)?;
    }
    let daemons = match (&cli.daemons[..], cli.smoke) {
        ([], true) => Libvirt::ALL.into_iter().filter(|libvirt| *libvirt != Libvirt::Machine).collect(),
        ([], false) => Libvirt::ALL.to_vec(),
        (some, _) => some.to_vec(),
    };
    let hosts = u8::try_from(daemons.len()).context("too many daemons")?;
    let bed = Testbed::builder().hosts(hosts).guests(1).disks(DiskFormat::Qcow2).daemons(&daemons).start()?;
    let folder = tempfile::tempdir()?;
    // An ordinary user runs `atp` too.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let program = copied(&program, folder.path())?;
    let scope = match &cli.only {
        Some(text) => Scope::Named(text.clone()),
        None if cli.smoke => Scope::Smoke,
        None => Scope::All,
    };
    let make = |host: &Host| Report::make(host, &program, &folder.path().join(host.id()), &scope);
    let reports: Vec<Result<Report>> = thread::scope(|threads_of| {
        let threads: Vec<_> = bed.hosts().iter().map(|host| threads_of.spawn(|| make(host))).collect();
        let results = threads.into_iter().map(thread::ScopedJoinHandle::join);
        results.map(|result| result.unwrap_or_else(|_| Err(anyhow!("a thread panicked")))).collect()
    });
    let reports: Vec<Report> = reports.into_iter().collect::<Result<_>>()?;
    bed.down()?;
    if is_whole {
        fs::write(&page, document::document(&reports))?;
    }
    let counts: Vec<(usize, usize)> = reports.iter().map(Report::counts).collect();
    let (all, failed) = counts.iter().fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1));
    ensure!(all > 0, "no verb and no way has {:?} in its name", cli.only.as_deref().unwrap_or_default());
    println!("matrix: {all} tried, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A copy that every user can run.
fn copied(program: &Path, folder: &Path) -> Result<PathBuf> {
    let copy = folder.join("atp");
    fs::copy(program, &copy).with_context(|| format!("{} is not built", program.display()))?;
    Ok(copy)
}

/// Fails if the page lacks a row of this program: then a whole run has to write it anew.
fn page_has_every_row(page: &Path) -> Result<()> {
    let text = fs::read_to_string(page).context("docs/compatibility.md")?;
    let mut lines = text.lines();
    for row in document::rows() {
        ensure!(
            lines.any(|line| line.starts_with(&row)),
            "docs/compatibility.md has no row {row:?} where it should be: `cargo xtask matrix` writes it"
        );
    }
    Ok(())
}

/// Fails if `atp` has a command that is neither a verb of the matrix nor one that connects to nothing, or the matrix has one
/// that `atp` has not.
fn every_command_has_a_row(program: &Path) -> Result<()> {
    // A row may be of an option.
    let command = |name: &'static str| name.split(" --").next().unwrap_or(name);
    let tried: BTreeSet<&str> = VERBS.iter().map(|verb| command(verb.name)).chain(WITHOUT_DAEMON).collect();
    let mut known = BTreeSet::new();
    for command in commands(program, &[])? {
        let below =
            if tried.contains(command.as_str()) { Vec::new() } else { commands(program, &[&command])? };
        match &below[..] {
            [] => drop(known.insert(command)),
            below => known.extend(
                below.iter().filter(|below| *below != "help").map(|below| format!("{command} {below}")),
            ),
        }
    }
    let known: BTreeSet<&str> = known.iter().map(String::as_str).collect();
    ensure!(known == tried, "not the same: the commands {known:?} and those of the matrix {tried:?}");
    Ok(())
}

/// The commands below a command, as its help lists them.
fn commands(program: &Path, of: &[&str]) -> Result<Vec<String>> {
    let help = Command::new(program).args(of).arg("--help").env_remove("COLUMNS").output();
    let help = help.with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&help.stdout);
    let listed = text.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.is_empty());
    Ok(listed.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}
