//! Mail over SMTP: to addresses that the rules for calls allow, with TLS unless the server is on this host.

use std::time::Duration;

use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use percent_encoding::percent_decode_str;
use reqwest::Url;

use super::chat::Letter;
use crate::domain::egress::allow_list::Destination;
use crate::engine::egress::error::words;
use crate::engine::egress::rules::Egress;

/// Time limit of a mail.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Port where a message is handed in with TLS from the start.
const TLS_PORT: u16 = 465;
/// Port where TLS begins by a command.
const SUBMISSION_PORT: u16 = 587;

/// A mailbox: the server, the account there, and the addresses.
#[derive(Clone)]
pub(super) struct Mailer {
    destination: Destination,
    is_wrapped: bool,
    is_plain: bool,
    account: Option<(String, String)>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl std::fmt::Debug for Mailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailer").field("destination", &self.destination).finish_non_exhaustive()
    }
}

impl Mailer {
    /// Reads a URL: `smtps://USER:PASSWORD@HOST:465/?from=ADDRESS&to=ADDRESS`, or `smtp:` with STARTTLS.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn read(url: &Url) -> Result<Self, String> {
        let is_wrapped = match url.scheme() {
            "smtps" => true,
            "smtp" => false,
            _ => {
                return Err(
                    "must be smtps://USER:PASSWORD@HOST/?from=ADDRESS&to=ADDRESS, or smtp: with STARTTLS".into()
                );
            }
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("has no host")?;
        let port = url.port().unwrap_or(if is_wrapped { TLS_PORT } else { SUBMISSION_PORT });
        let destination = Destination::new(host, port);
        let is_local = destination.address().is_some_and(|address| address.is_loopback());
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
        let unreadable = |_| "its user or password is not UTF-8".to_owned();
        let account = match (url.username(), url.password()) {
            ("", _) => None,
            (user, password) => {
                Some((decode(user).map_err(unreadable)?, decode(password.unwrap_or_default()).map_err(unreadable)?))
            }
        };
        let address = |name: &'static str| {
            let found = url.query_pairs().filter(move |(key, _)| key == name).map(|(_, value)| value.into_owned());
            found.map(move |text| {
                text.parse::<Mailbox>().map_err(|error| format!("its {name}={text} is no address: {error}"))
            })
        };
        let from = address("from").next().ok_or("needs ?from=ADDRESS&to=ADDRESS")??;
        let to = address("to").collect::<Result<Vec<_>, _>>()?;
        if to.is_empty() {
            return Err("needs &to=ADDRESS, once or more".into());
        }
        Ok(Self { destination, is_wrapped, is_plain: is_local && !is_wrapped, account, from, to })
    }

    /// The server.
    pub(super) const fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Hands in a mail. Its id is the same at each try, so that mail servers can drop the second one.
    ///
    /// # Errors
    /// Why the server does not have it, in words.
    pub(super) async fn send(&self, egress: &Egress, id: &str, body: &str) -> Result<(), String> {
        let Letter { subject, text } = serde_json::from_str(body).map_err(|error| error.to_string())?;
        let mut message = Message::builder()
            .from(self.from.clone())
            .subject(subject)
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            message = message.to(to.clone());
        }
        let message = message.body(text).map_err(|error| words(&error))?;
        let addresses = egress.connectable(&self.destination).await.map_err(|error| words(&error))?;
        let address = addresses.first().ok_or("its name has no address")?;
        let tls = if self.is_plain {
            Tls::None
        } else {
            let parameters = TlsParameters::new(self.destination.host().to_owned()).map_err(|error| words(&error))?;
            if self.is_wrapped { Tls::Wrapper(parameters) } else { Tls::Required(parameters) }
        };
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(address.ip().to_string())
            .port(address.port())
            .tls(tls)
            .hello_name(ClientId::Domain("riposte".into()))
            .timeout(Some(TIMEOUT));
        if let Some((user, password)) = &self.account {
            transport = transport.credentials(Credentials::new(user.clone(), password.clone()));
        }
        let sent = tokio::time::timeout(TIMEOUT, transport.build().send(message)).await;
        sent.map_err(|_| "it does not answer".to_owned())?.map(drop).map_err(|error| refusal(&error))
    }
}

/// Why a server does not have a mail. Its own words may repeat what it was sent, a password too.
fn refusal(error: &lettre::transport::smtp::Error) -> String {
    match error.status() {
        Some(code) => format!("the mail server answered {code}"),
        None if error.is_response() => "the answer of the mail server is none of SMTP".to_owned(),
        None => words(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_server_account_and_addresses() {
        let read = |text: &str| Mailer::read(&Url::parse(text).unwrap());
        let mailer = read(
            "smtps://riposte%40x:p%C3%A4ss@mail.example.org/?from=riposte@example.org&to=a@example.org&to=b@example.org",
        );
        let mailer = mailer.unwrap();
        assert_eq!((mailer.destination.port(), mailer.to.len(), mailer.is_plain), (465, 2, false));
        assert_eq!(mailer.account, Some(("riposte@x".into(), "päss".into())));
        assert!(!format!("{mailer:?}").contains("päss"));
        assert!(read("smtp://127.0.0.1:2525/?from=a@example.org&to=b@example.org").unwrap().is_plain);
        assert!(!read("smtp://mail.example.org/?from=a@example.org&to=b@example.org").unwrap().is_plain);
        for (text, words) in [
            ("https://mail.example.org/", "must be smtps"),
            ("smtps://mail.example.org/", "from="),
            ("smtps://mail.example.org/?from=a@example.org", "to="),
            ("smtps://mail.example.org/?from=a&to=b@example.org", "from=a is no address"),
            ("smtps://mail.example.org/?from=a@example.org&to=b", "to=b is no address"),
        ] {
            assert!(read(text).unwrap_err().contains(words), "{text}: {:?}", read(text));
        }
    }
}
