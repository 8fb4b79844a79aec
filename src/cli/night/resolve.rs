//! What a person means by a few characters: the kind of a target, and the id of a thing by its beginning or end. Ids of
//! one hour begin alike, so the end is what tables show.

use anyhow::{Context as _, bail};
use riposte_protocol::target::{Target, TargetKind};
use uuid::Uuid;

use crate::cli::client::{Remote, segment};
use crate::cli::reply::Said;
use crate::views::agents::AgentView;
use crate::views::page::Page;
use crate::views::responses::JudgedResponse;
use crate::views::targets::TargetView;

/// Characters of an id's end that tables show.
const SHORT: usize = 8;
/// Fewest characters that stand for an id.
const FEWEST: usize = 4;

/// The end of an id, as tables show it.
pub fn short(id: &str) -> &str {
    id.get(id.len().saturating_sub(SHORT)..).unwrap_or(id)
}

/// The kind that a target looks like: an address or a network, a path, or else an account.
pub fn kind_of(text: &str) -> TargetKind {
    if Target::named(TargetKind::Ip, text.trim()).is_ok() {
        TargetKind::Ip
    } else if text.starts_with('/') {
        TargetKind::File
    } else {
        TargetKind::User
    }
}

/// Everything known of a target.
///
/// # Errors
/// If the manager cannot be asked, or the text is no target of that kind.
pub async fn target(remote: &Remote, text: &str, kind: Option<TargetKind>) -> anyhow::Result<Said<TargetView>> {
    let kind = kind.unwrap_or_else(|| kind_of(text));
    let value = if text.is_empty() { "-" } else { text.trim() };
    remote.get(&format!("/v1/targets/{kind}/{}", segment(value))).await
}

/// The one of `ids` that `word` is, begins, or ends.
///
/// # Errors
/// If there is none, or several; `list` is the command that lists them.
pub fn one_of(ids: &[String], word: &str, noun: &str, list: &str) -> anyhow::Result<String> {
    let word = word.trim().to_ascii_lowercase();
    if word.parse::<Uuid>().is_ok() {
        return Ok(word);
    }
    if word.len() < FEWEST {
        bail!("{word:?} is too short for the id of a {noun}: at least {FEWEST} characters; `{list}` lists them");
    }
    let mut found = ids.iter().filter(|id| id.starts_with(&word) || id.ends_with(&word));
    match (found.next(), found.count()) {
        (Some(id), 0) => Ok(id.clone()),
        (Some(_), others) => bail!("{word:?} stands for {} ids: write more of it; `{list}` lists them", others + 1),
        (None, _) => bail!("no {noun} has an id that begins or ends with {word:?}; `{list}` lists them"),
    }
}

/// The id of an enrolled agent that is named by its name, its id, or a part of this.
///
/// # Errors
/// If there is none.
pub async fn agent(remote: &Remote, word: &str) -> anyhow::Result<String> {
    let agents: Vec<AgentView> = remote.items("/v1/agents").await?;
    if let Some(named) = agents.iter().find(|one| one.agent.name.eq_ignore_ascii_case(word)) {
        return Ok(named.agent.id.clone());
    }
    let ids: Vec<String> = agents.into_iter().map(|one| one.agent.id).collect();
    one_of(&ids, word, "agent", "riposte agent list").with_context(|| format!("no agent called {word} is enrolled"))
}

/// The id of a response by a part of it, among the newest that `filter` takes, such as `&state=active`.
///
/// # Errors
/// If there is none.
pub async fn response(remote: &Remote, word: &str, filter: &str) -> anyhow::Result<String> {
    if word.parse::<Uuid>().is_ok() {
        return Ok(word.to_owned());
    }
    let newest: Page<JudgedResponse> = remote.get(&format!("/v1/responses?limit=500{filter}")).await?;
    let ids: Vec<String> = newest.items.into_iter().map(|judged| judged.response.id).collect();
    one_of(&ids, word, "response", "riposte response list")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_by_its_beginning_or_end_if_only_one_has_it() {
        let ids =
            ["01a00000-0000-7000-8000-00000000000a".to_owned(), "01a00000-0000-7000-8000-0000000000bb".to_owned()];
        let one = |word: &str| one_of(&ids, word, "response", "riposte waiting").map_err(|error| error.to_string());
        assert_eq!(one("000a"), Ok(ids[0].clone()));
        assert_eq!(one("00BB"), Ok(ids[1].clone()));
        assert_eq!(one(&ids[1]), Ok(ids[1].clone()));
        assert!(one("01a0").unwrap_err().contains("stands for 2 ids"));
        assert!(one("ffff").unwrap_err().contains("`riposte waiting` lists them"));
        assert!(one("0a").unwrap_err().contains("at least 4"));
        assert_eq!(short(&ids[0]), "0000000a");
    }

    #[test]
    fn the_kind_of_a_target_is_seen() {
        let table = [
            ("203.0.113.7", TargetKind::Ip),
            ("2001:DB8::1", TargetKind::Ip),
            ("10.0.0.0/8", TargetKind::Ip),
            ("/tmp/x", TargetKind::File),
            ("mallory", TargetKind::User),
            ("CORP\\alice", TargetKind::User),
        ];
        for (text, kind) in table {
            assert_eq!(kind_of(text), kind, "{text}");
        }
    }
}
