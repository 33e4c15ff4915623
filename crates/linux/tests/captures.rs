//! Every reader on what three real kernels wrote (tests/fixtures, whose README says what the
//! captured process has).

use std::path::{Path, PathBuf};

use linux::cgroup::Cgroup;
use linux::proc::{
    cmdline, kallsyms, maps, mountinfo, numa_maps, processes, smaps, stat, status, sysctl, task,
    vmstat, zoneinfo,
};
use linux::sysfs::{frame_map, node, thp, topology};
use linux::tracefs::format::{self, Format};
use linux::tracefs::ring::{Page, PageLayout};
use linux::{PolicyMode, Root};
use machine::{Bytes, NodeId};
use pagetide_linux as linux;

const KERNELS: [&str; 3] = ["6.1", "6.12", "7.3"];

/// Runs `test` on each capture, with the pid of the captured process.
fn on_each_kernel(test: impl Fn(&str, &Root, u32)) {
    for kernel in KERNELS {
        let root =
            Root::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(kernel));
        let pids = processes::pids(&root).expect("a capture has /proc");
        assert_eq!((pids.len(), pids[0]), (2, 2), "{kernel}");
        test(kernel, &root, pids[1]);
    }
}

fn id(number: u16) -> NodeId {
    NodeId::new(number).expect("tests use small numbers")
}

#[test]
fn maps_prints_back_byte_for_byte() {
    on_each_kernel(|kernel, root, pid| {
        let text = root.read(format!("proc/{pid}/maps")).unwrap();
        let printed: String =
            maps::parse(&text).unwrap().iter().map(|m| format!("{m}\n")).collect();
        assert_eq!(printed, text, "{kernel}");
    });
}

#[test]
fn shared_memory_without_a_mount_is_known_by_its_name_and_the_rest_is_not() {
    on_each_kernel(|kernel, root, pid| {
        let maps = maps::read(root, pid).unwrap();
        let shmem = maps.iter().filter(|mapping| mapping.is_nameless_shmem());
        let mut names: Vec<_> = shmem.map(|mapping| mapping.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["/dev/zero (deleted)", "/memfd:a b=c (deleted)"], "{kernel}");
        let device = mountinfo::read(root)
            .unwrap()
            .into_iter()
            .find(|mount| mount.mount_point == Path::new("/dev/shm"))
            .unwrap()
            .device;
        assert!(maps.iter().any(|m| m.device == device && m.name == "/dev/shm/seg ment"));
    });
}

#[test]
fn numa_maps_has_the_mappings_of_maps_and_agrees_on_files() {
    on_each_kernel(|kernel, root, pid| {
        let maps = maps::read(root, pid).unwrap();
        let numa_maps = numa_maps::read(root, pid).unwrap();
        let maps: Vec<_> = maps.iter().filter(|m| m.name != "[vsyscall]").collect();
        assert_eq!(numa_maps.len(), maps.len(), "{kernel}");
        for (numa, mapping) in numa_maps.iter().zip(maps) {
            assert_eq!(numa.start, mapping.range.start(), "{kernel}");
            assert_eq!((numa.is_heap, numa.is_stack), (mapping.is_heap(), mapping.is_stack()));
            if let Some(file) = &numa.file {
                assert_eq!(*file, mapping.name, "{kernel}");
            }
            assert!(numa.other.is_empty(), "{kernel}: {numa:?}");
        }
    });
}

#[test]
fn every_policy_of_the_captured_process_is_understood() {
    on_each_kernel(|kernel, root, pid| {
        let numa_maps = numa_maps::read(root, pid).unwrap();
        let mut policies: Vec<_> = numa_maps.iter().map(|m| m.policy.to_string()).collect();
        policies.sort_unstable();
        policies.dedup();
        let mut expected = vec![
            "bind:1",
            "bind=balancing:0-1",
            "default",
            "interleave=static:0-1",
            "local",
            "prefer (many):0-1",
            "prefer (many)=relative:0",
            "prefer:1",
        ];
        if kernel != "6.1" {
            expected.push("weighted interleave:0-1");
        }
        assert_eq!(policies, expected, "{kernel}");
        assert!(numa_maps.iter().all(|m| !matches!(m.policy.mode, PolicyMode::Other(_))));
    });
}

