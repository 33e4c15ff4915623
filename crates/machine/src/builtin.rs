//! The machines that pagetide brings along, by name: the files of `machines/`, built in.
//!
//! [`crate::load`] looks here before it looks for a file. They are small enough to boot on a
//! laptop: four CPUs and about 2 GiB each.

/// Name and text of every built-in machine, in the order in which help and errors list them.
const BUILTINS: [(&str, &str); 4] = [
    ("two-socket", include_str!("../../../machines/two-socket.toml")),
    ("four-socket", include_str!("../../../machines/four-socket.toml")),
    ("snc-4", include_str!("../../../machines/snc-4.toml")),
    ("dram-cxl", include_str!("../../../machines/dram-cxl.toml")),
];

/// Names of the built-in machines.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    BUILTINS.into_iter().map(|(name, _)| name)
}

/// The machine.toml of the built-in machine of this name.
pub fn builtin_text(name: &str) -> Option<&'static str> {
    BUILTINS.into_iter().find(|(builtin, _)| *builtin == name).map(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bytes, NodeId, Topology, load};

    fn builtin(name: &str) -> Topology {
        load(name).unwrap()
    }

    /// Distance between two nodes of a machine, by number.
    fn distance(machine: &Topology, from: u16, to: u16) -> u8 {
        machine.distance(NodeId::new(from).unwrap(), NodeId::new(to).unwrap()).unwrap()
    }

    #[test]
    fn every_builtin_machine_is_valid_and_bears_the_name_it_is_asked_for_by() {
        for name in builtin_names() {
            let machine = builtin(name);
            assert_eq!(machine.name, name);
            assert_eq!(machine.cpus().to_string(), "0-3", "{name}");
            let memory: Bytes = machine.nodes().iter().map(|node| node.memory).sum();
            assert_eq!(memory.exact(), "2GiB", "{name}");
        }
    }

    #[test]
    fn every_distance_of_a_builtin_machine_is_the_same_both_ways() {
        for name in builtin_names() {
            let machine = builtin(name);
            let rows = machine.distances();
            for (i, row) in rows.iter().enumerate() {
                for (j, &there) in row.iter().enumerate() {
                    assert_eq!(there, rows[j][i], "{name}: nodes {i} and {j}");
                }
            }
        }
    }

    #[test]
    fn two_socket_has_two_equal_nodes() {
        let machine = builtin("two-socket");
        assert_eq!(machine.node_set().to_string(), "0-1");
        assert_eq!(distance(&machine, 0, 1), 21);
    }

    #[test]
    fn four_socket_has_a_cpu_and_half_a_gib_on_each_node() {
        let machine = builtin("four-socket");
        assert_eq!(machine.node_set().to_string(), "0-3");
        for node in machine.nodes() {
            assert_eq!((node.cpus.len(), node.memory.exact()), (1, "512MiB".to_owned()));
        }
    }

    #[test]
    fn snc_4_has_near_nodes_inside_a_socket_and_far_ones_across() {
        let machine = builtin("snc-4");
        assert_eq!((distance(&machine, 0, 1), distance(&machine, 2, 3)), (12, 12));
        assert_eq!((distance(&machine, 0, 2), distance(&machine, 1, 3)), (21, 21));
    }

    #[test]
    fn dram_cxl_has_one_memory_only_node_that_is_farther_and_slower_than_the_others() {
        let machine = builtin("dram-cxl");
        let [first, second, cxl] = machine.nodes() else { panic!("three nodes") };
        assert!(cxl.is_memory_only() && !first.is_memory_only() && !second.is_memory_only());
        assert!(distance(&machine, 0, 2) > distance(&machine, 0, 1));
        assert!(distance(&machine, 1, 2) > distance(&machine, 0, 1));
        assert!(cxl.tier > first.tier && cxl.latency_ns > first.latency_ns);
        assert!(cxl.bandwidth_per_s < first.bandwidth_per_s);
    }
}
