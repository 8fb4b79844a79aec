//! A manager in the middle of a night: people of every role, agents, policies, what is in force, what
//! waits, what was spared; and the address of every page that can be opened then.

use serde_json::{Value, json};

use crate::programs::{Manager, eventually};

/// The manager, and the ids in the addresses of its pages.
pub(crate) struct Night {
    pub(crate) manager: Manager,
    /// In force on both agents.
    pub(crate) active: String,
    /// Waits for a person.
    pub(crate) waiting: String,
    /// Identifies `web-01`.
    pub(crate) agent: String,
    pub(crate) alert: String,
    pub(crate) protected: String,
    /// Acted first, and ends unless a person confirms it.
    pub(crate) unconfirmed: String,
}

/// The people of the night.
pub(crate) const PEOPLE: [&str; 4] = ["root:admin", "anna:analyst", "erik:engineer", "vera:viewer"];
/// The address that is blocked, and the one that waits.
pub(crate) const BLOCKED: &str = "203.0.113.7";
pub(crate) const DOUBTED: &str = "198.51.100.4";

/// What makes a policy ask a person first.
pub(crate) fn asking(note: &str) -> Value {
    json!({"note": note, "mode": "approve", "approval": {"quorum": 1, "within": "15m"}})
}

impl Night {
    pub(crate) async fn begin() -> Self {
        Self::begin_on(Manager::start().await).await
    }

    pub(crate) async fn begin_on(mut manager: Manager) -> Self {
        manager.people(&PEOPLE).await;
        let agent = manager.agent("web-01", json!({"env": "prod"})).await;
        manager.agent("web-02", json!({"env": "prod"})).await;
        let api = manager.api.clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        api.policy("log-ssh", "5712", &json!({"note": "Guessed passwords over SSH."})).await;
        api.policy("ask-web", "31103", &asking("Web attacks; a person decides.")).await;
        api.policy("watch-web", "31103", &json!({"mode": "observe"})).await;
        let entry = json!({"kind": "ip", "value": "192.0.2.0/24", "reason": "Our scanners"});
        let protected = text(&api.post("/v1/protected", &entry).await["id"]);
        let receiver =
            json!({"name": "tickets", "url": "https://tickets.example.org/hook", "settings": {"note": "The desk"}});
        api.post("/v1/webhooks", &receiver).await;
        let scans =
            json!({"action": "log-only", "target": "source.ip", "on": {"labels": {"env": "prod"}}, "for": "8h"});
        api.policy("log-scans", "40601", &json!({"respond": scans, "note": "Hosts that try many ports."})).await;
        let words = "Network scan from same source ip.";
        for (address, level) in
            [("198.51.100.23", 10), ("198.51.100.61", 10), ("2001:db8:7::1f", 12), ("203.0.113.90", 8)]
        {
            let rule = json!({"level": level, "id": "40601", "groups": ["recon"], "description": words});
            api.alert_with("40601", address, &json!({"rule": rule})).await;
        }
        let active = api.alert("5712", BLOCKED).await;
        api.alert("5712", "203.0.113.8").await;
        api.alert("5712", "192.0.2.9").await;
        let unconfirmed = json!({"approval": {"undo_unless_confirmed": "1h"}, "note": "Acts first."});
        api.policy("act-first", "31151", &unconfirmed).await;
        let unconfirmed = api.alert("31151", "198.51.100.77").await;
        api.alert("31103", DOUBTED).await;
        api.alert("31103", "198.51.100.5").await;
        let waits = api.get(&format!("/v1/responses?state=awaiting_approval&target={DOUBTED}")).await;
        let waiting = text(&waits["items"][0]["id"]);
        let alert = text(&api.get("/v1/alerts?limit=1").await["items"][0]["id"]);
        let night = Self { manager, active, waiting, agent, alert, protected, unconfirmed };
        night.is_verified(&night.active).await;
        night
    }

