//! The second step: what Wazuh would load, block by block, with its own error messages. Wazuh stops
//! at the first error and refuses the file; this code continues, to report all errors at once.

use std::collections::HashSet;

use super::loaded::{ActiveResponse, Command, Illegible, Load, Loaded, Location, Message};
use super::report::{ImportReport, Place, short};
use super::values::{level, locations, number, rule_ids};
use super::wazuh_error::WazuhError;
use super::xml::{self, Root, Section, XmlEntry};
use crate::views::import::Level;

/// Maximum size of all files together, in bytes.
pub(super) const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Maximum number of entries of `repeated_offenders`: Wazuh ignores text after the fifth comma.
const MAX_OFFENDER_STEPS: usize = 5;
/// Sections of Wazuh 4.x, and whether Wazuh refuses one without children.
const SECTIONS: [(&str, bool); 38] = [
    ("global", true),
    ("ruleset", true),
    ("alerts", true),
    ("email_alerts", true),
    ("database_output", true),
    ("syslog_output", true),
    ("integration", true),
    ("agentless", true),
    ("localfile", true),
    ("remote", true),
    ("client", true),
    ("command", true),
    ("active-response", true),
    ("reports", true),
    ("labels", true),
    ("cluster", true),
    ("socket", true),
    ("rule_test", true),
    ("agent-upgrade", true),
    ("task-manager", true),
    ("wdb", true),
    ("github", true),
    ("office365", true),
    ("ms-graph", true),
    ("anti_tampering", true),
    ("syscheck", false),
    ("rootcheck", false),
    ("client_buffer", false),
    ("wodle", false),
    ("sca", false),
    ("vulnerability-detector", false),
    ("vulnerability-detection", false),
    ("indexer", false),
    ("gcp-pubsub", false),
    ("gcp-bucket", false),
    ("fluent-forward", false),
    ("auth", false),
    ("logging", false),
];

/// Loads the files as one.
pub(super) fn load(files: &[(String, String)], report: &mut ImportReport) -> Loaded {
    let size: usize = files.iter().map(|(_, text)| text.len()).sum();
    if size > MAX_BYTES {
        let text = format!("the files have {size} bytes together; {MAX_BYTES} is the most that is read");
        report.refuse(&WazuhError { code: None, text: text.clone() }, None);
        return Loaded { load: Load::Error, errors: vec![WazuhError { code: None, text }], ..Loaded::default() };
    }
    let (mut roots, mut faults) = (Vec::new(), Vec::new());
    for (file, (_, text)) in files.iter().enumerate() {
        match xml::read(file, text) {
            Ok(read) => {
                roots.extend(read.roots);
                stray(&read.stray, report);
            }
            Err(fault) => faults.push(fault),
        }
    }
    let mut reader = Reader { faults, ..Reader::default() };
    if reader.faults.is_empty() {
        reader.execd(&roots, report);
        // Wazuh reads a file twice: first global options, then commands and responses.
        reader.sections(&roots);
        for section in sections(&roots) {
            entities(&section.options, report);
            match section.name.as_str() {
                "command" => reader.command(&section.options, section.place, report),
                "active-response" => reader.active_response(&section.options, section.place, report),
                _ => {}
            }
        }
    }
    let Reader { faults, mut loaded, .. } = reader;
    for (error, place) in &faults {
        report.refuse(error, Some(*place));
    }
    if let Some((error, _)) = faults.into_iter().next() {
        let Loaded { repeated_offenders_minutes, execd_disabled, .. } = loaded;
        let errors = vec![error];
        loaded = Loaded { load: Load::Error, errors, repeated_offenders_minutes, execd_disabled, ..Loaded::default() };
    }
    loaded
}

/// The sections that Wazuh reads.
fn sections(roots: &[Root]) -> impl Iterator<Item = &Section> {
    roots.iter().filter(|root| root.name == "ossec_config").flat_map(|root| &root.sections)
}

/// The first option called `name` of any active response.
fn first<'a>(roots: &'a [Root], name: &str) -> Option<&'a XmlEntry> {
    let blocks = sections(roots).filter(|section| section.name == "active-response");
    blocks.flat_map(|section| &section.options).find(|option| option.name == name)
}

/// Reports text between elements: a `#` at the start of a line is not a comment for Wazuh.
fn stray(texts: &[(String, Place)], report: &mut ImportReport) {
    for (text, place) in texts {
        let message = format!(
            "text between elements ({:?}); Wazuh ignores it, and the elements after it are active, even behind a \
             \"#\": only <!-- … --> comments something out",
            short(text)
        );
        report.warning(*place, message);
    }
}

