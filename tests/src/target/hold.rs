//! The process that holds memory: sets itself up, says `ready`, and answers commands on stdin.
//!
//! The order of setting up matters: areas while still root and alone; then the other user; then the
//! child, which must have the same user to die with us, while there is one thread; then threads.

use std::ffi::CString;
use std::io::{self, Write};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::area::Area;
use crate::args::Hold;
use crate::error::{Error, Result, Tried};
use crate::placement;
use crate::spec::{Kind, parse_id, parse_ids, parse_size};
use crate::sys::{self, Mapping};

/// Runs until `exit`, the end of stdin, or the end of its time; gives whether all contents held.
pub(crate) fn run(hold: Hold) -> Result<bool> {
    let is_bad = Arc::new(AtomicBool::new(false));
    let (areas, child) = set_up(&hold)?;
    if let Some(delay) = hold.exit_after {
        exit_after(delay, Arc::clone(&is_bad))?;
    }
    say(&ready_line(&areas, child))?;

    let mut session = Session { areas, is_bad: Arc::clone(&is_bad) };
    for line in io::stdin().lines() {
        let line = line.tried(|| "cannot read stdin".to_owned())?;
        match session.answer(&line) {
            Ok(answer) => say(&answer)?,
            Err(error) => say(&format!("error {error}"))?,
        }
        if line.trim() == "exit" {
            return Ok(!is_bad.load(Ordering::Relaxed));
        }
    }
    if hold.is_staying {
        sleep_for_ever();
    }
    Ok(!is_bad.load(Ordering::Relaxed))
}

fn set_up(hold: &Hold) -> Result<(Vec<Area>, Option<u32>)> {
    if let Some(name) = &hold.comm {
        let set = CString::new(name.as_str()).map_err(io::Error::from);
        let set = set.and_then(|name| sys::set_thread_name(&name));
        set.tried(|| format!("cannot take the name {name}"))?;
    }
    if let Some(cpu) = hold.cpu {
        sys::set_affinity(&[cpu]).tried(|| format!("cannot run on CPU {cpu}"))?;
    }
    let mut areas = hold.areas.iter().cloned().map(Area::make).collect::<Result<Vec<_>>>()?;
    if let Some(uid) = hold.uid {
        sys::become_user(uid).tried(|| format!("cannot become user {uid}"))?;
    }
    let child = share_with_child(&areas)?;
    for index in 0..hold.threads {
        let cpu = hold.thread_cpus.iter().cycle().nth(index).copied();
        start_idle_thread(index, cpu)?;
    }
    for area in &mut areas {
        area.start_touching()?;
    }
    Ok((areas, child))
}

/// Forks the child that maps the areas that are to be shared, and none of the others.
fn share_with_child(areas: &[Area]) -> Result<Option<u32>> {
    let (shared, others): (Vec<&Area>, Vec<&Area>) =
        areas.iter().partition(|area| area.spec.is_shared_with_child);
    if shared.is_empty() {
        return Ok(None);
    }
    for Area { spec, mapping, .. } in &others {
        let kept = mapping.advise(libc::MADV_DONTFORK);
        kept.tried(|| format!("cannot keep area {} from the child", spec.name))?;
    }
    let shared: Vec<&Mapping> = shared.iter().map(|area| &*area.mapping).collect();
    let child = sys::fork_sleeper(&shared).tried(|| "cannot fork".to_owned())?;
    for area in others {
        // So that the stack is one VMA again. Linux 7 refuses it for hugetlb, which is as well.
        drop(area.mapping.advise(libc::MADV_DOFORK));
    }
    Ok(Some(child))
}

fn start_idle_thread(index: usize, cpu: Option<u32>) -> Result<()> {
    let (bound, when_bound) = mpsc::channel();
    let idle = move || {
        drop(bound.send(cpu.map_or(Ok(()), |cpu| sys::set_affinity(&[cpu]))));
        sleep_for_ever()
    };
    let thread = thread::Builder::new().name(format!("idle-{index}")).spawn(idle);
    thread.tried(|| format!("cannot start thread {index}"))?;
    let bound = when_bound.recv().unwrap_or_else(|gone| Err(io::Error::other(gone)));
    bound.tried(|| format!("cannot bind thread {index} to CPU {cpu:?}"))
}

