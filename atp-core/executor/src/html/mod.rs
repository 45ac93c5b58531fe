//! The report of a run as one page, which needs no network and no scripts: what became of each target, the steps of scenarios on
//! a time line, outputs, and the pictures and texts of the evidence.

mod evidence;

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use atp_api::{Data, ExecReport, Outcome, OutcomeError, ScenarioReport, Status, StepReport};

use self::evidence::Evidence;
use crate::text::{self, name_of};

const STYLE: &str = include_str!("style.css");

/// The most characters of one output or of one result.
const LONGEST: usize = 64 * 1024;

/// A page in progress.
#[derive(Debug)]
pub struct Html {
    parts: Vec<Part>,
    evidence: Evidence,
    /// Whether it is known when each target ended.
    has_times: bool,
}

/// The targets of what is run together.
#[derive(Debug)]
struct Part {
    title: String,
    targets: Vec<Target>,
}

#[derive(Debug)]
struct Target {
    /// The outcome without its data, to sort by.
    of: Outcome,
    /// When it ended, since the report was begun.
    ended: Duration,
    /// The steps' statuses, and the milliseconds that each took.
    steps: Vec<(Status, u64)>,
    body: String,
}

impl Html {
    /// The first line of the page.
    pub const DECLARATION: &str = "<!doctype html>\n";

    /// A page with one part of this title, without targets. It is to be written to the file `page`, from which links lead to the
    /// evidence.
    pub fn new(page: &Path, title: &str) -> Self {
        let first = Part { title: title.to_owned(), targets: Vec::new() };
        Html { parts: vec![first], evidence: Evidence::new(page), has_times: true }
    }

    /// Begins another part.
    pub fn begin(&mut self, title: &str) {
        self.parts.push(Part { title: title.to_owned(), targets: Vec::new() });
    }

    /// Adds one outcome of a target that has ended so long after the report was begun. Where that is not known, bars show no more
    /// than how long each target took.
    pub fn take(&mut self, outcome: &Outcome, ended: Option<Duration>) {
        let body = self.body(outcome);
        let steps = match &outcome.data {
            Some(Data::Scenario(report)) => {
                let steps = report.steps.iter().chain(&report.teardown);
                steps.map(|step| (step.status, step.duration_ms)).collect()
            }
            _ => Vec::new(),
        };
        self.has_times &= ended.is_some();
        let ended = ended.unwrap_or(Duration::from_millis(outcome.duration_ms));
        let of = Outcome { data: None, ..outcome.clone() };
        if let Some(part) = self.parts.last_mut() {
            part.targets.push(Target { of, ended, steps, body });
        }
    }

    /// The page, without its [first line](Self::DECLARATION).
    pub fn text(mut self, took: Duration) -> String {
        page(&mut self.parts, took, self.has_times)
    }

    /// All that is known of a target.
    fn body(&mut self, outcome: &Outcome) -> String {
        let mut body = String::new();
        match &outcome.data {
            Some(Data::Scenario(report)) => {
                error(outcome.error.as_ref(), &mut body);
                steps("Steps", &report.steps, report.steps_total, &mut body);
                steps("Teardown", &report.teardown, report.teardown_total, &mut body);
                notes(report, &mut body);
                if let Some(evidence) = &report.evidence {
                    self.evidence.add(evidence, &mut body);
                }
            }
            data => {
                error(outcome.error.as_ref(), &mut body);
                result(data.as_ref(), &mut body);
            }
        }
        body
    }
}

