//! Sorts what comes from the guest: one thread reads the port, and each message goes to the run or
//! put that it belongs to.
//!
//! That thread never waits for a run: what a run has not taken yet is bounded by its window, which
//! the agent keeps to.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, mpsc};

use agent::frame::FrameError;
use agent::port::{PortError, Receiver, Sender, Window, lock};
use agent::protocol::{End, Id, Message, Stream};

/// What a run hears.
#[derive(Debug)]
pub(crate) enum Event {
    Output(Stream, Vec<u8>),
    Ended(End),
    Failed { code: u8, text: String },
}

/// The lab's end of one run or put.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) events: mpsc::Receiver<Event>,
    /// For its input.
    pub(crate) window: Arc<Window>,
}

/// Where messages go.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<Id, (mpsc::Sender<Event>, Arc<Window>)>,
    closed: bool,
    complaint: Option<String>,
}

impl Routes {
    /// A route for a new run or put; `None` once the guest is gone.
    pub(crate) fn open(&self, id: Id, window_bytes: usize) -> Option<Route> {
        let mut state = lock(&self.state);
        if state.closed {
            return None;
        }
        let (sender, events) = mpsc::channel();
        let window = Arc::new(Window::new(window_bytes));
        state.open.insert(id, (sender, Arc::clone(&window)));
        Some(Route { events, window })
    }

    /// Nobody listens to this one any more.
    pub(crate) fn forget(&self, id: Id) {
        if let Some((_, window)) = lock(&self.state).open.remove(&id) {
            window.close();
        }
    }

    /// What was wrong with the port, when that is why it was closed.
    pub(crate) fn complaint(&self) -> Option<String> {
        lock(&self.state).complaint.clone()
    }

    /// False when nobody listens.
    fn pass(&self, id: Id, event: Event) -> bool {
        let state = lock(&self.state);
        state.open.get(&id).is_some_and(|(sender, _)| sender.send(event).is_ok())
    }

    fn took(&self, id: Id, bytes: u32) {
        if let Some((_, window)) = lock(&self.state).open.get(&id) {
            window.give(bytes);
        }
    }

    fn close(&self, complaint: Option<String>) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.complaint = complaint;
        for (_, window) in std::mem::take(&mut state.open).into_values() {
            window.close();
        }
    }
}

/// The thread that reads.
pub(crate) struct Reading<W> {
    routes: Arc<Routes>,
    sender: Arc<Sender<W>>,
    ready: Option<mpsc::Sender<(u32, String)>>,
}

impl<W: Write> Reading<W> {
    /// `ready` hears the agent's version and its kernel, or is dropped.
    pub(crate) fn new(
        routes: Arc<Routes>,
        sender: Arc<Sender<W>>,
        ready: mpsc::Sender<(u32, String)>,
    ) -> Self {
        Self { routes, sender, ready: Some(ready) }
    }

    /// Reads until the guest is gone, or says what nobody understands.
    pub(crate) fn run(mut self, port: impl Read) {
        let mut receiver = Receiver::new(port);
        let complaint = loop {
            match receiver.receive() {
                Ok(Some(message)) => self.sort(message),
                Ok(None) | Err(PortError::Read(_)) => break None,
                // A firmware may have spoken on a serial port before.
                Err(PortError::Frame(FrameError::Garbage { .. })) if self.ready.is_some() => {}
                Err(error) => break Some(error.to_string()),
            }
        };
        self.routes.close(complaint);
    }

    fn sort(&mut self, message: Message) {
        match message {
            Message::Ready { version, kernel } => {
                if let Some(ready) = self.ready.take() {
                    let _ = ready.send((version, kernel));
                }
            }
            Message::Output { id, stream, bytes } => {
                let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                if !self.routes.pass(id, Event::Output(stream, bytes)) {
                    // A run that nobody waits for must not stand still for want of a reader.
                    let _ = self.sender.send(&Message::Took { id, bytes: count });
                }
            }
            Message::Took { id, bytes } => self.routes.took(id, bytes),
            Message::Ended { id, end } => {
                self.routes.pass(id, Event::Ended(end));
                self.routes.forget(id);
            }
            Message::Failed { id, code, text } => {
                self.routes.pass(id, Event::Failed { code, text });
                self.routes.forget(id);
            }
            // The lab's own words; a guest does not say them.
            Message::Put { .. }
            | Message::Run { .. }
            | Message::Input { .. }
            | Message::Resize { .. }
            | Message::Signal { .. }
            | Message::PowerOff => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that a lab does that reads these messages, with run 1 open.
    fn read(messages: &[Message]) -> (Arc<Routes>, Route, mpsc::Receiver<(u32, String)>) {
        let routes = Arc::new(Routes::default());
        let route = routes.open(1, 10).unwrap();
        let mut stream = Vec::new();
        for message in messages {
            agent::frame::encode(&message.encode(), &mut stream).unwrap();
        }
        let (ready, booted) = mpsc::channel();
        let sender = Arc::new(Sender::new(Vec::new()));
        Reading::new(Arc::clone(&routes), sender, ready).run(stream.as_slice());
        (routes, route, booted)
    }

    #[test]
    fn a_run_hears_its_output_and_its_end_and_nothing_of_others() {
        let output = |id| Message::Output { id, stream: Stream::Err, bytes: vec![7] };
        let end = Message::Ended { id: 1, end: End::Code(3) };
        let (_, route, _) = read(&[output(2), output(1), end]);
        assert!(
            matches!(route.events.recv(), Ok(Event::Output(Stream::Err, bytes)) if bytes == [7])
        );
        assert!(matches!(route.events.recv(), Ok(Event::Ended(End::Code(3)))));
        assert!(route.events.recv().is_err());
    }

    #[test]
    fn when_the_guest_is_gone_all_who_wait_hear_it_and_no_new_run_begins() {
        let (routes, route, booted) = read(&[]);
        assert!(route.events.recv().is_err());
        assert_eq!(route.window.take(1), None);
        assert!(booted.recv().is_err());
        assert!(routes.open(2, 1).is_none());
        assert_eq!(routes.complaint(), None);
    }
}
