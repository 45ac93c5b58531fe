//! Tables for people: one line a row, no borders, so that they can be cut and grepped too.

use anstyle::Style;
use atp_executor::{Data, Outcome, Status, StepReport};
use atp_transport::HostInfo;
use comfy_table::{Table, presets};

use crate::settings::{Entry, mask_uri};
use crate::terminal::{self, ERROR, HEADING, styled};

/// What stands where there is nothing to say.
const NOTHING: &str = "-";

/// A table under construction.
pub(super) struct Rows {
    table: Table,
    styles: Vec<Style>,
}

impl Rows {
    pub(super) fn new(header: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(header.to_vec());
        Rows { table, styles: Vec::new() }
    }

    /// Adds a row; its cells are made harmless here.
    pub(super) fn add(&mut self, style: Style, cells: &[&str]) {
        self.table.add_row(cells.iter().map(|cell| terminal::line(cell).into_owned()).collect::<Vec<_>>());
        self.styles.push(style);
    }

    /// Adds a row about an outcome: one that is no success stands out.
    fn add_outcome(&mut self, outcome: &Outcome, cells: &[&str]) {
        let host = outcome.host.as_ref().map_or(NOTHING, |host| host.as_str());
        let style = if outcome.status.is_success() || outcome.status == Status::Skipped {
            Style::new()
        } else {
            ERROR
        };
        self.add(style, &[&[host], cells].concat());
    }

    /// The text; nothing at all if there are no rows.
    pub(super) fn finish(mut self) -> String {
        if self.styles.is_empty() {
            return String::new();
        }
        for column in self.table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let styles = [HEADING].into_iter().chain(self.styles);
        self.table
            .lines()
            .zip(styles)
            .map(|(line, style)| format!("{}\n", styled(style, line.trim_end())))
            .collect()
    }
}

/// `atp host list`.
pub(crate) fn hosts(hosts: &[HostInfo]) -> String {
    let mut rows = Rows::new(&["HOST", "URI", "GROUPS", "LABELS"]);
    for host in hosts {
        let labels: Vec<_> = host.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        rows.add(
            Style::new(),
            &[
                &host.id,
                &mask_uri(&host.effective_uri()),
                some(&host.groups.join(",")),
                some(&labels.join(",")),
            ],
        );
    }
    rows.finish()
}

/// `atp config show`.
pub(crate) fn settings(entries: &[Entry]) -> String {
    let mut rows = Rows::new(&["KEY", "VALUE", "ORIGIN"]);
    for entry in entries {
        let style = if entry.is_default() { terminal::DIM } else { Style::new() };
        rows.add(style, &[&entry.key, &entry.value.to_string(), &entry.origin]);
    }
    rows.finish()
}

/// `atp vm list`. A host that could not be listed has a row too.
pub(crate) fn listing(outcomes: &[Outcome]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "STATE", "VCPUS", "MEMORY"]);
    for outcome in outcomes {
        let vm = vm(outcome);
        match &outcome.data {
            Some(Data::Domain(domain)) => {
                let (state, vcpus, memory) =
                    (domain.state.as_str(), number(domain.vcpus), size(domain.memory_kib));
                rows.add_outcome(outcome, &[vm, state, &vcpus, &memory]);
            }
            _ => rows.add_outcome(outcome, &[vm, reason(outcome), NOTHING, NOTHING]),
        }
    }
    rows.finish()
}

/// `atp cp`.
pub(crate) fn copies(outcomes: &[Outcome]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "STATUS", "BYTES", "IN THE GUEST", "HERE"]);
    for outcome in outcomes {
        let (vm, status) = (vm(outcome), outcome.status.as_str());
        match &outcome.data {
            Some(Data::File(file)) => {
                let (bytes, here) = (file.bytes.to_string(), file.local_path.display().to_string());
                rows.add_outcome(outcome, &[vm, status, &bytes, &file.guest_path, &here]);
            }
            _ => rows.add_outcome(outcome, &[vm, status, NOTHING, NOTHING, NOTHING]),
        }
    }
    rows.finish()
}

