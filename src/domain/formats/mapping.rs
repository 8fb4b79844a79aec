//! Mappings: which fields of a foreign alert are which of ours, as the configuration says (`[pipelines.NAME]`). The ready ones
//! (`ready.toml`) are written in the same words, so that they can be copied and changed.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::ObservableMappings;
use super::document::Document;
use super::field::Field;
use super::wazuh::PIPELINE;
use crate::config::MappingSpec;
use crate::domain::fault::Fault;

/// Most paths of one field, and the longest path in bytes.
const MAX_PATHS: usize = 32;
const MAX_PATH_BYTES: usize = 256;
/// The level of an alert whose severity is not known.
const DEFAULT_LEVEL: u8 = 5;
/// Highest level.
const MAX_LEVEL: u8 = 16;
/// Joins the fields of an id.
const JOINED: &str = " + ";

/// A mapping that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineMapping {
    spec: MappingSpec,
    observables: ObservableMappings,
}

/// Whether it maps anything; else it only says whether ids recur.
fn is_mapping(spec: &MappingSpec) -> bool {
    *spec != MappingSpec { ids_recur: spec.ids_recur, ..MappingSpec::default() }
}

/// Fills in from `base` what is not given.
fn over(own: MappingSpec, base: &MappingSpec) -> MappingSpec {
    let paths = |given: Vec<String>, other: &[String]| if given.is_empty() { other.to_vec() } else { given };
    let mut observables = base.observables.clone();
    observables.extend(own.observables);
    let levels = if own.levels.is_empty() { base.levels.clone() } else { own.levels };
    MappingSpec {
        format: None,
        ids_recur: own.ids_recur.or(base.ids_recur),
        recognise: paths(own.recognise, &base.recognise),
        each: own.each.or_else(|| base.each.clone()),
        id: paths(own.id, &base.id),
        time: paths(own.time, &base.time),
        rule_id: paths(own.rule_id, &base.rule_id),
        level: paths(own.level, &base.level),
        levels,
        highest: own.highest.or(base.highest),
        default_level: own.default_level.or(base.default_level),
        ignore: if own.ignore.is_empty() { base.ignore.clone() } else { own.ignore },
        groups: paths(own.groups, &base.groups),
        description: paths(own.description, &base.description),
        techniques: paths(own.techniques, &base.techniques),
        agent_id: paths(own.agent_id, &base.agent_id),
        agent_name: paths(own.agent_name, &base.agent_name),
        process_name: paths(own.process_name, &base.process_name),
        observables,
    }
}

/// Every fault, with the key that it is in.
fn faults_in(spec: &MappingSpec) -> Vec<Fault> {
    let lists = [
        ("recognise", &spec.recognise),
        ("id", &spec.id),
        ("time", &spec.time),
        ("rule_id", &spec.rule_id),
        ("level", &spec.level),
        ("groups", &spec.groups),
        ("description", &spec.description),
        ("techniques", &spec.techniques),
        ("agent_id", &spec.agent_id),
        ("agent_name", &spec.agent_name),
        ("process_name", &spec.process_name),
    ];
    let mut faults = Vec::new();
    for (key, paths) in lists {
        if paths.len() > MAX_PATHS {
            faults.push(Fault::at(format!("/{key}"), format!("has more than {MAX_PATHS} fields")));
        }
        for path in paths {
            let parts = match key {
                "id" => path.split(JOINED).collect(),
                "recognise" => vec![path.split(" = ").next().unwrap_or_default()],
                _ => vec![path.as_str()],
            };
            if !parts.into_iter().all(is_path) {
                faults.push(Fault::at(format!("/{key}"), format!("{path:?} is not a dotted path")));
            }
        }
    }
    for (key, paths) in [("id", &spec.id), ("rule_id", &spec.rule_id)] {
        if paths.is_empty() {
            let what = if key == "id" { "what makes an alert unique" } else { "the rule that fired" };
            faults.push(Fault::at(format!("/{key}"), format!("is missing: name the fields with {what}")));
        }
    }
    let fields = spec.ignore.keys().map(|path| ("ignore", path)).chain(spec.each.iter().map(|path| ("each", path)));
    for (key, path) in fields.filter(|(_, path)| !is_path(path)) {
        faults.push(Fault::at(format!("/{key}"), format!("{path:?} is not a dotted path")));
    }
    let levels = spec.levels.iter().map(|(word, level)| (format!("/levels/{word}"), *level));
    let levels = levels.chain(spec.default_level.map(|level| ("/default_level".to_owned(), level)));
    for (key, _) in levels.filter(|(_, level)| *level > MAX_LEVEL) {
        faults.push(Fault::at(key, format!("must be from 0 to {MAX_LEVEL}")));
    }
    if spec.highest == Some(0) {
        faults.push(Fault::at("/highest", "must be above 0"));
    }
    faults
}

