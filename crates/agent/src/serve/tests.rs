//! The agent on this computer, over a pair of sockets: all but being process 1.
//!
//! The agent collects every child of its process, so there is one for all tests, and each test has
//! it for itself.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{LazyLock, MutexGuard};

use super::*;
use crate::port::{CHUNK_BYTES, OUTPUT_WINDOW_BYTES};
use crate::protocol::{Stream, WindowSize};

static LAB: LazyLock<Mutex<Lab>> = LazyLock::new(|| Mutex::new(Lab::new()));

/// The other end of the port.
struct Lab {
    sender: Sender<UnixStream>,
    receiver: Receiver<UnixStream>,
    last_id: Id,
}

/// What one run or put left.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    out: Vec<u8>,
    err: Vec<u8>,
    how: Message,
    /// Bytes that other runs wrote meanwhile.
    beside: usize,
}

impl Lab {
    fn new() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(|| serve(File::from(OwnedFd::from(theirs)), Environment::Guest).unwrap());
        let mut receiver = Receiver::new(ours.try_clone().unwrap());
        let ready = receiver.receive().unwrap().unwrap();
        assert!(matches!(ready, Message::Ready { version: VERSION, .. }), "{ready:?}");
        Self { sender: Sender::new(ours), receiver, last_id: 0 }
    }

    fn for_one_test() -> MutexGuard<'static, Self> {
        lock(&LAB)
    }

    fn start(&mut self, script: &str) -> Id {
        self.start_words(&["sh", "-c", script])
    }

    fn start_words(&mut self, words: &[&str]) -> Id {
        self.start_command(words, None)
    }

    fn start_on_terminal(&mut self, words: &[&str]) -> Id {
        self.start_command(words, Some(WindowSize { rows: 24, columns: 80 }))
    }

    fn start_command(&mut self, words: &[&str], terminal: Option<WindowSize>) -> Id {
        let argv = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let command = Command { argv, terminal, ..Command::default() };
        self.last_id += 1;
        self.send(&Message::Run { id: self.last_id, command });
        self.last_id
    }

    fn put(&mut self, path: &Path, mode: u32, bytes: &[u8]) -> Message {
        self.last_id += 1;
        let id = self.last_id;
        self.send(&Message::Put { id, path: path.as_os_str().as_bytes().to_vec(), mode });
        self.input(id, bytes);
        self.input(id, b"");
        self.end_of(id).how
    }

    fn send(&self, message: &Message) {
        self.sender.send(message).unwrap();
    }

    fn input(&self, id: Id, bytes: &[u8]) {
        self.send(&Message::Input { id, bytes: bytes.to_vec() });
    }

    /// Reads until this one has ended; output of others is neither wanted nor acknowledged.
    fn end_of(&mut self, wanted: Id) -> Left {
        let (mut out, mut err, mut beside) = (Vec::new(), Vec::new(), 0);
        loop {
            let message = self.receiver.receive().unwrap().unwrap();
            match &message {
                Message::Output { id, stream, bytes } if *id == wanted => {
                    let to = if *stream == Stream::Out { &mut out } else { &mut err };
                    to.extend_from_slice(bytes);
                    let bytes = u32::try_from(bytes.len()).unwrap();
                    self.send(&Message::Took { id: wanted, bytes });
                }
                Message::Ended { id, .. } | Message::Failed { id, .. } if *id == wanted => {
                    return Left { out, err, how: message, beside };
                }
                Message::Output { bytes, .. } => beside += bytes.len(),
                _ => {}
            }
        }
    }

    fn wait_for(&mut self, wanted: &Message) {
        while self.receiver.receive().unwrap().unwrap() != *wanted {}
    }
}

