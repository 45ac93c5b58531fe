//! What `atp top` shows: the last round, its order, its filter, and what was before.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};

use atp_executor::{Selection, Selector, StatisticsRound, VmStatistics};
use atp_transport::{HostId, HostInfo};
use crossterm::event::KeyCode;
use uuid::Uuid;

/// Values of the processor's use that are kept of each VM and host.
pub(super) const HISTORY: usize = 12;

/// The columns, in their order.
pub(super) const COLUMNS: [&str; 11] =
    ["HOST", "VM", "STATE", "CPU", "", "MEMORY", "READ", "WRITE", "RECEIVED", "SENT", "STALE"];

/// The columns that can be sorted by, by their place in [`COLUMNS`].
const SORTED: [usize; 10] = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10];

/// What was of the processor's use, percent; none where it was not known.
pub(super) type History = VecDeque<Option<f64>>;

pub(super) struct View {
    infos: HashMap<HostId, HostInfo>,
    round: Option<StatisticsRound>,
    histories: HashMap<(HostId, Uuid), History>,
    host_histories: HashMap<HostId, History>,
    pub(super) sort: usize,
    pub(super) is_reversed: bool,
    /// The place of the marked VM among those that are shown.
    pub(super) marked: usize,
    /// How many VMs fit on the screen.
    pub(super) page: usize,
    pub(super) shows_hosts: bool,
    filter: Option<Selection>,
    /// The text of the filter.
    pub(super) filter_text: String,
    /// The selector that is being typed.
    pub(super) typed: Option<String>,
    /// Why what was typed is no selector.
    pub(super) problem: Option<String>,
}

impl View {
    pub(super) fn new(hosts: Vec<HostInfo>) -> View {
        let infos = hosts.into_iter().filter_map(|host| Some((host.id.parse().ok()?, host)));
        View {
            infos: infos.collect(),
            round: None,
            histories: HashMap::new(),
            host_histories: HashMap::new(),
            sort: 3,
            is_reversed: false,
            marked: 0,
            page: 1,
            shows_hosts: true,
            filter: None,
            filter_text: String::new(),
            typed: None,
            problem: None,
        }
    }

    /// Takes a new round.
    pub(super) fn take(&mut self, round: StatisticsRound) {
        let mut before = std::mem::take(&mut self.histories);
        for vm in &round.vms {
            let key = (vm.host.clone(), vm.uuid);
            let mut history = before.remove(&key).unwrap_or_default();
            add(&mut history, vm.cpu.percent);
            self.histories.insert(key, history);
        }
        let mut before = std::mem::take(&mut self.host_histories);
        for host in &round.hosts {
            let mut history = before.remove(&host.host).unwrap_or_default();
            add(&mut history, cpu_of(round.vms.iter().filter(|vm| vm.host == host.host)));
            self.host_histories.insert(host.host.clone(), history);
        }
        self.round = Some(round);
    }

    pub(super) fn round(&self) -> Option<&StatisticsRound> {
        self.round.as_ref()
    }

    pub(super) fn is_typing(&self) -> bool {
        self.typed.is_some()
    }

    pub(super) fn history(&self, vm: &VmStatistics) -> Option<&History> {
        self.histories.get(&(vm.host.clone(), vm.uuid))
    }

    pub(super) fn host_history(&self, host: &HostId) -> Option<&History> {
        self.host_histories.get(host)
    }

    /// The VMs that pass the filter, in order.
    pub(super) fn vms(&self) -> Vec<&VmStatistics> {
        let vms = self.round.iter().flat_map(|round| &round.vms);
        let mut vms: Vec<_> = vms.filter(|vm| self.passes(vm)).collect();
        vms.sort_by(|a, b| {
            let order = compare(self.sort, a, b);
            let order = if self.is_reversed { order.reverse() } else { order };
            order.then_with(|| (&a.host, &a.vm).cmp(&(&b.host, &b.vm)))
        });
        vms
    }

    fn passes(&self, vm: &VmStatistics) -> bool {
        let Some(filter) = &self.filter else { return true };
        self.infos.get(&vm.host).is_some_and(|host| filter.includes(host, &vm.vm))
    }

    /// Acts on a key.
    pub(super) fn key(&mut self, key: KeyCode) {
        if let Some(typed) = &mut self.typed {
            match key {
                KeyCode::Esc => (self.typed, self.problem) = (None, None),
                KeyCode::Backspace => drop(typed.pop()),
                KeyCode::Char(c) => typed.push(c),
                KeyCode::Enter => self.apply(),
                _ => {}
            }
            return;
        }
        let last = self.vms().len().saturating_sub(1);
        match key {
            KeyCode::Char('/') => self.typed = Some(self.filter_text.clone()),
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Char('h') => self.shows_hosts = !self.shows_hosts,
            KeyCode::Left => self.sort_by(SORTED.len() - 1),
            KeyCode::Right => self.sort_by(1),
            KeyCode::Up => self.marked = self.marked.min(last).saturating_sub(1),
            KeyCode::Down => self.marked = (self.marked + 1).min(last),
            KeyCode::PageUp => self.marked = self.marked.min(last).saturating_sub(self.page),
            KeyCode::PageDown => self.marked = (self.marked + self.page).min(last),
            KeyCode::Home => self.marked = 0,
            KeyCode::End => self.marked = last,
            _ => {}
        }
    }

    fn sort_by(&mut self, steps: usize) {
        let at = SORTED.iter().position(|column| *column == self.sort).unwrap_or_default();
        self.sort = SORTED[(at + steps) % SORTED.len()];
    }

