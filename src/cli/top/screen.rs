//! The terminal: its alternate screen and its keys. It is as it was before when [`Screen`] is dropped, and before the
//! message of a panic is printed.

use std::time::Duration;

use anyhow::Context as _;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver};

use super::look::TopState;
use super::view::{Palette, draw};
use crate::cli::output::set_screen;

/// Longest wait for a key, after which the reader looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(200);
/// Keys that wait; further ones wait in the terminal.
const WAITING: usize = 16;

/// What a person pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// q, Esc or Ctrl-C, or a signal to end.
    Quit,
    /// Another one, or the terminal has another size.
    Other,
}

/// The terminal while it is ours.
pub struct Screen {
    terminal: DefaultTerminal,
    keys: Receiver<Key>,
    end: Signal,
    palette: Palette,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// If it is no terminal that can be set up.
    pub fn open() -> anyhow::Result<Self> {
        let end = signal(SignalKind::terminate())?;
        // It also restores the terminal before the message of a panic.
        let terminal = ratatui::try_init().context("cannot set up the terminal")?;
        set_screen(true);
        let (sender, keys) = mpsc::channel(WAITING);
        // Reading a terminal blocks, so it is a blocking task; it ends with the receiver.
        tokio::task::spawn_blocking(move || {
            while !sender.is_closed() {
                let key = match event::poll(LOOK) {
                    Ok(false) => continue,
                    Ok(true) => event::read().map(|event| meaning(&event)),
                    Err(error) => Err(error),
                };
                // A terminal that is gone ends it.
                let (key, is_gone) = key.map_or((Key::Quit, true), |key| (key, false));
                if sender.blocking_send(key).is_err() || is_gone {
                    return;
                }
            }
        });
        let has_colours = std::env::var_os("NO_COLOR").is_none_or(|word| word.is_empty());
        Ok(Self { terminal, keys, end, palette: Palette::of(has_colours) })
    }

    /// Draws one look.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn draw(&mut self, state: &TopState) -> anyhow::Result<()> {
        let palette = self.palette;
        self.terminal.draw(|frame| draw(frame, state, palette)).context("cannot write to the terminal")?;
        Ok(())
    }

    /// The next key. May be cancelled.
    pub async fn key(&mut self) -> Key {
        tokio::select! {
            key = self.keys.recv() => key.unwrap_or(Key::Quit),
            _ = self.end.recv() => Key::Quit,
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
        set_screen(false);
    }
}

fn meaning(event: &Event) -> Key {
    match event {
        Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => Key::Quit,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
            _ => Key::Other,
        },
        _ => Key::Other,
    }
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn q_escape_and_ctrl_c_quit() {
        let key = |code, modifiers| meaning(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Key::Quit);
        assert_eq!(key(KeyCode::Esc, KeyModifiers::NONE), Key::Quit);
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Key::Quit);
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), Key::Other);
        assert_eq!(meaning(&Event::Resize(80, 24)), Key::Other);
    }
}
