//! `atp serve token …`: the file of tokens.

use anstyle::Style;
use atp_serve::{NewToken, TokenFile, TokensError, verb_names};
use serde_json::json;

use super::{AddArgs, RemoveArgs, TokenCommand};
use crate::context::Context;
use crate::exit::SUCCESS;
use crate::json;
use crate::output::{Output, OutputFormat};
use crate::problem::{Failure, Problem};
use crate::render::csv;
use crate::render::table::Rows;

pub(super) fn run(command: TokenCommand, context: &Context) -> Result<u8, Failure> {
    match command {
        TokenCommand::Add(new) => add(new, context),
        TokenCommand::List => list(context),
        TokenCommand::Remove(RemoveArgs { name }) => {
            TokenFile::remove(&context.settings.serve.tokens().map_err(no_folder)?, &name).map_err(failed)?;
            context.console.note(&format!("the token {name} is removed"));
            Ok(SUCCESS)
        }
    }
}

fn add(new: AddArgs, context: &Context) -> Result<u8, Failure> {
    let AddArgs { name, role, selector, verbs } = new;
    let known = verb_names();
    if let Some(unknown) = verbs.iter().find(|verb| !known.contains(&verb.as_str())) {
        let problem = Problem::new(format!("there is no verb {unknown:?}"));
        return Err(problem.hint(format!("the verbs are: {}", known.join(", "))).into());
    }
    let role = role.parse().map_err(|_| Problem::new(format!("there is no role {role:?}")))?;
    let path = context.settings.serve.tokens().map_err(no_folder)?;
    let new = NewToken { name: name.clone(), role, selectors: selector, verbs };
    let secret = TokenFile::create(&path, new).map_err(failed)?;
    context.console.note(&format!(
        "this is the token of {name}, which is shown only this once; {} has its hash",
        path.display()
    ));
    let mut output = Output::stdout();
    output.write(&format!("{}\n", secret.reveal()));
    Ok(output.end(&context.console))
}

fn list(context: &Context) -> Result<u8, Failure> {
    let path = context.settings.serve.tokens().map_err(no_folder)?;
    let file = TokenFile::read(&path).map_err(failed)?;
    let format = context.settings.output;
    let all = |texts: &[String], all: &str| if texts.is_empty() { all.to_owned() } else { texts.join(",") };
    let mut values = Vec::new();
    let mut rows = Rows::new(&["NAME", "ROLE", "VMS", "VERBS", "CREATED"]);
    let mut lines = csv::row(["name", "role", "selectors", "verbs", "created"].map(Into::into).into_iter());
    let mut names = String::new();
    for token in file.iter() {
        let selectors: Vec<_> = token.selectors.iter().map(ToString::to_string).collect();
        values.push(json!({
            "name": token.name, "role": token.role, "selectors": selectors, "verbs": token.verbs,
            "created": token.created,
        }));
        let (role, created) = (token.role.to_string(), token.created.to_string());
        let (vms, verbs) = (all(&selectors, "all VMs"), all(&token.verbs, "all verbs"));
        rows.add(Style::new(), &[&token.name, &role, &vms, &verbs, &created]);
        let (vms, verbs) = (selectors.join(","), token.verbs.join(","));
        let cells = [token.name.as_str(), &role, &vms, &verbs, &created].map(Into::into);
        lines.push_str(&csv::row(cells.into_iter()));
        names.push_str(&format!("{}\n", token.name));
    }
    let mut output = Output::stdout();
    match format {
        OutputFormat::Table => output.write(&rows.finish()),
        OutputFormat::Json => output.write(&json::array(&values)),
        OutputFormat::Jsonl => values.iter().for_each(|value| output.write(&json::line(value))),
        OutputFormat::Csv => output.write(&lines),
        OutputFormat::Name => output.write(&names),
    }
    Ok(output.end(&context.console))
}

fn failed(error: TokensError) -> Problem {
    let problem = Problem::new(error.to_string());
    match std::error::Error::source(&error) {
        Some(source) => problem.because(source),
        None => problem,
    }
}

fn no_folder(error: atp_serve::NoFolder) -> Problem {
    Problem::new(error.to_string()).hint("set serve.folder in the settings' file")
}
