//! `atp vm …`: listings and changes of state.

mod autostart;
mod info;
mod lifecycle;
mod list;
mod nmi;
mod xml;

use super::verb::verbs;

const EXAMPLES: &str = "\
Examples:
  atp vm list
  atp vm shutdown 'node7/' --exclude 'db-*' --wait";

verbs! {
    /// List VMs and change their state
    #[command(after_help = EXAMPLES)]
    pub(crate) enum VmCommand {
        List(list::ListArgs),
        Info(info::InfoArgs),
        Xml(xml::XmlArgs),
        Autostart(autostart::AutostartArgs),
        Nmi(nmi::NmiArgs),
        #[command(flatten)]
        Lifecycle(lifecycle::LifecycleCommand),
    }
}
