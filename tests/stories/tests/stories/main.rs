//! The stories, by theme.

mod delivery;
mod lifecycle;
mod outbox;
mod reconnection;
