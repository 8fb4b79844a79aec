//! Columns that hold a word of the domain. A row's field has the word's type, so the text is decoded
//! where the row is read, in the store as in a view. A text that the type does not know is
//! corruption: no default stands in for it, and the error names the table, the column and the text.

use sqlx::error::BoxDynError;
use sqlx::{Database, Decode, Type};

use riposte_protocol::command::Op;
use riposte_protocol::message::Outcome;

use crate::domain::actor::Actor;
use crate::domain::command::CommandState;
use crate::domain::effect::{Actual, Desired, LastApply, LeftAs};
use crate::domain::policy::OnSilence;
use crate::domain::principal::Role;
use crate::domain::response::{Decision, EndReason, ResponseState};

/// A column holds a text that this program cannot have written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the database contains unreadable data: {table}.{column} is {word:?}")]
pub struct UnknownWord {
    /// The table.
    pub table: &'static str,
    /// Its column.
    pub column: &'static str,
    /// The text that the column holds.
    pub word: String,
}

/// A type whose texts one column holds.
trait Word: Sized {
    const TABLE: &'static str;
    const COLUMN: &'static str;

    fn of(text: &str) -> Option<Self>;
}

/// A word whose type is the protocol's, for `#[sqlx(try_from = "StoredWord<…>")]`: such a type cannot be
/// a column's by itself.
#[derive(Clone, Copy, Debug)]
pub struct StoredWord<T>(T);

impl<DB: Database, T> Type<DB> for StoredWord<T>
where
    str: Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        <str as Type<DB>>::type_info()
    }

    fn compatible(info: &DB::TypeInfo) -> bool {
        <str as Type<DB>>::compatible(info)
    }
}

impl<'r, DB: Database, T: Word> Decode<'r, DB> for StoredWord<T>
where
    &'r str: Decode<'r, DB>,
{
    fn decode(value: DB::ValueRef<'r>) -> Result<Self, BoxDynError> {
        let text = <&str as Decode<'r, DB>>::decode(value)?;
        let unknown = || UnknownWord { table: T::TABLE, column: T::COLUMN, word: text.to_owned() };
        Ok(Self(T::of(text).ok_or_else(unknown)?))
    }
}

/// Says which column holds the words of a type.
macro_rules! columns {
    ($($type:ty: $table:literal . $column:literal;)*) => {$(
        impl Word for $type {
            const TABLE: &'static str = $table;
            const COLUMN: &'static str = $column;

            fn of(text: &str) -> Option<Self> {
                Self::parse(text)
            }
        }
    )*};
}

columns! {
    Actor: "responses"."requested_by";
    Actual: "effects"."actual";
    CommandState: "commands"."state";
    Decision: "answers"."answer";
    Desired: "effects"."desired";
    EndReason: "responses"."reason";
    LastApply: "effects"."last_apply";
    LeftAs: "holds"."left_as";
    OnSilence: "responses"."on_silence";
    Op: "commands"."op";
    Outcome: "results"."outcome";
    ResponseState: "responses"."state";
    Role: "api_keys"."role";
}

/// Lets a row's field have the type itself.
macro_rules! fields {
    ($($type:ty),*) => {$(
        impl<DB: Database> Type<DB> for $type
        where
            StoredWord<Self>: Type<DB>,
        {
            fn type_info() -> DB::TypeInfo {
                StoredWord::<Self>::type_info()
            }

            fn compatible(info: &DB::TypeInfo) -> bool {
                StoredWord::<Self>::compatible(info)
            }
        }

        impl<'r, DB: Database> Decode<'r, DB> for $type
        where
            &'r str: Decode<'r, DB>,
        {
            fn decode(value: DB::ValueRef<'r>) -> Result<Self, BoxDynError> {
                <StoredWord<Self> as Decode<'r, DB>>::decode(value).map(|stored| stored.0)
            }
        }
    )*};
}

fields!(Actor, Actual, CommandState, Decision, Desired, EndReason, LastApply, LeftAs, OnSilence, ResponseState, Role);

impl From<StoredWord<Op>> for Op {
    fn from(stored: StoredWord<Self>) -> Self {
        stored.0
    }
}

impl From<StoredWord<Outcome>> for Outcome {
    fn from(stored: StoredWord<Self>) -> Self {
        stored.0
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::*;

    fn is_said_as_it_is_stored<T: Word + Copy + Serialize + DeserializeOwned>(
        words: &[T],
        text: fn(T) -> &'static str,
    ) {
        for word in words {
            let said = serde_json::to_value(word).unwrap();
            assert_eq!(said, text(*word), "{}.{}", T::TABLE, T::COLUMN);
            assert_eq!(T::of(text(*word)).map(text), Some(text(*word)));
            assert_eq!(serde_json::from_value::<T>(said).ok().map(text), Some(text(*word)));
        }
        assert!(T::of("nonsense").is_none() && T::of("").is_none());
    }

    #[test]
    fn the_words_of_the_api_are_those_of_the_database() {
        is_said_as_it_is_stored(&Actual::ALL, Actual::as_str);
        is_said_as_it_is_stored(&CommandState::ALL, CommandState::as_str);
        is_said_as_it_is_stored(&Decision::ALL, Decision::as_str);
        is_said_as_it_is_stored(&Desired::ALL, Desired::as_str);
        is_said_as_it_is_stored(&LastApply::ALL, LastApply::as_str);
        is_said_as_it_is_stored(&ResponseState::ALL, ResponseState::as_str);
        let ops = [Op::Apply, Op::Revert];
        is_said_as_it_is_stored(&ops, Op::as_str);
        let outcomes = [Outcome::Succeeded, Outcome::Failed, Outcome::TimedOut, Outcome::Refused];
        is_said_as_it_is_stored(&outcomes, Outcome::as_str);
    }
}
