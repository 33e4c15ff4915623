//! The steps that look, and those that set up what is around the processes.

use machine::NodeId;
use model::{Counter, CpusetId, Errno, Event, PMD_ORDER, TaskId};
use scenario::layout::Span;
use scenario::{PageNode, Place, Seen, Step};

use crate::player::{PAGE, Player, errno};

impl Player {
    pub(crate) fn look(&mut self, task: TaskId, step: &Step) -> Option<Seen> {
        match step {
            Step::Where(places) => {
                let ranges = places.iter().map(|&place| {
                    let name = place.to_string();
                    (name, self.nodes_of(task, place))
                });
                Some(Seen::Where(ranges.collect()))
            }
            Step::HugeUnits(place) => {
                let (start, length) = self.range(*place);
                let (pmd, heads) = self.machine.huge_units(task, start, length);
                Some(Seen::Pairs(vec![("pmd", pmd.to_string()), ("heads", heads.to_string())]))
            }
            Step::Counters => Some(self.counters()),
            Step::Pagemap(place) => Some(self.pagemap(task, *place)),
            Step::NumaMaps(place) => {
                let (start, _) = self.range(*place);
                Some(match self.machine.numa_maps_line_at(task, start) {
                    None => Seen::Text("noline".to_owned()),
                    Some(line) => {
                        let text = line.split_once(' ').map_or("", |(_, text)| text);
                        Seen::Quoted(vec![text.to_owned()])
                    }
                })
            }
            Step::Smaps(place, field) => {
                let (start, length) = self.range(*place);
                let smaps = self.machine.smaps(task, start, length);
                Some(match field.as_str() {
                    "Rss" => Seen::Pairs(vec![("Rss", smaps.rss.to_string())]),
                    "Anonymous" => Seen::Pairs(vec![("Anonymous", smaps.anonymous.to_string())]),
                    "Locked" => Seen::Pairs(vec![("Locked", smaps.locked.to_string())]),
                    other => Seen::Text(format!("no field {other}")),
                })
            }
            Step::Status(field) => Some(self.status(task, field)),
            Step::SysFile(path) => self.sys_file(path),
            Step::PageFlag(place, 21) => {
                let pages = self.addresses(*place);
                let merged = pages.iter().filter(|&&page| self.machine.is_ksm_page(task, page));
                Some(Seen::Text(merged.count().to_string()))
            }
            Step::TraceOn => {
                self.machine.trace_on();
                None
            }
            Step::Trace => {
                let events = self.machine.take_events();
                let ends =
                    events.iter().filter(|event| matches!(event, Event::MigratePages { .. }));
                Some(Seen::Quoted(ends.map(Event::to_string).collect()))
            }
            step => self.around(task, step),
        }
    }

    fn nodes_of(&self, task: TaskId, place: Place) -> Vec<PageNode> {
        let pages = self.addresses(place).into_iter();
        pages
            .map(|page| match self.machine.node_of(task, page) {
                Some(node) => PageNode::On(node.get()),
                None if self.machine.is_zero_page(task, page) => PageNode::Zero,
                None => PageNode::Absent,
            })
            .collect()
    }

    fn counters(&mut self) -> Seen {
        let now = self.machine.counters().clone();
        let since = |counter| now.since(&self.counted, counter);
        let mut pairs = vec![
            ("ok", since(Counter::PgmigrateSuccess).to_string()),
            ("fail", since(Counter::PgmigrateFail).to_string()),
        ];
        let thp =
            [Counter::ThpMigrationSuccess, Counter::ThpMigrationFail, Counter::ThpMigrationSplit]
                .map(since);
        if thp != [0; 3] {
            pairs.push(("thp", format!("{}/{}/{}", thp[0], thp[1], thp[2])));
        }
        self.counted = now;
        Seen::Pairs(pairs)
    }

    fn pagemap(&self, task: TaskId, place: Place) -> Seen {
        let pages = self.addresses(place).into_iter().map(|page| {
            let bits = self.machine.pagemap(task, page);
            let letters = [
                (bits.present, 'P'),
                (bits.file, 'F'),
                (bits.exclusive, 'X'),
                (bits.soft_dirty, 'D'),
            ];
            letters.into_iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect()
        });
        Seen::Flags(place.to_string(), pages.collect())
    }

    fn status(&self, task: TaskId, field: &str) -> Seen {
        Seen::Text(match field {
            "Mems_allowed_list" => {
                self.machine.mems_allowed(task).map_or(String::new(), |mems| mems.to_string())
            }
            "Cpus_allowed_list" => {
                self.machine.cpu(task).map_or(String::new(), |cpu| cpu.to_string())
            }
            other => format!("no field {other}"),
        })
    }

