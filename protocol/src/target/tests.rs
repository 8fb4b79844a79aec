//! Texts that are targets, and texts that must be refused.

use super::*;

fn ip(text: &str) -> Result<String, TargetError> {
    Target::parse(TargetKind::Ip, text).map(|target| target.value)
}

#[test]
fn addresses_are_written_in_canonical_form() {
    for (text, canonical) in [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::FFFF:CB00:7107", "203.0.113.7"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
    ] {
        assert_eq!(ip(text).as_deref(), Ok(canonical), "{text}");
    }
}

#[test]
fn texts_that_other_parsers_accept_are_refused() {
    for text in [
        "",
        "-",
        "1",
        "127.1",
        "0177.1",
        "0x7f000001",
        "2130706433",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "08.0.0.1",
        " 1.2.3.4",
        "1.2.3.4 ",
        "1.2.3.4\0",
        "1.2.3.4/32",
        "0.0.0.0/0",
        "::/0",
        "fe80::1%eth0",
        "[2001:db8::1]",
        "[2001:db8::1]:80",
        "1.2.3.4:80",
        "::203.0.113.7",
        "localhost",
        "any",
        "-F",
        "１.２.３.４",
        "١.٢.٣.٤",
        "183.106.179.x",
        "***",
        "1.2.3.4\n5.6.7.8",
        "::ffff:1.2.3.4:5",
    ] {
        assert_eq!(ip(text), Err(TargetError::Ip), "{text:?}");
    }
}

#[test]
fn account_names_that_could_be_anything_else_are_refused() {
    for text in ["alice", "_svc", "a.b-c@example.org", "Administrator", "web01$", "WEB01$"] {
        assert!(Target::parse(TargetKind::User, text).is_ok(), "{text}");
    }
    let long = "a".repeat(257);
    for text in [
        "",
        " ",
        "-R",
        "--lock",
        "+",
        "~x",
        "a b",
        "a\nb",
        "a:b",
        "a,b",
        "a/b",
        "..",
        ".",
        "a..b",
        "*",
        "0",
        "#0",
        "$(id)",
        "rооt",
        "ro\u{200b}ot",
        "a\0",
        "N/A",
        "--",
        "$ALOC$",
        "DOMAIN\\user",
        "$",
        "a$b",
        "a$$",
        "-a$",
        long.as_str(),
    ] {
        assert_eq!(Target::parse(TargetKind::User, text), Err(TargetError::User), "{text:?}");
    }
}

#[test]
fn an_account_of_a_directory_is_printable_and_bounded() {
    let longest = "ü".repeat(128);
    for text in [
        "CORP\\alice",
        "alice+tag@example.org",
        "John Smith",
        "müller",
        "WEB01$",
        "0f0f0f0f-1111-2222-3333-444455556666",
        "1001",
        "arn:aws:iam::123456789012:user/alice",
        "$(id)",
        longest.as_str(),
    ] {
        let target = Target::account(text).unwrap();
        assert_eq!(target.value(), text);
        assert_eq!(target.is_local_account(), text == "WEB01$", "{text}");
        // On the wire it is a user target.
        let sent = serde_json::to_string(&target).unwrap();
        assert_eq!(serde_json::from_str::<Target>(&sent).unwrap(), target);
        assert_eq!(Target::named(TargetKind::User, text), Ok(target));
    }
    let long = "a".repeat(257);
    for text in [
        "",
        " ",
        " a",
        "a ",
        "-a",
        "--",
        "a\tb",
        "a\nb",
        "a\0",
        "a\u{7f}",
        "a\u{85}",
        "a\u{a0}b",
        "ro\u{200b}ot",
        "\u{202e}a",
        "a\u{2028}b",
        "a\u{feff}",
        "caf\u{fffd}",
        "a\u{e0041}",
        long.as_str(),
    ] {
        assert_eq!(Target::account(text), Err(TargetError::Account), "{text:?}");
    }
}

#[test]
fn protected_means_protected_in_every_notation() {
    for text in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::FFFF:7f00:1",
        "0:0:0:0:0:ffff:7f00:1",
        "169.254.169.254",
        "fe80::1",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "240.0.0.1",
    ] {
        let target = Target::parse(TargetKind::Ip, text).unwrap();
        assert!(target.always_protected().is_some(), "{text}");
    }
    for text in ["203.0.113.7", "10.0.0.1", "2001:db8::1", "100.64.0.1"] {
        assert_eq!(Target::parse(TargetKind::Ip, text).unwrap().always_protected(), None, "{text}");
    }
    for text in ["root", "ROOT", "System", "HOST\\root", "NT AUTHORITY\\SYSTEM", "root@host.example"] {
        assert!(Target::account(text).unwrap().always_protected().is_some(), "{text}");
    }
    assert_eq!(Target::account("CORP\\rooter").unwrap().always_protected(), None);
}

