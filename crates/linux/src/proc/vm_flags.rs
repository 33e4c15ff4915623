//! The flags of a mapping in words: what the two letters after `VmFlags:` in smaps mean.
//!
//! Source: kernel, Documentation/filesystems/proc.rst; fs/proc/task_mmu.c, `show_smap_vma_flags`.

/// Letters and their meaning.
const MEANINGS: [(&str, &str); 41] = [
    ("rd", "readable"),
    ("wr", "writable"),
    ("ex", "executable"),
    ("sh", "shared"),
    ("mr", "may be made readable"),
    ("mw", "may be made writable"),
    ("me", "may be made executable"),
    ("ms", "may be shared"),
    ("gd", "grows down"),
    ("pf", "raw frames without pages"),
    ("dw", "writes to the file are refused"),
    ("lo", "locked in memory"),
    ("io", "memory of a device"),
    ("sr", "read in sequence"),
    ("rr", "read at random"),
    ("dc", "not copied by fork"),
    ("de", "cannot be resized"),
    ("ac", "accounted"),
    ("nr", "no swap reserved"),
    ("ht", "hugetlb"),
    ("sf", "synchronous faults"),
    ("nl", "non-linear"),
    ("ar", "architecture's own"),
    ("wf", "wiped by fork"),
    ("dd", "not in core dumps"),
    ("sd", "soft-dirty tracked"),
    ("mm", "frames and pages mixed"),
    ("hg", "THP wanted (MADV_HUGEPAGE)"),
    ("nh", "no THP (MADV_NOHUGEPAGE)"),
    ("mg", "KSM may merge it"),
    ("bt", "guarded by BTI"),
    ("mt", "memory tagging"),
    ("um", "userfaultfd: missing pages"),
    ("uw", "userfaultfd: writes"),
    ("ui", "userfaultfd: minor faults"),
    ("ss", "shadow stack"),
    ("sl", "sealed"),
    ("lf", "locked on fault"),
    ("dp", "droppable"),
    ("gu", "may hold guards"),
    ("up", "of uprobes"),
];

/// What two letters mean; `None` for some that we do not know.
#[must_use]
pub fn meaning(letters: &str) -> Option<&'static str> {
    MEANINGS.iter().find(|(known, _)| *known == letters).map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn letters_have_one_meaning_each_and_unknown_ones_none() {
        assert_eq!(meaning("lo"), Some("locked in memory"));
        assert_eq!(meaning("zz"), None);
        let letters: BTreeSet<_> = MEANINGS.iter().map(|(letters, _)| letters).collect();
        assert_eq!(letters.len(), MEANINGS.len());
    }
}
