//! The operating systems that actions support.

/// An operating system that an action supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Os {
    /// Linux.
    Linux,
    /// FreeBSD.
    FreeBsd,
    /// NetBSD.
    NetBsd,
    /// OpenBSD.
    OpenBsd,
    /// macOS.
    MacOs,
    /// Solaris and illumos.
    SunOs,
    /// Windows.
    Windows,
}

impl Os {
    /// All systems.
    pub const ALL: &'static [Self] =
        &[Self::Linux, Self::FreeBsd, Self::NetBsd, Self::OpenBsd, Self::MacOs, Self::SunOs, Self::Windows];
    /// All systems but Windows.
    pub const UNIX: &'static [Self] =
        &[Self::Linux, Self::FreeBsd, Self::NetBsd, Self::OpenBsd, Self::MacOs, Self::SunOs];

    /// The system that this program was built for. An unknown one counts as Linux; missing programs
    /// then show what does not work.
    pub fn current() -> Self {
        match std::env::consts::OS {
            "freebsd" => Self::FreeBsd,
            "netbsd" => Self::NetBsd,
            "openbsd" => Self::OpenBsd,
            "macos" => Self::MacOs,
            "solaris" | "illumos" => Self::SunOs,
            "windows" => Self::Windows,
            _ => Self::Linux,
        }
    }

    /// Its name, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linux => "Linux",
            Self::FreeBsd => "FreeBSD",
            Self::NetBsd => "NetBSD",
            Self::OpenBsd => "OpenBSD",
            Self::MacOs => "macOS",
            Self::SunOs => "SunOS",
            Self::Windows => "Windows",
        }
    }
}
