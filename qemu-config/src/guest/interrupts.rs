// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The way of a person's Ctrl-C, and of a new size of the terminal, to the guest that is running.

use std::fmt;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use hmm_control::WindowSize;

use super::event::Event;

/// Hands signals to the guest that was booted with it, or keeps them until one is. Clones are the same.
#[derive(Clone, Default)]
pub struct Interrupts(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    waiting: Vec<i32>,
    guest: Option<Sender<Event>>,
}

impl Interrupts {
    /// Tells the guest that this signal arrived. The first one of a command is handed to the command; the second
    /// one ends the guest. While the guest boots, the first one ends it.
    pub fn notify(&self, signal: i32) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.tell(Event::Interrupt(signal)) {
            state.waiting.push(signal);
        }
    }

    /// Tells the guest that the terminal has another size.
    pub fn resized(&self, size: WindowSize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A guest that is booted later starts with the size of that time.
        state.tell(Event::Resize(size));
    }

    pub(super) fn attach(&self, guest: &Sender<Event>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for signal in state.waiting.drain(..) {
            // The receiver is the caller's own and exists.
            let _ = guest.send(Event::Interrupt(signal));
        }
        state.guest = Some(guest.clone());
    }
}

impl State {
    /// Whether there is a guest that takes the event.
    fn tell(&mut self, event: Event) -> bool {
        let told = self
            .guest
            .as_ref()
            .is_some_and(|guest| guest.send(event).is_ok());
        if !told {
            self.guest = None;
        }
        told
    }
}

impl fmt::Debug for Interrupts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Interrupts")
    }
}
