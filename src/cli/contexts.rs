//! Contexts: the managers that a person works with, and the person's session at each. They are in
//! one file of the person's configuration folder, readable by its owner only.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::keyfiles;
use crate::clock::Clock;
use crate::views::auth::IssuedToken;

const FILE: &str = "contexts.json";
const LOCK: &str = "contexts.lock";

/// The contexts of this account.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// Name of the context that commands use unless they name another.
    pub current: Option<String>,
    /// Contexts by name.
    #[serde(default)]
    pub contexts: BTreeMap<String, ManagerContext>,
}

/// A manager that a person works with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagerContext {
    /// URL of the manager.
    pub manager: String,
    /// File with the authority of the manager's certificate; absent: the system's authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// File with an API key, used when there is no session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The person's session, after `riposte login`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<CliSession>,
}

/// A session at a manager.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CliSession {
    /// Name of the person.
    pub username: String,
    /// The access token of requests.
    pub access_token: String,
    /// When the access token expires, by this host's clock.
    pub access_expires_at: Timestamp,
    /// The token for the next access token.
    pub refresh_token: String,
    /// When the session ends unless it is used, by the manager's clock.
    pub refresh_expires_at: Timestamp,
}

impl CliSession {
    /// The session that these tokens belong to.
    pub fn new(username: String, issued: IssuedToken) -> Self {
        let IssuedToken { access_token, expires_in, refresh_token, refresh_expires_at, .. } = issued;
        let access_expires_at = Clock::system().now().plus(Duration::from_secs(expires_in));
        Self { username, access_token, access_expires_at, refresh_token, refresh_expires_at }
    }
}

impl std::fmt::Debug for CliSession {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CliSession").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Contexts {
    /// The contexts of this account; none where there is no file, and none for an account without a home.
    ///
    /// # Errors
    /// If the file cannot be read, is not a list of contexts, or is open to other accounts.
    pub fn read() -> anyhow::Result<Self> {
        folder().map_or_else(|_| Ok(Self::default()), |folder| Self::read_from(&folder))
    }

    fn read_from(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        if let Some(exposed) = std::fs::metadata(&path).ok().and_then(|file| keyfiles::exposed(&path, &file)) {
            bail!("{exposed}; then `riposte login` again, because the sessions in it may have been read");
        }
        serde_json::from_str(&text).with_context(|| format!("{} holds no contexts", path.display()))
    }

    /// Changes the contexts, while no other command can. Returns what `change` returns.
    ///
    /// # Errors
    /// If the file cannot be read or replaced, or `change` fails: then nothing is changed.
    pub async fn change<T>(change: impl AsyncFnOnce(&mut Self) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let folder = folder()?;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
        let _lock = lock(&folder)?;
        let mut contexts = Self::read_from(&folder)?;
        let before = serde_json::to_string(&contexts)?;
        let returned = change(&mut contexts).await?;
        let after = serde_json::to_string(&contexts)?;
        if before != after {
            let written = keyfiles::write_secret(&folder, FILE, &after);
            written.with_context(|| format!("cannot write {}", folder.join(FILE).display()))?;
        }
        Ok(returned)
    }

    /// The context of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn named(&self, name: &str) -> anyhow::Result<&ManagerContext> {
        self.contexts.get(name).with_context(|| {
            let known = self.contexts.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            if known.is_empty() {
                format!("there is no context {name}: `riposte login` makes one")
            } else {
                format!("there is no context {name}; there are: {known}")
            }
        })
    }

    /// The context of a manager: the current one if it is of this manager, or else the first.
    pub fn of_manager(&self, manager: &str) -> Option<(&str, &ManagerContext)> {
        let is_same = |context: &ManagerContext| same_manager(&context.manager, manager);
        let current = self.current.as_deref().and_then(|name| self.contexts.get_key_value(name));
        let found = current.filter(|(_, context)| is_same(context));
        let found = found.or_else(|| self.contexts.iter().find(|(_, context)| is_same(context)));
        found.map(|(name, context)| (name.as_str(), context))
    }

    /// The access token in the context `name`, if it is valid for some time.
    ///
    /// # Errors
    /// If there is no such context.
    pub(super) fn fresh_token(&self, name: &str) -> anyhow::Result<Option<String>> {
        let session = self.named(name)?.session.as_ref();
        let fresh = session.filter(|session| session.access_expires_at > Clock::system().now().plus(MARGIN));
        Ok(fresh.map(|session| session.access_token.clone()))
    }

    /// The current context.
    ///
    /// # Errors
    /// If the file names one that is not in it.
    pub fn current(&self) -> anyhow::Result<Option<(&str, &ManagerContext)>> {
        let Some(name) = self.current.as_deref() else { return Ok(None) };
        Ok(Some((name, self.named(name)?)))
    }
}

