//! Lifting many responses at once: those to a target, of a policy, or all; with what ends, what
//! stays, and because of which other response it stays.

use axum::extract::Query;
use riposte_protocol::target::TargetKind;

use super::client::Trouble;
use super::format::count;
use super::page::PageResult;
use super::plan::{ChangePlan, PlanField};
use super::session::{SentForm, Session};
use crate::views::page::Page;
use crate::views::responses::{JudgedResponse, LiftMany, Lifted, StayingEffect};

/// The most responses that are lifted by their ids.
const MOST: usize = 500;

/// A target, and its kind where that is known: an account and a file can have the same name.
#[derive(Clone)]
struct Aim {
    kind: Option<TargetKind>,
    value: String,
}

impl Aim {
    /// Of `KIND:VALUE`, as the rows have it, or of a value alone, as people type it.
    fn of(text: &str) -> Self {
        let split = text.split_once(':').and_then(|(kind, value)| Some((TargetKind::parse(kind)?, value)));
        match split {
            Some((kind, value)) => Self { kind: Some(kind), value: value.to_owned() },
            None => Self { kind: None, value: text.to_owned() },
        }
    }

    fn field(&self) -> String {
        self.kind.map_or_else(|| self.value.clone(), |kind| format!("{}:{}", kind.as_str(), self.value))
    }
}

/// Which responses, as the address has it.
pub(super) struct Which {
    targets: Vec<Aim>,
    policy: String,
    everything: bool,
    reason: String,
}

impl Which {
    fn of(pairs: &[(String, String)]) -> Self {
        let get = |name: &str| pairs.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.trim());
        let targets = pairs.iter().filter(|(name, value)| name == "target" && !value.trim().is_empty());
        Self {
            targets: targets.map(|(_, value)| Aim::of(value.trim())).collect(),
            policy: get("policy").to_owned(),
            everything: get("everything") == "yes",
            reason: get("reason").to_owned(),
        }
    }

    fn title(&self) -> String {
        match (self.targets.as_slice(), self.policy.as_str()) {
            ([], "") if self.everything => "Lift everything".to_owned(),
            ([], policy) => format!("Lift everything of the policy {policy}"),
            ([target], _) => format!("Lift everything on {}", target.value),
            (targets, _) => format!("Lift everything on {} targets", targets.len()),
        }
    }
}

/// What a lift would do: the request that does it, and its dry run.
struct Foreseen {
    request: LiftMany,
    lifted: Lifted,
    /// Whether there are more responses than one lift can name.
    is_cut: bool,
}

/// A lift of nothing.
const fn nothing() -> Lifted {
    Lifted { count: 0, responses: Vec::new(), plan: None, warnings: Vec::new() }
}

impl Session {
    async fn foresee(&self, which: &Which) -> Result<Foreseen, Trouble> {
        let mut is_cut = false;
        let mut request = match which.targets.as_slice() {
            [] if which.everything => LiftMany { everything: true, ..blank() },
            [] => LiftMany { policy: Some(which.policy.clone()), ..blank() },
            [aim] => LiftMany { target: Some(aim.value.clone()), target_kind: aim.kind, ..blank() },
            targets => {
                let mut responses = self.active_on(targets).await?;
                if responses.is_empty() {
                    return Ok(Foreseen { request: blank(), lifted: nothing(), is_cut: false });
                }
                is_cut = responses.len() > MOST;
                responses.truncate(MOST);
                LiftMany { responses, ..blank() }
            }
        };
        if request.everything {
            // The API wants to know how many are expected.
            let expected: Lifted = self.api.post("/v1/responses/lift", &request).await?;
            request.count = Some(expected.count);
        }
        let lifted: Lifted = self.api.post("/v1/responses/lift", &request).await?;
        Ok(Foreseen { request, lifted, is_cut })
    }

    async fn active_on(&self, targets: &[Aim]) -> Result<Vec<uuid::Uuid>, Trouble> {
        let mut ids: Vec<uuid::Uuid> = Vec::new();
        for aim in targets {
            let query = [("state", "active"), ("limit", "500"), ("target", aim.value.as_str())];
            let page: Page<JudgedResponse> = self.api.get(&super::paths::with_query("/v1/responses", query)).await?;
            let of_kind = |judged: &&JudgedResponse| {
                aim.kind.is_none_or(|kind| judged.response.target_kind.as_deref() == Some(kind.as_str()))
            };
            let found = page.items.iter().filter(of_kind);
            ids.extend(found.filter_map(|judged| judged.response.id.parse::<uuid::Uuid>().ok()));
        }
        Ok(ids)
    }

