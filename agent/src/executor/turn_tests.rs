//! The order in which a lane executes commands that wait at the same time.

use riposte_protocol::command::{Command, Op};

use super::tests::{Bench, Fake, command, held, received};
use crate::journal::Record;

/// The order in which the lane of the action `a` executes these commands, which all wait when it
/// starts.
async fn order_of(before: Vec<Record>, commands: &[Command]) -> Vec<String> {
    let fake = Fake::new("a");
    let records = before.into_iter().chain(commands.iter().map(received)).collect();
    let bench = Bench::new(&[fake], records, false);
    bench.until(|state| state.pending().next().is_none().then_some(())).await;
    fake.log()
}

fn urgent(command: Command) -> Command {
    Command { urgent: true, ..command }
}

#[tokio::test(start_paused = true)]
async fn urgent_commands_go_first_and_reverts_go_before_applies() {
    let commands = [
        command(1, Op::Apply, "a", "alice", None),
        command(2, Op::Apply, "a", "bob", None),
        command(3, Op::Revert, "a", "carol", None),
        urgent(command(4, Op::Apply, "a", "dave", None)),
    ];
    let order = order_of(vec![held(&command(0, Op::Apply, "a", "carol", None))], &commands).await;
    assert_eq!(order, ["apply dave", "revert carol to false", "apply alice", "apply bob"]);
}

#[tokio::test(start_paused = true)]
async fn promise_4_what_is_urgent_takes_the_earlier_commands_of_its_effect_along() {
    let commands = [
        command(1, Op::Apply, "a", "alice", None),
        command(2, Op::Apply, "a", "bob", None),
        command(3, Op::Revert, "a", "bob", None),
        urgent(command(4, Op::Apply, "a", "bob", None)),
    ];
    let order = order_of(vec![], &commands).await;
    assert_eq!(order, ["apply bob", "revert bob to false", "apply bob", "apply alice"]);
}

#[tokio::test(start_paused = true)]
async fn an_overdue_revert_goes_before_everything_even_urgent_commands() {
    let overdue =
        vec![held(&command(0, Op::Apply, "a", "carol", Some(0))), held(&command(0, Op::Apply, "a", "alice", None))];
    let commands = [command(1, Op::Revert, "a", "alice", None), urgent(command(2, Op::Apply, "a", "dave", None))];
    assert_eq!(order_of(overdue, &commands).await, ["revert carol to false", "apply dave", "revert alice to false"]);
}
