//! `docs/agent-protocol.md` is enough to write an agent by: what it says about fields, limits and tokens is
//! compared with the programs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use riposte::api::front::limits::{NEWS_AT_ONCE, NEWS_PER_MINUTE};
use riposte::api::poll::MAX_WAIT_SECS;
use riposte::api::stream::{FRAME, HELLO_TIMEOUT, PING_EVERY, SILENCE};
use riposte::domain::settlement::ANSWER_TIMEOUT;
use riposte::engine::deliver::LEASE;
use riposte_protocol::command::{Command, ManagerKey, Script};
use riposte_protocol::identity::{AgentToken, LEEWAY, MAX_LIFETIME};
use riposte_protocol::key::SigningKey;
use riposte_protocol::key_change::{KeyChange, KeyChangeRequest, KeyChangeResponse};
use riposte_protocol::key_statement::{KeyStatement, MAX_KEYS};
use riposte_protocol::message::{
    Capability, CommandResult, EnrollRequest, EnrollResponse, FromAgent, HeldEffect, MAX_EFFECTS_BYTES,
    MAX_EVIDENCE_BYTES, MAX_FRAME_BYTES, MAX_ITEMS, MAX_OUTPUT_BYTES, MAX_REASONS, Platform, PollRequest, PollResponse,
    RejectedOrders, Settings, ToAgent, WazuhIdentity,
};
use riposte_protocol::{identity, jws};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::processes::now;

/// The rows of the table below a heading, as texts of their cells.
fn table(heading: &str) -> Vec<Vec<String>> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/agent-protocol.md")).unwrap();
    let (_, section) = page.split_once(heading).unwrap_or_else(|| panic!("{heading} is not on the page"));
    let rows = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.skip(2).map(cells).collect()
}

/// The words in backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Fields that are needed, and others.
type Fields = (Vec<String>, Vec<String>);

/// Which fields of a whole message its reader needs, and which it does not.
fn fields<T: Serialize + DeserializeOwned>(message: &Value) -> Fields {
    let read: T = serde_json::from_value(message.clone()).unwrap_or_else(|error| panic!("{error}: {message}"));
    let written = serde_json::to_value(&read).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&written), keys(message), "the sample has not every field of the message");
    keys(message).into_iter().filter(|key| key != "type").partition(|key| {
        let mut rest: Map<String, Value> = message.as_object().unwrap().clone();
        rest.remove(key);
        serde_json::from_value::<T>(Value::Object(rest)).is_err()
    })
}

