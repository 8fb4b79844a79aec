//! Links by which a person approves or rejects a response from a message. A link is for one response and one person, and for as
//! long as the response can wait. It holds a keyed hash, so that the manager needs to remember none of them, and what it opens is
//! a page that posts: a scanner of mail or chat, which only fetches it, decides nothing.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::ledger_key::{LEDGER_KEY_BYTES, LedgerKey, LedgerKeyError};

/// What the key of the hash is derived for.
const PURPOSE: &str = "approval links";
/// Groups of four digits in a code.
const CODE_GROUPS: usize = 4;
/// Between the parts of a link.
const SEPARATOR: char = '.';

/// What a link stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalLink {
    /// The response.
    pub response: Uuid,
    /// The webhook that it was sent by.
    pub webhook: String,
    /// The person who decides.
    pub person: String,
    /// Until when it is good.
    pub until: Timestamp,
}

/// What makes links and opens them.
pub struct ApprovalLinks(hmac::Key);

impl std::fmt::Debug for ApprovalLinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApprovalLinks")
    }
}

impl ApprovalLinks {
    /// Links under this ledger key.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn new(key: &LedgerKey) -> Result<Self, LedgerKeyError> {
        let bytes: [u8; LEDGER_KEY_BYTES] = key.derive(PURPOSE)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The text of a link.
    pub fn text(&self, link: &ApprovalLink) -> String {
        let ApprovalLink { response, webhook, person, until } = link;
        let who = URL_SAFE_NO_PAD.encode(format!("{webhook}\n{person}"));
        let head = format!("{}{SEPARATOR}{}{SEPARATOR}{who}", response.simple(), until.as_secs());
        let tag = hmac::sign(&self.0, head.as_bytes());
        format!("{head}{SEPARATOR}{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    }

    /// The code by which a person agrees to decide by links in the messages of a webhook to this URL. It stands in those messages,
    /// so it says that the person reads them.
    pub fn code(&self, webhook: &str, person: &str, url: &str) -> String {
        // No link has a line break in what is hashed.
        let tag = hmac::sign(&self.0, format!("agreement\n{webhook}\n{person}\n{url}").as_bytes());
        let groups = tag.as_ref().chunks(2).take(CODE_GROUPS).map(|pair| format!("{:02x}{:02x}", pair[0], pair[1]));
        groups.collect::<Vec<_>>().join("-")
    }

    /// Opens a link; `None` if it is none of this manager's, or its time is over.
    pub fn open(&self, text: &str, now: Timestamp) -> Option<ApprovalLink> {
        let (head, tag) = text.rsplit_once(SEPARATOR)?;
        hmac::verify(&self.0, head.as_bytes(), &URL_SAFE_NO_PAD.decode(tag).ok()?).ok()?;
        let mut parts = head.split(SEPARATOR);
        let (response, until, who) = (parts.next()?, parts.next()?, parts.next()?);
        let who = String::from_utf8(URL_SAFE_NO_PAD.decode(who).ok()?).ok()?;
        let (webhook, person) = who.split_once('\n')?;
        let until = Timestamp::from_millis(until.parse::<i64>().ok()?.checked_mul(1000)?);
        let link = ApprovalLink {
            response: response.parse().ok()?,
            webhook: webhook.to_owned(),
            person: person.to_owned(),
            until,
        };
        (now <= until).then_some(link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_for_one_webhook_one_person_and_one_url() {
        let links = ApprovalLinks::new(&LedgerKey::new([1; LEDGER_KEY_BYTES])).unwrap();
        let code = links.code("dm", "alice", "https://a.example.org/x");
        assert_eq!((code.len(), &code), (19, &links.code("dm", "alice", "https://a.example.org/x")));
        for (webhook, person, url) in [
            ("dn", "alice", "https://a.example.org/x"),
            ("dm", "bob", "https://a.example.org/x"),
            ("dm", "alice", "https://a.example.org/y"),
        ] {
            assert_ne!(links.code(webhook, person, url), code);
        }
    }

    #[test]
    fn a_link_opens_under_its_key_until_its_time_is_over_and_not_when_it_was_changed() {
        let links = |byte: u8| ApprovalLinks::new(&LedgerKey::new([byte; LEDGER_KEY_BYTES])).unwrap();
        let at = |secs: i64| Timestamp::from_millis(secs * 1000);
        let link = ApprovalLink {
            response: Uuid::from_u128(7),
            webhook: "night-shift".into(),
            person: "alice".into(),
            until: at(1000),
        };
        let text = links(1).text(&link);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)), "{text}");
        assert_eq!(links(1).open(&text, at(1000)), Some(link));
        assert_eq!(links(1).open(&text, at(1001)), None);
        assert_eq!(links(2).open(&text, at(0)), None);
        let forged = text.replacen("1000", "9000", 1);
        assert_eq!(links(1).open(&forged, at(0)), None);
        for text in ["", ".", "...", "a.b.c.d", &text[..text.len() - 1], &format!("{text}A")] {
            assert_eq!(links(1).open(text, at(0)), None, "{text}");
        }
    }
}