/// `atp host check`.
pub(crate) fn checks(outcomes: &[Outcome]) -> String {
    let header =
        ["HOST", "STATUS", "HYPERVISOR", "LIBVIRT", "HOSTNAME", "CONNECT", "LATENCY", "VMS", "ACTIVE"];
    let mut rows = Rows::new(&header);
    for outcome in outcomes {
        match &outcome.data {
            Some(Data::Host(host)) => rows.add_outcome(
                outcome,
                &[
                    outcome.status.as_str(),
                    &format!("{} {}", host.hypervisor, host.hypervisor_version),
                    &host.daemon_version.to_string(),
                    &host.hostname,
                    &milliseconds(host.connect_ms),
                    &milliseconds(host.latency_ms),
                    &host.domains.to_string(),
                    &host.active_domains.to_string(),
                ],
            ),
            _ => rows.add_outcome(outcome, &[&[status(outcome).as_str()][..], &[NOTHING; 7]].concat()),
        }
    }
    rows.finish()
}

/// `atp vm start` and its like.
pub(crate) fn changes(outcomes: &[Outcome]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "RESULT", "STATE", "TIME"]);
    for outcome in outcomes {
        let state = match &outcome.data {
            Some(Data::Lifecycle { state }) => state.as_str(),
            _ => NOTHING,
        };
        rows.add_outcome(outcome, &[vm(outcome), &status(outcome), state, &time(outcome)]);
    }
    rows.finish()
}

/// `atp wait`, `atp key` and its like: there is nothing to show but how it went.
pub(crate) fn results(outcomes: &[Outcome]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "RESULT", "TIME"]);
    for outcome in outcomes {
        rows.add_outcome(outcome, &[vm(outcome), &status(outcome), &time(outcome)]);
    }
    rows.finish()
}

/// How long it took, if it was begun.
fn time(outcome: &Outcome) -> String {
    if outcome.attempts > 0 { format!("{} ms", outcome.duration_ms) } else { NOTHING.to_owned() }
}

/// How far each VM got through a scenario.
pub(crate) fn steps(outcomes: &[Outcome]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "RESULT", "STEPS", "TEARDOWN", "TIME"]);
    for outcome in outcomes {
        let count = |steps: &[StepReport]| steps.iter().filter(|step| step.status.is_success()).count();
        let (done, undone) = match &outcome.data {
            Some(Data::Scenario(report)) => (
                format!("{} of {}", count(&report.steps), report.steps_total),
                format!("{} of {}", count(&report.teardown), report.teardown_total),
            ),
            _ => (NOTHING.to_owned(), NOTHING.to_owned()),
        };
        rows.add_outcome(outcome, &[vm(outcome), &status(outcome), &done, &undone, &time(outcome)]);
    }
    rows.finish()
}

/// `atp screenshot`.
pub(crate) fn screenshots(outcomes: &[Outcome]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "FILE", "SIZE"]);
    for outcome in outcomes {
        match &outcome.data {
            Some(Data::Screenshot(picture)) => rows.add_outcome(
                outcome,
                &[
                    vm(outcome),
                    &picture.file.to_string_lossy(),
                    &format!("{}x{}", picture.width, picture.height),
                ],
            ),
            _ => rows.add_outcome(outcome, &[vm(outcome), reason(outcome), NOTHING]),
        }
    }
    rows.finish()
}

/// `--dry-run`, whatever the command.
pub(crate) fn forecast(outcomes: &[Outcome]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "STATE", "WOULD"]);
    for outcome in outcomes {
        let state = match &outcome.data {
            Some(Data::Domain(domain)) => domain.state.as_str(),
            _ => NOTHING,
        };
        let would = match (outcome.status, &outcome.error) {
            (Status::Skipped, None) => outcome.op.to_owned(),
            (Status::Skipped, Some(error)) => format!("fail: {}", error.kind),
            (Status::Unchanged, _) => "do nothing".to_owned(),
            _ => status(outcome),
        };
        rows.add_outcome(outcome, &[vm(outcome), state, &would]);
    }
    rows.finish()
}

