//! The little that the lab needs to know of an ELF file: who loads it, and where it ends.
//!
//! Only 64-bit little-endian files; others are packed as they are. Nothing in a file makes this
//! panic: a field that points outside of it means "not found".
//!
//! Source: elf(5).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

const PROGRAM_HEADER_BYTES: usize = 56;
const SECTION_HEADER_BYTES: usize = 64;
const PT_INTERP: u32 = 3;
/// Offset of `e_shoff`, and of `e_shentsize`, `e_shnum` and `e_shstrndx` in the file's header.
const E_SHOFF: usize = 40;
const E_SHENTSIZE: usize = 58;

/// An ELF file in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
}

impl<'a> Elf<'a> {
    /// `None` for what is no 64-bit little-endian ELF file.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        bytes.starts_with(b"\x7fELF\x02\x01").then_some(Self { bytes })
    }

    /// The program that loads this one (`PT_INTERP`); `None` for a static program or a library.
    pub(crate) fn interpreter(self) -> Option<PathBuf> {
        let (start, length) = self
            .segments()
            .find(|segment| segment.kind == PT_INTERP)
            .map(|s| (s.offset, s.length))?;
        let path = self.bytes.get(start..start.checked_add(length)?)?;
        let path = path.split(|&byte| byte == 0).next()?;
        (!path.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(path)))
    }

    /// The file without what only debuggers read: symbols, debug information, section headers.
    /// Kernel and dynamic loader know segments alone, so it runs as before; a debug build shrinks
    /// to a tenth, and the guest's boot with it.
    ///
    /// `None` when there is nothing to cut, or when something lies behind the section headers:
    /// some programs keep data of their own there.
    pub(crate) fn without_debug_information(self) -> Option<Vec<u8>> {
        let sections = usize::try_from(self.long(E_SHOFF)?).ok()?;
        let count = usize::from(self.half(E_SHENTSIZE + 2)?);
        if sections.checked_add(count * SECTION_HEADER_BYTES)? != self.bytes.len() {
            return None;
        }
        let end = self.segments().filter_map(|s| s.offset.checked_add(s.length)).max()?;
        let mut kept = self.bytes.get(..end)?.to_vec();
        kept.get_mut(E_SHOFF..E_SHOFF + 8)?.fill(0);
        kept.get_mut(E_SHENTSIZE + 2..E_SHENTSIZE + 6)?.fill(0);
        (end < self.bytes.len()).then_some(kept)
    }

    fn segments(self) -> impl Iterator<Item = Segment> + 'a {
        let table = self.long(32).and_then(|offset| usize::try_from(offset).ok());
        let count = self.half(56).unwrap_or(0);
        (0..usize::from(count)).filter_map(move |number| {
            let at = table?.checked_add(number * PROGRAM_HEADER_BYTES)?;
            Some(Segment {
                kind: self.word(at)?,
                offset: usize::try_from(self.long(at.checked_add(8)?)?).ok()?,
                length: usize::try_from(self.long(at.checked_add(32)?)?).ok()?,
            })
        })
    }

    fn field<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn half(self, at: usize) -> Option<u16> {
        self.field(at).map(u16::from_le_bytes)
    }

    fn word(self, at: usize) -> Option<u32> {
        self.field(at).map(u32::from_le_bytes)
    }

    fn long(self, at: usize) -> Option<u64> {
        self.field(at).map(u64::from_le_bytes)
    }
}

struct Segment {
    kind: u32,
    offset: usize,
    length: usize,
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// The program that runs this test: a dynamic one, with symbols.
    fn own_program() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn a_dynamic_program_names_its_interpreter() {
        let program = own_program();
        let interpreter = Elf::read(&program).unwrap().interpreter().unwrap();
        assert!(interpreter.is_absolute() && interpreter.exists(), "{}", interpreter.display());
    }

    #[test]
    fn a_program_without_its_debug_information_is_smaller_and_still_runs() {
        use std::os::unix::fs::PermissionsExt;

        let program = own_program();
        let small = Elf::read(&program).unwrap().without_debug_information().unwrap();
        assert!(small.len() < program.len());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small");
        std::fs::write(&path, &small).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let output = std::process::Command::new(&path).arg("--list").output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains("elf::tests"));
    }

    #[test]
    fn a_program_with_data_of_its_own_at_the_end_is_left_whole() {
        let mut program = own_program();
        program.extend_from_slice(b"an archive that the program reads itself");
        assert_eq!(Elf::read(&program).unwrap().without_debug_information(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes in vec(any::<u8>(), 64..300)) {
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            let elf = Elf::read(&bytes).unwrap();
            elf.interpreter();
            elf.without_debug_information();
        }
    }
}
