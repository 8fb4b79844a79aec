//! Cost of a login: a session by password, from the request to its tokens. One client, one connection: the
//! bound is what a person waits. `docs/performance.md` says how to read it.

#[expect(dead_code, reason = "each bench uses its part")]
mod load;

use std::time::Instant;

use load::http::Connection;
use load::report::{Samples, Table, begin};
use load::server::Server;
use load::{disk, knob};
use serde_json::json;

/// A password as a person chooses one.
const PASSWORD: &str = "a long walk by the river";

fn main() -> anyhow::Result<()> {
    load::run(bench())
}

async fn bench() -> anyhow::Result<()> {
    begin("logins")?;
    let logins: usize = knob("LOGINS", 100)?;
    let dir = disk()?;
    let server = Server::start(dir.path()).await?;
    let mut connection = Connection::open(&server.door).await?;
    let user = json!({"name": "alice", "role": "analyst", "password": PASSWORD});
    connection.ask("POST", "/v1/users", &server.key, &user).await?;
    let login = json!({"username": "alice", "password": PASSWORD});
    let (mut took_ms, cpu) = (Samples::default(), server.cpu_seconds()?);
    for _ in 0..logins {
        let begun = Instant::now();
        let tokens = connection.ask("POST", "/v1/auth/token", "", &login).await?;
        took_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        anyhow::ensure!(tokens["access_token"].is_string(), "no access token: {tokens}");
    }
    let cpu_ms = (server.cpu_seconds()? - cpu) * 1e3 / load::report::float(logins.max(1));
    let mut table = Table::default();
    table.row("login by password, p50", took_ms.median(), "ms", None, "100", "");
    table.row("login by password, p99", took_ms.quantile(0.99), "ms", None, "", "");
    table.row("  server CPU per login", cpu_ms, "ms", None, "", "");
    table.print();
    server.stop()
}
