//! How notices are written for a chat or a mailbox. Each text stands where the receiver shows it as it is: none of it is read as
//! a mention, a link or markup.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::notice::{Choice, Notice};

/// Longest text of a block, in characters; Slack takes 3,000.
const BLOCK: usize = 2900;
/// Longest message of ntfy, in bytes: it makes a file of what is longer.
const NTFY: usize = 4000;
/// Most bytes of the texts of a card; Teams takes 28 kB with everything around them.
const CARD: usize = 16_000;
/// Longest title, in characters; Slack takes 150.
const TITLE: usize = 140;

/// Where notices go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chat {
    /// An incoming webhook of Slack.
    Slack,
    /// A workflow of Microsoft Teams that takes adaptive cards.
    Teams,
    /// A topic of ntfy.
    Ntfy,
    /// A mailbox, over SMTP.
    Mail,
}

impl Chat {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Slack, Self::Teams, Self::Ntfy, Self::Mail];

    /// Its name in settings.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Teams => "teams",
            Self::Ntfy => "ntfy",
            Self::Mail => "mail",
        }
    }

    /// The body of a message with these notices, of which there is at least one.
    pub(super) fn body(self, notices: &[Notice]) -> String {
        match self {
            Self::Slack => slack(notices).to_string(),
            Self::Teams => teams(notices).to_string(),
            Self::Ntfy => ntfy(notices).to_string(),
            Self::Mail => json!(Letter::of(notices)).to_string(),
        }
    }
}

/// A mail, without its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Letter {
    pub(super) subject: String,
    pub(super) text: String,
}

impl Letter {
    fn of(notices: &[Notice]) -> Self {
        let mut text = String::new();
        for notice in notices {
            text.push_str(&whole(notice));
            if let Some(Choice { approve, reject }) = &notice.choice {
                text.push_str("\n\nApprove: ");
                text.push_str(approve);
                text.push_str("\nReject:  ");
                text.push_str(reject);
            }
            text.push_str("\n\n");
        }
        Self { subject: format!("[Riposte] {}", title(notices)), text }
    }
}

/// The title of a message.
fn title(notices: &[Notice]) -> String {
    let first = notices.first().map_or("", |notice| notice.title.as_str());
    let first = cut(first, TITLE);
    if notices.len() > 1 { format!("{first} (and {} more)", notices.len() - 1) } else { first }
}