/// The page without its first line.
fn page(parts: &mut [Part], took: Duration, has_times: bool) -> String {
    let title = parts.iter().map(|part| part.title.as_str()).collect::<Vec<_>>().join(", ");
    let targets = || parts.iter().flat_map(|part| &part.targets);
    let counts: String = Status::ALL
        .iter()
        .map(|status| (status, targets().filter(|target| target.of.status == *status).count()))
        .filter(|(_, count)| *count > 0)
        .map(|(status, count)| {
            format!("<li class=\"chip {}\">{count} {}</li>\n", class(*status), status.as_str())
        })
        .collect();
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    let mut text = format!(
        "<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n\
         <title>{title} – atp</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{title}</h1>\n\
         <p class=\"dim\">{now}, {}</p>\n<ul class=\"counts\">\n{counts}</ul>\n</header>\n",
        seconds(took),
        title = escaped(&text::line(&title)),
    );
    let several = parts.len() > 1;
    for part in parts {
        part.targets.sort_by(|one, other| one.of.report_order(&other.of));
        if several {
            let _ = writeln!(text, "<section>\n<h2>{}</h2>", escaped(&text::line(&part.title)));
        }
        if part.targets.is_empty() {
            text.push_str("<p class=\"dim\">No targets.</p>\n");
        }
        let begun =
            |target: &Target| target.ended.saturating_sub(Duration::from_millis(target.of.duration_ms));
        let begin = part.targets.iter().map(begun).min().unwrap_or_default();
        let end = part.targets.iter().map(|target| target.ended).max().unwrap_or_default();
        for target in &part.targets {
            self::target(target, begun(target).saturating_sub(begin), end.saturating_sub(begin), &mut text);
        }
        if several {
            text.push_str("</section>\n");
        }
    }
    let shown = if has_times { "when each target was worked on" } else { "how long each target took" };
    let _ =
        write!(text, "<footer>Written by atp. The bars show {shown}.</footer>\n</main>\n</body>\n</html>\n");
    text
}

/// A target, which began so long after the first of its part. `all` is the time of the part.
fn target(target: &Target, begun: Duration, all: Duration, text: &mut String) {
    let Target { of, steps, body, .. } = target;
    let is_open = if of.status.is_success() { "" } else { " open" };
    let _ = writeln!(
        text,
        "<details class=\"vm\"{is_open}>\n<summary><span><span class=\"chip {}\">{}</span></span>\
         <span class=\"name\">{}</span>{}<span class=\"took\">{}</span>",
        class(of.status),
        of.status.as_str(),
        escaped(&name_of(of)),
        track(of, steps, begun, all),
        seconds(Duration::from_millis(of.duration_ms)),
    );
    if let Some(error) = &of.error {
        let _ = writeln!(text, "<span class=\"why\">{}</span>", escaped(&text::line(&error.message)));
    }
    let _ = writeln!(text, "</summary>\n<div class=\"body\">\n{body}</div>\n</details>");
}

/// When a target was worked on, and when each of its steps.
fn track(of: &Outcome, steps: &[(Status, u64)], begun: Duration, all: Duration) -> String {
    let whole = all.as_secs_f64().max(0.001);
    let bar = |status: Status, from: f64, took: f64| {
        let (left, width) = (from / whole * 100.0, took / whole * 100.0);
        format!("<i class=\"{}\" style=\"left:{left:.2}%;width:{width:.2}%\"></i>", class(status))
    };
    let mut at = begun.as_secs_f64();
    let bars: String = match steps {
        [] => bar(of.status, at, Duration::from_millis(of.duration_ms).as_secs_f64()),
        steps => {
            let mut step = |(status, ms): &(Status, u64)| {
                let took = Duration::from_millis(*ms).as_secs_f64();
                at += took;
                bar(*status, at - took, took)
            };
            steps.iter().map(&mut step).collect()
        }
    };
    format!("<span class=\"track\" aria-hidden=\"true\">{bars}</span>")
}

/// The steps of a part of a scenario, of which there are `all`.
fn steps(title: &str, steps: &[StepReport], all: usize, text: &mut String) {
    if all == 0 {
        return;
    }
    let _ = writeln!(text, "<h3>{title}</h3>\n<table>");
    for (number, step) in (1..).zip(steps) {
        let what = match step.op.as_ref() {
            op if op == step.name => escaped(op),
            op => {
                format!("{} <span class=\"dim\">{}</span>", escaped(&text::line(&step.name)), escaped(op))
            }
        };
        let again = match step.attempts {
            0 | 1 => String::new(),
            attempts => format!(" <span class=\"dim\">{attempts} attempts</span>"),
        };
        let _ = write!(
            text,
            "<tr><td class=\"n\">{number}</td><td class=\"status\"><span class=\"chip {}\">{}</span></td>\
             <td class=\"what\">{what}{again}",
            class(step.status),
            step.status.as_str(),
        );
        error(step.error.as_ref(), text);
        result(step.data.as_ref(), text);
        let _ = writeln!(
            text,
            "</td><td class=\"took time\">{}</td></tr>",
            seconds(Duration::from_millis(step.duration_ms))
        );
    }
    if all > steps.len() {
        let more = all - steps.len();
        let s = if more == 1 { "" } else { "s" };
        let _ = writeln!(
            text,
            "<tr><td class=\"n\"></td><td class=\"status\"><span class=\"chip skip\">not reached</span></td>\
             <td class=\"what dim\">{more} more step{s}</td><td class=\"took time\"></td></tr>"
        );
    }
    text.push_str("</table>\n");
}

