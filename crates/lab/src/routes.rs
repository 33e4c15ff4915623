//! Sorts what comes from the guest: one thread reads the port, and each message goes to the run or
//! put that it belongs to.
//!
//! That thread never waits for a run: what a run has not taken yet is bounded by its window, which
//! the agent keeps to. Nor does it send: the agent may wait to be read before it reads on.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, mpsc};

use agent::frame::FrameError;
use agent::port::{PortError, Receiver, Window, lock};
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

    /// Whether the guest is gone.
    pub(crate) fn are_closed(&self) -> bool {
        lock(&self.state).closed
    }

    /// What was wrong with the port, when that is why it was closed.
    pub(crate) fn complaint(&self) -> Option<String> {
        lock(&self.state).complaint.clone()
    }

    fn pass(&self, id: Id, event: Event) {
        if let Some((sender, _)) = lock(&self.state).open.get(&id) {
            // Nobody listens to a run that was dropped.
            let _ = sender.send(event);
        }
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
pub(crate) struct Reading {
    routes: Arc<Routes>,
    ready: Option<mpsc::Sender<(u32, String)>>,
}

impl Reading {
    /// `ready` hears the agent's version and its kernel, or is dropped.
    pub(crate) fn new(routes: Arc<Routes>, ready: mpsc::Sender<(u32, String)>) -> Self {
        Self { routes, ready: Some(ready) }
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
                self.routes.pass(id, Event::Output(stream, bytes));
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
            | Message::Reset { .. }
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
        Reading::new(Arc::clone(&routes), ready).run(stream.as_slice());
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