#[test]
fn a_target_on_the_wire_is_checked_like_any_other() {
    let good: Target = serde_json::from_str(r#"{"kind":"ip","value":"::ffff:203.0.113.7"}"#).unwrap();
    assert_eq!(good.value(), "203.0.113.7");
    assert!(serde_json::from_str::<Target>(r#"{"kind":"ip","value":"1"}"#).is_err());
    assert!(serde_json::from_str::<Target>(r#"{"kind":"host","value":"x"}"#).is_err());
    assert!(serde_json::from_str::<Target>(r#"{"kind":"planet","value":"x"}"#).is_err());
}

#[test]
fn processes_and_files_have_one_spelling() {
    assert!(Target::parse(TargetKind::Process, "4711").is_ok());
    for text in ["0", "1", "-1", "+12", "012", "4294967296", "x", ""] {
        assert!(Target::parse(TargetKind::Process, text).is_err(), "{text}");
    }
    assert!(Target::parse(TargetKind::File, "/var/www/x.php").is_ok());
    for text in ["", "/", "x", "/a/../b", "/a//b", "/a/./b", "/a/\nb", "/a\0"] {
        assert!(Target::parse(TargetKind::File, text).is_err(), "{text:?}");
    }
}

#[test]
fn a_file_of_windows_has_a_drive_and_names_that_windows_keeps() {
    let file = |text: &str| Target::parse(TargetKind::File, text).map(|target| target.value);
    assert_eq!(file(r"c:\Users\Jörg Müller\x.exe").as_deref(), Ok(r"C:\Users\Jörg Müller\x.exe"));
    assert!(file(r"C:\com10\lptx\console").is_ok());
    for text in [
        r"C:\",
        r"C:x",
        r"C:\a\..\b",
        r"C:\a\.\b",
        r"C:\a\\b",
        r"C:\a/b",
        r"C:\a. ",
        r"C:\a.",
        r"C:\x.txt:stream",
        r"C:\nul",
        r"C:\AUX.txt",
        r"C:\com1",
        r"C:\LPT9.x",
        r"CC:\a",
        r"\\?\C:\a",
        r"\\server\share\a",
        r"1:\a",
        "C:\\a\nb",
    ] {
        assert_eq!(file(text), Err(TargetError::File), "{text:?}");
    }
}

#[test]
fn a_network_has_one_spelling_and_is_never_too_wide() {
    let network = |text: &str| Target::parse_network(text).map(|target| target.value);
    assert_eq!(network("203.0.113.0/24").as_deref(), Ok("203.0.113.0/24"));
    assert_eq!(network("2001:DB8::/48").as_deref(), Ok("2001:db8::/48"));
    assert_eq!(network("203.0.113.7/32").as_deref(), Ok("203.0.113.7"));
    for text in [
        "203.0.113.7",
        "203.0.113.7/24",
        "203.0.113.0/024",
        "203.0.113.0/33",
        "203.0.113.0/",
        "::/-1",
        "1/8",
        "10.0.0.0/+8",
    ] {
        assert_eq!(network(text), Err(TargetError::Network), "{text}");
    }
    let protected = |text: &str| Target::parse_network(text).unwrap().always_protected().is_some();
    for text in
        ["0.0.0.0/0", "10.0.0.0/8", "::/0", "2001:db8::/32", "127.0.0.0/16", "::/64", "169.254.0.0/16", "ff02::/64"]
    {
        assert!(protected(text), "{text}");
    }
    assert!(!protected("10.0.0.0/16") && !protected("2001:db8::/48"));
    let on_the_wire: Target = serde_json::from_str(r#"{"kind":"ip","value":"203.0.113.0/24"}"#).unwrap();
    assert_eq!(on_the_wire.widened(16).value(), "203.0.0.0/16");
    assert_eq!(on_the_wire.widened(32), on_the_wire);
}

proptest::proptest! {
    #[test]
    fn every_parsed_target_is_canonical_and_parses_to_itself(text in "\\PC{0,60}") {
        for kind in [TargetKind::Ip, TargetKind::User, TargetKind::File, TargetKind::Process] {
            if let Ok(target) = Target::parse(kind, &text) {
                proptest::prop_assert_eq!(Target::parse(kind, target.value()), Ok(target.clone()));
                proptest::prop_assert!(!target.value().starts_with('-'));
            }
        }
    }
}
