//! What the tests build on: the real manager on a port of its own with a clock that the test moves
//! ([`app`]), clients ([`client`]), an agent that the test plays ([`agent`]), both databases
//! ([`database`]), alerts ([`alert`]), an OpenID provider with a browser ([`openid`]), and a client
//! that follows events ([`follower`]).

pub(crate) mod agent;
pub(crate) mod alert;
pub(crate) mod app;
pub(crate) mod client;
pub(crate) mod database;
pub(crate) mod follower;
pub(crate) mod openid;
pub(crate) mod receiver;
pub(crate) mod siem;

use std::future::Future;
use std::time::Duration;

pub(crate) use agent::FakeAgent;
pub(crate) use app::TestApp;
pub(crate) use client::{Answer, Client};
pub(crate) use database::Database;
pub(crate) use follower::{Follower, Told};

/// Deadline of every wait: a longer one means a fault.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Interval between two looks.
const GLANCE: Duration = Duration::from_millis(5);

/// Looks until there is a value.
///
/// # Panics
/// After [`PATIENCE`].
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(GLANCE).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, looking).await;
    seen.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain until {what}"))
}

/// Makes two tests of one: on SQLite and on PostgreSQL.
macro_rules! on_both_databases {
    ($($(#[$doc:meta])* async fn $name:ident($database:ident: Database) $body:block)*) => {
        $(
            $(#[$doc])*
            mod $name {
                use super::*;

                async fn check($database: Database) $body

                #[tokio::test]
                async fn on_sqlite() {
                    check(Database::sqlite()).await;
                }

                #[tokio::test]
                async fn on_postgresql() {
                    check(Database::postgresql().await).await;
                }
            }
        )*
    };
}
