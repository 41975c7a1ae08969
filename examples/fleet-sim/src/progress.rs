//! A progress bar on the terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// A progress bar on standard error; silent when that is no terminal.
#[derive(Debug)]
pub(crate) struct Bar {
    label: String,
    begun: Instant,
    shown: Option<Instant>,
    visible: bool,
}

impl Bar {
    pub(crate) fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), begun: Instant::now(), shown: None, visible: std::io::stderr().is_terminal() }
    }

    /// Shows that `done` of `all` are done, at most ten times a second.
    pub(crate) fn show(&mut self, done: usize, all: usize) {
        let fresh = self.shown.is_some_and(|shown| shown.elapsed() < Duration::from_millis(100));
        if !self.visible || (fresh && done < all) {
            return;
        }
        self.shown = Some(Instant::now());
        let filled = done * WIDTH / all.max(1);
        let bar: String = (0..WIDTH).map(|place| if place < filled { '#' } else { '.' }).collect();
        let percent = done * 100 / all.max(1);
        let secs = self.begun.elapsed().as_secs();
        // A bar that cannot be drawn is no reason to stop.
        let _ = write!(std::io::stderr(), "\r{} [{bar}] {percent:3} % {secs} s ", self.label);
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        if self.visible && self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r{:1$}\r", "", self.label.len() + WIDTH + 20);
        }
    }
}

const WIDTH: usize = 40;
