//! Kernel stacks by name. A path is resolved once, however often it is taken.

use std::collections::BTreeMap;
use std::sync::Arc;

use linux::proc::kallsyms::Symbols;

/// Functions of the tracing itself, which lie above what was traced.
const TRACING: [&str; 4] =
    ["trace_event_raw_event_", "__traceiter_", "event_triggers_", "stacktrace_"];

/// Resolves stacks, and remembers them.
#[derive(Debug, Default)]
pub(crate) struct Stacks {
    symbols: Symbols,
    known: BTreeMap<Vec<u64>, Arc<[String]>>,
}

impl Stacks {
    /// Without symbols, addresses stand for names.
    pub(crate) fn new(symbols: Symbols) -> Self {
        Self { symbols, known: BTreeMap::new() }
    }

    /// The functions of a stack, innermost first, without those of the tracing.
    pub(crate) fn resolve(&mut self, frames: Vec<u64>) -> Arc<[String]> {
        if let Some(stack) = self.known.get(&frames) {
            return Arc::clone(stack);
        }
        let name = |&frame: &u64| {
            let function = self.symbols.function(frame);
            function.map_or_else(|| format!("{frame:#x}"), str::to_owned)
        };
        let is_tracing = |name: &String| TRACING.iter().any(|prefix| name.starts_with(prefix));
        let stack: Arc<[String]> = frames.iter().map(name).skip_while(is_tracing).collect();
        self.known.insert(frames, Arc::clone(&stack));
        stack
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux::proc::kallsyms;

    #[test]
    fn frames_are_named_and_those_of_the_tracing_left_out() {
        let text = "10 t trace_event_raw_event_mm_migrate_pages\n20 T migrate_pages\n30 t caller\n";
        let mut stacks = Stacks::new(kallsyms::parse(text.to_owned()).unwrap());
        let stack = stacks.resolve(vec![0x15, 0x28, 0x31, 0x5]);
        assert_eq!(*stack, ["migrate_pages", "caller", "0x5"]);
        assert!(Arc::ptr_eq(&stack, &stacks.resolve(vec![0x15, 0x28, 0x31, 0x5])));
    }
}
