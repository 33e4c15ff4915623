//! Sets as hexadecimal masks: words of 32 bits, the highest first, with commas between.
//!
//! The first word has as many digits as its bits need: four CPUs are one digit.
//!
//! Source: kernel, lib/vsprintf.c, `bitmap_string` (`%*pb`).

use machine::{CpuId, CpuSet, NodeSet};

/// `MAX_NUMNODES` on Debian amd64.
const NODE_BITS: usize = 1024;

/// CPUs, in a mask that has room for `all`.
pub(crate) fn cpu_mask(cpus: &CpuSet, all: &CpuSet) -> String {
    let bits = all.iter().last().map_or(1, |cpu| index(cpu) + 1);
    mask(bits, cpus.iter().map(index))
}

/// Nodes, in the mask that `/proc/PID/status` prints.
pub(crate) fn node_mask(nodes: NodeSet) -> String {
    mask(NODE_BITS, nodes.iter().map(|node| node.index()))
}

const fn index(cpu: CpuId) -> usize {
    cpu.get() as usize
}

fn mask(bits: usize, set: impl Iterator<Item = usize>) -> String {
    let mut words = vec![0u32; bits.div_ceil(32)];
    for bit in set {
        words[bit / 32] |= 1 << (bit % 32);
    }
    let first_digits = (bits - 1) % 32 / 4 + 1;
    let words = words.iter().rev().enumerate().map(|(at, word)| {
        let digits = if at == 0 { first_digits } else { 8 };
        format!("{word:0digits$x}")
    });
    words.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_as_many_digits_as_the_machine_has_cpus() {
        let set = |text: &str| text.parse::<CpuSet>().unwrap();
        assert_eq!(cpu_mask(&set("2-3"), &set("0-3")), "c");
        assert_eq!(cpu_mask(&set("0"), &set("0-4")), "01");
        assert_eq!(cpu_mask(&set("33"), &set("0-39")), "02,00000000");
    }

    #[test]
    fn nodes_fill_thirty_two_words() {
        let mask = node_mask("0,2".parse().unwrap());
        assert_eq!(mask.len(), 32 * 9 - 1);
        assert!(mask.ends_with(",00000000,00000005"));
    }
}