    /// Applies the selector that was typed.
    fn apply(&mut self) {
        let text = self.typed.clone().unwrap_or_default();
        let selectors: Result<Vec<Selector>, _> = text.split_whitespace().map(str::parse).collect();
        match selectors {
            Ok(selectors) => {
                self.filter = (!selectors.is_empty()).then(|| Selection::of(selectors));
                (self.filter_text, self.typed, self.problem, self.marked) = (text, None, None, 0);
            }
            Err(error) => self.problem = Some(error.to_string()),
        }
    }
}

fn add(history: &mut History, value: Option<f64>) {
    history.push_back(value);
    if history.len() > HISTORY {
        history.pop_front();
    }
}

/// The processors' use of VMs together.
pub(super) fn cpu_of<'a>(vms: impl Iterator<Item = &'a VmStatistics>) -> Option<f64> {
    vms.filter_map(|vm| vm.cpu.percent).fold(None, |sum, percent| Some(sum.unwrap_or(0.0) + percent))
}

/// The order by a column: text from a to z, quantities from the largest down, what is not known last.
fn compare(column: usize, a: &VmStatistics, b: &VmStatistics) -> Ordering {
    let down = |a: Option<f64>, b: Option<f64>| b.unwrap_or(-1.0).total_cmp(&a.unwrap_or(-1.0));
    match COLUMNS[column] {
        "HOST" => a.host.cmp(&b.host),
        "VM" => a.vm.cmp(&b.vm),
        "STATE" => a.state.as_str().cmp(b.state.as_str()),
        "CPU" => down(a.cpu.percent, b.cpu.percent),
        "MEMORY" => b.memory.resident_kib.cmp(&a.memory.resident_kib),
        "READ" => down(a.disk_rates().0, b.disk_rates().0),
        "WRITE" => down(a.disk_rates().1, b.disk_rates().1),
        "RECEIVED" => down(a.network_rates().0, b.network_rates().0),
        "SENT" => down(a.network_rates().1, b.network_rates().1),
        _ => b.stale.is_some().cmp(&a.stale.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use atp_api::{CpuUse, MemoryUse};
    use atp_transport::domain::DomainState;

    use super::*;

    fn vm(host: &str, name: &str, percent: Option<f64>) -> VmStatistics {
        VmStatistics {
            host: host.parse().unwrap(),
            vm: name.to_owned(),
            uuid: Uuid::from_u128(name.len() as u128),
            state: DomainState::Running,
            reason: None,
            stale: None,
            cpu: CpuUse { percent, ..CpuUse::default() },
            memory: MemoryUse::default(),
            disks: Vec::new(),
            interfaces: Vec::new(),
        }
    }

    fn view() -> View {
        let hosts = ["h1", "h2"].map(|id| HostInfo::new(id, "127.0.0.1"));
        let mut view = View::new(hosts.to_vec());
        let vms = vec![vm("h1", "a", Some(1.0)), vm("h1", "bb", None), vm("h2", "ccc", Some(9.0))];
        view.take(StatisticsRound { at_ms: 0, took_ms: 0, hosts: Vec::new(), vms });
        view
    }

    fn names(view: &View) -> Vec<&str> {
        view.vms().iter().map(|vm| vm.vm.as_str()).collect()
    }

    fn type_in(view: &mut View, text: &str) {
        text.chars().for_each(|c| view.key(KeyCode::Char(c)));
    }

    #[test]
    fn vms_are_sorted_by_a_column_and_what_is_not_known_is_last() {
        let mut view = view();
        assert_eq!(names(&view), ["ccc", "a", "bb"]);
        type_in(&mut view, "r");
        assert_eq!(names(&view), ["bb", "a", "ccc"]);
        type_in(&mut view, "r");
        view.key(KeyCode::Left);
        view.key(KeyCode::Left);
        assert_eq!((COLUMNS[view.sort], names(&view)), ("VM", vec!["a", "bb", "ccc"]));
    }

    #[test]
    fn a_selector_filters_and_a_wrong_one_is_told() {
        let mut view = view();
        type_in(&mut view, "/h1/*q");
        view.key(KeyCode::Backspace);
        view.key(KeyCode::Enter);
        assert_eq!((names(&view), view.is_typing()), (vec!["a", "bb"], false));
        view.key(KeyCode::Char('/'));
        type_in(&mut view, "[");
        view.key(KeyCode::Enter);
        assert!(view.is_typing() && view.problem.is_some());
        view.key(KeyCode::Esc);
        assert_eq!((names(&view), view.problem.as_deref()), (vec!["a", "bb"], None));
    }

    #[test]
    fn the_mark_stays_among_the_vms() {
        let mut view = view();
        view.key(KeyCode::Up);
        assert_eq!(view.marked, 0);
        (0..5).for_each(|_| view.key(KeyCode::Down));
        assert_eq!(view.marked, 2);
        view.key(KeyCode::Home);
        view.key(KeyCode::PageDown);
        assert_eq!(view.marked, 1);
    }

    #[test]
    fn a_history_has_a_bound_and_ends_with_its_vm() {
        let mut view = view();
        for _ in 0..HISTORY * 2 {
            let round = view.round().unwrap().clone();
            view.take(round);
        }
        assert_eq!(view.history(&vm("h1", "a", None)).unwrap().len(), HISTORY);
        view.take(StatisticsRound { at_ms: 0, took_ms: 0, hosts: Vec::new(), vms: Vec::new() });
        assert!(view.histories.is_empty());
    }
}
