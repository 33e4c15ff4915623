//! Where this computer gets its Debian packages from: its own apt sources, read and never changed.
//!
//! The lab asks the same mirrors for suites that the computer itself does not follow. So no host
//! name is written here, and a proxy or a mirror of the house is used as it should be.
//!
//! Both forms are read: lines (`deb [options] URI suite component...`, `*.list`) and paragraphs of
//! fields (`*.sources`). Source: sources.list(5).

use std::fs;
use std::path::{Path, PathBuf};

/// Folder with apt's configuration.
const APT: &str = "/etc/apt";
/// Names of Debian's releases and of the links to them; those of other archives (and of other
/// distributions) are none of ours.
const RELEASES: [&str; 11] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "oldoldstable",
];

/// Mirrors of Debian that this computer uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirrors {
    /// The archive itself.
    pub(crate) archive: String,
    /// Security updates; some computers follow none.
    pub(crate) security: Option<String>,
}

impl Mirrors {
    /// Reads the computer's own sources; `None` when none of them is Debian.
    pub(crate) fn of_this_computer() -> Option<Self> {
        Self::from_sources(&sources(Path::new(APT)))
    }

    fn from_sources(sources: &[Source]) -> Option<Self> {
        let with = |is: fn(&str) -> bool| {
            sources.iter().find(|source| is(&source.suite)).map(|source| source.uri.clone())
        };
        let archive = with(|suite| RELEASES.contains(&suite))?;
        let security = with(|suite| {
            let release = suite.strip_suffix("-security").or(suite.strip_suffix("/updates"));
            release.is_some_and(|release| RELEASES.contains(&release))
        });
        Some(Self { archive, security })
    }
}

/// One suite of one archive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    suite: String,
}

/// All sources below apt's folder. What cannot be read holds none.
fn sources(apt: &Path) -> Vec<Source> {
    let parts = fs::read_dir(apt.join("sources.list.d"));
    let mut files: Vec<PathBuf> =
        parts.into_iter().flatten().flatten().map(|part| part.path()).collect();
    files.sort();
    files.insert(0, apt.join("sources.list"));
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap_or_default();
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => from_lines(&text),
            Some("sources") => from_paragraphs(&text),
            _ => Vec::new(),
        }
    };
    files.into_iter().flat_map(read).collect()
}

fn from_lines(text: &str) -> Vec<Source> {
    let source = |line: &str| {
        let rest = line.trim().strip_prefix("deb")?;
        let rest = rest.starts_with([' ', '\t']).then_some(rest.trim_start())?;
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        Some(Source { uri: words.next()?.to_owned(), suite: words.next()?.to_owned() })
    };
    text.lines().filter_map(source).collect()
}

fn from_paragraphs(text: &str) -> Vec<Source> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.split(|line| line.trim().is_empty()).flat_map(from_paragraph).collect()
}

fn from_paragraph(lines: &[&str]) -> Vec<Source> {
    let has = |name: &str, word: &str| field(lines, name).contains(&word);
    if !has("Types", "deb") || has("Enabled", "no") {
        return Vec::new();
    }
    let (uris, suites) = (field(lines, "URIs"), field(lines, "Suites"));
    let source = |uri: &str, suite: &str| Source { uri: uri.to_owned(), suite: suite.to_owned() };
    uris.iter().flat_map(|uri| suites.iter().map(move |suite| source(uri, suite))).collect()
}

/// The words of a field, with its continuation lines.
fn field<'a>(lines: &[&'a str], name: &str) -> Vec<&'a str> {
    let value = |line: &&'a str| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value)
    };
    let Some(at) = lines.iter().position(|line| value(line).is_some()) else { return Vec::new() };
    let continued =
        lines[at + 1..].iter().copied().take_while(|line| line.starts_with([' ', '\t']));
    value(&lines[at]).into_iter().chain(continued).flat_map(str::split_whitespace).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARAGRAPHS: &str = "\
Types: deb deb-src
# a comment inside
URIs: http://mirror.example/debian
Suites: bookworm
 bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example/security
suites: bookworm-security

Types: deb
URIs: http://off.example/debian
Suites: sid
Enabled: no
";

    #[test]
    fn mirrors_are_read_from_paragraphs() {
        let mirrors = Mirrors::from_sources(&from_paragraphs(PARAGRAPHS)).unwrap();
        assert_eq!(mirrors.archive, "http://mirror.example/debian");
        assert_eq!(mirrors.security.as_deref(), Some("http://mirror.example/security"));
        assert_eq!(from_paragraphs(PARAGRAPHS).len(), 3, "a source that is off is not there");
    }

    #[test]
    fn mirrors_are_read_from_lines() {
        let text = "# deb http://no.example/debian trixie main\n\
                    deb-src http://no.example/debian trixie main\n\
                    deb http://other.example/apt nodistro main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian trixie main\n";
        let mirrors = Mirrors::from_sources(&from_lines(text)).unwrap();
        assert_eq!(mirrors.archive, "http://mirror.example/debian");
        assert_eq!(mirrors.security, None);
    }

    #[test]
    fn a_computer_that_is_no_debian_has_no_mirror() {
        let text = "deb http://mirror.example/ubuntu noble main\n";
        assert_eq!(Mirrors::from_sources(&from_lines(text)), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in "(.|\n)*") {
            from_lines(&text);
            from_paragraphs(&text);
        }
    }
}
