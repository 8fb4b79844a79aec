//! `[pipelines.NAME]`: how the alerts of a pipeline are read. `domain/formats/mapping.rs` checks it and reads by it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the configuration says of a pipeline. Lists of paths: the first field that is there counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MappingSpec {
    /// Name of a ready mapping that fills in what is not given here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Whether an id names a finding that may occur again; an alert with another event time is then a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids_recur: Option<bool>,
    /// Fields, or `path = value`, by which an alert of a sender whose key names no pipeline is recognised; all must fit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recognise: Vec<String>,
    /// Field with a list whose items are one alert each, where a request brings several in one object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each: Option<String>,
    /// What makes an alert unique. Fields that are joined by ` + ` must all be there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub id: Vec<String>,
    /// Event time: RFC 3339, or seconds, milliseconds, microseconds or nanoseconds since 1970.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub time: Vec<String>,
    /// Id of the rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rule_id: Vec<String>,
    /// Severity.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub level: Vec<String>,
    /// Level of each word of the severity, 0 to 16; without regard to case.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub levels: BTreeMap<String, u8>,
    /// The number that is the highest severity, level 15; lower numbers get lower levels in proportion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highest: Option<u32>,
    /// Level of an alert whose severity is missing or not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_level: Option<u8>,
    /// Values of fields with which an alert gets no response, such as a test or the end of one: its level is 0.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ignore: BTreeMap<String, Vec<String>>,
    /// Groups; each field is a text or a list of texts, and all count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Description of the rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub description: Vec<String>,
    /// ATT&CK techniques; each field is a text or a list of texts, and all count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub techniques: Vec<String>,
    /// Id of the agent in the pipeline.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub agent_id: Vec<String>,
    /// Name of the host; a port behind it is left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub agent_name: Vec<String>,
    /// Name of the process in `process.id`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub process_name: Vec<String>,
    /// Fields of each observable, such as `source.ip`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub observables: BTreeMap<String, Vec<String>>,
}
