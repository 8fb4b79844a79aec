//! `riposte events`: what happens, as lines for people or one JSON object a line for programs. With
//! `--follow` it goes on after a lost connection where it was.

use std::io::{IsTerminal as _, stdout};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use reqwest::{Method, StatusCode};

use super::client::segment;
use super::event_messages::{Messages, StreamMessage};
use super::event_selection::EventSelection;
use super::output::{complain, say};
use super::reply::{self, Reply, Said};
use super::shown::{Format, ShownArgs};
use super::terminal::plain;
use crate::domain::event::TYPE_PREFIX;
use crate::views::events::{CloudEvent, EventGap};
use crate::views::page::Page;

/// Silence after which a stream counts as dead: three heartbeats.
const SILENCE: Duration = Duration::from_secs(45);
/// First and longest delay before the next connection.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Arguments of `riposte events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Which manager, and the form; JSON is that of CNCF's `CloudEvents`.
    #[command(flatten)]
    shown: ShownArgs,
    /// Go on printing events as they happen.
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    selection: EventSelection,
    /// Begin after the event of this number; by default with the oldest, or now with --follow.
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
}

impl EventsArgs {
    /// The query, without the number.
    fn query(&self, is_stream: bool) -> String {
        let mut query = format!("follow={is_stream}");
        let EventSelection { types, policy, agent, target } = &self.selection;
        let types = (!types.is_empty()).then(|| types.join(","));
        let named = [("type", &types), ("policy", policy), ("agent", agent), ("target", target)];
        for (name, value) in named {
            if let Some(value) = value {
                query.extend(["&", name, "=", &segment(value)]);
            }
        }
        query
    }

    fn print(&self, event: &Said<CloudEvent>) -> anyhow::Result<()> {
        if self.shown.format() == Format::Yaml {
            say("---");
        }
        self.shown.print_one(event, &event.view.id, |event| vec![line(event)])
    }
}

/// Runs the command.
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn run(args: EventsArgs) -> anyhow::Result<ExitCode> {
    if args.follow { follow(&args).await } else { list(&args).await }
}

