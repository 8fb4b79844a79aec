//! Draws one look. Every cell comes from outside and goes through [`plain`].

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Sparkline, Table};

use super::look::TopState;
use super::text::sums;
use crate::cli::terminal::plain;

/// What `NO_COLOR` leaves: bold type. Words say everything that colours do.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    bad: Style,
    quiet: Style,
}

impl Palette {
    /// With colours or without.
    pub const fn of(has_colours: bool) -> Self {
        let strong = Style::new().add_modifier(Modifier::BOLD);
        if has_colours {
            Self { bad: strong.fg(Color::Red), quiet: Style::new().fg(Color::DarkGray) }
        } else {
            Self { bad: strong, quiet: Style::new() }
        }
    }
}

/// Draws the screen.
pub fn draw(frame: &mut Frame<'_>, state: &TopState, palette: Palette) {
    let [head, rates, waiting, failing, agents] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(5),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
    ])
    .areas(frame.area());
    frame.render_widget(title(state, palette), head);
    draw_rates(frame, rates, state, palette);
    let rows = state.waiting.iter().map(<[String; 3]>::as_slice);
    list(frame, waiting, (&format!("wait for approval: {}", state.waits), palette), &["what", "by", "lapses"], rows);
    let rows = state.failing.iter().map(<[String; 4]>::as_slice);
    list(frame, failing, (&format!("undo fails: {}", state.fails), palette), &["agent", "what", "failed", "why"], rows);
    let away = format!("agents away: {} of {}", state.agents.away, state.agents.enrolled);
    list(
        frame,
        agents,
        (&away, palette),
        &["agent", "last here"],
        state.agents.rows.iter().map(<[String; 2]>::as_slice),
    );
}

fn title<'a>(state: &TopState, palette: Palette) -> Line<'a> {
    let mut spans = vec![Span::raw(format!("riposte top  {}  ", state.at))];
    if let Some(why) = &state.lost {
        spans.push(Span::styled(plain(&format!("NO CONNECTION, tries again: {why}  ")), palette.bad));
    }
    if !state.frozen.is_empty() {
        spans.push(Span::styled(format!("{}  ", state.frozen), palette.bad));
    }
    spans.push(Span::styled("q quits", palette.quiet));
    Line::from(spans)
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, state: &TopState, palette: Palette) {
    let Some(rates) = &state.rates else {
        let block = Block::new().borders(Borders::TOP).title("rates");
        frame.render_widget(Paragraph::new("need an unlimited scope").block(block), area);
        return;
    };
    let areas: [Rect; 3] = Layout::horizontal([Constraint::Fill(1); 3]).areas(area);
    for ((name, now, hour), (steps, area)) in
        sums(rates).into_iter().zip([&rates.alerts, &rates.responses].into_iter().zip(areas))
    {
        let block = Block::new().borders(Borders::TOP).title(format!("{name}: {now} in 5 min, {hour} in 1 h"));
        frame.render_widget(Sparkline::default().data(steps).block(block), area);
    }
    let lines: Vec<Line<'_>> = rates
        .failures
        .iter()
        .map(|(action, state, count)| Line::styled(plain(&format!("{count} {action} {state}")), palette.bad))
        .collect();
    let title = if lines.is_empty() { "no command failed in 1 h" } else { "failed in 1 h" };
    frame.render_widget(Paragraph::new(lines).block(Block::new().borders(Borders::TOP).title(title)), areas[2]);
}

fn list<'a>(
    frame: &mut Frame<'_>,
    area: Rect,
    (title, palette): (&str, Palette),
    head: &[&str],
    rows: impl Iterator<Item = &'a [String]>,
) {
    let block = Block::new().borders(Borders::TOP).title(title.to_owned());
    let rows: Vec<Row<'_>> = rows.map(|row| Row::new(row.iter().map(|cell| plain(cell)))).collect();
    let columns = vec![Constraint::Fill(1); head.len()];
    let table = Table::new(rows, columns).block(block);
    let head = Row::new(head.iter().map(|word| (*word).to_owned())).style(palette.quiet);
    frame.render_widget(table.header(head), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::look::tests::state;
    use super::*;

    fn drawn(state: &TopState, (columns, rows): (u16, u16)) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| draw(frame, state, Palette::of(false))).unwrap();
        terminal
    }

    #[test]
    fn the_screen_shows_hostile_names_as_text() {
        let terminal = drawn(&state(), (110, 22));
        let cells = terminal.backend().buffer().content();
        assert!(cells.iter().all(|cell| !cell.symbol().chars().any(riposte_protocol::visible::is_hidden)));
        insta::assert_snapshot!(terminal.backend());
    }

    #[test]
    fn a_lost_connection_is_said_and_a_small_terminal_is_no_trouble() {
        let state = TopState { lost: Some("no manager answers".into()), rates: None, frozen: String::new(), ..state() };
        let shown = drawn(&state, (100, 12)).backend().to_string();
        assert!(shown.contains("NO CONNECTION, tries again: no manager answers"), "{shown}");
        assert!(shown.contains("need an unlimited scope"), "{shown}");
        for size in [(1, 1), (20, 3), (400, 2)] {
            drawn(&state, size);
        }
    }
}