/// Until SIGTERM or `--exit-after`.
fn sleep_for_ever() -> ! {
    loop {
        thread::park();
    }
}

fn exit_after(delay: Duration, is_bad: Arc<AtomicBool>) -> Result<()> {
    let wait = move || {
        thread::sleep(delay);
        #[expect(clippy::exit, reason = "the main thread may sit in a read of stdin for ever")]
        process::exit(i32::from(is_bad.load(Ordering::Relaxed)));
    };
    let thread = thread::Builder::new().name("exit-after".into()).spawn(wait);
    thread.map(drop).tried(|| "cannot start the thread of --exit-after".to_owned())
}

fn ready_line(areas: &[Area], child: Option<u32>) -> String {
    let mut line = format!("ready pid={}", process::id());
    if let Some(child) = child {
        line += &format!(" child={child}");
    }
    for area in areas {
        let (start, end) = (area.mapping.start(), area.mapping.end());
        line += &format!(" {}={start:#x}-{end:#x}", area.spec.name);
    }
    line
}

fn say(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    written.tried(|| "cannot write to stdout".to_owned())
}

/// What the commands act on.
struct Session {
    areas: Vec<Area>,
    is_bad: Arc<AtomicBool>,
}

impl Session {
    /// The one line that answers `line`.
    fn answer(&mut self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["check"] => Ok(self.check()),
            ["where", name] => {
                let words = self.area(name)?.mapping.status_words();
                let words = words.tried(|| format!("cannot ask where area {name} is"))?;
                Ok(placement::run_lengths(&words))
            }
            ["stall"] => {
                let stalls = self.areas.iter().filter_map(Area::take_stall_ns);
                let longest = stalls.max().ok_or_else(|| Error::usage("no area has touch"))?;
                Ok(format!("stall_us_max={}.{:03}", longest / 1000, longest % 1000))
            }
            ["unpin"] => {
                self.areas.iter_mut().for_each(Area::unpin);
                Ok("ok".to_owned())
            }
            ["unmap", name] => {
                if self.area(name)?.spec.kind == Kind::Stack {
                    return Err(Error::usage("the stack cannot be unmapped"));
                }
                self.areas.retain(|area| area.spec.name != name);
                Ok("ok".to_owned())
            }
            ["cut", name, size] => {
                let bytes = parse_size(size).map_err(Error::Usage)?;
                self.areas
                    .iter_mut()
                    .find(|area| area.spec.name == name)
                    .ok_or_else(|| Error::Usage(format!("no area is called {name}")))?
                    .cut(bytes)?;
                Ok("ok".to_owned())
            }
            ["rebind", name, node] => {
                let node = parse_id(node).map_err(Error::Usage)?;
                let bound = self.area(name)?.mapping.bind(node);
                bound.tried(|| format!("cannot bind area {name} to node {node}"))?;
                Ok("ok".to_owned())
            }
            ["mbind", name, node] => {
                let node = parse_id(node).map_err(Error::Usage)?;
                let bound = self.area(name)?.mapping.bind_and_move(node);
                bound.tried(|| format!("cannot move area {name} to node {node} by mbind"))?;
                Ok("ok".to_owned())
            }
            ["bounce", name, nodes, times] => {
                let times = times.parse().map_err(|_| Error::usage("bounce how often?"))?;
                let nodes = parse_ids(nodes).map_err(Error::Usage)?;
                let bounced = bounce(&self.area(name)?.mapping, &nodes, times);
                bounced.tried(|| format!("cannot bounce area {name}"))?;
                Ok("ok".to_owned())
            }
            ["storm", name, nodes, times] => {
                let times = times.parse().map_err(|_| Error::usage("storm how often?"))?;
                let nodes = parse_ids(nodes).map_err(Error::Usage)?;
                let moved = storm(&self.area(name)?.mapping, &nodes, times);
                moved.tried(|| format!("cannot move the pages of area {name} one by one"))?;
                Ok("ok".to_owned())
            }
            ["exit"] => Ok("ok".to_owned()),
            _ => Err(Error::Usage(format!(
                "{line:?}: expected check, where NAME, stall, unpin, unmap NAME, cut NAME SIZE, \
                 rebind NAME NODE, mbind NAME NODE, bounce NAME NODES TIMES, \
                 storm NAME NODES TIMES or exit"
            ))),
        }
    }

    /// `ok` with all names, or the first page that is not what it was.
    fn check(&self) -> String {
        let mut answer = "ok".to_owned();
        for area in &self.areas {
            let name = &area.spec.name;
            if let Some(page) = area.first_bad_page() {
                self.is_bad.store(true, Ordering::Relaxed);
                return format!("bad {name} page={page}");
            }
            answer += &format!(" {name}");
        }
        answer
    }

    fn area(&self, name: &str) -> Result<&Area> {
        let area = self.areas.iter().find(|area| area.spec.name == name);
        area.ok_or_else(|| Error::Usage(format!("no area is called {name}")))
    }
}