async fn list(args: &EventsArgs) -> anyhow::Result<ExitCode> {
    let first = format!("/v1/events?{}&limit=500", args.query(false));
    let mut next = args.after.map_or_else(|| first.clone(), |after| format!("{first}&after={after}"));
    loop {
        let page: Page<Said<CloudEvent>> = args.shown.remote.get(&next).await?;
        page.items.iter().try_for_each(|event| args.print(event))?;
        match page.next_cursor {
            Some(cursor) => next = format!("{first}&cursor={cursor}"),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}

async fn follow(args: &EventsArgs) -> anyhow::Result<ExitCode> {
    let mut last = args.after.map(|after| after.to_string());
    let (mut wait, mut was_connected) = (RETRY.0, false);
    loop {
        let lost = match read(args, &mut last, &mut was_connected).await? {
            // A manager that stops, or that wants the caller to come again with its present rights.
            Ended::Connected(why) => {
                wait = RETRY.0;
                why
            }
            Ended::Unreached(why) if was_connected => why,
            Ended::Unreached(why) => bail!(why),
        };
        let from = last.as_ref().map_or_else(String::new, |last| format!(", and goes on after event {last}"));
        complain(&plain(&format!(
            "riposte: the stream of events has ended ({lost}): connects again in {} s{from}",
            wait.as_secs()
        )));
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

/// How a connection ended.
enum Ended {
    /// Events could be read until then.
    Connected(String),
    /// The manager was not reached, or has no capacity.
    Unreached(String),
}

/// Reads one stream to its end.
///
/// # Errors
/// If the manager refuses for a reason that will not pass.
async fn read(args: &EventsArgs, last: &mut Option<String>, was_connected: &mut bool) -> anyhow::Result<Ended> {
    let path = format!("/v1/events?{}", args.query(true));
    let mut request = args.shown.remote.request_within(SILENCE, Method::GET, &path).await?;
    if let Some(last) = last {
        request = request.header("last-event-id", last.as_str());
    }
    let pending = match args.shown.remote.start(request).await {
        Ok(pending) => pending,
        Err(error) => return Ok(Ended::Unreached(format!("{error:#}"))),
    };
    let status = pending.response.status();
    if !status.is_success() {
        let why = Reply::read(pending).await?.refused().unwrap_or_else(|| status.to_string());
        let passes = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
        if passes {
            return Ok(Ended::Unreached(why));
        }
        bail!(why);
    }
    *was_connected = true;
    let (mut response, mut messages) = (pending.response, Messages::default());
    if args.shown.is_for_people() && stdout().is_terminal() {
        complain("riposte: follows events; Ctrl+C ends");
    }
    loop {
        let why = match response.chunk().await {
            Ok(Some(bytes)) => {
                messages.push(&bytes);
                None
            }
            Ok(None) => Some("the manager closed it".to_owned()),
            Err(error) => Some(if error.is_timeout() { "no heartbeat".to_owned() } else { error.to_string() }),
        };
        while let Some(message) = messages.next() {
            told(args, &message)?;
        }
        if let Some(id) = messages.last_id() {
            *last = Some(id.to_owned());
        }
        if let Some(why) = why {
            return Ok(Ended::Connected(why));
        }
    }
}

fn told(args: &EventsArgs, message: &StreamMessage) -> anyhow::Result<()> {
    if message.event == "gap" {
        let EventGap { from, to } = reply::line(message.data.as_bytes(), "GET /v1/events")?;
        complain(&format!(
            "riposte: the events {from} to {to} are missing: they were removed before they could be read (event_retention_days)"
        ));
    } else {
        args.print(&reply::line(message.data.as_bytes(), "GET /v1/events")?)?;
    }
    Ok(())
}

/// An event as one line: time, type, what, who.
fn line(event: &CloudEvent) -> String {
    let CloudEvent { time, r#type, subject, data, .. } = event;
    let kind = r#type.strip_prefix(TYPE_PREFIX).unwrap_or(r#type);
    let agent = data.agent.as_ref().or(data.agent_id.as_ref());
    let mut parts = vec![subject.clone()];
    let target =
        data.target_value.as_ref().map(|value| format!("{} {value}", data.target_kind.as_deref().unwrap_or("")));
    parts.extend(data.action.as_ref().map(|action| format!("{action} {}", target.unwrap_or_default())));
    parts.extend(agent.map(|agent| format!("on {agent}")));
    parts.extend(data.policy.as_ref().map(|policy| format!("policy {policy}")));
    parts.push(format!("by {}", data.actor));
    let detail = if data.detail.is_empty() { String::new() } else { format!(": {}", data.detail) };
    let parts: Vec<&str> = parts.iter().map(|part| part.trim()).collect();
    plain(&format!("{time}  {kind:<20}  {}{detail}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_what_and_who_and_hides_control_characters() {
        let event: CloudEvent = serde_json::from_value(serde_json::json!({
            "specversion": "1.0", "id": "7", "source": "/riposte", "type": "riposte.effect.active",
            "subject": "effect/e", "time": "2026-11-24T10:00:00.000Z", "datacontenttype": "application/json",
            "data": {"actor": "agent:a", "detail": "done\u{1b}[31m", "agent": "web-01", "action": "firewall-drop",
                "target_kind": "ip", "target_value": "203.0.113.7", "policy": "ssh", "of_a_later_version": 1}
        }))
        .unwrap();
        let line = line(&event);
        assert!(!line.contains('\u{1b}'), "{line:?}");
        let said = "2026-11-24T10:00:00.000Z  effect.active         effect/e, firewall-drop ip 203.0.113.7, on web-01, \
            policy ssh, by agent:a: done";
        assert!(line.starts_with(said), "{line}");
    }
}
