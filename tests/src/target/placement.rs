//! Where pages lie, as text: `0*256 1*256 -*3 -EFAULT*2`.

use std::ffi::c_int;

use crate::error::errno_name;

/// Run lengths of the status words of move_pages(2), page by page.
///
/// A number is a node, `-` a page that is absent (`-ENOENT`), anything else the errno by name. The
/// zero page is `-EFAULT`.
pub(crate) fn run_lengths(words: &[c_int]) -> String {
    let runs = words.chunk_by(PartialEq::eq);
    let texts: Vec<String> =
        runs.map(|run| format!("{}*{}", word_text(run[0]), run.len())).collect();
    texts.join(" ")
}

fn word_text(word: c_int) -> String {
    match word {
        0.. => word.to_string(),
        _ if word == -libc::ENOENT => "-".to_owned(),
        _ => format!("-{}", errno_name(word.saturating_neg()).replace(' ', "-")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_nodes_absent_pages_and_errno_names() {
        let (absent, fault) = (-libc::ENOENT, -libc::EFAULT);
        assert_eq!(run_lengths(&[0, 0, 1, absent, absent, fault, 0]), "0*2 1*1 -*2 -EFAULT*1 0*1");
        assert_eq!(run_lengths(&[]), "");
    }

    #[test]
    fn an_unknown_word_survives_as_one_token() {
        assert_eq!(run_lengths(&[-524]), "-errno-524*1");
        assert_eq!(run_lengths(&[c_int::MIN]), "-errno-2147483647*1");
    }
}
