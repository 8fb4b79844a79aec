//! `/crowdsec`: `CrowdSec`'s API for bouncers, over the feed that the key of a bouncer is bound to.
//!
//! `caller.rs` finds the bouncer, `decisions.rs` answers which decisions there are, `stream.rs` what has changed, and
//! `metrics.rs` keeps what a bouncer says of itself. What the words mean is in `src/compat/crowdsec.rs`. [`worded`]
//! puts every error below `/crowdsec` into `CrowdSec`'s form.

mod caller;
mod decisions;
mod metrics;
mod stream;
pub mod worded;

use crate::api::front::table::{Table, operations};

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(decisions::list)).with(operations!(stream::changes)).with(operations!(metrics::keep))
}
