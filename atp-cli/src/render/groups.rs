//! Outputs of guests and of QEMU; targets with the same output are grouped, as by `clush -b`:
//!
//! ```text
//! ---------------
//! h1/web-1, h2/web-1 (2)
//! ---------------
//! what they wrote to stdout
//! [stderr]
//! what they wrote to stderr
//! [exit code 3]
//! ```

use anstyle::Style;
use atp_executor::{Data, ExecReport, Outcome, Stream};
use similar::{ChangeTag, TextDiff};

use crate::json;
use crate::render::{Forms, group_by, names_of, table};
use crate::terminal::{self, DIM, ERROR, GOOD, HEADING, WARNING, styled};

/// Lines of context around each difference.
const CONTEXT: usize = 1;

const RULE: &str = "---------------";

/// What stands below output that is no text, of which some bytes are shown as `\xNN`.
const NOT_TEXT: &str = "[not UTF-8: --encoding decodes other encodings, such as cp850 or windows-1252]";

/// The forms of a verb whose targets have outputs: all outputs, or only the differences from the most common one.
pub(crate) fn forms(only_differences: bool) -> Forms {
    Forms::new(if only_differences { differences } else { outputs }, &["data"])
}

/// The outputs, each with its group of targets.
fn outputs(outcomes: &[Outcome]) -> String {
    groups(outcomes).iter().map(|(members, body)| format!("{}{body}", heading(members))).collect()
}

/// The most common output in full, and the differences of each other output from it. Of several equally common
/// outputs, the first is taken.
fn differences(outcomes: &[Outcome]) -> String {
    let groups = groups(outcomes);
    // The first of the largest groups: `max_by_key` finds the last.
    let Some((common, reference)) = groups.iter().rev().max_by_key(|(members, _)| members.len()) else {
        return String::new();
    };
    let plain = |body: &str| anstream::adapter::strip_str(body).to_string();
    let mut text = format!("{}{reference}", heading(common));
    let reference = plain(reference);
    for (members, body) in &groups {
        if members.first() == common.first() {
            continue;
        }
        text.push_str(&heading(members));
        let body = plain(body);
        let difference = TextDiff::from_lines(&reference, &body);
        for hunk in difference.unified_diff().context_radius(CONTEXT).iter_hunks() {
            text.push_str(&format!("{}\n", styled(DIM, hunk.header())));
            for change in hunk.iter_changes() {
                let style = match change.tag() {
                    ChangeTag::Delete => ERROR,
                    ChangeTag::Insert => GOOD,
                    ChangeTag::Equal => Style::new(),
                };
                let line = change.value().trim_end_matches('\n');
                text.push_str(&format!("{}\n", styled(style, format!("{}{line}", change.tag()))));
            }
        }
    }
    text
}

/// The outcomes that have an output, grouped by it, each group with its rendered output.
fn groups(outcomes: &[Outcome]) -> Vec<(Vec<&Outcome>, String)> {
    let with_output =
        outcomes.iter().filter(|outcome| matches!(outcome.data, Some(Data::Exec(_) | Data::Reply(_))));
    group_by(with_output, |outcome| (&outcome.found_on, json::compact(&outcome.data)))
        .into_iter()
        .filter_map(|members| {
            let body = output(members.first()?)?;
            Some((members, body))
        })
        .collect()
}

/// Whether the outcome is shown in its group, and not among the failures.
pub(crate) fn is_shown(outcome: &Outcome) -> bool {
    matches!(outcome.data, Some(Data::Exec(_)))
}

fn heading(members: &[&Outcome]) -> String {
    let elsewhere = members.first().map(|outcome| table::elsewhere(outcome)).unwrap_or_default();
    let count = if members.len() > 1 { format!(" ({})", members.len()) } else { String::new() };
    format!("{RULE}\n{}\n{RULE}\n", styled(HEADING, format!("{}{}{count}", names_of(members), elsewhere)))
}

fn output(outcome: &Outcome) -> Option<String> {
    match outcome.data.as_ref()? {
        Data::Exec(report) => Some(exec(report)),
        Data::Reply(reply) => Some(format!("{}\n", terminal::block(&json::pretty(reply)))),
        _ => None,
    }
}

fn exec(report: &ExecReport) -> String {
    let mut text = stream(&report.stdout);
    let stderr = stream(&report.stderr);
    if !stderr.is_empty() {
        text.push_str(&format!("{}\n{stderr}", styled(WARNING, "[stderr]")));
    }
    if !report.is_success() {
        let ending = report.ending().unwrap_or_else(|| "no exit code".to_owned());
        text.push_str(&format!("{}\n", styled(ERROR, format!("[{ending}]"))));
    }
    if text.is_empty() {
        text = format!("{}\n", styled(DIM, "[no output]"));
    }
    text
}

