//! getcpu, which makes no system call: the vDSO of a new program is told to make one.
//!
//! glibc's `getcpu` calls `__vdso_getcpu`, and so does `sched_getcpu` when rseq is off. The first
//! instructions of that function are overwritten, through `/proc/PID/mem`, by the system call
//! itself, which is handed over. The kernel copies the page for this process alone. A child by fork
//! inherits it, a new program does not: so the same bytes tell whether an execve has happened.
//!
//! Source: vdso(7); seen on Linux 6.18 with glibc 2.36.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;

use linux::Root;

use crate::sys::memory;

/// `mov eax, 309; syscall; ret`.
const GETCPU: [u8; 8] = [0xb8, 0x35, 0x01, 0x00, 0x00, 0x0f, 0x05, 0xc3];
/// `AT_SYSINFO_EHDR`: where the vDSO is.
const AUX_VDSO: u64 = 33;
/// The vDSO is two to four pages.
const VDSO_BYTES: usize = 4 * 4096;

/// Where `__vdso_getcpu` begins in the vDSO, which is the same for every program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Getcpu {
    offset: u64,
}

impl Getcpu {
    /// Finds the function in our own vDSO. `None`: this kernel has none.
    pub(crate) fn find() -> Option<Self> {
        let base = vdso_address("self")?;
        let own = File::open("/proc/self/mem").ok()?;
        let mut image = vec![0; VDSO_BYTES];
        let length = own.read_at(&mut image, base).ok()?;
        image.truncate(length);
        symbol(&image, b"__vdso_getcpu").map(|offset| Self { offset })
    }

    /// Rewrites the function in process `pid`; its address, if that could be done.
    pub(crate) fn rewrite(self, pid: u32) -> Option<u64> {
        let address = self.address(pid)?;
        let memory = OpenOptions::new().write(true).open(format!("/proc/{pid}/mem")).ok()?;
        memory.write_all_at(&GETCPU, address).ok()?;
        Some(address)
    }

    /// Where a process has the function rewritten by its ancestors; `None`: it is not.
    pub(crate) fn inherited(self, pid: u32) -> Option<u64> {
        self.address(pid).filter(|&address| is_rewritten(pid, address))
    }

    fn address(self, pid: u32) -> Option<u64> {
        vdso_address(&pid.to_string())?.checked_add(self.offset)
    }
}

/// Whether the function at `address` is rewritten as thread `tid` sees it: if not, this is another
/// program, or the thread has ended.
pub(crate) fn is_rewritten(tid: u32, address: u64) -> bool {
    let mut bytes = [0; GETCPU.len()];
    memory::read(tid, address, &mut bytes).is_ok() && bytes == GETCPU
}

fn vdso_address(pid: &str) -> Option<u64> {
    let auxv = Root::default().read_bytes(format!("proc/{pid}/auxv")).ok()?;
    let word = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
    auxv.chunks_exact(16).find_map(|pair| {
        let (key, value) = pair.split_at(8);
        (word(key)? == AUX_VDSO).then(|| word(value))?
    })
}

/// The value of a dynamic symbol of a 64-bit ELF image, which begins at address 0.
fn symbol(image: &[u8], name: &[u8]) -> Option<u64> {
    const SECTION_DYNSYM: usize = 11;
    const SYMBOL_BYTES: usize = 24;
    let sections = word(image, 0x28)?;
    let (size, count) = (half(image, 0x3a)?, half(image, 0x3c)?);
    let header = |index: usize| sections.checked_add(index.checked_mul(size)?);
    let field = |section: usize, offset: usize| word(image, section.checked_add(offset)?);
    let kind = |section: usize| Some(field(section, 4)? & 0xffff_ffff);
    let table =
        (0..count).filter_map(header).find(|&section| kind(section) == Some(SECTION_DYNSYM))?;
    let strings = field(header(field(table, 40)? & 0xffff_ffff)?, 24)?;
    let (start, bytes) = (field(table, 24)?, field(table, 32)?);
    (start..start.checked_add(bytes)?).step_by(SYMBOL_BYTES).find_map(|symbol| {
        let found = strings.checked_add(word(image, symbol)? & 0xffff_ffff)?;
        let end = found.checked_add(name.len())?;
        let is_it = image.get(found..end)? == name && image.get(end) == Some(&0);
        is_it.then(|| field(symbol, 8))?.and_then(|value| value.try_into().ok())
    })
}

/// Eight bytes at an offset.
fn word(image: &[u8], at: usize) -> Option<usize> {
    let bytes = image.get(at..at.checked_add(8)?)?.try_into().ok()?;
    usize::try_from(u64::from_le_bytes(bytes)).ok()
}

/// Two bytes at an offset.
fn half(image: &[u8], at: usize) -> Option<usize> {
    let bytes = image.get(at..at.checked_add(2)?)?.try_into().ok()?;
    Some(usize::from(u16::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn getcpu_is_found_in_our_own_vdso() {
        let found = Getcpu::find().expect("x86-64 kernels have __vdso_getcpu");
        assert!(found.offset > 0 && found.offset < VDSO_BYTES as u64);
    }

    #[test]
    fn an_image_that_is_no_elf_has_no_symbols() {
        for (length, byte) in (0..200).flat_map(|length| [(length, 0xff), (length, 0), (length, 1)])
        {
            assert_eq!(symbol(&vec![byte; length], b"x"), None);
        }
    }
}
