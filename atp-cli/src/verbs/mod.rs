//! The verbs, one file each: its arguments and examples, what it does, its dry-run words, and how its outcomes are
//! shown.
//!
//! To add a verb, write `verbs/<verb>.rs` and add it to the table [`Command`]. Most verbs do an operation on selected
//! VMs: they implement [`Run`](verb::Run). The others implement [`Verb`](verb::Verb).

mod attach;
mod channel;
mod check;
mod completions;
mod config;
mod console;
mod cp;
mod doctor;
mod events;
mod exec;
mod host;
mod journal;
mod key;
mod man;
mod mouse;
mod qga;
mod qmp;
mod raw;
mod reserve;
mod run;
mod screenshot;
mod serve;
mod snapshot;
mod stats;
mod top;
mod type_text;
pub(crate) mod verb;
mod vm;
mod wait;

use verb::verbs;

verbs! {
    /// What to do.
    pub(crate) enum Command {
        #[command(subcommand)]
        Host(host::HostCommand),
        #[command(subcommand)]
        Vm(vm::VmCommand),
        Exec(exec::ExecArgs),
        Cp(cp::CopyArgs),
        Wait(wait::WaitArgs),
        Qmp(qmp::QmpArgs),
        Qga(qga::QgaArgs),
        Run(run::RunArgs),
        Check(check::CheckArgs),
        Key(key::KeyArgs),
        Type(type_text::TypeArgs),
        Mouse(mouse::MouseArgs),
        Screenshot(screenshot::ScreenshotArgs),
        Console(console::ConsoleArgs),
        Attach(attach::AttachArgs),
        Channel(channel::ChannelArgs),
        #[command(subcommand)]
        Snapshot(snapshot::SnapshotCommand),
        Events(events::EventsArgs),
        Stats(stats::StatsArgs),
        Top(top::TopArgs),
        Reserve(reserve::ReserveArgs),
        Release(reserve::ReleaseArgs),
        Doctor(doctor::DoctorArgs),
        Serve(serve::ServeArgs),
        #[command(subcommand)]
        Journal(journal::JournalCommand),
        #[command(subcommand)]
        Config(config::ConfigCommand),
        Completions(completions::CompletionsArgs),
        Man(man::ManArgs),
    }
}
