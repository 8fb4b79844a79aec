//! The column of a scope.

use crate::domain::scope::Scope;
use crate::store::database::Result;
use crate::store::database::columns::json;

/// The text that is stored of `scope`; `None` if it takes nothing away.
pub(super) fn stored(scope: &Scope) -> Result<Option<String>> {
    if scope.is_unlimited() { Ok(None) } else { json(scope).map(Some) }
}