/// The first of `options` with undecodable bytes. `report` knows the affected files.
fn illegible(options: &[XmlEntry], report: &ImportReport) -> Option<Illegible> {
    let is_illegible = |option: &&XmlEntry| option.value.contains('\u{fffd}') && report.has_bad_bytes(option.place);
    options.iter().find(is_illegible).map(|option| Illegible { option: option.name.clone(), place: option.place })
}

/// Reports entities that were probably meant as characters.
fn entities(options: &[XmlEntry], report: &mut ImportReport) {
    const ENTITIES: [&str; 5] = ["&amp;", "&lt;", "&gt;", "&quot;", "&apos;"];
    for option in options.iter().filter(|option| ENTITIES.iter().any(|entity| option.value.contains(entity))) {
        let message =
            format!("Wazuh does not resolve entities: {} is kept as written, {:?}", option.name, short(&option.value));
        report.warning(option.place, message);
    }
}

#[derive(Default)]
struct Reader {
    loaded: Loaded,
    faults: Vec<xml::XmlFault>,
    /// Names of refused commands: a block that uses one is not reported again.
    refused: HashSet<String>,
}

impl Reader {
    fn fault(&mut self, place: Place, code: u16, text: String) {
        self.faults.push((WazuhError::new(code, text), place));
    }

    /// What Wazuh's execution daemon reads, even if its manager would refuse the files.
    fn execd(&mut self, roots: &[Root], report: &mut ImportReport) {
        if let Some(option) = first(roots, "disabled").filter(|option| option.value == "yes") {
            self.loaded.execd_disabled = true;
            report.warning(
                option.place,
                "the first <disabled> of the file says yes, which switches off the whole executing daemon of the host \
                 that has this file: there, Wazuh carries out no response at all, whatever the other blocks say. \
                 Policies here have no such switch; the freeze is one",
            );
        }
        if let Some(option) = first(roots, "repeated_offenders") {
            let steps = option.value.splitn(MAX_OFFENDER_STEPS, ',');
            let steps = steps.filter(|step| !step.trim_matches([' ', '\t']).is_empty()).map(number);
            self.loaded.repeated_offenders_minutes = steps.collect();
            self.loaded.offenders_at = Some(option.place);
            if option.value.split(',').nth(MAX_OFFENDER_STEPS).is_some() {
                report.info(option.place, "only the first five entries of repeated_offenders count, as in Wazuh");
            }
        }
    }

    /// Roots, section names and global options.
    fn sections(&mut self, roots: &[Root]) {
        for root in roots {
            if root.name != "ossec_config" {
                self.unknown(&root.name, root.place);
                continue;
            }
            for section in &root.sections {
                let known = SECTIONS.iter().find(|(name, _)| *name == section.name);
                if known.is_none_or(|(_, needs_children)| *needs_children && !section.has_children) {
                    self.unknown(&section.name, section.place);
                } else if section.name == "global" {
                    self.allowlist(&section.options);
                }
            }
        }
    }

    fn unknown(&mut self, name: &str, place: Place) {
        self.fault(place, 1230, format!("Invalid element in the configuration: '{name}'."));
    }

    fn wrong_value(&mut self, option: &XmlEntry) {
        let text = format!("Invalid value for element '{}': {}.", option.name, option.value);
        self.fault(option.place, 1235, text);
    }

    fn allowlist(&mut self, options: &[XmlEntry]) {
        for option in options.iter().filter(|option| option.name == "white_list") {
            if !self.loaded.allowlist.add(&option.value, option.place) {
                self.fault(option.place, 1237, format!("Invalid ip address: '{}'.", option.value));
            }
        }
    }

    fn command(&mut self, options: &[XmlEntry], place: Place, report: &ImportReport) {
        if options.is_empty() {
            return;
        }
        let before = self.faults.len();
        let (mut name, mut executable, mut expect, mut extra_args, mut timeout_allowed) =
            (String::new(), String::new(), None, None, false);
        for option in options {
            let value = option.value.clone();
            match option.name.as_str() {
                "name" => {
                    // Wazuh reserves this prefix for calls that name a program.
                    if value.starts_with('!') {
                        self.wrong_value(option);
                    }
                    name = value;
                }
                "executable" => executable = value,
                "expect" => expect = Some(value),
                "extra_args" => extra_args = Some(value),
                "timeout_allowed" => match value.as_str() {
                    "yes" => timeout_allowed = true,
                    "no" => timeout_allowed = false,
                    _ => self.wrong_value(option),
                },
                other => self.unknown(other, option.place),
            }
        }
        if self.faults.len() == before && (name.is_empty() || executable.is_empty()) {
            let text = "Missing command options. You must specify a 'name' and 'executable'.";
            self.fault(place, 1280, text.into());
        }
        if self.faults.len() > before {
            self.refused.insert(name);
        } else {
            let illegible = illegible(options, report);
            self.loaded.commands.push(Command {
                name,
                executable,
                timeout_allowed,
                extra_args,
                expect,
                illegible,
                place,
            });
        }
    }

