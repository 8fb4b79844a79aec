//! The domain layer: what things are. Pure rules without I/O, async or a clock, with their tests
//! beside them.
//!
//! In the order of the flow: an [`alert`] (in one of the [`formats`]) meets the [`policy`] documents
//! compiled in the [`index`]. A [`response`] holds [`effect`]s on [`agent`]s of the [`fleet`]
//! through [`command`]s, and [`settlement`] is what their ends say; [`outcome`] summarises it, and
//! [`presence`] is where an agent is. [`protected`] targets are never touched; [`principal`] defines
//! rights, [`audit`] the log, [`actor`] what makes a change.

pub mod access_token;
pub mod action;
pub mod actor;
pub mod agent;
pub mod agent_key;
pub mod agent_selector;
pub mod alert;
pub mod api_key;
pub mod approval_link;
pub mod audit;
pub mod batch;
pub mod breaker;
pub mod by_hand;
pub mod canonical;
pub mod checkpoint;
pub mod checkpoint_trail;
pub mod client_certificate;
pub mod command;
pub mod commitments;
pub mod credential;
pub mod decode;
pub mod duplicates;
pub mod duration;
pub mod effect;
pub mod egress;
pub mod enrolment_token;
pub mod event;
pub mod expression;
pub mod fault;
pub mod feed;
pub mod feed_list;
pub mod field_reader;
pub mod filing;
pub mod fleet;
pub mod forgotten;
pub mod formats;
pub mod group_expression;
pub mod guardrails;
pub mod host_name;
pub mod id;
pub mod incident_seal;
pub mod index;
pub mod labels;
pub mod ledger_key;
pub mod legal_hold;
pub mod lockout;
pub mod merkle;
pub mod ocsf;
pub mod oidc;
pub mod outcome;
pub mod password;
pub mod pipeline;
pub mod policy;
pub mod presence;
pub mod principal;
pub mod protected;
pub mod protected_document;
pub mod redelivery;
pub mod refresh_token;
pub mod response;
pub mod right;
pub mod runs;
pub mod scope;
pub mod seal;
pub mod secret_reference;
pub mod settlement;
pub mod tlp;
pub mod totp;
pub mod trace;
pub mod user;
pub mod wazuh_claim;
mod wazuh_words;
pub mod webhook;
