//! Steps that make, touch, change or fill memory.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::PoisonError;

use linux::{Errno, Root};
use machine::NodeId;
use scenario::layout::{FIRST_HOG, HOG_STRIDE, PAGE_BYTES, Span};
use scenario::{Advice, Base, Kind, Place, Protection, Seen, Step};

use super::board::address_of;
use super::part::{Part, Performed, Unable};
use super::{name, numbered};
use crate::sys::{self, Backing, Rights};

/// All turns of interleaving over up to six nodes end here together.
const INODES: u64 = 60;
/// MPOL_PREFERRED.
const PREFERRED: i32 = 1;
/// MPOL_BIND.
const BIND: i32 = 2;
/// Pages that a hog takes at a time.
const HOG_CHUNK_PAGES: u64 = 256;
/// While a node has more free pages than this, a hog takes huge ones.
const HOG_SMALL_PAGES: u64 = 8192;
const HUGE_PAGES: u64 = 512;
/// So often in a row a full node must give nothing: kswapd frees page cache meanwhile.
const HOG_REFUSALS: u32 = 3;

impl Part {
    pub(crate) fn use_memory(&mut self, step: &Step) -> Performed {
        let each = |place: &Place, act: &mut dyn FnMut(u64)| {
            if let Some(span) = self.span(*place) {
                span.addresses().for_each(act);
            }
            Ok(None)
        };
        match step {
            Step::Map { .. } => self.map(step),
            Step::Fill { place, digits } => self.fill(*place, digits),
            Step::Touch(place) => each(place, &mut sys::touch),
            Step::Read(place) => each(place, &mut |address| {
                sys::read(address);
            }),
            Step::Store(place, byte) => each(place, &mut |address| sys::store(address, *byte)),
            Step::Check(place, byte) => {
                let mut same = true;
                let _: Performed = each(place, &mut |address| same &= sys::check(address, *byte));
                Ok(Some(Seen::Text(if same { "same" } else { "bad" }.to_owned())))
            }
            Step::Hog { node, give_back_mib } => self.hog(*node, *give_back_mib),
            Step::WriteFile(place) | Step::ReadFile(place) => {
                self.file_io(*place, matches!(step, Step::WriteFile(_)))
            }
            Step::Protect(place, _)
            | Step::Lock(place)
            | Step::LockOnFault(place)
            | Step::Unmap(place)
            | Step::Advise(place, _) => {
                let changed = change(step, self.range(*place));
                Ok(changed.err().map(|errno| Seen::Errno(name(errno))))
            }
            _ => self.call(step).map(Some),
        }
    }

    /// First byte and length of a place: of the whole thing, for what is the kernel's.
    pub(crate) fn range(&self, place: Place) -> (u64, u64) {
        let own = self.script.kernel_pages;
        let whole = match place.base {
            Base::Vdso => own.vdso,
            Base::Vvar => own.vvar,
            _ => None,
        };
        whole
            .or_else(|| self.span(place).map(|span| (span.start, span.bytes())))
            .unwrap_or_default()
    }

    fn map(&mut self, step: &Step) -> Performed {
        let Step::Map { area, pages, kind, of, private, at } = step else { return Ok(None) };
        let address = address_of(*area, *at);
        let bytes = pages.saturating_mul(PAGE_BYTES);
        let anonymous =
            |shared, hugetlb| sys::map(address, bytes, Backing::Anonymous { shared, hugetlb });
        let mapped = match kind {
            Kind::Anon | Kind::Thp if of.is_none() => anonymous(false, false),
            Kind::Shm => anonymous(true, false),
            Kind::Huge | Kind::HugeShared => anonymous(*kind == Kind::HugeShared, true),
            _ => self.map_file(step, address, bytes, !private)?,
        };
        if let Err(errno) = mapped {
            return Ok(Some(Seen::NotMapped(name(errno))));
        }
        self.script.board.set_area(*area, address, *pages);
        if *kind == Kind::Thp {
            sys::advise(address, bytes, libc::MADV_HUGEPAGE)
                .map_err(|errno| Unable(format!("MADV_HUGEPAGE: {errno}")))?;
        }
        Ok(None)
    }

