//! A command: one instruction to one agent, signed by its manager. The claims are the whole order.
//! An agent needs nothing else to decide whether to obey, and does only what the claims say.

use crate::key::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::MANAGER;
use crate::identity::LEEWAY;
use crate::jws::{self, JwsError, Unverified};
use crate::target::Target;
use crate::time::Timestamp;

/// The `typ` of a signed command.
pub const TYP: &str = "riposte-command+jwt";

/// The operation of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Bring the effect into force, or change its end.
    Apply,
    /// Lift the effect.
    Revert,
}

impl Op {
    /// The word used on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Revert => "revert",
        }
    }

    /// Parses the word of an operation.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Apply, Self::Revert].into_iter().find(|op| op.as_str() == word)
    }
}

/// How a custom action's program is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ScriptStyle {
    /// Wazuh 4.2 and later: one line of JSON on standard input, `add` and `delete`, `check_keys`.
    #[default]
    Wazuh,
    /// Wazuh 5: the same with a flat alert, `enable` and `disable`.
    Wazuh5,
    /// Before Wazuh 4.2: all input in the arguments.
    Argv,
}

/// The program of a custom action: a file of the agent's own folder for such programs, never a
/// path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Script {
    /// Name of the file.
    pub executable: String,
    /// How it is called.
    #[serde(default)]
    pub style: ScriptStyle,
    /// Whether a revert runs it again; if not, each command is complete in itself.
    pub undoable: bool,
}

/// The claims of a command. Unknown claims are ignored, so that a newer manager can add claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Always [`MANAGER`].
    pub iss: String,
    /// Id of the agent it is addressed to.
    pub aud: Uuid,
    /// The command's id; the agent never executes one id twice.
    pub jti: Uuid,
    /// The command's number: strictly rising per agent, and the order within one effect.
    pub seq: u64,
    /// When it was issued, in seconds since the epoch.
    pub iat: i64,
    /// After this second it must not be executed any more.
    pub exp: i64,
    /// Apply or revert.
    pub op: Op,
    /// The effect it is about; all commands of one effect share this id.
    pub effect: Uuid,
    /// The action's name.
    pub action: String,
    /// The target of the action.
    pub target: Target,
    /// Parameters of the action, passed as data.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// When the effect ends by itself; `null` if only a revert ends it.
    pub until: Option<Timestamp>,
    /// Id of the response that caused it.
    pub response: Uuid,
    /// The alert that caused it, if the action asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<serde_json::Value>,
    /// The program of a custom action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
    /// When the target was seen, by the manager's clock: a target that came into being later is not
    /// meant. Absent for a revert, for targets that keep their name for good, and from older
    /// managers; then `iat` counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
    /// Whether a person asked for it and waits: it is delivered before older commands
    /// ([`crate::delivery::Rank`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub urgent: bool,
}

/// Why an agent does not obey a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The token is not valid.
    #[error(transparent)]
    Token(#[from] JwsError),
    /// It was not issued by a manager.
    #[error("the command was not issued by a manager")]
    Issuer,
    /// It is for another agent.
    #[error("the command is addressed to another agent")]
    Audience,
}

impl Refusal {
    /// The word in the report to the manager ([`crate::message::RejectedOrders`]).
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Token(JwsError::Malformed) => "malformed",
            Self::Token(JwsError::Kind) => "kind",
            Self::Token(JwsError::UnknownKey) => "unknown_key",
            Self::Token(JwsError::Signature) => "signature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
        }
    }
}

/// A public key of the manager that the agent pinned at enrolment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ManagerKey {
    /// The key's id, as in a command's header.
    pub kid: String,
    /// 32 raw bytes in base64url.
    pub public_key: String,
}

impl Command {
    /// Signs the command.
    ///
    /// # Errors
    /// [`JwsError::Malformed`] if the claims cannot be written as JSON.
    pub fn sign(&self, key: &SigningKey, kid: &str) -> Result<String, JwsError> {
        jws::sign(key, TYP, kid, self)
    }