    fn lift_plan(&self, which: &Which, foreseen: &Foreseen) -> ChangePlan {
        let Lifted { count: responses, responses: ids, plan, warnings } = &foreseen.lifted;
        let mut facts = vec![("Responses", count(i64::try_from(*responses).unwrap_or(i64::MAX), "active response"))];
        let mut stays = Vec::new();
        if let Some(plan) = plan {
            let (effects, agents) = (count(plan.effects, "effect"), count(plan.agents, "agent"));
            facts.push(("Lifts", format!("{effects} on {agents}")));
            if plan.stays > 0 {
                let (effects, agents) = (count(plan.stays, "effect"), count(plan.stays_agents, "agent"));
                facts.push(("Stays", format!("{effects} on {agents}, held by other responses")));
            }
            stays.extend(plan.staying.iter().map(|staying| self.staying(staying)));
        }
        let mut fields =
            vec![PlanField::hidden("count", &responses.to_string()), PlanField::hidden("policy", &which.policy)];
        if which.everything {
            fields.push(PlanField::hidden("everything", "yes"));
        }
        fields.extend(which.targets.iter().map(|target| PlanField::hidden("target", &target.field())));
        // Exactly these are lifted, whatever is decided meanwhile. More than can be named are told by their number.
        if ids.len() <= MOST {
            fields.extend(ids.iter().map(|id| PlanField::hidden("response", &id.to_string())));
        }
        fields.push(PlanField::reason(&which.reason));
        let cut = format!(
            "More than {MOST} responses are active there: this lifts {MOST} of them. Do it again for the rest."
        );
        let said = warnings.iter().map(|fault| fault.detail.clone()).chain(foreseen.is_cut.then_some(cut));
        ChangePlan {
            title: which.title(),
            facts,
            warnings: said.collect(),
            stays,
            fields,
            action: "/lift".to_owned(),
            button: "Lift",
            back: "/".to_owned(),
            is_dangerous: which.everything,
            is_empty: *responses == 0,
            ..ChangePlan::default()
        }
    }

    fn staying(&self, staying: &StayingEffect) -> String {
        let StayingEffect { agent, action, target_kind, target_value, policy, requested_by, until, .. } = staying;
        let by = policy.as_ref().map_or_else(|| self.actor(requested_by), |policy| format!("policy {policy}"));
        let until = until.map_or_else(|| "until it is lifted".to_owned(), |until| format!("until {until}"));
        format!("{action} {target_kind} {target_value} on {agent}: held by {by}, {until}")
    }
}

/// Shows what a lift would do.
pub(super) async fn ask(session: Session, Query(pairs): Query<Vec<(String, String)>>) -> PageResult {
    let which = Which::of(&pairs);
    if which.targets.is_empty() && which.policy.is_empty() && !which.everything {
        return Ok(session.done("/", "Select a target first; nothing was lifted."));
    }
    let foreseen = session.foresee(&which).await?;
    session.plan("/", session.lift_plan(&which, &foreseen)).await
}

/// Lifts, if it is still as many as the plan said.
pub(super) async fn act(session: Session, form: SentForm) -> PageResult {
    let which = Which::of(form.pairs());
    let named = form.pairs().iter().filter(|(name, _)| name == "response");
    let responses: Vec<uuid::Uuid> = named.filter_map(|(_, id)| id.parse().ok()).collect();
    let request = if responses.is_empty() {
        let expected = form.get("count").parse().unwrap_or(0);
        LiftMany { dry_run: false, count: Some(expected), ..session.foresee(&which).await?.request }
    } else {
        LiftMany { responses, dry_run: false, ..blank() }
    };
    let request = LiftMany { reason: which.reason.clone(), ..request };
    match session.api.post::<Lifted>("/v1/responses/lift", &request).await {
        Ok(lifted) => {
            let what = count(i64::try_from(lifted.count).unwrap_or(i64::MAX), "response");
            let said = format!("{what} lifted. What no other response holds is being reverted on every agent.");
            Ok(session.done("/", &said))
        }
        Err(trouble) => {
            let foreseen = session.foresee(&which).await?;
            session.refused("/", session.lift_plan(&which, &foreseen), &trouble).await
        }
    }
}

/// A dry run that lifts nothing yet.
fn blank() -> LiftMany {
    LiftMany {
        policy: None,
        alert_id: None,
        rule_id: None,
        target: None,
        target_kind: None,
        since: None,
        until: None,
        responses: Vec::new(),
        everything: false,
        count: None,
        dry_run: true,
        reason: "dry run".to_owned(),
    }
}
