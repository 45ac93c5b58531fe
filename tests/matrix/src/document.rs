//! `docs/compatibility.md`: the results as tables.

use std::fmt::Write as _;

use crate::report::{Cell, ENGINES, Report};
use crate::verbs::{VERBS, WITHOUT_DAEMON};
use crate::ways::Way;

const HEAD: &str = "\
# Compatibility

`cargo xtask matrix` makes this page: it tries every verb and every way to a host on real daemons, each with a guest that
has an agent, with both engines. It needs root on Debian 12, and installs the other Debian releases in folders of the
testbed's cache. CI runs all other tests on the libvirt of Debian 12, and a part of this matrix on the others.

## Daemons

| name | libvirt | QEMU | programs |
|---|---|---|---|
";

const VERB_HEAD: &str = "
## Verbs

Over tcp. `ok`: with both engines. A kind of error in its place: the verb is refused before anything is done, as the daemon does
not offer what it needs.

";

const WAY_HEAD: &str = "
## Ways to a host

`ok`: VMs are listed, a command runs in a guest, and a file is copied into it and back.

";

/// The page.
pub(crate) fn document(reports: &[Report]) -> String {
    let mut page = HEAD.to_owned();
    // Writing to a string does not fail.
    for report in reports {
        let programs =
            if report.libvirt.is_modular() { "`virtqemud` behind `virtproxyd`" } else { "`libvirtd`" };
        let _ = writeln!(
            page,
            "| {} | {} | {} | {programs} |",
            report.libvirt, report.libvirt_version, report.qemu_version
        );
    }
    let names = reports.iter().map(|report| report.libvirt.as_str()).collect::<Vec<_>>();
    page.push_str(VERB_HEAD);
    let _ = writeln!(page, "| verb | what is checked | {} |", names.join(" | "));
    let _ = writeln!(page, "|---|---|{}", "---|".repeat(names.len()));
    for verb in &VERBS {
        let cells: Vec<_> = reports.iter().map(|report| both(report.verb(verb.name))).collect();
        let _ = writeln!(page, "| `{}` | {} | {} |", verb.name, verb.shows, cells.join(" | "));
    }
    let without = WITHOUT_DAEMON.map(|name| format!("`{name}`")).join(", ");
    let _ =
        writeln!(page, "\nThese connect to no daemon: {without}. `serve` offers the verbs through an API.");
    page.push_str(WAY_HEAD);
    let _ = writeln!(page, "| way | engine | {} |", names.join(" | "));
    let _ = writeln!(page, "|---|---|{}", "---|".repeat(names.len()));
    for way in Way::ALL {
        for (index, engine) in ENGINES.into_iter().enumerate() {
            let cells: Vec<_> = reports.iter().map(|report| shown(&report.way(way)[index])).collect();
            let _ = writeln!(page, "| {} | {engine} | {} |", way.name(), cells.join(" | "));
        }
    }
    page
}

/// The beginnings of the rows that the page has to have, in their order.
pub(crate) fn rows() -> Vec<String> {
    let verbs = VERBS.iter().map(|verb| format!("| `{}` | {} | ", verb.name, verb.shows));
    let ways = Way::ALL
        .into_iter()
        .flat_map(|way| ENGINES.into_iter().map(move |engine| format!("| {} | {engine} | ", way.name())));
    verbs.chain(ways).collect()
}

/// One cell for both engines.
fn both(cells: &[Cell; 2]) -> String {
    let [library, native] = cells;
    if library == native {
        return shown(library);
    }
    format!("library: {}; native: {}", shown(library), shown(native))
}

/// A cell, without what would end it.
fn shown(cell: &Cell) -> String {
    match cell {
        Ok(what) => what.clone(),
        Err(why) => format!("**fails**: {}", why.replace('|', "/").replace('\n', " ")),
    }
}
