//! Turns the bytes of an event into what it says, by the format files of the running kernel.
//!
//! Called by the session for each record. A field that a kernel lacks counts as absent; an event
//! that was not asked for is passed over.

use std::collections::BTreeMap;
use std::sync::Arc;

use linux::tracefs::format::{Field, Format};

use crate::event::{Counts, Value};

/// A decoded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// By the clock of the trace.
    pub(crate) time_ns: u64,
    pub(crate) cpu: u32,
    pub(crate) tid: u32,
    pub(crate) what: What,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A migration begins.
    Start { reason: i64, mode: i64 },
    /// It has ended.
    End { reason: i64, mode: i64, counts: Counts },
    /// The stack of the event before, innermost first.
    Stack(Vec<u64>),
    /// A system call that moves pages of this process begins; 0 is the caller.
    Call { pid: u32 },
    /// Another event: the number of its format, and its fields.
    Other { event: u16, fields: Vec<(Arc<str>, Value)> },
    /// No event: those of this CPU were lost up to here, or are from here on.
    Lost,
}

/// Knows the formats of the events that were asked for.
#[derive(Debug)]
pub(crate) struct Decoder {
    kinds: BTreeMap<u16, Kind>,
    names: BTreeMap<u16, String>,
    reasons: BTreeMap<i64, String>,
    modes: BTreeMap<i64, String>,
    tid: Field,
}

#[derive(Debug)]
enum Kind {
    Start(Why),
    End(Why, Box<CountFields>),
    Stack { size: Field, first_frame: usize },
    Call { pid: Field },
    Other(Vec<(Arc<str>, Field)>),
}

#[derive(Clone, Debug)]
struct Why {
    reason: Field,
    mode: Field,
}

#[derive(Debug)]
struct CountFields {
    succeeded: Field,
    failed: Field,
    thp_succeeded: Option<Field>,
    thp_failed: Option<Field>,
    thp_split: Option<Field>,
    large_folio_split: Option<Field>,
}

/// A format that lacks what we cannot do without; the name of the event and of the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this kernel's event {event} has no field {field}: pagetide does not know this kernel")]
pub struct NoField {
    /// The event.
    pub event: String,
    /// The field.
    pub field: &'static str,
}

impl Decoder {
    /// A decoder that knows the end of migrations.
    pub(crate) fn new(end: &Format) -> Result<Self, NoField> {
        let optional = |name: &str| end.field(name).cloned();
        let counts = CountFields {
            succeeded: need(end, "succeeded")?,
            failed: need(end, "failed")?,
            thp_succeeded: optional("thp_succeeded"),
            thp_failed: optional("thp_failed"),
            thp_split: optional("thp_split"),
            large_folio_split: optional("large_folio_split"),
        };
        let why = why(end)?;
        let (reasons, modes) = (why.reason.words.clone(), why.mode.words.clone());
        let tid = need(end, "common_pid")?;
        let kinds = BTreeMap::from([(end.id, Kind::End(why, Box::new(counts)))]);
        Ok(Self { kinds, names: BTreeMap::new(), reasons, modes, tid })
    }

    pub(crate) fn know_start(&mut self, start: &Format) -> Result<(), NoField> {
        self.kinds.insert(start.id, Kind::Start(why(start)?));
        Ok(())
    }

    pub(crate) fn know_stack(&mut self, stack: &Format) -> Result<(), NoField> {
        let first_frame = need(stack, "caller")?.offset;
        self.kinds.insert(stack.id, Kind::Stack { size: need(stack, "size")?, first_frame });
        Ok(())
    }

    pub(crate) fn know_call(&mut self, call: &Format) -> Result<(), NoField> {
        self.kinds.insert(call.id, Kind::Call { pid: need(call, "pid")? });
        Ok(())
    }

    pub(crate) fn know_other(&mut self, other: &Format) {
        let fields = other.own_fields().filter(|field| field.is_number);
        let fields = fields.map(|field| (Arc::from(field.name.as_str()), field.clone())).collect();
        self.kinds.insert(other.id, Kind::Other(fields));
        self.names.insert(other.id, other.name.clone());
    }

