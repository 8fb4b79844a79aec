//! The mappings of alerts that a configuration makes.

use crate::config::Config;
use crate::domain::formats::AlertMappings;

/// How alerts are read: the site's fields of observables, and the mappings of its pipelines.
///
/// # Errors
/// Every fault, with its key.
pub(super) fn of(config: &Config) -> anyhow::Result<AlertMappings> {
    AlertMappings::read(&config.observables, &config.pipelines).map_err(|faults| {
        let told = faults.iter().map(|fault| format!("{} {}", fault.pointer.trim_start_matches('/'), fault.detail));
        anyhow::anyhow!("the configuration: {}", told.collect::<Vec<_>>().join("; "))
    })
}
