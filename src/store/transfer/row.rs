//! A row as a line: a JSON array of the table's columns, with bytes as base64. Encoding and decoding are
//! inverse, so that the digests of a table's lines compare two databases.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::tables::{ColumnKind, ExportedTable};
use crate::domain::seal::SealedValue;
use crate::store::database::{Bind, Result, StoreError};
use crate::store::seals::value::SealedRow;

/// The line of a row, and the columns whose text contained U+0000, which no database here stores: it is
/// replaced by U+FFFD, as in every write.
///
/// # Errors
/// If a column holds a value of another kind.
pub(super) fn encode(table: &ExportedTable, row: &SealedRow) -> Result<(String, Vec<&'static str>)> {
    let (mut values, mut replaced) = (Vec::with_capacity(table.columns.len()), Vec::new());
    for (column, kind) in table.columns {
        values.push(match (kind, row.value(column)) {
            (_, Some(SealedValue::Null)) => Value::Null,
            (ColumnKind::Int, Some(SealedValue::Int(number))) => (*number).into(),
            (ColumnKind::Bool, Some(SealedValue::Int(number @ (0 | 1)))) => (*number == 1).into(),
            (ColumnKind::Bytes, Some(SealedValue::Bytes(bytes))) => STANDARD_NO_PAD.encode(bytes).into(),
            (ColumnKind::Text, Some(SealedValue::Text(text))) if text.contains('\0') => {
                replaced.push(*column);
                text.replace('\0', "\u{fffd}").into()
            }
            (ColumnKind::Text, Some(SealedValue::Text(text))) => text.as_str().into(),
            _ => return Err(StoreError::Corrupt(format!("{}.{column} holds a value of another kind", table.name))),
        });
    }
    let line = serde_json::to_string(&values)?;
    Ok((line, replaced))
}

/// The values of a line.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decode(table: &ExportedTable, line: &str) -> std::result::Result<Vec<Bind>, String> {
    let values: Vec<Value> = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if values.len() != table.columns.len() {
        return Err(format!("a row of {} has {} values", table.name, values.len()));
    }
    let bind = |((column, kind), value): (&(&str, ColumnKind), Value)| {
        let other = || format!("{}.{column} has a value of another kind", table.name);
        Ok(match (kind, value) {
            (ColumnKind::Int, Value::Null) => Bind::Int(None),
            (ColumnKind::Text, Value::Null) => Bind::Text(None),
            (ColumnKind::Bytes, Value::Null) => Bind::Bytes(None),
            (ColumnKind::Bool, Value::Null) => Bind::Bool(None),
            (ColumnKind::Int, Value::Number(number)) => Bind::Int(Some(number.as_i64().ok_or_else(other)?)),
            (ColumnKind::Bool, Value::Bool(value)) => Bind::Bool(Some(value)),
            (ColumnKind::Text, Value::String(text)) if text.contains('\0') => {
                return Err(format!("{}.{column} contains U+0000", table.name));
            }
            (ColumnKind::Text, Value::String(text)) => Bind::Text(Some(text)),
            (ColumnKind::Bytes, Value::String(text)) => {
                Bind::Bytes(Some(STANDARD_NO_PAD.decode(text).map_err(|_| other())?))
            }
            _ => return Err(other()),
        })
    };
    table.columns.iter().zip(values).map(bind).collect()
}

/// A digest of lines that does not depend on their order, because the two databases sort texts differently:
/// the sum of their SHA-256, as numbers of 256 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinesDigest {
    sum: [u8; 32],
    /// How many lines.
    pub lines: u64,
}

impl LinesDigest {
    /// Adds a line.
    pub fn add(&mut self, line: &str) {
        let mut carry = false;
        for (sum, byte) in self.sum.iter_mut().zip(Sha256::digest(line.as_bytes())).rev() {
            let (partial, first) = sum.overflowing_add(byte);
            let (total, second) = partial.overflowing_add(u8::from(carry));
            (*sum, carry) = (total, first || second);
        }
        self.lines += 1;
    }

    /// The digest as text.
    pub fn text(&self) -> String {
        self.sum.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
