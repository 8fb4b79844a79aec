//! The frame of every page: navigation, and what must be seen everywhere: a freeze, what waits, and
//! what the last change did.

use axum::http::header::SET_COOKIE;
use axum::response::{IntoResponse as _, Redirect, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::assets;
use super::page::{PageFailure, local};
use super::session::{Cookies, Session};
use crate::domain::right::Right;
use crate::views::page::Page;
use crate::views::responses::JudgedResponse;

/// How many waiting responses the navigation counts.
const COUNTED: usize = 99;
/// Seconds for which the words about a change are kept for the next page.
const SAID_SECS: u64 = 60;

/// A link of the navigation.
pub(super) struct Link {
    pub(super) path: &'static str,
    pub(super) name: &'static str,
    /// Beside the name: how many wait there.
    pub(super) badge: Option<String>,
    pub(super) is_current: bool,
}

/// The frame of a page.
pub(super) struct Shell {
    pub(super) title: String,
    pub(super) assets: String,
    pub(super) nonce: String,
    pub(super) form_token: String,
    pub(super) links: Vec<Link>,
    pub(super) person: String,
    pub(super) role: &'static str,
    pub(super) said: Option<String>,
    pub(super) is_frozen: bool,
    pub(super) may_respond: bool,
    pub(super) may_freeze: bool,
    /// Types of events after which the page is loaded anew, separated by commas; empty: none.
    pub(super) live: &'static str,
}

/// Pages in the navigation: path, name, the right that it needs.
const PAGES: [(&str, &str, Right); 11] = [
    ("/", "Now", Right::Read),
    ("/waiting", "Waiting", Right::Read),
    ("/responses", "Responses", Right::Read),
    ("/alerts", "Alerts", Right::Read),
    ("/policies", "Policies", Right::Read),
    ("/agents", "Agents", Right::Read),
    ("/protected", "Protected", Right::Read),
    ("/integrations", "Integrations", Right::Read),
    ("/audit", "Audit", Right::Read),
    ("/people", "People", Right::Administer),
    ("/system", "System", Right::Read),
];

impl Session {
    /// The frame of a page, in the section of the navigation that begins with `section`.
    ///
    /// # Errors
    /// If what waits cannot be counted.
    pub(super) async fn shell(
        &self,
        title: impl Into<String>,
        section: &str,
        live: &'static str,
    ) -> Result<Shell, PageFailure> {
        let waiting: Page<JudgedResponse> =
            self.api.get(&format!("/v1/responses?state=awaiting_approval&limit={}", COUNTED + 1)).await?;
        let waiting = match waiting.items.len() {
            0 => None,
            many if many > COUNTED => Some(format!("{COUNTED}+")),
            some => Some(some.to_string()),
        };
        let shown = PAGES.into_iter().filter(|(_, _, right)| self.may(*right));
        let links = shown.map(|(path, name, _)| Link {
            path,
            name,
            badge: if path == "/waiting" { waiting.clone() } else { None },
            is_current: path == section,
        });
        Ok(Shell {
            title: title.into(),
            assets: assets::base(),
            nonce: self.nonce.0.clone(),
            form_token: self.form_token.to_string(),
            links: links.collect(),
            person: self.who.name.clone(),
            role: self.who.role.as_str(),
            said: self.said.as_deref().map(str::to_owned),
            is_frozen: self.is_frozen(),
            may_respond: self.may(Right::Respond),
            may_freeze: self.may(Right::Respond) && self.who.scopes.is_empty(),
            live,
        })
    }

    /// Goes to `place` after a change, and says there what was done.
    pub(super) fn done(&self, place: &str, said: &str) -> Response {
        let mut response = Redirect::to(local(place)).into_response();
        let said = utf8_percent_encode(said, NON_ALPHANUMERIC).to_string();
        if let Some(cookie) = Cookies::new(self.console.is_tls).set("said", &said, SAID_SECS) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        response
    }
}
