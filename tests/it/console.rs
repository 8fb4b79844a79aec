//! The console over HTTP, without a browser: sessions in cookies, forms that only the own page can
//! send, pages that show texts as texts. `tests/browser` drives it in Chromium.

use std::sync::Mutex;

use futures_util::future::join_all;
use reqwest::header::{COOKIE, SET_COOKIE};
use reqwest::redirect::Policy;
use serde_json::{Value, json};

use crate::support::alert::{brute_force, from_agent};
use crate::support::app::PASSWORD;
use crate::support::{Database, TestApp};

/// A browser without scripts: it keeps cookies and follows no redirect by itself.
struct Visitor {
    base: String,
    http: reqwest::Client,
    cookies: Mutex<Vec<(String, String)>>,
}

/// What the console answered.
struct Shown {
    status: u16,
    place: Option<String>,
    policy: String,
    cookies: Vec<String>,
    html: String,
}

impl Visitor {
    fn new(base: &str) -> Self {
        let http = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
        Self { base: base.to_owned(), http, cookies: Mutex::default() }
    }

    async fn logged_in(app: &TestApp, name: &str) -> Self {
        let visitor = Self::new(&app.base);
        let shown = visitor.post("/login", &[("username", name), ("password", PASSWORD), ("next", "/agents")]).await;
        assert_eq!((shown.status, shown.place.as_deref()), (303, Some("/agents")), "{}", shown.html);
        visitor
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Shown {
        let cookies: Vec<String> =
            self.cookies.lock().unwrap().iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = request.header(COOKIE, cookies.join("; ")).send().await.unwrap();
        let text = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let set = answer.headers().get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap().to_owned());
        let set: Vec<String> = set.collect();
        for cookie in &set {
            let (name, rest) = cookie.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            let mut kept = self.cookies.lock().unwrap();
            kept.retain(|(known, _)| known != name);
            if !value.is_empty() {
                kept.push((name.to_owned(), value.to_owned()));
            }
        }
        Shown {
            status: answer.status().as_u16(),
            place: text("location"),
            policy: text("content-security-policy").unwrap_or_default(),
            cookies: set,
            html: answer.text().await.unwrap(),
        }
    }

    async fn get(&self, path: &str) -> Shown {
        self.send(self.http.get(format!("{}{path}", self.base))).await
    }

