//! The text of policy files, and syntax errors in words that say what to do. The YAML and JSON
//! libraries know the position of an error, rarely its cause.

use std::path::Path;

/// Reads a file.
///
/// # Errors
/// A sentence without the file's name.
pub(super) fn of_file(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| unreadable(&error))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count();
        format!("line {line} contains bytes that are not UTF-8; save the file as UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
    if text.trim_start().starts_with('<') {
        return Err("is XML; Wazuh's ossec.conf is read by: riposte policy import FILE".to_owned());
    }
    Ok(text)
}

/// Why a path cannot be read.
pub(super) fn unreadable(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or folder".to_owned(),
        std::io::ErrorKind::PermissionDenied => "may not be read by this user".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

/// Why a text is not YAML. A tab is named explicitly: editors hide it, and the library calls it a
/// token.
pub(super) fn not_yaml(text: &str, error: &yaml_serde::Error) -> String {
    let indented_by_tab = |line: &str| line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t');
    let lines: Vec<&str> = text.lines().collect();
    if let Some(number) = lines.iter().position(|line| indented_by_tab(line)) {
        return format!("is not YAML: a tab in line {}; indent with spaces", number + 1);
    }
    format!("is not YAML: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use yaml_serde::Value;

    #[test]
    fn a_tab_is_named_with_its_line() {
        let text = "name: a\nmatch:\n\t- min_level: 3\n";
        let error = yaml_serde::from_str::<Value>(text).unwrap_err();
        assert_eq!(not_yaml(text, &error), "is not YAML: a tab in line 3; indent with spaces");
        let error = yaml_serde::from_str::<Value>("name: [\n").unwrap_err();
        assert!(not_yaml("name: [\n", &error).starts_with("is not YAML: did not find"));
    }

    #[test]
    fn an_unusable_file_gets_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let told = |bytes: &[u8]| {
            let path = folder.path().join("p.yaml");
            std::fs::write(&path, bytes).unwrap();
            of_file(&path)
        };
        assert_eq!(told(b"\xef\xbb\xbfname: a\r\n").unwrap(), "name: a\r\n");
        assert_eq!(
            told(b"a: 1\nb: \xe9\n").unwrap_err(),
            "line 2 contains bytes that are not UTF-8; save the file as UTF-8"
        );
        assert!(told(b"<ossec_config>").unwrap_err().contains("riposte policy import"));
        assert_eq!(of_file(&folder.path().join("none.yaml")).unwrap_err(), "no such file or folder");
    }
}