fn is_path(path: &str) -> bool {
    path.len() <= MAX_PATH_BYTES && !path.split('.').any(str::is_empty)
}

impl PipelineMapping {
    /// Checks a mapping.
    ///
    /// # Errors
    /// Every fault, with a pointer to its key.
    fn new(spec: MappingSpec, site: &ObservableMappings) -> Result<Self, Vec<Fault>> {
        let mut faults = faults_in(&spec);
        let observables = ObservableMappings::read(&spec.observables).unwrap_or_else(|found| {
            faults.extend(
                found.into_iter().map(|fault| Fault::at(format!("/observables{}", fault.pointer), fault.detail)),
            );
            ObservableMappings::default()
        });
        if faults.is_empty() { Ok(Self { observables: site.before(&observables), spec }) } else { Err(faults) }
    }

    /// What the configuration says, with what a ready mapping fills in.
    pub const fn spec(&self) -> &MappingSpec {
        &self.spec
    }

    pub(super) const fn observables(&self) -> &ObservableMappings {
        &self.observables
    }

    /// Whether `document` looks like an alert of this pipeline.
    pub(super) fn recognises(&self, document: &Document) -> bool {
        let fits = |condition: &String| match condition.split_once(" = ") {
            Some((path, value)) => document.at(path).and_then(Field::word).is_some_and(|word| word == value),
            None => document.at(condition).is_some(),
        };
        !self.spec.recognise.is_empty() && self.spec.recognise.iter().all(fits)
    }

    /// Whether an alert is one that gets no response.
    pub(super) fn ignores(&self, document: &Document) -> bool {
        self.spec.ignore.iter().any(|(path, values)| {
            let Some(field) = document.at(path) else { return false };
            values.iter().any(|value| field.is(value))
        })
    }

    /// The level of an alert.
    pub(super) fn level(&self, document: &Document) -> u8 {
        if self.ignores(document) {
            return 0;
        }
        let known = self.spec.level.iter().find_map(|path| {
            let field = document.at(path)?;
            let word = self.spec.levels.iter().find(|(word, _)| field.is(word)).map(|(_, level)| *level);
            word.or_else(|| Some(scaled(field.number()?, self.spec.highest?)))
        });
        known.or(self.spec.default_level).unwrap_or(DEFAULT_LEVEL)
    }

    /// The id of an alert: the first one whose fields are all there.
    pub(super) fn id(&self, document: &Document) -> Option<String> {
        self.spec.id.iter().find_map(|joined| {
            let parts: Option<Vec<_>> = joined.split(JOINED).map(|path| document.at(path)?.word_or_number()).collect();
            Some(parts?.join("|"))
        })
    }
}

/// A severity of which `highest` is the highest, as a level from 1 to 15.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 15, clamped")]
fn scaled(number: f64, highest: u32) -> u8 {
    (number / f64::from(highest) * 15.0).round().clamp(1.0, 15.0) as u8
}

/// The mappings by the name of their pipeline: those of the configuration, then the ready ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertMappings {
    /// Fields of observables in any alert.
    observables: ObservableMappings,
    own: BTreeMap<String, PipelineMapping>,
}

