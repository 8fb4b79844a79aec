//! Reads `/proc/N/stat`, which identifies a process by its start time.

use super::{ActionError, Host};

/// The kernel's flag of its own threads, in `/proc/N/stat`.
const PF_KTHREAD: u64 = 0x0020_0000;

/// The fields of `/proc/N/stat` that are needed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProcessStat {
    pub(super) name: String,
    pub(super) is_dead: bool,
    pub(super) is_kernels: bool,
    pub(super) parent: u32,
    /// Start time in ticks since the system's boot; with the number it identifies the process.
    pub(super) started: u64,
}

impl ProcessStat {
    pub(super) fn parse(stat: &str) -> Option<Self> {
        // The name is in brackets and may contain any character, also brackets.
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let flags: u64 = fields.get(6)?.parse().ok()?;
        Some(Self {
            name,
            is_dead: matches!(*fields.first()?, "Z" | "X" | "x"),
            is_kernels: flags & PF_KTHREAD != 0,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

/// Reads the process of that number; `None` if there is none.
pub(super) fn read(host: &Host, number: &str) -> Result<Option<ProcessStat>, ActionError> {
    let path = host.path("/proc").join(number).join("stat");
    match std::fs::read(&path) {
        Ok(stat) => {
            let stat = ProcessStat::parse(&String::from_utf8_lossy(&stat));
            stat.map(Some).ok_or_else(|| ActionError::Failed(format!("{} cannot be understood", path.display())))
        }
        // The second error is returned for a process that ends during the read.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(3) => Ok(None),
        Err(error) => Err(ActionError::Failed(format!("{} cannot be read: {error}", path.display()))),
    }
}
