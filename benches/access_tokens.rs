//! Cost of checking an access token: at its first request, where the signature is verified, and at
//! each further one, where the token is remembered. `docs/performance.md` says how to read it.

#[expect(dead_code, unused_imports, reason = "each bench uses its part")]
mod load;

use std::hint::black_box;
use std::time::{Duration, Instant};

use load::knob;
use load::report::{Samples, Table, begin, float};
use riposte::engine::access_tokens::AccessTokens;
use riposte_protocol::key::SigningKey;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

/// Sessions that make requests in turn.
const SESSIONS: usize = 1000;

fn main() -> anyhow::Result<()> {
    begin("access_tokens")?;
    let rounds: usize = knob("ROUNDS", 15)?;
    let (root, now) = (SigningKey::from_seed(&[7; 32])?, Timestamp::from_millis(1_795_514_400_000));
    let issuer = AccessTokens::new(root.clone(), None, now)?;
    let until = now.plus(Duration::from_hours(1));
    let issue = |_| issuer.issue("alice", "read respond", Uuid::from_u128(7), until, now).map(|(token, _)| token);
    let tokens: Vec<String> = (0..SESSIONS).map(issue).collect::<Result<_, _>>()?;
    let (mut first, mut again) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        let checker = AccessTokens::new(root.clone(), None, now)?;
        for samples in [&mut first, &mut again] {
            let begun = Instant::now();
            for token in &tokens {
                black_box(checker.verify(token, now)?);
            }
            samples.push(begun.elapsed().as_secs_f64() * 1e6 / float(SESSIONS));
        }
    }
    let mut table = Table::default();
    table.row("access token, first request", first.median(), "µs", None, "", "");
    table.row("access token, further requests", again.median(), "µs", None, "20", "");
    table.print();
    Ok(())
}