#[test]
fn the_same_memory_has_the_same_size_in_numa_maps_and_in_smaps() {
    on_each_kernel(|kernel, root, pid| {
        let numa_maps = numa_maps::read(root, pid).unwrap();
        for sizes in smaps::read(root, pid).unwrap() {
            let start = sizes.mapping.range.start();
            let Some(numa) = numa_maps.iter().find(|m| m.start == start) else { continue };
            let on_nodes: Bytes = numa.bytes().map(|(_, bytes)| bytes).sum();
            let resident = match sizes.size("Private_Hugetlb") {
                Bytes::ZERO => sizes.resident(),
                hugetlb => hugetlb,
            };
            // Pages of the kernel are resident in smaps on some versions, and on no node.
            if !sizes.mapping.is_kernels_own() {
                assert_eq!(on_nodes, resident, "{kernel}: {}", sizes.mapping);
            }
            assert_eq!(sizes.has_flag("ht"), numa.is_hugetlb, "{kernel}");
        }
    });
}

#[test]
fn smaps_tells_huge_and_locked_memory() {
    on_each_kernel(|kernel, root, pid| {
        let smaps = smaps::read(root, pid).unwrap();
        let locked: Bytes = smaps.iter().map(smaps::MappingSizes::locked).sum();
        assert_eq!(locked, Bytes::from_pages(8), "{kernel}");
        assert!(smaps.iter().any(|m| m.anon_huge() >= Bytes::new(4 << 20)), "{kernel}");
        assert!(smaps.iter().any(|m| m.page_size() == Bytes::new(2 << 20)), "{kernel}");
    });
}

#[test]
fn names_with_colons_and_parentheses_are_read_whole() {
    on_each_kernel(|kernel, root, pid| {
        let status = status::read(root, pid).unwrap();
        assert_eq!(status.name, "hold: (a) b", "{kernel}");
        assert_eq!(stat::read(root, pid).unwrap().name, status.name, "{kernel}");
        assert_eq!(status.locked, Some(Bytes::from_pages(8)), "{kernel}");
        assert_eq!(status.hugetlb, Some(Bytes::new(4 << 20)), "{kernel}");
        assert_eq!(status.mems_allowed.to_string(), "0-1", "{kernel}");
        assert_eq!(cmdline::read(root, pid).unwrap(), ["/holder", "an", "", "argument"]);
    });
}

#[test]
fn each_thread_has_the_cpus_where_it_may_run() {
    on_each_kernel(|kernel, root, pid| {
        let threads = task::read(root, pid).unwrap();
        let threads: Vec<_> =
            threads.iter().map(|t| (t.name.as_str(), t.cpus_allowed.to_string())).collect();
        let expected = [("hold: (a) b", "0-3".to_owned()), ("worker: (b) c", "2".to_owned())];
        assert_eq!(threads, expected, "{kernel}");
    });
}

#[test]
fn a_kernel_thread_has_no_memory() {
    on_each_kernel(|kernel, root, _| {
        assert!(!status::read(root, 2).unwrap().has_memory(), "{kernel}");
        assert!(maps::read(root, 2).unwrap().is_empty(), "{kernel}");
        assert!(numa_maps::read(root, 2).unwrap().is_empty(), "{kernel}");
        assert!(cmdline::read(root, 2).unwrap().is_empty(), "{kernel}");
    });
}

