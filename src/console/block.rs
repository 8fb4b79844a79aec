//! A response by hand: first what is to be done, then the plan of it, then the button.

use axum::extract::Query;
use riposte_protocol::target::{Target, TargetKind};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::Trouble;
use super::format::count;
use super::labels;
use super::page::{PageFailure, PageResult};
use super::plan::{ChangePlan, PlanField};
use super::session::{SentForm, Session};
use crate::domain::response::ResponseState;
use crate::views::actions::ActionView;
use crate::views::page::Page;
use crate::views::responses::{ManualPreview, ManualTarget, NewManualResponse, ResponseView};

const SECTION: &str = "/responses";
/// Agents named in a plan.
const NAMED: usize = 40;
/// The value of the field that says that the plan was seen.
const SEEN: &str = "yes";

/// Kinds of targets that have a value; an account can be nearly any text, so it is last.
const BY_STRICTNESS: [TargetKind; 4] = [TargetKind::Ip, TargetKind::File, TargetKind::Process, TargetKind::User];

/// What was asked for, as a form has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct HandForm {
    kind: String,
    target: String,
    action: String,
    on: String,
    agents: String,
    labels: String,
    r#for: String,
    arguments: String,
    reason: String,
}

/// What is read of an action's document.
#[derive(Deserialize)]
struct Document {
    name: String,
    #[serde(default)]
    target_kinds: Vec<TargetKind>,
}

impl HandForm {
    fn of(form: &SentForm) -> Self {
        let get = |name: &str| form.get(name).to_owned();
        Self {
            kind: get("kind"),
            target: get("target"),
            action: get("action"),
            on: get("on"),
            agents: get("agents"),
            labels: get("labels"),
            r#for: get("for"),
            arguments: get("arguments"),
            reason: get("reason"),
        }
    }

    /// The labels that select agents.
    fn selected(&self) -> Result<Map<String, Value>, String> {
        let labels = labels::read(&self.labels)?;
        if labels.is_empty() {
            Err("labels are missing: write name=value".to_owned())
        } else {
            Ok(labels.into_iter().collect())
        }
    }

    /// The kind of the target, of those that the action takes: the one that was asked for, else the first
    /// that the text can be. `None` if the action takes no target, or can do without and none was typed.
    fn kind_of(&self, kinds: &[TargetKind]) -> Option<TargetKind> {
        let value = self.target.trim();
        let named: Vec<TargetKind> = BY_STRICTNESS.into_iter().filter(|kind| kinds.contains(kind)).collect();
        if let Some(asked) = named.iter().find(|kind| kind.as_str() == self.kind) {
            return Some(*asked);
        }
        if value.is_empty() && named.len() < kinds.len() {
            return None;
        }
        let fits = named.iter().find(|kind| Target::named(**kind, value).is_ok());
        fits.or(named.first()).copied()
    }

    /// The request; `kinds` are those that the action takes.
    fn request(&self, kinds: &[TargetKind], dry_run: bool) -> Result<NewManualResponse, String> {
        let named = self.agents.split([',', ' ', '\n']).map(str::trim).filter(|name| !name.is_empty());
        let (agents, on) = match self.on.as_str() {
            "all" => (Vec::new(), Some(json!("all"))),
            "labels" => (Vec::new(), Some(json!({ "labels": self.selected()? }))),
            _ => (named.map(str::to_owned).collect(), None),
        };
        let duration = match self.r#for.trim() {
            "" => None,
            text => Some(text.parse().map_err(|error| format!("the duration {text} {error}"))?),
        };
        let value = self.target.trim();
        let target = match self.kind_of(kinds) {
            Some(kind) => Some(ManualTarget::Full { kind, value: value.to_owned() }),
            None if value.is_empty() => None,
            None => return Err(format!("{} takes no target: leave the field empty", self.action)),
        };
        Ok(NewManualResponse {
            action: self.action.clone(),
            target,
            agents,
            on,
            duration,
            reason: if dry_run && self.reason.trim().is_empty() { "dry run".to_owned() } else { self.reason.clone() },
            arguments: self
                .arguments
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect(),
            break_glass: false,
            dry_run,
            case: None,
            tlp: None,
        })
    }
}

/// The form.
pub(super) async fn ask(session: Session, Query(asked): Query<HandForm>) -> PageResult {
    let plan = form(&session, asked).await?;
    session.plan(SECTION, plan).await
}