    /// The kernel's word for a reason; its number where it has no word.
    pub(crate) fn reason(&self, reason: i64) -> String {
        self.reasons.get(&reason).cloned().unwrap_or_else(|| reason.to_string())
    }

    /// All reasons that this kernel has a word for.
    pub(crate) fn reasons(&self) -> &BTreeMap<i64, String> {
        &self.reasons
    }

    pub(crate) fn mode(&self, mode: i64) -> String {
        self.modes.get(&mode).cloned().unwrap_or_else(|| mode.to_string())
    }

    /// The name of an [`What::Other`].
    pub(crate) fn name(&self, event: u16) -> &str {
        self.names.get(&event).map_or("", String::as_str)
    }

    /// What an event says; `None` when it is of no kind that we know, or too short for its fields.
    pub(crate) fn decode(&self, time_ns: u64, cpu: u32, event: &[u8]) -> Option<Seen> {
        let id = u16::from_ne_bytes(event.get(..2)?.try_into().ok()?);
        let tid = u32::try_from(self.tid.number(event)?).ok()?;
        let what = match self.kinds.get(&id)? {
            Kind::Start(why) => {
                let (reason, mode) = why.read(event)?;
                What::Start { reason, mode }
            }
            Kind::End(why, counts) => {
                let (reason, mode) = why.read(event)?;
                What::End { reason, mode, counts: counts.read(event)? }
            }
            Kind::Stack { size, first_frame } => What::Stack(frames(event, size, *first_frame)?),
            Kind::Call { pid } => What::Call { pid: u32::try_from(pid.number(event)?).ok()? },
            Kind::Other(fields) => What::Other { event: id, fields: values(event, fields) },
        };
        Some(Seen { time_ns, cpu, tid, what })
    }
}

impl Why {
    fn read(&self, event: &[u8]) -> Option<(i64, i64)> {
        Some((self.reason.number(event)?, self.mode.number(event)?))
    }
}

impl CountFields {
    fn read(&self, event: &[u8]) -> Option<Counts> {
        let count = |field: &Field| u64::try_from(field.number(event)?).ok();
        let optional = |field: &Option<Field>| field.as_ref().and_then(count);
        Some(Counts {
            succeeded_pages: count(&self.succeeded)?,
            failed_pages: count(&self.failed)?,
            thp_succeeded: optional(&self.thp_succeeded).unwrap_or(0),
            thp_failed: optional(&self.thp_failed).unwrap_or(0),
            thp_split: optional(&self.thp_split).unwrap_or(0),
            large_folio_split: optional(&self.large_folio_split),
        })
    }
}

fn need(format: &Format, field: &'static str) -> Result<Field, NoField> {
    let missing = || NoField { event: format.name.clone(), field };
    format.field(field).cloned().ok_or_else(missing)
}

fn why(format: &Format) -> Result<Why, NoField> {
    Ok(Why { reason: need(format, "reason")?, mode: need(format, "mode")? })
}

/// The frames of a stack: as many as it says, behind the format's fixed part too.
fn frames(event: &[u8], size: &Field, first_frame: usize) -> Option<Vec<u64>> {
    let size = usize::try_from(size.number(event)?).ok()?;
    let words = event.get(first_frame..)?.chunks_exact(8).take(size);
    let frames = words.filter_map(|word| Some(u64::from_ne_bytes(word.try_into().ok()?)));
    // Older kernels fill up with -1.
    Some(frames.take_while(|&frame| frame != u64::MAX).collect())
}

fn values(event: &[u8], fields: &[(Arc<str>, Field)]) -> Vec<(Arc<str>, Value)> {
    let value = |(name, field): &(Arc<str>, Field)| {
        let number = field.number(event)?;
        let word = field.words.get(&number).cloned();
        Some((Arc::clone(name), word.map_or(Value::Number(number), Value::Word)))
    };
    fields.iter().filter_map(value).collect()
}