/// A whole message of each kind that the page lists.
fn messages() -> Vec<(&'static str, Fields)> {
    let id = Uuid::from_u128(7);
    let (time, key) = ("2026-11-24T10:00:00.000Z", json!({"kid": "k", "public_key": "p"}));
    let target = json!({"kind": "ip", "value": "203.0.113.7"});
    let script = json!({"executable": "x", "style": "argv", "undoable": true});
    let platform = json!({"os": "linux", "arch": "x86_64", "version": "12"});
    let wazuh = json!({"id": "005", "name": "web-01"});
    let capability = json!({"action": "log-only", "available": false, "reason": "why"});
    let order = json!({"reason": "kind", "count": 1, "kid": "k"});
    let held = json!({"effect": id, "action": "log-only", "target": target, "until": time, "actual": "drifted",
        "drifts": 1, "failing": "why", "released": "why"});
    let result = json!({"command_id": id, "outcome": "failed", "started_at": time, "finished_at": time, "exit_code": 1,
        "output": "o", "verified": true, "message": "m", "evidence": {"kind": "file"}, "observed": true});
    let settings = json!({"heartbeat_seconds": 30, "poll_interval_seconds": 1, "reconnect_spread_seconds": 5,
        "rotate_key": "k"});
    let with = |kind: &str, mut fields: Value| {
        fields["type"] = json!(kind);
        fields
    };
    vec![
        (
            "enrolment",
            fields::<EnrollRequest>(&json!({"token": "t", "name": "n", "public_key": "p", "platform": platform,
                "version": "1", "capabilities": [capability], "replace": true, "wazuh": wazuh})),
        ),
        ("enrolment's `platform`", fields::<Platform>(&platform)),
        ("enrolment's `wazuh`", fields::<WazuhIdentity>(&wazuh)),
        (
            "response to an enrolment",
            fields::<EnrollResponse>(
                &json!({"agent_id": id, "manager_keys": [key], "stream_url": "s", "poll_url": "p",
                "key_number": 1}),
            ),
        ),
        ("entry of `manager_keys` and `keys`", fields::<ManagerKey>(&key)),
        ("entry of `capabilities`", fields::<Capability>(&capability)),
        (
            "claims of an agent token",
            fields::<AgentToken>(&json!({"iss": id, "sub": id, "aud": "riposte", "iat": 1, "exp": 2, "jti": "j"})),
        ),
        (
            "claims of a command",
            fields::<Command>(
                &json!({"iss": "riposte", "aud": id, "jti": id, "seq": 1, "iat": 1, "exp": 2, "op": "apply",
                "effect": id, "action": "log-only", "target": target, "response": id, "arguments": ["a"], "until": time,
                "alert": {}, "script": script, "as_of": time, "urgent": true}),
            ),
        ),
        ("a command's `script`", fields::<Script>(&script)),
        (
            "claims of a statement about keys",
            fields::<KeyStatement>(&json!({"iss": "riposte", "number": 1, "iat": 1, "keys": [key], "recovery": "r",
                "revocation": 1})),
        ),
        (
            "claims of a new key of the agent",
            fields::<KeyChange>(&json!({"iss": id, "aud": "riposte", "old": "o", "new": "n", "iat": 1})),
        ),
        ("new key of the agent", fields::<KeyChangeRequest>(&json!({"by_old": "o", "by_new": "n"}))),
        ("response to a new key of the agent", fields::<KeyChangeResponse>(&json!({ "key_since": time }))),
        ("entry of `results`", fields::<CommandResult>(&result)),
        ("entry of `effects`", fields::<HeldEffect>(&held)),
        ("entry of `orders` and `rejected`", fields::<RejectedOrders>(&order)),
        (
            "frame `hello`",
            fields::<FromAgent>(&with(
                "hello",
                json!({"cursor": 1, "capabilities": [], "effects": [], "run": id, "keys": 1}),
            )),
        ),
        ("frame `keys` of an agent", fields::<FromAgent>(&with("keys", json!({"number": 1})))),
        ("frame `ack`", fields::<FromAgent>(&with("ack", json!({"command_ids": []})))),
        ("frame `result`", fields::<FromAgent>(&with("result", json!({"results": [result]})))),
        ("frame `effects`", fields::<FromAgent>(&with("effects", json!({"effects": [held], "ended": [id]})))),
        ("frame `rejected`", fields::<FromAgent>(&with("rejected", json!({"orders": [order]})))),
        ("frame `clock`", fields::<FromAgent>(&with("clock", json!({ "host": time })))),
        ("frame `settings`", fields::<ToAgent>(&with("settings", settings.clone()))),
        ("frame `commands`", fields::<ToAgent>(&with("commands", json!({"commands": []})))),
        ("frame `result_ack`", fields::<ToAgent>(&with("result_ack", json!({"command_ids": []})))),
        ("frame `keys` of a manager", fields::<ToAgent>(&with("keys", json!({"statements": []})))),
        ("frame `bye`", fields::<ToAgent>(&with("bye", json!({"retry_after": 2})))),
        (
            "poll",
            fields::<PollRequest>(&json!({"cursor": 1, "acks": [], "results": [], "rejected": [order], "effects": [],
                "capabilities": [], "run": id, "clock": time, "keys": 1, "wait_seconds": 1, "max": 1})),
        ),
        (
            "response to a poll",
            fields::<PollResponse>(&json!({"commands": [], "result_acks": [], "settings": settings,
                "key_statements": ["s"]})),
        ),
    ]
}

