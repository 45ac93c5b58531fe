//! A fleet as a value: its specification, what applying it changes, and files that are followed.

mod changes;
mod hosts;
mod reload;
mod spec;

pub use changes::Changes;
pub use reload::Following;
pub use spec::Fleet;
