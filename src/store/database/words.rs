//! Columns that hold a word of the domain. A row's field has the word's type, so the text is decoded
//! where the row is read. A text that the type does not know is corruption: the error names the
//! table, the column and the text.

use sqlx::error::BoxDynError;
use sqlx::{Database, Decode, Type};

use crate::domain::actor::Actor;

/// A column holds a text that this program cannot have written.
#[derive(Debug, thiserror::Error)]
#[error("{column} is {text:?}")]
struct UnknownWord {
    column: &'static str,
    text: String,
}

/// What a row holds instead of a known word, if that is why it cannot be decoded.
pub(super) fn unknown_word(error: &sqlx::Error) -> Option<String> {
    let sqlx::Error::ColumnDecode { source, .. } = error else { return None };
    source.downcast_ref::<UnknownWord>().map(ToString::to_string)
}

/// Decodes these types from their texts. Each has one column, or names its first.
macro_rules! words {
    ($($type:ty = $column:literal;)*) => {$(
        impl<DB: Database> Type<DB> for $type
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

        impl<'r, DB: Database> Decode<'r, DB> for $type
        where
            &'r str: Decode<'r, DB>,
        {
            fn decode(value: DB::ValueRef<'r>) -> Result<Self, BoxDynError> {
                let text = <&str as Decode<'r, DB>>::decode(value)?;
                let unknown = || UnknownWord { column: $column, text: text.to_owned() };
                <$type>::parse(text).ok_or_else(|| unknown().into())
            }
        }
    )*};
}

words! {
    Actor = "responses.requested_by";
}
