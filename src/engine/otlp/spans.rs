//! Spans: what an alert, its responses, their commands and their undo took. Each kind has one function
//! that makes spans of what the ledger says. A span's parent is named by the rules of `domain/trace.rs`,
//! whether it was exported yet, by another manager, or not at all.
//!
//! Spans have ids, names and states. Values of targets and output of agents stay in the ledger.

use riposte_protocol::command::Op;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::wire::{Value, WireMessage, attribute, nanos, resource, scope};
use crate::domain::audit::AuditEvent;
use crate::domain::command::CommandState;
use crate::domain::trace::{SpanId, Trace, TraceId, span_id};
use crate::store::ledger::trace_queue::TracedIntake;
use crate::store::ledger::traces::{TracedCommand, TracedResponse};

/// Kinds of spans, by which their ids are derived.
const ALERT: &str = "alert";
const DECIDE: &str = "decide";
const COMMIT: &str = "commit";
const RESPONSE: &str = "response";
const COMMAND: &str = "command";
const UNDO: &str = "undo";

/// `SpanKind` of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpanKind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// One span.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TraceSpan {
    trace: TraceId,
    id: SpanId,
    parent: Option<SpanId>,
    name: String,
    kind: SpanKind,
    /// In nanoseconds since the epoch.
    start: u64,
    end: u64,
    attributes: Vec<(&'static str, Value)>,
    events: Vec<(&'static str, u64)>,
    /// Why it did not succeed, if it did not.
    fault: Option<&'static str>,
}

impl TraceSpan {
    fn new(trace: &Trace, (kind, about): (&str, Uuid), parent: Option<SpanId>, name: String) -> Self {
        let (id, attributes, events) = (span_id(kind, about), Vec::new(), Vec::new());
        let kind = SpanKind::Internal;
        Self { trace: trace.id, id, parent, name, kind, start: 0, end: 0, attributes, events, fault: None }
    }

    /// From `start` to `end`. Clocks of two managers may differ: no span ends before it begins.
    fn lasting(self, start: u64, end: u64) -> Self {
        Self { start, end: end.max(start), ..self }
    }

    fn with(mut self, key: &'static str, value: Option<Value>) -> Self {
        self.attributes.extend(value.map(|value| (key, value)));
        self
    }

    fn text(self, key: &'static str, text: Option<impl Into<String>>) -> Self {
        self.with(key, text.map(|text| Value::Text(text.into())))
    }

    fn encode(&self) -> WireMessage {
        let message = WireMessage::default().bytes(1, &self.trace).bytes(2, &self.id);
        let message = match &self.parent {
            Some(parent) => message.bytes(4, parent),
            None => message,
        };
        let message = message.bytes(5, self.name.as_bytes()).number(6, self.kind as u64);
        let message = message.fixed(7, self.start).fixed(8, self.end);
        let message = message.messages(9, &self.attributes, |(key, value)| attribute((key, value)));
        let event = |(name, at): &(&str, u64)| WireMessage::default().fixed(1, *at).bytes(2, name.as_bytes());
        let message = message.messages(11, &self.events, event);
        match self.fault {
            // `Status`: an error, with its reason.
            Some(fault) => message.message(15, &WireMessage::default().bytes(2, fault.as_bytes()).number(3, 2)),
            None => message,
        }
    }
}

/// `ExportTraceServiceRequest` of `spans` that the manager `node` made.
pub(super) fn request(node: &str, spans: &[TraceSpan]) -> Vec<u8> {
    let spans = WireMessage::default().message(1, &scope()).messages(2, spans, TraceSpan::encode);
    let of_resource = WireMessage::default().message(1, &resource(node)).message(2, &spans);
    WireMessage::default().message(1, &of_resource).done()
}

/// The spans of an intake, three for each alert that got responses: the alert, and how long it took to
/// decide it and to make it durable.
pub(super) fn of_intake(intake: &TracedIntake, millionths: u32) -> Vec<TraceSpan> {
    let TracedIntake { alerts, trace, received, decided, committed } = intake;
    let mut spans = Vec::new();
    for alert in alerts {
        let trace = Trace::of(trace.as_deref(), *alert);
        if !trace.is_recorded(millionths) {
            continue;
        }
        let about = |kind: &str, parent, name: &str| TraceSpan::new(&trace, (kind, *alert), parent, name.to_owned());
        let (id, whole) = (alert.to_string(), about(ALERT, trace.caller, "alert").lasting(*received, *committed));
        let parent = Some(whole.id);
        spans.push(TraceSpan { kind: SpanKind::Server, ..whole }.text("riposte.alert.id", Some(id)));
        spans.push(about(DECIDE, parent, "decide").lasting(*received, *decided));
        spans.push(about(COMMIT, parent, "commit").lasting(*decided, *committed));
    }
    spans
}

/// The span of a change of a response: `response` from the decision until it acts, or is known not to;
/// `undo` when it ends. `None` if it is not recorded.
pub(super) fn of_response(
    row: &TracedResponse,
    event: AuditEvent,
    when: Timestamp,
    millionths: u32,
) -> Option<TraceSpan> {
    let (id, trace, alert) = identity(&row.id, row.alert_id.as_deref(), row.trace.as_deref())?;
    if !trace.is_recorded(millionths) {
        return None;
    }
    let parent = alert.map(|alert| span_id(ALERT, alert)).or(trace.caller);
    let what = row.policy.as_deref().unwrap_or("by hand");
    let span = if event == AuditEvent::ResponseEnded {
        let name = format!("undo {what}");
        TraceSpan::new(&trace, (UNDO, id), Some(span_id(RESPONSE, id)), name).lasting(nanos(when), nanos(when))
    } else {
        let name = format!("response {what}");
        TraceSpan::new(&trace, (RESPONSE, id), parent, name).lasting(at(row.created_at), nanos(when))
    };
    let span = span.text("riposte.response.id", Some(row.id.as_str())).text("riposte.policy", row.policy.as_deref());
    let span = span.text("riposte.action", Some(row.action.as_str()));
    let span = span.text("riposte.target.kind", row.target_kind.as_deref());
    Some(span.text("riposte.change", Some(event.verb())).text("riposte.reason", row.reason.as_deref()))
}

/// The span of a command that is over, from its queueing to its result, with what happened between as
/// events. A revert is part of the undo. `None` if it is not recorded.
pub(super) fn of_command(row: &TracedCommand, agent: Option<String>, millionths: u32) -> Option<TraceSpan> {
    let (response, trace, _) = identity(&row.response_id, row.alert_id.as_deref(), row.trace.as_deref())?;
    if !trace.is_recorded(millionths) {
        return None;
    }
    let (id, end) = (row.id.parse().ok()?, row.finished_at?);
    let parent = span_id(if row.op == Op::Revert { UNDO } else { RESPONSE }, response);
    let op = row.op.as_str();
    let name = format!("{op} {}", row.action);
    let mut span = TraceSpan::new(&trace, (COMMAND, id), Some(parent), name).lasting(at(row.created_at), at(end));
    span.kind = SpanKind::Client;
    let events = [("delivered", row.delivered_at), ("acknowledged", row.acknowledged_at)];
    span.events = events.into_iter().filter_map(|(name, time)| Some((name, at(time?)))).collect();
    span.fault = match row.state {
        CommandState::Succeeded | CommandState::Cancelled => None,
        other => Some(other.as_str()),
    };
    let span = span.text("riposte.command.id", Some(row.id.as_str())).text("riposte.command.op", Some(op));
    let span = span.text("riposte.command.state", Some(row.state.as_str()));
    let span = span.with("riposte.command.seq", Some(Value::Int(row.seq)));
    let span = span.with("riposte.command.deliveries", Some(Value::Int(row.deliveries)));
    let span = span.text("riposte.agent.id", Some(row.agent_id.as_str())).text("riposte.agent.name", agent);
    let span = span.text("riposte.response.id", Some(row.response_id.as_str()));
    let span = span.text("riposte.policy", row.policy.as_deref()).text("riposte.action", Some(row.action.as_str()));
    let span = span.with("riposte.verified", row.verified.map(Value::Bool));
    Some(span.with("riposte.execution_ms", row.ran_millis.map(Value::Int)))
}

/// The response, its trace and its alert.
fn identity(response: &str, alert: Option<&str>, traceparent: Option<&str>) -> Option<(Uuid, Trace, Option<Uuid>)> {
    let response = response.parse().ok()?;
    let alert = alert.and_then(|alert| alert.parse().ok());
    Some((response, Trace::of(traceparent, alert.unwrap_or(response)), alert))
}

fn at(millis: i64) -> u64 {
    nanos(Timestamp::from_millis(millis))
}
