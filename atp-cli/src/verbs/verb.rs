//! The interface between verbs and the rest of the command line, and the macro for tables of verbs.

use crate::args::GlobalArgs;
use crate::batch::{self, Batch};
use crate::console::Console;
use crate::context::Context;
use crate::problem::{Failure, Problem};
use crate::remote;

/// A parsed command.
pub(crate) trait Verb {
    /// Checks the options that only some verbs take: an option that has no effect is refused.
    ///
    /// # Errors
    /// Which option the verb does not take.
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem>;

    /// Whether it creates the settings' file if there is none.
    fn creates_settings(&self) -> bool {
        false
    }

    /// Runs a verb that needs no settings, and returns its exit code; None for a verb that needs them.
    fn run_without_settings(&self, _options: &GlobalArgs, _console: &Console) -> Option<u8> {
        None
    }

    /// Runs the verb. Returns the exit code.
    ///
    /// # Errors
    /// Why there is no run to report.
    async fn run(self, context: &Context) -> Result<u8, Failure>;
}

/// A verb that does one operation on all selected targets.
pub(crate) trait Run {
    /// What the arguments ask for.
    ///
    /// # Errors
    /// What is wrong with the arguments.
    async fn batch(self, context: &Context) -> Result<Batch, Failure>;
}

impl<R: Run> Verb for R {
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        options.check_files()
    }

    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let batch = self.batch(context).await?;
        match remote::client(&context.settings)? {
            Some(client) => remote::run(batch, &client, context).await,
            None => batch::run(batch, context).await,
        }
    }
}

/// Defines an enum of verbs, which is a verb itself: one variant for each verb, with its arguments. clap makes
/// subcommands of the variants, and takes their help from the arguments' types.
macro_rules! verbs {
    (
        $(#[$about:meta])*
        $vis:vis enum $name:ident { $($(#[$attribute:meta])* $verb:ident($arguments:ty),)* }
    ) => {
        #[derive(Debug, clap::Subcommand)]
        $(#[$about])*
        $vis enum $name { $($(#[$attribute])* $verb($arguments),)* }

        impl $crate::verbs::verb::Verb for $name {
            fn check(
                &self,
                options: &$crate::args::GlobalArgs,
            ) -> Result<(), $crate::problem::Problem> {
                match self { $($name::$verb(verb) => verb.check(options),)* }
            }

            fn creates_settings(&self) -> bool {
                match self { $($name::$verb(verb) => verb.creates_settings(),)* }
            }

            fn run_without_settings(
                &self,
                options: &$crate::args::GlobalArgs,
                console: &$crate::console::Console,
            ) -> Option<u8> {
                match self { $($name::$verb(verb) => verb.run_without_settings(options, console),)* }
            }

            async fn run(
                self,
                context: &$crate::context::Context,
            ) -> Result<u8, $crate::problem::Failure> {
                match self { $($name::$verb(verb) => verb.run(context).await,)* }
            }
        }
    };
}

pub(super) use verbs;
