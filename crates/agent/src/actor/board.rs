//! What the processes of a scenario tell each other: whose turn it is, who is who, what is mapped
//! where, and the results.
//!
//! It is shared memory that is touched before the first scenario. So passing the turn and writing a
//! result allocates nothing, and a scenario sees no memory of its player come and go.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use rustix::thread::futex::{self, Timespec};
use scenario::layout::{PAGE_BYTES, Span, area_address};
use scenario::{Actor, Base, Place, RecordLine};

use crate::sys::{self, shared};

/// Room for the results of one scenario.
const TEXT_BYTES: usize = 1 << 20;
const LETTERS: usize = 26;
/// Before the first step.
const NOT_BEGUN: u32 = u32::MAX;

/// The board. A copy is another view of the same one, in this process and in its children.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Board {
    /// The step whose turn it is, and a count of who has made itself ready.
    words: &'static [AtomicU32],
    /// Process ids by letter, then addresses of areas, then pages of areas, then bytes of text.
    numbers: &'static [AtomicU64],
    text: &'static [AtomicU8],
}

const TURN: usize = 0;
const READY: usize = 1;
const WORDS: usize = 2;

const PIDS: usize = 0;
const ADDRESSES: usize = LETTERS;
const PAGES: usize = 2 * LETTERS;
const TEXT_USED: usize = 3 * LETTERS;
const NUMBERS: usize = TEXT_USED + 1;

impl Board {
    /// A new one, every page of it touched.
    ///
    /// # Errors
    ///
    /// What mmap(2) says.
    pub(crate) fn new() -> io::Result<Self> {
        let board =
            Self { words: shared(WORDS)?, numbers: shared(NUMBERS)?, text: shared(TEXT_BYTES)? };
        board.text.iter().for_each(|byte| byte.store(0, Ordering::Relaxed));
        board.clear();
        Ok(board)
    }

    /// Forgets everything: before a scenario.
    pub(crate) fn clear(self) {
        self.numbers.iter().for_each(|number| number.store(0, Ordering::SeqCst));
        self.words[READY].store(0, Ordering::SeqCst);
        self.words[TURN].store(NOT_BEGUN, Ordering::SeqCst);
    }

    // ---- whose turn it is ----

    /// The step whose turn it is; `None` before the first.
    pub(crate) fn turn(self) -> Option<usize> {
        match self.words[TURN].load(Ordering::SeqCst) {
            NOT_BEGUN => None,
            step => usize::try_from(step).ok(),
        }
    }

    /// Gives the turn to `step`.
    pub(crate) fn pass_turn(self, step: usize) {
        let step = u32::try_from(step).unwrap_or(NOT_BEGUN - 1);
        self.words[TURN].store(step, Ordering::SeqCst);
        self.wake(TURN);
    }

    /// Waits until it is no longer the turn of `step`, but at most `limit`.
    pub(crate) fn wait_turn(self, step: Option<usize>, limit: Option<&Timespec>) {
        let step = step.map_or(NOT_BEGUN, |step| u32::try_from(step).unwrap_or(NOT_BEGUN));
        self.wait(TURN, step, limit);
    }

    /// Says that a new process or thread is ready to take part.
    pub(crate) fn say_ready(self) {
        self.words[READY].fetch_add(1, Ordering::SeqCst);
        self.wake(READY);
    }

    /// How many have said so.
    pub(crate) fn ready(self) -> u32 {
        self.words[READY].load(Ordering::SeqCst)
    }

    /// Waits until more than `count` have said that they are ready, but at most `limit`.
    pub(crate) fn wait_ready(self, count: u32, limit: Option<&Timespec>) {
        self.wait(READY, count, limit);
    }

    fn wake(self, word: usize) {
        // It cannot fail: the address is one of ours.
        let _ = futex::wake(&self.words[word], futex::Flags::empty(), u32::MAX >> 1);
    }

    fn wait(self, word: usize, value: u32, limit: Option<&Timespec>) {
        // A wait that was cut short, or came too late, is seen by who asks again.
        let _ = futex::wait(&self.words[word], futex::Flags::empty(), value, limit);
    }

    // ---- who is who ----

    /// The process or thread id of an actor that has been made.
    pub(crate) fn pid(self, actor: Actor) -> Option<u32> {
        let number = self.numbers[PIDS + letter(actor.0)?].load(Ordering::SeqCst);
        u32::try_from(number).ok().filter(|&pid| pid != 0)
    }

    /// Notes the id of an actor.
    pub(crate) fn set_pid(self, actor: Actor, pid: u32) {
        if let Some(letter) = letter(actor.0) {
            self.numbers[PIDS + letter].store(u64::from(pid), Ordering::SeqCst);
        }
    }

    // ---- what is where ----