    fn active_response(&mut self, options: &[XmlEntry], place: Place, report: &mut ImportReport) {
        if options.is_empty() {
            return;
        }
        let before = self.faults.len();
        let mut block = Block::default();
        for option in options {
            let value = || Some(option.value.clone());
            match option.name.as_str() {
                "command" => block.command = value(),
                "location" => block.location = value(),
                "agent_id" => block.agent_id = value(),
                "rules_id" => block.rules_id = value(),
                "rules_group" => block.rules_group = value(),
                "level" => match level(&option.value) {
                    Some(level) => block.level = Some(level),
                    None => self.wrong_value(option),
                },
                "timeout" => block.timeout = number(&option.value),
                "disabled" => match option.value.as_str() {
                    "yes" => block.disabled = true,
                    "no" => {}
                    _ => self.wrong_value(option),
                },
                "repeated_offenders" | "ca_store" => block.may_be_bare = true,
                other => self.unknown(other, option.place),
            }
        }
        if self.faults.len() > before {
            return;
        }
        if block.disabled {
            self.loaded.blocks_dropped += 1;
            report.info(place, "the block is disabled, and not converted");
            return;
        }
        block.illegible = illegible(options, report);
        self.block(block, place, report);
    }

    /// A block with valid options.
    fn block(&mut self, block: Block, place: Place, report: &mut ImportReport) {
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (Some(command), Some(location)) = (filled(block.command), filled(block.location)) else {
            if block.may_be_bare {
                self.loaded.blocks_dropped += 1;
            } else {
                self.fault(place, 1281, "Missing options in the active response configuration.".into());
            }
            return;
        };
        let words = locations(&location);
        if words.contains(&Location::DefinedAgent) {
            match block.agent_id.as_deref().map(number) {
                None => return self.fault(place, 1304, "No agent defined for response.".into()),
                Some(0) => {
                    let text = "Invalid agent ID. Use location=server to run AR on the manager.";
                    self.message(1306, Level::Warning, text.into(), place, report);
                    self.loaded.blocks_dropped += 1;
                    return;
                }
                Some(_) => {}
            }
        }
        if words.is_empty() {
            return self.fault(place, 1302, format!("Invalid active response location: '{location}'."));
        }
        let Some(uses) = self.loaded.commands.iter().position(|known| known.name == command) else {
            if !self.refused.contains(&command) {
                self.fault(place, 1303, format!("Invalid command '{command}' in the active response."));
            }
            return;
        };
        let mut timeout_seconds = block.timeout;
        if timeout_seconds != 0 && !self.loaded.commands[uses].timeout_allowed {
            timeout_seconds = 0;
            let text = format!("Timeout not allowed for command: '{command}'.");
            self.message(1305, Level::Info, text, place, report);
        }
        let (rules_id, unread_rules) = rule_ids(block.rules_id.as_deref().unwrap_or_default());
        self.loaded.policies.push(ActiveResponse {
            name: format!("{command}{timeout_seconds}"),
            command,
            location: words,
            agent_id: block.agent_id,
            level: block.level,
            rules_group: block.rules_group,
            rules_id,
            timeout_seconds,
            stateful: timeout_seconds > 0,
            unread_rules,
            uses,
            illegible: block.illegible,
            place,
        });
    }

    fn message(&mut self, code: u16, severity: Level, text: String, place: Place, report: &mut ImportReport) {
        report.add(severity, Some(place), format!("Wazuh says ({code}): {text}"));
        self.loaded.messages.push(Message { code, severity, text });
    }
}

/// The options of an active response; the last of equal names wins.
#[derive(Default)]
struct Block {
    command: Option<String>,
    location: Option<String>,
    agent_id: Option<String>,
    level: Option<u8>,
    rules_group: Option<String>,
    rules_id: Option<String>,
    timeout: i32,
    disabled: bool,
    /// It contains an option for other daemons, and may lack command and location.
    may_be_bare: bool,
    illegible: Option<Illegible>,
}
