//! `atp vm xml`.

use atp_executor::{Data, Operation, Outcome, XmlSpec};
use clap::Args;

use crate::args::TargetArgs;
use crate::batch::Batch;
use crate::context::Context;
use crate::dry_run;
use crate::problem::Failure;
use crate::render::{Forms, name_of};
use crate::terminal;
use crate::verbs::verb::Run;

const EXAMPLES: &str = "\
Examples:
  atp vm xml web-1
  atp vm xml 'web-*' --inactive -o json";

/// Show the definitions of VMs as libvirt's XML, without passwords
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct XmlArgs {
    #[command(flatten)]
    targets: TargetArgs,

    /// The definition that holds from the next start, and not the one of now
    #[arg(long)]
    inactive: bool,
}

impl Run for XmlArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        Ok(Batch {
            selection: self.targets.selection(),
            operation: Operation::VmXml(XmlSpec { inactive: self.inactive }),
            dry_run: dry_run::name_only,
            forms: Forms::new(documents, &["xml"]),
        })
    }
}

/// The documents. Those of several VMs have a comment with the VM's name before them.
fn documents(outcomes: &[Outcome]) -> String {
    let with_xml = |outcome: &Outcome| match &outcome.data {
        Some(Data::Xml(report)) => Some((name_of(outcome), report.xml.clone())),
        _ => None,
    };
    let documents: Vec<_> = outcomes.iter().filter_map(with_xml).collect();
    let is_one = documents.len() == 1;
    let document = |(name, xml): (String, String)| {
        let xml = terminal::block(xml.trim_end());
        // A comment must not have this in it.
        let name = terminal::line(&name).replace("--", "- -");
        if is_one { format!("{xml}\n") } else { format!("<!-- {name} -->\n{xml}\n") }
    };
    documents.into_iter().map(document).collect()
}

#[cfg(test)]
mod tests {
    use atp_executor::XmlReport;

    use super::*;
    use crate::render::fixture::outcome;

    fn with(vm: &str, xml: &str) -> Outcome {
        Outcome { data: Some(Data::Xml(XmlReport { xml: xml.to_owned() })), ..outcome(Some(vm)) }
    }

    #[test]
    fn one_document_is_as_it_is_and_several_are_named() {
        assert_eq!(documents(&[with("a", "<domain>\n</domain>\n")]), "<domain>\n</domain>\n");
        let two = documents(&[with("a--b", "<domain/>"), outcome(Some("x")), with("b", "<domain/>\n")]);
        assert_eq!(two, "<!-- h1/a- -b -->\n<domain/>\n<!-- h1/b -->\n<domain/>\n");
    }
}