#[test]
fn the_machine_has_two_nodes_with_cpus_and_one_without() {
    on_each_kernel(|kernel, root, _| {
        let topology = topology::read(root, "guest").unwrap();
        assert_eq!(topology.node_set().to_string(), "0-2", "{kernel}");
        assert_eq!(topology.distance(id(0), id(1)), Some(21), "{kernel}");
        assert_eq!(topology.distance(id(2), id(1)), Some(30), "{kernel}");
        let far = topology.node(id(2)).unwrap();
        assert!(far.is_memory_only() && far.free.unwrap() <= far.memory, "{kernel}");
        assert!(topology.nodes().iter().all(|node| node.tier == Some(0)), "{kernel}");
        assert_eq!(topology.nodes_of(&node::cpus(root, id(1)).unwrap()).to_string(), "1");
    });
}

#[test]
fn hugetlb_pools_and_huge_page_settings_are_told() {
    on_each_kernel(|kernel, root, _| {
        let pools = node::huge_pools(root, id(1)).unwrap();
        let pool = pools.iter().find(|pool| pool.page_size == Bytes::new(2 << 20)).unwrap();
        assert_eq!((pool.total, pool.free, pool.surplus), (4, 2, 0), "{kernel}");
        let thp = thp::read(root).unwrap().unwrap();
        assert_eq!(thp.enabled, "always", "{kernel}");
        assert_eq!(thp.sizes.is_empty(), kernel == "6.1", "{kernel}");
        assert_eq!(sysctl::numa_balancing(root).unwrap(), Some(0), "{kernel}");
    });
}

#[test]
fn frames_of_each_nodes_zones_are_on_that_node() {
    on_each_kernel(|kernel, root, _| {
        let map = frame_map::read(root).unwrap();
        let mut nodes = 0;
        for zone in zoneinfo::read(root).unwrap() {
            let Some(frames) = zone.frames() else { continue };
            assert!(zone.min <= zone.low && zone.low <= zone.high, "{kernel}");
            assert_eq!(map.node_of(frames.start), Some(zone.node), "{kernel}");
            assert_eq!(map.node_of(frames.end - 1), Some(zone.node), "{kernel}");
            nodes |= 1 << zone.node.get();
        }
        assert_eq!(nodes, 0b111, "{kernel}");
        assert_eq!(map.node_of(1 << 40), None, "{kernel}");
    });
}

#[test]
fn counters_of_migration_are_there() {
    on_each_kernel(|kernel, root, _| {
        let counters = vmstat::read(root).unwrap();
        assert!(counters.contains_key("pgmigrate_success"), "{kernel}");
        assert!(node::allocations(root, id(0)).unwrap()["numa_hit"] > 0, "{kernel}");
        assert!(sysctl::kernel_release(root).unwrap().starts_with(kernel), "{kernel}");
    });
}

#[test]
fn the_group_of_the_process_has_its_cpuset_and_its_memory() {
    on_each_kernel(|kernel, root, pid| {
        let group = Cgroup::of_process(root, pid).unwrap();
        assert_eq!(group.path(), PathBuf::from("/system.slice/holder.service"), "{kernel}");
        assert_eq!(group.processes().unwrap(), [pid], "{kernel}");
        assert_eq!(group.mems().unwrap().unwrap().to_string(), "0-1", "{kernel}");
        let stat = group.numa_stat().unwrap().unwrap();
        assert!(stat["anon"][&id(1)] > 0, "{kernel}");
        assert_eq!(stat["anon"][&id(2)], 0, "{kernel}");
        assert!(stat["anon_thp"].values().sum::<u64>() >= 4 << 20, "{kernel}");
    });
}

#[test]
fn procfs_agrees_on_the_mappings_and_on_resident_memory() {
    use procfs::FromBufRead;
    on_each_kernel(|kernel, root, pid| {
        let text = root.read(format!("proc/{pid}/smaps")).unwrap();
        let theirs = procfs::process::MemoryMaps::from_buf_read(text.as_bytes()).unwrap();
        let ours = smaps::parse(&text).unwrap();
        assert_eq!(ours.len(), theirs.len(), "{kernel}");
        for (ours, theirs) in ours.iter().zip(theirs) {
            let range = ours.mapping.range;
            assert_eq!((range.start(), range.end()), theirs.address, "{kernel}");
            assert_eq!(ours.mapping.inode, theirs.inode, "{kernel}");
            assert_eq!(ours.resident().get(), theirs.extension.map["Rss"], "{kernel}");
        }
    });
}