fn vm(outcome: &Outcome) -> &str {
    outcome.vm.as_deref().unwrap_or(NOTHING)
}

fn some(text: &str) -> &str {
    if text.is_empty() { NOTHING } else { text }
}

/// Why there is no data: `unreachable`, or the kind of the error.
fn reason(outcome: &Outcome) -> &str {
    match &outcome.error {
        Some(error) if outcome.status == Status::Failed => error.kind.as_str(),
        _ => outcome.status.as_str(),
    }
}

/// The status, with the kind of the error behind it.
fn status(outcome: &Outcome) -> String {
    match &outcome.error {
        Some(error) => format!("{}: {}", outcome.status, error.kind),
        None => outcome.status.to_string(),
    }
}

/// A number that may not be known.
pub(crate) fn number(number: Option<u32>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// KiB as `96 MiB`, `1.5 GiB`: in the largest unit that keeps one decimal exact enough to read.
pub(crate) fn size(kib: Option<u64>) -> String {
    let Some(kib) = kib else { return "-".to_owned() };
    const MIB: u64 = 1 << 10;
    const GIB: u64 = 1 << 20;
    let (unit, name) = match kib {
        GIB.. => (GIB, "GiB"),
        MIB.. => (MIB, "MiB"),
        _ => (1, "KiB"),
    };
    let tenths = (u128::from(kib) * 10 + u128::from(unit / 2)) / u128::from(unit);
    if tenths % 10 == 0 {
        format!("{} {name}", tenths / 10)
    } else {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

fn milliseconds(value: f64) -> String {
    format!("{value:.1} ms")
}

#[cfg(test)]
mod tests {
    use atp_transport::ErrorKind;

    use super::*;
    use crate::render::fixture::outcome;
    use atp_executor::OutcomeError;
    use atp_transport::domain::{DomainInfo, DomainState};

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn row(vm: &str) -> Outcome {
        let domain = DomainInfo {
            name: vm.to_owned(),
            uuid: Default::default(),
            id: Some(1),
            state: DomainState::ShutOff,
            vcpus: Some(2),
            memory_kib: Some(1536 * 1024),
            max_memory_kib: Some(1536 * 1024),
        };
        Outcome { data: Some(Data::Domain(domain)), ..outcome(Some(vm)) }
    }

    #[test]
    fn a_listing_has_a_line_a_vm_and_shows_dead_hosts() {
        let dead = Outcome {
            status: Status::Unreachable,
            host: Some("h2".parse().unwrap()),
            error: Some(OutcomeError::new(ErrorKind::ConnectionRefused, "m")),
            ..outcome(None)
        };
        let text = plain(&listing(&[row("web\x1b[31m\n"), dead]));
        assert_eq!(
            text,
            "HOST  VM             STATE        VCPUS  MEMORY\n\
             h1    web\\x1b[31m\\n  shut off     2      1.5 GiB\n\
             h2    -              unreachable  -      -\n"
        );
    }

    #[test]
    fn where_there_is_no_state_there_is_no_column_for_it() {
        assert_eq!(
            plain(&results(&[outcome(Some("a"))])),
            "HOST  VM  RESULT  TIME\nh1    a   ok      7 ms\n"
        );
    }

    #[test]
    fn no_rows_no_table() {
        assert_eq!(listing(&[]), "");
    }

    #[test]
    fn sizes_are_short() {
        for (kib, text) in [
            (0, "0 KiB"),
            (512, "512 KiB"),
            (96 * 1024, "96 MiB"),
            (1536 * 1024, "1.5 GiB"),
            (8 * 1024 * 1024, "8 GiB"),
            (u64::MAX, "17592186044416 GiB"),
        ] {
            assert_eq!(size(Some(kib)), text);
        }
    }
}
