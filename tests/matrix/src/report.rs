//! What came of the verbs and ways of one daemon.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use atp_testbed::{Host, Libvirt};

use crate::call::Atp;
use crate::verbs::{self, OK, VERBS};
use crate::ways::{Site, Way};

/// The engines, in the order of the cells.
pub(crate) const ENGINES: [&str; 2] = ["library", "native"];

/// What works, or why it does not.
pub(crate) type Cell = Result<String, String>;

/// Which verbs and ways are tried.
#[derive(Debug)]
pub(crate) enum Scope {
    All,
    /// The most important verbs.
    Smoke,
    /// Those with this in their names.
    Named(String),
}

impl Scope {
    fn has(&self, name: &str, in_smoke: bool) -> bool {
        match self {
            Self::All => true,
            Self::Smoke => in_smoke,
            Self::Named(text) => name.contains(text.as_str()),
        }
    }
}

/// The results of one daemon, for each engine.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) libvirt: Libvirt,
    pub(crate) libvirt_version: String,
    pub(crate) qemu_version: String,
    verbs: Vec<(&'static str, [Cell; 2])>,
    ways: Vec<(Way, [Cell; 2])>,
}

impl Report {
    /// Tries what is in the scope on a host.
    pub(crate) fn make(host: &Host, program: &Path, folder: &Path, scope: &Scope) -> Result<Self> {
        let version = host.virsh(&["version", "--daemon"])?;
        let field = |name: &str| version.lines().find_map(|line| line.strip_prefix(name));
        let mut report = Self {
            libvirt: host.libvirt(),
            libvirt_version: field("Running against daemon: ").unwrap_or("unknown").to_owned(),
            qemu_version: field("Running hypervisor: QEMU ").unwrap_or("unknown").to_owned(),
            verbs: Vec::new(),
            ways: Vec::new(),
        };
        fs::create_dir_all(folder)?;
        let mut site = Site::new(host, folder)?;
        let config = site.config(Way::Tcp)?;
        let calls = ENGINES.map(|engine| Atp {
            program: program.to_owned(),
            config: config.clone(),
            engine,
            as_nobody: false,
        });
        for verb in VERBS.iter().filter(|verb| scope.has(verb.name, verb.in_smoke)) {
            let cells =
                calls.each_ref().map(|atp| report.told(verb.name, atp.engine, (verb.check)(atp, folder)));
            report.verbs.push((verb.name, cells));
        }
        for asks in [false, true] {
            let ways: Vec<Way> = Way::ALL.into_iter().filter(|way| way.asks() == asks).collect();
            let ways: Vec<Way> = ways.into_iter().filter(|way| scope.has(way.name(), false)).collect();
            if !ways.is_empty() {
                site.serve(asks)?;
            }
            for way in ways {
                let config = site.config(way)?;
                let cells = calls.each_ref().map(|atp| {
                    let atp = Atp { as_nobody: way == Way::Polkit, ..atp.with_config(&config) };
                    report.told(way.name(), atp.engine, gone(way, &atp, folder))
                });
                report.ways.push((way, cells));
            }
        }
        Ok(report)
    }

    /// The cells of a verb.
    pub(crate) fn verb(&self, name: &'static str) -> &[Cell; 2] {
        cells_of(&self.verbs, &name)
    }

    /// The cells of a way.
    pub(crate) fn way(&self, way: Way) -> &[Cell; 2] {
        cells_of(&self.ways, &way)
    }

    /// The number of cells, and of those that fail.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let verbs = self.verbs.iter().flat_map(|(_, cells)| cells);
        let cells: Vec<&Cell> = verbs.chain(self.ways.iter().flat_map(|(_, cells)| cells)).collect();
        (cells.len(), cells.iter().filter(|cell| cell.is_err()).count())
    }

    /// Prints a result as it comes.
    fn told(&self, what: &str, engine: &str, result: Result<String>) -> Cell {
        let cell = result.map_err(|error| format!("{error:#}"));
        let shown = cell.as_ref().map_or_else(|why| format!("fails: {why}"), Clone::clone);
        println!("{}, {engine}: {what}: {shown}", self.libvirt);
        cell
    }
}

/// The cells of a row. A row that was not tried is a fault of this program, and is shown as a failure.
fn cells_of<'a, T: PartialEq>(rows: &'a [(T, [Cell; 2])], row: &T) -> &'a [Cell; 2] {
    static UNTRIED: std::sync::LazyLock<[Cell; 2]> =
        std::sync::LazyLock::new(|| [Err("not tried".to_owned()), Err("not tried".to_owned())]);
    rows.iter().find(|(name, _)| name == row).map_or_else(|| &*UNTRIED, |(_, cells)| cells)
}

/// One listing, one command and one copy over a way.
fn gone(way: Way, atp: &Atp, folder: &Path) -> Result<String> {
    match way {
        Way::ReadOnly => {
            verbs::list(atp, folder)?;
            let kind = refused(atp)?;
            Ok(format!("VMs are listed; commands and copies: `{kind}`"))
        }
        Way::Polkit => {
            let kind = refused(atp)?;
            let listed = atp.refused(&["vm", "list"])?;
            ensure!(listed == kind, "the listing is refused as {listed}, a command as {kind}");
            Ok(format!("`{kind}`"))
        }
        _ => {
            verbs::list(atp, folder)?;
            verbs::exec(atp, folder)?;
            verbs::copy(atp, folder)?;
            Ok(OK.to_owned())
        }
    }
}

/// The kind of error with which a command and a copy are refused.
fn refused(atp: &Atp) -> Result<String> {
    let source = atp.config.to_str().context("a path that is not UTF-8")?;
    let kind = atp.refused(&["exec", "h/vm1", "--", "true"])?;
    let copy = atp.refused(&["cp", source, "h/vm1:/tmp/refused"])?;
    ensure!(kind == copy, "a command is refused as {kind}, a copy as {copy}");
    Ok(kind)
}
