//! A configuration file key by key, for `riposte config check`: every fault with its line, where
//! [`Config::read`] stops at the first. Each key is read by itself with the same reader.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::{Config, sections};

/// A fault of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFileFault {
    /// Its line, from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

/// A configuration file, read as far as it can be.
#[derive(Clone, Debug, Default)]
pub struct ConfigFile {
    /// What its valid keys say.
    pub config: Config,
    /// Everything that cannot be read.
    pub faults: Vec<ConfigFileFault>,
    /// Lines by key: `server.listen`, `oidc.0.issuer`.
    lines: BTreeMap<String, usize>,
}

/// Where a table stands while its keys are read.
struct Place<'a> {
    text: &'a str,
    file: ConfigFile,
    /// What could be read.
    valid: Table,
}

impl ConfigFile {
    /// Reads the text of a file.
    pub fn read(text: &str) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut place = Place { text, file: Self::default(), valid: Table::new() };
        for error in errors {
            let line = error.span().map(|span| line(text, span.start));
            place.file.faults.push(ConfigFileFault { line, message: error.message().to_owned() });
        }
        if place.file.faults.is_empty() {
            // The syntax is right, so the values are there.
            let values: Table = toml::from_str(text).unwrap_or_default();
            place.top(table.get_ref(), &values);
        }
        let Place { mut file, valid, .. } = place;
        match valid.try_into() {
            Ok(config) => file.config = config,
            Err(error) => file.faults.push(ConfigFileFault { line: None, message: error.message().to_owned() }),
        }
        file.faults.sort_by_key(|fault| fault.line);
        file
    }

    /// The line of a key, or of the section or block that it belongs into.
    pub fn line(&self, key: &str) -> Option<usize> {
        let above = || key.rsplit_once('.').and_then(|(above, _)| self.lines.get(above));
        self.lines.get(key).or_else(above).copied()
    }

    /// Keys outside their section, with their lines.
    pub fn misplaced(&self) -> Vec<(usize, &'static str, &'static str)> {
        let is_there = |(key, section): &(&'static str, &'static str)| Some((*self.lines.get(*key)?, *key, *section));
        sections::KEYS.iter().filter_map(is_there).collect()
    }
}