/// What else is known of a target of a scenario.
fn notes(report: &ScenarioReport, text: &mut String) {
    if let Some(isolation) = &report.isolated {
        let is = if isolation.restored { "is" } else { "may not be" };
        let name = escaped(&text::line(&isolation.snapshot));
        let _ = writeln!(text, "<p class=\"dim\">The VM {is} at its snapshot {name}.</p>");
    }
    if let Some(console) = &report.console {
        let faults = console.first_faults.len();
        let gaps = console.gaps;
        let _ = writeln!(
            text,
            "<p class=\"dim\">Its console wrote {} bytes; {gaps} gaps; {faults} faults of the kernel.</p>",
            console.bytes
        );
        for found in &console.first_faults {
            let line = escaped(&text::line(&found.line));
            let _ = writeln!(text, "<p class=\"bad\">{}: {line}</p>", found.fault);
        }
    }
}

fn error(error: Option<&OutcomeError>, text: &mut String) {
    let Some(error) = error else { return };
    let _ = write!(text, "<div class=\"error\"><p>{}</p>", escaped(&text::line(&error.message)));
    for cause in &error.causes {
        let _ = write!(text, "<p class=\"dim\">{}</p>", escaped(&text::line(cause)));
    }
    if let Some(hint) = &error.hint {
        let _ = write!(text, "<p class=\"dim\">Hint: {}</p>", escaped(&text::line(&hint.to_string())));
    }
    text.push_str("</div>\n");
}

/// What an operation yielded.
fn result(data: Option<&Data>, text: &mut String) {
    match data {
        None | Some(Data::Waited(_)) => {}
        Some(Data::Exec(ran)) => output(ran, text),
        Some(data) => {
            let json = serde_json::to_value(data).and_then(|value| serde_json::to_string_pretty(&value));
            let json = json.unwrap_or_default();
            let _ = writeln!(
                text,
                "<details class=\"data\"><summary>Result</summary><pre>{}</pre></details>",
                shown(&json)
            );
        }
    }
}

/// What a process wrote, and how it ended.
fn output(ran: &ExecReport, text: &mut String) {
    for stream in [&ran.stdout, &ran.stderr] {
        if !stream.bytes.is_empty() {
            let _ = writeln!(text, "<pre>{}</pre>", shown(&text::stream_block(stream)));
        }
    }
    if let Some(code) = ran.exit_code.filter(|code| *code != 0) {
        let _ = writeln!(text, "<p class=\"dim\">exit code {code}</p>");
    }
}

/// The end of a text, safe for a page.
fn shown(text: &str) -> String {
    let from = text.len().saturating_sub(LONGEST);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let cut = if from > 0 { "[…]\n" } else { "" };
    format!("{cut}{}", escaped(&text::block(text.get(from..).unwrap_or_default())))
}

