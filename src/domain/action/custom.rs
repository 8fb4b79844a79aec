//! Parses custom actions: programs in the agents' own folder, with their accepted targets and
//! arguments.

use riposte_protocol::command::{Script, ScriptStyle};
use riposte_protocol::target::TargetKind;
use riposte_protocol::words::nearest;
use serde_json::{Map, Value};

use super::catalogue::Catalogue;
use super::definition::{Accounts, Action, free_arguments, is_name};
use super::schema;
use crate::domain::alert::TargetField;
use crate::domain::fault::Fault;

const KNOWN: [&str; 12] = [
    "name",
    "summary",
    "executable",
    "style",
    "target_kinds",
    "user",
    "default_target",
    "undoable",
    "platforms",
    "parameters",
    "wants_alert",
    "d3fend",
];
const PLATFORMS: [&str; 6] = ["linux", "macos", "freebsd", "openbsd", "netbsd", "windows"];
/// Most techniques of D3FEND that an action can name.
const MAX_D3FEND: usize = 8;
/// Maximum size of a parameter schema, in bytes.
const MAX_SCHEMA_BYTES: usize = 16 * 1024;

impl Action {
    /// Parses a new custom action.
    ///
    /// # Errors
    /// All faults, each with a pointer.
    pub fn parse(document: &Value) -> Result<Self, Vec<Fault>> {
        let costly = document.get("parameters").and_then(schema::fault);
        let costly = costly.map(|fault| Fault::at("/parameters", fault));
        match (Self::parse_stored(document), costly) {
            (Ok(action), None) => Ok(action),
            (read, costly) => Err(read.err().into_iter().flatten().chain(costly).collect()),
        }
    }

    /// Parses a custom action of an earlier version, which may have stored a schema that cannot be
    /// checked in time. Such an action takes no arguments.
    ///
    /// # Errors
    /// All faults, each with a pointer.
    pub fn parse_stored(document: &Value) -> Result<Self, Vec<Fault>> {
        let Some(object) = document.as_object() else { return Err(vec![Fault::at("", "an action is a JSON object")]) };
        let mut faults = Vec::new();
        for key in object.keys().filter(|key| !KNOWN.contains(&key.as_str())) {
            let meant = nearest(key, KNOWN).map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
            let pointer = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
            faults.push(Fault::at(pointer, format!("is not a known field{meant}")));
        }
        let name = text(object, "name", &mut faults).unwrap_or_default();
        if !is_name(&name) {
            faults.push(Fault::at("/name", "must be 1 to 64 characters of a-z, 0-9, '-', '_' and '.'"));
        } else if Catalogue::built_in().find(&name).is_some() {
            faults.push(Fault::at("/name", "is the name of a built-in action"));
        }
        let executable = text(object, "executable", &mut faults).unwrap_or_default();
        if !is_file_name(&executable) {
            faults.push(Fault::at("/executable", "must be a file name in the agents' program folder, without a path"));
        }
        let style = word(object, "style", &mut faults).unwrap_or(ScriptStyle::Wazuh);
        let target_kinds =
            words::<TargetKind>(object, "target_kinds", &mut faults).unwrap_or_else(|| vec![TargetKind::None]);
        if target_kinds.is_empty() {
            faults.push(Fault::at("/target_kinds", "must name at least one kind; none is \"none\""));
        }
        let user: Option<Accounts> = word(object, "user", &mut faults);
        if user.is_some() && !target_kinds.contains(&TargetKind::User) {
            faults.push(Fault::at("/user", "is set, but target_kinds does not include user"));
        }
        let user = user.unwrap_or_default();
        if user == Accounts::Any && style == ScriptStyle::Argv {
            faults.push(Fault::at("/user", "any needs a style that passes names as JSON: wazuh or wazuh5"));
        }
        let default_target: Option<TargetField> = word(object, "default_target", &mut faults);
        if default_target.is_some_and(|field| !target_kinds.contains(&field.kind())) {
            faults.push(Fault::at("/default_target", "is of a kind that target_kinds does not have"));
        }
        let platforms: Vec<String> =
            words(object, "platforms", &mut faults).unwrap_or_else(|| PLATFORMS.map(String::from).to_vec());
        for (index, _) in platforms.iter().enumerate().filter(|(_, word)| !PLATFORMS.contains(&word.as_str())) {
            faults.push(Fault::at(format!("/platforms/{index}"), format!("must be one of {}", PLATFORMS.join(", "))));
        }
        let parameters = object.get("parameters").cloned().unwrap_or_else(free_arguments);
        if parameters.to_string().len() > MAX_SCHEMA_BYTES {
            faults.push(Fault::at("/parameters", format!("is larger than {MAX_SCHEMA_BYTES} bytes")));
        } else if schema::fault(&parameters).is_none()
            && let Err(error) = jsonschema::validator_for(&parameters)
        {
            faults.push(Fault::at("/parameters", format!("is not a JSON Schema: {error}")));
        }
        let undoable = flag(object, "undoable", false, &mut faults);
        let wants_alert = flag(object, "wants_alert", true, &mut faults);
        let summary = text(object, "summary", &mut faults).unwrap_or_default();
        let d3fend: Vec<String> = words(object, "d3fend", &mut faults).unwrap_or_default();
        if d3fend.len() > MAX_D3FEND {
            faults.push(Fault::at("/d3fend", format!("has more than {MAX_D3FEND} items")));
        }
        for (index, _) in d3fend.iter().enumerate().filter(|(_, word)| !is_d3fend(word)) {
            faults.push(Fault::at(format!("/d3fend/{index}"), "must be a technique of D3FEND, such as D3-NTF"));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let script = Some(Script { executable, style, undoable });
        Ok(Self {
            name,
            summary,
            target_kinds,
            user,
            default_target,
            undoable,
            platforms,
            parameters,
            wants_alert,
            d3fend,
            script,
        })
    }
}

/// Whether `word` can be the id of a technique of D3FEND.
fn is_d3fend(word: &str) -> bool {
    let is_plain = |id: &str| {
        (1..=16).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    };
    word.strip_prefix("D3-").is_some_and(is_plain)
}

/// Whether `name` is a plain file name: it reaches agents that run as root.
fn is_file_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+');
    (1..=128).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with(['.', '-'])
}