#[test]
fn the_page_says_which_fields_are_needed() {
    let sorted = |mut words: Vec<String>| {
        words.sort();
        words
    };
    let owned = |cell: &str| sorted(quoted(cell).into_iter().map(str::to_owned).collect());
    let said: Vec<_> = table("## Fields")
        .into_iter()
        .map(|row| (row[0].clone(), (owned(&row[1]), owned(row.get(2).map_or("", String::as_str)))))
        .collect();
    let are: Vec<_> = messages()
        .into_iter()
        .map(|(name, (needed, optional))| (name.to_owned(), (sorted(needed), sorted(optional))))
        .collect();
    for (said, is) in said.iter().zip(&are) {
        assert_eq!(said, is);
    }
    assert_eq!(said.len(), are.len());
}

fn bytes(count: usize) -> String {
    if count.is_multiple_of(1024 * 1024) {
        format!("{} MiB", count / 1024 / 1024)
    } else {
        format!("{} KiB", count / 1024)
    }
}

fn seconds(count: u64) -> String {
    match count {
        1 => "1 second".to_owned(),
        count if count >= 120 && count.is_multiple_of(60) => format!("{} minutes", count / 60),
        count => format!("{count} seconds"),
    }
}

#[test]
fn the_page_says_the_limits_of_the_programs() {
    let entries = |count: usize| format!("{count} entries");
    let poll: PollRequest = serde_json::from_value(json!({"cursor": 0})).unwrap();
    let settings = Settings::default();
    let (leeway, lifetime) = (LEEWAY.as_secs(), MAX_LIFETIME.as_secs());
    let expected = [
        ("a frame, and the body of a poll", bytes(MAX_FRAME_BYTES)),
        ("a command, a statement or an agent token", bytes(jws::MAX_BYTES)),
        (
            "`effects` in `hello` and in a poll, as JSON",
            format!("{}; their number has no limit of its own", bytes(MAX_EFFECTS_BYTES)),
        ),
        ("`effects` in a frame `effects`", entries(MAX_ITEMS)),
        ("`ended` in a frame `effects`", entries(MAX_ITEMS)),
        (
            "changes of effects that an agent reports",
            format!("{NEWS_PER_MINUTE} a minute, after {NEWS_AT_ONCE} at once"),
        ),
        ("ids in `ack` and `acks`, entries of `results`", entries(MAX_ITEMS)),
        ("entries of `orders` and `rejected`", entries(MAX_REASONS)),
        ("`output` of a result", bytes(MAX_OUTPUT_BYTES)),
        ("`evidence` of a result", bytes(MAX_EVIDENCE_BYTES)),
        ("keys of a statement", entries(MAX_KEYS)),
        ("commands in a frame", entries(FRAME)),
        ("commands in the response to a poll", entries(MAX_ITEMS)),
        ("`max` of a poll that does not say it", entries(poll.max)),
        ("`wait_seconds` of a poll that does not say it", seconds(poll.wait_seconds.into())),
        ("`wait_seconds` at most", seconds(MAX_WAIT_SECS.into())),
        ("`heartbeat_seconds`", seconds(settings.heartbeat_seconds.into())),
        ("`poll_interval_seconds`", seconds(settings.poll_interval_seconds.into())),
        ("a stream without a frame or a ping of the agent", seconds(SILENCE.as_secs())),
        ("time for `hello`", seconds(HELLO_TIMEOUT.as_secs())),
        ("between two pings of the manager", seconds(PING_EVERY.as_secs())),
        ("until a command is sent again in one conversation", seconds(LEASE.as_secs())),
        ("until an acknowledged command without a result counts as timed out", seconds(ANSWER_TIMEOUT.as_secs())),
        ("clocks of an agent token, of a command's `iat` and of a new key may differ by", seconds(leeway)),
        ("lifetime of an agent token", seconds(lifetime)),
        ("age of a new key of the agent, with that difference", seconds(leeway + lifetime)),
        ("after a command's `exp`, to the second", seconds(0)),
    ];
    let said: Vec<(String, String)> = table("## Limits, defaults and clocks")
        .into_iter()
        .map(|row| <[String; 2]>::try_from(row).unwrap().into())
        .collect();
    for ((name, value), said) in expected.iter().zip(&said) {
        assert_eq!((*name, value), (said.0.as_str(), &said.1));
    }
    assert_eq!(said.len(), expected.len());
}