/// Text for an element or an attribute.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// The colour of a status.
fn class(status: Status) -> &'static str {
    match status {
        Status::Ok | Status::Unchanged => "good",
        Status::Failed | Status::Timeout | Status::Unreachable => "bad",
        Status::Cancelled => "warn",
        Status::Skipped => "skip",
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::fs;

    use atp_api::{EvidenceReport, Stream};
    use atp_transport::{Effect, ErrorKind};
    use proptest::prelude::*;

    use super::*;

    /// A process that ended well, and wrote this and `x`.
    fn ran(stdout: &[u8]) -> Data {
        let stream = |bytes: &[u8]| Stream { bytes: bytes.to_vec(), ..Stream::default() };
        Data::Exec(ExecReport {
            exit_code: Some(0),
            signal: None,
            stdout: stream(stdout),
            stderr: stream(b"x"),
        })
    }

    fn step(name: &str, status: Status, data: Option<Data>) -> StepReport {
        let error =
            (!status.is_success()).then(|| OutcomeError::new(ErrorKind::StepFailed, format!("about {name}")));
        let (op, effect) = (Cow::Borrowed("exec"), Effect::None);
        StepReport { name: name.to_owned(), op, status, effect, attempts: 1, duration_ms: 250, data, error }
    }

    fn scenario(vm: &str, report: ScenarioReport) -> Outcome {
        Outcome {
            host: Some("h1".parse().unwrap()),
            vm: Some(vm.to_owned()),
            effect: Effect::Done,
            attempts: 1,
            duration_ms: 7,
            data: Some(Data::Scenario(report)),
            ..Outcome::not_started("run", Status::Ok)
        }
    }

    fn report(steps: Vec<StepReport>, evidence: Option<EvidenceReport>) -> ScenarioReport {
        ScenarioReport {
            scenario: "s".to_owned(),
            steps_total: steps.len() + 2,
            steps,
            teardown: Vec::new(),
            teardown_total: 0,
            console: None,
            evidence: evidence.map(Box::new),
            isolated: None,
        }
    }

    fn written(folder: &Path, outcomes: &[Outcome]) -> String {
        let mut html = Html::new(&folder.join("report.html"), "smoke");
        outcomes.iter().for_each(|outcome| html.take(outcome, Some(Duration::from_secs(2))));
        html.text(Duration::from_secs(3))
    }

    #[test]
    fn a_page_has_the_steps_their_outputs_and_the_evidence() {
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().join("evidence/h1/a&b");
        fs::create_dir_all(&files).unwrap();
        fs::write(files.join("console.log"), "login: <script>alert(1)</script>\n").unwrap();
        fs::write(files.join("screen.png"), b"\x89PNG\r\n\x1a\nrest").unwrap();
        let evidence = EvidenceReport {
            folder: files,
            files: vec!["console.log".to_owned(), "screen.png".to_owned(), "gone.txt".to_owned()],
            missed: Vec::new(),
        };
        let steps =
            vec![step("look", Status::Ok, Some(ran(b"6.1 <b>\n"))), step("judge", Status::Failed, None)];
        let failed = Outcome { status: Status::Failed, ..scenario("a&b", report(steps, Some(evidence))) };
        let text = written(folder.path(), &[failed]);
        for expected in [
            "<h1>smoke</h1>",
            "<details class=\"vm\" open>",
            "a&amp;b",
            "6.1 &lt;b&gt;",
            "about judge",
            "2 more steps",
            "login: &lt;script&gt;alert(1)",
            "src=\"data:image/png;base64,iVBORw0KGgpyZXN0\"",
            "href=\"evidence/h1/a%26b/console.log\"",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!text.contains("<script"), "{text}");
    }

    #[test]
    fn bars_say_when_a_target_was_worked_on_only_where_that_is_known() {
        let mut html = Html::new(Path::new("report.html"), "smoke");
        html.take(&scenario("a", report(Vec::new(), None)), None);
        let text = html.text(Duration::from_secs(3));
        assert!(text.contains("The bars show how long each target took."), "{text}");
        assert!(written(Path::new("."), &[]).contains("The bars show when each target was worked on."));
    }

    proptest! {
        #[test]
        fn whatever_a_guest_is_called_and_writes_it_adds_no_element(
            vm in ".*",
            odd in prop::sample::select(vec!["", "<img src=x>", "</pre>", "\"'>", "\u{9b}", "&lt;", "]]>"]),
            stdout in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let outcome = |vm: &str, stdout: &[u8]| {
                scenario(vm, report(vec![step(vm, Status::Ok, Some(ran(stdout)))], None))
            };
            let elements = |text: &str| text.matches('<').count();
            let plain = written(folder.path(), &[outcome("a", b"y")]);
            let mut stdout = stdout;
            stdout.extend_from_slice(odd.as_bytes());
            stdout.push(b'y');
            let text = written(folder.path(), &[outcome(&format!("a{vm}{odd}"), &stdout)]);
            prop_assert_eq!(elements(&text), elements(&plain));
            prop_assert!(!text.contains(|c: char| text::is_unsafe(c) && c != '\n' && c != '\t'));
        }
    }
}
