//! Bringing bytes in: from sources, as whole models, under another protection.

mod models;
mod sources;
mod streams;
mod transitions;