impl AlertMappings {
    /// The mappings of a site: fields of observables, and its pipelines.
    ///
    /// # Errors
    /// Every fault, with a pointer into the configuration.
    pub fn read(
        observables: &BTreeMap<String, Vec<String>>,
        pipelines: &BTreeMap<String, MappingSpec>,
    ) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut note = |place: String, found: Vec<Fault>| {
            faults.extend(found.into_iter().map(|fault| Fault::at(format!("{place}{}", fault.pointer), fault.detail)));
        };
        let observables = ObservableMappings::read(observables).unwrap_or_else(|found| {
            note("/observables".to_owned(), found);
            ObservableMappings::default()
        });
        let mut own = BTreeMap::new();
        for (name, spec) in pipelines.iter().filter(|(_, spec)| is_mapping(spec)) {
            if name == PIPELINE {
                let fault = Fault::at("", "is reserved for Wazuh's own alerts and has no mapping");
                note(format!("/pipelines/{name}"), vec![fault]);
                continue;
            }
            let base = match spec.format.as_deref().or_else(|| ready().contains_key(name).then_some(name)) {
                None => MappingSpec::default(),
                Some(format) => match ready().get(format) {
                    Some(ready) => ready.spec.clone(),
                    None => {
                        let known = ready().keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                        let fault = Fault::at("/format", format!("{format:?} is no ready mapping; there are {known}"));
                        note(format!("/pipelines/{name}"), vec![fault]);
                        continue;
                    }
                },
            };
            match PipelineMapping::new(over(spec.clone(), &base), &observables) {
                Ok(mapping) => drop(own.insert(name.clone(), mapping)),
                Err(found) => note(format!("/pipelines/{name}"), found),
            }
        }
        if faults.is_empty() { Ok(Self { observables, own }) } else { Err(faults) }
    }

    /// Only fields of observables.
    #[cfg(test)]
    pub(super) fn of(observables: ObservableMappings) -> Self {
        Self { observables, ..Self::default() }
    }

    /// Fields of observables in any alert.
    pub(super) const fn observables(&self) -> &ObservableMappings {
        &self.observables
    }

    /// The mapping of a pipeline.
    pub fn named(&self, pipeline: &str) -> Option<&PipelineMapping> {
        self.own.get(pipeline).or_else(|| ready().get(pipeline))
    }

    /// The mapping by which an alert is recognised, with the name of its pipeline.
    pub(super) fn recognised(&self, document: &Document) -> Option<(&str, &PipelineMapping)> {
        self.all().find(|(_, mapping)| mapping.recognises(document))
    }

    /// All mappings; one of the configuration hides the ready one of its name.
    pub fn all(&self) -> impl Iterator<Item = (&str, &PipelineMapping)> {
        let ready = ready().iter().filter(|(name, _)| !self.own.contains_key(*name));
        self.own.iter().chain(ready).map(|(name, mapping)| (name.as_str(), mapping))
    }

    /// Where the mapping of a pipeline is from, in one word.
    pub fn source(&self, pipeline: &str) -> &'static str {
        if self.own.contains_key(pipeline) { "configuration" } else { "ready" }
    }
}

