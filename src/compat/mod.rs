//! Conversion of other programs' files. Pure functions of text, above the engine only because no
//! lower layer needs them: no I/O, no clock, and nothing is applied here.
//!
//! [`ossec`] parses the configuration of a Wazuh manager; the API and the CLI show or store the
//! result. [`wazuh_api`] says what a call of Wazuh's API means in Riposte's words, and [`openc2`] what a
//! command of OpenC2 does. [`feed_forms`] writes the list of a feed as firewalls and proxies read it, [`crowdsec`] as
//! `CrowdSec`'s bouncers do, [`taxii`] as indicators of STIX.

pub mod crowdsec;
pub mod feed_forms;
pub mod openc2;
pub mod ossec;
pub mod taxii;
pub mod wazuh_api;
