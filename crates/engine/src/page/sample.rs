//! A page and a machine for the tests of this module: base page, on node 0, of two nodes with CPUs and
//! one without.

use linux::proc::kpageflags::FrameFlags;
use machine::{AddrRange, Bytes, NodeId, Topology};

use super::{
    Balancing, Destination, EntryBits, Folio, Frame, PageMapping, PageReport, PageState, Verdict,
};
use crate::placement::{Kind, PageSize};
use crate::target::TargetId;

pub(super) fn machine() -> Topology {
    machine::load("dram-cxl").unwrap()
}

pub(super) fn present() -> PageReport {
    let destination = Destination {
        node: NodeId::new(1).unwrap(),
        distance: Some(21),
        room_bytes: Bytes::new(1 << 30),
        has_room: true,
        is_allowed: true,
    };
    PageReport {
        id: TargetId { pid: 7, name: "x".to_owned(), start_time_ticks: 1, boot_id: String::new() },
        address: 0x10000,
        mapping: PageMapping {
            range: AddrRange::from_pages(0x10000, 1),
            name: "[anon]".to_owned(),
            kind: Some(Kind::Anon),
            permissions: "rw-p".to_owned(),
            file_offset_bytes: None,
            flags: None,
        },
        policy: None,
        allowed_nodes: "0-2".parse().unwrap(),
        cgroup: None,
        cpu_nodes: "0-1".parse().unwrap(),
        state: PageState::Present,
        node: NodeId::new(0),
        size: Some(PageSize::Base),
        frame: Some(Frame {
            number: 5,
            flags: FrameFlags::LRU,
            mapcount: Some(1),
            folio: Folio { pages: 1, index: 0 },
        }),
        entry: Some(EntryBits {
            soft_dirty: false,
            exclusive: true,
            file_or_shared: false,
            write_protected: false,
        }),
        sharers: Vec::new(),
        balancing: Balancing { may_move: false, text: String::new() },
        destinations: vec![destination],
        verdict: Verdict::default(),
        trial: None,
        unseen: Vec::new(),
    }
}