fn trace_format(root: &Root, event: &str) -> Format {
    let text = root.read(format!("sys/kernel/tracing/events/{event}/format"));
    format::parse(&text.expect("a capture has it")).expect("a kernel wrote it")
}

#[test]
fn reasons_and_modes_are_the_words_of_each_kernel() {
    on_each_kernel(|kernel, root, _| {
        let format = trace_format(root, "migrate/mm_migrate_pages");
        let reason = format.field("reason").unwrap();
        let known = |value| reason.words.get(&value).map(String::as_str);
        assert_eq!([known(0), known(8)], [Some("compaction"), Some("demotion")], "{kernel}");
        assert_eq!(known(9), (kernel != "6.1").then_some("damon"), "{kernel}");
        assert_eq!(known(10), (kernel == "7.3").then_some("never_migrated"), "{kernel}");
        assert_eq!(format.field("mode").unwrap().word(2), "MIGRATE_SYNC");
        assert_eq!(format.field("large_folio_split").is_some(), kernel != "6.1");
    });
}

/// Two runs of migratepages, as each kernel printed them.
#[test]
fn a_page_of_the_ring_buffer_holds_what_the_kernel_printed() {
    on_each_kernel(|kernel, root, _| {
        let (pids, moved, times_us) = match kernel {
            "6.1" => ([124, 125], [256, 867], [4_511_949, 4_599_629]),
            "6.12" => ([182, 183], [844, 844], [5_420_722, 6_029_831]),
            _ => ([143, 144], [792, 829], [5_274_354, 5_872_931]),
        };
        let layout = root.read("sys/kernel/tracing/events/header_page").unwrap();
        let layout = PageLayout::parse(&layout).unwrap();
        let bytes = std::fs::read(root.path("sys/kernel/tracing/per_cpu/cpu0/trace_pipe_raw"));
        let bytes = bytes.unwrap();
        assert_eq!(bytes.len(), layout.page_bytes);
        let page = Page::parse(&layout, &bytes).unwrap();
        assert_eq!(page.lost, None);
        let records: Vec<_> = page.records().map(Result::unwrap).collect();

        let formats = [
            "syscalls/sys_enter_migrate_pages",
            "migrate/mm_migrate_pages_start",
            "migrate/mm_migrate_pages",
            "ftrace/kernel_stack",
        ]
        .map(|event| trace_format(root, event));
        let kinds: Vec<u16> =
            records.iter().map(|r| u16::from_ne_bytes([r.event[0], r.event[1]])).collect();
        let each_run = formats.each_ref().map(|format| format.id);
        assert_eq!(kinds, [each_run, each_run].concat(), "{kernel}");

        let [_, _, end, stack] = &formats;
        let number =
            |at: usize, field| end.field(field).unwrap().number(records[at].event).unwrap();
        assert_eq!([number(2, "succeeded"), number(6, "succeeded")], moved, "{kernel}");
        assert_eq!([number(2, "common_pid"), number(6, "common_pid")], pids, "{kernel}");
        assert_eq!([number(2, "reason"), number(2, "mode")], [3, 2], "{kernel}");
        let micros = |ns: u64| (ns + 500) / 1000;
        assert_eq!([micros(records[0].time_ns), micros(records[6].time_ns)], times_us, "{kernel}");

        let symbols = kallsyms::read(root).unwrap();
        let caller = stack.field("caller").unwrap().offset;
        let frames = records[7].event[caller..].chunks_exact(8).take(5);
        let frames: Vec<_> = frames
            .map(|frame| symbols.function(u64::from_ne_bytes(frame.try_into().unwrap())))
            .collect();
        let path = ["migrate_pages", "migrate_to_node", "do_migrate_pages", "kernel_migrate_pages"];
        assert_eq!(frames[1..], path.map(Some), "{kernel}");
    });
}