fn text(object: &Map<String, Value>, key: &str, faults: &mut Vec<Fault>) -> Option<String> {
    match object.get(key)? {
        Value::String(text) if text.chars().count() <= 4096 && !text.contains('\0') => Some(text.clone()),
        _ => {
            faults.push(Fault::at(format!("/{key}"), "must be a text of at most 4096 characters"));
            None
        }
    }
}

fn flag(object: &Map<String, Value>, key: &str, default: bool, faults: &mut Vec<Fault>) -> bool {
    let Some(value) = object.get(key) else { return default };
    value.as_bool().unwrap_or_else(|| {
        faults.push(Fault::at(format!("/{key}"), "must be true or false"));
        default
    })
}

fn word<T: serde::de::DeserializeOwned>(object: &Map<String, Value>, key: &str, faults: &mut Vec<Fault>) -> Option<T> {
    let read = serde_json::from_value(object.get(key)?.clone());
    read.map_err(|error| faults.push(Fault::at(format!("/{key}"), format!("is not known: {error}")))).ok()
}

fn words<T: serde::de::DeserializeOwned>(
    object: &Map<String, Value>,
    key: &str,
    faults: &mut Vec<Fault>,
) -> Option<Vec<T>> {
    let value = object.get(key)?;
    let Some(list) = value.as_array().filter(|list| list.len() <= 16) else {
        faults.push(Fault::at(format!("/{key}"), "must be a list of at most 16 words"));
        return None;
    };
    let mut words = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        match serde_json::from_value(item.clone()) {
            Ok(word) => words.push(word),
            Err(error) => faults.push(Fault::at(format!("/{key}/{index}"), format!("is not known: {error}"))),
        }
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_that_cannot_be_checked_in_time_is_refused_and_a_stored_one_takes_no_arguments() {
        let parts = |n: usize| json!({"allOf": vec![json!({"$ref": format!("#/$defs/{}", n + 1)}); 2]});
        let mut parameters = json!({"$ref": "#/$defs/0", "$defs": {"40": {"type": "array"}}});
        for n in 0..40 {
            parameters["$defs"][n.to_string()] = parts(n);
        }
        let document = json!({"name": "x", "summary": "", "executable": "x.sh", "parameters": parameters});
        let faults = Action::parse(&document).unwrap_err();
        assert_eq!((faults.len(), faults[0].pointer.as_str()), (1, "/parameters"));
        let stored = Action::parse_stored(&document).unwrap();
        assert!(stored.check_arguments(&[], "/arguments")[0].detail.contains("cannot be checked"));
    }

    #[test]
    fn an_action_names_techniques_of_d3fend_and_nothing_else() {
        let of =
            |d3fend: Value| Action::parse(&json!({"name": "x", "summary": "", "executable": "x.sh", "d3fend": d3fend}));
        assert_eq!(of(json!(["D3-NTF", "D3-PT"])).unwrap().d3fend, ["D3-NTF", "D3-PT"]);
        for (wrong, pointer) in [
            (json!(["D3-NTF", "T1110"]), "/d3fend/1"),
            (json!(["D3-"]), "/d3fend/0"),
            (json!(["D3-<b>"]), "/d3fend/0"),
            (json!("D3-NTF"), "/d3fend"),
            (json!(vec!["D3-NTF"; 9]), "/d3fend"),
        ] {
            assert_eq!(of(wrong.clone()).unwrap_err()[0].pointer, pointer, "{wrong}");
        }
    }

    #[test]
    fn a_custom_action_has_plain_defaults() {
        let action = Action::parse(&json!({"name": "yara", "summary": "Scans.", "executable": "yara.sh"})).unwrap();
        assert_eq!(
            (action.target_kinds.as_slice(), action.undoable, action.wants_alert),
            (&[TargetKind::None][..], false, true)
        );
        assert_eq!(action.capability(), "script:yara.sh");
        assert!(action.check_arguments(&["-x".into()], "").is_empty());
    }

    #[test]
    fn every_fault_of_a_custom_action_has_a_pointer() {
        let faults = Action::parse(
            &json!({"name": "netsh!", "executable": "../x", "stile": "wazuh", "style": "perl", "target_kinds": ["ip", "planet"],
            "default_target": "source.user", "platforms": ["beos"], "parameters": {"type": 7}, "undoable": "yes"}),
        );
        let pointers: Vec<String> = faults.unwrap_err().into_iter().map(|fault| fault.pointer).collect();
        let want = [
            "/stile",
            "/name",
            "/executable",
            "/style",
            "/target_kinds/1",
            "/default_target",
            "/platforms/0",
            "/parameters",
            "/undoable",
        ];
        assert_eq!(pointers, want);
        for (kinds, user, style) in
            [(json!(["ip"]), "any", "wazuh"), (json!(["user"]), "everybody", "wazuh"), (json!(["user"]), "any", "argv")]
        {
            let action = json!({"name": "x", "executable": "x", "target_kinds": kinds, "user": user, "style": style});
            assert_eq!(Action::parse(&action).unwrap_err()[0].pointer, "/user", "{user}");
        }
        let taken = Action::parse(&json!({"name": "firewall-drop", "executable": "x"})).unwrap_err();
        assert_eq!(taken[0].pointer, "/name");
    }

    #[test]
    fn a_program_is_a_file_name_and_never_a_path() {
        for good in ["yara.sh", "route-null.exe", "a+b_c"] {
            assert!(is_file_name(good), "{good}");
        }
        for bad in ["", "..", ".hidden", "-x", "a/b", "a\\b", "a b", "a\nb", "/bin/sh"] {
            assert!(!is_file_name(bad), "{bad:?}");
        }
    }
}