    /// Maps the file of another area, or a new one. `Err` inside: the result of the step.
    fn map_file(
        &self,
        step: &Step,
        address: u64,
        bytes: u64,
        shared: bool,
    ) -> Result<Result<(), Errno>, Unable> {
        let Step::Map { area, kind, of, .. } = step else { return Ok(Ok(())) };
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = match of {
            Some(of) if files.contains_key(of) => *of,
            Some(of) => return Err(Unable(format!("this process has no file of area {of}"))),
            None => {
                match self.new_file(*area, *kind, bytes, numbered(files.len()) + 1)? {
                    Ok(file) => files.insert(*area, file),
                    Err(errno) => return Ok(Err(errno)),
                };
                *area
            }
        };
        let file = &files[&owner];
        let mapped = sys::map(address, bytes, Backing::File { file: file.as_fd(), shared });
        if owner != *area {
            let same = file.try_clone()?;
            files.insert(*area, same);
        }
        Ok(mapped)
    }

    fn new_file(
        &self,
        area: char,
        kind: Kind,
        bytes: u64,
        number: u64,
    ) -> Result<Result<OwnedFd, Errno>, Unable> {
        let on = |folder: &Path| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(true);
            options.open(folder.join(format!("f_{area}"))).map(OwnedFd::from)
        };
        let file = match kind {
            Kind::Tmpfs => on(&self.script.tmpfs)?,
            Kind::Ramfs => on(&self.script.ramfs)?,
            Kind::Secret => match sys::secret_file() {
                Ok(file) => file,
                Err(errno) => return Ok(Err(errno)),
            },
            _ => numbered_memfd(number)?,
        };
        rustix::fs::ftruncate(&file, bytes)?;
        Ok(Ok(file))
    }

    fn fill(&mut self, place: Place, digits: &[u8]) -> Performed {
        let Some(span) = self.span(place) else { return Ok(None) };
        let nodes = digits.iter().chain(std::iter::repeat(digits.last().unwrap_or(&0)));
        let mut bound = None;
        for (address, &node) in span.addresses().zip(nodes) {
            if bound != Some(node) {
                // Of a node outside the cpuset it is refused; the page goes where it may then.
                let _ = self.set_policy(BIND, &[u16::from(node)]);
                bound = Some(node);
            }
            sys::touch(address);
        }
        self.restore_policy();
        Ok(None)
    }

    /// Fills a node from a mapping of its own until a page comes from elsewhere, then gives some
    /// back from the end.
    fn hog(&mut self, node: u16, give_back_mib: u64) -> Performed {
        let start = FIRST_HOG + self.hogs * HOG_STRIDE;
        self.hogs += 1;
        let pages = self.script.largest_node_pages;
        let all = |errno| Unable(format!("map {pages} pages: {errno}"));
        let backing = Backing::Anonymous { shared: false, hugetlb: false };
        sys::map(start, pages * PAGE_BYTES, backing).map_err(all)?;
        self.set_policy(PREFERRED, &[node]).map_err(|errno| Unable(format!("prefer: {errno}")))?;
        let free = linux::sysfs::node::memory(&Root::default(), id(node)?)?.free().get();
        let huge = (free / PAGE_BYTES).saturating_sub(HOG_SMALL_PAGES).min(pages);
        let huge = huge / HUGE_PAGES * HUGE_PAGES;
        let mut filled =
            take_huge(start, huge).map_err(|errno| Unable(format!("touch: {errno}")))?;
        let mut refused = 0;
        while filled < pages && refused < HOG_REFUSALS {
            let chunk = HOG_CHUNK_PAGES.min(pages - filled);
            let first = start + filled * PAGE_BYTES;
            sys::populate_for_writing(first, chunk * PAGE_BYTES)
                .map_err(|errno| Unable(format!("touch: {errno}")))?;
            let here = pages_on(node, first, chunk)?;
            filled += here;
            if here < chunk {
                let (from, left) = (first + here * PAGE_BYTES, (chunk - here) * PAGE_BYTES);
                sys::advise(from, left, libc::MADV_DONTNEED)
                    .map_err(|errno| Unable(format!("let go: {errno}")))?;
            }
            refused = if here == 0 { refused + 1 } else { 0 };
        }
        self.restore_policy();
        let kept = filled.saturating_sub(give_back_mib.saturating_mul((1 << 20) / PAGE_BYTES));
        sys::unmap(start + kept * PAGE_BYTES, (pages - kept) * PAGE_BYTES)
            .map_err(|errno| Unable(format!("give back: {errno}")))?;
        Ok(None)
    }

    fn file_io(&self, place: Place, write: bool) -> Performed {
        let Base::Area(area) = place.base else { return Ok(None) };
        let (Some(span), Some((address, _))) = (self.span(place), self.script.board.area(area))
        else {
            return Ok(None);
        };
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = files.get(&area) else {
            return Err(Unable(format!("this process has no file of area {area}")));
        };
        let file = File::from(file.try_clone()?);
        let mut page = vec![1; usize::try_from(PAGE_BYTES).unwrap_or_default()];
        for number in 0..span.pages {
            let offset = span.start.wrapping_sub(address).wrapping_add(number * PAGE_BYTES);
            let done = if write {
                file.write_all_at(&page, offset)
            } else {
                file.read_exact_at(&mut page, offset)
            };
            if let Err(error) = done {
                return Ok(Some(Seen::Errno(name(Errno::from(&error)))));
            }
        }
        Ok(None)
    }
}

