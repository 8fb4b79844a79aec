//! Rows with the values of their columns, as a seal covers them. They are read from the very row that is
//! used, so that no other program can change it between a look and the use.

use std::fmt;

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Column as _, FromRow, Row as _, TypeInfo as _, ValueRef as _};

use super::sets::SealedTable;
use crate::domain::seal::{SealKey, SealedValue};
use crate::store::database::{Bind, LocalRow};

/// The column with the seal.
const SEAL: &str = "seal";

/// The values of a row's columns. Its `Debug` shows none: hashes of passwords are among them.
pub struct SealedRow {
    values: Vec<(String, SealedValue)>,
}

impl fmt::Debug for SealedRow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SealedRow")
    }
}

impl SealedRow {
    /// The value of a column.
    pub fn value(&self, name: &str) -> Option<&SealedValue> {
        self.values.iter().find(|(column, _)| column == name).map(|(_, value)| value)
    }

    /// What the row is called, as one of `table`.
    pub(super) fn name(&self, table: &SealedTable) -> String {
        let part = |column: &&str| match self.value(column) {
            Some(SealedValue::Text(text)) => text.clone(),
            Some(SealedValue::Int(number)) => number.to_string(),
            _ => String::new(),
        };
        table.id.iter().map(part).collect::<Vec<_>>().join(" ")
    }

    /// The seal that is stored with it.
    pub(super) fn seal(&self) -> Option<&[u8]> {
        match self.value(SEAL) {
            Some(SealedValue::Bytes(seal)) => Some(seal),
            _ => None,
        }
    }

    fn sealed(&self, table: &SealedTable) -> Option<Vec<SealedValue>> {
        table.columns.iter().map(|column| self.value(column).cloned()).collect()
    }

    /// Whether its seal is right. A row without a column that is sealed has no right seal.
    pub(super) fn is_right(&self, key: &SealKey, table: &SealedTable) -> bool {
        let Some((values, seal)) = self.sealed(table).zip(self.seal()) else { return false };
        key.is_seal(table.table, &values, seal)
    }

    /// The seal that it should have; none if a column is missing.
    pub(super) fn right_seal(&self, key: &SealKey, table: &SealedTable) -> Option<Vec<u8>> {
        Some(key.seal(table.table, &self.sealed(table)?))
    }
}

/// The value that a bind stores.
pub(super) fn stored(bind: &Bind) -> SealedValue {
    match bind {
        Bind::Int(value) => value.map_or(SealedValue::Null, SealedValue::Int),
        Bind::Text(value) => value.clone().map_or(SealedValue::Null, SealedValue::Text),
        Bind::Bytes(value) => value.clone().map_or(SealedValue::Null, SealedValue::Bytes),
        Bind::Bool(value) => value.map_or(SealedValue::Null, |value| SealedValue::Int(i64::from(value))),
    }
}

/// A row and its values.
#[derive(Debug)]
pub struct WithSeal<T> {
    pub(super) value: T,
    pub(super) row: SealedRow,
}

macro_rules! read_values {
    ($row:ty, $integer:pat, $($small:pat => $as:ty)?) => {
        impl<'r> FromRow<'r, $row> for SealedRow {
            fn from_row(row: &'r $row) -> sqlx::Result<Self> {
                let mut values = Vec::with_capacity(row.columns().len());
                for (at, column) in row.columns().iter().enumerate() {
                    let raw = row.try_get_raw(at)?;
                    let kind = raw.type_info().name().to_owned();
                    let value = match kind.as_str() {
                        _ if raw.is_null() => SealedValue::Null,
                        $integer => SealedValue::Int(row.try_get_unchecked(at)?),
                        $($small => SealedValue::Int(row.try_get_unchecked::<$as, _>(at)?.into()),)?
                        "BLOB" | "BYTEA" => SealedValue::Bytes(row.try_get_unchecked(at)?),
                        _ => SealedValue::Text(row.try_get_unchecked(at)?),
                    };
                    values.push((column.name().to_owned(), value));
                }
                Ok(Self { values })
            }
        }

        impl<'r, T: FromRow<'r, $row>> FromRow<'r, $row> for WithSeal<T> {
            fn from_row(row: &'r $row) -> sqlx::Result<Self> {
                Ok(Self { value: T::from_row(row)?, row: SealedRow::from_row(row)? })
            }
        }
    };
}

// SQLite has no booleans of its own: 0 and 1.
read_values!(SqliteRow, "INTEGER" | "BOOLEAN" | "INT8" | "BIGINT",);
read_values!(LocalRow, "INTEGER",);
read_values!(PgRow, "INT8", "BOOL" => bool);