#[test]
fn output_comes_by_stream_and_whole_before_the_exit_code() {
    let mut lab = Lab::for_one_test();
    let id = lab.start("echo out; echo err >&2; exit 3");
    let left = lab.end_of(id);
    assert_eq!((left.out.as_slice(), left.err.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(left.how, Message::Ended { id, end: End::Code(3) });
    let id = lab.start("head -c 1000000 /dev/zero");
    assert_eq!(lab.end_of(id).out, vec![0; 1_000_000]);
}

#[test]
fn input_reaches_the_command_and_so_does_its_end() {
    let mut lab = Lab::for_one_test();
    let id = lab.start("cat");
    let sent: Vec<u8> = (0..=255).cycle().take(4 * CHUNK_BYTES).collect();
    sent.chunks(CHUNK_BYTES).for_each(|piece| lab.input(id, piece));
    lab.input(id, b"");
    assert_eq!(lab.end_of(id).out, sent);
}

/// A shell that reads lines as they come, one that edits them, and one that leaves the rest of the
/// input to others; with a last line that is whole, and one that is not.
#[test]
fn programs_on_a_terminal_read_the_end_of_input() {
    let mut lab = Lab::for_one_test();
    let shells: [&[&str]; 2] = [&["sh"], &["busybox", "sh"]];
    for shell in shells {
        for (typed, said) in [
            ("echo h''i\n", "hi"),
            ("echo h''i", "hi"),
            ("", ""),
            ("cat; wc -c; echo h''i\na\nb", "hi"),
        ] {
            let id = lab.start_on_terminal(shell);
            if !typed.is_empty() {
                lab.input(id, typed.as_bytes());
            }
            lab.input(id, b"");
            let left = lab.end_of(id);
            let out = String::from_utf8_lossy(&left.out).into_owned();
            assert_eq!(left.how, Message::Ended { id, end: End::Code(0) }, "{shell:?}: {out}");
            assert!(out.contains(said), "{shell:?}: {typed:?}: {out}");
        }
    }
}

#[test]
fn all_that_was_written_to_a_terminal_comes_however_late_it_is_read() {
    let mut lab = Lab::for_one_test();
    let file = tempfile::NamedTempFile::new().unwrap();
    let script = format!(
        "echo $$ >{}; exec dd if=/dev/zero bs=1000 count=276 2>/dev/null",
        file.path().display()
    );
    let id = lab.start_on_terminal(&["sh", "-c", &script]);
    // The window is full, and the rest lies in the terminal, when the command ends.
    let mut seen = 0;
    while seen < OUTPUT_WINDOW_BYTES {
        if let Message::Output { bytes, .. } = lab.receiver.receive().unwrap().unwrap() {
            seen += bytes.len();
        }
    }
    let pid = fs::read_to_string(file.path()).unwrap();
    let wait = lab.start_words(&["tail", &format!("--pid={}", pid.trim()), "-f", "/dev/null"]);
    assert_eq!(lab.end_of(wait).how, Message::Ended { id: wait, end: End::Code(0) });
    lab.send(&Message::Took { id, bytes: u32::try_from(seen).unwrap() });
    assert_eq!(seen + lab.end_of(id).out.len(), 276_000);
}

#[test]
fn what_writes_on_to_a_terminal_does_not_hold_the_command() {
    let mut lab = Lab::for_one_test();
    let id = lab.start_on_terminal(&["sh", "-c", "(trap '' HUP; exec yes) & echo $!"]);
    let left = lab.end_of(id);
    assert_eq!(left.how, Message::Ended { id, end: End::Code(0) });
    let digits: Vec<u8> = left.out.into_iter().filter(u8::is_ascii_digit).collect();
    let id = lab.start(&format!("kill -9 {}", String::from_utf8(digits).unwrap()));
    assert_eq!(lab.end_of(id).how, Message::Ended { id, end: End::Code(0) });
}

#[test]
fn a_command_that_stops_reading_is_no_reason_for_the_lab_to_wait() {
    let mut lab = Lab::for_one_test();
    let id = lab.start("exec <&-; echo closed; exec sleep 1000");
    lab.wait_for(&Message::Output { id, stream: Stream::Out, bytes: b"closed\n".to_vec() });
    lab.input(id, b"unread");
    lab.wait_for(&Message::Took { id, bytes: 6 });
    lab.send(&Message::Signal { id, signal: 9 });
    lab.end_of(id);
}

#[test]
fn a_killed_command_tells_its_signal() {
    let mut lab = Lab::for_one_test();
    let id = lab.start_words(&["sleep", "1000"]);
    lab.send(&Message::Signal { id, signal: 15 });
    assert_eq!(lab.end_of(id).how, Message::Ended { id, end: End::Signal(15) });
}

#[test]
fn a_program_that_is_not_there_fails_as_in_a_shell() {
    let mut lab = Lab::for_one_test();
    let id = lab.start_words(&["no-such-program"]);
    let how = lab.end_of(id).how;
    let Message::Failed { code: 127, text, .. } = how else { panic!("{how:?}") };
    assert!(text.starts_with("cannot start no-such-program: "), "{text}");
}

#[test]
fn what_a_command_leaves_in_the_background_does_not_hold_it() {
    let mut lab = Lab::for_one_test();
    let id = lab.start("sleep 1000 & echo $!");
    let left = lab.end_of(id);
    assert_eq!(left.how, Message::Ended { id, end: End::Code(0) });
    let kill = format!("kill {}", String::from_utf8(left.out).unwrap());
    let id = lab.start(&kill);
    assert_eq!(lab.end_of(id).how, Message::Ended { id, end: End::Code(0) });
}

#[test]
fn the_end_of_a_command_is_seen_while_later_ones_run() {
    let mut lab = Lab::for_one_test();
    let first = lab.start("sleep 1000 & read -r line; kill $! & exit 4");
    let later = lab.start_words(&["sleep", "1000"]);
    lab.input(first, b"line\n");
    assert_eq!(lab.end_of(first).how, Message::Ended { id: first, end: End::Code(4) });
    lab.send(&Message::Signal { id: later, signal: 9 });
    lab.end_of(later);
}

#[test]
fn a_run_that_nobody_reads_stands_still_at_its_window_and_others_go_on() {
    let mut lab = Lab::for_one_test();
    let unread = lab.start_words(&["yes"]);
    let mut seen = 0;
    while seen < OUTPUT_WINDOW_BYTES {
        if let Message::Output { bytes, .. } = lab.receiver.receive().unwrap().unwrap() {
            seen += bytes.len();
        }
    }
    assert_eq!(seen, OUTPUT_WINDOW_BYTES);
    let other = lab.start("echo on");
    let left = lab.end_of(other);
    assert_eq!((left.out.as_slice(), left.beside), (&b"on\n"[..], 0));
    lab.send(&Message::Signal { id: unread, signal: 9 });
    lab.send(&Message::Took { id: unread, bytes: u32::MAX });
    assert_eq!(lab.end_of(unread).how, Message::Ended { id: unread, end: End::Signal(9) });
}

#[test]
fn a_file_is_put_with_its_folders_and_its_mode_in_place_of_an_old_one() {
    let mut lab = Lab::for_one_test();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/file");
    for (mode, bytes) in [(0o600, &b"old and long"[..]), (0o751, &b"new"[..])] {
        let how = lab.put(&path, mode, bytes);
        assert!(matches!(how, Message::Ended { end: End::Code(0), .. }), "{how:?}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
    }
}

#[test]
fn a_file_that_cannot_be_put_is_named() {
    let mut lab = Lab::for_one_test();
    let file = tempfile::NamedTempFile::new().unwrap();
    let how = lab.put(&file.path().join("below"), 0o644, b"bytes");
    let Message::Failed { text, .. } = how else { panic!("{how:?}") };
    assert!(text.contains("below"), "{text}");
}