/// A memfd whose inode has a number that is `number` modulo [`INODES`]: interleaving of shared
/// memory begins there (`shmem_get_pgoff_policy`), and for the model files are numbered from 1.
fn numbered_memfd(number: u64) -> Result<OwnedFd, Unable> {
    for _ in 0..2 * INODES {
        let file = rustix::fs::memfd_create("m", rustix::fs::MemfdFlags::CLOEXEC)?;
        if rustix::fs::fstat(&file)?.st_ino % INODES == number % INODES {
            return Ok(file);
        }
    }
    Err(Unable("no memfd has an inode of the number that is wanted".into()))
}

fn id(node: u16) -> Result<NodeId, Unable> {
    NodeId::new(node).ok_or_else(|| Unable(format!("no node has the number {node}")))
}

/// Takes the bulk of a node in huge pages: it goes eight times as fast.
fn take_huge(start: u64, pages: u64) -> Result<u64, Errno> {
    if pages > 0 {
        let bytes = pages * PAGE_BYTES;
        sys::advise(start, bytes, libc::MADV_HUGEPAGE)?;
        sys::populate_for_writing(start, bytes)?;
    }
    Ok(pages)
}

fn change(step: &Step, (start, bytes): (u64, u64)) -> Result<(), Errno> {
    match step {
        Step::Protect(_, rights) => {
            let rights = match rights {
                Protection::None => Rights::None,
                Protection::ReadOnly => Rights::Read,
                Protection::ReadWrite => Rights::ReadWrite,
            };
            sys::protect(start, bytes, rights)
        }
        Step::Lock(_) => sys::lock(start, bytes),
        Step::LockOnFault(_) => sys::lock_on_fault(start, bytes),
        Step::Unmap(_) => sys::unmap(start, bytes),
        Step::Advise(_, advice) => sys::advise(start, bytes, number_of(*advice)),
        _ => Ok(()),
    }
}

const fn number_of(advice: Advice) -> i32 {
    match advice {
        Advice::Cold => libc::MADV_COLD,
        Advice::Collapse => 25,
        Advice::DontNeed => libc::MADV_DONTNEED,
        Advice::HugePage => libc::MADV_HUGEPAGE,
        Advice::Mergeable => libc::MADV_MERGEABLE,
        Advice::PageOut => libc::MADV_PAGEOUT,
        Advice::PopulateRead => libc::MADV_POPULATE_READ,
        Advice::PopulateWrite => libc::MADV_POPULATE_WRITE,
    }
}

/// How many of the pages from `first` on lie on `node`, up to the first that does not.
fn pages_on(node: u16, first: u64, pages: u64) -> Result<u64, Unable> {
    let span = Span { start: first, pages, stride: 1 };
    let addresses: Vec<u64> = span.addresses().collect();
    let mut status = vec![i32::MIN; addresses.len()];
    linux::sys::query_pages(0, &addresses, &mut status)?;
    let here = status.iter().take_while(|&&word| word == i32::from(node)).count();
    Ok(numbered(here))
}
