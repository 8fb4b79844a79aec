//! Values bound to statements: one type for both databases.

use riposte_protocol::command::Op;
use riposte_protocol::message::Outcome;
use riposte_protocol::target::TargetKind;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::domain::actor::Actor;
use crate::domain::command::CommandState;
use crate::domain::effect::{Actual, Desired, LastApply, LeftAs};
use crate::domain::policy::OnSilence;
use crate::domain::principal::Role;
use crate::domain::response::{Decision, EndReason, ResponseState};

/// Replaces NUL, which PostgreSQL cannot store as text. The API refuses it in requests; an agent's
/// report must not be lost because of one character.
fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// A bind value. Absent values are typed too, because PostgreSQL needs the type of a NULL.
#[derive(Clone, Debug)]
pub enum Bind {
    /// An integer or a time in milliseconds.
    Int(Option<i64>),
    /// A text or an id.
    Text(Option<String>),
    /// Bytes.
    Bytes(Option<Vec<u8>>),
    /// A boolean.
    Bool(Option<bool>),
}

macro_rules! bind_from {
    ($($type:ty => |$value:ident| $bind:expr;)*) => {
        $(impl From<$type> for Bind { fn from($value: $type) -> Self { $bind } })*
    };
}

bind_from! {
    i64 => |value| Self::Int(Some(value));
    Option<i64> => |value| Self::Int(value);
    Timestamp => |value| Self::Int(Some(value.as_millis()));
    Option<Timestamp> => |value| Self::Int(value.map(Timestamp::as_millis));
    &str => |value| Self::Text(Some(storable(value.to_owned())));
    String => |value| Self::Text(Some(storable(value)));
    Option<String> => |value| Self::Text(value.map(storable));
    Option<&str> => |value| Self::Text(value.map(|text| storable(text.to_owned())));
    Uuid => |value| Self::Text(Some(value.to_string()));
    Option<Uuid> => |value| Self::Text(value.map(|id| id.to_string()));
    Vec<u8> => |value| Self::Bytes(Some(value));
    Option<Vec<u8>> => |value| Self::Bytes(value);
    bool => |value| Self::Bool(Some(value));
    Option<bool> => |value| Self::Bool(value);
    &Actor => |value| Self::Text(Some(storable(value.to_string())));
}

/// Binds the words of the domain as their texts.
macro_rules! bind_words {
    ($($type:ty),*) => {$(
        impl From<$type> for Bind {
            fn from(word: $type) -> Self {
                Self::from(word.as_str())
            }
        }

        impl From<Option<$type>> for Bind {
            fn from(word: Option<$type>) -> Self {
                Self::from(word.map(<$type>::as_str))
            }
        }
    )*};
}

bind_words!(
    Actual,
    CommandState,
    Decision,
    Desired,
    EndReason,
    LastApply,
    LeftAs,
    OnSilence,
    Op,
    Outcome,
    ResponseState,
    Role,
    TargetKind
);

/// Builds bind values in the order of their numbers.
macro_rules! binds {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::database::Bind::from($value)),*] };
}
pub(in crate::store) use binds;

/// Binds values to a query of one database.
macro_rules! bind_all {
    ($query:expr, $binds:expr) => {{
        let mut query = $query;
        for bind in $binds {
            query = match bind {
                Bind::Int(value) => query.bind(value),
                Bind::Text(value) => query.bind(value),
                Bind::Bytes(value) => query.bind(value),
                Bind::Bool(value) => query.bind(value),
            };
        }
        query
    }};
}
pub(super) use bind_all;
