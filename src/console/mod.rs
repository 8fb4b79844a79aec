//! The console: pages for people, at `/`. It is a client of the manager's own API, inside the same
//! program: each page asks `/v1/…` with the person's session and shows what was answered, so that a
//! page can show and change exactly what the API allows that person
//! (`docs/decisions/0048-the-console-is-a-client-of-the-api.md`). It must never read the store.
//!
//! `door.rs` is the way in, `session.rs` who looks, `client.rs` asks the API, `page.rs` is what every
//! answer is made of, `shell.rs` the frame, `plan.rs` the page before each change; the rest is one file
//! per page.

mod account;
mod agents;
mod alerts;
mod assets;
mod audit;
mod block;
mod bundle;
mod charts;
mod client;
mod decide;
mod door;
mod enrolment;
mod format;
mod freeze;
mod integrations;
mod keys;
mod labels;
mod lift;
mod live;
mod login;
mod metrics_text;
mod now;
mod page;
mod paths;
mod people;
mod people_changes;
mod plan;
mod policies;
mod policy_backtest;
mod policy_changes;
mod policy_editor;
mod policy_import;
mod policy_text;
mod protected;
mod rejected;
mod responses;
mod scope_text;
mod session;
mod shared_reads;
mod shell;
mod shown_once;
mod sso;
mod state;
mod system;
mod tokens;
mod waiting;
mod webhooks;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

use state::Console;

use crate::api::front::memory::MemoryBudget;
use crate::domain::ledger_key::LedgerKeyError;
use crate::engine::Engine;

/// Memory for forms of people who have logged in, in bytes.
const PEOPLE: usize = 64 * 1024 * 1024;
/// Memory for forms without a session, in bytes.
const STRANGERS: usize = 8 * 1024 * 1024;

/// The API with the console's pages around it.
///
/// # Errors
/// If the library refuses to derive the key of form tokens.
pub fn router(api: Router, engine: Arc<Engine>, is_tls: bool) -> Result<Router, LedgerKeyError> {
    let forms = Arc::new(tokens::FormTokens::new(&engine.ledger_key)?);
    let [people, strangers] = [PEOPLE, STRANGERS].map(MemoryBudget::new);
    let console = Console {
        api: api.clone(),
        engine,
        forms,
        refreshes: Arc::default(),
        reads: Arc::default(),
        people,
        strangers,
        is_tls,
    };
    let open = Router::new()
        .route("/login", get(login::page).post(login::begin))
        .route("/login/first", post(login::first))
        .route("/login/return", get(sso::finish))
        .route("/login/with/{provider}", get(sso::begin))
        .route("/assets/{version}/{name}", get(assets::serve));
    let pages = pages().route_layer(from_fn_with_state(console.clone(), door::require)).merge(open);
    Ok(pages.route_layer(from_fn(page::secure)).with_state(console).fallback_service(api))
}

/// Every page for people who have logged in.
fn pages() -> Router<Console> {
    Router::new()
        .route("/", get(now::list))
        .route("/account", get(account::page))
        .route("/account/codes", get(account::ask_codes).post(account::codes))
        .route("/account/codes/confirm", post(account::confirm_codes))
        .route("/account/codes/remove", get(account::ask_remove_codes).post(account::remove_codes))
        .route("/account/keys/new", get(keys::ask_add_own).post(keys::add_own))
        .route("/account/keys/{id}/revoke", get(keys::ask_revoke_own).post(keys::revoke_own))
        .route("/account/password", get(account::ask_password).post(account::password))
        .route("/agents", get(agents::list))
        .route("/agents/enrol", get(enrolment::ask_enrol).post(enrolment::enrol))
        .route("/agents/tokens/{id}/delete", get(enrolment::ask_delete_token).post(enrolment::delete_token))
        .route("/agents/{id}", get(agents::one))
        .route("/agents/{id}/labels", get(agents::ask_labels).post(agents::labels))
        .route("/agents/{id}/revoke", get(agents::ask_revoke).post(agents::revoke))
        .route("/alerts", get(alerts::list))
        .route("/alerts/rejected", get(rejected::list))
        .route("/alerts/rejected/{id}", get(rejected::one))
        .route("/alerts/rejected/{id}/resend", get(rejected::ask_resend).post(rejected::resend))
        .route("/alerts/{id}", get(alerts::one))
        .route("/audit", get(audit::list))
        .route("/audit/verify", get(audit::verify))
        .route("/people", get(people::list))
        .route("/people/keys", get(keys::list))
        .route("/people/keys/new", get(keys::ask_add).post(keys::add))
        .route("/people/keys/{id}/revoke", get(keys::ask_revoke).post(keys::revoke))
        .route("/people/new", get(people_changes::ask_add).post(people_changes::add))
        .route("/people/{name}/change", get(people_changes::ask_change).post(people_changes::change))
        .route("/people/{name}/delete", get(people_changes::ask_delete).post(people_changes::delete))
        .route("/people/{name}/forget", get(people_changes::ask_forget).post(people_changes::forget))
        .route("/people/{name}/password", get(people_changes::ask_password).post(people_changes::password))
        .route("/policies", get(policies::list))
        .route("/policies/import", get(policy_import::ask).post(policy_import::run))
        .route("/policies/backtest", post(policy_backtest::run))
        .route("/policies/check", post(policy_editor::check))
        .route("/policies/new", get(policy_editor::new).post(policy_editor::create))
        .route("/policies/{name}", get(policies::one))
        .route("/policies/{name}/delete", get(policy_changes::ask_delete).post(policy_changes::delete))
        .route("/policies/{name}/edit", get(policy_editor::edit).post(policy_editor::replace))
        .route("/policies/{name}/mode", get(policy_changes::ask_mode).post(policy_changes::mode))
        .route("/policies/{name}/reset", get(policy_changes::ask_reset).post(policy_changes::reset))
        .route("/policies/{name}/rollback", get(policy_changes::ask_rollback).post(policy_changes::rollback))
        .route("/block", get(block::ask).post(block::act))
        .route("/console/events", get(live::events))
        .route("/freeze", get(freeze::ask).post(freeze::act))
        .route("/integrations", get(integrations::page))
        .route("/integrations/forwarders/{name}/forget", get(integrations::ask_forget).post(integrations::forget))
        .route("/integrations/webhooks/{name}", get(webhooks::one))
        .route("/integrations/webhooks/{name}/replay", get(webhooks::ask_replay).post(webhooks::replay))
        .route("/integrations/webhooks/{name}/test", get(webhooks::ask_test).post(webhooks::test))
        .route("/lift", get(lift::ask).post(lift::act))
        .route("/logout", post(login::end))
        .route("/protected", get(protected::list))
        .route("/protected/add", get(protected::ask).post(protected::add))
        .route("/protected/{id}/remove", get(protected::ask_remove).post(protected::remove))
        .route("/responses", get(responses::list))
        .route("/responses/{id}", get(responses::one))
        .route("/responses/{id}/approve", get(decide::ask_approve).post(decide::approve))
        .route("/responses/{id}/bundle", get(bundle::download))
        .route("/responses/{id}/confirm", get(decide::ask_confirm).post(decide::confirm))
        .route("/responses/{id}/lift", get(decide::ask_lift).post(decide::lift))
        .route("/responses/{id}/reject", get(decide::ask_reject).post(decide::reject))
        .route("/system", get(system::page))
        .route("/system/charts", get(charts::page))
        .route("/targets/{kind}/{value}", get(now::target))
        .route("/waiting", get(waiting::page))
}