    /// Verifies a signed command: signed by a pinned key, issued by a manager, addressed to
    /// `agent`. Expiry is a separate check ([`Command::is_expired`]), because an expired command
    /// has a result that says so, while a forged one has none.
    ///
    /// # Errors
    /// The first reason why it is not valid.
    pub fn open(token: &str, keys: &[(String, VerifyingKey)], agent: Uuid) -> Result<Self, Refusal> {
        let unverified = Unverified::parse(token, TYP, false)?;
        let kid = unverified.header.kid.as_deref().unwrap_or_default();
        let (_, key) = keys.iter().find(|(id, _)| id == kid).ok_or(JwsError::UnknownKey)?;
        let command: Self = unverified.verify(key)?;
        if command.iss != MANAGER {
            return Err(Refusal::Issuer);
        }
        if command.aud != agent {
            return Err(Refusal::Audience);
        }
        Ok(command)
    }

    /// Whether it is too late to execute it at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now.as_secs() > self.exp
    }

    /// Whether it claims to be issued later than `now`, by more than clocks may differ. Such an
    /// order must not be executed: an attacker who had the key for a moment could otherwise issue
    /// orders for all the future.
    pub fn is_dated_ahead(&self, now: Timestamp) -> bool {
        self.iat > now.plus(LEEWAY).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::TargetKind;

    fn signer(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    fn command() -> Command {
        Command {
            iss: MANAGER.into(),
            aud: Uuid::from_u128(1),
            jti: Uuid::from_u128(2),
            seq: 7,
            iat: 1_795_514_400,
            exp: 1_795_515_000,
            op: Op::Apply,
            effect: Uuid::from_u128(3),
            action: "firewall-drop".into(),
            target: Target::parse(TargetKind::Ip, "203.0.113.7").unwrap(),
            arguments: vec![],
            until: Some("2026-11-24T10:00:00Z".parse().unwrap()),
            response: Uuid::from_u128(4),
            alert: None,
            script: None,
            as_of: None,
            urgent: false,
        }
    }

    #[test]
    fn the_claims_are_the_documented_ones() {
        insta::assert_json_snapshot!(command(), @r#"
        {
          "iss": "riposte",
          "aud": "00000000-0000-0000-0000-000000000001",
          "jti": "00000000-0000-0000-0000-000000000002",
          "seq": 7,
          "iat": 1795514400,
          "exp": 1795515000,
          "op": "apply",
          "effect": "00000000-0000-0000-0000-000000000003",
          "action": "firewall-drop",
          "target": {
            "kind": "ip",
            "value": "203.0.113.7"
          },
          "arguments": [],
          "until": "2026-11-24T10:00:00.000Z",
          "response": "00000000-0000-0000-0000-000000000004"
        }
        "#);
    }

    #[test]
    fn no_forged_or_misaddressed_order_is_opened() {
        let pinned = [("k1".to_owned(), signer(1).verifying_key())];
        let agent = Uuid::from_u128(1);
        let open = |token: String| Command::open(&token, &pinned, agent);
        assert_eq!(open(command().sign(&signer(1), "k1").unwrap()), Ok(command()));
        assert_eq!(open(command().sign(&signer(2), "k1").unwrap()), Err(JwsError::Signature.into()));
        assert_eq!(open(command().sign(&signer(1), "k2").unwrap()), Err(JwsError::UnknownKey.into()));
        let other = Command { aud: Uuid::from_u128(9), ..command() };
        assert_eq!(open(other.sign(&signer(1), "k1").unwrap()), Err(Refusal::Audience));
        let stranger = Command { iss: "stranger".into(), ..command() };
        assert_eq!(open(stranger.sign(&signer(1), "k1").unwrap()), Err(Refusal::Issuer));
    }

    #[test]
    fn a_command_may_be_dated_ahead_by_as_much_as_clocks_may_differ() {
        let at = |secs: i64| Timestamp::from_millis(secs * 1000);
        assert!(!command().is_dated_ahead(at(1_795_514_400 - 60)));
        assert!(command().is_dated_ahead(at(1_795_514_400 - 61)));
    }

    #[test]
    fn a_command_expires_after_its_last_second() {
        assert!(!command().is_expired(Timestamp::from_millis(1_795_515_000_999)));
        assert!(command().is_expired(Timestamp::from_millis(1_795_515_001_000)));
    }
}