/// Remaining validity below which an access token is not used any more.
const MARGIN: Duration = Duration::from_secs(30);

/// The access token of the session in the context `name`. When it is about to expire, `refresh`
/// returns the next session for the present one; other commands wait meanwhile.
///
/// # Errors
/// If there is no session, or it cannot be refreshed.
pub async fn access_token(
    name: &str,
    refresh: impl AsyncFnOnce(&CliSession) -> anyhow::Result<CliSession>,
) -> anyhow::Result<String> {
    if let Some(token) = Contexts::read()?.fresh_token(name)? {
        return Ok(token);
    }
    Contexts::change(async |contexts| {
        // Another command may have refreshed it meanwhile.
        if let Some(token) = contexts.fresh_token(name)? {
            return Ok(token);
        }
        let context = contexts.contexts.get_mut(name);
        let session = context.and_then(|context| context.session.as_mut());
        let session =
            session.with_context(|| format!("the session of the context {name} has ended: `riposte login`"))?;
        *session = refresh(session).await?;
        Ok(session.access_token.clone())
    })
    .await
}

/// Whether two URLs name the same manager, as far as their texts say.
fn same_manager(one: &str, other: &str) -> bool {
    one.trim_end_matches('/').eq_ignore_ascii_case(other.trim_end_matches('/'))
}

/// The folder of this account's contexts.
///
/// # Errors
/// If the account has no home.
fn folder() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(config) = set("XDG_CONFIG_HOME").filter(|path| path.is_absolute()) {
        return Ok(config.join("riposte"));
    }
    let home = set("HOME").context("there is no place for contexts: neither XDG_CONFIG_HOME nor HOME is set")?;
    Ok(home.join(".config").join("riposte"))
}

/// Waits until no other command changes the contexts, and keeps them until the file is dropped.
fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join(LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn context(manager: &str) -> ManagerContext {
        ManagerContext { manager: manager.into(), ca: None, key_file: None, session: None }
    }

    #[test]
    fn a_manager_has_the_current_context_or_the_first() {
        let all = [("a", "https://one:8480/"), ("b", "https://one:8480"), ("c", "https://two")];
        let contexts = all.map(|(name, manager)| (name.to_owned(), context(manager)));
        let mut contexts = Contexts { current: None, contexts: contexts.into() };
        let name = |contexts: &Contexts, manager: &str| contexts.of_manager(manager).map(|(name, _)| name.to_owned());
        assert_eq!(name(&contexts, "https://ONE:8480"), Some("a".into()));
        contexts.current = Some("b".into());
        assert_eq!(name(&contexts, "https://one:8480"), Some("b".into()));
        assert_eq!(name(&contexts, "https://two/"), Some("c".into()));
        assert_eq!(name(&contexts, "https://three"), None);
        assert!(contexts.named("d").unwrap_err().to_string().contains("there are: a, b, c"));
    }

    #[test]
    fn contexts_that_other_accounts_can_read_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        keyfiles::write_secret(dir.path(), FILE, r#"{"current": null}"#).unwrap();
        assert!(Contexts::read_from(dir.path()).unwrap().contexts.is_empty());
        std::fs::set_permissions(dir.path().join(FILE), std::fs::Permissions::from_mode(0o644)).unwrap();
        let why = Contexts::read_from(dir.path()).unwrap_err().to_string();
        assert!(why.contains("0644") && why.contains("chmod 600"), "{why}");
    }

    #[test]
    fn a_log_shows_no_token() {
        let session = CliSession {
            username: "alice".into(),
            access_token: "access-secret".into(),
            access_expires_at: Timestamp::from_millis(0),
            refresh_token: "refresh-secret".into(),
            refresh_expires_at: Timestamp::from_millis(0),
        };
        let shown = format!("{session:?}");
        assert!(shown.contains("alice") && !shown.contains("secret"), "{shown}");
    }
}
