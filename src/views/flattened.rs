//! Reads the flattened part of a view. Serde buffers such a part and forgets which field it reads;
//! here an error names it.

use serde::Deserializer;
use serde::de::Error as _;

/// Reads a flattened part, for `#[serde(flatten, deserialize_with = "…")]`.
///
/// # Errors
/// If a field does not fit; the error begins with the field's path.
pub(super) fn read<'de, D: Deserializer<'de>, T: serde::Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let (path, cause) = (error.path().to_string(), error.inner());
        if path == "." { D::Error::custom(cause) } else { D::Error::custom(format_args!("{path}: {cause}")) }
    })
}