    /// Waits until a response is in force wherever it should be.
    pub(crate) async fn is_verified(&self, response: &str) {
        eventually("the response is in force, verified", async || {
            let shown = self.manager.api.get(&format!("/v1/responses/{response}")).await;
            let commands = shown["commands"].as_array()?;
            let is_done = |command: &Value| command["state"] == "succeeded";
            (!commands.is_empty() && commands.iter().all(is_done)).then_some(())
        })
        .await;
    }

    /// A name and the address of every page that shows something.
    pub(crate) fn pages(&self) -> Vec<(&'static str, String)> {
        let Self { active, waiting, agent, alert, .. } = self;
        vec![
            ("now", "/".to_owned()),
            ("target", format!("/targets/ip/{BLOCKED}")),
            ("waiting", format!("/waiting?id={waiting}")),
            ("responses", "/responses".to_owned()),
            ("response", format!("/responses/{active}")),
            ("response-waiting", format!("/responses/{waiting}")),
            ("alerts", "/alerts".to_owned()),
            ("alert", format!("/alerts/{alert}")),
            ("rejected", "/alerts/rejected".to_owned()),
            ("policies", "/policies".to_owned()),
            ("policy", "/policies/log-ssh".to_owned()),
            ("agents", "/agents".to_owned()),
            ("agent", format!("/agents/{agent}")),
            ("protected", "/protected".to_owned()),
            ("integrations", "/integrations".to_owned()),
            ("audit", "/audit".to_owned()),
            ("audit-verify", "/audit/verify".to_owned()),
            ("system", "/system".to_owned()),
            ("charts", "/system/charts".to_owned()),
            ("account", "/account".to_owned()),
            ("account-password", "/account/password".to_owned()),
            ("account-codes", "/account/codes".to_owned()),
        ]
    }

    /// The same for the pages of administrators.
    pub(crate) fn administrators_pages() -> Vec<(&'static str, String)> {
        [("people", "/people"), ("keys", "/people/keys"), ("webhook", "/integrations/webhooks/tickets")]
            .map(|(name, path)| (name, path.to_owned()))
            .into()
    }

    /// Every page with the plan or form of a change that another role can make.
    pub(crate) fn plans(&self) -> Vec<(&'static str, String)> {
        let Self { active, waiting, agent, protected, unconfirmed, .. } = self;
        vec![
            ("lift", format!("/lift?target={BLOCKED}")),
            ("response-lift", format!("/responses/{active}/lift")),
            ("approve", format!("/responses/{waiting}/approve")),
            ("reject", format!("/responses/{waiting}/reject")),
            ("confirm", format!("/responses/{unconfirmed}/confirm")),
            ("block", "/block".to_owned()),
            ("freeze", "/freeze".to_owned()),
            ("protect", "/protected/add?kind=ip&value=203.0.113.7".to_owned()),
            ("unprotect", format!("/protected/{protected}/remove")),
            ("enrol", "/agents/enrol".to_owned()),
            ("labels", format!("/agents/{agent}/labels")),
            ("revoke", format!("/agents/{agent}/revoke")),
            ("policy-new", "/policies/new".to_owned()),
            ("policy-edit", "/policies/log-ssh/edit".to_owned()),
            ("policy-mode", "/policies/log-ssh/mode".to_owned()),
            ("policy-rollback", "/policies/log-ssh/rollback?to=1".to_owned()),
            ("policy-reset", "/policies/log-ssh/reset".to_owned()),
            ("policy-delete", "/policies/log-ssh/delete".to_owned()),
            ("policy-import", "/policies/import".to_owned()),
            ("person-new", "/people/new".to_owned()),
            ("person-change", "/people/vera/change".to_owned()),
            ("person-password", "/people/vera/password".to_owned()),
            ("person-delete", "/people/vera/delete".to_owned()),
            ("person-forget", "/people/vera/forget".to_owned()),
            ("account-key-new", "/account/keys/new".to_owned()),
            ("key-new", "/people/keys/new".to_owned()),
            ("webhook-test", "/integrations/webhooks/tickets/test".to_owned()),
            ("webhook-replay", "/integrations/webhooks/tickets/replay".to_owned()),
        ]
    }
}
