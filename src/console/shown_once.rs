//! A secret that the manager shows once: the page after it was made. It is stored nowhere in clear.

use askama::Template;

use super::page::{PageResult, html};
use super::session::Session;
use super::shell::Shell;

#[derive(Template)]
#[template(path = "shown_once.html")]
struct SecretPage {
    shell: Shell,
    about: String,
    secrets: Vec<(&'static str, String)>,
    back: String,
}

impl Session {
    /// Shows what was made.
    ///
    /// # Errors
    /// If the frame cannot be made.
    pub(super) async fn shown_once(
        &self,
        section: &str,
        title: String,
        about: String,
        secrets: Vec<(&'static str, String)>,
        back: &str,
    ) -> PageResult {
        let shell = self.shell(title, section, "").await?;
        html(&SecretPage { shell, about, secrets, back: back.to_owned() })
    }
}