async fn actions(session: &Session) -> Result<Vec<Document>, PageFailure> {
    let page: Page<ActionView> = session.api.get("/v1/actions?limit=500").await?;
    let documents = page.items.iter().filter_map(|view| serde_json::to_value(&view.action).ok());
    let documents = documents.map(serde_json::from_value);
    documents
        .collect::<Result<_, _>>()
        .map_err(|error| PageFailure::system(&format!("an action cannot be read: {error}")))
}

async fn form(session: &Session, asked: HandForm) -> Result<ChangePlan, PageFailure> {
    let actions = actions(session).await?;
    let words = |document: &Document| {
        let kinds: Vec<&str> = document.target_kinds.iter().map(|kind| kind.as_str()).collect();
        format!("{} ({})", document.name, kinds.join(", "))
    };
    let wanted = |document: &&Document| {
        asked.kind.is_empty() || document.target_kinds.iter().any(|kind| kind.as_str() == asked.kind)
    };
    let shown: Vec<(String, String)> =
        actions.iter().filter(wanted).map(|document| (document.name.clone(), words(document))).collect();
    let choices: Vec<(&str, &str)> = shown.iter().map(|(name, words)| (name.as_str(), words.as_str())).collect();
    let usual = choices.iter().find(|(name, _)| *name == "firewall-drop").or(choices.first());
    let action = if asked.action.is_empty() { usual.map_or("", |(name, _)| *name) } else { asked.action.as_str() };
    let on = if asked.on.is_empty() { "agents" } else { asked.on.as_str() };
    let places = [("agents", "these agents"), ("labels", "agents with these labels"), ("all", "every agent")];
    let arguments = PlanField {
        kind: "textarea",
        ..PlanField::optional("arguments", "Arguments", &asked.arguments, "One a line.")
    };
    Ok(ChangePlan {
        title: "Respond by hand".to_owned(),
        fields: vec![
            PlanField::hidden("kind", &asked.kind),
            PlanField::select("action", "Action", action, &choices),
            PlanField::optional(
                "target",
                "Target",
                &asked.target,
                "An address, a network, an account, a file or a process.",
            ),
            PlanField::select("on", "Where", on, &places),
            PlanField::optional("agents", "Agents", &asked.agents, "Names, separated by blanks or commas."),
            PlanField::optional("labels", "Labels", &asked.labels, "Such as env=prod, role=web."),
            PlanField::optional("for", "For", &asked.r#for, "Such as 10m, 8h or 7d; empty: until a person lifts it."),
            arguments,
            PlanField::reason(&asked.reason),
        ],
        action: "/block".to_owned(),
        button: "Show what it does…",
        back: "/".to_owned(),
        ..ChangePlan::default()
    })
}

/// Shows the plan, or carries it out once it was seen.
pub(super) async fn act(session: Session, sent: SentForm) -> PageResult {
    let asked = HandForm::of(&sent);
    let actions = actions(&session).await?;
    let found = actions.iter().find(|document| document.name == asked.action);
    let kinds = found.map(|document| document.target_kinds.clone()).unwrap_or_default();
    let is_seen = sent.get("seen") == SEEN;
    let request = match asked.request(&kinds, !is_seen) {
        Ok(request) => request,
        Err(why) => return again(&session, asked, &Trouble::Mistyped(why)).await,
    };
    if !is_seen {
        return match session.api.post::<ManualPreview>("/v1/responses", &request).await {
            Ok(preview) => session.plan(SECTION, foreseen(&asked, &preview)).await,
            Err(trouble) => again(&session, asked, &trouble).await,
        };
    }
    match session.api.post::<ResponseView>("/v1/responses", &request).await {
        Ok(view) => {
            let response = &view.response.response;
            let said = match response.state {
                ResponseState::AwaitingApproval => "It waits for a second person.",
                ResponseState::Spared => "It was spared: nothing was done.",
                _ => "Ordered; this page shows what becomes of it on each agent.",
            };
            Ok(session.done(&format!("/responses/{}", response.id), said))
        }
        Err(trouble) => again(&session, asked, &trouble).await,
    }
}

async fn again(session: &Session, asked: HandForm, trouble: &Trouble) -> PageResult {
    let plan = form(session, asked).await?;
    session.refused(SECTION, plan, trouble).await
}

/// What the response would do.
fn foreseen(asked: &HandForm, preview: &ManualPreview) -> ChangePlan {
    let ManualPreview { state, detail, target, agents, quorum, unable, protected, already_held, enrolled, share } =
        preview;
    let length = |list: usize| i64::try_from(list).unwrap_or(i64::MAX);
    let mut facts = vec![
        ("Action", asked.action.clone()),
        ("Target", target.clone().unwrap_or_else(|| "the agent itself".to_owned())),
        ("For", if asked.r#for.trim().is_empty() { "until a person lifts it".to_owned() } else { asked.r#for.clone() }),
        (
            "Acts on",
            format!("{} of {enrolled}, {:.0} % of the fleet", count(length(agents.len()), "agent"), share * 100.0),
        ),
    ];
    if !already_held.is_empty() {
        facts.push(("Already in force", format!("on {}", count(length(already_held.len()), "agent"))));
    }
    let mut warnings = Vec::new();
    match (state, quorum) {
        (ResponseState::Spared, _) => warnings.push(format!("Nothing would happen: {detail}")),
        (_, Some(quorum)) => {
            let people = count(i64::from(*quorum), "more person").replace("persons", "people");
            warnings.push(format!("It waits for {people}: {detail}"));
        }
        _ => {}
    }
    let concerned = agents.iter().take(NAMED).map(|agent| {
        let held = already_held.iter().find(|held| held.id == agent.id);
        match held.map(|held| held.until) {
            Some(Some(until)) => format!("{} (in force already, until {until})", agent.name),
            Some(None) => format!("{} (in force already, until lifted)", agent.name),
            None => agent.name.clone(),
        }
    });
    let mut concerned: Vec<String> = concerned.collect();
    if agents.len() > NAMED {
        concerned.push(format!("and {} more", agents.len() - NAMED));
    }
    let left_out = unable.iter().chain(protected).map(|agent| format!("{}: {}", agent.name, agent.reason));
    let hidden = [
        ("kind", &asked.kind),
        ("target", &asked.target),
        ("action", &asked.action),
        ("on", &asked.on),
        ("agents", &asked.agents),
        ("labels", &asked.labels),
        ("for", &asked.r#for),
        ("arguments", &asked.arguments),
    ];
    let mut fields: Vec<PlanField> = hidden.into_iter().map(|(name, value)| PlanField::hidden(name, value)).collect();
    fields.push(PlanField::hidden("seen", SEEN));
    fields.push(PlanField::reason(&asked.reason));
    let pairs = hidden.into_iter().map(|(name, value)| (name, value.as_str()));
    let back = super::paths::with_query("/block", pairs.chain([("reason", asked.reason.as_str())]));
    ChangePlan {
        title: format!("{} {}", asked.action, target.clone().unwrap_or_default()),
        facts,
        warnings,
        concerned,
        stays: left_out.take(NAMED).collect(),
        fields,
        action: "/block".to_owned(),
        button: if quorum.is_some() { "Ask for approval" } else { "Respond" },
        back,
        is_dangerous: *share > 0.5,
        is_empty: *state == ResponseState::Spared,
        ..ChangePlan::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_was_typed_is_never_left_out() {
        let asked =
            |target: &str| HandForm { action: "log-only".to_owned(), target: target.to_owned(), ..HandForm::default() };
        let any = [TargetKind::None, TargetKind::User, TargetKind::Ip];
        assert_eq!(asked("203.0.113.7").kind_of(&any), Some(TargetKind::Ip));
        assert_eq!(asked("203.0.113.0/24").kind_of(&any), Some(TargetKind::Ip));
        assert_eq!(asked("root").kind_of(&any), Some(TargetKind::User));
        assert_eq!(asked(" ").kind_of(&any), None);
        // The API says what is wrong with it.
        assert_eq!(asked("no address").kind_of(&[TargetKind::Ip]), Some(TargetKind::Ip));
        assert_eq!(asked("").kind_of(&[TargetKind::Ip]), Some(TargetKind::Ip));
        let refused = asked("203.0.113.7").request(&[TargetKind::Host], true).unwrap_err();
        assert_eq!(refused, "log-only takes no target: leave the field empty");
        let asked = HandForm { kind: "user".to_owned(), ..asked("10.0.0.1") };
        assert_eq!(asked.kind_of(&any), Some(TargetKind::User));
    }
}