    /// A file of `/sys/devices/system/node/nodeN`; an empty one has no result.
    fn sys_file(&self, path: &str) -> Option<Seen> {
        let rest = path.strip_prefix("/sys/devices/system/node/node")?;
        let (number, file) = rest.split_once('/')?;
        let id = number.parse().ok().and_then(NodeId::new)?;
        let topology = self.machine.topology();
        let node = topology.node(id)?;
        let text = match file {
            "distance" => {
                let nodes = topology.nodes().iter();
                let distances = nodes.filter_map(|other| topology.distance(id, other.id));
                distances.map(|distance| distance.to_string()).collect::<Vec<_>>().join(" ")
            }
            "cpulist" => node.cpus.to_string(),
            "cpumap" => {
                let bits = node.cpus.iter().fold(0u64, |bits, cpu| bits | 1 << cpu.get());
                format!("{bits:x}")
            }
            _ => return None,
        };
        (!text.is_empty()).then_some(Seen::Text(text))
    }

    fn around(&mut self, task: TaskId, step: &Step) -> Option<Seen> {
        match step {
            Step::Cgroup { name, mems } => {
                let parent = name.rsplit_once('/').map_or("root", |(parent, _)| parent);
                let parent = self.group(parent)?;
                let group = self.machine.make_cpuset(parent);
                self.groups.insert(name.clone(), group);
                mems.as_ref().and_then(|mems| errno(self.set_mems(group, mems)))
            }
            Step::CgroupSet { name, mems } => {
                let group = self.group(name)?;
                let set = self.set_mems(group, mems);
                Some(errno(set).unwrap_or_else(|| Seen::Text("ok".to_owned())))
            }
            Step::CgroupJoin { name, who } => {
                let group = self.group(name)?;
                let who = who.and_then(|who| self.actors.get(&who.0).copied()).unwrap_or(task);
                errno(self.machine.join_cpuset(group, who))
            }
            Step::CgroupEffective { name } => {
                let group = self.group(name)?;
                Some(Seen::Text(self.machine.effective_mems(group).to_string()))
            }
            Step::Pool { node, pages } => {
                let node = NodeId::new(*node)?;
                errno(self.machine.set_hugetlb_pool(node, PMD_ORDER, *pages).map(|_| ()))
            }
            Step::Pools => {
                let nodes = self.machine.topology().nodes().iter();
                let pools = nodes.map(|node| {
                    let (total, free) = self.machine.hugetlb_pool(node.id, PMD_ORDER);
                    format!("{total}/{free}")
                });
                Some(Seen::Text(pools.collect::<Vec<_>>().join(" ")))
            }
            Step::Weight { node, value } => self.weight(NodeId::new(*node)?, value.as_deref()),
            Step::Ksm => {
                self.machine.ksm_scan();
                None
            }
            Step::ClearRefs => {
                self.machine.clear_soft_dirty(task);
                None
            }
            Step::WriteFile(place) | Step::ReadFile(place) => self.file_io(task, *place, step),
            _ => None,
        }
    }

    fn group(&self, name: &str) -> Option<CpusetId> {
        self.groups.get(name).copied()
    }

    fn set_mems(&mut self, group: CpusetId, mems: &str) -> Result<(), Errno> {
        let text = if mems == "empty" { "" } else { mems };
        let nodes = text.parse().map_err(|_| Errno::EINVAL)?;
        self.machine.set_mems(group, nodes)
    }

    fn weight(&mut self, node: NodeId, value: Option<&str>) -> Option<Seen> {
        Some(match value {
            Some(text) => errno(self.machine.set_weight(node, text))
                .unwrap_or_else(|| Seen::Text("ok".to_owned())),
            None => Seen::Text(match self.machine.weight(node) {
                Ok(weight) => weight.to_string(),
                Err(_) => "nofile".to_owned(),
            }),
        })
    }

    fn file_io(&mut self, task: TaskId, place: Place, step: &Step) -> Option<Seen> {
        let Span { start, pages, .. } = self.span(place)?;
        let scenario::Base::Area(letter) = place.base else { return None };
        let area = *self.areas.get(&letter)?;
        let file = area.file?;
        let Some(before) = start.checked_sub(area.address) else {
            // pwrite(2) and pread(2) of a negative offset.
            return errno(Err(Errno::EINVAL));
        };
        let from = before / PAGE;
        if matches!(step, Step::WriteFile(_)) {
            return errno(self.machine.write_file(task, file, from, from + pages, 1));
        }
        self.machine.read_file(file, from, from + pages);
        None
    }
}