/// The mappings that come with the program.
fn ready() -> &'static BTreeMap<String, PipelineMapping> {
    static READY: OnceLock<BTreeMap<String, PipelineMapping>> = OnceLock::new();
    READY.get_or_init(|| {
        // A test reads each: what is wrong with one is found before it is built into a program.
        let specs: BTreeMap<String, MappingSpec> = toml::from_str(include_str!("ready.toml")).unwrap_or_default();
        let checked = specs
            .into_iter()
            .filter_map(|(name, spec)| Some((name, PipelineMapping::new(spec, &ObservableMappings::default()).ok()?)));
        checked.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::alert::TargetField;
    use crate::domain::batch;
    use crate::domain::formats;

    /// What an alert becomes: its id, rule, level and host.
    type Expected = (&'static str, &'static str, u8, Option<&'static str>);

    /// A sample of each ready mapping, and what the alerts in it become.
    const SAMPLES: [(&str, &str, &[Expected]); 10] = [
        (
            "suricata",
            include_str!("../../../tests/fixtures/pipelines/suricata.json"),
            &[("1402771234567890|2026-11-20T10:11:12.345678+0000|2001219", "2001219", 9, Some("sensor-01"))],
        ),
        (
            "falco",
            include_str!("../../../tests/fixtures/pipelines/falco.json"),
            &[("6f1c3c6e-2f0c-4a7e-9a3a-0d6f9a1e8b11", "Terminal shell in container", 6, Some("node-3"))],
        ),
        (
            "alertmanager",
            include_str!("../../../tests/fixtures/pipelines/alertmanager.json"),
            &[
                ("c4a1f0b2d3e4f506", "SSHBruteForce", 14, Some("web-01")),
                ("c4a1f0b2d3e4f507", "SSHBruteForce", 0, Some("web-02")),
            ],
        ),
        (
            "elastic",
            include_str!("../../../tests/fixtures/pipelines/elastic.json"),
            &[("a9d1f3b0c2", "9a1a2dae-0b5f-4c3d-8305-a268d404c306", 12, Some("web-01"))],
        ),
        (
            "guardduty",
            include_str!("../../../tests/fixtures/pipelines/guardduty.json"),
            &[(
                "16afba5c5c43e07c9e3e5e2e544e95df",
                "UnauthorizedAccess:EC2/SSHBruteForce",
                12,
                Some("i-0abc1234def567890"),
            )],
        ),
        (
            "crowdsec",
            include_str!("../../../tests/fixtures/pipelines/crowdsec.json"),
            &[("b2c8e1f0-0000-4000-8000-000000000001", "crowdsecurity/ssh-bf", 10, Some("web-01"))],
        ),
        (
            "chainsaw",
            include_str!("../../../tests/fixtures/pipelines/chainsaw.json"),
            &[(
                "5af54681-df95-4c26-854f-2565e13cfab0|DC-01.example.org|8841",
                "5af54681-df95-4c26-854f-2565e13cfab0",
                12,
                Some("DC-01.example.org"),
            )],
        ),
        (
            "hayabusa",
            include_str!("../../../tests/fixtures/pipelines/hayabusa.json"),
            &[(
                "e87bd730-df45-4ae9-85de-6c75369c5d29|DC-01.example.org|Sec|8841",
                "e87bd730-df45-4ae9-85de-6c75369c5d29",
                4,
                Some("DC-01.example.org"),
            )],
        ),
        (
            "cloudevents",
            include_str!("../../../tests/fixtures/pipelines/cloudevents.json"),
            &[("/detectors/web|42", "org.example.bruteforce", 12, Some("web-01"))],
        ),
        (
            "ocsf",
            include_str!("../../../tests/fixtures/pipelines/ocsf.json"),
            &[("f3a9-77", "rule-117", 12, Some("web-01"))],
        ),
    ];

    #[test]
    fn each_ready_mapping_reads_its_sample_by_the_senders_key_and_by_what_it_looks_like() {
        let text = include_str!("ready.toml");
        let specs: BTreeMap<String, MappingSpec> = toml::from_str(text).unwrap();
        assert_eq!(specs.keys().collect::<Vec<_>>(), ready().keys().collect::<Vec<_>>(), "every one is sound");
        let mappings = AlertMappings::default();
        let mut sampled: Vec<_> = SAMPLES.iter().map(|(name, ..)| *name).collect();
        sampled.sort_unstable();
        assert_eq!(sampled, ready().keys().collect::<Vec<_>>(), "every one has a sample");
        for (name, sample, expected) in SAMPLES {
            for pipeline in [Some(name), None] {
                let object = crate::domain::decode::decode(sample.as_bytes());
                let raws: Vec<&str> = match formats::split(&object, &mappings, pipeline) {
                    Some(items) => items,
                    None if sample.starts_with('[') => {
                        let items = batch::elements(sample.as_bytes()).unwrap();
                        items.into_iter().map(|item| std::str::from_utf8(item).unwrap()).collect()
                    }
                    None => vec![&object],
                };
                assert_eq!(raws.len(), expected.len(), "{name}");
                for (raw, (id, rule, level, agent)) in raws.into_iter().zip(expected) {
                    let alert =
                        formats::parse(raw, &mappings, pipeline).unwrap_or_else(|faults| panic!("{name}: {faults:?}"));
                    assert_eq!(
                        (alert.pipeline.as_str(), alert.pipeline_id.as_str()),
                        (name, *id),
                        "{name} {pipeline:?}"
                    );
                    assert_eq!(
                        (alert.rule.id.as_str(), alert.rule.level, alert.agent.name.as_deref()),
                        (*rule, *level, *agent)
                    );
                    assert!(alert.is_timed && !alert.rule.description.is_empty(), "{name}");
                    let source = alert.observables.target(TargetField::SourceIp).unwrap().unwrap();
                    assert!(source.value().starts_with("203.0.113."), "{name}");
                }
            }
        }
    }

    #[test]
    fn a_wazuh_alert_is_not_taken_for_another_pipelines() {
        let raw = r#"{"timestamp":"2026-11-20T10:11:12Z","id":"1","agent":{"id":"5"},"rule":{"id":"1","level":3},"manager":{"name":"m"},
            "specversion":"1.0","type":"x","source":"y","data":{"a":1},"event_type":"alert","flow_id":1,"alert":{"signature_id":1}}"#;
        assert_eq!(formats::parse(raw, &AlertMappings::default(), None).unwrap().pipeline, PIPELINE);
    }
}
