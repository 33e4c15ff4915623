//! `pread(2)` of whole 64-bit words: pagemap, kpageflags and kpagecount are arrays of them.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Reads words from the `index`-th on, straight into `words`; returns how many came.
///
/// No copy and no conversion: a survey reads millions of these.
///
/// # Errors
///
/// What pread(2) says; `EINVAL` for an index beyond any file.
///
/// Source: pread(2).
pub fn pread_words(file: impl AsFd, index: u64, words: &mut [u64]) -> io::Result<usize> {
    let offset = index
        .checked_mul(8)
        .and_then(|offset| libc::off64_t::try_from(offset).ok())
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the kernel writes at most `size_of_val(words)` bytes to a slice of that size that
    // outlives the call; any bits are a valid `u64`.
    let result = unsafe {
        libc::pread64(
            file.as_fd().as_raw_fd(),
            words.as_mut_ptr().cast(),
            size_of_val(words),
            offset,
        )
    };
    let bytes = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
    Ok(bytes / 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn words_come_from_their_index_and_a_torn_last_word_does_not_count() {
        let mut file = tempfile::tempfile().unwrap();
        for word in [10_u64, 11, 12] {
            file.write_all(&word.to_ne_bytes()).unwrap();
        }
        file.write_all(&[1, 2, 3]).unwrap();
        let mut words = [0; 4];
        assert_eq!(pread_words(&file, 1, &mut words).unwrap(), 2);
        assert_eq!(words[..2], [11, 12]);
        assert_eq!(pread_words(&file, 100, &mut words).unwrap(), 0);
    }

    #[test]
    fn an_index_beyond_any_file_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        let error = pread_words(&file, u64::MAX, &mut [0]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
