//! FLOOR 1: what things are. No I/O, no async, no clock of its own: pure rules, with their tests beside them.
//!
//! In the order of the flow: an [`alert`] (in one of the [`shapes`]) meets the [`policy`] documents compiled in the
//! [`index`]; a [`response`] holds [`effect`]s on [`agent`]s of the [`fleet`] by means of [`command`]s; [`outcome`] says what became of it, [`presence`] where an agent is. [`protected`] is what none of them may touch; [`principal`] says who may ask,
//! [`audit`] what is kept of it.

pub mod action;
pub mod agent;
pub mod alert;
pub mod api_key;
pub mod audit;
pub mod batch;
pub mod breaker;
pub mod canonical;
pub mod command;
pub mod decode;
pub mod duplicates;
pub mod duration;
pub mod effect;
pub mod enrolment_token;
pub mod expression;
pub mod fault;
pub mod fleet;
pub mod group_expression;
pub mod host_name;
pub mod id;
pub mod index;
pub mod labels;
pub mod outcome;
pub mod pipeline;
pub mod policy;
pub mod presence;
pub mod principal;
pub mod protected;
pub mod response;
pub mod shapes;
