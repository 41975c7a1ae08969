//! The stories, by theme.

mod lifecycle;
