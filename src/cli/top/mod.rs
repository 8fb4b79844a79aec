//! `riposte top`: what a manager does now, on one screen that looks again every 2 seconds: rates, what waits, undo that
//! fails, agents that are away. `look.rs` asks the manager, `view.rs` draws, `screen.rs` owns the terminal. Elsewhere than
//! at a terminal it prints the same once, as text.

pub mod look;
pub mod screen;
pub mod text;
pub mod view;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::client::Remote;
use super::output::say;
use super::terminal::plain;
use look::{TopAgents, TopState};
use screen::{Key, Screen};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// Looks between two of the list of agents, which is long in a large fleet.
const AGENTS_EVERY: u32 = 5;

/// Which manager.
#[derive(Debug, Args)]
pub struct TopArgs {
    #[command(flatten)]
    remote: Remote,
}

/// `riposte top`
///
/// # Errors
/// If the manager cannot be asked at the beginning, or the terminal cannot be set up.
pub async fn run(args: TopArgs) -> anyhow::Result<ExitCode> {
    let TopArgs { remote } = args;
    let agents = TopAgents::of(&remote).await?;
    let state = TopState::of(&remote, agents).await?;
    if std::io::stdout().is_terminal() {
        watch(&remote, state).await?;
    } else {
        for line in text::lines(&state) {
            say(&plain(&line));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows and looks until a key or a signal ends it.
async fn watch(remote: &Remote, mut state: TopState) -> anyhow::Result<()> {
    let mut screen = Screen::open()?;
    for number in 1_u32.. {
        let mut rest = std::pin::pin!(tokio::time::sleep(EVERY));
        loop {
            screen.draw(&state)?;
            tokio::select! {
                () = &mut rest => break,
                key = screen.key() => if key == Key::Quit { return Ok(()) },
            }
        }
        let agents = if number.is_multiple_of(AGENTS_EVERY) { None } else { Some(state.agents.clone()) };
        let looked = async {
            let agents = match agents {
                Some(known) => known,
                None => TopAgents::of(remote).await?,
            };
            TopState::of(remote, agents).await
        };
        let mut looked = std::pin::pin!(looked);
        // A manager that hangs does not make the keys hang.
        let next = loop {
            tokio::select! {
                next = &mut looked => break next,
                key = screen.key() => match key {
                    Key::Quit => return Ok(()),
                    Key::Other => screen.draw(&state)?,
                },
            }
        };
        match next {
            Ok(next) => state = next,
            // What was seen last stays, and says how old it is.
            Err(error) => state.lost = Some(format!("{error:#}")),
        }
    }
    Ok(())
}
