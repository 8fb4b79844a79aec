//! Rows of the connection that writes the SQLite file, as sqlx reads rows.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use sqlx::{Column, ColumnIndex, Decode, Error, Row, Type, TypeInfo, Value, ValueRef};
use sqlx_core::error::BoxDynError;

/// The database whose rows these are.
#[derive(Debug)]
pub struct Local;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalKind {
    /// NULL.
    Null,
    /// A whole number; booleans are 0 and 1.
    Integer,
    /// A number with a fraction.
    Real,
    /// A text.
    Text,
    /// Bytes.
    Blob,
}

impl fmt::Display for LocalKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl TypeInfo for LocalKind {
    fn is_null(&self) -> bool {
        *self == Self::Null
    }

    fn name(&self) -> &str {
        match self {
            Self::Null => "NULL",
            Self::Integer => "INTEGER",
            Self::Real => "REAL",
            Self::Text => "TEXT",
            Self::Blob => "BLOB",
        }
    }
}

/// A value of a row.
#[derive(Clone, Debug)]
pub enum LocalValue {
    /// NULL.
    Null,
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Real(f64),
    /// A text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl LocalValue {
    const fn kind(&self) -> LocalKind {
        match self {
            Self::Null => LocalKind::Null,
            Self::Integer(_) => LocalKind::Integer,
            Self::Real(_) => LocalKind::Real,
            Self::Text(_) => LocalKind::Text,
            Self::Blob(_) => LocalKind::Blob,
        }
    }

    fn other<T>(&self) -> std::result::Result<T, BoxDynError> {
        Err(format!("a value of another kind: {}", self.kind()).into())
    }
}

impl Value for LocalValue {
    type Database = Local;

    fn as_ref(&self) -> &Self {
        self
    }

    fn type_info(&self) -> Cow<'_, LocalKind> {
        Cow::Owned(self.kind())
    }

    fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl<'r> ValueRef<'r> for &'r LocalValue {
    type Database = Local;

    fn to_owned(&self) -> LocalValue {
        (*self).clone()
    }

    fn type_info(&self) -> Cow<'_, LocalKind> {
        Cow::Owned(self.kind())
    }

    fn is_null(&self) -> bool {
        matches!(self, LocalValue::Null)
    }
}

/// The name of a column.
#[derive(Clone, Debug)]
pub struct LocalColumn {
    ordinal: usize,
    name: String,
}

impl LocalColumn {
    /// The columns of a statement.
    pub(super) fn all<'a>(names: impl IntoIterator<Item = &'a str>) -> Arc<[Self]> {
        let column = |(ordinal, name): (usize, &str)| Self { ordinal, name: name.to_owned() };
        names.into_iter().enumerate().map(column).collect()
    }
}

impl Column for LocalColumn {
    type Database = Local;

    fn ordinal(&self) -> usize {
        self.ordinal
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn type_info(&self) -> &LocalKind {
        // Only values have kinds: SQLite's columns hold any.
        &LocalKind::Null
    }
}

/// A row.
#[derive(Debug)]
pub struct LocalRow {
    columns: Arc<[LocalColumn]>,
    values: Vec<LocalValue>,
}

impl LocalRow {
    /// A row with one value for each column.
    pub(super) fn new(columns: &Arc<[LocalColumn]>, values: Vec<LocalValue>) -> Self {
        Self { columns: Arc::clone(columns), values }
    }
}

impl Row for LocalRow {
    type Database = Local;

    fn columns(&self) -> &[LocalColumn] {
        &self.columns
    }

    fn try_get_raw<I>(&self, index: I) -> Result<&LocalValue, Error>
    where
        I: ColumnIndex<Self>,
    {
        let index = index.index(self)?;
        self.values.get(index).ok_or(Error::ColumnIndexOutOfBounds { index, len: self.values.len() })
    }
}

impl ColumnIndex<LocalRow> for usize {
    fn index(&self, _: &LocalRow) -> Result<usize, Error> {
        Ok(*self)
    }
}

impl ColumnIndex<LocalRow> for &'_ str {
    fn index(&self, row: &LocalRow) -> Result<usize, Error> {
        let found = row.columns.iter().position(|column| column.name == *self);
        found.ok_or_else(|| Error::ColumnNotFound((*self).to_owned()))
    }
}

/// Reads values of one kind as a type.
macro_rules! reads {
    ($($type:ty: $kind:ident, $value:pat => $read:expr;)*) => {$(
        impl Type<Local> for $type {
            fn type_info() -> LocalKind {
                LocalKind::$kind
            }
        }

        impl<'r> Decode<'r, Local> for $type {
            fn decode(value: &'r LocalValue) -> std::result::Result<Self, BoxDynError> {
                match value {
                    $value => Ok($read),
                    other => other.other(),
                }
            }
        }
    )*};
}

reads! {
    i64: Integer, LocalValue::Integer(number) => *number;
    bool: Integer, LocalValue::Integer(number) => *number != 0;
    String: Text, LocalValue::Text(text) => text.clone();
    Vec<u8>: Blob, LocalValue::Blob(bytes) => bytes.clone();
}

impl Type<Local> for str {
    fn type_info() -> LocalKind {
        LocalKind::Text
    }
}

impl<'r> Decode<'r, Local> for &'r str {
    fn decode(value: &'r LocalValue) -> std::result::Result<Self, BoxDynError> {
        match value {
            LocalValue::Text(text) => Ok(text),
            other => other.other(),
        }
    }
}