impl Place<'_> {
    fn top(&mut self, table: &DeTable, values: &Table) {
        for (name, item) in table {
            let (at, name) = (self.line(name), name.get_ref().as_ref());
            let Some(value) = values.get(name) else { continue };
            self.file.lines.insert(name.to_owned(), at);
            if let Some((_, section)) = sections::KEYS.iter().find(|(key, _)| *key == name) {
                self.file.lines.entry(format!("{section}.{name}")).or_insert(at);
                self.take(name, at, section, Table::from_iter([(name.to_owned(), value.clone())]));
                continue;
            }
            match (item.get_ref(), value) {
                (DeValue::Table(section), Value::Table(values)) => self.section(name, at, section, values),
                (DeValue::Array(blocks), Value::Array(values)) if values.iter().all(Value::is_table) => {
                    for (index, (block, value)) in blocks.iter().zip(values).enumerate() {
                        self.block(name, index, block, value);
                    }
                }
                _ => self.try_one(name, at, Table::from_iter([(name.to_owned(), value.clone())])),
            }
        }
    }

    /// `[name]`: each key by itself, unless there is no such section.
    fn section(&mut self, name: &str, at: usize, table: &DeTable, values: &Table) {
        let empty = Table::from_iter([(name.to_owned(), Value::Table(Table::new()))]);
        if let Err(error) = empty.try_into::<Config>() {
            return self.fault(name, at, error.message());
        }
        for key in table.keys() {
            let (at, key) = (self.line(key), key.get_ref().as_ref());
            let Some(value) = values.get(key) else { continue };
            self.file.lines.insert(format!("{name}.{key}"), at);
            self.take(key, at, name, Table::from_iter([(key.to_owned(), value.clone())]));
        }
    }

    /// A block of `[[name]]`.
    fn block(&mut self, name: &str, index: usize, block: &Spanned<DeValue>, value: &Value) {
        self.file.lines.insert(format!("{name}.{index}"), line(self.text, block.span().start));
        let (DeValue::Table(keys), Value::Table(values)) = (block.get_ref(), value) else { return };
        let mut valid = Table::new();
        for key in keys.keys() {
            let (at, key) = (self.line(key), key.get_ref().as_ref());
            let Some(value) = values.get(key) else { continue };
            self.file.lines.insert(format!("{name}.{index}.{key}"), at);
            let one = Value::Table(Table::from_iter([(key.to_owned(), value.clone())]));
            match Table::from_iter([(name.to_owned(), Value::Array(vec![one]))]).try_into::<Config>() {
                Ok(_) => drop(valid.insert(key.to_owned(), value.clone())),
                Err(error) => self.fault(&format!("[[{name}]] {key}"), at, error.message()),
            }
        }
        let blocks = self.valid.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        if let Some(blocks) = blocks.as_array_mut() {
            blocks.push(Value::Table(valid));
        }
    }

    /// Keeps one key of a section, if it can be read.
    fn take(&mut self, key: &str, at: usize, section: &str, one: Table) {
        let whole = Table::from_iter([(section.to_owned(), Value::Table(one.clone()))]);
        if let Err(error) = whole.try_into::<Config>() {
            return self.fault(&format!("{section}.{key}"), at, error.message());
        }
        let held = self.valid.entry(section).or_insert_with(|| Value::Table(Table::new()));
        if let Some(held) = held.as_table_mut() {
            for (key, value) in one {
                // A key in its section counts before one outside.
                let is_in_section = self.file.lines.get(&format!("{section}.{key}")) == Some(&at);
                if is_in_section || !held.contains_key(&key) {
                    held.insert(key, value);
                }
            }
        }
    }

    fn try_one(&mut self, name: &str, at: usize, one: Table) {
        if let Err(error) = one.try_into::<Config>() {
            self.fault(name, at, error.message());
        }
    }

    fn fault(&mut self, key: &str, line: usize, message: &str) {
        self.file.faults.push(ConfigFileFault { line: Some(line), message: format!("{key}: {message}") });
    }

    fn line<T>(&self, spanned: &Spanned<T>) -> usize {
        line(self.text, spanned.span().start)
    }
}

/// The line of a position, from 1.
fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<(Option<usize>, String)> {
        let faults = ConfigFile::read(text).faults.into_iter();
        faults.map(|fault| (fault.line, fault.message.split(", expected").next().unwrap().to_owned())).collect()
    }

    #[test]
    fn every_fault_has_its_line_and_the_rest_is_read() {
        let text = "[server]\nlisten = \"here\"\nlistne = 1\n\n[limits]\nmax_batch = \"many\"\nmax_connections = 5\n\n\
                    [limit]\nx = 1\n\n[[oidc]]\nname = \"corp\"\nissuer = 7\n\n[pipelines.edr]\nids_recur = \"yes\"\n";
        let lines: Vec<Option<usize>> = told(text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [2, 3, 6, 9, 14, 16].map(Some), "{:?}", told(text));
        let file = ConfigFile::read(text);
        assert_eq!((file.config.limits.max_connections, file.config.oidc[0].name.as_str()), (5, "corp"));
        assert_eq!(file.config.limits.max_batch, Config::default().limits.max_batch);
        assert_eq!((file.line("oidc.0.client_id"), file.line("oidc.0.issuer")), (Some(12), Some(14)));
    }

    #[test]
    fn a_file_is_read_as_the_manager_reads_it() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.default.toml")).unwrap();
        let file = ConfigFile::read(&text);
        assert_eq!((file.faults, file.config.changed()), (Vec::new(), Vec::new()));
        for text in ["max_batch = 3\n[limits]\nmax_body_bytes = 9", "max_batch = 3\n[limits]\nmax_batch = 4"] {
            let file = ConfigFile::read(text);
            let config = Config { misplaced: vec!["max_batch"], ..file.config.clone() };
            assert_eq!(Config::parse(text).unwrap(), config, "{text}");
            assert_eq!(file.misplaced(), [(1, "max_batch", "limits")]);
        }
    }

    #[test]
    fn faults_of_syntax_have_their_lines() {
        let found = told("[server]\nlisten = \n");
        assert_eq!(found[0].0, Some(2), "{found:?}");
    }
}