/// Moves one page after the other to the next of `nodes`, each in a call of its own.
fn bounce(mapping: &Mapping, nodes: &[u32], times: usize) -> io::Result<()> {
    for time in 0..times {
        let node = nodes[time / mapping.pages() % nodes.len()];
        mapping.move_page(time % mapping.pages(), node.cast_signed())?;
    }
    Ok(())
}

/// Moves all pages in each of so many calls, neighbours to different ones of `nodes`, and each to the
/// next one than before.
fn storm(mapping: &Mapping, nodes: &[u32], times: usize) -> io::Result<()> {
    let node = |place: usize| nodes[place % nodes.len()].cast_signed();
    for time in 0..times {
        let places = time..time + mapping.pages();
        mapping.move_each(&places.map(node).collect::<Vec<_>>())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::parse_area;

    fn session(areas: &[&str]) -> Session {
        let areas = areas.iter().map(|text| Area::make(parse_area(text).unwrap()).unwrap());
        Session { areas: areas.collect(), is_bad: Arc::default() }
    }

    #[test]
    fn check_names_every_area_and_remembers_that_one_was_bad() {
        let mut session = session(&["a=anon:8K", "b=memfd:8K", "z=zero:8K"]);
        assert_eq!(session.answer("check").unwrap(), "ok a b z");
        session.areas[1].mapping.page(1)[3].store(0, Ordering::Relaxed);
        assert_eq!(session.answer(" check ").unwrap(), "bad b page=1");
        assert!(session.is_bad.load(Ordering::Relaxed));
    }

    #[test]
    fn an_unmapped_area_is_gone_and_the_others_stay() {
        let mut session = session(&["a=anon:8K", "b=shm:8K"]);
        assert_eq!(session.answer("unmap a").unwrap(), "ok");
        assert!(session.answer("where a").unwrap_err().to_string().contains("no area"));
        assert_eq!(session.answer("check").unwrap(), "ok b");
    }

    #[test]
    fn an_area_that_was_cut_is_checked_to_its_new_end() {
        let mut session = session(&["a=anon:16K", "k=stack:16K"]);
        assert_eq!(session.answer("cut a 4K").unwrap(), "ok");
        assert_eq!(session.answer("check").unwrap(), "ok a k");
        assert_eq!(session.areas[0].mapping.pages(), 3);
        for wrong in ["cut a 12K", "cut a 1", "cut a 0", "cut k 4K", "cut b 4K"] {
            assert!(session.answer(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_command_is_told_what_would_be_right() {
        let error = session(&[]).answer("wher a").unwrap_err().to_string();
        assert!(error.starts_with("\"wher a\": expected check, where NAME"), "{error}");
        assert!(session(&[]).answer("stall").is_err());
    }
}
