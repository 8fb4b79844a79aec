//! FLOOR 3½: what other programs' files mean in Riposte's words. Pure functions of text, above the engine only because
//! nothing below needs them: no I/O, no clock, and nothing is applied here.
//!
//! [`ossec`] reads the configuration of a Wazuh manager; the API and the CLI hand it over and show or store what comes out.

pub mod ossec;