/// Signs any header and claims, as a hostile library could.
fn signed(seed: [u8; 32], header: &Value, claims: &Value) -> String {
    // The form in which RFC 8410 wraps a seed.
    let pkcs8 = [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &seed].concat();
    let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let signature = crypto::sign(text.as_bytes(), &EncodingKey::from_ed_der(&pkcs8), Algorithm::EdDSA).unwrap();
    format!("{text}.{signature}")
}

#[test]
fn what_a_library_for_tokens_must_refuse_is_refused() {
    let (key, agent) = (SigningKey::from_seed(&[7; 32]).unwrap(), Uuid::from_u128(7));
    let pinned = [("k".to_owned(), key.verifying_key())];
    let header = json!({"alg": "EdDSA", "typ": "riposte-command+jwt", "kid": "k"});
    let claims = json!({"iss": "riposte", "aud": agent, "jti": agent, "seq": 1, "iat": 1, "exp": 2, "op": "apply",
        "effect": agent, "action": "log-only", "target": {"kind": "none"}, "response": agent});
    let open = |header: &Value, claims: &Value| {
        Command::open(&signed([7; 32], header, claims), &pinned, agent).map_err(|refusal| refusal.word())
    };
    let changed = |of: &Value, field: &str, value: Value| {
        let mut changed = of.clone();
        changed[field] = value;
        changed
    };
    assert!(open(&header, &claims).is_ok());
    for alg in ["none", "HS256", "Ed448", "eddsa", "ES256"] {
        assert_eq!(open(&changed(&header, "alg", json!(alg)), &claims).unwrap_err(), "kind", "{alg}");
    }
    for typ in [json!("JWT"), json!("riposte-keys+jwt"), Value::Null] {
        assert_eq!(open(&changed(&header, "typ", typ.clone()), &claims).unwrap_err(), "kind", "{typ}");
    }
    assert!(open(&changed(&header, "typ", json!("RIPOSTE-command+JWT")), &claims).is_ok());
    for crit in [json!([]), json!(["b64"]), json!(["exp"])] {
        assert_eq!(open(&changed(&header, "crit", crit), &claims).unwrap_err(), "kind");
    }
    // A key in the header is nothing: only a pinned one verifies.
    let other = SigningKey::from_seed(&[8; 32]).unwrap();
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": other.verifying_key().text()});
    let token = signed([8; 32], &changed(&header, "jwk", jwk), &claims);
    assert_eq!(Command::open(&token, &pinned, agent).unwrap_err().word(), "signature");
    assert_eq!(open(&changed(&header, "kid", json!("other")), &claims).unwrap_err(), "unknown_key");
    assert_eq!(open(&header, &changed(&claims, "iss", json!("other"))).unwrap_err(), "issuer");
    assert_eq!(open(&header, &changed(&claims, "aud", json!(Uuid::nil()))).unwrap_err(), "audience");
    assert_eq!(open(&header, &changed(&claims, "aud", json!([agent]))).unwrap_err(), "malformed");
    let token = signed([7; 32], &header, &claims);
    let parts: Vec<&str> = token.split('.').collect();
    let as_json = json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}).to_string();
    for wrong in [as_json, format!("{token}.."), format!("{}=.{}.{}", parts[0], parts[1], parts[2])] {
        assert!(Command::open(&wrong, &pinned, agent).is_err(), "{wrong}");
    }
    // Agent tokens are read by the same rules; many libraries let a token live for an hour.
    let now = now();
    let (iat, hour) = (now.as_secs(), now.as_secs() + 3600);
    let claims = json!({"iss": agent, "sub": agent, "aud": "riposte", "iat": iat, "exp": hour, "jti": "j"});
    let token = signed([7; 32], &json!({"alg": "EdDSA"}), &claims);
    let refused = identity::check(&token, &key.verifying_key(), agent, now).unwrap_err();
    assert_eq!(refused, identity::TokenError::Lifetime);
}