    /// A page that is open loads itself anew.
    async fn reload(&self, path: &str) -> Shown {
        let shown = self.send(self.http.get(format!("{}{path}", self.base)).header("riposte-reloads", "1")).await;
        assert_eq!(shown.status, 200, "{path}: {}", shown.html);
        shown
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Shown {
        self.send(self.http.post(format!("{}{path}", self.base)).form(fields)).await
    }

    /// Sends a form with the token that the page at `path` carries.
    async fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Shown {
        let token = self.form_token().await;
        self.post(path, &[fields, &[("form_token", token.as_str())]].concat()).await
    }

    async fn form_token(&self) -> String {
        let page = self.get("/account").await.html;
        let (_, rest) = page.split_once("name=\"form_token\" value=\"").expect("no form has a token");
        rest.split('"').next().unwrap().to_owned()
    }
}

on_both_databases! {
    async fn a_person_logs_in_and_out_and_the_session_ends_at_the_manager(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.session(&admin, "anna", "analyst").await;
        let visitor = Visitor::new(&app.base);
        let shown = visitor.get("/agents?name=web").await;
        assert_eq!((shown.status, shown.place.as_deref()), (303, Some("/login?next=%2Fagents%3Fname%3Dweb")));
        let wrong = visitor.post("/login", &[("username", "anna"), ("password", "wrong"), ("next", "/")]).await;
        assert_eq!(wrong.status, 401);
        assert!(wrong.html.contains("the password or the one-time code is wrong") && wrong.cookies.is_empty());
        let away = [("username", "anna"), ("password", PASSWORD), ("next", "https://elsewhere.example/")];
        let shown = visitor.post("/login", &away).await;
        assert_eq!((shown.status, shown.place.as_deref()), (303, Some("/")));
        for cookie in &shown.cookies {
            assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax") && cookie.contains("Path=/"), "{cookie}");
        }
        assert_eq!(shown.cookies.len(), 2);
        assert_eq!(visitor.get("/").await.status, 200);
        let kept = visitor.cookies.lock().unwrap().clone();
        assert_eq!(visitor.submit("/logout", &[]).await.place.as_deref(), Some("/login"));
        assert_eq!(visitor.get("/").await.status, 303);
        // Another copy of the cookies is worth nothing either.
        *visitor.cookies.lock().unwrap() = kept;
        assert_eq!(visitor.get("/").await.place.as_deref(), Some("/login"));
    }

    async fn requests_that_find_the_access_token_expired_share_one_refresh(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.session(&admin, "anna", "analyst").await;
        let visitor = Visitor::logged_in(&app, "anna").await;
        app.advance(16 * 60);
        let (one, other) = tokio::join!(visitor.get("/agents"), visitor.get("/responses"));
        assert_eq!((one.status, other.status), (200, 200));
        assert_eq!(visitor.get("/").await.status, 200);
        assert!(admin.history("user", "anna").await.iter().all(|(_, verb)| verb != "token_reused"));
        // Unused for half a day: the session has ended.
        app.advance(13 * 3600);
        assert_eq!(visitor.get("/").await.place.as_deref(), Some("/login"));
    }

    async fn only_a_form_of_the_own_session_and_site_changes_anything(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.session(&admin, "anna", "analyst").await;
        app.session(&admin, "otto", "analyst").await;
        let (anna, otto) = (Visitor::logged_in(&app, "anna").await, Visitor::logged_in(&app, "otto").await);
        let others = otto.form_token().await;
        let freeze = [("frozen", "true"), ("reason", "forged")];
        assert_eq!(anna.post("/freeze", &freeze).await.status, 403);
        let forged = [&freeze[..], &[("form_token", others.as_str())]].concat();
        assert_eq!(anna.post("/freeze", &forged).await.status, 403);
        let token = anna.form_token().await;
        let own = [&freeze[..], &[("form_token", token.as_str())]].concat();
        for site in ["cross-site", "same-site"] {
            let request = anna.http.post(format!("{}/freeze", app.base)).header("sec-fetch-site", site).form(&own);
            assert_eq!(anna.send(request).await.status, 403, "{site}");
        }
        assert_eq!(admin.get("/v1/freeze").await.is(200)["frozen"], false);
        let request = anna.http.post(format!("{}/freeze", app.base)).header("sec-fetch-site", "same-origin").form(&own);
        assert_eq!(anna.send(request).await.status, 303);
        assert_eq!(admin.get("/v1/freeze").await.is(200)["last_change"]["reason"], "forged");
        let page = anna.get("/").await.html;
        assert!(page.contains("Frozen.") && page.contains("Frozen: no command but a revert"), "{page}");
        assert!(!anna.get("/").await.html.contains("Frozen: no command but a revert"), "what was done is said once");
    }

    async fn what_was_typed_before_the_session_ended_is_kept_and_sent_after_the_login(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.session(&admin, "erik", "engineer").await;
        let visitor = Visitor::new(&app.base);
        let typed = [("kind", "ip"), ("value", "192.0.2.7"), ("seen", "yes"), ("reason", "\"><script>x</script>")];
        let shown = visitor.post("/protected/add", &typed).await;
        assert_eq!(shown.status, 401);
        assert!(shown.html.contains("name=\"kept.reason\" value=\"&#34;&#62;&#60;script&#62;"), "{}", shown.html);
        assert!(!shown.html.contains("kept.seen"), "the plan is shown once more");
        assert!(admin.list("/v1/protected").await.is_empty());
        let request = visitor.http.post(format!("{}/protected/add", app.base)).header("origin", "https://elsewhere.example");
        let foreign = visitor.send(request.form(&typed)).await;
        assert!(foreign.status == 403 && !foreign.html.contains("kept."), "a form of another site is kept");
        let mut login = vec![("username", "erik"), ("password", PASSWORD), ("next", "/protected/add")];
        login.extend([("kept.kind", "ip"), ("kept.value", "192.0.2.7"), ("kept.reason", "typed")]);
        let page = visitor.post("/login", &login).await;
        assert_eq!(page.status, 200);
        assert!(page.html.contains("action=\"/protected/add\"") && page.html.contains("Nothing was changed"));
        let again = [("kind", "ip"), ("value", "192.0.2.7"), ("seen", "yes"), ("reason", "typed")];
        assert_eq!(visitor.submit("/protected/add", &again).await.place.as_deref(), Some("/protected"));
        assert_eq!(admin.list("/v1/protected").await[0]["reason"], "typed");
    }

    async fn a_lift_ends_the_responses_of_its_plan_and_no_later_one(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.session(&admin, "anna", "analyst").await;
        app.enrol(&admin, "web-01", &json!({})).await;
        let block = |reason: &str| json!({"action": "log-only", "target": {"kind": "ip", "value": "203.0.113.9"},
            "agents": ["web-01"], "for": "1h", "reason": reason});
        let first = admin.post("/v1/responses", &block("first")).await.is(201);
        let first = first["id"].as_str().unwrap();
        let visitor = Visitor::logged_in(&app, "anna").await;
        let plan = visitor.get("/lift?target=203.0.113.9").await.html;
        let named = format!("name=\"response\" value=\"{first}\"");
        assert!(plan.contains("1 active response") && plan.contains(&named), "{plan}");
        admin.post("/v1/responses", &block("second, after the plan")).await.is(201);
        let form = [("target", "203.0.113.9"), ("count", "1"), ("response", first)];
        let refused = visitor.submit("/lift", &[&form[..], &[("reason", " ")]].concat()).await;
        assert_eq!(refused.status, 422);
        assert!(refused.html.contains("Nothing was changed"), "{}", refused.html);
        assert_eq!(admin.list("/v1/responses?state=active").await.len(), 2);
        let done = visitor.submit("/lift", &[&form[..], &[("reason", "false alarm")]].concat()).await;
        assert_eq!(done.place.as_deref(), Some("/"));
        let active = admin.list("/v1/responses?state=active").await;
        assert_eq!((active.len(), &active[0]["note"]), (1, &json!("second, after the plan")));
        // Without the ids, as for very many responses, the number must fit.
        let form = [("target", "203.0.113.9"), ("count", "2"), ("reason", "false alarm")];
        let refused = visitor.submit("/lift", &form).await;
        assert!(refused.status >= 400 && refused.html.contains(">false alarm</textarea>"), "{}", refused.html);
        assert_eq!(admin.list("/v1/responses?state=active").await.len(), 1);
    }

    /// Lists are shared between people of one sight, and never older than the question.
    async fn open_pages_that_reload_share_lists_and_show_all_that_was_before_they_asked(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        for (name, role) in [("anna", "analyst"), ("boris", "analyst"), ("vera", "viewer")] {
            app.session(&admin, name, role).await;
        }
        let limited = json!({"name": "linus", "role": "analyst", "password": PASSWORD, "scope": {"agents": {"labels": {"env": "dev"}}}});
        admin.post("/v1/users", &limited).await.is(201);
        app.enrol(&admin, "web-01", &json!({})).await;
        let people = [
            Visitor::logged_in(&app, "anna").await,
            Visitor::logged_in(&app, "boris").await,
            Visitor::logged_in(&app, "vera").await,
            Visitor::logged_in(&app, "linus").await,
        ];
        for last in 1..=4 {
            let target = format!("203.0.113.{last}");
            let block = json!({"action": "log-only", "target": {"kind": "ip", "value": target},
                "agents": ["web-01"], "for": "1h", "reason": "x"});
            admin.post("/v1/responses", &block).await.is(201);
            let pages = join_all(people.iter().map(|visitor| visitor.reload("/"))).await;
            let shown: Vec<bool> = pages.iter().map(|page| page.html.contains(&target)).collect();
            // One who is limited to other agents does not get it from another's answer.
            assert_eq!(shown, [true, true, true, false], "{target}");
            let buttons: Vec<bool> = pages.iter().map(|page| page.html.contains("Lift…")).collect();
            assert_eq!(buttons, [true, true, false, false], "{target}");
        }
        let active = admin.list("/v1/responses?state=active").await;
        let path = format!("/responses/{}/lift", active[0]["id"].as_str().unwrap());
        assert_eq!(people[0].submit(&path, &[("reason", "false alarm")]).await.status, 303);
        let now = people[0].reload("/").await.html;
        assert!(!now.contains("ip:203.0.113.4"), "what a person did shows at once: {now}");
    }

    async fn a_stale_form_about_a_person_shows_all_that_is_true_now(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.session(&admin, "root", "admin").await;
        app.person(&admin, "vera", "viewer").await;
        let visitor = Visitor::logged_in(&app, "root").await;
        let version = |html: &str| {
            let (_, rest) = html.split_once("name=\"version\" value=\"").unwrap();
            rest.split_once('"').unwrap().0.to_owned()
        };
        let stale = version(&visitor.get("/people/vera/change").await.html);
        let form = |version: &str, role: &str, disabled: &str, scope: &str| {
            [("version", version), ("role", role), ("disabled", disabled), ("scope", scope)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        let limits = r#"{"policies":["ssh-*"]}"#;
        let send = async |fields: [(String, String); 4]| {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            visitor.submit("/people/vera/change", &fields).await
        };
        assert_eq!(send(form(&stale, "analyst", "yes", limits)).await.place.as_deref(), Some("/people"));
        let refused = send(form(&stale, "engineer", "no", "")).await;
        assert_eq!(refused.status, 412, "{}", refused.html);
        for now in ["analyst", "disabled: cannot log in", "ssh-*"] {
            assert!(refused.html.contains(now), "{now}: {}", refused.html);
        }
        assert!(refused.html.contains("value=\"engineer\" selected"), "what was chosen stays: {}", refused.html);
    }

    async fn a_lift_of_selected_rows_is_of_their_kind(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.session(&admin, "anna", "analyst").await;
        app.enrol(&admin, "web-01", &json!({})).await;
        let block = json!({"action": "log-only", "target": {"kind": "user", "value": "alice"},
            "agents": ["web-01"], "for": "1h", "reason": "x"});
        admin.post("/v1/responses", &block).await.is(201);
        let visitor = Visitor::logged_in(&app, "anna").await;
        let now = visitor.get("/").await.html;
        assert!(now.contains("value=\"user:alice\""), "{now}");
        for (targets, count) in [
            ("target=user:alice", "1 active response"),
            ("target=user:alice&target=ip:203.0.113.9", "1 active response"),
            ("target=alice", "1 active response"),
            ("target=file:alice", "0 active responses"),
            ("target=file:alice&target=ip:203.0.113.9", "0 active responses"),
        ] {
            let plan = visitor.get(&format!("/lift?{targets}")).await.html;
            assert!(plan.contains(count), "{targets}: {plan}");
        }
        let form = [("target", "user:alice"), ("count", "1"), ("reason", "false alarm")];
        assert_eq!(visitor.submit("/lift", &form).await.place.as_deref(), Some("/"));
        assert_eq!(admin.list("/v1/responses?state=active").await, Vec::<Value>::new());
    }
}

/// Pages that every person may read.
const PAGES: [&str; 13] = [
    "/",
    "/waiting",
    "/responses",
    "/alerts",
    "/alerts/rejected",
    "/policies",
    "/agents",
    "/protected",
    "/integrations",
    "/audit",
    "/system",
    "/system/charts",
    "/account",
];

#[tokio::test]
async fn a_viewer_reads_every_page_and_is_offered_no_change() {
    let (app, admin) = TestApp::start().await;
    app.session(&admin, "vera", "viewer").await;
    let agent = app.enrol(&admin, "web-01", &json!({})).await;
    admin
        .policy(&json!({"name": "block", "match": [{"rule_ids": ["5763"]}],
        "respond": {"action": "log-only", "target": "source.ip", "for": "1h"}}))
        .await;
    admin.post("/v1/alerts", &from_agent(brute_force("1", "203.0.113.7"), "001", "web-01")).await.is(202);
    agent.obey().await;
    let visitor = Visitor::logged_in(&app, "vera").await;
    for page in PAGES {
        let shown = visitor.get(page).await;
        assert_eq!(shown.status, 200, "{page}");
        // Logging out and the own password are the only forms that post.
        let posts = shown.html.matches("method=\"post\"").count() - shown.html.matches("action=\"/logout\"").count();
        assert!(posts == 0 || page == "/account", "{page} offers a form");
        for word in ["Lift…", "Freeze…", "Block by hand…", "Protect…", "Enrol agents…", "New policy", "Revoke…"]
        {
            assert!(!shown.html.contains(word), "{page} offers {word}");
        }
    }
    assert_eq!(visitor.get("/people").await.status, 403);
    for (path, fields) in [
        ("/freeze", vec![("frozen", "true"), ("reason", "x")]),
        ("/protected/add", vec![("kind", "ip"), ("value", "192.0.2.1"), ("seen", "yes"), ("reason", "x")]),
        ("/block", vec![("action", "log-only"), ("agents", "web-01"), ("seen", "yes"), ("reason", "x")]),
        ("/agents/enrol", vec![("uses", "1"), ("expires_in", "1h")]),
    ] {
        assert_eq!(visitor.submit(path, &fields).await.status, 403, "{path}");
    }
    assert_eq!(admin.get("/v1/freeze").await.is(200)["frozen"], false);
    assert!(admin.list("/v1/protected").await.is_empty());
}

#[tokio::test]
async fn texts_of_strangers_are_shown_as_texts_under_a_policy_that_runs_no_script() {
    const HOSTILE: &str = "\"'><img src=x onerror=alert(1)><script>alert(1)</script>\u{1b}[31m";
    let (app, admin) = TestApp::start().await;
    app.session(&admin, "root", "admin").await;
    app.enrol(&admin, "web-01", &json!({})).await;
    admin
        .policy(&json!({"name": "block", "match": [{"rule_ids": ["5763"]}],
        "respond": {"action": "log-only", "target": "source.ip", "for": "1h"}}))
        .await;
    let mut alert = from_agent(brute_force("1", "203.0.113.7"), "001", "web-01");
    alert["rule"]["description"] = json!(HOSTILE);
    alert["data"]["dstuser"] = json!(HOSTILE);
    alert["full_log"] = json!(HOSTILE);
    admin.post("/v1/alerts", &alert).await.is(202);
    let stored = admin.list("/v1/alerts").await[0]["id"].as_str().unwrap().to_owned();
    let response = admin.list("/v1/responses").await[0]["id"].as_str().unwrap().to_owned();
    let visitor = Visitor::logged_in(&app, "root").await;
    let pages = [
        "/".to_owned(),
        "/alerts".to_owned(),
        format!("/alerts/{stored}"),
        format!("/responses/{response}"),
        "/targets/ip/203.0.113.7".to_owned(),
        "/policies/block".to_owned(),
    ];
    let mut nonces = Vec::new();
    for page in &pages {
        let shown = visitor.get(page).await;
        assert_eq!(shown.status, 200, "{page}");
        assert!(!shown.html.contains("<img") && !shown.html.contains("<script>alert"), "{page}");
        assert!(!shown.html.contains('\u{1b}'), "{page} passes a terminal escape on");
        assert!(shown.policy.starts_with("default-src 'none'; script-src 'nonce-"), "{page}: {}", shown.policy);
        nonces.push(shown.policy);
    }
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), pages.len(), "a nonce was used twice");
    for odd in
        ["/targets/ip/%3Cscript%3E", "/responses/%22%3E%3Cscript%3E", "/agents/..%2F..%2Fv1%2Fusers", "/alerts/x"]
    {
        let shown = visitor.get(odd).await;
        assert!((400..500).contains(&shown.status), "{odd}: {}", shown.status);
        assert!(!shown.html.contains("<script>"), "{odd}");
    }
}

#[tokio::test]
async fn a_page_hears_of_events_in_batches_and_goes_on_from_the_last() {
    let (app, admin) = TestApp::start().await;
    app.session(&admin, "anna", "analyst").await;
    let visitor = Visitor::logged_in(&app, "anna").await;
    let cookie = visitor
        .cookies
        .lock()
        .unwrap()
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join("; ");
    let open = async |last: Option<&str>| {
        let mut request =
            visitor.http.get(format!("{}/console/events?type=freeze.*", app.base)).header(COOKIE, &cookie);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        request.send().await.unwrap()
    };
    let mut stream = open(None).await;
    assert_eq!(
        (stream.status().as_u16(), &stream.headers()["content-type"]),
        (200, &reqwest::header::HeaderValue::from_static("text/event-stream"))
    );
    let freeze = |frozen: bool| json!({"frozen": frozen, "reason": "test"});
    admin.put("/v1/freeze", &freeze(true), None).await.is(200);
    let mut seen = String::new();
    while !seen.contains("event: changed\ndata: 1\n\n") {
        seen.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().expect("the stream ended")).unwrap());
    }
    assert!(!seen.contains("freeze"), "only that something changed is said: {seen}");
    let last = seen.lines().rfind(|line| line.starts_with("id:")).unwrap()[3..].trim().to_owned();
    drop(stream);
    admin.put("/v1/freeze", &freeze(false), None).await.is(200);
    let mut stream = open(Some(&last)).await;
    let mut seen = String::new();
    while !seen.contains("event: changed") {
        seen.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().expect("the stream ended")).unwrap());
    }
    assert_eq!(Visitor::new(&app.base).get("/console/events?type=freeze.*").await.status, 303);
}
