//! `mouse`: moves, clicks, scrolls and drags.

use atp_api::MouseSpec;
use atp_protocol::input::{MouseAction, MouseTiming, point};
use atp_protocol::{LibvirtCarrier, screenshot};
use atp_transport::LibvirtConnection;
use atp_transport::domain::DomainInfo;

use super::completion::Completion;
use super::facts::VerbFacts;
use super::input;
use super::job::Job;
use super::scenario::fields::{Field, Shape, field};
use super::scenario::node::Node;
use super::scenario::read::{Names, Result, words};
use super::scenario::template::{Template, Values, fill_all};

/// The screen that positions in pixels refer to.
const SCREEN: u32 = 0;

pub(super) static FACTS: VerbFacts = input::facts("mouse");

pub(super) async fn perform(job: &Job, domain: &DomainInfo, spec: &MouseSpec) -> Completion {
    let action = match parse(spec) {
        Ok(action) => action,
        Err(reason) => return job.invalid(reason),
    };
    let timing = MouseTiming { hold: spec.hold, ..MouseTiming::default() };
    let deadline = job.deadline();
    let point_on = async |connection: &LibvirtConnection| {
        let screen = match action.needs_screen_size() {
            true => Some(screenshot::screen_size(connection, domain.uuid, SCREEN, deadline).await?),
            false => None,
        };
        job.attempt.mark_sent().await;
        let carrier = LibvirtCarrier::new(connection, domain.uuid);
        point(&carrier, &action, screen, timing, deadline).await
    };
    input::send(job, domain, point_on).await
}

/// The key in a step of a scenario.
pub(super) const STEP: Field =
    field("mouse", Shape::Texts, "Move, click, scroll or drag with the mouse, as in click 50% 50%");

/// Reads an action from a step.
pub(super) fn read(node: &Node, names: &Names) -> Result<Vec<Template>> {
    words(node, names, |words| action(words).map(drop))
}

/// The action with values in it. The error says what is wrong.
pub(super) fn fill(words: &[Template], values: &Values) -> Result<MouseSpec, String> {
    Ok(MouseSpec::new(action(&fill_all(words, values)?)?.to_string()))
}

/// The action. The error says what is wrong.
pub(crate) fn parse(spec: &MouseSpec) -> Result<MouseAction, String> {
    action(&spec.action.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
}

fn action(words: &[String]) -> Result<MouseAction, String> {
    MouseAction::from_words(words).map_err(|error| error.to_string())
}
