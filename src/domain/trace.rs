//! The trace of an alert: from its receipt over its responses to the last undo. The trace stands in the
//! ledger, so that every manager, and the same one after a restart, continues it: by the `traceparent`
//! that came with the request, or else by the id of the alert, or of a response by hand. Ids of spans
//! follow from the ids of what they show, so a span can name its parent before that one is exported.

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Id of a trace.
pub type TraceId = [u8; 16];
/// Id of a span.
pub type SpanId = [u8; 8];

/// A `traceparent` (W3C Trace Context): the trace and the span of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span.
    pub parent: SpanId,
    /// Whether the caller records the trace.
    pub is_sampled: bool,
}

impl Traceparent {
    /// Parses the value of the header; `None` if it is not well-formed, or names no trace.
    pub fn parse(text: &str) -> Option<Self> {
        let is_lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let parts: Vec<&str> = text.split('-').collect();
        let [version, trace, parent, flags] = parts[..] else { return None };
        let is_right = [(version, 2), (trace, 32), (parent, 16), (flags, 2)]
            .iter()
            .all(|(part, length)| part.len() == *length && part.bytes().all(is_lower_hex));
        if !is_right || version == "ff" {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
        let parent = u64::from_str_radix(parent, 16).ok().filter(|parent| *parent != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self { trace: trace.to_be_bytes(), parent: parent.to_be_bytes(), is_sampled: flags & 1 == 1 })
    }
}

/// The trace that an alert or a response belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub id: TraceId,
    /// The span of the caller that began it, if one did.
    pub caller: Option<SpanId>,
    /// What the caller decided about recording it.
    is_sampled: Option<bool>,
}

impl Trace {
    /// The trace of a request with this `traceparent`; otherwise the one that follows from `root`, the id
    /// of the alert, or of a response by hand.
    pub fn of(traceparent: Option<&str>, root: Uuid) -> Self {
        match traceparent.and_then(Traceparent::parse) {
            Some(Traceparent { trace, parent, is_sampled }) => {
                Self { id: trace, caller: Some(parent), is_sampled: Some(is_sampled) }
            }
            None => Self { id: derived("trace", root), caller: None, is_sampled: None },
        }
    }

    /// Whether it is recorded: as its caller decided, or else `millionths` of all traces. All managers
    /// say the same of one trace.
    pub fn is_recorded(&self, millionths: u32) -> bool {
        // The second half: random in every trace id, by W3C.
        let place = u128::from_be_bytes(self.id) & u128::from(u64::MAX);
        self.is_sampled.unwrap_or_else(|| (place * 1_000_000) >> 64 < u128::from(millionths))
    }
}

/// The id of the span of one `kind` about the object `id`.
pub fn span_id(kind: &str, id: Uuid) -> SpanId {
    derived(kind, id)
}

/// The first bytes of a hash. All zeros, which would be no id, do not occur.
fn derived<const N: usize>(kind: &str, id: Uuid) -> [u8; N] {
    let digest = Sha256::new().chain_update("riposte ").chain_update(kind).chain_update(id.as_bytes()).finalize();
    let mut bytes = [0; N];
    bytes.iter_mut().zip(digest).for_each(|(byte, from)| *byte = from);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_names_a_trace_and_a_span() {
        let parsed = Traceparent::parse(GIVEN).unwrap();
        assert_eq!(parsed.trace[..2], [0x0a, 0xf7]);
        assert_eq!((parsed.parent[7], parsed.is_sampled), (0x31, true));
        assert!(!Traceparent::parse(&GIVEN.replace("-01", "-00")).unwrap().is_sampled);
        for bad in [
            "",
            "00-1-2-3",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-02",
        ] {
            assert_eq!(Traceparent::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn without_one_the_trace_follows_from_the_root() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(Trace::of(None, one), Trace::of(Some("nonsense"), one));
        assert_ne!(Trace::of(None, one).id, Trace::of(None, other).id);
        assert_eq!(Trace::of(Some(GIVEN), one), Trace::of(Some(GIVEN), other));
        assert_ne!(span_id("alert", one), span_id("response", one));
    }

    #[test]
    fn a_share_of_the_traces_is_recorded_unless_the_caller_decided() {
        let traces: Vec<Trace> = (0..4000).map(|n| Trace::of(None, Uuid::from_u128(n))).collect();
        let recorded = |millionths| traces.iter().filter(|trace| trace.is_recorded(millionths)).count();
        assert_eq!((recorded(0), recorded(1_000_000)), (0, 4000));
        assert!((800..1200).contains(&recorded(250_000)), "{}", recorded(250_000));
        assert!(Trace::of(Some(GIVEN), Uuid::nil()).is_recorded(0));
        assert!(!Trace::of(Some(&GIVEN.replace("-01", "-00")), Uuid::nil()).is_recorded(1_000_000));
    }
}
