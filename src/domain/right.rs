//! Rights: what an endpoint requires, and what roles have and scopes leave.

use serde::Serialize;

/// A right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// Read everything except secrets.
    Read,
    /// Fetch the lists of feeds.
    PullFeeds,
    /// Ingest alerts.
    Ingest,
    /// Create and lift manual responses, cancel commands, freeze.
    Respond,
    /// Approve, reject and confirm responses.
    Approve,
    /// Change policies.
    WritePolicies,
    /// Enrol, label and revoke agents.
    ManageAgents,
    /// Manage users and all API keys.
    Administer,
    /// Manage one's own personal keys.
    OwnKeys,
    /// Ask which principal one is, and end one's own session.
    Identify,
}

impl Right {
    /// All rights.
    pub const ALL: [Self; 10] = [
        Self::Read,
        Self::PullFeeds,
        Self::Ingest,
        Self::Respond,
        Self::Approve,
        Self::WritePolicies,
        Self::ManageAgents,
        Self::Administer,
        Self::OwnKeys,
        Self::Identify,
    ];

    /// Name in the API and in the scope of an access token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::PullFeeds => "pull_feeds",
            Self::Ingest => "ingest",
            Self::Respond => "respond",
            Self::Approve => "approve",
            Self::WritePolicies => "write_policies",
            Self::ManageAgents => "manage_agents",
            Self::Administer => "administer",
            Self::OwnKeys => "own_keys",
            Self::Identify => "identify",
        }
    }

    /// Parses a right's name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|right| right.as_str() == word)
    }
}
