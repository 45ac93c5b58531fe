//! The JSON Schema of these types.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::{Outcome, PlanReport, RunEvent, RunRequest, StatisticsRound, VERSION};

/// The JSON Schema (draft 2020-12) of what is exchanged: requests ([`RunRequest`]), and answers ([`Outcome`], [`RunEvent`],
/// [`PlanReport`], [`StatisticsRound`]). Each is a definition below `$defs`, with those it is made of.
pub fn json_schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    generator.subschema_for::<RunRequest>();
    generator.subschema_for::<PlanReport>();
    generator.subschema_for::<RunEvent>();
    generator.subschema_for::<Outcome>();
    generator.subschema_for::<StatisticsRound>();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ATP",
        "version": VERSION,
        "$defs": generator.take_definitions(true),
    })
}
