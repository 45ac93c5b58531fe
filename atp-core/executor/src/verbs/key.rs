//! `key`: chords, pressed one after the other.

use std::time::Duration;

use atp_api::KeySpec;
use atp_protocol::LibvirtCarrier;
use atp_protocol::input::{Chord, KeyTiming, press};
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

pub(super) static FACTS: VerbFacts = input::facts("key");

pub(super) async fn perform(job: &Job, domain: &DomainInfo, spec: &KeySpec) -> Completion {
    match parse(&spec.chords) {
        Ok(chords) => press_all(job, domain, &chords, spec.hold).await,
        Err(reason) => job.invalid(reason),
    }
}

/// Presses chords, one after the other.
pub(super) async fn press_all(
    job: &Job,
    domain: &DomainInfo,
    chords: &[Chord],
    hold: Duration,
) -> Completion {
    let press_on = async |connection: &LibvirtConnection| {
        job.attempt.mark_sent().await;
        let carrier = LibvirtCarrier::new(connection, domain.uuid);
        press(&carrier, chords, KeyTiming { hold }, job.deadline()).await
    };
    input::send(job, domain, press_on).await
}

/// The key in a step of a scenario.
pub(super) const STEP: Field =
    field("key", Shape::Texts, "Press keys: chords such as ctrl-alt-del, one after another");

/// Reads chords from a step.
pub(super) fn read(node: &Node, names: &Names) -> Result<Vec<Template>> {
    words(node, names, |words| parse(words).map(drop))
}

/// The keys with values in them. The error says what is wrong.
pub(super) fn fill(chords: &[Template], values: &Values) -> Result<KeySpec, String> {
    let chords = fill_all(chords, values)?;
    parse(&chords)?;
    Ok(KeySpec::new(chords))
}

/// The chords. The error says what is wrong.
pub(crate) fn parse(words: &[String]) -> Result<Vec<Chord>, String> {
    words.iter().map(|word| word.parse::<Chord>().map_err(|error| error.to_string())).collect()
}
