//! `key`: chords, pressed one after the other.

use atp_protocol::LibvirtCarrier;
use atp_protocol::input::{Chord, KeyTiming, Layout, UntypableCharacter, press};
use atp_transport::Effect;
use atp_transport::domain::DomainInfo;

use super::answer::{Answer, explain};
use super::completion::Completion;
use super::facts::VerbFacts;
use super::input::{self, takes_no_input};
use super::job::Job;

/// Keys to press.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpec {
    /// The chords, pressed one after the other.
    pub chords: Vec<Chord>,
    /// How fast.
    pub timing: KeyTiming,
}

impl KeySpec {
    /// These chords, at the usual pace.
    pub fn new(chords: Vec<Chord>) -> Self {
        KeySpec { chords, timing: KeyTiming::default() }
    }

    /// The strokes that type a text on a guest with that keyboard layout.
    ///
    /// # Errors
    /// The first character the layout has no key for.
    pub fn of_text(text: &str, layout: Layout) -> Result<Self, UntypableCharacter> {
        Ok(KeySpec::new(layout.strokes(text)?))
    }
}

static FACTS: VerbFacts = input::facts("key");

pub(super) fn facts(_: &KeySpec) -> &'static VerbFacts {
    &FACTS
}

pub(super) async fn perform(job: &Job, domain: &DomainInfo, spec: &KeySpec) -> Completion {
    let deadline = job.deadline();
    let answer = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        if let Some(state) = takes_no_input(&connection, domain).await? {
            return Ok(Answer::NotRunning(state, Effect::None));
        }
        job.attempt.mark_sent().await;
        let carrier = LibvirtCarrier::new(&connection, domain.uuid);
        let pressed = press(&carrier, &spec.chords, spec.timing, deadline).await;
        explain(job, &connection, domain, FACTS.needs, pressed).await
    });
    input::completion(job, domain, answer.await)
}