/// A notice as lines.
fn whole(notice: &Notice) -> String {
    let lines = std::iter::once(&notice.title).chain(&notice.lines);
    lines.map(String::as_str).collect::<Vec<_>>().join("\n")
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A text of at most so many bytes.
fn cut_bytes(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

fn slack(notices: &[Notice]) -> Value {
    let mut blocks = Vec::new();
    for notice in notices {
        let text = cut(&whole(notice), BLOCK);
        blocks.push(json!({"type": "section", "text": {"type": "plain_text", "text": text, "emoji": false}}));
        if let Some(Choice { approve, reject }) = &notice.choice {
            let button = |text: &str, url: &str, style: &str| json!({"type": "button", "text": {"type": "plain_text", "text": text}, "url": url, "style": style});
            let buttons = [button("Approve …", approve, "primary"), button("Reject …", reject, "danger")];
            blocks.push(json!({"type": "actions", "elements": buttons}));
        }
    }
    // Shown in notifications, where these three characters would begin a mention or a link.
    let text = title(notices).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({"text": text, "blocks": blocks, "unfurl_links": false, "unfurl_media": false})
}

fn teams(notices: &[Notice]) -> Value {
    let mut body = Vec::new();
    let mut actions = Vec::new();
    let mut left = CARD;
    for notice in notices {
        // Runs of text have no markup, unlike a text block.
        let titled =
            std::iter::once((&notice.title, "bolder")).chain(notice.lines.iter().map(|line| (line, "default")));
        for (line, weight) in titled {
            if left == 0 {
                break;
            }
            let text = cut_bytes(line, left);
            left = left.saturating_sub(text.len());
            let inlines = json!([{"type": "TextRun", "text": text, "weight": weight}]);
            body.push(json!({"type": "RichTextBlock", "inlines": inlines}));
        }
        if let Some(Choice { approve, reject }) = &notice.choice {
            for (title, url, style) in [("Approve …", approve, "positive"), ("Reject …", reject, "destructive")] {
                actions.push(json!({"type": "Action.OpenUrl", "title": title, "url": url, "style": style}));
            }
        }
    }
    let card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
        "actions": actions,
    });
    let attachment =
        json!({"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null, "content": card});
    json!({"type": "message", "attachments": [attachment]})
}

fn ntfy(notices: &[Notice]) -> Value {
    let is_urgent = notices.iter().any(|notice| notice.is_urgent);
    let mut actions = Vec::new();
    if let Some(Choice { approve, reject }) = notices.iter().find_map(|notice| notice.choice.as_ref()) {
        for (label, url) in [("Approve …", approve), ("Reject …", reject)] {
            actions.push(json!({"action": "view", "label": label, "url": url}));
        }
    }
    let lines: Vec<String> = notices.iter().map(whole).collect();
    json!({
        "title": title(notices),
        "message": cut_bytes(&lines.join("\n\n"), NTFY),
        "priority": if is_urgent { 5 } else { 3 },
        "actions": actions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits() -> Notice {
        Notice {
            title: "firewall-drop 203.0.113.9 on 1 agent waits for approval".into(),
            lines: vec!["Policy: <!channel> [x](http://evil) *b*".into()],
            choice: Some(Choice {
                approve: "https://r/a?choice=approve".into(),
                reject: "https://r/a?choice=reject".into(),
            }),
            is_urgent: true,
        }
    }

    #[test]
    fn each_chat_gets_its_own_form_with_two_buttons() {
        for chat in Chat::ALL {
            let body = chat.body(&[waits()]);
            assert!(body.contains("choice=approve") && body.contains("choice=reject"), "{}: {body}", chat.as_str());
        }
        insta::assert_json_snapshot!("slack", slack(&[waits()]));
        insta::assert_json_snapshot!("teams", teams(&[waits()]));
        insta::assert_json_snapshot!("ntfy", ntfy(&[waits()]));
    }

    #[test]
    fn messages_stay_below_what_a_receiver_takes_however_long_the_texts_are() {
        let long = Notice { title: "é".repeat(300), lines: vec!["\u{1f525}".repeat(300); 20], ..waits() };
        let notices = vec![long; 10];
        let message = ntfy(&notices)["message"].as_str().unwrap().len();
        assert!(message <= 4096, "{message}");
        let card = teams(&notices).to_string();
        assert!(card.len() < 28_000 && card.contains("choice=approve"), "{}", card.len());
        let blocks = slack(&notices);
        let longest = blocks["blocks"].as_array().unwrap().iter().filter_map(|block| block["text"]["text"].as_str());
        assert!(longest.map(|text| text.chars().count()).max().unwrap() <= 3000);
    }

    #[test]
    fn no_text_is_read_as_markup() {
        let hostile = Notice { title: "<!channel> & <http://evil|here>".into(), ..waits() };
        let message = slack(std::slice::from_ref(&hostile));
        assert_eq!(message["text"], "&lt;!channel&gt; &amp; &lt;http://evil|here&gt;");
        let kinds = message["blocks"].as_array().unwrap().iter().filter(|block| block["type"] == "section");
        assert!(kinds.into_iter().all(|block| block["text"]["type"] == "plain_text"));
        let card = teams(std::slice::from_ref(&hostile));
        let body = &card["attachments"][0]["content"]["body"];
        assert!(body.as_array().unwrap().iter().all(|block| block["type"] == "RichTextBlock"));
        let letter = Letter::of(&[hostile, waits(), waits()]);
        assert!(letter.subject.ends_with("(and 2 more)") && !letter.subject.contains('\n'), "{}", letter.subject);
    }
}
