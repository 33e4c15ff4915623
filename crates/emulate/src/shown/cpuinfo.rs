//! `/proc/cpuinfo` and `/proc/stat`: this computer's processor, as many times as the machine has CPUs.
//!
//! Source: proc_cpuinfo(5), proc_stat(5); kernel, arch/x86/kernel/cpu/proc.c, fs/proc/stat.c.

use machine::{CpuSet, Topology};

use super::cpus::{Place, places};

/// `/proc/cpuinfo`; `host` is this computer's.
pub(crate) fn cpuinfo(host: &str, topology: &Topology) -> String {
    let first = host.split_once("\n\n").map_or(host, |(first, _)| first);
    let places = places(topology);
    places.iter().map(|place| processor(first, place) + "\n").collect()
}

fn processor(host: &str, place: &Place) -> String {
    let mut text = String::new();
    for line in host.lines() {
        let name = line.split([':', '\t']).next().unwrap_or_default();
        let value = match name {
            "processor" | "apicid" | "initial apicid" => place.cpu.get().to_string(),
            "physical id" => place.package.to_string(),
            "core id" => place.core.to_string(),
            "siblings" | "cpu cores" => place.siblings.len().to_string(),
            _ => {
                text.push_str(line);
                text.push('\n');
                continue;
            }
        };
        let label = line.split_once(':').map_or(line, |(label, _)| label);
        text.push_str(&format!("{label}: {value}\n"));
    }
    text
}

/// `/proc/stat`; `host` is this computer's. Its CPUs' time is shared out evenly.
pub(crate) fn stat(host: &str, cpus: &CpuSet) -> String {
    let is_of_one_cpu = |line: &str| line.starts_with("cpu") && !line.starts_with("cpu ");
    let mut text = String::new();
    for line in host.lines().filter(|line| !is_of_one_cpu(line)) {
        text.push_str(line);
        text.push('\n');
        if let Some(times) = line.strip_prefix("cpu ") {
            let times = times.split_ascii_whitespace();
            let share = |time: &str| time.parse::<u64>().unwrap_or(0) / cpus.len().max(1) as u64;
            let shares: Vec<String> = times.map(|time| share(time).to_string()).collect();
            for cpu in cpus.iter() {
                text.push_str(&format!("cpu{cpu} {}\n", shares.join(" ")));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "processor\t: 0\nmodel name\t: A: B\nphysical id\t: 7\nsiblings\t: 1\n\n\
                        processor\t: 1\nmodel name\t: A: B\n\n";

    #[test]
    fn each_cpu_is_this_computers_processor_in_its_own_place() {
        let machine = machine::load("two-socket").unwrap();
        let text = cpuinfo(HOST, &machine);
        let last = text.split("\n\n").nth(3).unwrap();
        assert_eq!(last, "processor\t: 3\nmodel name\t: A: B\nphysical id\t: 1\nsiblings\t: 2");
        assert_eq!(text.matches("processor").count(), 4);
    }

    #[test]
    fn the_time_of_all_cpus_is_shared_out() {
        let host = "cpu  40 0 8\ncpu0 20 0 4\ncpu1 20 0 4\nintr 5\n";
        let text = stat(host, &"0-3".parse().unwrap());
        let cpus = (0..4).map(|cpu| format!("cpu{cpu} 10 0 2\n")).collect::<String>();
        assert_eq!(text, format!("cpu  40 0 8\n{cpus}intr 5\n"));
    }
}