/// A stream; text ends with a line feed.
fn stream(stream: &Stream) -> String {
    let mut text = terminal::stream_block(stream);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if stream.text().is_none() {
        text.push_str(&format!("{}\n", styled(DIM, NOT_TEXT)));
    }
    if stream.truncated {
        text.push_str(&format!("{}\n", styled(WARNING, "[cut off here]")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture::{self, ran};

    fn outcome(vm: &str, data: Data) -> Outcome {
        Outcome { data: Some(data), ..fixture::outcome(Some(vm)) }
    }

    fn plain(outcomes: &[Outcome]) -> String {
        anstream::adapter::strip_str(&outputs(outcomes)).to_string()
    }

    #[test]
    fn targets_with_the_same_output_are_grouped() {
        let text = plain(&[
            outcome("a", ran(Some(0), None, b"6.1\n", b"")),
            outcome("b", ran(Some(0), None, b"5.10\n", b"")),
            outcome("c", ran(Some(0), None, b"6.1\n", b"")),
        ]);
        assert_eq!(text, format!("{RULE}\nh1/a, h1/c (2)\n{RULE}\n6.1\n{RULE}\nh1/b\n{RULE}\n5.10\n"));
    }

    #[test]
    fn five_hundred_vms_with_one_answer_have_a_short_heading() {
        let outcomes: Vec<_> = (1..=500)
            .map(|n| Outcome {
                host: Some(if n <= 250 { "h1" } else { "h2" }.parse().unwrap()),
                ..outcome(&format!("web-{n}"), ran(Some(0), None, b"6.1\n", b""))
            })
            .collect();
        assert_eq!(
            plain(&outcomes),
            format!("{RULE}\nh1/web-[1-250], h2/web-[251-500] (500)\n{RULE}\n6.1\n")
        );
        let unlike: Vec<_> =
            (0..500).map(|n| outcome(&format!("web-{}", n * n), ran(Some(0), None, b"6.1\n", b""))).collect();
        let text = plain(&unlike);
        assert!(text.len() < 200 && text.contains("… and 49"), "{text}");
    }

    #[test]
    fn differences_are_from_the_most_common_output() {
        let text = differences(&[
            outcome("a", ran(Some(0), None, b"one\ntwo\nthree\nfour\n", b"")),
            outcome("b", ran(Some(0), None, b"one\nTWO\nthree\nfour\n", b"")),
            outcome("c", ran(Some(3), None, b"one\nTWO\nthree\nfour\n", b"")),
            outcome("d", ran(Some(0), None, b"one\nTWO\nthree\nfour\n", b"")),
        ]);
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            format!(
                "{RULE}\nh1/b, h1/d (2)\n{RULE}\none\nTWO\nthree\nfour\n\
                 {RULE}\nh1/a\n{RULE}\n@@ -1,3 +1,3 @@\n one\n-TWO\n+two\n three\n\
                 {RULE}\nh1/c\n{RULE}\n@@ -4 +4,2 @@\n four\n+[exit code 3]\n"
            )
        );
        assert_eq!(differences(&[]), "");
    }

    #[test]
    fn another_exit_code_is_another_group() {
        let text = plain(&[
            outcome("a", ran(Some(0), None, b"x", b"")),
            outcome("b", ran(Some(1), None, b"x", b"")),
        ]);
        assert!(text.contains("h1/a\n") && text.contains("h1/b\n"), "{text}");
    }

    #[test]
    fn both_streams_and_the_end_are_shown() {
        let text = plain(&[outcome("a", ran(Some(3), None, b"out", b"err\n"))]);
        assert!(text.ends_with("out\n[stderr]\nerr\n[exit code 3]\n"), "{text}");
        let text = plain(&[outcome("a", ran(None, Some(9), b"", b""))]);
        assert!(text.ends_with("[signal 9]\n"), "{text}");
        let text = plain(&[outcome("a", ran(Some(0), None, b"", b""))]);
        assert!(text.ends_with("[no output]\n"), "{text}");
    }

    #[test]
    fn output_of_guests_cannot_control_the_terminal() {
        let text = outputs(&[outcome("\x1b]0;x\x07", ran(Some(0), None, b"\x1b[2J\xff\r\n", b""))]);
        let text = anstream::adapter::strip_str(&text).to_string();
        assert!(text.contains("h1/\\x1b]0;x\\x07"), "{text}");
        assert!(text.ends_with(&format!("\\x1b[2J\\xff\n{NOT_TEXT}\n")), "{text}");
    }

    #[test]
    fn replies_are_grouped_too() {
        let reply = || Data::Reply(serde_json::json!({"status": "running"}));
        let text = plain(&[outcome("a", reply()), outcome("b", reply())]);
        assert_eq!(text, format!("{RULE}\nh1/a, h1/b (2)\n{RULE}\n{{\n  \"status\": \"running\"\n}}\n"));
    }
}
