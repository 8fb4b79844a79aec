//! Site-specific fields for observables, as named by a site's own decoders and pipelines. They come
//! from the configuration and are tried before the known fields, in any format.

use std::collections::BTreeMap;

use crate::domain::alert::TargetField;
use crate::domain::fault::Fault;

/// Maximum number of fields per observable.
const MAX_FIELDS: usize = 32;

/// Site-specific fields by observable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ObservableMappings {
    fields: Vec<(TargetField, Vec<String>)>,
}

impl ObservableMappings {
    /// Parses `{"source.ip": ["data.my_decoder.client", …], …}`.
    ///
    /// # Errors
    /// Every unknown observable, and every field that is not a dotted path.
    pub(super) fn read(table: &BTreeMap<String, Vec<String>>) -> Result<Self, Vec<Fault>> {
        let (mut fields, mut faults) = (Vec::new(), Vec::new());
        for (name, paths) in table {
            let known = serde_json::from_value(serde_json::Value::from(name.as_str())).ok();
            let Some(observable) = known.filter(|field| *field != TargetField::Host) else {
                let known =
                    TargetField::NAMES.into_iter().filter(|name| *name != "host").collect::<Vec<_>>().join(", ");
                faults.push(Fault::at(format!("/{name}"), format!("must be one of {known}")));
                continue;
            };
            let bad = paths.iter().find(|path| path.len() > 256 || path.split('.').any(str::is_empty));
            match bad {
                Some(path) => faults.push(Fault::at(format!("/{name}"), format!("{path:?} is not a dotted path"))),
                None if paths.len() > MAX_FIELDS => {
                    faults.push(Fault::at(format!("/{name}"), format!("names more than {MAX_FIELDS} fields")));
                }
                None => fields.push((observable, paths.clone())),
            }
        }
        if faults.is_empty() { Ok(Self { fields }) } else { Err(faults) }
    }

    /// These fields, and then those of `others`.
    pub(super) fn before(&self, others: &Self) -> Self {
        let mut fields = self.fields.clone();
        for (field, paths) in &others.fields {
            match fields.iter_mut().find(|(known, _)| known == field) {
                Some((_, known)) => known.extend(paths.iter().cloned()),
                None => fields.push((*field, paths.clone())),
            }
        }
        Self { fields }
    }

    /// The site's fields for `field`, in order of preference.
    pub(super) fn paths(&self, field: TargetField) -> &[String] {
        self.fields.iter().find(|(named, _)| *named == field).map_or(&[], |(_, paths)| paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::formats::AlertMappings;

    fn table(entries: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        let owned = |(name, paths): &(&str, &[&str])| {
            ((*name).to_owned(), paths.iter().map(|path| (*path).to_owned()).collect())
        };
        entries.iter().map(owned).collect()
    }

    #[test]
    fn a_site_specific_field_wins_over_the_known_one() {
        let mappings =
            ObservableMappings::read(&table(&[("source.ip", &["data.absent", "data.client.addr"])])).unwrap();
        let raw = r#"{"timestamp":"2026-11-20T10:11:12Z","id":"1","agent":{"id":"5"},"rule":{"id":"1","level":3},
            "data":{"srcip":"203.0.113.1","client":{"addr":"203.0.113.2"}}}"#;
        let source = |mappings: &ObservableMappings| {
            super::super::parse(raw, &AlertMappings::of(mappings.clone()), None).unwrap().observables.source_ip.unwrap()
        };
        assert_eq!(source(&ObservableMappings::default()).field, "data.srcip");
        assert_eq!(
            (source(&mappings).value.as_str(), source(&mappings).field.as_str()),
            ("203.0.113.2", "data.client.addr")
        );
    }

    #[test]
    fn an_invalid_table_of_fields_is_refused() {
        for (name, path) in [("source.ipp", "a"), ("host", "a"), ("source.ip", "a..b"), ("source.ip", "")] {
            assert!(ObservableMappings::read(&table(&[(name, &[path])])).is_err(), "{name} {path}");
        }
    }
}
