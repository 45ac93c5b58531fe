//! Draws the view.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};

use super::view::{COLUMNS, HISTORY, History, View, cpu_of};
use crate::render::table::NOTHING;
use crate::terminal::line;
use crate::units;
use crate::verbs::stats::{cells, since};

const HEADING: Style = Style::new().add_modifier(Modifier::BOLD);
const STALE: Style = Style::new().fg(Color::Yellow);
const MARKED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// The bars of a sparkline, by height.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(super) fn draw(frame: &mut Frame<'_>, view: &mut View) {
    let hosts = view.round().map_or(0, |round| round.hosts.len());
    // Hosts take no more than a third of the screen.
    let most = usize::from(frame.area().height / 3);
    let host_rows = if view.shows_hosts { (hosts + 1).min(most) } else { 0 };
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(u16::try_from(host_rows).unwrap_or(0)),
        Constraint::Min(1),
        Constraint::Length(1),
    ]);
    let [head, host_area, vm_area, foot] = areas.areas(frame.area());
    frame.render_widget(Paragraph::new(summary(view)).style(HEADING), head);
    if host_rows > 1 {
        draw_hosts(frame, view, host_area, host_rows - 1);
    }
    draw_vms(frame, view, vm_area);
    frame.render_widget(Paragraph::new(footer(view)), foot);
}

fn summary(view: &View) -> String {
    let Some(round) = view.round() else { return "connecting".to_owned() };
    let stale = round.vms.iter().filter(|vm| vm.stale.is_some()).count();
    let running = round.vms.iter().filter(|vm| vm.state.is_running()).count();
    let silent = round.hosts.iter().filter(|host| host.stale.is_some()).count();
    format!(
        "{} hosts, {silent} stale; {} VMs, {running} running, {stale} stale; CPU {}",
        round.hosts.len(),
        round.vms.len(),
        units::percent(cpu_of(round.vms.iter())),
    )
}

fn draw_hosts(frame: &mut Frame<'_>, view: &View, area: Rect, most: usize) {
    let Some(round) = view.round() else { return };
    let rows = round.hosts.iter().take(most).map(|host| {
        let vms = || round.vms.iter().filter(|vm| vm.host == host.host);
        let stale = host
            .stale
            .as_ref()
            .map_or_else(|| NOTHING.to_owned(), |stale| format!("{}, {}", since(stale), stale.error.kind));
        let style = if host.stale.is_some() { STALE } else { Style::new() };
        let running = vms().filter(|vm| vm.state.is_running()).count();
        Row::new([
            host.host.to_string(),
            format!("{running}/{}", vms().count()),
            units::percent(cpu_of(vms())),
            view.host_history(&host.host).map(sparkline).unwrap_or_default(),
            stale,
        ])
        .style(style)
    });
    let widths = [
        Constraint::Max(24),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(HISTORY as u16),
        Constraint::Min(10),
    ];
    let header = Row::new(["HOST", "RUNNING", "CPU", "", "STALE"]).style(HEADING);
    frame.render_widget(Table::new(rows, widths).header(header), area);
}

fn draw_vms(frame: &mut Frame<'_>, view: &mut View, area: Rect) {
    view.page = usize::from(area.height).saturating_sub(1).max(1);
    let vms = view.vms();
    let marked = view.marked.min(vms.len().saturating_sub(1));
    let longest = vms.iter().map(|vm| vm.host.as_str().len()).max().unwrap_or(0).clamp(4, 16) as u16;
    // On a narrow screen the names and numbers go before the older bars.
    let others = longest + 12 + 9 + 8 + 9 + 4 * 11 + 14 + 10;
    let bars = area.width.saturating_sub(others).min(HISTORY as u16);
    // Only rows on the screen are made.
    let first = (marked + 1).saturating_sub(view.page);
    let rows = vms.iter().skip(first).take(view.page).map(|vm| {
        let cells = cells(vm);
        let history = view.history(vm).map(sparkline).unwrap_or_default();
        let history = history.chars().skip(HISTORY - usize::from(bars)).collect();
        let mut texts: Vec<String> = cells.iter().map(|text| line(text).into_owned()).collect();
        texts.insert(4, history);
        let style = if vm.stale.is_some() { STALE } else { Style::new() };
        Row::new(texts.into_iter().map(Cell::from)).style(style)
    });
    let header = COLUMNS.iter().enumerate().map(|(column, name)| {
        let arrow = match (column == view.sort, view.is_reversed) {
            (false, _) => "",
            (true, false) => "▼",
            (true, true) => "▲",
        };
        Cell::from(format!("{name}{arrow}"))
    });
    let widths = [
        Constraint::Min(longest),
        Constraint::Min(12),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(bars),
        Constraint::Length(9),
        Constraint::Length(11),
        Constraint::Length(11),
        Constraint::Length(11),
        Constraint::Length(11),
        Constraint::Length(14),
    ];
    let table = Table::new(rows, widths).header(Row::new(header).style(HEADING)).row_highlight_style(MARKED);
    let mut state = TableState::new().with_selected((!vms.is_empty()).then_some(marked - first));
    frame.render_stateful_widget(table, area, &mut state);
}

fn footer(view: &View) -> Line<'static> {
    match (&view.typed, &view.problem) {
        (Some(typed), Some(problem)) => Line::styled(format!("/{}  {}", line(typed), line(problem)), STALE),
        (Some(typed), None) => Line::from(format!("/{}_", line(typed))),
        (None, _) if view.filter_text.is_empty() => {
            Line::from("q leave  ←→ sort  r reverse  / filter  h hosts")
        }
        (None, _) => Line::from(format!("only {}  (/ changes it)", line(&view.filter_text))),
    }
}

/// The processor's use as bars; a full one is one processor, or the largest value if that is more.
fn sparkline(history: &History) -> String {
    let largest = history.iter().flatten().fold(100.0, |most: f64, value| most.max(*value));
    let bar = |value: &Option<f64>| match value {
        // The cast saturates, and the index is within the bars.
        Some(value) => BARS[((value / largest * BARS.len() as f64) as usize).min(BARS.len() - 1)],
        None => ' ',
    };
    let bars: String = history.iter().map(bar).collect();
    format!("{bars:>HISTORY$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_has_a_bar_for_each_value_and_a_gap_for_what_is_not_known() {
        let history = History::from([Some(0.0), Some(50.0), None, Some(100.0)]);
        assert_eq!(sparkline(&history).trim_start(), "▁▅ █");
        assert_eq!(sparkline(&history).chars().count(), HISTORY);
        let history = History::from([Some(100.0), Some(400.0)]);
        assert_eq!(sparkline(&history).trim_start(), "▃█");
    }
}
