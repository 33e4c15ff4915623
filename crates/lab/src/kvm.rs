//! Whether KVM works here. That `/dev/kvm` exists proves nothing: on nested machines a kernel can
//! hang in it. So a small guest is booted once, with a short time limit, and the answer is kept
//! until this computer is booted again.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::time::Duration;

use machine::{Bytes, Node, NodeId, Topology};

use crate::guest::{Guest, GuestConfig};
use crate::image::Image;
use crate::kernels::{Kernel, cache_folder};
use crate::qemu::Accel;

/// A guest boots with KVM in two seconds.
const PROBE_LIMIT: Duration = Duration::from_secs(20);
const PROBE_MEMORY: u64 = 1 << 30;

/// Whether this kernel boots with KVM on this computer.
pub fn boots(kernel: &Kernel, image: &Image) -> bool {
    if OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return false;
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let question = format!("{} {}", boot.trim(), kernel.image.display());
    if let Some(answer) = answer_before(&question) {
        return answer;
    }
    let answer = probe(kernel, image);
    keep(&question, answer);
    answer
}

fn probe(kernel: &Kernel, image: &Image) -> bool {
    let (Some(id), Ok(cpus)) = (NodeId::new(0), "0".parse()) else { return false };
    let memory = Bytes::new(PROBE_MEMORY);
    let node =
        Node { id, cpus, memory, free: None, tier: None, latency_ns: None, bandwidth_per_s: None };
    let Ok(topology) = Topology::new("kvm-probe", vec![node], None) else { return false };
    let guest = Guest::boot(&GuestConfig {
        topology,
        kernel: kernel.clone(),
        image: image.clone(),
        accel: Accel::Kvm,
        time_limit: PROBE_LIMIT,
        extra_cmdline: String::new(),
    });
    guest.and_then(|guest| guest.run(["true"])).is_ok_and(|output| output.code == 0)
}

/// One line for each answer: the boot of this computer, the kernel, `yes` or `no`.
fn answer_before(question: &str) -> Option<bool> {
    answer_in(&fs::read_to_string(cache_folder()?.join("kvm")).ok()?, question)
}

fn answer_in(answers: &str, question: &str) -> Option<bool> {
    let answer = |line: &str| match line.strip_prefix(question)? {
        " yes" => Some(true),
        " no" => Some(false),
        // Another kernel, whose path begins like this one's; or a line that was not written to its end.
        _ => None,
    };
    answers.lines().find_map(answer)
}

/// An answer that cannot be kept is found again.
fn keep(question: &str, answer: bool) {
    let Some(path) = cache_folder().map(|folder| folder.join("kvm")) else { return };
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path) {
        let _ = writeln!(file, "{question} {}", if answer { "yes" } else { "no" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_the_very_question_is_taken() {
        let answers = "boot /k/vmlinuz new no\nboot /k/vmlinuz y\nboot /k/vmlinuz yes\n";
        assert_eq!(answer_in(answers, "boot /k/vmlinuz"), Some(true));
        assert_eq!(answer_in(answers, "boot /k/vmlinuz new"), Some(false));
        assert_eq!(answer_in(answers, "boot /k"), None);
    }
}