    /// Notes a mapping.
    pub(crate) fn set_area(self, area: char, address: u64, pages: u64) {
        if let Some(letter) = letter(area) {
            self.numbers[ADDRESSES + letter].store(address, Ordering::SeqCst);
            self.numbers[PAGES + letter].store(pages, Ordering::SeqCst);
        }
    }

    /// Address and pages of a mapping that was made.
    pub(crate) fn area(self, area: char) -> Option<(u64, u64)> {
        let letter = letter(area)?;
        let pages = self.numbers[PAGES + letter].load(Ordering::SeqCst);
        (pages > 0).then(|| (self.numbers[ADDRESSES + letter].load(Ordering::SeqCst), pages))
    }

    /// The pages of a place. `None` for an area that was not mapped.
    pub(crate) fn span(self, place: Place, own: KernelPages) -> Option<Span> {
        let (address, pages) = match place.base {
            Base::Area(area) => self.area(area)?,
            Base::Vdso => (own.vdso?.0, 1),
            Base::Vvar => (own.vvar?.0, 1),
            base => (base.fixed_address()?, 1),
        };
        Some(Span::of(place, address, pages))
    }

    // ---- results ----

    /// Adds a line of the record. What does not fit is told by [`Board::text`].
    pub(crate) fn write(self, line: &RecordLine) {
        let line = format!("{line}\n");
        let used = usize::try_from(self.numbers[TEXT_USED].load(Ordering::SeqCst));
        let used = used.unwrap_or(TEXT_BYTES);
        let places = self.text.get(used..).unwrap_or_default();
        places.iter().zip(line.bytes()).for_each(|(to, byte)| to.store(byte, Ordering::Relaxed));
        self.numbers[TEXT_USED].store((used + line.len()) as u64, Ordering::SeqCst);
    }

    /// All lines; `None` when they did not fit.
    pub(crate) fn text(self) -> Option<String> {
        let used = usize::try_from(self.numbers[TEXT_USED].load(Ordering::SeqCst)).ok()?;
        let bytes = self.text.get(..used)?;
        let bytes = bytes.iter().map(|byte| byte.load(Ordering::Relaxed)).collect();
        String::from_utf8(bytes).ok()
    }
}

/// Where the kernel's own pages lie in a process, and in all that it forks: start and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KernelPages {
    /// `[vdso]`.
    pub(crate) vdso: Option<(u64, u64)>,
    /// `[vvar]`, with what follows it.
    pub(crate) vvar: Option<(u64, u64)>,
}

impl KernelPages {
    /// Has the pages of the clock mapped, as a program has that reads it: Linux 7.3 counts those
    /// in migrate_pages(2). Before, they are no pages that could be populated (`EINVAL`).
    pub(crate) fn read_clock(self) {
        let Some((start, bytes)) = self.vvar else { return };
        for page in 0..bytes / PAGE_BYTES {
            let _ = sys::advise(start + page * PAGE_BYTES, PAGE_BYTES, libc::MADV_POPULATE_READ);
        }
    }
}

fn letter(letter: char) -> Option<usize> {
    let first = if letter.is_ascii_uppercase() { 'A' } else { 'a' };
    let number = u32::from(letter).checked_sub(u32::from(first))?;
    usize::try_from(number).ok().filter(|&number| number < LETTERS)
}

/// Where an area goes: where the scenario says, or where all players put it.
pub(crate) fn address_of(area: char, at: Option<u64>) -> u64 {
    at.unwrap_or_else(|| area_address(area))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_does_not_fit_is_told() {
        let board = Board::new().unwrap();
        let line = RecordLine::Result(3, "0 [1*4]".into());
        board.write(&line);
        board.write(&line);
        assert_eq!(board.text().as_deref(), Some("3 0 [1*4]\n3 0 [1*4]\n"));
        board.write(&RecordLine::Result(4, "x".repeat(TEXT_BYTES)));
        assert_eq!(board.text(), None);
        board.clear();
        assert_eq!(board.text().as_deref(), Some(""));
    }

    #[test]
    fn an_area_has_pages_once_it_is_mapped() {
        let board = Board::new().unwrap();
        let place = Place::all(Base::Area('b'));
        assert_eq!(board.span(place, KernelPages::default()), None);
        board.set_area('b', address_of('b', None), 4);
        let span = board.span(place, KernelPages::default()).unwrap();
        assert_eq!((span.start, span.pages), (0x10_1000_0000, 4));
    }

    #[test]
    fn the_turn_begins_with_nobody() {
        let board = Board::new().unwrap();
        assert_eq!(board.turn(), None);
        board.pass_turn(0);
        assert_eq!(board.turn(), Some(0));
        // Returns at once: it is no longer nobody's turn.
        board.wait_turn(None, None);
    }
}
